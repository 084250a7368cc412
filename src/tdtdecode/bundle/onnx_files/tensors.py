"""The tensors stored in a model: finding all of them, and checking their sizes."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import BundleError

if TYPE_CHECKING:
    import onnx


def check_tensors(model: onnx.ModelProto, file: Path) -> None:
    """Check that every tensor stored in a graph's file has as many values as its dimensions state.

    Raises
    ------
    BundleError
        If a tensor has more or fewer values, or an unknown type.
    """
    from onnx.helper import tensor_dtype_to_field

    for tensor in stored_tensors(model):
        if tensor.data_location == tensor.EXTERNAL:
            continue
        try:
            needed = tensor_bytes(tensor)
        except (KeyError, ValueError, TypeError):
            raise BundleError(f"unknown data type {tensor.data_type}", file=file, field=tensor.name) from None
        raw = tensor.HasField("raw_data") and tensor.data_type != tensor.STRING  # strings are never raw
        found = len(tensor.raw_data if raw else getattr(tensor, tensor_dtype_to_field(tensor.data_type)))
        if found != (needed if raw else _values(tensor)) or any(dim < 0 for dim in tensor.dims):
            expected = f"{needed} bytes" if raw else f"{_values(tensor)} values"
            raise BundleError(
                f"a tensor {list(tensor.dims)} has {found} {'bytes' if raw else 'values'}; expected {expected}: the "
                "file is damaged",
                file=file,
                field=tensor.name,
            )


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Size of a tensor's raw data in bytes."""
    from onnx.helper import tensor_dtype_to_np_dtype

    elements = prod(tensor.dims)
    name = tensor.DataType.Name(tensor.data_type)
    if name == "STRING":
        return 0  # strings have no raw data
    if name.endswith(("INT4", "FLOAT4E2M1")):
        return -(-elements // 2)
    if name.endswith("INT2"):
        return -(-elements // 4)
    return elements * tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def _values(tensor: onnx.TensorProto) -> int:
    """Length of the field that holds a tensor's values: a complex number takes two values, small integers share one."""
    elements = prod(tensor.dims)
    name = tensor.DataType.Name(tensor.data_type)
    if name.startswith("COMPLEX"):
        return 2 * elements
    shared = 4 if name.endswith("INT2") else 2 if name.endswith(("INT4", "FLOAT4E2M1")) else 1
    return -(-elements // shared)


def stored_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor stored in a model, also in unlikely places: ONNX Runtime may open the file of any of them."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)
    for training in model.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _node_tensors(graph.node)


def _node_tensors(nodes) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            for tensor in (*sparse, *attribute.sparse_tensors):
                yield tensor.values
                yield tensor.indices
            for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _graph_tensors(graph)
