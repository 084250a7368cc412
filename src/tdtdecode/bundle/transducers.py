"""Predictor and joint graphs with their ports bound: what a network needs to run them at any batch size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .onnx_files.graph import Graph, Port

Shape = tuple[int | None, ...]
"""An exact shape for one step (T = U = 1), with None where the batch is."""

_TYPES = ("float32", "float16", "bfloat16")
_NARROW = {10: "float16", 16: "bfloat16"}  # as ONNX numbers its types

Ports = list[tuple[Port, Shape]]
"""Inputs or outputs of a graph with their shapes for one step."""


@dataclass(frozen=True, eq=False)
class PredictorGraph:
    """``(targets [B, 1], target_length [B], states) -> (output, states)``.

    Attributes
    ----------
    targets, target_length:
        Integer inputs; the length (always 1) is None where the graph has none.
    states_in, states_out:
        States [L, B, H] in matching order; none for a stateless predictor.
    state_shapes:
        (L, H) of each state.
    output, output_shape:
        The output and its shape for one step, e.g. (None, H, 1), or (None, 1, 1, J) where the joint's projection
        is part of the predictor.
    """

    graph: Graph
    targets: Port
    target_length: Port | None
    states_in: tuple[Port, ...]
    output: Port
    states_out: tuple[Port, ...]
    state_shapes: tuple[tuple[int, int], ...]
    output_shape: Shape


@dataclass(frozen=True, eq=False)
class JointGraph:
    """``(encoder, predictor) -> rows``, each with its shape for one frame and one token.

    A tensor of the predictor's `output_shape` has the same elements in the same order as one of `predictor_shape`.
    """

    graph: Graph
    encoder: Port
    predictor: Port
    output: Port
    encoder_shape: Shape
    predictor_shape: Shape
    output_shape: Shape


@dataclass(frozen=True, eq=False)
class SplitTransducer:
    """A predictor and a joint that run apart: the predictor only for emitted tokens."""

    predictor: PredictorGraph
    joint: JointGraph


@dataclass(frozen=True, eq=False)
class CombinedTransducer:
    """Predictor and joint in one graph whose structure could not be split, for the given `reason`.

    ``(encoder, targets [B, 1], target_length [B], states) -> (rows, states)``
    """

    graph: Graph
    encoder: Port
    encoder_shape: Shape
    targets: Port
    target_length: Port | None
    states_in: tuple[Port, ...]
    states_out: tuple[Port, ...]
    state_shapes: tuple[tuple[int, int], ...]
    output: Port
    output_shape: Shape
    reason: str


def width(shape: Shape) -> int:
    """Number of elements per row."""
    elements = 1
    for dim in shape:
        elements *= 1 if dim is None else dim
    return elements


def token_ports(graph: PredictorGraph | CombinedTransducer) -> tuple[Ports, Ports]:
    """The inputs of tokens and states, and the outputs of states, with their shapes for one step."""
    states: list[Shape] = [(layers, None, size) for layers, size in graph.state_shapes]
    lengths: Ports = [(graph.target_length, (None,))] if graph.target_length else []
    return [(graph.targets, (None, 1)), *lengths, *zip(graph.states_in, states)], [*zip(graph.states_out, states)]


def arithmetic(transducer: SplitTransducer | CombinedTransducer) -> str:
    """The coarsest type that numbers have on their way through the graphs: float32, float16 or bfloat16."""
    if isinstance(transducer, CombinedTransducer):
        graphs, ports = [transducer.graph], [transducer.output]
    else:
        graphs = [transducer.predictor.graph, transducer.joint.graph]
        ports = [transducer.predictor.output, transducer.joint.predictor, transducer.joint.output]
    found = {np.dtype(port.dtype).name for port in ports}
    for graph in graphs:
        for node in graph.model.graph.node:
            if node.op_type == "Cast":
                found.update(_NARROW[a.i] for a in node.attribute if a.name == "to" and a.i in _NARROW)
    return max(found & set(_TYPES), key=_TYPES.index, default=_TYPES[0])
