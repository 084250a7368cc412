"""External weights: checking the locations that a graph gives for them, before any of those files is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from ...errors import BundleError
from ..files import contained, is_file
from .tensors import stored_tensors, tensor_bytes

if TYPE_CHECKING:
    import onnx


_MEMORY_MARK = "_ORT_MEM_ADDR_"
"""ONNX Runtime takes a location that contains this for an address in memory."""


def resolve_weights(model: onnx.ModelProto, file: Path, directory: Path) -> Path | None:
    """Check every external tensor, and make its location relative to one folder, in place.

    The new locations have no links in them. ONNX Runtime refuses links that lead out of the folder it is given, and
    all files of a hub snapshot are such links.

    Parameters
    ----------
    model:
        The graph. The locations of its external tensors are changed.
    file:
        The graph's file, which the locations are relative to.
    directory:
        The model directory.

    Returns
    -------
    The folder that the new locations are relative to; None if no tensor is external.

    Raises
    ------
    BundleError
        If a location leads outside the directory, or its file is missing or too short.
    """
    tensors = list(external_tensors(model))
    if not tensors:
        return None
    real = {}
    for tensor in tensors:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if location not in real:
            real[location] = _locate(location, file, directory, f"external data of {tensor.name!r}")
        _check_extent(tensor, entries, real[location], file)
    folder = Path(os.path.commonpath([path.parent for path in real.values()]))
    for tensor in tensors:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = real[entry.value].relative_to(folder).as_posix()
    return folder


def _locate(location: str, file: Path, directory: Path, field: str) -> Path:
    posix = PurePosixPath(location)
    windows = PureWindowsPath(location)
    plain = location and "\0" not in location and ".." not in windows.parts and _MEMORY_MARK not in location
    if not plain or posix.is_absolute() or windows.drive or windows.root:
        raise BundleError(
            f"location {location!r} is not a plain path inside the model directory; save the weights beside the graph",
            file=file,
            field=field,
        )
    path = file.parent / location
    real = contained(path, directory, file=file, field=field)
    if not is_file(real):
        raise BundleError(f"the file {location!r:.200} is missing; it belongs beside the graph", file=file, field=field)
    return real


def _check_extent(tensor: onnx.TensorProto, entries: dict[str, str], path: Path, file: Path) -> None:
    field = f"external data of {tensor.name!r}"
    try:
        needed = tensor_bytes(tensor)
    except (KeyError, ValueError):
        raise BundleError(f"unknown data type {tensor.data_type}", file=file, field=field) from None
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(needed)))
    except ValueError:
        raise BundleError("offset and length must be whole numbers", file=file, field=field) from None
    if offset < 0 or length != needed:
        raise BundleError(
            f"offset {offset} and length {length}; expected an offset of at least 0 and a length of {needed} bytes",
            file=file,
            field=field,
        )
    size = path.stat().st_size
    if offset + length > size:
        raise BundleError(
            f"needs bytes {offset} to {offset + length}, but {path.name!r} has only {size}: it is truncated "
            "(an interrupted download?) or belongs to another model",
            file=file,
            field=field,
        )


def external_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model whose values are stored in another file."""
    return (tensor for tensor in stored_tensors(model) if tensor.data_location == tensor.EXTERNAL)
