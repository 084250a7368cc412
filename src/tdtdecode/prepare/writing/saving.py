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
"""Of weights in a data file, in bytes: a cache line, so that mapped weights suit any instruction set."""

_BLOCK = 1 << 24


def save_graph(graph: Graph, file: Path) -> None:
    """Write a graph; external weights go to ``FILE.data`` beside it, each once. Its locations are changed in place.

    Raises
    ------
    InputError
        If the graph with the weights inside it is larger than a protobuf may be, or the disk is full.
    """
    tensors = list(external_tensors(graph.model))
    if tensors:
        assert graph.weights_folder is not None
        _gather(tensors, graph.weights_folder, file.with_name(f"{file.name}.data"))
    if graph.model.ByteSize() > GRAPH_LIMIT:
        raise InputError(f"{file.name} would be larger than {GRAPH_LIMIT} bytes, which no ONNX file may be")
    file.write_bytes(graph.model.SerializeToString())


def require_space(folder: Path, needed: int) -> None:
    """Check that a folder's disk has room for that many bytes.

    Raises
    ------
    InputError
        If it has not.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(f"{folder.parent}: {needed:,} bytes are to be written, and {free:,} are free")


def _gather(tensors, folder: Path, data: Path) -> None:
    """Copy external weights into one file, in the order that they lie in, and point the tensors at it."""
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
