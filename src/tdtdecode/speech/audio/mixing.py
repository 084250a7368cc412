"""Many channels to one."""

from __future__ import annotations

import numpy as np

WINDOW_SECONDS = 0.5
"""Whether channels cancel is decided by so much sound."""
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
    said is lost. It is decided anew for each piece of a fixed length, by the half second up to its end. So it does not
    depend on the blocks in which the sound comes.

    Parameters
    ----------
    piece_seconds:
        The length of a piece: sound of several channels is mixed when a piece of it is complete.

    Attributes
    ----------
    cancelled_seconds:
        How much of the recording was taken from one channel because the channels cancel each other.
    channel:
        That channel's number, from 0 on; None if there is none.
    """

    def __init__(self, piece_seconds: float = WINDOW_SECONDS) -> None:
        self.channel: int | None = None
        self._piece_seconds = piece_seconds
        self._waiting: list[np.ndarray] = []  # blocks of the piece that is not complete
        self._before: np.ndarray | None = None  # sound before it that the decision looks at
        self._rate = 1
        self._cancels = False
        self._loudest = 0.0
        self._lost: list[tuple[float, float]] = []  # seconds and power of each piece that was cancelled

    def __call__(self, block: np.ndarray, rate: int) -> np.ndarray:
        """Mix a block, float32 [n, channels]. Returns what is mixed now, float32 [m]; the rest comes later.

        Another rate or number of channels begins after a `rest`.
        """
        if block.shape[1] == 1:
            return block[:, 0]
        self._rate = rate
        size = max(int(self._piece_seconds * rate), 1)
        waiting = np.concatenate([*self._waiting, block])
        whole = len(waiting) // size * size
        self._waiting = [waiting[whole:]]
        mixed = [self._mixed(waiting[start : start + size]) for start in range(0, whole, size)]
        return np.concatenate(mixed) if mixed else np.zeros(0, np.float32)

    def rest(self) -> np.ndarray:
        """Mix what is left of the last piece, float32 [n]."""
        waiting, self._waiting = self._waiting, []
        mixed = self._mixed(waiting[0]) if waiting else np.zeros(0, np.float32)
        self._before = None
        return mixed

    @property
    def channels(self) -> int | None:
        """The channels of the sound that waits for its piece; None if there is none."""
        return self._waiting[0].shape[1] if self._waiting else None

    def _mixed(self, piece: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):  # numbers that are none are found in what is returned
            mean: np.ndarray = piece.mean(axis=1, dtype=np.float32)
            if not len(piece):
                return mean
            heard = piece if self._before is None else np.concatenate([self._before, piece])
            heard = heard[-max(int(WINDOW_SECONDS * self._rate), 1) :]
            self._before = heard
            powers = heard.var(axis=0, dtype=np.float64)
            if len(heard) >= _SHORTEST_SECONDS * self._rate:
                self._cancels = _cancel(heard[:, np.argsort(powers)[-_MOST_COMPARED:]].astype(np.float64))
            loudest = float(powers.max())
            self._loudest = max(self._loudest, loudest)
            if not self._cancels:
                return mean
            if self.channel is None or self.channel >= piece.shape[1] or 4 * powers[self.channel] < loudest:
                self.channel = int(np.flatnonzero(4 * powers >= loudest)[0])
            self._lost.append((len(piece) / self._rate, float(piece.var(axis=0, dtype=np.float64).max())))
            return np.ascontiguousarray(piece[:, self.channel])

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
