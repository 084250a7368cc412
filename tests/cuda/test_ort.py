"""ONNX Runtime's graphs on a card, emulated or real; all kinds of encoder output; the order of streams."""

from __future__ import annotations

import importlib.util

import numpy as np
import onnxruntime
import pytest

import tdtdecode as tdt
from benches.random_bundle import make_bundle
from tdtdecode import load_model
from tdtdecode.bundle import CombinedTransducer, read_bundle
from tests.conftest import random_frames
from tests.cuda.helpers import PROVIDER_CARDS, cupy, emulated, is_emulated, on  # noqa: F401 - a fixture
from tests.decoding.compare import check_same_hypotheses
from tests.decoding.fused_helpers import check_same_bits, random_weights
from tests.decoding.test_beam import check_same
from tests.decoding.test_networks import whole_graph
from tests.host_cuda import emulated_cupy
from tests.k2_models import Sizes, write_model

pytestmark = pytest.mark.filterwarnings("ignore::tdtdecode.errors.SlowerWarning")
"""These tests choose slower ways on purpose."""

SIZES = {"encoder_size": 16, "predictor_size": 12, "joint_size": 14}


@pytest.fixture(params=["split", "combined", "genai", "whole", "k2"])
def bundle(request, tmp_path, monkeypatch):
    if request.param == "k2":
        return read_bundle(write_model(tmp_path, Sizes(entries=21, decoder=12, joiner=16), blank_bias=0.0))
    if request.param == "whole":
        whole_graph(monkeypatch)
    make_bundle(tmp_path, "combined" if request.param == "whole" else request.param, vocab_size=20, seed=3, **SIZES)
    bundle = read_bundle(tmp_path)
    assert isinstance(bundle.transducer, CombinedTransducer) == (request.param == "whole")
    return bundle


class TestGraphs:
    @pytest.fixture(params=PROVIDER_CARDS)
    def cupy(self, request):  # noqa: F811
        with on(request.param) as module:
            yield module

    @pytest.mark.parametrize(
        "search",
        [tdt.Greedy(), tdt.Greedy(max_symbols=1, blank_penalty=2), tdt.Beam(size=3), tdt.Beam("malsd", size=4)],
        ids=["greedy", "capped", "tsd", "malsd"],
    )
    def test_they_are_those_of_the_cpu(self, cupy, bundle, search):  # noqa: F811
        frames, lengths = random_frames(7, 16, 20, seed=1)
        expected = tdt.Decoder.from_bundle(bundle, network="ort").decode(frames, lengths, search)
        decoder = tdt.Decoder.from_bundle(bundle, network="ort", device="cuda")
        check_same(decoder.decode(frames, lengths, search), expected)

    def test_float16_graphs(self, cupy, tmp_path):  # noqa: F811
        make_bundle(tmp_path, "split", vocab_size=20, seed=3, precision="fp16", **SIZES)
        frames, lengths = random_frames(4, 16, 20, seed=1)
        cpu, cuda = (
            tdt.Decoder.from_bundle(tmp_path, network="ort", device=name, variant="fp16") for name in ("cpu", "cuda")
        )
        found = cuda.decode(frames, lengths)
        if is_emulated(cupy):
            check_same(found, cpu.decode(frames, lengths))
        assert any(map(len, found))

    def test_more_utterances_than_one_run_takes(self, cupy, bundle, monkeypatch):  # noqa: F811
        from tdtdecode.networks.cuda.ort import OrtCudaNetwork

        frames, lengths = random_frames(9, 16, 12, seed=1)
        decoder = tdt.Decoder.from_bundle(bundle, network="ort", device="cuda")
        searches = tdt.Greedy(), tdt.Beam(size=2)
        expected = [decoder.decode(frames, lengths, search) for search in searches]
        monkeypatch.setattr(OrtCudaNetwork, "max_rows", 4)
        for search, whole in zip(searches, expected):
            check_same(decoder.decode(frames, lengths, search), whole)

    @pytest.mark.parametrize("search", [tdt.Greedy(), tdt.Beam(size=2)], ids=["greedy", "beam"])
    def test_chunks_and_streams_that_come_and_go(self, cupy, bundle, search):  # noqa: F811
        frames, lengths = random_frames(4, 16, 18, seed=2)
        decoder = tdt.Decoder.from_bundle(bundle, network="ort", device="cuda")
        whole = decoder.decode(frames, lengths, search)
        state, tokens, order = None, [[] for _ in whole], np.arange(4)
        for start in range(0, 18, 5):
            piece = frames[order, :, start : start + 5]
            here = np.clip(lengths[order] - start, 0, piece.shape[2])
            found, state = decoder.decode_chunk(piece, here, state, final=start + 5 >= 18, search=search)
            for stream, hypothesis in zip(order, found):
                tokens[stream] += hypothesis.tokens.tolist()
            if start + 5 < 18:
                state, order = state.select([2, 0, 3, 1]), order[[2, 0, 3, 1]]
        assert tokens == [h.tokens.tolist() for h in whole]

    def test_the_log_is_emptied_when_full(self, cupy, tmp_path):  # noqa: F811
        make_bundle(tmp_path, "split", vocab_size=20, durations=(0,), seed=3, **SIZES)
        frames, lengths = random_frames(2, 16, 30, seed=1)
        decoder = tdt.Decoder.from_bundle(tmp_path, network="ort", device="cuda", durations=(0,))
        found = decoder.decode(frames, lengths, tdt.Greedy(max_symbols=10, blank_penalty=1000))
        assert [len(h) for h in found] == [10 * length for length in lengths], "ten tokens on each frame"

    def test_what_comes_to_the_host(self, bundle):
        """A few integers every few rounds, as often for many utterances as for one, and never a joint row."""
        counts = []
        with emulated():
            decoder = tdt.Decoder.from_bundle(bundle, network="ort", device="cuda")
            for batch in (2, 8):
                frames = np.tile(random_frames(1, 16, 40, seed=1)[0], (batch, 1, 1))
                before = dict(emulated_cupy.TRANSFERS)
                decoder.decode(frames)
                counts.append(emulated_cupy.TRANSFERS["to_host"] - before["to_host"])
        assert counts[0] == counts[1] <= 40 * 2 / 8 + 6

    def test_quantised_graphs_are_refused(self, cupy, tmp_path):  # noqa: F811
        make_bundle(tmp_path, "split", vocab_size=20, seed=3, precision="int8", mel_bins=16, **SIZES)
        with pytest.raises(tdt.DeviceError, match="onnx is quantised to int8.*network='fused'"):
            tdt.Decoder.from_bundle(tmp_path, network="ort", device="cuda", variant="int8")
        with pytest.raises(tdt.DeviceError, match="encoder.*onnx is quantised to int8.*variant.*device='cpu'"):
            load_model(tmp_path, device="cuda", variant="int8")
        decoder = tdt.Decoder.from_bundle(tmp_path, network="fused", device="cuda", variant="int8")
        assert decoder.network.precision == "float32"


class TestMissing:
    def test_without_cupy(self, bundle):
        if importlib.util.find_spec("cupy"):
            pytest.skip("CuPy is installed here")
        with pytest.raises(tdt.MissingDependencyError, match=r"'cuda' needs the package 'cupy-cuda13x'.*\[gpu\]"):
            tdt.Decoder.from_bundle(bundle, device="cuda")
        with pytest.raises(tdt.MissingDependencyError, match="cupy"):
            tdt.CallableNetwork(max, max, max, device="cuda")
        with pytest.raises(tdt.MissingDependencyError, match="cupy"):
            tdt.kernels.get("cuda")

    def test_without_the_provider(self, bundle, monkeypatch):
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
        with emulated_cupy.installed():
            with pytest.raises(tdt.MissingDependencyError, match=r"network 'ort' on cuda.*'onnxruntime-gpu'.*\[gpu\]"):
                tdt.Decoder.from_bundle(bundle, network="ort", device="cuda")
            if not isinstance(bundle.transducer, CombinedTransducer) and bundle.spec.max_symbols is None:
                assert tdt.Decoder.from_bundle(bundle, device="cuda").network.name == "fused", "which needs CuPy alone"

    @pytest.mark.filterwarnings("ignore:Specified provider")
    def test_a_provider_that_cannot_be_loaded(self, bundle):
        """ONNX Runtime itself would go on with the CPU."""
        from tdtdecode import sessions

        with emulated(), pytest.MonkeyPatch.context() as patch:
            available = onnxruntime.get_available_providers()
            patch.setattr(onnxruntime, "get_available_providers", lambda: [*available, "CUDAExecutionProvider"])
            patch.setattr(sessions, "CUDA_PROVIDER", "CUDAExecutionProvider")
            with pytest.raises(tdt.DeviceError, match="cannot load its CUDAExecutionProvider"):
                tdt.Decoder.from_bundle(bundle, network="ort", device="cuda")

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"device": "tpu"}, "device must be 'cpu' or 'cuda', got 'tpu'"),
            ({"device": "cuda", "precision": "int8"}, "choose float16"),
            ({"device": "cuda", "precision": "float16", "network": "ort"}, "'ort' computes in the precision of"),
            ({"device": "cuda", "network": "trt"}, "network must be one of 'auto', 'ort', 'fused', got 'trt'"),
            ({"device": "cuda", "providers": ["CPUExecutionProvider"]}, "cannot both be given"),
            ({"device": "cuda", "kernels": "cpu"}, "does not exist for kernels 'cpu-"),
        ],
    )
    def test_options_that_do_not_go_together(self, cupy, bundle, options, message):  # noqa: F811
        with pytest.raises(tdt.InputError, match=message):
            tdt.Decoder.from_bundle(bundle, **options)


class Exported:
    """An array of another library, which shows nothing but its DLPack capsule."""

    def __init__(self, array, device, log=None):
        self._array, self._device, self._log = array, device, log

    def __dlpack_device__(self):
        return self._device

    def __dlpack__(self, stream=None):
        if self._log is not None:
            self._log.append(stream)
        return self._array.__dlpack__()


class TestDoor:
    @pytest.fixture
    def decoder(self, cupy):  # noqa: F811
        from tdtdecode.networks.cuda.fused import FusedCudaNetwork

        spec = tdt.TransducerSpec(vocab_size=20, encoder_size=16)
        return tdt.Decoder(FusedCudaNetwork(random_weights(spec, seed=2), spec), spec)

    def test_arrays_are_read_where_they_lie(self, cupy, decoder):  # noqa: F811
        frames, lengths = random_frames(3, 16, 12, seed=3)
        expected = decoder.decode(frames, lengths)
        on_device = cupy.asarray(frames)
        check_same_bits(expected, decoder.decode(on_device, lengths))
        check_same_bits(expected, decoder.decode(on_device, cupy.asarray(lengths)))
        check_same_bits(expected, decoder.decode([on_device[i] for i in range(3)], lengths))
        by_frame = cupy.asarray(np.ascontiguousarray(frames.transpose(0, 2, 1))).transpose(0, 2, 1)
        check_same_bits(expected, decoder.decode(by_frame, lengths))
        halves = frames.astype(np.float16)
        widened = decoder.decode(halves.astype(np.float32), lengths)
        check_same_bits(widened, decoder.decode(cupy.asarray(halves), lengths))

    def test_nothing_on_the_device_is_copied(self):
        from tdtdecode.cuda.arrays import device_utterances

        with emulated() as cupy:  # noqa: F811
            frames = cupy.asarray(np.zeros((2, 16, 5), np.float32))
            before = dict(emulated_cupy.TRANSFERS)
            utterances, _ = device_utterances(frames, None, 16)
            assert [array.pointer for array in utterances] == [frames.data.ptr, frames.data.ptr + 16 * 5 * 4]
            assert emulated_cupy.TRANSFERS == before

    def test_other_libraries_are_told_our_stream(self):
        """So that they make our stream wait for their own work."""
        from tdtdecode.cuda.arrays import to_device

        with emulated() as cupy:  # noqa: F811
            stream, told = cupy.cuda.Stream(non_blocking=True), []
            array = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(1, 0, 2)
            with stream:
                seen = to_device(Exported(array, (2, 0), told), "encoder_out")
            to_device(Exported(array, (2, 0), told), "encoder_out")
            assert told == [stream.ptr, 1], "1 is DLPack's name for the default stream"
            assert (seen.pointer, seen.shape, seen.strides) == (array.ctypes.data, (3, 2, 4), (4, 12, 1))
            with pytest.raises(tdt.DeviceError, match="is on CUDA device 3, the decoder on 0"):
                to_device(Exported(array, (2, 3)), "encoder_out")

    def test_bfloat16_of_another_library(self, cupy, decoder):  # noqa: F811
        torch = pytest.importorskip("torch", reason="torch is not installed: no other producer of bfloat16 DLPack")
        frames, lengths = random_frames(3, 16, 12, seed=3)
        tensor = torch.from_numpy(frames).to(torch.bfloat16)
        expected = decoder.decode(tensor.float().numpy(), lengths)
        check_same_bits(expected, decoder.decode(tensor, lengths))
        if is_emulated(cupy):
            check_same_bits(expected, decoder.decode(Exported(tensor, (2, 0)), lengths))
        else:
            check_same_bits(expected, decoder.decode(tensor.cuda(), torch.from_numpy(lengths).cuda()))

    def test_ortvalues(self, cupy, decoder):  # noqa: F811
        frames, lengths = random_frames(3, 16, 12, seed=3)
        expected = decoder.decode(frames, lengths)
        check_same_bits(expected, decoder.decode(onnxruntime.OrtValue.ortvalue_from_numpy(frames), lengths))

    @pytest.mark.parametrize(
        "change, message",
        [
            (lambda x: x.astype(np.float64), "float32, float16 or bfloat16, got float64"),
            (lambda x: x[0], r"shape \[B, E, T\]"),
            (lambda x: np.ascontiguousarray(x.transpose(0, 2, 1)), "it looks transposed"),
            (lambda x: [*x[:2], x[2][1:]], r"encoder_out\[2\]"),
        ],
    )
    def test_bad_input(self, cupy, decoder, change, message):  # noqa: F811
        bad = change(random_frames(3, 16, 12, seed=3)[0])
        bad = [cupy.asarray(array) for array in bad] if isinstance(bad, list) else cupy.asarray(bad)
        with pytest.raises(tdt.InputError, match=message):
            decoder.decode(bad)
        with pytest.raises(tdt.InputError, match=r"lengths\[0\] must be from 0 to 12"):
            decoder.decode(cupy.asarray(np.zeros((1, 16, 12), np.float32)), [13])

    def test_a_cpu_decoder_refuses_what_is_on_the_device(self, cupy, decoder):  # noqa: F811
        spec = decoder.spec
        network = tdt.CallableNetwork(lambda t, s: (np.zeros((len(t), 1)), None), max, max)
        with pytest.raises(tdt.DeviceError, match="not in main memory"):
            tdt.Decoder(network, spec).decode(cupy.asarray(np.zeros((1, 16, 3), np.float32)))


class TestOrder:
    def test_graphs_come_after_the_callers_stream(self, bundle):
        with emulated() as cupy:  # noqa: F811
            decoder = tdt.Decoder.from_bundle(bundle, network="ort", device="cuda")
            caller = cupy.cuda.Stream(non_blocking=True)
            decoder.network.stream.waited_for.clear()
            with caller:
                decoder.decode(random_frames(1, 16, 6, seed=0)[0])
            assert decoder.network.stream.waited_for == [caller]

    @pytest.mark.card
    @pytest.mark.parametrize("network", ["fused", pytest.param("ort", marks=pytest.mark.card(provider=True))])
    def test_on_a_card(self, tmp_path, network):
        """The encoder output is still being written by a slow kernel when the decode is called."""
        make_bundle(tmp_path, "split", vocab_size=20, seed=3, **SIZES)
        frames, lengths = random_frames(3, 16, 200, seed=3)
        with on("card") as cupy:  # noqa: F811
            decoder = tdt.Decoder.from_bundle(tmp_path, network=network, device="cuda")
            expected = decoder.decode(frames, lengths)
            for _ in range(20):
                stream = cupy.cuda.Stream(non_blocking=True)
                with stream:
                    late, busy = cupy.zeros(frames.shape, np.float32), cupy.ones((4096, 4096), np.float32)
                    for _ in range(5):
                        busy = busy @ busy * np.float32(1e-4)  # some milliseconds
                    late[...] = cupy.asarray(frames) + 0 * busy[0, 0]
                    check_same_hypotheses(expected, decoder.decode(late, lengths))


class TestModelsOfK2:
    def test_from_samples_to_tokens(self, tmp_path):
        pytest.importorskip("kaldi_native_fbank")
        write_model(tmp_path)
        rng = np.random.default_rng(0)
        samples = (rng.standard_normal(32_000) * np.repeat(rng.uniform(0.01, 0.3, 20), 1600)).astype(np.float32)
        expected = load_model(tmp_path).recognize((samples, 16_000))
        with emulated():
            model = load_model(tmp_path, device="cuda")
            assert model.decoder.network.name == "fused"
            found = model.recognize((samples, 16_000))
            other = load_model(tmp_path, network="ort", device="cuda").recognize((samples, 16_000))
        check_same([found.hypothesis, other.hypothesis], 2 * [expected.hypothesis])
        assert len(found.hypothesis.tokens) > 5

    @pytest.mark.parametrize("context", [2, 3])
    def test_the_fused_network_is_that_of_the_cpu(self, tmp_path, context):
        bundle = read_bundle(write_model(tmp_path, Sizes(entries=21, decoder=12, joiner=16, context=context)))
        frames, lengths = random_frames(5, 16, 20, seed=context)
        on_cpu = tdt.Decoder.from_bundle(bundle, network="fused")
        with emulated():
            decoder = tdt.Decoder.from_bundle(bundle, network="fused", device="cuda")
            for search in (tdt.Greedy(), tdt.Beam(size=3)):
                check_same(decoder.decode(frames, lengths, search), on_cpu.decode(frames, lengths, search))
