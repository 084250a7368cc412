"""Token files: ``symbol id`` lines, plain lists of pieces, and tokenizer.json."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import BundleError
from ..optional import needed
from .blank import BLANK_NAMES, named_blanks
from .files import read_any_json, read_bytes, read_json, read_text

_SYMBOL_AND_ID = re.compile(r"(.*)[ \t]([0-9]{1,9})[ \t]*")

_SENTENCEPIECE_LIMIT = 64 << 20
"""Largest SentencePiece model that is read, in bytes."""


def symbol_of(text: str) -> str:
    """The symbol of what stands before an id. A space at its beginning may be part of it, see `read_spaces`."""
    # A symbol of nothing but white space is the space itself.
    return text.lstrip("\t").rstrip(" \t") or " "


def read_symbol_table(file: Path) -> tuple[str, ...]:
    """The symbols by id of a file with lines of the form ``symbol id``.

    Raises
    ------
    BundleError
        If a line is malformed, or ids have gaps or repeat.
    """
    return _parse_symbols(file, _lines(file))


def read_pieces(file: Path, entries: int, blank: int) -> tuple[str, ...]:
    """The symbols by id of a token file that a configuration describes, with or without an entry for the blank.

    Parameters
    ----------
    file:
        A tokenizer.json, whose ``model.vocab`` is a list (Unigram) or a map of piece to id; or a file with one piece
        per line. There, lines of the form ``symbol id`` are accepted, too, if all lines have it.
    entries:
        V + 1, as the configuration states it.
    blank:
        Id of blank, as the configuration states it.

    Raises
    ------
    BundleError
        If the file has another form, a line is empty, ids have gaps, or it contradicts the configuration.
    """
    pieces = _tokenizer_pieces(file) if file.suffix == ".json" else _listed_pieces(file)
    return _with_blank(pieces, entries, blank, file)


def read_sentencepiece(file: Path) -> tuple[str, ...]:
    """The pieces by id of SentencePiece's ``tokenizer.model``, and the blank after them, as NeMo's models have it.

    Raises
    ------
    BundleError
        If the file is no such model.
    MissingDependencyError
        If the package sentencepiece is not installed.
    """
    with needed("sentencepiece", "export", f"Reading {file.name}"):
        import sentencepiece
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(read_bytes(file, _SENTENCEPIECE_LIMIT))
    except (RuntimeError, OSError) as error:
        raise BundleError(f"not a SentencePiece model: {error}", file=file) from None
    return (*(processor.IdToPiece(i) for i in range(processor.GetPieceSize())), BLANK_NAMES[0])


def read_vocabulary_json(file: Path) -> tuple[str, ...]:
    """The symbols by id of a ``vocab.json``: a list of pieces, or a map of piece to id, or of id to piece.

    Where none of them is the blank, it is added behind them, as NeMo's models have it.

    Raises
    ------
    BundleError
        If the file has another form, or ids have gaps or repeat.
    """
    value = read_any_json(file)
    pairs: list[tuple[Any, Any]]
    if isinstance(value, list):
        pairs = list(enumerate(value))
    elif not isinstance(value, dict):
        raise BundleError("expected a list of pieces, or a map of piece to id or of id to piece", file=file)
    elif all(isinstance(i, int) for i in value.values()):
        pairs = [(i, piece) for piece, i in value.items()]
    else:
        pairs = [(int(key) if key.isdecimal() and len(key) < 10 else key, piece) for key, piece in value.items()]
    by_id = {_token_id(i, file, f"{i!r:.40}"): _piece(piece, file, f"{i!r:.40}") for i, piece in pairs}
    if len(by_id) < len(pairs) or sorted(by_id) != list(range(len(by_id))):
        raise BundleError(f"ids have gaps or repeat: {len(pairs)} pieces, {len(by_id)} ids", file=file)
    symbols = [by_id[i] for i in range(len(by_id))]
    return tuple(symbols if named_blanks(symbols) else [*symbols, BLANK_NAMES[0]])


def _listed_pieces(file: Path) -> Sequence[str]:
    lines = _lines(file)
    if all(_SYMBOL_AND_ID.fullmatch(line) for line in lines):
        return _parse_symbols(file, lines)
    for number, line in enumerate(lines, 1):
        if not line:
            raise BundleError(f"line {number} is empty; expected one piece per line", file=file)
    return lines


def _tokenizer_pieces(file: Path) -> list[str]:
    data = read_json(file)
    model = data.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    by_id: dict[int, str] = {}
    if isinstance(vocab, list):
        for i, item in enumerate(vocab):
            by_id[i] = _piece(item[0] if isinstance(item, list) and item else item, file, f"model.vocab[{i}]")
    elif isinstance(vocab, dict):
        for piece, i in vocab.items():
            by_id[_token_id(i, file, f"model.vocab[{piece!r}]")] = piece
    else:
        raise BundleError("expected a list of pieces or a map of piece to id", file=file, field="model.vocab")
    added = data.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(item, dict) for item in added):
        raise BundleError("expected a list of objects", file=file, field="added_tokens")
    for item in added:
        by_id[_token_id(item.get("id"), file, "added_tokens.id")] = _piece(
            item.get("content"), file, "added_tokens.content"
        )
    if sorted(by_id) != list(range(len(by_id))):
        largest = max(by_id, default=None)
        raise BundleError(f"ids have gaps: {len(by_id)} pieces, largest id {largest}", file=file, field="model.vocab")
    return [by_id[i] for i in range(len(by_id))]


def _lines(file: Path) -> list[str]:
    # Split at line feeds only: a piece may contain other line separators, such as U+2028 and U+0085.
    lines = [line.removesuffix("\r") for line in read_text(file).split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise BundleError("the file has no entries", file=file)
    return lines


def _parse_symbols(file: Path, lines: list[str]) -> tuple[str, ...]:
    symbols: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        match = _SYMBOL_AND_ID.fullmatch(line)
        if match is None:
            raise BundleError(f"line {number} is {line[:40]!r}; expected 'symbol id'", file=file)
        token = int(match[2])
        if token in symbols:
            raise BundleError(f"line {number}: id {token} was already given to {symbols[token]!r}", file=file)
        symbols[token] = symbol_of(match[1])
    for expected in range(len(symbols)):
        if expected not in symbols:
            raise BundleError(
                f"ids have gaps: {len(symbols)} lines must have the ids 0 to {len(symbols) - 1}, but id {expected} "
                "is missing",
                file=file,
            )
    return tuple(symbols[i] for i in range(len(symbols)))


def _with_blank(pieces: Sequence[str], entries: int, blank: int, file: Path) -> tuple[str, ...]:
    """These pieces, after adding the blank if the file does not list it."""
    if len(pieces) == entries - 1 and not any(name in pieces for name in BLANK_NAMES):
        pieces = [*pieces[:blank], BLANK_NAMES[1], *pieces[blank:]]
    if len(pieces) != entries:
        raise BundleError(
            f"has {len(pieces)} pieces, but the configuration's vocab_size is {entries} (which counts the blank)",
            file=file,
        )
    named = [i for i, piece in enumerate(pieces) if piece in BLANK_NAMES]
    if named and blank not in named:
        raise BundleError(
            f"the blank {pieces[named[0]]} has id {named[0]}, but the configuration's blank_id is {blank}", file=file
        )
    return tuple(pieces)


def _piece(value: Any, file: Path, field: str) -> str:
    if not isinstance(value, str):
        raise BundleError(f"expected a string, got {value!r:.40}", file=file, field=field)
    return value


def _token_id(value: Any, file: Path, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BundleError(f"expected a token id, got {value!r:.40}", file=file, field=field)
    return value
