"""Predictor and joint graphs with their inputs and outputs identified: all that is needed to run them in batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..reprs import joined_names, one_line
from .onnx_files.graph import Graph, Port

Shape = tuple[int | None, ...]
"""A tensor's shape for one frame and one token per utterance (T = U = 1). None stands for the batch."""

_TYPES = ("float32", "float16", "bfloat16")
_NARROW = {10: "float16", 16: "bfloat16"}
"""The narrow float types by their number in ONNX."""

Ports = list[tuple[Port, Shape]]
"""Inputs or outputs of a graph, each with its shape for one frame and one token per utterance."""


@dataclass(frozen=True, eq=False)
class PredictorGraph:
    """A predictor: ``(targets [B, 1], target_length [B], states) -> (output, states)``.

    Attributes
    ----------
    targets, target_length:
        The tokens and their number (always 1), integers. `target_length` is None if the graph has no such input.
    states_in, states_out:
        States [L, B, H] in matching order; empty for a stateless predictor.
    state_shapes:
        (L, H) of each state.
    output, output_shape:
        The output and its shape for one token per utterance, such as (None, H, 1). It is (None, 1, 1, J) if the
        predictor's part of a combined graph includes the joint's projection.
    context:
        How many tokens it takes at each step in its file, if it is a predictor of k2, which has no states. The state
        is then the tokens before the last, see `tdtdecode.bundle.context`.
    """

    graph: Graph
    targets: Port
    target_length: Port | None
    states_in: tuple[Port, ...]
    output: Port
    states_out: tuple[Port, ...]
    state_shapes: tuple[tuple[int, int], ...]
    output_shape: Shape
    context: int | None = None


@dataclass(frozen=True, eq=False)
class JointGraph:
    """A joint: ``(encoder, predictor) -> output``, with each shape for one frame and one token per utterance.

    Attributes
    ----------
    encoder, encoder_shape:
        The input of encoder frames.
    predictor, predictor_shape:
        The input of the predictor's output. Its shape may differ from the predictor's `output_shape`, but the
        elements and their order are the same.
    output, output_shape:
        The joint rows: (None, V + 1 + D), perhaps with axes of size 1 between.
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
    """A predictor and a joint that run separately, so that the predictor runs only for emitted tokens."""

    predictor: PredictorGraph
    joint: JointGraph

    def __repr__(self) -> str:
        return one_line(self, joined_names(dict.fromkeys(graph.file.name for graph in self.graphs)))

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """The graphs of predictor and joint."""
        return self.predictor.graph, self.joint.graph


@dataclass(frozen=True, eq=False)
class CombinedTransducer:
    """A graph of predictor and joint that cannot be split.

    ``(encoder, targets [B, 1], target_length [B], states) -> (output, states)``

    Attributes
    ----------
    reason:
        Why it cannot be split.
    encoder, output:
        As in `JointGraph`.
    targets, target_length, states_in, states_out, state_shapes:
        As in `PredictorGraph`.
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

    def __repr__(self) -> str:
        return one_line(self, self.graph.file.name, f"not split: {self.reason}")

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """The one graph."""
        return (self.graph,)


def width(shape: Shape) -> int:
    """Number of elements per utterance."""
    elements = 1
    for dim in shape:
        elements *= 1 if dim is None else dim
    return elements


def token_ports(graph: PredictorGraph | CombinedTransducer) -> tuple[Ports, Ports]:
    """The inputs of tokens and states, and the outputs of states, with their shapes for one token per utterance."""
    states: list[Shape] = [(layers, None, size) for layers, size in graph.state_shapes]
    lengths: Ports = [(graph.target_length, (None,))] if graph.target_length else []
    return [(graph.targets, (None, 1)), *lengths, *zip(graph.states_in, states)], [*zip(graph.states_out, states)]


def arithmetic(transducer: SplitTransducer | CombinedTransducer) -> str:
    """The least precise type in which the graphs compute: float32, float16 or bfloat16."""
    if isinstance(transducer, CombinedTransducer):
        ports = [transducer.output]
    else:
        ports = [transducer.predictor.output, transducer.joint.predictor, transducer.joint.output]
    found = {np.dtype(port.dtype).name for port in ports}
    for graph in transducer.graphs:
        for node in graph.model.graph.node:
            if node.op_type == "Cast":
                found.update(_NARROW[a.i] for a in node.attribute if a.name == "to" and a.i in _NARROW)
    return max(found & set(_TYPES), key=_TYPES.index, default=_TYPES[0])
