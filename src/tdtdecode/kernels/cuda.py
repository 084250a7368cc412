"""The search kernels in CUDA C++ (``csrc/cuda/rows.cu``), for joint rows on the device."""

from __future__ import annotations

from typing import Any

import numpy as np


def decide(
    rows: Any,
    vocab_size: int,
    blank: int,
    durations: np.ndarray,
    blank_penalty: float,
    decisions: np.ndarray,
    logprobs: np.ndarray,
) -> None:
    raise NotImplementedError
