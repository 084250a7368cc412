"""What the graph of a cache-aware encoder says about its windows and caches, whatever is stated beside it.

Source: `forward_internal` and `streaming_post_process` of NeMo's `ConformerEncoder` (3.0.0). The number of encoder
frames depends on the number of feature frames alone: those of the overlap are dropped, and what is beyond a window's is
cut off. The part of the graph that computes it needs no weights, so it is run by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import BundleError
from .onnx_files.dependencies import import_onnx
from .onnx_files.flow import Flow, extract
from .onnx_files.graph import Graph, Port
from .probe import run_limited

if TYPE_CHECKING:
    import onnx

_LONGEST = 1 << 12
"""The most feature frames that a window is tried with: 41 s."""

_MOST_NODES = 500
"""The most nodes of the part of a graph that counts frames. NeMo's has about 40."""

_COUNTING = {
    "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Constant", "Div", "Equal", "Floor", "Greater", "GreaterOrEqual",
    "Identity", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Relu", "Round", "Sub", "Where",
}  # fmt: skip
"""The operators that may count frames. With single numbers as constants, no result is larger than the input."""


@dataclass(frozen=True)
class GraphWindows:
    """The windows that a graph was made for.

    Attributes
    ----------
    overlap:
        Feature frames that a window shares with the one before: the graph gives no encoder frames for them.
    frames:
        The most encoder frames that a window gives; None if the graph does not cut any off.
    factor:
        Feature frames per encoder frame; None if a window gives one encoder frame at most.
    """

    overlap: int
    frames: int | None
    factor: int | None


def graph_windows(graph: Graph, length: Port, counts: Port) -> GraphWindows | None:
    """Find out for which windows an encoder was made, by counting the encoder frames for windows of every length.

    Parameters
    ----------
    length, counts:
        The input of the number of feature frames, and the output of the number of encoder frames.

    Returns
    -------
    None if the graph does not compute the one from the other alone.
    """
    if not _counts_by_itself(graph, length, counts):
        return None
    helper = import_onnx().helper
    given, wanted = (
        helper.make_tensor_value_info(port.name, helper.np_dtype_to_tensor_dtype(port.dtype), ["windows"])
        for port in (length, counts)
    )
    part = extract(graph, [given], [wanted])
    lengths = np.arange(_LONGEST, dtype=length.dtype)
    try:
        (found,) = run_limited(part, {length.name: lengths})
    except BundleError:
        return None
    steps = np.diff(found)
    if found.shape != lengths.shape or found[0] != 0 or not found[-1] or (steps < 0).any() or (steps > 1).any():
        return None
    rises = np.flatnonzero(steps)
    limited = not steps[_LONGEST // 2 :].any()
    factor = int(rises[1] - rises[0]) if len(rises) > 1 else None
    return GraphWindows(int(rises[0]), int(found[-1]) if limited else None, factor)


def _counts_by_itself(graph: Graph, length: Port, counts: Port) -> bool:
    """Whether few nodes compute the one from the other, by single numbers and without other inputs."""
    flow = Flow(graph)
    needed = flow.needed([counts.name])
    nodes = [graph.model.graph.node[i] for i in needed]
    if not nodes or len(nodes) > _MOST_NODES or any(node.domain or node.op_type not in _COUNTING for node in nodes):
        return False
    read = {name for i in needed for name in flow.inputs(i)}
    others = {port.name for port in graph.inputs} - {length.name}
    stored = [attribute.t for node in nodes if node.op_type == "Constant" for attribute in node.attribute]
    numbers = [graph.initializers[name] for name in read if name in graph.initializers] + stored
    single = all(np.prod(tensor.dims, dtype=np.int64) == 1 for tensor in numbers)
    return length.name in read and not read & others and single


def graph_left_context(graph: Graph, next_length: Port) -> int | None:
    """Encoder frames that the cache of the attention holds: the limit of its length; None if it is not found.

    Parameters
    ----------
    next_length:
        The output of the cache's length.
    """
    nodes = {name: node for node in graph.model.graph.node for name in node.output}
    name = next_length.name
    while name in nodes:
        node = nodes[name]
        if node.op_type in ("Cast", "Identity"):
            name = node.input[0]
        elif node.op_type == "Clip":
            return _number(graph, nodes, node.input[2]) if len(node.input) > 2 else None
        elif node.op_type == "Min":
            numbers = [_number(graph, nodes, other) for other in node.input]
            return next((number for number in numbers if number is not None), None)
        else:
            return None
    return None


def graph_kernel(graph: Graph) -> int | None:
    """Width of the convolutions over time, one for each channel; None if it is not found."""
    found = set()
    for node in graph.model.graph.node:
        if node.op_type.startswith("Conv") and len(node.input) > 1:
            weight = graph.initializers.get(node.input[1])
            attributes = {attribute.name: attribute for attribute in node.attribute}
            shape = list(attributes["kernel_shape"].ints) if "kernel_shape" in attributes else []
            if len(shape) == 1 and "group" in attributes and attributes["group"].i > 1:
                found.add(int(shape[0]))
            elif weight is not None and len(weight.dims) == 3 and weight.dims[1] == 1 and weight.dims[0] > 1:
                found.add(int(weight.dims[2]))
    return found.pop() if len(found) == 1 else None


def _number(graph: Graph, nodes: dict[str, onnx.NodeProto], name: str) -> int | None:
    """The value of a constant that is one whole number."""
    onnx = import_onnx()
    tensor = graph.initializers.get(name)
    node = nodes.get(name)
    while node is not None and node.op_type in ("Cast", "Identity"):
        name = node.input[0]
        tensor, node = graph.initializers.get(name), nodes.get(name)
    if node is not None and node.op_type == "Constant":
        tensor = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
    if tensor is None or np.prod(tensor.dims, dtype=np.int64) != 1 or tensor.data_location == tensor.EXTERNAL:
        return None
    number = onnx.numpy_helper.to_array(tensor).reshape(-1)[0]
    return int(number) if np.isfinite(number) and number == int(number) else None
