"""The lists on the device in which a search asks for predictor steps and joint rows."""

from __future__ import annotations

import numpy as np

from .device import import_cupy
from .structs import REQUESTS, STEP, WANTED, address, filled

FLAGS = 2
"""Number of int32 after the structure `REQUESTS` that greedy search uses (``GreedySteps::logged``)."""


class Requests:
    """A search's lists (``csrc/cuda/requests.cuh``).

    Parameters
    ----------
    capacity:
        Most entries of either list.
    wanted, steps:
        `structs.WANTED` [N] and `structs.STEP` [N] on the host, the entries to begin with; None: no entries.

    Attributes
    ----------
    words:
        int32 on the device: the number of steps, the number of wanted rows, the addresses of both lists, which only
        kernels read, and `FLAGS` flags.
    address, step_count, wanted_count, flags:
        Addresses of the structure, of the two numbers in it, and of the flags.
    parents, tokens, slots, wanted_slots, wanted_frames:
        Addresses of these fields in the first step and in the first wanted row.
    """

    def __init__(self, capacity: int, wanted: np.ndarray | None = None, steps: np.ndarray | None = None):
        cupy = import_cupy()
        self._steps = cupy.zeros(capacity * STEP.itemsize, np.uint8)
        self._wanted = cupy.zeros(capacity * WANTED.itemsize, np.uint8)
        lengths = {}
        for name, array, some in (("step_count", self._steps, steps), ("wanted_count", self._wanted, wanted)):
            lengths[name] = 0 if some is None else len(some)
            if some is not None and len(some):
                array[: some.nbytes] = cupy.asarray(some.view(np.uint8))
        struct = filled(REQUESTS, steps=self._steps, wanted=self._wanted, **lengths)
        self.words = cupy.asarray(np.concatenate([struct.view(np.int32), np.zeros(FLAGS, np.int32)]))
        self.address = address(self.words)
        self.step_count, self.wanted_count = self.address, self.address + 4
        self.flags = self.address + REQUESTS.itemsize
        self.parents, self.tokens, self.slots = (address(self._steps) + 4 * i for i in range(3))
        self.wanted_slots, self.wanted_frames = (address(self._wanted) + 4 * i for i in range(2))

    def clear(self) -> None:
        """Empty both lists."""
        self.words[:2] = 0

    def fetch(self) -> np.ndarray:
        """Copy `words` to the host."""
        words: np.ndarray = import_cupy().asnumpy(self.words)
        return words

    def steps(self, count: int) -> np.ndarray:
        """Copy the first predictor steps, `structs.STEP` [count], to the host."""
        return import_cupy().asnumpy(self._steps[: count * STEP.itemsize]).view(STEP)

    def wanted(self, count: int) -> np.ndarray:
        """Copy the first wanted joint rows, `structs.WANTED` [count], to the host."""
        return import_cupy().asnumpy(self._wanted[: count * WANTED.itemsize]).view(WANTED)
