"""Finding the embedding table in a graph."""

from __future__ import annotations

from .graph import Graph, Port

_PASS_ON = {"Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Flatten"}
"""Operators whose output has the values of their first input."""


def embedding_rows(graph: Graph, targets: Port) -> int | None:
    """Number of rows of the embedding table, V + 1; None if no table is looked up by the tokens.

    Parameters
    ----------
    targets:
        The graph's input of tokens.
    """
    tokens = {targets.name}
    tables = {tensor.name: tensor.dims[0] for tensor in graph.model.graph.initializer if len(tensor.dims) == 2}
    for node in graph.model.graph.node:
        if node.op_type == "Gather" and node.input[1] in tokens and node.input[0] in tables:
            return tables[node.input[0]]
        if node.op_type in _PASS_ON | {"DequantizeLinear"} and node.input:
            if node.input[0] in tokens:
                tokens.update(node.output)
            elif node.op_type in {"Cast", "Identity", "DequantizeLinear"} and node.input[0] in tables:
                tables[node.output[0]] = tables[node.input[0]]
    return None
