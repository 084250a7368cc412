"""How a vocabulary writes the space: recognised, and brought to SentencePiece's form, a mark where a word begins.

Sources of the forms: SentencePiece; byte-level BPE of GPT-2, whose table of bytes is `_byte_letters`; WordPiece of
BERT; the BPE of subword-nmt, fairseq and XLM; characters as wav2vec 2.0, ESPnet and icefall write them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from .vocabulary import SPACE

_SPECIAL = re.compile(r"<.+>|\[.+\]|\|?<\|.*\|>")
"""Pieces that stand for no text, and pieces that are bytes."""

_NAMED_SPACES = frozenset({"<space>", "<SPACE>", "[SPACE]", "[space]", "<sp>", "<|space|>"})

_SCRIPTS_WITH_SPACES = frozenset(
    "LATIN CYRILLIC GREEK ARABIC HEBREW HANGUL DEVANAGARI BENGALI TAMIL TELUGU GEORGIAN ARMENIAN ETHIOPIC".split()
)


@dataclass(frozen=True)
class Spaces:
    """How a vocabulary writes the space.

    Attributes
    ----------
    form:
        For people, such as ``"'\u2581' where a word begins"``; None if no piece writes a space.
    pieces:
        The pieces by id in SentencePiece's form; as they were, if the form is not known for certain.
    problem:
        Why the form is not known, or "".
    """

    form: str | None
    pieces: tuple[str, ...]
    problem: str = ""

    @property
    def is_usual(self) -> bool:
        """Whether the pieces are in the form that all systems know: SentencePiece's, or no spaces at all."""
        return self.form in (None, _MARK)


_MARK = f"{SPACE!r} where a word begins"


def read_spaces(symbols: Sequence[str], blank: int) -> Spaces:
    """Find out how the symbols of a token file write the space.

    Parameters
    ----------
    symbols:
        V + 1 strings by id. Spaces at their beginnings are kept.
    blank:
        The blank's id, or -1.
    """
    text = {i for i, piece in enumerate(symbols) if i != blank and not _SPECIAL.fullmatch(piece.strip(" "))}
    texts = [symbols[i] for i in sorted(text)]
    if any(SPACE in piece for piece in texts):
        return Spaces(_MARK, tuple(piece.strip(" ") or piece for piece in symbols))
    indented = bool(texts) and all(piece.startswith(" ") and piece.strip(" ") for piece in texts)
    plain = [piece.strip(" ") or piece for piece in symbols] if indented else list(symbols)
    texts = [plain[i] for i in sorted(text)]
    found = [(form, change) for form, fits, change in _FORMS if fits(texts, plain)]
    if len(found) > 1:
        listed = ", ".join(form for form, _ in found)
        return Spaces(None, tuple(plain), f"pieces write the space in several ways: {listed}")
    if found:
        form, change = found[0]
        return Spaces(form, tuple(
            change(piece) if i in text or (piece in _NAMED_SPACES and i != blank) else piece
            for i, piece in enumerate(plain)
        ))  # fmt: skip
    if _needs_spaces(texts):
        return Spaces(None, tuple(plain), "no piece writes a space, so that all words run together")
    return Spaces(None, tuple(plain))


def _needs_spaces(texts: Sequence[str]) -> bool:
    """Whether most letters are of scripts that have spaces between words."""
    letters = [char for piece in texts for char in piece if char.isalpha()]
    spaced = sum(unicodedata.name(char, "").split(" ")[0] in _SCRIPTS_WITH_SPACES for char in letters)
    return spaced * 2 > len(letters)


def _starts(texts: Sequence[str], mark: str) -> int:
    return sum(piece.startswith(mark) and len(piece) > len(mark) for piece in texts)


def _ends(texts: Sequence[str], mark: str) -> int:
    return sum(piece.endswith(mark) and len(piece) > len(mark) for piece in texts)


@cache
def _byte_letters() -> dict[str, int]:
    """The letter that byte-level BPE writes for each byte: printable bytes themselves, others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def _from_bytes(piece: str) -> str:
    """A piece of byte-level BPE as text; as bytes, ``<0xE2>``, what is only a part of a character."""
    data = bytes(_byte_letters()[letter] for letter in piece)
    try:
        return data.decode().replace(" ", SPACE)
    except UnicodeDecodeError:
        return "".join(f"<0x{byte:02X}>" for byte in data)


def _begins(mark: str) -> Callable[[str], str]:
    return lambda piece: SPACE + piece.removeprefix(mark) if piece.startswith(mark) else piece


def _is_mark(piece: str) -> bool:
    """Whether a piece is a mark of punctuation. WordPiece does not say if a space comes before it; NeMo has none."""
    return len(piece) == 1 and unicodedata.category(piece).startswith("P")


def _joined_by(mark: str) -> Callable[[str], str]:
    """For pieces that go on with the piece after them where they end with a mark, and end a word otherwise."""
    return lambda piece: piece.removesuffix(mark) if piece.endswith(mark) else piece + SPACE


_FORMS: tuple[tuple[str, Callable[[Sequence[str], Sequence[str]], bool], Callable[[str], str]], ...] = (
    ("spaces", lambda texts, _: any(piece.startswith(" ") for piece in texts),
     lambda piece: SPACE + piece[1:] if piece.startswith(" ") and piece != " " else piece),
    ("'\u0120' of byte-level BPE",
     lambda texts, _: _starts(texts, "\u0120") > 0 and all(letter in _byte_letters() for t in texts for letter in t),
     _from_bytes),
    ("'##' of WordPiece where a word goes on", lambda texts, _: _starts(texts, "##") > 0,
     lambda piece: piece[2:] if piece.startswith("##") else piece if _is_mark(piece) else SPACE + piece),
    ("'</w>' where a word ends", lambda texts, _: _ends(texts, "</w>") > 0,
     lambda piece: piece.removesuffix("</w>") + SPACE if piece.endswith("</w>") else piece),
    ("'@@' where a word goes on", lambda texts, _: _ends(texts, "@@") > 1, _joined_by("@@")),
    ("'|'", lambda texts, _: "|" in texts or _starts(texts, "|") > 1, _begins("|")),
    ("'_' where a word begins", lambda texts, _: _starts(texts, "_") > 1, _begins("_")),
    ("a name of the space", lambda _, symbols: not _NAMED_SPACES.isdisjoint(symbols),
     lambda piece: SPACE if piece in _NAMED_SPACES else piece),
)  # fmt: skip
"""What each form is called, whether pieces have it, and how a piece is brought to SentencePiece's form."""
