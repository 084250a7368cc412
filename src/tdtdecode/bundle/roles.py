"""What a graph is for, by what it takes and gives; and finding the graphs of directories that have names of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import BundleError
from .families import is_cache_aware
from .files import find_file
from .layouts import base_name
from .onnx_files.graph import Graph, load_graph

ENCODER, PREDICTOR, JOINT, COMBINED, DECISION = "encoder", "predictor", "joint", "predictor and joint", "decision"
"""The roles. A decision is a joint, or a predictor and joint, that gives a token and not its scores."""

_MOST_GRAPHS = 24
"""The most graphs of a directory whose roles are looked for."""


def role_of(graph: Graph) -> str | None:
    """The role of a graph; None if it is not a part of a transducer."""
    inputs, outputs = graph.inputs, graph.outputs
    numbers = [port for port in inputs if port.dtype.kind == "i"]
    floats = [port for port in inputs if port.is_float]
    given = [port for port in outputs if port.is_float]
    if gives_decisions(graph):
        return DECISION
    if is_cache_aware(graph):
        return ENCODER
    if not any(port.rank == 2 for port in numbers):
        if len(floats) == 2 and not numbers and len(given) == 1:
            return JOINT
        audio = [port for port in floats if port.rank == 3]
        frames = [port for port in given if port.rank == 3]
        return ENCODER if len(audio) == len(floats) == len(frames) == 1 and numbers else None
    states = len(given) - 1
    return {states: PREDICTOR, states + 1: COMBINED}.get(len(floats))


def gives_decisions(graph: Graph) -> bool:
    """Whether a joint, alone or with its predictor, takes the best token itself: it gives numbers, and no joint rows.

    A joint alone then gives no floats but probabilities. With its predictor it gives as many floats as it takes states,
    which is one fewer than it takes: frames have no counterpart. Lengths are numbers, too, so these alone tell nothing.
    """
    floats = [port for port in graph.inputs if port.is_float]
    numbers = [port for port in graph.outputs if port.dtype.kind in "iu"]
    given = [port for port in graph.outputs if port.is_float and any(size != 1 for size in port.shape[1:])]
    with_predictor = any(port.dtype.kind == "i" for port in graph.inputs)
    return bool(numbers) and len(given) < (len(floats) if with_predictor else min(len(floats) - 1, 1))


def decision_refused(graph: Graph) -> BundleError:
    """Why a graph that takes the best token itself cannot be used, and what to do."""
    given = ", ".join(port.name for port in graph.outputs)
    return BundleError(
        f"a joint with the argmax inside: it gives {given}, and no scores of the other tokens, without which there is "
        "no beam search, no bias and no log-probability. Take the model's export that gives joint rows "
        "(decoder_joint.onnx, or decoder.onnx with joiner.onnx), or export it so: `tdtdecode export MODEL.nemo`",
        file=graph.file,
    )


def find_decision(directory: Path) -> Graph | None:
    """A graph of a directory that takes the best token itself; None if there is none."""
    return next((graph for name, graph in _graphs(directory) if gives_decisions(graph)), None)


def _graphs(directory: Path) -> Iterator[tuple[str, Graph]]:
    """The graphs of a directory, one of each that differ by a variant's suffix, with their names without it."""
    names = sorted(path.name for path in directory.iterdir() if path.name.endswith(".onnx"))
    seen: set[str] = set()
    for name in names if len(names) <= _MOST_GRAPHS else []:
        base = base_name(name)
        if base in seen:
            continue
        try:
            file = find_file(directory, name)
            if file is not None:
                yield base, load_graph(file, directory)
                seen.add(base)
        except BundleError:  # no graph, or a damaged one
            continue


def names_by_role(directory: Path) -> dict[str, str]:
    """The names of a directory's graphs, without suffixes of variants, by what the graphs take and give.

    Files that are no graphs are passed over. A role that several graphs have is left out.

    Raises
    ------
    BundleError
        If one of the graphs is a `DECISION`.
    """
    found: dict[str, set[str]] = {}
    for base, graph in _graphs(directory):
        role = role_of(graph)
        if role == DECISION:
            raise decision_refused(graph)
        if role is not None:
            found.setdefault(role, set()).add(base)
    return {role: bases.pop() for role, bases in found.items() if len(bases) == 1}
