"""What may be emitted: the C library decodes as the package does, and the scripts of characters are the same."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.bundle.vocabulary import Vocabulary
from tests.capi.library import CError, Handle, as_search
from tests.capi.models import ENCODER, KINDS, NEWER, Kind, fits, model_of, pair, random_frames
from tests.capi.test_parity import FUSED, LENGTHS, SEARCHES, same
from tools import unicode_tables

SCREENED = KINDS[5]


def half(kind: Kind, seed: int = 0) -> tdt.OnlyTokens:
    """Half of a model's tokens."""
    blank = kind.vocab_size if kind.blank is None else kind.blank
    tokens = [token for token in range(kind.vocab_size + 1) if token != blank]
    return tdt.OnlyTokens(np.random.default_rng(seed).permutation(tokens)[: len(tokens) // 2].tolist())


def frames_of(seed: int = 1) -> np.ndarray:
    return random_frames(len(LENGTHS), int(LENGTHS.max()), seed)[0]


def rows_of(handles: list[Handle | None]) -> ctypes.Array:
    return (ctypes.c_void_p * len(handles))(*(None if handle is None else handle.pointer for handle in handles))


@pytest.mark.parametrize("kind, search", [
    (kind, search) for kind in (*KINDS[:6], NEWER[1], NEWER[3]) for search in SEARCHES if fits(kind, search)
], ids=str)  # fmt: skip
def test_searches(kind: Kind, search):
    decoder, model = pair(kind)
    allow = half(kind)
    plain = decoder.decode(frames_of(), LENGTHS, search)
    expected = decoder.decode(frames_of(), LENGTHS, replace(search, allow=allow))
    assert any(a.tokens.tolist() != b.tokens.tolist() for a, b in zip(plain, expected)) or isinstance(search, tdt.Beam)
    handle = model.allow(allow)
    for threads in (1, 3):
        same(expected, model.decode(frames_of(), LENGTHS, as_search(search, threads, allow=handle.pointer)))


def tokens_of(allow: tdt.OnlyTokens | tdt.ExceptTokens, kind: Kind) -> set[int]:
    given = set(allow.ids)
    return given if isinstance(allow, tdt.OnlyTokens) else set(range(kind.vocab_size)) - given


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_precisions(precision):
    """With float32, joint rows of so many tokens are screened with int8 weights."""
    decoder, model = pair(SCREENED, 2, precision)
    for allow in (half(SCREENED), tdt.OnlyTokens([7, 11]), tdt.ExceptTokens(range(2500))):
        handle = model.allow(allow)
        expected = decoder.decode(frames_of(), LENGTHS, tdt.Greedy(allow=allow))
        found = model.decode(frames_of(), LENGTHS, as_search(tdt.Greedy(), allow=handle.pointer))
        if precision == "float32":
            same(expected, found)
        for one, other in zip(expected, found, strict=True):  # a last bit may decide how a vector is rounded
            assert one.tokens.tolist() == other.tokens.tolist() and one.frames.tolist() == other.frames.tolist()
            np.testing.assert_allclose(one.token_logprobs, other.token_logprobs, atol=0.05)
        assert set(np.concatenate([row.tokens for row in found]).tolist()) <= tokens_of(allow, SCREENED)


@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_rows(search):
    """Each row has its own, in any company."""
    decoder, model = pair(KINDS[0])
    each = [half(KINDS[0], 1), None, tdt.ExceptTokens([3, 4, 5, 6]), half(KINDS[0], 1), None]
    first = model.allow(each[0])
    handles = [first, None, model.allow(each[2]), first, None]
    expected = decoder.decode(frames_of(), LENGTHS, replace(search, allow=each))
    found = model.decode(frames_of(), LENGTHS, as_search(search, row_allow=rows_of(handles)))
    same(expected, found)
    for row, handle in enumerate(handles[:3]):
        given = as_search(search, allow=None if handle is None else handle.pointer)
        same([found[row]], model.decode(frames_of()[row : row + 1], LENGTHS[row : row + 1], given))


@pytest.mark.parametrize("search", [*SEARCHES[:2], *FUSED[1:]], ids=str)
def test_chunks(search):
    """It may change in the middle of a stream."""
    decoder, model = pair(KINDS[0])
    frames, state, states = frames_of(2), None, None
    allowed = [half(KINDS[0], 1), None, half(KINDS[0], 2), tdt.ExceptTokens([1]), None]
    for number, first in enumerate(range(0, 60, 13)):
        chunk = frames[:, :, first : first + 13]
        lengths = np.clip(LENGTHS - first, 0, chunk.shape[2])
        final, allow = first + 13 >= 60, allowed[number]
        handle = None if allow is None else model.allow(allow)
        given = as_search(search, allow=None if handle is None else handle.pointer)
        expected, state = decoder.decode_chunk(chunk, lengths, state, final, replace(search, allow=allow))
        found, states = model.decode_chunk(chunk, lengths, states, final, given)
        same(expected, found)


PIECES = (
    "\u2581the", "a", "\u00e9", "e\u0301", "\u0301", "\u2581\u043f\u0440\u0438", "\u0436", "a\u0436", "\u03b1",
    "\u4eca", "\u3042", "\u30ab\u30fc", "\u30fc", "\ud55c", "\u2581", ",", "\u2581.", "7", "\u20ac", "\U0001f44d",
    "<unk>", "<EOU>", "<en-US>", "<0xE2>", "", "\u0663", "\u0e01", "\u0915\u094d", "\U00010400", "x-y", "\u0378",
    "<blk>",
)  # fmt: skip


@pytest.mark.parametrize("names", [
    ("latin",), ("latin", "common"), ("Cyrl",), ("greek", "HAN"), ("common",), ("katakana", "hiragana", "Zyyy"),
    ("inherited",), ("arabic",), ("Old_Italic", "deva"), ("thai", "deseret"), ("unknown",), ("hangul", "qaai"),
])  # fmt: skip
def test_scripts(names):
    """Each piece, as the only one of a model, may be emitted under the same scripts as in the package."""
    scripts, blank = tdt.Script(*names), len(PIECES) - 1
    may = scripts.tokens(tdt.TransducerSpec(blank), Vocabulary(PIECES, blank))
    for token, piece in enumerate(PIECES[:-1]):
        model = model_of((piece, "<blk>"), 1)
        try:
            model.allow(scripts)
            found = True
        except CError as error:
            assert "leaves no token" in str(error)
            found = False
        assert found == may[token], piece


def test_table_of_scripts():
    """It is what tools/unicode_tables.py makes, with the version of the package regex that it names."""
    text = unicode_tables.SCRIPTS.read_text(encoding="utf-8")
    regex = pytest.importorskip("regex")
    if f"// From the package regex {regex.__version__}.\n" not in text:
        pytest.skip("the package regex has another version")
    assert text == unicode_tables.script_header()


def test_searches_with_scripts():
    decoder, model = pair(KINDS[0], 3)
    for names in (("latin", "common"), ("latin",), ("common",)):
        handle = model.allow(tdt.Script(*names))
        for search in FUSED:
            expected = decoder.decode(frames_of(), LENGTHS, replace(search, allow=tdt.Script(*names)))
            same(expected, model.decode(frames_of(), LENGTHS, as_search(search, allow=handle.pointer)))


def test_refusals():
    _, model = pair(KINDS[0])
    _, other = pair(KINDS[1])
    for allow, part in (
        (tdt.OnlyTokens([3, 30]), r"tokens\[1\] must be a token of the model and not blank, got 30"),
        (tdt.ExceptTokens([31]), r"tokens\[0\]"),
        (tdt.OnlyTokens([]), "leaves no token"),
        (tdt.ExceptTokens(range(30)), "leaves no token"),
        (tdt.Script("greek"), "leaves no token"),
    ):
        with pytest.raises(CError, match=part):
            model.allow(allow)
    names = (ctypes.c_char_p * 2)(b"latin", b"elvish")
    for count, part in ((2, r"names\[1\] must be a Unicode script.*elvish"), (0, "names must have the name")):
        with pytest.raises(CError, match=part):
            Handle("allow", "allow_scripts", model.pointer, names, ctypes.c_size_t(count))
    handle = model.allow(tdt.ExceptTokens([]))
    given = as_search(tdt.Greedy(), allow=handle.pointer)
    frames = np.zeros((1, ENCODER, 3), np.float32)
    with pytest.raises(CError, match="made for another model"):
        other.decode(frames, search=given)
    given.row_allow = rows_of([handle])
    with pytest.raises(CError, match="allow or row_allow, not both"):
        model.decode(frames, search=given)
