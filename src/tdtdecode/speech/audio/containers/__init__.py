"""What recordings state about their length, and what is really there: a file for each kind of container."""

from ..sources import Source
from . import boxes, chunks, flac, mpeg, ogg
from .statement import Statement, without_tags

__all__ = ["Statement", "statements", "without_tags"]


def statements(source: Source) -> list[Statement]:
    """What a recording states; several, if it is several joined end to end."""
    single = chunks.statement(source)
    if single is not None:
        return [single]
    for container in (ogg, flac, mpeg):
        if found := container.statements(source):
            return found
    return [boxes.statement(source) or Statement([(0, source.size)], "decoder")]
