"""A graph's file, parsed, and checked as far as it can be before anything believes it."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import BundleError
from ..files import read_bytes
from .dependencies import import_onnx
from .external import external_tensors
from .tensors import check_tensors

if TYPE_CHECKING:
    import onnx

GRAPH_LIMIT = (1 << 31) - 1
"""Largest graph file in bytes, weights outside it not counted: protobuf's own limit."""

MAX_CONSTANT_SIZE = 1 << 30
"""Largest tensor, in elements, that a graph may ask for by a constant shape."""

_SIZES_AT = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}
"""Operators that make tensors of a shape, or so many times as large, and which input says so."""


def parse_graph(file: Path) -> onnx.ModelProto:
    """What a graph's file says; nothing is known of its external weights.

    Raises
    ------
    BundleError
        If the file is no ONNX graph.
    """
    onnx = import_onnx()
    data = read_bytes(file, GRAPH_LIMIT)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's own exception type differs between its implementations
        raise BundleError(f"not an ONNX graph{_in_its_place(data)}: {error}", file=file) from None
    if not model.graph.node or not model.graph.output:
        raise BundleError(f"not an ONNX graph{_in_its_place(data)}: it has no nodes or no outputs", file=file)
    for node in model.graph.node:
        if node.op_type == "EPContext":
            raise BundleError("contains precompiled code (EPContext); use the original export", file=file)
    _check_names(model, file)
    _check_nodes(model, file)
    check_tensors(model, file)
    return model


def _check_names(model: onnx.ModelProto, file: Path) -> None:
    """Names are texts: those that are no UTF-8 come out of the protobuf as bytes."""
    names = [entry.key for entry in model.metadata_props] + [entry.value for entry in model.metadata_props]
    for tensor in external_tensors(model):
        names += [entry.value for entry in tensor.external_data] + [entry.key for entry in tensor.external_data]
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        names += [item.name for item in (*graph.input, *graph.output, *graph.initializer, *graph.node)]
        names += [dim.dim_param for value in (*graph.input, *graph.output) for dim in value.type.tensor_type.shape.dim]
        for node in graph.node:
            names += [*node.input, *node.output, node.op_type, node.domain]
            for attribute in node.attribute:
                names.append(attribute.name)
                graphs += ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs)
    for name in names:
        if not isinstance(name, str):
            raise BundleError(f"a name is no UTF-8 text: {name!r:.60}", file=file)
    for kind, values in (("inputs", model.graph.input), ("outputs", model.graph.output)):
        for name, count in Counter(value.name for value in values).items():
            if count > 1:
                raise BundleError(f"{count} {kind} have one name", file=file, field=name)


def _check_nodes(model: onnx.ModelProto, file: Path) -> None:
    """Nodes of the standard's operators have the inputs and outputs that these must have."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    sizes = _constant_sizes(model)
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            continue
        place = _SIZES_AT.get(node.op_type, len(node.input))
        if place < len(node.input) and sizes.get(node.input[place], 0) > MAX_CONSTANT_SIZE:
            raise BundleError(
                f"a {node.op_type} makes a tensor of {sizes[node.input[place]]:,} elements, more than any model needs",
                file=file,
                field=node.name,
            )
        schema = _schema(node.op_type, max(versions, default=1))
        if schema is None:  # an operator that this onnx does not know, and ONNX Runtime may
            continue
        if len(node.input) < schema.min_input or len(node.output) < schema.min_output:
            raise BundleError(
                f"a {node.op_type} with {len(node.input)} inputs and {len(node.output)} outputs: the file is damaged",
                file=file,
                field=node.name,
            )


@cache
def _schema(operator: str, version: int) -> Any:
    """What the standard says of an operator in a version, or in the last one where this onnx does not know that."""
    defs = import_onnx().defs
    for arguments in ((operator, version), (operator,)):
        with suppress(Exception):  # of a type that differs between releases
            return defs.get_schema(*arguments)
    return None


def _constant_sizes(model: onnx.ModelProto) -> dict[str, int]:
    """The products of short constant lists of whole numbers, which may be shapes, by name."""
    onnx = import_onnx()
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output:
            tensors.update({node.output[0]: a.t for a in node.attribute if a.name == "value" and a.HasField("t")})
    found = {}
    for name, tensor in tensors.items():
        if tensor.data_type == tensor.INT64 and len(tensor.dims) == 1 and 0 < tensor.dims[0] <= 16:
            if tensor.data_location != tensor.EXTERNAL:
                with suppress(ValueError):  # said where all tensors are checked
                    found[name] = math.prod(map(abs, onnx.numpy_helper.to_array(tensor).tolist()))
    return found


def _in_its_place(data: bytes) -> str:
    """What came instead of a graph, for messages."""
    beginning = data[:256].lstrip().lower()
    if beginning.startswith(b"version https://git-lfs"):
        return " but a Git LFS pointer to it (fetch the file itself: git lfs pull)"
    if beginning.startswith((b"<!doctype", b"<html")):
        return " but a web page (download the file itself)"
    return ", or a truncated one (an interrupted download?)"
