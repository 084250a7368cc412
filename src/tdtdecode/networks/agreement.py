"""How far apart the joint rows of two networks are that should be the same."""

from __future__ import annotations

import numpy as np

from ..transducer import TransducerSpec
from . import SteppedNetwork

_UTTERANCES = 3


def deviation(
    reference: SteppedNetwork,
    other: SteppedNetwork,
    spec: TransducerSpec,
    encoder_size: int,
    steps: int = 6,
    seed: int = 0,
) -> float:
    """The largest difference between the joint rows of two networks, on the same random frames and tokens.

    A log-softmax of the token part and of the duration part comes first, so that adding a constant to either part does
    not count. The difference of a row a of the reference and a row b of the other is
    ``max |a - b| / max(1, max |a|)``. It is NaN if a row has NaN or infinities.

    Both networks take `steps` random tokens in a few utterances. Frames are drawn from a unit normal distribution;
    every third is ten times as large.

    Parameters
    ----------
    reference, other:
        Networks for the same `spec` and for frames of `encoder_size` numbers.
    """
    rng = np.random.default_rng(seed)
    frames = rng.standard_normal((_UTTERANCES, steps + 1, encoder_size)).astype(np.float32)
    frames[:, ::3] *= 10
    tokens = rng.integers(0, spec.vocab_size + 1, (steps, _UTTERANCES)).astype(np.int32)
    blank = spec.vocab_size if spec.blank is None else spec.blank
    slots = np.arange(_UTTERANCES, dtype=np.int32)
    workspaces = []
    for network in (reference, other):
        start = network.start(blank).select(np.zeros(_UTTERANCES, np.intp))
        workspaces.append(network.workspace(np.ascontiguousarray(frames, network.frame_dtype), start))
    largest = 0.0
    for step in range(steps + 1):
        at = np.full(_UTTERANCES, step, np.int32)
        with np.errstate(invalid="ignore", over="ignore"):  # infinities become NaN and stay NaN
            a, b = (_normalised(workspace.joint(slots, slots, at), spec) for workspace in workspaces)
            scale = np.maximum(1.0, np.abs(a).max(axis=1, keepdims=True))
            largest = float(np.maximum(largest, (np.abs(a - b) / scale).max()))
        if step < steps:
            for workspace in workspaces:
                workspace.predict(slots, tokens[step], slots)
    return largest


def _normalised(rows: np.ndarray, spec: TransducerSpec) -> np.ndarray:
    parts = np.split(rows.astype(np.float64), [spec.token_entries], axis=1)
    return np.concatenate([_log_softmax(part) for part in parts if part.shape[1]], axis=1)


def _log_softmax(part: np.ndarray) -> np.ndarray:
    shifted = part - part.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
