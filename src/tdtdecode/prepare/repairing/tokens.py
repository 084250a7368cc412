"""Finding the pieces for a correct token file in whatever files a directory has."""

from __future__ import annotations

from ...bundle.blank import BLANK_NAMES, named_blanks
from ...bundle.files import find_file
from ...bundle.onnx_files.embedding import Embedding
from ...bundle.spaces import read_spaces
from ...errors import BundleError
from ..inspection.evidence import Evidence
from ..inspection.token_forms import PIECES, SYMBOLS, TokenTable, read_token_table

_SOURCES = ("tokens.txt", "vocab.txt", "tokenizer.json", "vocab.json", "tokenizer.vocab", "tokenizer.model")
"""Files from which the pieces can be read, the likeliest first."""


def is_correct(table: TokenTable, layout: str, embedding: Embedding | None) -> bool:
    """Whether a token file has the form that its layout requires, and fits the embedding, if that is known."""
    entries = None if embedding is None else embedding.rows
    if layout == "genai":
        return entries is None or len(table.entries) in (entries, entries - 1)
    zero = None if embedding is None else embedding.zero_row
    places = ([0], [len(table.entries) - 1]) if zero is None else ([zero],)
    in_order = table.blanks in places and table.ids == sorted(table.ids)
    return (
        table.form == SYMBOLS and not table.irregular and table.regular_ids and in_order
        and entries in (None, len(table.entries))
        and list(read_spaces(table.pieces(), table.blanks[0]).pieces) == table.pieces()
    )  # fmt: skip


def best_pieces(evidence: Evidence) -> tuple[list[str], str] | None:
    """The pieces by id, with the blank, and the name of the file they were read from; None if no file has them."""
    names = dict.fromkeys([*([evidence.tokens.file.name] if evidence.tokens else []), *_SOURCES])
    for name in names:
        try:
            file = find_file(evidence.root, name)
            table = None if file is None else read_token_table(file)
        except BundleError:
            continue
        pieces = None if table is None else _pieces(table, evidence.embedding)
        if pieces is not None:
            return pieces, name
    return None


def _pieces(table: TokenTable, embedding: Embedding | None) -> list[str] | None:
    """The pieces by id, with the blank where the graph has it; None if the table does not have all of them.

    The blank is appended, or moved, or gets its name, as the embedding asks for it.
    """
    if table.irregular or len(table.blanks) > 1:
        return None
    rows, zero = (None, None) if embedding is None else (embedding.rows, embedding.zero_row)
    if table.regular_ids:
        pieces = table.pieces()
    elif table.ids == sorted(set(table.ids)) and rows in (len(table.entries), len(table.entries) + 1):
        pieces = [symbol for _, symbol in table.entries]  # ids count from 1, or have gaps, but the order is right
    else:
        return None
    if table.form == PIECES and all("\t" in piece for piece in pieces):  # SentencePiece's .vocab: piece, tab, score
        pieces = [piece.rsplit("\t", 1)[0] for piece in pieces]
    blanks = named_blanks(pieces)
    if not blanks and len(pieces) == rows:
        pieces[len(pieces) - 1 if zero is None else zero] = BLANK_NAMES[0]  # it has another name there
    elif not blanks:
        pieces.insert(len(pieces) if zero is None else zero, BLANK_NAMES[0])
    elif blanks[0] not in (zero, 0, len(pieces) - 1):
        return None
    elif zero is not None:
        pieces.insert(zero, pieces.pop(blanks[0]))
    if rows not in (None, len(pieces)) or len(pieces) < 2:
        return None
    return list(read_spaces(pieces, named_blanks(pieces)[0]).pieces)
