"""Parsing a graph's file, and checking its content before it is used."""

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
from .sorting import sort_nodes
from .tensors import check_tensors

if TYPE_CHECKING:
    import onnx

GRAPH_LIMIT = (1 << 31) - 1
"""Largest graph file in bytes, without external weights: protobuf's own limit."""

MAX_CONSTANT_SIZE = 1 << 30
"""Largest tensor, in elements, that a graph may create from a constant shape or repeat count."""

_SIZES_AT = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}
"""Operators that create a tensor of a given shape or repeat one, with the index of the input that gives the size."""


def parse_graph(file: Path) -> onnx.ModelProto:
    """Parse a graph's file and check it. External weights are neither checked nor loaded.

    Raises
    ------
    BundleError
        If the file is not an ONNX graph, or contains something that is damaged or not supported.
    """
    onnx = import_onnx()
    data = read_bytes(file, GRAPH_LIMIT)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's own exception type differs between its implementations
        raise BundleError(f"not an ONNX graph{_looks_like(data)}: {error}", file=file) from None
    if not model.graph.node or not model.graph.output:
        raise BundleError(f"not an ONNX graph{_looks_like(data)}: it has no nodes or no outputs", file=file)
    for node in model.graph.node:
        if node.op_type == "EPContext":
            raise BundleError("contains precompiled code (EPContext); use the original export", file=file)
    _check_names(model, file)
    sort_nodes(model.graph, file)
    _check_nodes(model, file)
    check_tensors(model, file)
    return model


def _check_names(model: onnx.ModelProto, file: Path) -> None:
    """Check that names are UTF-8 text, and that inputs and outputs have different names."""
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
        if not isinstance(name, str):  # protobuf gives bytes that are not UTF-8 as bytes
            raise BundleError(f"a name is not UTF-8 text: {name!r:.60}", file=file)
    for kind, values in (("inputs", model.graph.input), ("outputs", model.graph.output)):
        for name, count in Counter(value.name for value in values).items():
            if count > 1:
                raise BundleError(f"{count} {kind} have the same name; expected different names", file=file, field=name)


def _check_nodes(model: onnx.ModelProto, file: Path) -> None:
    """Check that nodes with standard operators have enough inputs and outputs, and create no huge tensors."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    sizes = _constant_sizes(model)
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            continue
        place = _SIZES_AT.get(node.op_type, len(node.input))
        if place < len(node.input) and sizes.get(node.input[place], 0) > MAX_CONSTANT_SIZE:
            raise BundleError(
                f"a {node.op_type} creates a tensor of {sizes[node.input[place]]:,} elements; at most "
                f"{MAX_CONSTANT_SIZE:,} are accepted, more than any model needs",
                file=file,
                field=node.name,
            )
        schema = _schema(node.op_type, max(versions, default=1))
        if schema is None:  # onnx does not know the operator, but ONNX Runtime may
            continue
        if len(node.input) < schema.min_input or len(node.output) < schema.min_output:
            raise BundleError(
                f"a {node.op_type} has {len(node.input)} inputs and {len(node.output)} outputs; expected at least "
                f"{schema.min_input} and {schema.min_output}: the file is damaged",
                file=file,
                field=node.name,
            )


@cache
def _schema(operator: str, version: int) -> Any:
    """The standard's schema of an operator in a version; in the newest version if onnx does not know that one."""
    defs = import_onnx().defs
    for arguments in ((operator, version), (operator,)):
        with suppress(Exception):  # the exception's type differs between releases of onnx
            return defs.get_schema(*arguments)
    return None


def _constant_sizes(model: onnx.ModelProto) -> dict[str, int]:
    """The number of elements that each short constant list of integers gives if it is used as a shape, by name."""
    onnx = import_onnx()
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output:
            tensors.update({node.output[0]: a.t for a in node.attribute if a.name == "value" and a.HasField("t")})
    found = {}
    for name, tensor in tensors.items():
        if tensor.data_type == tensor.INT64 and len(tensor.dims) == 1 and 0 < tensor.dims[0] <= 16:
            if tensor.data_location != tensor.EXTERNAL:
                with suppress(ValueError):  # check_tensors reports it
                    found[name] = math.prod(map(abs, onnx.numpy_helper.to_array(tensor).tolist()))
    return found


def _looks_like(data: bytes) -> str:
    """What a file that is not a graph seems to be, for messages."""
    beginning = data[:256].lstrip().lower()
    if beginning.startswith(b"version https://git-lfs"):
        return " but a Git LFS pointer to it (fetch the file itself: git lfs pull)"
    if beginning.startswith((b"<!doctype", b"<html")):
        return " but a web page (download the file itself)"
    return ", or a truncated one (an interrupted download?)"
