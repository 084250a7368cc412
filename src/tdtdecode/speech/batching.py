"""Which recordings go through the encoder together: those for which it takes the least time.

A call of the encoder costs about as much as so many seconds of audio, whatever is in it: the weights have to be read
from memory, and kernels to be launched. Beyond that its cost grows with the audio in it, padding included:

    cost of a call = a + rows * length of the longest row

So ``a``, in seconds of audio, is the only number that has to be known. It hardly depends on the size of the model, as
weights are read and multiplied in proportion to their number. `benches.encoder_cost` measures it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class EncoderCost:
    """What the encoder's calls cost on a device.

    Attributes
    ----------
    call_seconds:
        The cost of a call, whatever is in it, as seconds of audio.
    most_seconds:
        The most audio in a batch, padding included. More would gain nothing and need more memory.
    """

    call_seconds: float
    most_seconds: float


COSTS = {"cpu": EncoderCost(2.0, 20.0), "cuda": EncoderCost(150.0, 480.0)}
"""By device; that of a GPU is for one with 16 GiB of memory.

On a CPU, batches gain 1.8 times at 2 s, 1.3 times at 5 s and little from 10 s on. The cost of a GPU's calls is computed
from what others published for one (an H200): 8 s at a time take 13.5 ms, and in batches of 256 a second takes 0.08 ms.
"""
_CARD_MEMORY = 16 << 30
_MOST_ON_CARD = 2400.0
"""The most audio in a batch on any card, in seconds: the first convolution of a Conformer then gives nearly 2^31
numbers (256 channels, 50 frames a second, 64 bins), and ONNX Runtime counts them with 32 bits."""


def encoder_cost(device: str, memory: int | None) -> EncoderCost:
    """The cost on a device; ``memory`` is a card's in bytes, and the audio in a batch grows with it."""
    cost = COSTS[device]
    if memory is None:
        return cost
    return replace(cost, most_seconds=min(cost.most_seconds * memory / _CARD_MEMORY, _MOST_ON_CARD))


def cheapest_batches(seconds: Sequence[float], cost: EncoderCost, most: int) -> list[list[int]]:
    """Group recordings so that the calls cost the least together.

    Recordings that share a batch are neighbours in length, so the best groups are found by dynamic programming over the
    sorted lengths.

    Parameters
    ----------
    seconds:
        The length of each recording.
    most:
        The most recordings in a batch.

    Returns
    -------
    The recordings of each batch, by their places. The batch with the first recording comes first.
    """
    order = sorted(range(len(seconds)), key=lambda i: seconds[i])
    best = np.zeros(len(order) + 1)  # the least cost of the first n recordings
    sizes = [0]  # the size of the last batch there
    for n, longest in enumerate((seconds[i] for i in order), 1):
        fitting = max(1, min(most, n, int(cost.most_seconds / max(longest, 1e-3))))
        choices = best[n - fitting : n][::-1] + cost.call_seconds + longest * np.arange(1, fitting + 1)
        size = int(choices.argmin()) + 1
        best[n] = choices[size - 1]
        sizes.append(size)
    batches = []
    end = len(order)
    while end:
        batches.append(sorted(order[end - sizes[end] : end]))
        end -= sizes[end]
    return sorted(batches)
