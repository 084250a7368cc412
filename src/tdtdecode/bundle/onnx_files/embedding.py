"""Finding weights in a graph by how they are used."""

from __future__ import annotations

from .graph import Graph, Port

_CARRIERS = {"Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Flatten"}


def embedding_rows(graph: Graph, targets: Port) -> int | None:
    """Rows of the table that the tokens look up, one per token with blank; None if there is no such look-up."""
    carried = {targets.name}
    tables = {tensor.name: tensor.dims[0] for tensor in graph.model.graph.initializer if len(tensor.dims) == 2}
    for node in graph.model.graph.node:
        if node.op_type == "Gather" and node.input[1] in carried and node.input[0] in tables:
            return tables[node.input[0]]
        if node.op_type in _CARRIERS | {"DequantizeLinear"} and node.input:
            if node.input[0] in carried:
                carried.update(node.output)
            elif node.op_type in {"Cast", "Identity", "DequantizeLinear"} and node.input[0] in tables:
                tables[node.output[0]] = tables[node.input[0]]
    return None
