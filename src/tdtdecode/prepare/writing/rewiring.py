"""Changing the names, types and axes of a graph's inputs and outputs.

Inside the graph only names change: weights keep their bits, and computations their order. If a new input or output
needs a Transpose or Cast, and the graph already has one there, the two are merged. So converting to another layout and
back adds no operators.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...bundle.onnx_files.dependencies import import_onnx
from ...bundle.onnx_files.flow import Flow
from ...bundle.onnx_files.graph import Graph, Port
from ...bundle.onnx_files.sorting import names_read

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class PortChange:
    """An input or output of a graph, and what it is to become.

    Attributes
    ----------
    port:
        The present input or output.
    axes:
        One letter for each of its axes.
    new:
        The wanted name, type and shape.
    new_axes:
        The same letters in the wanted order.
    """

    port: Port
    axes: str
    new: Port
    new_axes: str


def rewire(
    graph: Graph, inputs: Sequence[PortChange], outputs: Sequence[PortChange], reserved: Iterable[str] = ()
) -> None:
    """Give a graph exactly these inputs and outputs, in this order, in place.

    Nodes and weights that the outputs do not need are removed.

    Parameters
    ----------
    reserved:
        Names that no tensor inside the graph may have afterwards, because the caller will add tensors with them.
    """
    model = graph.model
    del model.graph.value_info[:]  # shapes that depended on the old inputs
    model.ir_version = max(model.ir_version, 4)  # earlier versions list weights among the inputs
    wanted = {change.new.name for change in (*inputs, *outputs)} | set(reserved)
    ports = {change.port.name for change in (*inputs, *outputs)}
    taken = tensor_names(model.graph) - ports
    rename(model.graph, {name: f"{name}/inner" for name in wanted & taken})
    taken = tensor_names(model.graph)
    inside = {name: _unused(f"{name}/inside", taken) for name in sorted(ports)}
    rename(model.graph, inside)
    kept = {inside[change.port.name] for change in outputs}
    first = [node for change in inputs for node in _input_nodes(model.graph, change, inside[change.port.name], kept)]
    last = [node for change in outputs for node in _output_nodes(model.graph, change, inside[change.port.name], kept)]
    _replace(model.graph.node, [*first, *model.graph.node, *last])
    _replace(model.graph.input, [_value(change.new) for change in inputs])
    _replace(model.graph.output, [_value(change.new) for change in outputs])
    _prune(graph)


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors everywhere in a graph and its subgraphs, in place, except in its lists of inputs and outputs."""
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names.get(sparse.values.name, sparse.values.name)
    for annotation in graph.quantization_annotation:
        annotation.tensor_name = names.get(annotation.tensor_name, annotation.tensor_name)
    for node in graph.node:
        for side in (node.input, node.output):
            for i, name in enumerate(side):
                if name in names:
                    side[i] = names[name]
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                rename(inner, names)
                for value in inner.output:
                    value.name = names.get(value.name, value.name)


def _unused(name: str, taken: set[str]) -> str:
    """A name that no tensor has, which begins with the given one."""
    while name in taken:
        name += "/inside"
    return name


def tensor_names(graph: onnx.GraphProto) -> set[str]:
    """The names of all tensors of a graph and its subgraphs."""
    names = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    names.update(sparse.values.name for sparse in graph.sparse_initializer)
    for node in graph.node:
        names.update(node.input, node.output)
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                names |= tensor_names(inner)
    return names - {""}


def _input_nodes(graph: onnx.GraphProto, change: PortChange, inside: str, kept: set[str]) -> list[onnx.NodeProto]:
    """Nodes that compute the old input, now the tensor `inside`, from the new input.

    Parameters
    ----------
    kept:
        Tensors that are outputs of the graph, so that the nodes that compute them must stay.
    """
    new = change.new.name
    readers = [node for node in graph.node if inside in names_read(node)]
    if change.axes == change.new_axes:
        if change.new.dtype == change.port.dtype or all(node.op_type == "Cast" for node in readers):
            rename(graph, {inside: new})
            return []
        return [_cast(new, inside, change.port.dtype)]
    if change.new.dtype == change.port.dtype and all(
        node.op_type == "Transpose" and node.output[0] not in kept for node in readers
    ):
        for node in readers:
            after = "".join(change.axes[i] for i in _perm(node, len(change.axes)))
            if after == change.new_axes:
                graph.node.remove(node)
                rename(graph, {node.output[0]: new})
            else:
                node.CopyFrom(_transpose(new, node.output[0], change.new_axes, after))
        return []
    if change.new.dtype == change.port.dtype:
        return [_transpose(new, inside, change.new_axes, change.axes)]
    between = f"{new}/cast"
    return [_cast(new, between, change.port.dtype), _transpose(between, inside, change.new_axes, change.axes)]


def _output_nodes(graph: onnx.GraphProto, change: PortChange, inside: str, kept: set[str]) -> list[onnx.NodeProto]:
    """Nodes that compute the new output from the old output, now the tensor `inside`. `kept` as in `_input_nodes`."""
    new, name, axes = change.new.name, inside, change.axes
    maker = next((node for node in graph.node if inside in node.output), None)
    readers = [node for node in graph.node if inside in names_read(node)]
    if axes != change.new_axes and maker is not None and maker.op_type == "Transpose" and not readers:
        perm = _perm(maker, len(axes))
        name, axes = maker.input[0], "".join(axes[perm.index(i)] for i in range(len(perm)))
        graph.node.remove(maker)
        maker = next((node for node in graph.node if name in node.output), None)
    same_type = change.new.dtype == change.port.dtype
    nodes = []
    if axes != change.new_axes:
        target = new if same_type else f"{new}/transposed"
        nodes.append(_transpose(name, target, axes, change.new_axes))
        name = target
    if not same_type:
        nodes.append(_cast(name, new, change.new.dtype))
    if not nodes:
        if maker is not None and (name == inside or name not in kept):
            rename(graph, {name: new})
        else:  # the output is an input or a weight, which cannot be renamed
            nodes.append(import_onnx().helper.make_node("Identity", [name], [new], name=f"{new}/same"))
    return nodes


def _cast(source: str, target: str, dtype: np.dtype) -> onnx.NodeProto:
    return import_onnx().helper.make_node("Cast", [source], [target], name=f"{target}/cast", to=_elem_type(dtype))


def _transpose(source: str, target: str, axes: str, new_axes: str) -> onnx.NodeProto:
    perm = [axes.index(letter) for letter in new_axes]
    return import_onnx().helper.make_node("Transpose", [source], [target], name=f"{target}/transpose", perm=perm)


def _perm(node: onnx.NodeProto, rank: int) -> list[int]:
    given = [list(attribute.ints) for attribute in node.attribute if attribute.name == "perm"]
    return given[0] if given else list(range(rank))[::-1]


def _prune(graph: Graph) -> None:
    """Remove nodes and weights that no output needs, in place."""
    proto = graph.model.graph
    outputs = [value.name for value in proto.output]
    flow = Flow(graph)
    needed = flow.needed(outputs)
    used = {name for i in needed for name in flow.inputs(i)} | set(outputs)
    _replace(proto.node, [node for i, node in enumerate(proto.node) if i in needed])
    for i in reversed(range(len(proto.initializer))):
        if proto.initializer[i].name not in used:
            del proto.initializer[i]
    for i in reversed(range(len(proto.sparse_initializer))):
        if proto.sparse_initializer[i].values.name not in used:
            del proto.sparse_initializer[i]


def _value(port: Port) -> onnx.ValueInfoProto:
    return import_onnx().helper.make_tensor_value_info(port.name, _elem_type(port.dtype), port.shape)


def _elem_type(dtype: np.dtype) -> int:
    return import_onnx().helper.np_dtype_to_tensor_dtype(dtype)


def _replace(field, values) -> None:
    values = list(values)
    del field[:]
    field.extend(values)
