"""The kernels' parameter blocks, as ``csrc/cuda`` declares them, filled from arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

MAX_LAYERS = 8
"""``kMaxLayers`` in ``network.cuh``."""


def _struct(*fields: Any) -> np.dtype:
    """A structure with C's alignment; fields are (name, type) or (name, type, shape)."""
    return np.dtype(list(fields), align=True)


POINTER, LONG, INT, FLOAT = "u8", "i8", "i4", "f4"

MATRIX = _struct(("tiles", POINTER), ("bias", POINTER), ("count", INT), ("inputs", INT), ("owner", INT))
ROW_LAYOUT = _struct(("vocab_size", INT), ("blank", INT), ("num_durations", INT), ("durations", POINTER))
NETWORK = _struct(
    ("layout", ROW_LAYOUT),
    *((name, INT) for name in ("activation", "layers", "hidden", "joint")),
    ("table", POINTER),
    ("recurrent", MATRIX, MAX_LAYERS),
    ("input", MATRIX, MAX_LAYERS),
    *((name, MATRIX) for name in ("prediction", "output", "encoder")),
    ("staged", INT),
    ("resident_bytes", INT),
)
STATES = _struct(("slots", INT), *((name, POINTER) for name in ("hidden", "cell", "recurrent", "prediction")))
STEP = _struct(("parent", INT), ("token", INT), ("slot", INT))
SOURCE = _struct(
    ("data", POINTER), ("element", LONG), ("frame", LONG), *((n, INT) for n in ("type", "length", "first", "padding"))
)
PROJECTION = _struct(
    ("net", NETWORK), ("sources", INT), ("frames", INT), ("list", POINTER), ("projected", POINTER)
)
RESTORATION = _struct(("net", NETWORK), ("states", STATES), ("steps", POINTER), ("count", INT), ("padding", INT))
GREEDY = _struct(
    ("net", NETWORK),
    ("states", STATES),
    *((name, INT) for name in ("rows", "window", "columns", "max_symbols")),
    ("blank_penalty", FLOAT),
    ("batch", INT),
    ("waiting", INT),
    *((name, POINTER) for name in ("order", "lengths", "first_frames", "starts", "ends", "projected")),
    *((name, POINTER) for name in ("best", "specials", "sums")),
    ("capacity", INT),
    *((name, POINTER) for name in ("log", "logprobs", "summary", "control", "barrier")),
)


def filled(dtype: np.dtype, **values: Any) -> np.ndarray:
    """A structure [1] with those fields; arrays on the device stand for their address."""
    record = np.zeros(1, dtype)
    for name, value in values.items():
        record[name] = address(value) if hasattr(value, "data") and hasattr(value.data, "ptr") else value
    return record


def address(array: Any) -> int:
    """Where a device array begins."""
    return int(array.data.ptr)
