"""The C library decodes as the package does: the same tokens, frames and durations, and log-probs within rounding."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.bundle.description import FeatureSettings
from tdtdecode.bundle.packed import model_file
from tdtdecode.hypothesis import joined
from tdtdecode.kernels import available
from tdtdecode.prepare import pack_ngram
from tests import demo
from tests.capi.library import CError, Model, as_search
from tests.capi.models import KINDS, NEWER, Kind, fits, pair, random_frames, weights_of
from tests.decoding.compare import LOGPROB_TOLERANCE, check_same_hypotheses

RECORDED = Path(__file__).parents[2] / "examples/recorded"

CONFIDENCES = [
    tdt.Confidence(measure, alpha=alpha, normalization=normalization)
    for measure in ("max_prob", "gibbs", "tsallis", "renyi")
    for alpha in (0.33, 0.5, 1.0, 1.7)
    for normalization in ("lin", "exp")
]
SEARCHES = [
    tdt.Greedy(),
    tdt.Greedy(max_symbols=2, blank_penalty=0.7),
    tdt.Greedy(confidence=tdt.Confidence()),
    tdt.Beam(size=1),
    tdt.Beam(size=4),
    tdt.Beam(size=3, nbest=3, temperature=1.3, blank_penalty=-0.5, max_symbols=3),
    tdt.Beam(size=4, threshold=2.0, confidence=tdt.Confidence("gibbs")),
    tdt.Beam("malsd", size=3),
    tdt.Beam("malsd", size=3, pruning_mode="late", blank_mode="lm_weighted_full"),
]


LENGTHS = np.array([60, 23, 41, 1, 0])


def same(
    expected: list[tdt.Hypothesis], found: list[tdt.Hypothesis], tolerance: float = LOGPROB_TOLERANCE
) -> None:
    """Assert that hypotheses agree, n-best lists included; log-probs within the tolerance."""
    assert len(expected) == len(found)
    for one, other in zip(expected, found, strict=True):
        assert len(one.nbest) == len(other.nbest)
        check_same_hypotheses(one.nbest, other.nbest, tolerance)
        for a, b in zip(one.nbest, other.nbest, strict=True):
            assert a.score == pytest.approx(b.score, abs=10 * tolerance, rel=1e-4)
            if a.token_confidence is None or not len(a):  # pointers to nothing are NULL
                assert b.token_confidence is None
            else:
                np.testing.assert_allclose(a.token_confidence, b.token_confidence, atol=tolerance)


def frames_of(seed: int = 1) -> np.ndarray:
    return random_frames(len(LENGTHS), int(LENGTHS.max()), seed)[0]


@pytest.mark.parametrize(
    "kind, search", [(kind, search) for kind in (*KINDS, *NEWER) for search in SEARCHES if fits(kind, search)], ids=str
)
def test_searches(kind: Kind, search):
    decoder, model = pair(kind)
    frames = frames_of()
    expected = decoder.decode(frames, LENGTHS, search)
    assert sum(map(len, expected)) >= 3 or isinstance(search, tdt.Beam)
    for threads in (1, 3):
        same(expected, model.decode(frames, LENGTHS, as_search(search, threads)))


@pytest.mark.parametrize("confidence", CONFIDENCES, ids=str)
def test_confidences(confidence):
    decoder, model = pair(KINDS[0])
    search = tdt.Greedy(confidence=confidence)
    same(decoder.decode(frames_of(), LENGTHS, search), model.decode(frames_of(), LENGTHS, as_search(search)))


@pytest.mark.parametrize("kernels", [k.isa for k in available() if k.isa])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_instruction_sets_and_precisions(precision, kernels):
    # With int8, a last bit that differs in the table can become another step of 8 bits, in one row of hundreds. With
    # bfloat16 it can be rounded to the neighbour, which is up to 2^-8 away.
    tolerance = 1e-2 if precision == "bfloat16" else LOGPROB_TOLERANCE
    for kind in (KINDS[1], KINDS[3], KINDS[0] if precision == "int8" else KINDS[5], *NEWER[3:5]):
        decoder, model = pair(kind, 2, precision, kernels)
        assert model.info.instruction_set.decode() == kernels
        same(decoder.decode(frames_of(), LENGTHS), model.decode(frames_of(), LENGTHS), tolerance)


@pytest.mark.parametrize("search", [SEARCHES[0], SEARCHES[2], SEARCHES[5], SEARCHES[7]], ids=str)
def test_memory_layouts(search):
    """[B, E, T], [B, T, E], padding between rows, float16."""
    decoder, model = pair(KINDS[0])
    frames = frames_of().astype(np.float16).astype(np.float32)
    expected = decoder.decode(frames, LENGTHS, search)
    wide = np.full((len(frames), 3 + frames.shape[1], frames.shape[2] + 5), np.nan, np.float32)
    wide[:, 2:-1, 4:-1] = frames
    for given in (
        frames, np.ascontiguousarray(frames.transpose(0, 2, 1)).transpose(0, 2, 1), wide[:, 2:-1, 4:-1],
        frames.astype(np.float16),
        np.ascontiguousarray(frames.astype(np.float16).transpose(2, 0, 1)).transpose(1, 2, 0),
    ):  # fmt: skip
        same(expected, model.decode(given, LENGTHS, as_search(search)))


@pytest.mark.parametrize("size", [1, 3, 7, 60])
@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_chunks(search, size):
    """Chunks give what the package gives for the same chunks, which is, but for malsd, what it gives for the whole."""
    for kind in [kind for kind in (*KINDS[:4], *NEWER[:4]) if fits(kind, search)]:
        decoder, model = pair(kind)
        frames = frames_of(2)
        state, states = None, None
        for first in range(0, frames.shape[2], size):
            chunk = frames[:, :, first : first + size]
            lengths = np.clip(LENGTHS - first, 0, chunk.shape[2])
            final = first + size >= frames.shape[2]
            expected, state = decoder.decode_chunk(chunk, lengths, state, final, search)
            found, states = model.decode_chunk(chunk, lengths, states, final, as_search(search))
            same(expected, found)
        assert states is not None and not any(states)


def test_streams_come_and_go():
    """A state is a value: it can be gone on with twice, and streams can be decoded in any company."""
    _, model = pair(KINDS[0])
    frames = frames_of(3)[:3]
    for search in (SEARCHES[0], SEARCHES[4]):
        _, states = model.decode_chunk(frames[:, :, :20], search=as_search(search))
        rest = frames[:, :, 20:]
        together, _ = model.decode_chunk(rest, None, states, True, as_search(search))
        for row in (2, 0, 1):
            alone, _ = model.decode_chunk(rest[row : row + 1], None, [states[row]], True, as_search(search))
            same([together[row]], alone)
        mixed, _ = model.decode_chunk(rest[:2], None, [states[1], None], True, as_search(search))
        assert len(mixed) == 2


def test_malsd_of_several_blanks_is_refused():
    decoder, model = pair(NEWER[0])
    search = tdt.Beam("malsd")
    with pytest.raises(tdt.InputError, match="several blanks"):
        decoder.decode(frames_of(), LENGTHS, search)
    with pytest.raises(CError, match="several blanks"):
        model.decode(frames_of(), LENGTHS, as_search(search))


def test_limit_of_tokens_at_a_frame():
    """A search emits no more tokens at a frame than the model was trained for; its own limit may be lower."""
    _, model = pair(NEWER[5])
    free = model.decode(frames_of(), LENGTHS, as_search(tdt.Greedy(max_symbols=10)))
    same(free, model.decode(frames_of(), LENGTHS, as_search(tdt.Greedy(max_symbols=3))))
    counts = [np.bincount(row.frames, minlength=1).max() for row in free if len(row)]
    assert max(counts) == model.info.max_symbols == 3


@pytest.fixture(scope="module")
def phrases():
    """Phrases that the random vocabularies can spell in many ways, with weights."""
    rng = np.random.default_rng(5)
    return [
        (" ".join("".join(rng.choice(list("abcde"), rng.integers(1, 6))) for _ in range(rng.integers(1, 4))), weight)
        for weight in (1.0, 0.5, 2.0, 3.0, 1.5)
        for _ in range(5)
    ]


FUSED = [
    tdt.Greedy(),
    tdt.Beam(size=3, nbest=3),
    tdt.Beam("malsd", size=3),
    tdt.Beam("malsd", size=4, pruning_mode="late", blank_mode="lm_weighted_full"),
]


@pytest.mark.parametrize("search", FUSED, ids=str)
def test_phrases(search, phrases):
    for kind in [kind for kind in (KINDS[0], KINDS[2], KINDS[4], NEWER[0], NEWER[3]) if fits(kind, search)]:
        decoder, model = pair(kind, 3)
        boost = tdt.PhraseBoost(phrases, weight=1.5, context_score=0.8, depth_scaling=1.5)
        made = model.phrases(
            [text for text, _ in phrases], [weight for _, weight in phrases], weight=1.5, context_score=0.8,
            depth_scaling=1.5,
        )  # fmt: skip
        frames = frames_of(4)
        plain = decoder.decode(frames, LENGTHS, search)
        expected = decoder.decode(frames, LENGTHS, replace(search, fusion=[boost]))
        assert any(a.tokens.tolist() != b.tokens.tolist() for a, b in zip(plain, expected))
        same(expected, model.decode(frames, LENGTHS, as_search(search, phrases=made.pointer)))


@pytest.mark.parametrize("search", FUSED[:3], ids=str)
def test_phrases_of_rows_and_chunks(search, phrases):
    decoder, model = pair(KINDS[0], 3)
    lists = [phrases[:9], phrases[9:], [], phrases[:9], phrases[3:5]]
    boost = tdt.PhraseBoost.per_row(lists, weight=1.2)
    made = [model.phrases([t for t, _ in part], [w for _, w in part], weight=1.2) if part else None for part in lists]
    rows = (ctypes.c_void_p * len(made))(*(None if handle is None else handle.pointer for handle in made))
    frames = frames_of(4)
    expected = decoder.decode(frames, LENGTHS, replace(search, fusion=[boost]))
    same(expected, model.decode(frames, LENGTHS, as_search(search, row_phrases=rows)))
    if getattr(search, "strategy", "") == "malsd":
        return
    states, parts = None, []
    for first in range(0, 60, 13):
        chunk = frames[:, :, first : first + 13]
        lengths = np.clip(LENGTHS - first, 0, chunk.shape[2])
        found, states = model.decode_chunk(
            chunk, lengths, states, first + 13 >= 60, as_search(search, row_phrases=rows)
        )
        parts.append(found)
    for row, hypothesis in enumerate(expected):
        whole = joined([part[row] for part in parts])
        assert whole.tokens.tolist() == hypothesis.tokens.tolist()
        assert whole.frames.tolist() == hypothesis.frames.tolist()


def test_phrases_of_tokens():
    decoder, model = pair(KINDS[0], 3)
    tokens = [[1, 2, 3], [4], [7, 8], [9, 10, 11, 12], [20, 3]]
    made = model.phrases_of_tokens(tokens, weight=2.0)
    for search in FUSED:
        fused = replace(search, fusion=[tdt.PhraseBoost([tuple(phrase) for phrase in tokens], weight=2.0)])
        expected = decoder.decode(frames_of(4), LENGTHS, fused)
        same(expected, model.decode(frames_of(4), LENGTHS, as_search(search, phrases=made.pointer)))


@pytest.fixture(scope="module")
def language_model(tmp_path_factory) -> tuple[Path, Path]:
    """An ARPA file over the vocabulary of the first kind of model, and the same compiled."""
    decoder, _ = pair(KINDS[0], 3)
    assert decoder.vocabulary is not None
    words = [piece for piece in decoder.vocabulary.pieces if piece != "<blk>"]
    rng = np.random.default_rng(6)
    unigrams = [*words, "<s>", "</s>", "<unk>"]
    pairs = sorted({(str(a), str(b)) for a, b in rng.choice(words, (150, 2))} | {("<s>", words[3])})
    lines = ["\\data\\", f"ngram 1={len(unigrams)}", f"ngram 2={len(pairs)}", "", "\\1-grams:"]
    lines += [f"{-rng.uniform(0.5, 2.5):.4f}\t{word}\t{-rng.uniform(0, 1):.4f}" for word in unigrams]
    lines += ["", "\\2-grams:", *(f"{-rng.uniform(0, 2):.4f}\t{a} {b}" for a, b in pairs), "", "\\end\\"]
    folder = tmp_path_factory.mktemp("ngram")
    (folder / "lm.arpa").write_text("\n".join(lines), encoding="utf-8")
    weights, spec = weights_of(KINDS[0], 3)
    content = model_file(weights, spec, decoder.vocabulary, FeatureSettings())
    (folder / "model.tdt").write_bytes(b"".join(content))
    return folder / "lm.arpa", pack_ngram(folder / "model.tdt", folder / "lm.arpa", folder / "lm.tdt")


@pytest.mark.parametrize("search", FUSED, ids=str)
def test_language_model(search, language_model, phrases):
    arpa, compiled = language_model
    decoder, model = pair(KINDS[0], 3)
    for ngram in (model.ngram(compiled), model.ngram(compiled.read_bytes())):
        frames = frames_of(4)
        fusions = [tdt.NgramLM.from_arpa(arpa, weight=0.5), tdt.PhraseBoost(phrases, weight=0.7)]
        made = model.phrases([text for text, _ in phrases], [weight for _, weight in phrases], weight=0.7)
        for fusion, handles in ((fusions[:1], {}), (fusions, {"phrases": made.pointer})):
            expected = decoder.decode(frames, LENGTHS, replace(search, fusion=fusion))
            given = as_search(search, ngram=ngram.pointer, ngram_weight=0.5, **handles)
            same(expected, model.decode(frames, LENGTHS, given))


def test_language_model_of_another_vocabulary(language_model):
    _, model = pair(KINDS[1])
    with pytest.raises(CError, match="another vocabulary"):
        model.ngram(language_model[1])


def test_demo_model_on_recorded_encoder_output():
    """The recording of the demo model: text, words and times too."""
    frames = np.frombuffer((RECORDED / "encoder_output.f32").read_bytes(), "<f4").reshape(1, 128, -1)
    decoder, model = tdt.Decoder.from_bundle(demo.DIRECTORY), Model(RECORDED / "demo.tdt")
    assert decoder.vocabulary is not None
    for search in SEARCHES:
        expected = decoder.decode(frames, search=search)
        found = model.decode(frames, search=as_search(search))
        same(expected, found)
        text, words = model.text(found[0])
        assert text == decoder.detokenize(expected[0].tokens)
        wanted = decoder.vocabulary.words_and_tokens(expected[0], model.info.frame_seconds)
        assert [tokens for _, tokens in words] == [tokens for _, tokens in wanted]
        for (a, _), (b, _) in zip(wanted, words, strict=True):
            assert (a.text, a.space_before) == (b.text, b.space_before)
            assert (a.start, a.end, a.confidence) == pytest.approx((b.start, b.end, b.confidence), abs=1e-5)
    assert text.startswith("set an alarm for seven")
