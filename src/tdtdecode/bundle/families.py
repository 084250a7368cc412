"""Families of encoders, told by their inputs: whole recordings, streams with caches, languages, speakers."""

from __future__ import annotations

from .onnx_files.graph import Graph

OFFLINE = "whole recordings"
"""The family that takes features and their lengths, and nothing else."""

_CACHES = "cache-aware streaming"
_OTHERS = (("language prompt", ("prompt", "lang")), ("speakers to follow", ("spk", "speaker")))
"""Inputs that encoders of any family may have besides, with parts of their names."""


def encoder_family(graph: Graph) -> str:
    """What an encoder expects besides features and their lengths, for messages: `OFFLINE` if nothing.

    NeMo, parakeet-rs and onnxruntime-genai all have "cache" in the names of caches. Inputs that nothing is known about
    are named.
    """
    rest = [port.name for port in graph.inputs]
    for kind, rank in ((True, 3), (False, 1)):
        known = [port.name for port in graph.inputs if (port.is_float, port.rank) == (kind, rank)]
        plain = [name for name in known if _part_of(name) is None]
        if plain:
            rest.remove(plain[0])
    parts = list(dict.fromkeys(_part_of(name) or f"unknown input {name}" for name in rest))
    if not parts:
        return OFFLINE
    first = _CACHES if _CACHES in parts else OFFLINE
    others = [part for part in parts if part != first]
    return f"{first}, with {' and '.join(others)}" if others else first


def _part_of(name: str) -> str | None:
    """What an input is for, if its name tells."""
    if "cache" in name.lower():
        return _CACHES
    return next((part for part, words in _OTHERS if any(word in name.lower() for word in words)), None)
