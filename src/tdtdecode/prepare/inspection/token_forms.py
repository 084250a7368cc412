"""Reading token files in any form: the correct one, and the wrong ones that export scripts are known to write."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...bundle.blank import BLANK_NAMES
from ...bundle.files import parse_json, read_text
from ...bundle.tokens import read_sentencepiece, symbol_of

SYMBOLS, SWAPPED, PAIRS, PIECES, JSON = "symbol id", "id symbol", "pair id", "pieces", "JSON"
SENTENCEPIECE = "SentencePiece"
"""The forms. ``symbol id`` lines are correct. In PAIRS the symbol is a tuple of piece and score, written as text.
SentencePiece's model is what parakeet-rs reads; its entries are the pieces, and the blank after them."""

_SYMBOL_ID = re.compile(r"(.*)[ \t]([0-9]{1,9})[ \t]*")
_ID_SYMBOL = re.compile(r"([0-9]{1,9})[ \t](.*)")
_PAIR = re.compile(r"""\s*[\[(]\s*(['"].*['"])\s*,\s*-?[0-9.eE+-]+\s*[\])]\s*""")


@dataclass(frozen=True)
class TokenTable:
    """The content of a token file.

    Attributes
    ----------
    form:
        SYMBOLS, SWAPPED, PAIRS, PIECES, JSON or SENTENCEPIECE.
    entries:
        (id, symbol) in the file's order. If the form has no ids, they count the lines from 0.
    irregular:
        Numbers, from 1, of the lines that do not have the form.
    """

    file: Path
    form: str
    entries: tuple[tuple[int, str], ...]
    irregular: tuple[int, ...] = ()

    @property
    def ids(self) -> list[int]:
        """The ids, in the file's order."""
        return [i for i, _ in self.entries]

    @property
    def regular_ids(self) -> bool:
        """Whether the ids are 0, 1, 2, ..., in any order."""
        return sorted(self.ids) == list(range(len(self.entries)))

    @property
    def blanks(self) -> list[int]:
        """The ids of the symbols that are blank."""
        return [i for i, symbol in self.entries if symbol.strip(" ") in BLANK_NAMES]

    def pieces(self) -> list[str]:
        """The symbols, in the order of their ids."""
        return [symbol for _, symbol in sorted(self.entries)]


def read_token_table(file: Path) -> TokenTable:
    """Read a token file, and find out which form it has.

    Raises
    ------
    BundleError
        If it is empty, too large, or neither UTF-8 text nor SentencePiece's model.
    MissingDependencyError
        If it is SentencePiece's model, and that package is not installed.
    """
    if file.suffix == ".model":
        return TokenTable(file, SENTENCEPIECE, tuple(enumerate(read_sentencepiece(file))))
    text = read_text(file)
    if file.suffix == ".json" or text.lstrip()[:1] in "[{" and _parsed(text) is not None:
        return TokenTable(file, JSON, tuple(_json_entries(_parsed(text))))
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    symbols = [_SYMBOL_ID.fullmatch(line) for line in lines]
    swapped = [_ID_SYMBOL.fullmatch(line) for line in lines]
    with_ids = sum(match is not None for match in symbols)
    if with_ids < sum(match is not None for match in swapped):
        entries = [(int(match[1]), match[2]) for match in swapped if match]
        return TokenTable(file, SWAPPED, tuple(entries), _missing(swapped))
    if with_ids * 2 < len(lines):
        return TokenTable(file, PIECES, tuple(enumerate(lines)), tuple(i for i, x in enumerate(lines, 1) if not x))
    entries = [(int(match[2]), symbol_of(match[1])) for match in symbols if match]
    pairs = [_PAIR.fullmatch(symbol) for _, symbol in entries]
    if sum(match is not None for match in pairs) * 2 > len(entries):
        inner = [(i, _unquoted(match[1]) if match else symbol) for (i, symbol), match in zip(entries, pairs)]
        return TokenTable(file, PAIRS, tuple(inner), _missing(symbols))
    return TokenTable(file, SYMBOLS, tuple(entries), _missing(symbols))


def _missing(matches: list) -> tuple[int, ...]:
    return tuple(number for number, match in enumerate(matches, 1) if match is None)


def _unquoted(text: str) -> str:
    try:
        symbol = str(ast.literal_eval(text))
        symbol.encode()  # fails for an escape that is half of a surrogate pair
        return symbol
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text[1:-1]


def _parsed(text: str) -> Any:
    try:
        return parse_json(text)
    except (ValueError, RecursionError):
        return None


def _json_entries(value: Any) -> list[tuple[int, str]]:
    """(id, piece) of a list, of a map from piece to id or from id to piece, or of a tokenizer.json."""
    if isinstance(value, dict) and isinstance(value.get("model"), dict) and "vocab" in value["model"]:
        entries = dict(_json_entries(value["model"]["vocab"]))
        added = value.get("added_tokens")
        for item in added if isinstance(added, list) else []:
            if isinstance(item, dict) and isinstance(item.get("id"), int) and isinstance(item.get("content"), str):
                entries[item["id"]] = item["content"]
        return sorted(entries.items())
    if isinstance(value, list):
        firsts = [item[0] if isinstance(item, list) and item else item for item in value]
        return [(i, item) for i, item in enumerate(firsts) if isinstance(item, str)]
    if isinstance(value, dict):
        if all(isinstance(i, int) and not isinstance(i, bool) for i in value.values()):
            return [(i, piece) for piece, i in value.items()]
        if all(key.isdecimal() and len(key) < 10 and isinstance(piece, str) for key, piece in value.items()):
            return [(int(key), piece) for key, piece in value.items()]
    return []
