"""The lists that a search keeps on the device: predictor steps and joint rows that it waits for."""

from __future__ import annotations

import numpy as np

from .device import import_cupy
from .structs import REQUESTS, STEP, WANTED, address, filled

FLAGS = 2
"""Integers behind the lists' lengths that are the search's own."""


class Requests:
    """A search's lists (``csrc/cuda/requests.cuh``).

    Parameters
    ----------
    capacity:
        Most entries of either.
    wanted, steps:
        `structs.WANTED` and `structs.STEP`, what they begin with.

    Attributes
    ----------
    words:
        int32 on the device: the lengths of both, then what only kernels read, then `FLAGS` integers.
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
        """Nothing is asked for."""
        self.words[:2] = 0

    def fetch(self) -> np.ndarray:
        """`words`, brought to the host."""
        words: np.ndarray = import_cupy().asnumpy(self.words)
        return words

    def steps(self, count: int) -> np.ndarray:
        """The first predictor steps, `structs.STEP` [count], brought to the host."""
        return import_cupy().asnumpy(self._steps[: count * STEP.itemsize]).view(STEP)

    def wanted(self, count: int) -> np.ndarray:
        """The first joint rows, `structs.WANTED` [count], brought to the host."""
        return import_cupy().asnumpy(self._wanted[: count * WANTED.itemsize]).view(WANTED)
