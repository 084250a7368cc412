"""Many channels to one."""

from __future__ import annotations

import numpy as np

_CANCELLED = 0.1
"""Channels cancel each other where their mean has less than this share of the power that unrelated channels give it.

Lossy codecs leave up to a tenth. A right channel of minus half the left one, whose mean is merely quiet, has a fifth.
"""
_AUDIBLE = 1e-4
"""Cancelled sound counts if it has more than this share of the power of the loudest in the recording."""
_SHORTEST_SECONDS = 0.01


class Mixer:
    """The mean of a recording's channels; one channel alone where the channels cancel each other.

    That happens where one of them is wired the wrong way round: their mean is silence, and what was said is lost.

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
        self._lost: list[tuple[float, float]] = []  # seconds and power of each block that was cancelled

    def __call__(self, block: np.ndarray, rate: int) -> np.ndarray:
        """Mix a block, float32 [n, channels], to float32 [n]. Each block is decided on for itself."""
        if block.shape[1] == 1:
            return block[:, 0]
        with np.errstate(over="ignore", invalid="ignore"):  # numbers that are none are found in what is returned
            return self._mixed(block, rate)

    def _mixed(self, block: np.ndarray, rate: int) -> np.ndarray:
        mean: np.ndarray = block.mean(axis=1, dtype=np.float32)
        powers = np.square(block, dtype=np.float64).mean(axis=0)
        loudest = float(powers.max(initial=0.0))
        self._loudest = max(self._loudest, loudest)
        if len(block) >= _SHORTEST_SECONDS * rate:
            unrelated = powers.mean() / block.shape[1]
            self._cancels = bool(np.square(mean, dtype=np.float64).mean() < _CANCELLED * unrelated)
        if not self._cancels:
            return mean
        if self.channel is None or self.channel >= block.shape[1] or 4 * powers[self.channel] < loudest:
            self.channel = int(np.flatnonzero(4 * powers >= loudest)[0])
        self._lost.append((len(block) / rate, loudest))
        return np.ascontiguousarray(block[:, self.channel])

    @property
    def cancelled_seconds(self) -> float:
        return sum(seconds for seconds, power in self._lost if power > _AUDIBLE * self._loudest)
