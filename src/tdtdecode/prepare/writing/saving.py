"""Writing graphs with their weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import BinaryIO

from ...bundle.onnx_files.external import external_tensors
from ...bundle.onnx_files.graph import Graph
from ...bundle.onnx_files.parsing import GRAPH_LIMIT
from ...bundle.onnx_files.tensors import tensor_bytes
from ...errors import InputError

_ALIGNMENT = 64
"""Alignment of weights in a data file, in bytes: a cache line, so that all instruction sets can use the mapped file."""

_BLOCK = 1 << 24
"""Bytes that are copied at a time."""


def save_graph(graph: Graph, file: Path) -> None:
    """Write a graph, and its external weights into ``FILE.data`` beside it.

    Weights that several tensors share are written once. The locations in `graph` are changed in place.

    Raises
    ------
    InputError
        If the graph, without external weights, is larger than an ONNX file may be, or the disk is full.
    """
    tensors = list(external_tensors(graph.model))
    if tensors:
        assert graph.weights_folder is not None
        _gather(tensors, graph.weights_folder, file.with_name(f"{file.name}.data"))
    if graph.model.ByteSize() > GRAPH_LIMIT:
        raise InputError(f"{file.name} would be larger than {GRAPH_LIMIT} bytes, the most that an ONNX file may have")
    file.write_bytes(graph.model.SerializeToString())


def require_space(folder: Path, needed: int) -> None:
    """Raise an `InputError` if the folder's disk has fewer than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(f"{folder.parent}: {needed:,} bytes are needed, but only {free:,} are free")


def _gather(tensors, folder: Path, data: Path) -> None:
    """Copy external weights into one file, in their present order, and make the tensors refer to it."""
    spans: dict[tuple[str, int, int], list] = {}
    for tensor in tensors:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        span = (entries["location"], int(entries.get("offset", "0")), tensor_bytes(tensor))
        spans.setdefault(span, []).append(tensor)
    require_space(data.parent, sum(length for _, _, length in spans))
    with open(data, "wb") as target:
        for (location, offset, length), owners in sorted(spans.items(), key=lambda span: span[0]):
            target.write(b"\0" * (-target.tell() % _ALIGNMENT))
            start = target.tell()
            with open(folder / location, "rb") as source:
                source.seek(offset)
                _copy(source, target, length)
            for tensor in owners:
                del tensor.external_data[:]
                for key, value in (("location", data.name), ("offset", start), ("length", length)):
                    entry = tensor.external_data.add()
                    entry.key, entry.value = key, str(value)


def _copy(source: BinaryIO, target: BinaryIO, length: int) -> None:
    while length:
        block = source.read(min(length, _BLOCK))
        if not block:
            raise OSError(f"{source.name} ended early")
        target.write(block)
        length -= len(block)
