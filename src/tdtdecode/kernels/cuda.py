"""The kernels of greedy search in CUDA C++ (``csrc/cuda/rows.cu``), for joint rows on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cuda.device import current_device, import_cupy
from ..cuda.kernels import kernels
from ..cuda.structs import row_layout
from ..transducer import TransducerSpec


def decide(
    rows: Any,
    vocab_size: int,
    blank: int,
    durations: np.ndarray,
    options: np.void,
    decisions: np.ndarray,
    logprobs: np.ndarray,
) -> None:
    """`reference.decide` for ``rows`` on the device. ``decisions`` and ``logprobs`` are on the host."""
    cupy, card, count = import_cupy(), current_device(), len(rows)
    layout, kept = row_layout(TransducerSpec(vocab_size, tuple(durations.tolist()), blank=blank))
    made, values = cupy.empty((2, count), np.int32), cupy.empty((2, count), np.float32)
    arguments = (
        rows, np.int32(count), np.uint64(0), cupy.asarray(layout.view(np.uint8)),
        cupy.asarray(np.frombuffer(options.tobytes(), np.uint8)), made, values,
    )  # fmt: skip
    if count:
        kernels(card, "rows.cu").launch("decide_rows", count, card.threads, arguments, 8 * 32)
    decisions[:, :count], logprobs[:, :count] = cupy.asnumpy(made), cupy.asnumpy(values)
    del kept
