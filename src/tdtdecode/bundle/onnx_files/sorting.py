"""Sorting the nodes of a graph, which the standard demands. ONNX Runtime does it itself, so some tools do not."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import BundleError

if TYPE_CHECKING:
    import onnx


def sort_nodes(graph: onnx.GraphProto, file: Path) -> None:
    """Bring each node behind those whose results it takes, in place, in subgraphs too. Other orders are kept.

    Raises
    ------
    BundleError
        If nodes wait for each other in a circle, or two make the same tensor.
    """
    maker: dict[str, int] = {}
    for place, node in enumerate(graph.node):
        for inner in _subgraphs(node):
            sort_nodes(inner, file)
        for name in filter(None, node.output):
            if maker.setdefault(name, place) != place:
                raise BundleError("two nodes make this tensor: the file is damaged", file=file, field=name)
    needs = [{maker[name] for name in names_read(node) if name in maker} for node in graph.node]
    if all(before < place for place, places in enumerate(needs) for before in places):
        return
    followers: list[list[int]] = [[] for _ in needs]
    for place, places in enumerate(needs):
        for before in places:
            followers[before].append(place)
    open_needs = [len(places) for places in needs]
    ready = [place for place, count in enumerate(open_needs) if not count]
    order = []
    while ready:
        order.append(heapq.heappop(ready))
        for place in followers[order[-1]]:
            open_needs[place] -= 1
            if not open_needs[place]:
                heapq.heappush(ready, place)
    if len(order) < len(needs):
        stuck = next(node.name or node.op_type for node, count in zip(graph.node, open_needs, strict=True) if count)
        raise BundleError("nodes wait for each other in a circle: the file is damaged", file=file, field=stuck)
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes[place] for place in order)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def names_read(node: onnx.NodeProto) -> Iterator[str]:
    """The tensors of the surrounding graph that a node reads, including those that its subgraphs read."""
    yield from (name for name in node.input if name)
    for graph in _subgraphs(node):
        inner = {name for inner_node in graph.node for name in inner_node.output}
        inner.update(value.name for value in graph.input)
        inner.update(tensor.name for tensor in graph.initializer)
        for inner_node in graph.node:
            yield from (name for name in names_read(inner_node) if name not in inner)
        yield from (value.name for value in graph.output if value.name not in inner)
