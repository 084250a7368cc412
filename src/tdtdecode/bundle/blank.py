"""Which entry of a vocabulary is the blank: the graph decides, and a name only where the graph does not tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import BundleError
from .description import Stated
from .onnx_files.embedding import Embedding

BLANK_NAMES = ("<blk>", "<blank>")
"""What token files call the blank; the first is the usual name, the second GenAI's."""


def named_blanks(symbols: Sequence[str]) -> list[int]:
    """The ids of the symbols that have a name of the blank."""
    return [i for i, symbol in enumerate(symbols) if symbol.strip(" ") in BLANK_NAMES]


def find_blank(
    symbols: Sequence[str],
    embedding: Embedding | None,
    file: Path,
    stated: Stated[int] | None = None,
    entries: int | None = None,
) -> int:
    """The blank's id.

    NeMo pads with the blank, so its row of the embedding is zero. Where a single row is, that is the blank. A symbol
    with the blank's name, and a stated id, must agree. Where the embedding does not tell, they decide; and if the model
    has as many entries as there are symbols and none has the name, the blank is the last, as in NeMo, whatever it is
    called.

    Parameters
    ----------
    symbols:
        The entries of the token file, by id.
    embedding:
        The embedding of the predictor; None if it is not found.
    file:
        The token file, for messages.
    stated:
        The blank's id in a configuration that states it.
    entries:
        V + 1 by the joint's width, where there is no embedding to count; None if unknown.

    Raises
    ------
    BundleError
        If the file and the graph contradict each other, or no entry can be the blank.
    """
    named = named_blanks(symbols)
    names = " or ".join(BLANK_NAMES)
    if len(named) > 1:
        raise BundleError(f"several blanks ({names}) with ids {named}; expected one", file=file)
    if embedding is not None and embedding.rows != len(symbols):
        raise BundleError(wrong_count(symbols, embedding), file=file)
    if embedding is not None and embedding.zero_row is not None:
        claimed = named if stated is None else [stated.value]
        if claimed and embedding.zero_row not in claimed:
            where, field = (file, None) if stated is None else (stated.file, stated.field)
            raise BundleError(misplaced(symbols, claimed[0], embedding), file=where, field=field)
        return embedding.zero_row
    if stated is not None:
        return stated.value
    if not named and embedding is None and entries != len(symbols):
        raise BundleError(
            f"no blank: expected {names} as the first or the last of its {len(symbols)} entries; add it", file=file
        )
    if named and named[0] not in (0, len(symbols) - 1):
        raise BundleError(
            f"the blank {symbols[named[0]]} has id {named[0]} of {len(symbols)} entries; expected it first (0) "
            f"or last ({len(symbols) - 1})", file=file,
        )  # fmt: skip
    return named[0] if named else len(symbols) - 1


def wrong_count(symbols: Sequence[str], embedding: Embedding) -> str:
    """What is wrong with a token file that has not as many entries as the embedding has rows, for messages."""
    count, rows, graph = len(symbols), embedding.rows, embedding.file.name
    found = f"has {count} entries, but the embedding in {graph} has {rows} rows"
    if count == rows - 1 and not named_blanks(symbols):
        return f"no blank: {found}; add {BLANK_NAMES[0]} with id {embedding.zero_row or count}"
    if count > rows:
        return f"{found}: {count - rows} too many, or the file belongs to another model"
    return f"{found}: the file is incomplete or belongs to another model"


def misplaced(symbols: Sequence[str], claimed: int, embedding: Embedding) -> str:
    """What is wrong with a token file whose blank has another id than the graph's, for messages."""
    zero = embedding.zero_row
    assert zero is not None
    return (
        f"the blank has id {claimed}, but in the embedding in {embedding.file.name} the row of zeros, which NeMo's "
        f"models have for the blank, is {zero} (here {symbols[zero]!r}): the ids between are shifted by one; expected "
        f"the blank with id {zero}"
    )
