"""Cards of several kinds, and several cards: what runs where, and what is refused before anything is decoded."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from functools import lru_cache

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.cuda import structs
from tdtdecode.networks.cuda.program import FRAMES, MANY_COLUMNS, Launch
from tests.conftest import random_frames
from tests.cuda.helpers import on
from tests.cuda.test_fused import MODELS, cuda_decoder
from tests.decoding.fused_helpers import check_same_bits, fused, random_weights
from tests.decoding.test_beam import check_same
from tests.host_cuda import emulated_cupy

SPEC, OPTIONS = MODELS["one-layer"]
SEARCHES = [tdt.Greedy(), tdt.Beam(size=2)]


def in_another_thread(function):
    """What a function returns, or raises, in a new thread. There the first card is current."""
    results = []

    def run():
        try:
            results.append(function())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


class TestSeveralCards:
    @pytest.mark.parametrize("search", SEARCHES, ids=["greedy", "beam"])
    def test_a_decoder_stays_on_its_card(self, search):
        weights = random_weights(SPEC, seed=3, **OPTIONS)
        frames, lengths = random_frames(3, SPEC.encoder_size, 12, seed=3)
        expected = fused(weights, SPEC).decode(frames, lengths, search)
        with on("emulated", count=2) as cupy:
            with cupy.cuda.Device(1):
                decoder = cuda_decoder(weights, SPEC)
                on_second = cupy.asarray(frames)
            check_same(in_another_thread(lambda: decoder.decode(frames, lengths, search)), expected)
            check_same(in_another_thread(lambda: decoder.decode(on_second, lengths, search)), expected)

            def in_chunks():
                states = [decoder.decode_chunk(frames[i : i + 1, :, :5], search=search)[1] for i in range(3)]
                joined = tdt.decoder.DecoderState.join(states).select([2, 0, 1])
                return decoder.decode_chunk(frames[[2, 0, 1], :, 5:], None, joined, final=True, search=search)[0]

            expected_end = in_another_thread(in_chunks)
            assert cupy.cuda.runtime.getDevice() == 0, "the caller's card is what it was"
            with cupy.cuda.Device(1):
                check_same_bits(in_chunks(), expected_end)

    def test_functions_of_the_user(self):
        spec = tdt.TransducerSpec(vocab_size=3, durations=(1,), encoder_size=2)
        with on("emulated", count=2) as cupy:
            cards = []

            def predict(tokens, state):
                cards.append(cupy.cuda.runtime.getDevice())
                return cupy.zeros((len(tokens), 1), np.float32), cupy.zeros((len(tokens), 1), np.float32)

            def joint(frames, g):
                return cupy.zeros((len(frames), 5), np.float32)

            with cupy.cuda.Device(1):
                decoder = tdt.Decoder(tdt.CallableNetwork(predict, joint, lambda s, i: s, device="cuda"), spec)
            in_another_thread(lambda: decoder.decode(np.zeros((1, 2, 4), np.float32)))
            assert set(cards) == {1}

    def test_arrays_of_another_card_are_refused(self):
        weights = random_weights(SPEC, **OPTIONS)
        with on("emulated", count=2) as cupy:
            decoder = cuda_decoder(weights, SPEC)
            with cupy.cuda.Device(1):
                elsewhere = cupy.asarray(np.zeros((1, SPEC.encoder_size, 4), np.float32))
            for given in (elsewhere, [elsewhere[0]]):
                with pytest.raises(tdt.DeviceError, match="encoder_out.* is on CUDA device 1, the decoder on 0"):
                    decoder.decode(given)

    def test_states_of_another_card_do_not_mix(self):
        weights = random_weights(SPEC, **OPTIONS)
        frames = np.zeros((1, SPEC.encoder_size, 4), np.float32)
        with on("emulated", count=2) as cupy:
            first = cuda_decoder(weights, SPEC).decode_chunk(frames)[1]
            with cupy.cuda.Device(1):
                decoder = cuda_decoder(weights, SPEC)
            with pytest.raises(tdt.InputError, match="another network"):
                decoder.decode_chunk(frames, None, first)

    def test_the_emulation_refuses_what_a_driver_refuses(self):
        with on("emulated", count=2) as cupy:
            array = cupy.zeros(8, np.float32)
            stream = cupy.cuda.Stream(non_blocking=True)
            with cupy.cuda.Device(1):
                with pytest.raises(AssertionError, match="an array of card 0 is used on card 1"):
                    array.fill(1)
                with pytest.raises(AssertionError, match="a stream of card 0 on card 1"), stream:
                    pass
            with pytest.raises(AssertionError, match="there is no memory at"):
                emulated_cupy.MEMORY.check(12345)
            with pytest.raises(RuntimeError, match="invalid device"):
                cupy.cuda.Device(2)


@lru_cache
def parakeet_weights():
    return random_weights(TestSharedMemory.SPEC, 640, 640, 2, seed=1)


class TestSharedMemory:
    """A block has 227 KB on an H100, 99 KB on an RTX 4090, 64 KB on a T4."""

    SPEC = tdt.TransducerSpec(1024, encoder_size=1024)

    @pytest.mark.parametrize("precision", ["float32", "float16"])
    @pytest.mark.parametrize("shared_memory, staged", [(232_448, 32), (101_376, 16), (65_536, 8)])
    def test_parakeets_sizes_fit(self, shared_memory, staged, precision):
        with on("emulated", shared_memory=shared_memory):
            network = cuda_decoder(parakeet_weights(), self.SPEC, precision).network.on_device
            spread = network.spread(FRAMES, MANY_COLUMNS)
            found = spread.parameters["net"]["staged"][0]
            assert max(spread.shared, network.spread("fused_beam.cu", MANY_COLUMNS).shared) <= shared_memory
            assert found == staged if precision == "float32" else found >= staged

    def test_what_cannot_fit_is_refused_when_the_decoder_is_made(self):
        weights = parakeet_weights()
        with on("emulated", shared_memory=40_000):
            with pytest.raises(tdt.DeviceError, match="bytes of shared memory.*precision='float16', network='ort'"):
                cuda_decoder(weights, self.SPEC)
        with on("emulated", shared_memory=20_000):
            with pytest.raises(tdt.DeviceError, match="bytes of shared memory.*: use network='ort' or device='cpu'"):
                cuda_decoder(weights, self.SPEC, "float16")

    @pytest.mark.parametrize("shared_memory", [60_000, 80_000, 232_448])
    def test_results_do_not_depend_on_it(self, shared_memory):
        spec = tdt.TransducerSpec(30, encoder_size=600)
        weights = random_weights(spec, 16, 16, 1, seed=2)
        frames, lengths = random_frames(12, 600, 9, seed=2)
        with on("emulated"):
            expected = cuda_decoder(weights, spec).decode(frames, lengths)
        with on("emulated", shared_memory=shared_memory):
            check_same_bits(expected, cuda_decoder(weights, spec).decode(frames, lengths))

    def test_kernels_that_keep_no_weights_leave_the_rest_to_the_cache(self):
        with on("emulated") as cupy:
            asked = {}
            call = emulated_cupy.RawKernel.__call__

            def noted(kernel, grid, block, args, shared_mem=0):
                asked[kernel._name] = shared_mem
                call(kernel, grid, block, args, shared_mem)

            decoder = cuda_decoder(random_weights(SPEC, **OPTIONS), SPEC)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(emulated_cupy.RawKernel, "__call__", noted)
                decoder.decode(np.zeros((1, SPEC.encoder_size, 4), np.float32))
            assert cupy is sys.modules["cupy"]
        assert asked["fused_greedy"] == emulated_cupy.DEVICE.shared_memory
        assert asked["project_frames"] == asked["restore_states"] < emulated_cupy.DEVICE.shared_memory


class TestLaunch:
    @pytest.mark.parametrize("how", ["counter", "flags", "phases"])
    def test_the_environment_chooses(self, monkeypatch, how):
        from tdtdecode.networks.cuda.fused import FusedCudaNetwork

        monkeypatch.setenv("TDTDECODE_CUDA_LAUNCH", how)
        with on("emulated"):
            network = FusedCudaNetwork(random_weights(SPEC, **OPTIONS), SPEC)
        launch = network.on_device.launch
        assert (launch.persistent, launch.barrier) == (how != "phases", "flags" if how == "flags" else "counter")

    def test_what_it_cannot_be(self, monkeypatch):
        from tdtdecode.cuda.device import current_device

        monkeypatch.setenv("TDTDECODE_CUDA_LAUNCH", "graph")
        with on("emulated"), pytest.raises(tdt.InputError, match="must be one of counter, flags, phases, got 'graph'"):
            Launch.of(current_device())
        monkeypatch.setenv("TDTDECODE_CUDA_LAUNCH", "flags")
        with on("emulated", cooperative=False), pytest.raises(tdt.DeviceError, match="cannot launch cooperatively"):
            Launch.of(current_device())
        with pytest.raises(tdt.InputError, match="slots must be from 1 to 128, got 200"):
            Launch(blocks=4, threads=512, persistent=True, slots=200)

    def test_errors_of_cuda(self, monkeypatch):
        """They say what to do; what was lent to the decode is not used again."""
        with on("emulated") as cupy:
            decoder = cuda_decoder(random_weights(SPEC, **OPTIONS), SPEC)
            frames = np.zeros((1, SPEC.encoder_size, 4), np.float32)
            expected = decoder.decode(frames)

            def refuse(*_, **__):
                raise cupy.cuda.runtime.CUDARuntimeError("cudaErrorLaunchFailure: unspecified launch failure")

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(emulated_cupy.RawKernel, "__call__", refuse)
                with pytest.raises(tdt.DeviceError, match="launch failure.*TDTDECODE_CUDA_LAUNCH=phases"):
                    decoder.decode(frames)
            check_same_bits(expected, decoder.decode(frames))

    def test_blocks_that_wait_for_ever_end_the_launch(self):
        command = [sys.executable, "-m", "tests.host_cuda.decode_all", "never_all_there"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ})
        assert done.returncode and "a kernel has failed" in done.stderr and "done" not in done.stdout

    def test_nothing_is_launched_where_nothing_waits(self):
        """A kernel would read encoder output that the caller may already have freed."""
        with on("emulated"):
            decoder = cuda_decoder(random_weights(SPEC, **OPTIONS), SPEC)
            before = emulated_cupy.TRANSFERS["launches"]
            found, state = decoder.decode_chunk(np.zeros((2, SPEC.encoder_size, 4), np.float32), [0, 0])
            assert emulated_cupy.TRANSFERS["launches"] == before and [len(h) for h in found] == [0, 0]
            decoder.decode_chunk(np.zeros((2, SPEC.encoder_size, 4), np.float32), None, state, final=True)


def test_threads_with_one_decoder():
    """Each has memory of its own, and cooperative launches take turns."""
    spec, options = MODELS["parakeet"]
    weights = random_weights(spec, seed=5, **options)
    frames, lengths = random_frames(8, spec.encoder_size, 15, seed=5)
    with on("emulated"):
        decoder = cuda_decoder(weights, spec)
        expected = decoder.decode(frames, lengths)
        found = [None] * 4

        def decode(i):
            for _ in range(3):
                found[i] = decoder.decode(frames[i::4], lengths[i::4])

        threads = [threading.Thread(target=decode, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for i in range(4):
        check_same_bits(found[i], expected[i::4])


@pytest.mark.parametrize(
    "file, wrong",
    [
        ("fused_beam.cu", {"Entry": structs.ENTRY_BYTES + 8}),
        ("fused_greedy.cu", {"kMaxSlots": 64}),
        ("fused_beam.cu", {"Requests": structs.WANTED}),
    ],
)
def test_one_wrong_byte_does_not_compile(monkeypatch, file, wrong):
    """The compiler compares every structure with `structs`: sizes, and where fields begin."""
    monkeypatch.setitem(structs.IN_FILES, file, structs.IN_FILES[file] | wrong)
    with on("emulated"), pytest.raises(RuntimeError, match="static assertion failed|has no member"):
        cuda_decoder(random_weights(SPEC, **OPTIONS), SPEC).network.on_device.spread(file, MANY_COLUMNS)


def test_a_forked_process_is_told_why():
    """CUDA does not survive a fork. Its own errors do not say so."""
    with on("emulated"):
        decoder = cuda_decoder(random_weights(SPEC, **OPTIONS), SPEC)
        frames = np.zeros((1, SPEC.encoder_size, 4), np.float32)
        decoder.decode(frames)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                decoder.decode(frames)
            except tdt.DeviceError as error:
                os.write(writing, str(error).encode())
            os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        said = os.read(reading, 10_000).decode()
        os.close(reading)
    assert "forked after CUDA was used" in said and "spawn" in said


def test_memory_is_used_again():
    """After the first decode nothing is made but two blocks of the device's memory, which come from CuPy's pool."""
    from benches.gpu import host

    for batch, found in host.measure((1, 5), runs=3).items():
        assert found["arrays"] == 2 and found["copies"] == 2 and found["launches"] == 3, (batch, found)
        assert found["bytes_kept"] < 100_000


def test_options_of_the_provider():
    """By default ONNX Runtime would round products to TF32 and try every convolution anew for each shape."""
    from tdtdecode.sessions import cuda_options

    assert cuda_options(1, 4096, tf32=True)["use_tf32"] == "1"
    options = cuda_options(1, 4096, tf32=False)
    assert options["use_tf32"] == "0" and options["cudnn_conv_algo_search"] == "HEURISTIC"
    assert options["arena_extend_strategy"] == "kSameAsRequested"
    assert options["device_id"] == 1 and options["user_compute_stream"] == "4096"


def test_an_encoder_that_the_card_cannot_run(tmp_path, monkeypatch):
    """ONNX Runtime opens a session without cuDNN, and fails only where an operator needs it."""
    from benches.random_bundle import make_bundle
    from tdtdecode.bundle import read_bundle
    from tdtdecode.speech.encoder import Encoder

    make_bundle(tmp_path, "split", vocab_size=20, mel_bins=16, encoder_size=16, predictor_size=12, joint_size=14)

    def fails(*_):
        raise RuntimeError("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : cuDNN is not available")

    monkeypatch.setattr(Encoder, "_run", fails)
    with on("emulated"), pytest.raises(tdt.DeviceError, match="cuDNN is not available.*pip install 'tdtdecode.gpu.'"):
        Encoder(read_bundle(tmp_path), device="cuda")
