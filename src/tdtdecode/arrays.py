"""Where encoder output comes in: any kind of array is checked once and laid out for decoding."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from .errors import DeviceError, InputError
from .transducer import MAX_FRAMES

DLPACK_BFLOAT = 4
_DLPACK_CPU = 1
_ONNX_BFLOAT16 = 16


def utterances_of(
    encoder_out: Any, lengths: Any, encoder_size: int | None
) -> tuple[list[np.ndarray] | np.ndarray, np.ndarray]:
    """Check encoder output and turn it into NumPy arrays.

    Parameters
    ----------
    encoder_out:
        [B, E, T] as NumPy array, ``OrtValue`` or anything with DLPack, or a list of [E, T]; float32, float16 or
        bfloat16, contiguous or not.
    lengths:
        Integers [B], the valid frames of each utterance; None if all frames are valid.
    encoder_size:
        E, if known.

    Returns
    -------
    encoder_out:
        One array [B, E, T], or a list of [E, T]; views where possible. bfloat16 is copied to float32.
    lengths:
        int32 [B].

    Raises
    ------
    InputError
        If a shape or dtype is wrong, or a length is out of range.
    DeviceError
        If the data is not in main memory.
    """
    if isinstance(encoder_out, (list, tuple)):
        parts = [to_numpy(part, f"encoder_out[{i}]") for i, part in enumerate(encoder_out)]
        for i, part in enumerate(parts):
            check_frames(f"encoder_out[{i}]", str(part.dtype), part.shape, ("E", "T"), encoder_size)
            if part.shape[0] != parts[0].shape[0]:
                raise InputError(f"encoder_out[{i}] has E = {part.shape[0]}, encoder_out[0] has {parts[0].shape[0]}")
        return parts, check_lengths(lengths, np.array([part.shape[1] for part in parts], np.int64))
    batch = to_numpy(encoder_out, "encoder_out")
    check_frames("encoder_out", str(batch.dtype), batch.shape, ("B", "E", "T"), encoder_size)
    return batch, check_lengths(lengths, np.full(len(batch), batch.shape[2], np.int64))


def frames_first(encoder_out: list[np.ndarray] | np.ndarray, lengths: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Encoder output [B, E, T], or a list of [E, T], as one contiguous array ``dtype`` [B, T, E].

    Each frame is then one run of memory, which is cheap to gather. T becomes the largest length, so that padding beyond
    it is not copied. What lies between an utterance's length and T is arbitrary.
    """
    longest = int(lengths.max(initial=0))
    if isinstance(encoder_out, np.ndarray):
        return np.ascontiguousarray(encoder_out[:, :, :longest].transpose(0, 2, 1), dtype)
    frames = np.empty((len(encoder_out), longest, encoder_out[0].shape[0] if encoder_out else 0), dtype)
    for out, part, length in zip(frames, encoder_out, lengths):
        out[:length] = part[:, :length].T
    return frames


def first_frames(lengths: np.ndarray) -> np.ndarray:
    """int64 [B]: where the frames of each utterance begin, when the frames of all lie one after the other."""
    return np.cumsum(lengths, dtype=np.int64) - lengths


def to_numpy(array: Any, name: str) -> np.ndarray:
    """An array in main memory (NumPy, ``OrtValue`` or DLPack) as a NumPy array: a view where possible.

    bfloat16 is copied to float32.

    Raises
    ------
    InputError
        If `array` is none of these, or NumPy cannot read it.
    DeviceError
        If it lies on another device.
    """
    if not isinstance(array, np.ndarray):
        array = _from_exchange(array, name)
    if array.dtype.name == "bfloat16":  # ml_dtypes' own dtype
        array = _widened(array.view(np.uint16))
    return array


def _from_exchange(array: Any, name: str) -> np.ndarray:
    if hasattr(array, "device_name") and hasattr(array, "numpy") and hasattr(array, "element_type"):
        device = array.device_name().lower()
        if device != "cpu":
            raise DeviceError(f"{name} is an OrtValue on {device}, but this decoder runs on the cpu")
        if array.element_type() != _ONNX_BFLOAT16:
            return array.numpy()
    if not hasattr(array, "__dlpack__"):
        raise InputError(
            f"{name} must be a NumPy array, an OrtValue or an array with DLPack, got {type(array).__name__}"
        )
    if hasattr(array, "requires_grad") and array.requires_grad:
        array = array.detach()
    if hasattr(array, "__dlpack_device__") and array.__dlpack_device__()[0] != _DLPACK_CPU:
        raise DeviceError(
            f"{name} is not in main memory (DLPack device {array.__dlpack_device__()}), but this decoder runs on the "
            "cpu"
        )
    try:
        return np.from_dlpack(array)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        wide = _from_bfloat16(array)
        if wide is None:
            raise InputError(f"{name} cannot be read as a NumPy array: {error}") from error
        return wide


def _from_bfloat16(array: Any) -> np.ndarray | None:
    """A DLPack array of bfloat16, which NumPy cannot read, as float32; None if the array is something else."""
    try:
        capsule = array.__dlpack__()  # keeps the memory alive while it is read
    except (BufferError, RuntimeError, TypeError, ValueError):
        return None
    tensor = dlpack_tensor(capsule)
    if (tensor.type_code, tensor.bits, tensor.lanes) != (DLPACK_BFLOAT, 16, 1):
        return None
    return _read_bfloat16(tensor)


class _DLTensor(ctypes.Structure):
    """The head of DLPack's DLManagedTensor (dlpack.h, ABI of versions before 1.0, which all producers still export)."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("type_code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


def dlpack_tensor(capsule: Any) -> _DLTensor:
    """The tensor in a DLPack capsule. It is valid as long as the capsule is kept."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return _DLTensor.from_address(pointer(capsule, b"dltensor"))


def _read_bfloat16(tensor: _DLTensor) -> np.ndarray:
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    if 0 in shape:
        return np.zeros(shape, np.float32)
    if tensor.strides:
        strides = tuple(2 * tensor.strides[i] for i in range(tensor.ndim))
    else:
        strides = tuple(2 * int(np.prod(shape[i + 1 :])) for i in range(tensor.ndim))
    extent = sum((size - 1) * stride for size, stride in zip(shape, strides)) + 2
    memory = (ctypes.c_uint8 * extent).from_address(tensor.data + tensor.byte_offset)
    return _widened(np.ndarray(shape, np.uint16, memory, strides=strides))


def _widened(bits: np.ndarray) -> np.ndarray:
    """The numbers whose bfloat16 bits are given as uint16, in float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def check_frames(
    name: str, dtype: str, shape: tuple[int, ...], axes: tuple[str, ...], encoder_size: int | None
) -> None:
    """Raise an InputError unless encoder output has a dtype and a shape that can be decoded."""
    if dtype not in ("float32", "float16", "bfloat16"):
        raise InputError(f"{name} must be float32, float16 or bfloat16, got {dtype}")
    layout = ", ".join(axes)
    if len(shape) != len(axes):
        raise InputError(f"{name} must have the shape [{layout}], got {list(shape)}")
    if encoder_size is not None and shape[-2] != encoder_size:
        swapped = ": it looks transposed" if shape[-1] == encoder_size else ""
        raise InputError(f"{name} must be [{layout}] with E = {encoder_size}, got {list(shape)}{swapped}")
    if shape[-1] > MAX_FRAMES:
        raise InputError(f"{name} has {shape[-1]} frames, more than {MAX_FRAMES}")


def check_lengths(lengths: Any, available: np.ndarray) -> np.ndarray:
    """Lengths as int32 [B], checked against the frames that each utterance has; None means all of them."""
    if lengths is None:
        return available.astype(np.int32)
    if isinstance(lengths, (list, tuple, int)):
        try:
            counts = np.asarray(lengths)
        except ValueError as error:
            raise InputError(f"lengths must be integers [B]: {error}") from None
    else:
        counts = to_numpy(lengths, "lengths")
    if counts.shape != available.shape:
        raise InputError(
            f"lengths must have one entry for each of the {len(available)} utterances, got shape {list(counts.shape)}"
        )
    if counts.size and counts.dtype.kind not in "iu":
        raise InputError(f"lengths must be integers, got {counts.dtype}")
    for i, (count, limit) in enumerate(zip(counts.tolist(), available.tolist())):
        if not 0 <= count <= limit:
            raise InputError(f"lengths[{i}] must be from 0 to {limit}, the number of frames given, got {count}")
    return counts.astype(np.int32)
