"""Tables of a k2 predictor, which looks at the last few tokens: what each token adds to the output, place by place.

Such a predictor computes ``relu(sum over the places of a table's row for the token there)``: an embedding, and a
convolution over the places. With a single place there is neither convolution nor ReLU. The tables are what the graph
itself computes for each token at each place, beside nothing at the others. That holds for any graph whose places are
only added up. Whether they are shows when the lifted weights are compared with the graph
(`tdtdecode.networks.choice.lifted_weights`).
"""

from __future__ import annotations

import numpy as np

from ..onnx_files.dependencies import import_onnx
from ..onnx_files.flow import extract
from ..onnx_files.graph import Graph, first_line
from ..transducers import PredictorGraph
from .expressions import MAX_CONSTANT_BYTES, CannotLift, Expressions
from .patterns import describe

_AT_ONCE = 1024
"""Tokens of a run."""


def context_tables(predictor: Expressions, ports: PredictorGraph, name: str, entries: int) -> list[np.ndarray]:
    """The tables float32 [V + 1, H] that compute the tensor `name`: for the last token, the second last, and so on.

    Parameters
    ----------
    predictor, ports:
        The predictor, dequantised, with the earlier tokens as its state.
    entries:
        V + 1.

    Raises
    ------
    CannotLift
        If the tensor is no ReLU, the tables would be too large, or ONNX Runtime cannot run the graph.
    """
    context = ports.context
    assert context is not None
    if context > 1:
        _, node, _ = predictor.source(name)
        if node is None or node.op_type != "Relu":
            raise CannotLift(
                f"expected a Relu at the end of a predictor over several tokens, found {describe(node, name)}"
            )
        name = node.input[0]
    session = _before(predictor.graph, name).plain_session()

    def rows(tokens: np.ndarray, place: int) -> np.ndarray:
        """The tensor for each of tokens [N] at a place, 0 being the last, and nothing (-1) at the others: [N, H]."""
        numbers = np.full((len(tokens), context), -1)
        numbers[:, -1 - place] = tokens
        feeds = {ports.targets.name: numbers[:, -1:].astype(ports.targets.dtype)}
        for state in ports.states_in:
            feeds[state.name] = (numbers[None, :, :-1] + 1).astype(state.dtype)
        try:
            (values,) = session.run([name], feeds)
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            raise CannotLift(f"ONNX Runtime cannot run the predictor for single tokens: {first_line(error)}") from None
        return np.asarray(values, np.float32).reshape(len(tokens), -1)

    nothing = rows(np.array([-1]), 0) if context > 1 else rows(np.array([0]), 0)
    if 4 * entries * context * nothing.shape[1] > MAX_CONSTANT_BYTES:
        raise CannotLift(f"the predictor's tables would have {entries} x {context} x {nothing.shape[1]} numbers")
    tables = []
    for place in range(context):
        parts = [
            rows(np.arange(first, min(first + _AT_ONCE, entries)), place) for first in range(0, entries, _AT_ONCE)
        ]
        tables.append(np.concatenate(parts) - (nothing if place else np.float32(0)))
    return tables


def _before(graph: Graph, name: str) -> Graph:
    """The part of a graph that computes a tensor."""
    onnx = import_onnx()
    return extract(graph, graph.model.graph.input, [onnx.ValueInfoProto(name=name)])
