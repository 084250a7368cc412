"""Finding the embedding table in a graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .graph import Graph, Port

_PASS_ON = {"Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Flatten"}
"""Operators whose output has the values of their first input."""

_FROM_TOKENS = {"Concat", "Clip", "Max"}
"""Operators that tokens go through before they are looked up, in predictors of k2: they take several, some below 0."""

_COPY = {"Cast", "Identity", "DequantizeLinear"}
"""Operators through which a whole table goes before it is looked up."""


@dataclass(frozen=True)
class Embedding:
    """The embedding of a predictor.

    Attributes
    ----------
    file:
        The graph's file, for messages.
    rows:
        Number of rows, V + 1.
    zero_row:
        The only row whose values are all zero; None if there is none, or several.
    """

    file: Path
    rows: int
    zero_row: int | None


def find_embedding(graph: Graph, targets: Port) -> Embedding | None:
    """The embedding; None if no table is looked up by the tokens.

    Parameters
    ----------
    targets:
        The graph's input of tokens.
    """
    tokens = {targets.name}
    tables = {tensor.name: tensor.name for tensor in graph.model.graph.initializer if len(tensor.dims) == 2}
    for node in graph.model.graph.node:
        if node.op_type == "Gather" and node.input[1] in tokens and node.input[0] in tables:
            table = tables[node.input[0]]
            rows = graph.initializers[table].dims[0]
            return Embedding(graph.file, rows, _zero_row(graph, table, {node.input[0], table, *node.output}))
        if node.op_type in _FROM_TOKENS and tokens & set(node.input):
            tokens.update(node.output)
        if node.op_type in _PASS_ON | {"DequantizeLinear"} and node.input:
            if node.input[0] in tokens:
                tokens.update(node.output)
            elif node.op_type in _COPY and node.input[0] in tables:
                tables[node.output[0]] = tables[node.input[0]]
    return None


def _zero_row(graph: Graph, table: str, names: set[str]) -> int | None:
    """The only row of zeros; None if there is none, or several, or the table cannot be read.

    Parameters
    ----------
    names:
        The table, and what it becomes up to the rows that were looked up: these, or what passes them on, may be
        dequantised.
    """
    values = graph.array(table)
    if values.dtype.kind in "iu":
        scaled = []
        for node in graph.model.graph.node:
            if node.op_type == "DequantizeLinear" and node.input[0] in names:
                scaled.append(node)
            elif node.op_type in _PASS_ON and node.input[0] in names:
                names.update(node.output)
        if len(scaled) != 1:
            return None
        point = scaled[0].input[2] if len(scaled[0].input) > 2 else ""
        if point and point not in graph.initializers:
            return None
        offset = graph.array(point).reshape(-1) if point else np.zeros(1, values.dtype)
        if len(offset) == len(values):
            offset = offset[:, None]
        elif len(offset) not in (1, values.shape[1]):
            return None
        used = (values != offset).any(axis=1)
    else:
        used = (values != 0).any(axis=1)
    zeros = np.flatnonzero(~used)
    return int(zeros[0]) if len(zeros) == 1 else None
