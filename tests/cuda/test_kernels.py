"""The CUDA kernels piece by piece: decisions, tiles, 16-bit numbers, barriers. And the emulation notices errors."""

from __future__ import annotations

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode import kernels
from tdtdecode.allowed import Binding
from tdtdecode.options import greedy_options
from tests.conftest import RandomTransducer, random_frames
from tests.cuda.helpers import CARDS, cupy, emulated, launch, on  # noqa: F401 - a fixture
from tests.decoding.test_kernels import random_allow
from tests.host_cuda import emulated_cupy

SPECS = [
    tdt.TransducerSpec(vocab_size=70),
    tdt.TransducerSpec(vocab_size=6, durations=(0, 1, 2), blank=0),
    tdt.TransducerSpec(vocab_size=40, durations=(3, 0, 3, 1), blank=17),
    tdt.TransducerSpec(vocab_size=1, durations=()),
    tdt.TransducerSpec(vocab_size=45, durations=(), big_blanks=(2, 4, 8)),
]


def bad_rows(spec, count, seed):
    """Joint rows with ties, NaN and infinities. Some of them hold nothing else."""
    rng = np.random.default_rng(seed)
    rows = np.round(rng.standard_normal((count, spec.joint_width)) * 4).astype(np.float32) / 4
    for value in (np.nan, np.inf, -np.inf):
        rows[rng.random(rows.shape) < 0.03] = value
    rows[: count // 8, : spec.token_entries] = rng.choice([np.nan, -np.inf])
    rows[: count // 4, spec.token_entries :] = np.nan
    rows[count // 2 :: 3, ::2] = -0.0
    rows[count // 2 :: 3, 1::2] = 0.0
    return rows


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("penalty", [0.0, 1.25])
def test_rows_are_decided_as_specified(cupy, spec, penalty):  # noqa: F811
    rows = bad_rows(spec, 200, seed=spec.vocab_size)
    rng = np.random.default_rng(spec.vocab_size)
    allow = [None if rng.random() < 0.3 else random_allow(rng, spec) for _ in rows]
    masks = Binding(spec, None).masks(tdt.Greedy(allow=allow).allow, len(rows))
    results, options = [], greedy_options(tdt.Greedy(blank_penalty=penalty))
    for name, array in (("reference", rows), ("cuda", cupy.asarray(rows))):
        decisions, logprobs = np.empty((2, 200), np.int32), np.empty((2, 200), np.float32)
        kernels.get(name).decide(array, spec.layout, options, masks, decisions, logprobs)
        results.append((decisions, logprobs))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-4)


def test_stepwise_greedy_over_rows_on_the_device(cupy):  # noqa: F811
    spec = tdt.TransducerSpec(vocab_size=9)
    rng = np.random.default_rng(3)
    table = rng.standard_normal((4, 30, spec.joint_width)).astype(np.float32)
    found = []
    for name, place in (("reference", np.asarray), ("cuda", cupy.asarray)):
        search = kernels.GreedySearch(spec, tdt.Greedy(), np.array([30, 0, 12, 25]), name)
        while search.pending:
            search.step(place(np.ascontiguousarray(table[search.slots, search.frames])))
        found.append([h.tokens.tolist() for h in search.hypotheses()])
    assert found[0] == found[1] and any(found[0])


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("outputs, inputs", [(16, 16), (33, 20), (5, 1), (70, 130)])
def test_tiles_hold_the_weights(precision, outputs, inputs):
    """Each lane holds the weights that the tensor cores expect there, by the layout in PTX's manual."""
    from tdtdecode.networks.cuda.packing import packed_tiles

    weight = np.random.default_rng(outputs).integers(-100, 100, (outputs, inputs)).astype(np.float32)
    tiles = packed_tiles(weight, precision)
    steps = -(-inputs // 16)
    found = np.zeros((len(tiles) * 16, steps * 16), np.float32)
    flat = tiles.reshape(len(tiles), steps, -1)
    for lane in range(32):
        g, quarter = divmod(lane, 4)
        for row in (g, g + 8):
            for k in range(16):
                if precision == "float32":
                    if k // 4 != quarter:
                        continue
                    values = flat.reshape(len(tiles), steps, 2, 32, 4)[:, :, row // 8, lane, k % 4]
                else:
                    if k % 8 // 2 != quarter:
                        continue
                    bits = flat.reshape(len(tiles), steps, 32, 4, 2)[:, :, lane, k // 8 * 2 + row // 8, k % 2]
                    if precision == "float16":
                        values = bits.view(np.float16).astype(np.float32)
                    else:
                        values = (bits.astype(np.uint32) << 16).view(np.float32)
                found[row::16, k::16] = values
    np.testing.assert_array_equal(found[:outputs, :inputs], weight)
    assert not found[outputs:].any() and not found[:, inputs:].any()


HALVES = """
#include "device.cuh"
using namespace tdt::cuda;
extern "C" __global__ void round_trip(const float* x, unsigned short* bits, float* back, int count) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
    bits[i] = half_bits(x[i]);
    back[i] = half_value(bits[i]);
  }
}
"""


def compiled(cupy, source, **defines):  # noqa: F811
    from tdtdecode.cuda.kernels import source_folder

    folder = source_folder()
    options = ("-std=c++17", f"-I{folder}", f"-I{folder / 'cuda'}", *(f"-D{k}={v}" for k, v in defines.items()))
    return cupy.RawModule(code=source, options=options, enable_cooperative_groups=True)


def test_float16_is_numpys(cupy):  # noqa: F811
    rng = np.random.default_rng(0)
    with np.errstate(invalid="ignore"):  # some are signalling NaN
        every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
        others = rng.standard_normal(20000) * 10.0 ** rng.uniform(-9, 6, 20000)
        x = np.concatenate([every, others, [65504, 65519.9, 65520, 5.96e-8, 2.98e-8, 2.99e-8, 6.1e-5]])
        x = x.astype(np.float32)
    bits, back = cupy.zeros(len(x), np.uint16), cupy.zeros(len(x), np.float32)
    compiled(cupy, HALVES).get_function("round_trip")(
        (1,), (64,), (cupy.asarray(x), bits, back, np.int32(len(x))), shared_mem=0
    )
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16)
    numbers = ~np.isnan(x)
    np.testing.assert_array_equal(cupy.asnumpy(bits)[numbers], expected.view(np.uint16)[numbers])
    np.testing.assert_array_equal(cupy.asnumpy(back)[numbers], expected[numbers].astype(np.float32))
    assert np.isnan(cupy.asnumpy(back)[~numbers]).all()


BARRIERS = """
#include "grid.cuh"
using namespace tdt::cuda;
extern "C" __global__ void rounds(unsigned* words, int* data, int* wrong, int count) {
  GridBarrier barrier(words);
  for (int round = 1; round <= count; ++round) {
    if (threadIdx.x == 5) data[blockIdx.x] = round * 1000 + static_cast<int>(blockIdx.x);
    barrier.sync();
    const int other = static_cast<int>((blockIdx.x + 1 + threadIdx.x) % gridDim.x);
    if (data[other] != round * 1000 + other) wrong[0] = 1;
    barrier.arrive();
    barrier.wait();
  }
}
extern "C" __global__ void stuck(unsigned* words) {
  GridBarrier barrier(words);
  if (blockIdx.x > 0) barrier.sync();
  if (threadIdx.x < 32) sync_block();
}
"""


@pytest.mark.parametrize("kind", [0, 1])
def test_what_was_written_before_a_barrier_is_seen_after_it(cupy, kind):  # noqa: F811
    blocks = launch().blocks
    words, data, wrong = cupy.zeros(blocks, np.uint32), cupy.zeros(blocks, np.int32), cupy.zeros(1, np.int32)
    kernel = compiled(cupy, BARRIERS, TDT_BARRIER=kind).get_function("rounds")
    kernel((blocks,), (64,), (words, data, wrong, np.int32(20)), shared_mem=0)
    assert cupy.asnumpy(data).tolist() == [20000 + i for i in range(blocks)] and not cupy.asnumpy(wrong).any()


@pytest.mark.parametrize("kind", [0, 1])
def test_the_first_program_on_a_card(cupy, kind):  # noqa: F811
    """The microbenchmarks compute what they claim to. `benches.gpu` reports their times."""
    from tdtdecode.cuda.device import current_device
    from tdtdecode.cuda.kernels import kernels as compiled_kernels

    module = compiled_kernels(current_device(), "microbench.cu", (("TDT_BARRIER", kind),), cooperative=True)
    blocks = launch().blocks
    stored = cupy.zeros(blocks * 64 * 4, np.uint32)
    for data in (np.uint64(0), stored):
        module.launch("grid_barrier", blocks, 64, (cupy.zeros(blocks, np.uint32), np.int32(3), data))
    assert (cupy.asnumpy(stored) == 2).all(), "the number of the last round"
    out = cupy.zeros(blocks, np.float32)
    module.launch("tagged_exchange", blocks, 64, (cupy.zeros(2 * blocks, np.uint64), np.int32(4), out), 256)
    assert cupy.asnumpy(out).tolist() == [sum(range(blocks))] * blocks
    numbers = np.random.default_rng(0).integers(0, 1 << 32, 4 * 128 * blocks, dtype=np.uint32)
    words = cupy.asarray(numbers)
    for name in ("read_shared", "read_cached"):
        sums = cupy.zeros(64 * blocks, np.uint32)
        module.launch(name, blocks, 64, (words, np.int32(128), np.int32(2), sums), 128 * 16)
        assert cupy.asnumpy(sums).any()


def test_emulation_is_repeatable_and_notices_bad_launches():
    with emulated() as cupy:  # noqa: F811
        kernel = compiled(cupy, BARRIERS).get_function("rounds")
        blocks = emulated_cupy.DEVICE.multiprocessors
        arguments = cupy.zeros(8, np.uint32), cupy.zeros(8, np.int32), cupy.zeros(1, np.int32), np.int32(1)
        with pytest.raises(AssertionError, match="cooperative grid"):
            kernel((blocks + 1,), (64,), arguments, shared_mem=0)
        with pytest.raises(AssertionError, match="more threads"):
            kernel((1,), (128,), arguments, shared_mem=0)
        with pytest.raises(TypeError, match="Implicit conversion"):
            np.asarray(arguments[0])


def test_nothing_of_an_emulated_card_is_left():
    """Otherwise the card that is used next would get this one's cached objects."""
    from tdtdecode.cuda.device import current_device, shared_stream

    with emulated():
        of_emulation = shared_stream(current_device().index)
    with emulated():
        assert shared_stream(current_device().index) is not of_emulation
    assert shared_stream.cache_info().currsize == 0


@pytest.mark.parametrize("card", CARDS)
def test_user_functions_on_the_device(card):
    """A callable network gives the same results with device arrays as with NumPy arrays."""
    spec = tdt.TransducerSpec(vocab_size=12)
    for seed in range(2):
        model = RandomTransducer(spec, seed, levels=4, bad=0.01)
        frames, lengths = random_frames(5, model.encoder_size, 14, seed)
        expected = tdt.Decoder(tdt.CallableNetwork(model.predict, model.joint, lambda s, i: s[i]), spec)
        with on(card) as cupy:  # noqa: F811

            def predict(tokens, state):
                g, state = model.predict(cupy.asnumpy(tokens), None if state is None else cupy.asnumpy(state))
                return cupy.asarray(g), cupy.asarray(state)

            def joint(frames, g):
                return cupy.asarray(model.joint(cupy.asnumpy(frames), cupy.asnumpy(g)))

            network = tdt.CallableNetwork(predict, joint, lambda s, i: s[i], device="cuda")
            decoder = tdt.Decoder(network, spec)
            for search in (tdt.Greedy(), tdt.Beam(size=3), tdt.Beam(size=3, strategy="malsd")):
                a, b = expected.decode(frames, lengths, search), decoder.decode(cupy.asarray(frames), lengths, search)
                assert [[x.tokens.tolist() for x in h.nbest] for h in a] == [
                    [x.tokens.tolist() for x in h.nbest] for h in b
                ]
