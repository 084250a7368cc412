"""Encoder output for a decoder on the device: in any kind of array, checked once, read where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..arrays import DLPACK_BFLOAT, check_frames, check_lengths, dlpack_tensor, to_numpy
from ..errors import DeviceError, InputError
from .device import Device, current_device, import_cupy
from .kernels import kernels
from .structs import SOURCE

_DLPACK_CUDA, _DLPACK_MANAGED, _DLPACK_FLOAT = 2, 13, 2
_LEGACY_STREAM = 1
"""DLPack's number for CUDA's legacy default stream."""

TYPES = {"float32": 0, "float16": 1, "bfloat16": 2}
"""The values of ``FrameType`` in ``source.cuh``."""
WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of a number."""
_ONNX_TYPES = {1: "float32", 10: "float16", 16: "bfloat16"}


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """An array on the device, made by any library.

    Attributes
    ----------
    pointer:
        Address of its first element.
    dtype:
        Name of its dtype, such as ``"float16"``.
    shape, strides:
        Its shape; its strides in elements.
    owner:
        The object that keeps the memory alive.
    """

    pointer: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    owner: Any

    def __getitem__(self, index: int | tuple[slice, slice]) -> DeviceArray:
        """``[i]``: utterance i of [B, E, T]. ``[:, first:last]``: those frames of [E, T]."""
        width = WIDTHS[self.dtype]
        if isinstance(index, tuple):
            first, last, _ = index[1].indices(self.shape[1])
            shape = self.shape[0], max(last - first, 0)
            return replace(self, pointer=self.pointer + first * self.strides[1] * width, shape=shape)
        pointer = self.pointer + index * self.strides[0] * width
        return DeviceArray(pointer, self.dtype, self.shape[1:], self.strides[1:], self.owner)

    def transposed(self) -> DeviceArray:
        """[B, E, T] of [B, T, E], without a copy."""
        (batch, time, width), (b, t, e) = self.shape, self.strides
        return replace(self, shape=(batch, width, time), strides=(b, e, t))

    def __len__(self) -> int:
        return self.shape[0]


class DeviceBatch(Sequence[DeviceArray]):
    """The utterances [E, T] of encoder output [B, E, T]."""

    def __init__(self, array: DeviceArray):
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: Any) -> Any:
        chosen = range(len(self))[index]  # raises IndexError beyond the end
        return self.array[chosen] if isinstance(chosen, int) else [self.array[i] for i in chosen]


def device_utterances(
    encoder_out: Any, lengths: Any, encoder_size: int | None
) -> tuple[Sequence[DeviceArray], np.ndarray]:
    """Check encoder output for a decoder on the device; the parameters are those of `arrays.utterances_of`.

    Arrays in main memory are copied to the device. Arrays on the device are read in place: those that come by DLPack
    after the work on their library's stream, those of CuPy after the work on CuPy's current stream.

    Returns
    -------
    The encoder output [E, T] of each of B utterances, and their lengths, int32 [B].

    Raises
    ------
    InputError
        For a wrong shape or dtype, or a length out of range.
    DeviceError
        If the data is on another device.
    """
    if isinstance(encoder_out, (list, tuple)):
        utterances = [to_device(array, f"encoder_out[{i}]") for i, array in enumerate(encoder_out)]
        for i, array in enumerate(utterances):
            check_frames(f"encoder_out[{i}]", array.dtype, array.shape, ("E", "T"), encoder_size)
            if array.shape[0] != utterances[0].shape[0]:
                raise InputError(
                    f"encoder_out[{i}] has E = {array.shape[0]}, encoder_out[0] has {utterances[0].shape[0]}"
                )
        return utterances, _lengths(lengths, np.array([array.shape[1] for array in utterances], np.int64))
    batch = to_device(encoder_out, "encoder_out")
    check_frames("encoder_out", batch.dtype, batch.shape, ("B", "E", "T"), encoder_size)
    return DeviceBatch(batch), _lengths(lengths, np.full(len(batch), batch.shape[2], np.int64))


def source_table(
    utterances: Sequence[DeviceArray], lengths: np.ndarray, encoder_size: int
) -> tuple[np.ndarray, int]:
    """Describe the encoder output [E, T] of B utterances for kernels.

    Returns
    -------
    `structs.SOURCE` [N] of the utterances that have frames, and the number of frames of all together.

    Raises
    ------
    InputError
        If an utterance's E is not ``encoder_size``, or there are 2**31 frames or more.
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    frames = int(ends[-1]) if len(ends) else 0
    if frames >= 2**31:
        raise InputError(
            f"the batch has {frames} frames, one decode on cuda takes {2**31 - 1} at most: use smaller batches"
        )
    sources = np.zeros(len(lengths), SOURCE)
    if isinstance(utterances, DeviceBatch):
        batch = utterances.array
        if batch.shape[1] != encoder_size:
            raise InputError(f"encoder_out must be [B, E, T] with E = {encoder_size}, got {list(batch.shape)}")
        every = batch.strides[0] * WIDTHS[batch.dtype]
        sources["data"] = batch.pointer + every * np.arange(len(batch), dtype=np.int64)
        sources["element"], sources["frame"] = batch.strides[1:]
        sources["type"] = TYPES[batch.dtype]
    else:
        for i, array in enumerate(utterances):
            if array.shape[0] != encoder_size:
                raise InputError(f"encoder_out[{i}] must be [E, T] with E = {encoder_size}, got {list(array.shape)}")
        sources["data"] = [array.pointer for array in utterances]
        sources["element"] = [array.strides[0] for array in utterances]
        sources["frame"] = [array.strides[1] for array in utterances]
        sources["type"] = [TYPES[array.dtype] for array in utterances]
    sources["length"], sources["first"] = lengths, ends - lengths
    return sources if lengths.all() else sources[lengths > 0], frames


def laid_out(utterances: Sequence[DeviceArray], lengths: np.ndarray, size: int, dtype: np.dtype, card: Device) -> Any:
    """Copy the frames of B utterances [E, T] one after the other: ``dtype`` [all frames, E] on the device.

    ``size`` is E; ``dtype`` is float32 or float16.
    """
    cupy = import_cupy()
    sources, frames = source_table(utterances, lengths, size)
    out = cupy.empty((max(frames, 1), size), dtype)
    if frames:
        table = cupy.asarray(sources.view(np.uint8))
        half = np.int32(np.dtype(dtype) == np.float16)
        arguments = (table, np.int32(len(sources)), np.int32(frames), np.int32(size), out, half)
        kernels(card, "gather.cu").launch("lay_out_frames", card.multiprocessors, card.threads, arguments)
    return out


def to_device(array: Any, name: str) -> DeviceArray:
    """An array as it lies on the device. An array in main memory is copied there; ``name`` is for messages."""
    if isinstance(array, DeviceArray):
        return array
    cupy = import_cupy()
    if isinstance(array, cupy.ndarray):
        _check_card(name, array.device.id)
        width = array.dtype.itemsize
        return DeviceArray(
            array.data.ptr, array.dtype.name, array.shape, tuple(s // width for s in array.strides), array
        )
    if not on_cuda(array):
        return to_device(_uploaded(array, name), name)
    _check_card(name, array.__dlpack_device__()[1])
    if hasattr(array, "element_type"):  # OrtValue: contiguous, and complete since the run that made it has returned
        kind = _ONNX_TYPES.get(array.element_type(), f"ONNX type {array.element_type()}")
        shape = tuple(array.shape())
        return DeviceArray(array.data_ptr(), kind, shape, _contiguous(shape), array)
    if getattr(array, "requires_grad", False):
        array = array.detach()
    # The exporting library makes our stream wait for its own.
    capsule = array.__dlpack__(stream=cupy.cuda.get_current_stream().ptr or _LEGACY_STREAM)
    tensor = dlpack_tensor(capsule)
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    strides = tuple(tensor.strides[i] for i in range(tensor.ndim)) if tensor.strides else _contiguous(shape)
    kinds = {(_DLPACK_FLOAT, 32): "float32", (_DLPACK_FLOAT, 16): "float16", (DLPACK_BFLOAT, 16): "bfloat16"}
    kind = kinds.get((tensor.type_code, tensor.bits), f"DLPack type {tensor.type_code} of {tensor.bits} bits")
    return DeviceArray(tensor.data + tensor.byte_offset, kind, shape, strides, (array, capsule))


def on_cuda(array: Any) -> bool:
    """Whether an array is on a CUDA device: CuPy's, an ``OrtValue``, or one with DLPack."""
    if hasattr(array, "device_name") and hasattr(array, "element_type"):
        return bool(array.device_name().lower() == "cuda")
    if isinstance(array, np.ndarray) or not hasattr(array, "__dlpack_device__"):
        return False
    return array.__dlpack_device__()[0] in (_DLPACK_CUDA, _DLPACK_MANAGED)


def _check_card(name: str, card: int) -> None:
    """Raise a DeviceError unless that is the current card, which is the decoder's."""
    if card != (expected := current_device().index):
        raise DeviceError(
            f"{name} is on CUDA device {card}, the decoder on {expected}: bring it there, or make a decoder for each"
        )


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
