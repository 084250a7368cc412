"""The door on the device: encoder output in whatever array it comes, checked once and read where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..arrays import DLPACK_BFLOAT, check_frames, check_lengths, dlpack_tensor, to_numpy
from ..errors import DeviceError, InputError
from .device import Device, current_device, import_cupy, kernels
from .structs import SOURCE

_DLPACK_CUDA, _DLPACK_MANAGED, _DLPACK_FLOAT = 2, 13, 2
_LEGACY_STREAM = 1
"""What DLPack calls CUDA's default stream."""

TYPES = {"float32": 0, "float16": 1, "bfloat16": 2}
"""``FrameType`` in ``source.cuh``."""
_ONNX_TYPES = {1: "float32", 10: "float16", 16: "bfloat16"}


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """An array on the device, wherever it came from.

    Attributes
    ----------
    pointer:
        Address of its first element.
    dtype:
        Name of its type.
    shape, strides:
        In elements.
    owner:
        What keeps the memory alive.
    """

    pointer: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    owner: Any

    def __getitem__(self, index: int | tuple[slice, slice]) -> DeviceArray:
        """A row of [B, E, T], or of [E, T] all elements of some frames: ``[:, first:last]``."""
        width = 4 if self.dtype == "float32" else 2
        if isinstance(index, tuple):
            first, last, _ = index[1].indices(self.shape[1])
            shape = self.shape[0], max(last - first, 0)
            return replace(self, pointer=self.pointer + first * self.strides[1] * width, shape=shape)
        pointer = self.pointer + index * self.strides[0] * width
        return DeviceArray(pointer, self.dtype, self.shape[1:], self.strides[1:], self.owner)

    def __len__(self) -> int:
        return self.shape[0]


def device_rows(encoder_out: Any, lengths: Any, encoder_size: int | None) -> tuple[list[DeviceArray], np.ndarray]:
    """Encoder output for a decoder on the device, checked; as `arrays.utterances_of`.

    Arrays in main memory are copied to the device. What lies there already is read in place, after the work that its
    owner has given to its own stream.

    Raises
    ------
    InputError
        For a wrong shape or dtype, or a length out of range.
    DeviceError
        If the data is on another device.
    """
    if isinstance(encoder_out, (list, tuple)):
        rows = [to_device(row, f"encoder_out[{i}]") for i, row in enumerate(encoder_out)]
        for i, row in enumerate(rows):
            check_frames(f"encoder_out[{i}]", row.dtype, row.shape, ("E", "T"), encoder_size)
            if row.shape[0] != rows[0].shape[0]:
                raise InputError(f"encoder_out[{i}] has E = {row.shape[0]}, encoder_out[0] has {rows[0].shape[0]}")
        return rows, _lengths(lengths, np.array([row.shape[1] for row in rows], np.int64))
    batch = to_device(encoder_out, "encoder_out")
    check_frames("encoder_out", batch.dtype, batch.shape, ("B", "E", "T"), encoder_size)
    return [batch[i] for i in range(len(batch))], _lengths(lengths, np.full(len(batch), batch.shape[2], np.int64))


def source_table(rows: Sequence[DeviceArray], lengths: np.ndarray, encoder_size: int) -> tuple[np.ndarray, int]:
    """`structs.SOURCE` of the rows that have frames, and the number of frames of all.

    Raises
    ------
    InputError
        If a row [E, T] has another E, or there are more frames than 32 bits count.
    """
    first = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    if first[-1] >= 2**31:
        raise InputError(f"{first[-1]} frames are more than one decode on the device takes: use smaller batches")
    sources = np.zeros(np.count_nonzero(lengths), SOURCE)
    for record, i in zip(sources, np.flatnonzero(lengths).tolist()):
        row = rows[i]
        if row.shape[0] != encoder_size:
            raise InputError(f"encoder_out[{i}] must be [E, T] with E = {encoder_size}, got {list(row.shape)}")
        values = row.pointer, *row.strides, TYPES[row.dtype], lengths[i], first[i]
        for name, value in zip(("data", "element", "frame", "type", "length", "first"), values):
            record[name] = value
    return sources, int(first[-1])


def laid_out(rows: Sequence[DeviceArray], lengths: np.ndarray, size: int, dtype: np.dtype, card: Device) -> Any:
    """The frames of rows [E, T] one after the other, ``dtype`` [all frames, E] on the device."""
    cupy = import_cupy()
    sources, frames = source_table(rows, lengths, size)
    out = cupy.empty((max(frames, 1), size), dtype)
    if frames:
        table = cupy.asarray(sources.view(np.uint8))
        half = np.int32(np.dtype(dtype) == np.float16)
        arguments = (table, np.int32(len(sources)), np.int32(frames), np.int32(size), out, half)
        kernels("gather.cu").launch("lay_out_frames", card.multiprocessors, card.threads, arguments)
    return out


def to_device(array: Any, name: str) -> DeviceArray:
    """An array as it lies on the device; one in main memory is copied there."""
    if isinstance(array, DeviceArray):
        return array
    cupy = import_cupy()
    if isinstance(array, cupy.ndarray):
        width = array.dtype.itemsize
        return DeviceArray(
            array.data.ptr, array.dtype.name, array.shape, tuple(s // width for s in array.strides), array
        )
    if not on_cuda(array):
        return to_device(_uploaded(array, name), name)
    if hasattr(array, "element_type"):  # OrtValue: contiguous, and complete once the run that made it has returned
        kind = _ONNX_TYPES.get(array.element_type(), f"ONNX type {array.element_type()}")
        shape = tuple(array.shape())
        return DeviceArray(array.data_ptr(), kind, shape, _contiguous(shape), array)
    device = current_device().index
    if array.__dlpack_device__()[1] != device:
        raise DeviceError(f"{name} is on CUDA device {array.__dlpack_device__()[1]}, the decoder on {device}")
    if getattr(array, "requires_grad", False):
        array = array.detach()
    # The owner lets our stream wait for its own.
    capsule = array.__dlpack__(stream=cupy.cuda.get_current_stream().ptr or _LEGACY_STREAM)
    tensor = dlpack_tensor(capsule)
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    strides = tuple(tensor.strides[i] for i in range(tensor.ndim)) if tensor.strides else _contiguous(shape)
    kinds = {(_DLPACK_FLOAT, 32): "float32", (_DLPACK_FLOAT, 16): "float16", (DLPACK_BFLOAT, 16): "bfloat16"}
    kind = kinds.get((tensor.type_code, tensor.bits), f"DLPack type {tensor.type_code} of {tensor.bits} bits")
    return DeviceArray(tensor.data + tensor.byte_offset, kind, shape, strides, (array, capsule))


def on_cuda(array: Any) -> bool:
    """Whether an array is CuPy's, an ``OrtValue`` or a DLPack array on a CUDA device."""
    if hasattr(array, "device_name") and hasattr(array, "element_type"):
        return bool(array.device_name().lower() == "cuda")
    if isinstance(array, np.ndarray) or not hasattr(array, "__dlpack_device__"):
        return False
    return array.__dlpack_device__()[0] in (_DLPACK_CUDA, _DLPACK_MANAGED)


def _uploaded(array: Any, name: str) -> Any:
    return import_cupy().asarray(np.ascontiguousarray(to_numpy(array, name)))


def _contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[i + 1 :], dtype=np.int64)) for i in range(len(shape)))


def _lengths(lengths: Any, available: np.ndarray) -> np.ndarray:
    if lengths is not None and on_cuda(lengths):
        cupy = import_cupy()
        if hasattr(lengths, "element_type"):
            lengths = lengths.numpy()
        else:
            lengths = cupy.asnumpy(cupy.from_dlpack(lengths))
    return check_lengths(lengths, available)
