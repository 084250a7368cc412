"""Finding the pieces for a correct token file in whatever files a directory has."""

from __future__ import annotations

from pathlib import Path

from ...bundle.files import find_file, read_bytes
from ...bundle.tokens import BLANK_NAMES
from ...errors import BundleError
from ...optional import needed
from ..inspection.evidence import Evidence
from ..inspection.token_forms import PIECES, SYMBOLS, TokenTable, read_token_table

_SOURCES = ("tokens.txt", "vocab.txt", "tokenizer.json", "vocab.json", "tokenizer.vocab", "tokenizer.model")
"""Files from which the pieces can be read, the likeliest first."""

_MODEL_LIMIT = 64 << 20
"""Largest SentencePiece model that is read, in bytes."""


def is_correct(table: TokenTable, layout: str, entries: int | None) -> bool:
    """Whether a token file has the form that its layout requires, and `entries` entries, if that number is known."""
    if layout == "genai":
        return entries is None or len(table.entries) in (entries, entries - 1)
    in_order = table.blanks in ([0], [len(table.entries) - 1]) and table.ids == sorted(table.ids)
    return (
        table.form == SYMBOLS and not table.irregular and table.regular_ids and in_order
        and entries in (None, len(table.entries))
    )  # fmt: skip


def best_pieces(evidence: Evidence) -> tuple[list[str], str] | None:
    """The pieces by id, with the blank, and the name of the file they were read from; None if no file has them."""
    names = dict.fromkeys([*([evidence.tokens.file.name] if evidence.tokens else []), *_SOURCES])
    for name in names:
        try:
            file = find_file(evidence.root, name)
            table = None if file is None else _table(file)
        except BundleError:
            continue
        pieces = None if table is None else _pieces(table, evidence.embedding_rows)
        if pieces is not None:
            return pieces, name
    return None


def _table(file: Path) -> TokenTable:
    if file.suffix != ".model":
        return read_token_table(file)
    with needed("sentencepiece", "export", f"Reading {file.name}"):
        import sentencepiece
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(read_bytes(file, _MODEL_LIMIT))
    except (RuntimeError, OSError) as error:
        raise BundleError(f"not a SentencePiece model: {error}", file=file) from None
    return TokenTable(file, PIECES, tuple((i, processor.IdToPiece(i)) for i in range(processor.GetPieceSize())))


def _pieces(table: TokenTable, entries: int | None) -> list[str] | None:
    """The pieces by id, with the blank; None if the table does not have all of them.

    Parameters
    ----------
    entries:
        V + 1; None if unknown.
    """
    if table.irregular or len(table.blanks) > 1:
        return None
    if table.regular_ids:
        pieces = table.pieces()
    elif table.ids == sorted(set(table.ids)) and entries in (len(table.entries), len(table.entries) + 1):
        pieces = [symbol for _, symbol in table.entries]  # ids count from 1, or have gaps, but the order is right
    else:
        return None
    if table.form == PIECES and all("\t" in piece for piece in pieces):  # SentencePiece's .vocab: piece, tab, score
        pieces = [piece.rsplit("\t", 1)[0] for piece in pieces]
    blanks = [i for i, piece in enumerate(pieces) if piece in BLANK_NAMES]
    if not blanks:
        pieces = [*pieces, BLANK_NAMES[0]]
    elif blanks[0] not in (0, len(pieces) - 1):
        return None
    return pieces if entries in (None, len(pieces)) and len(pieces) > 1 else None
