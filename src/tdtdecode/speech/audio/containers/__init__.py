"""What recordings state about their length, and what is really there: a file for each kind of container."""

from ..sources import Source
from . import chunks, flac, mpeg, ogg
from .statement import Statement

__all__ = ["Statement", "statements"]


def statements(source: Source) -> list[Statement]:
    """What a recording states; several, if it is several joined end to end."""
    found = ogg.statements(source)
    if not found:
        single = chunks.statement(source) or flac.statement(source) or mpeg.statement(source)
        found = [single or Statement([(0, source.size)], "decoder")]
    return found
