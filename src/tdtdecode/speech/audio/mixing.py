"""Many channels to one."""

from __future__ import annotations

import numpy as np

_PIECE_SECONDS = 0.5
"""Each piece of so much sound is decided on for itself."""
_CANCELLED = 0.1
"""A sound cancels in the mean if that keeps less than this share of the power that it has in one channel alone.

A right channel of minus half the left one, whose mean is merely quiet, keeps a fifth.
"""
_SHARE = 0.8
"""The sound that cancels must have this share of all power: then the mean is not what was said, but what is left of it.

Lossy codecs, noise and hum of each channel leave so much. Speech that reaches a second microphone later does not: half
a second of it holds too many frequencies to be the other way round in all of them.
"""
_SHARE_OF_HIGH = 0.85
"""The same, after pre-emphasis, which is how features see it: hum and offsets count for little there."""
_PRE_EMPHASIS = 0.97
_MOST_COMPARED = 16
_AUDIBLE = 1e-4
"""Cancelled sound counts if it has more than this share of the power of the loudest in the recording."""
_SHORTEST_SECONDS = 0.01


class Mixer:
    """The mean of a recording's channels; one channel alone where the channels cancel each other.

    That happens where one of them is wired the wrong way round: their mean is silence, or hum and noise, and what was
    said is lost.

    Attributes
    ----------
    cancelled_seconds:
        How much of the recording was taken from one channel because the channels cancel each other.
    channel:
        That channel's number, from 0 on; None if there is none.
    """

    def __init__(self) -> None:
        self.channel: int | None = None
        self._cancels = False
        self._loudest = 0.0
        self._lost: list[tuple[float, float]] = []  # seconds and power of each piece that was cancelled

    def __call__(self, block: np.ndarray, rate: int) -> np.ndarray:
        """Mix a block, float32 [n, channels], to float32 [n]."""
        if block.shape[1] == 1:
            return block[:, 0]
        pieces = max(1, round(len(block) / (_PIECE_SECONDS * rate)))
        with np.errstate(over="ignore", invalid="ignore"):  # numbers that are none are found in what is returned
            return np.concatenate([self._mixed(piece, rate) for piece in np.array_split(block, pieces)])

    def _mixed(self, block: np.ndarray, rate: int) -> np.ndarray:
        mean: np.ndarray = block.mean(axis=1, dtype=np.float32)
        if not len(block):
            return mean
        powers = block.var(axis=0, dtype=np.float64)
        loudest = float(powers.max())
        self._loudest = max(self._loudest, loudest)
        if len(block) >= _SHORTEST_SECONDS * rate:
            self._cancels = _cancel(block[:, np.argsort(powers)[-_MOST_COMPARED:]].astype(np.float64))
        if not self._cancels:
            return mean
        if self.channel is None or self.channel >= block.shape[1] or 4 * powers[self.channel] < loudest:
            self.channel = int(np.flatnonzero(4 * powers >= loudest)[0])
        self._lost.append((len(block) / rate, loudest))
        return np.ascontiguousarray(block[:, self.channel])

    @property
    def cancelled_seconds(self) -> float:
        return sum(seconds for seconds, power in self._lost if power > _AUDIBLE * self._loudest)


def _cancel(channels: np.ndarray) -> bool:
    """Whether most of what the channels hold, float64 [n, channels], cancels in their mean."""
    centred = channels - channels.mean(axis=0)
    return _cancels(centred, _SHARE) or _cancels(centred[1:] - _PRE_EMPHASIS * centred[:-1], _SHARE_OF_HIGH)


def _cancels(channels: np.ndarray, share: float) -> bool:
    """Whether one sound has that share of the power, and cancels in the mean.

    The sound is the first principal component. Its direction comes from the power method: where the component is as
    strong as asked for, that converges at once; where it is not, the share found is too small in any case.
    """
    powers = np.einsum("ni,nj->ij", channels, channels)  # no BLAS, whose threads do not survive a fork
    direction = powers[:, np.diag(powers).argmax()]
    for _ in range(10):
        size = np.sqrt(np.square(direction).sum())
        if not size > 0:
            return False
        direction = np.einsum("ij,j->i", powers, direction / size)
    direction = direction / np.sqrt(np.square(direction).sum())
    strength = np.einsum("i,ij,j->", direction, powers, direction)
    return bool(strength >= share * np.trace(powers) and direction.sum() ** 2 < _CANCELLED)
