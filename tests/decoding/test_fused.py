"""The compiled network, compared with its specification, and everything that must not change its results."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.networks.fused import FusedNetwork
from tdtdecode.networks.packing import Arithmetic, Format
from tdtdecode.weights import Affine
from tests import demo
from tests.conftest import COMPILED, in_fork, random_decodes, random_frames, usual
from tests.decoding.compare import check_hypotheses, traced_decode
from tests.decoding.fused_helpers import as_lifted, check_same_bits, fused, mapped, random_weights
from tests.decoding.test_kernels import random_allow

PRECISIONS = ["float32", "bfloat16", "int8"]
MODELS = [
    dict(vocab_size=40, encoder_size=24, hidden=20, joint=28, layers=2),
    dict(vocab_size=3, encoder_size=1, hidden=5, joint=7, layers=1, activation="tanh", blank=0),
    dict(vocab_size=300, encoder_size=17, hidden=33, joint=65, layers=3, activation="sigmoid", blank=150),
    dict(vocab_size=63, encoder_size=40, hidden=16, joint=64, layers=1, durations=(0, 1, 2, 4, 8)),
    dict(vocab_size=20, encoder_size=6, hidden=12, joint=33, layers=2, durations=()),
    dict(vocab_size=9, encoder_size=8, hidden=10, joint=16, layers=0, activation="tanh"),
    dict(vocab_size=1, encoder_size=5, hidden=1, joint=1, layers=1, durations=(3,)),
    dict(vocab_size=30, encoder_size=16, hidden=48, joint=40, layers=2, durations=(1, 2, 3, 4), blank=0),
    dict(vocab_size=25, encoder_size=12, hidden=21, joint=36, layers=0, context=2, durations=(), blank=0,
         activation="tanh", max_symbols=1),
    dict(vocab_size=8, encoder_size=5, hidden=16, joint=20, layers=0, context=4),
    dict(vocab_size=25, encoder_size=10, hidden=12, joint=24, layers=1, durations=(), big_blanks=(2, 4, 8)),
]


def model(
    seed, vocab_size, encoder_size, durations=(0, 1, 2, 3, 4), blank=None, max_symbols=None, big_blanks=(), **options
):
    spec = tdt.TransducerSpec(
        vocab_size, durations, blank, encoder_size, max_symbols=max_symbols, big_blanks=big_blanks
    )
    return random_weights(spec, seed=seed, **options), spec


@pytest.fixture(params=usual(COMPILED))
def compiled(request) -> str:
    return request.param


def identifier(options):
    return "-".join(f"{k[0]}{v}" for k, v in options.items())


@random_decodes
@pytest.mark.parametrize("options", MODELS, ids=identifier)
def test_random_decodes_equal_the_specification(options, decodes):
    searches = tdt.Greedy(), tdt.Greedy(max_symbols=1), tdt.Greedy(max_symbols=3, blank_penalty=1.5)
    batch, ties, done = 80, 0, 0
    for seed in range(max(1, decodes // (len(MODELS) * (len(searches) + 1) * batch * len(COMPILED)))):
        weights, spec = model(seed, **options)
        reference = fused(weights, spec, "reference")
        frames, lengths = random_frames(batch, spec.encoder_size, 20, seed)
        rng = np.random.default_rng(seed)
        allow = [None if rng.random() < 0.3 else random_allow(rng, spec) for _ in range(batch)]
        for search in (*searches, tdt.Greedy(max_symbols=2, allow=allow)):
            expected, trace = traced_decode(reference, frames, lengths, search)
            for kernels in COMPILED:
                found = fused(weights, spec, kernels).decode(frames, lengths, search)
                ties += check_hypotheses(expected, trace, found, spec, search)
                done += batch
    assert ties <= done // 100


@pytest.mark.parametrize("options", MODELS, ids=identifier)
@pytest.mark.parametrize(
    "arithmetic",
    [Arithmetic(table_bytes=0), Arithmetic(halves=False), Arithmetic(screen=True)],
    ids=["input not folded", "float32 storage", "screened"],
)
def test_other_packings_equal_the_specification(compiled, options, arithmetic):
    weights, spec = model(1, **options)
    frames, lengths = random_frames(40, spec.encoder_size, 20, 2)
    for allow in (None, random_allow(np.random.default_rng(3), spec)):
        search = tdt.Greedy(blank_penalty=0.5, allow=allow)
        expected, trace = traced_decode(fused(weights, spec, "reference"), frames, lengths, search)
        found = fused(weights, spec, compiled, arithmetic).decode(frames, lengths, search)
        assert check_hypotheses(expected, trace, found, spec, search) <= 1


def test_instruction_sets_with_fused_multiply_add_give_the_same_bits():
    weights, spec = model(3, **MODELS[0])
    frames, lengths = random_frames(30, spec.encoder_size, 30, 3)
    names = [name for name in COMPILED if name != "cpu-baseline"]
    if len(names) < 2:
        pytest.skip("this machine has one such instruction set at most")
    for precision in ("float32", "int8"):
        first, *others = (fused(weights, spec, name, precision=precision).decode(frames, lengths) for name in names)
        for other in others:
            check_same_bits(first, other)


def as_bfloat16(x):
    return ((x.view(np.uint32) + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def as_float16(x):
    return x.astype(np.float16).astype(np.float32)


def with_subnormals(x):
    x = as_float16(x)
    x.flat[::7] = np.float16(3e-7)
    x.flat[::11] = 0
    x.flat[5] = -65504
    return x


@pytest.mark.parametrize(
    "rounded, format",
    [(as_bfloat16, Format.BFLOAT16), (as_float16, Format.FLOAT16), (with_subnormals, Format.FLOAT16)],
)
def test_weights_that_fit_in_16_bits_are_stored_so_without_changing_a_bit(compiled, rounded, format):
    weights, spec = model(4, **MODELS[0])
    weights = mapped(weights, rounded)
    frames, lengths = random_frames(20, spec.encoder_size, 30, 3)
    for screen in (False, True):
        small, large = (
            fused(weights, spec, compiled, Arithmetic(halves=halves, screen=screen)) for halves in (True, False)
        )
        for part in ("encoder", "prediction", "output"):
            assert getattr(small.program.packed, part).format == format
            assert getattr(large.program.packed, part).format == Format.FLOAT32
        check_same_bits(small.decode(frames, lengths), large.decode(frames, lengths))


@pytest.mark.parametrize("precision", PRECISIONS)
class TestIndependence:
    @pytest.fixture()
    def parts(self, compiled, precision):
        weights, spec = model(5, **MODELS[0])
        frames, lengths = random_frames(150, spec.encoder_size, 25, 6)
        decoder = fused(weights, spec, compiled, precision=precision)
        return weights, spec, decoder, frames, lengths, decoder.decode(frames, lengths)

    def test_utterances_do_not_see_their_neighbours(self, parts):
        _, _, decoder, frames, lengths, together = parts
        check_same_bits(together, [decoder.decode(frames[i : i + 1], lengths[i : i + 1])[0] for i in range(150)])
        order = np.random.default_rng(0).permutation(150)
        check_same_bits([together[i] for i in order], decoder.decode(frames[order], lengths[order]))
        for n in (2, 3, 7, 17, 63, 65):
            check_same_bits(together[:n], decoder.decode(frames[:n], lengths[:n]))
        assert sum(map(len, together)) > 500

    def test_padding_and_layout_do_not_matter(self, parts):
        _, _, decoder, frames, lengths, together = parts
        wide = np.full((150, frames.shape[1], 60), np.nan, np.float32)
        for out, utterance, length in zip(wide, frames, lengths):
            out[:, :length] = utterance[:, :length]
        check_same_bits(together, decoder.decode(wide, lengths))
        frames_first = np.ascontiguousarray(frames.transpose(0, 2, 1))
        check_same_bits(together, decoder.decode(frames_first.transpose(0, 2, 1), lengths))
        check_same_bits(together, decoder.decode([utterance[:, :n].copy() for utterance, n in zip(frames, lengths)]))
        backwards = np.ascontiguousarray(frames[:, ::-1, ::-1])[:, ::-1, ::-1]
        check_same_bits(together, decoder.decode(backwards, lengths))

    def test_chunks_and_states_that_come_and_go(self, parts):
        _, _, decoder, frames, lengths, together = parts
        rng = np.random.default_rng(7)
        for sizes in ([1], [3], [7], [2, 5, 1]):
            tokens = [[] for _ in range(150)]
            streams, state, start, step = np.arange(150), None, 0, 0
            while start < frames.shape[2]:
                size = sizes[step % len(sizes)]
                piece = frames[streams, :, start : start + size]
                found, state = decoder.decode_chunk(piece, np.clip(lengths[streams] - start, 0, piece.shape[2]), state)
                for stream, hypothesis in zip(streams, found):
                    tokens[stream] += list(zip(hypothesis.tokens, hypothesis.frames, hypothesis.token_logprobs))
                order = rng.permutation(len(streams))
                streams = streams[order]
                state = tdt.DecoderState.join([state.select(order[:40]), state.select(order[40:])])
                start, step = start + size, step + 1
            for expected, found in zip(together, tokens):
                assert list(zip(expected.tokens, expected.frames, expected.token_logprobs)) == found

    @pytest.mark.parametrize("threads", [2, 3, 5])
    def test_threads_do_not_matter(self, parts, precision, threads):
        weights, spec, decoder, frames, lengths, together = parts
        several = fused(weights, spec, decoder.kernels.name, precision=precision, threads=threads)
        check_same_bits(together, several.decode(frames, lengths))
        for screen in (True, False) if precision == "float32" else ():
            arithmetic = Arithmetic(screen=screen)
            several = fused(weights, spec, decoder.kernels.name, arithmetic, threads=threads)
            check_same_bits(together, several.decode(frames, lengths))

    def test_a_bad_utterance_changes_no_other(self, parts):
        _, _, decoder, frames, lengths, together = parts
        frames = frames.copy()
        for i, value in zip((10, 20, 30, 40), (np.nan, np.inf, -np.inf, 1e30)):
            frames[i, 0, : lengths[i] // 2] = value
        found = decoder.decode(frames, lengths)
        others = [i for i in range(150) if i not in (10, 20, 30, 40)]
        check_same_bits([together[i] for i in others], [found[i] for i in others])

    def test_many_python_threads_on_one_decoder(self, parts):
        _, _, decoder, frames, lengths, together = parts
        with ThreadPoolExecutor(8) as pool:
            for found in pool.map(lambda _: decoder.decode(frames, lengths), range(16)):
                check_same_bits(together, found)


def test_16_bit_encoder_output():
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="no bfloat16 arrays without ml_dtypes")
    weights, spec = model(8, **MODELS[0])
    decoder = fused(weights, spec)
    frames, lengths = random_frames(10, spec.encoder_size, 30, 3)
    for dtype in (np.float16, ml_dtypes.bfloat16):
        narrow = frames.astype(dtype)
        check_same_bits(decoder.decode(narrow.astype(np.float32), lengths), decoder.decode(narrow, lengths))


def test_a_row_without_numbers_decodes_by_the_rules():
    """With NaN frames neither part of a row has a number, so each decision is blank with the table's first duration."""
    weights, spec = model(8, **MODELS[0])
    frames = np.full((1, spec.encoder_size, 12), np.nan, np.float32)
    for screen in (True, False):
        assert len(fused(weights, spec, arithmetic=Arithmetic(screen=screen)).decode(frames)[0]) == 0


@pytest.mark.parametrize("threads", [1, 3])
def test_after_a_fork(threads):
    weights, spec = model(9, **MODELS[0])
    decoder = fused(weights, spec, threads=threads)
    frames, lengths = random_frames(20, spec.encoder_size, 30, 3)
    here = decoder.decode(frames, lengths)
    check_same_bits(here, in_fork(lambda: decoder.decode(frames, lengths)))


def test_memory_is_flat():
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("memory is read from /proc")
    weights, spec = model(10, **MODELS[0])
    decoder = fused(weights, spec, threads=2)
    frames, lengths = random_frames(4, spec.encoder_size, 20, 3)
    pages = []
    for _ in range(3):
        for _ in range(300):
            decoder.decode(frames, lengths)
        pages.append(int(statm.read_text().split()[1]))
    assert pages[2] - pages[0] < 100, "400 kilobytes in 600 decodes"


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_reduced_precisions_are_near_on_speech(precision):
    """On encoder output of recordings, with the demo model's own weights."""
    model = tdt.load_model("demo")
    weights, spec = as_lifted(demo.weights()), model.decoder.spec
    exact, near = (fused(weights, spec, precision=p) for p in ("float32", precision))
    tokens = differing = 0
    for samples, _ in demo.recordings().values():
        features, lengths = model._extract([samples])
        encoder_out, lengths = model.encoder(features, lengths)
        a, b = (decoder.decode(encoder_out, lengths)[0].tokens.tolist() for decoder in (exact, near))
        tokens += len(a)
        differing += a != b
    assert tokens > 100 and differing <= 1


class TestErrors:
    def test_kernels_that_do_not_exist(self):
        weights, spec = model(11, **MODELS[0])
        with pytest.raises(tdt.InputError, match="'fused' does not exist for kernels 'jit': reference, cpu"):
            fused(weights, spec, "jit")

    def test_precisions(self):
        weights, spec = model(11, **MODELS[0])
        with pytest.raises(tdt.InputError, match="no precision 'float16' on the cpu: float32, bfloat16, int8"):
            FusedNetwork(weights, spec, "float16")
        with pytest.raises(tdt.InputError, match="'reference' compute in float32"):
            fused(weights, spec, "reference", precision="int8")

    def test_frames_of_another_width(self):
        weights, spec = model(11, **MODELS[0])
        spec = replace(spec, encoder_size=None)
        with pytest.raises(tdt.InputError, match=r"encoder_out\[0\] must be \[E, T\] with E = 24, got \[23, 4\]"):
            fused(weights, spec).decode(np.zeros((2, 23, 4), np.float32))

    @pytest.mark.parametrize(
        "change, message",
        [
            (lambda w: replace(w, embedding=w.embedding[1:]), "embedding has 40 rows"),
            (lambda w: replace(w, output=Affine(w.output.weight[1:], w.output.bias[1:])), "output has 45 rows"),
            (lambda w: replace(w, encoder=Affine(w.encoder.weight[1:], w.encoder.bias[1:])), "encoder has 27 outputs"),
            (lambda w: replace(w, encoder=Affine(w.encoder.weight[:, 1:], w.encoder.bias)), "encoder takes 23"),
            (lambda w: replace(w, embedding=w.embedding[:, 1:]), "LSTM layer 0 does not take 19 numbers"),
            (lambda w: replace(w, layers=()), None),
            (lambda w: replace(w, layers=(), embedding=w.embedding[:, 1:]), "19 numbers, but its projection takes"),
        ],
    )
    def test_weights_that_do_not_fit(self, change, message):
        weights, spec = model(11, **MODELS[0])
        if message is None:
            assert FusedNetwork(change(weights), spec)
            return
        with pytest.raises(tdt.InputError, match=message):
            FusedNetwork(change(weights), spec)
