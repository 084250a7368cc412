"""The kernels of greedy search in CUDA C++ (``csrc/cuda/rows.cu``), for joint rows on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..allowed import Masks
from ..cuda.device import current_device, import_cupy
from ..cuda.kernels import kernels
from ..cuda.structs import mask_bytes, put_masks, row_layout
from ..cuda.transfer import transfers
from ..transducer import RowLayout


def decide(
    rows: Any,
    layout: RowLayout,
    options: np.void,
    masks: Masks,
    decisions: np.ndarray,
    logprobs: np.ndarray,
) -> None:
    """`reference.decide` for ``rows`` on the device. ``decisions`` and ``logprobs`` are on the host."""
    cupy, card, count = import_cupy(), current_device(), len(rows)
    struct, kept = row_layout(layout)
    made, values = cupy.empty((2, count), np.int32), cupy.empty((2, count), np.float32)
    with transfers(card).taken(4096 + mask_bytes(masks)) as transfer:
        parameters = [transfer.put(part) for part in (struct, np.array([options]), put_masks(masks, transfer))]
        transfer.send()
        arguments = (rows, np.int32(count), np.uint64(0), *map(np.uint64, parameters), made, values)
        if count:
            kernels(card, "rows.cu").launch("decide_rows", count, card.threads, arguments, 8 * 32)
        decisions[:, :count], logprobs[:, :count] = cupy.asnumpy(made), cupy.asnumpy(values)
    del kept
