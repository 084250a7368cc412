"""Greedy search on the device, the whole loop in one launch (``csrc/cuda/fused_greedy.cu``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...cuda.arrays import DeviceArray
from ...cuda.device import import_cupy
from ...cuda.state import DeviceState
from ...cuda.structs import CONTROL, EXCHANGED_ROUNDS, GREEDY, address, filled, offset_of
from ...cuda.upload import Upload
from .program import LATENCY_COLUMNS, THROUGHPUT_COLUMNS, FusedNetworkOnDevice, Launches

if TYPE_CHECKING:
    from ...kernels import GreedySearch

FILE = "fused_greedy.cu"

_SUMMARY = 4
_MOST_LOGGED = 1 << 20


def run_greedy(
    network: FusedNetworkOnDevice, search: GreedySearch, rows: Sequence[DeviceArray], start: DeviceState, final: bool
) -> DeviceState | None:
    """Run a search to its end on B rows, from their states to the states returned; None if ``final``."""
    run = _Run(network, search, rows, start)
    return None if final else run.result()


class _Run:
    def __init__(
        self, network: FusedNetworkOnDevice, search: GreedySearch, rows: Sequence[DeviceArray], start: DeviceState
    ):
        cupy = import_cupy()
        self._network, self._search = network, search
        lengths = search.positions[2]
        batch = len(lengths)
        waiting = np.flatnonzero(search.frame < lengths)
        # Long utterances first, so that no row is left alone with one at the end.
        order = waiting[np.argsort(search.frame[waiting] - lengths[waiting], kind="stable")].astype(np.int32)
        places = min(len(waiting), network.launch.rows) or 1
        window = 4 if network.net.precision == "float32" else 8
        columns = max(places, window)
        few = columns <= LATENCY_COLUMNS
        net, self._shared = network.spread(
            FILE, LATENCY_COLUMNS if few else THROUGHPUT_COLUMNS, columns=columns
        )
        slots = 2 * np.arange(batch, dtype=np.int32)
        self._starts = np.stack([search.frame, search.symbols, slots]).astype(np.int32)
        upload = Upload(64 * 1024 + 256 * batch)
        self._preparation = network.prepare(upload, rows, lengths, start, 2 * batch, slots)
        blocks, specials = network.launch.blocks, 1 + search.spec.num_durations
        self._best = cupy.zeros(EXCHANGED_ROUNDS * columns + CONTROL.itemsize // 4 + 1 + blocks, np.uint64)
        best = address(self._best)
        control = best + 8 * EXCHANGED_ROUNDS * columns
        self._cursor = 2 * EXCHANGED_ROUNDS * columns + offset_of(CONTROL, "cursor") // 4
        self._barrier = self._best[-blocks:]
        self._scratch = (
            cupy.empty((EXCHANGED_ROUNDS, columns, specials), np.float32),
            cupy.empty((EXCHANGED_ROUNDS, columns, blocks, 2), np.float32),
        )
        # A token a frame is more than speech has; where it is not enough the host empties the log and goes on.
        frames = int(np.sum(lengths[waiting] - search.frame[waiting], dtype=np.int64))
        self._capacity = min(frames, _MOST_LOGGED) + network.launch.rows
        self._head = _SUMMARY + 3 * batch
        self._results = cupy.empty(self._head + 6 * self._capacity, np.int32)
        at = address(self._results)
        self._parameters = filled(
            GREEDY, net=net[0], states=self._preparation.states[0], rows=places, window=window, columns=columns,
            options=search.options, batch=batch, waiting=len(waiting), order=upload.put(order),
            lengths=upload.put(lengths), first_frames=upload.put(self._preparation.first_frames),
            starts=upload.put(self._starts), projected=self._preparation.projected,
            best=best, control=control, barrier=self._barrier,
            specials=self._scratch[0], sums=self._scratch[1], summary=at, ends=at + 4 * _SUMMARY,
            log=at + 4 * self._head, logprobs=at + 4 * (self._head + 4 * self._capacity), capacity=self._capacity,
        )  # fmt: skip
        self._address = upload.put(self._parameters)
        upload.send()
        self._log, self._logprobs = np.empty((4, 0), np.int32), np.empty((2, 0), np.float32)
        ends = self._starts.copy()
        self._preparation.run()
        if len(waiting):
            ends[:, waiting] = self._run(len(waiting))[:, waiting]
        search.positions[:2] = ends[:2]
        search.finish(self._log, self._logprobs)
        self._ends = ends[2]

    def result(self) -> DeviceState:
        """The states that the rows end in."""
        return self._preparation.state(self._ends)

    def _run(self, waiting: int) -> np.ndarray:
        """Launch until all is done; where each row ended, int32 [3, B]. Where the log is full it is emptied."""
        logs, logprobs = [self._log], [self._logprobs]
        while True:
            if self._network.launch.persistent:
                self._network.run(FILE, "fused_greedy", self._address, self._shared, cooperative=True)
            else:
                self._network.replay(FILE, self._launches_of_round, self._parameters, self._shared)
                logged, active, begun = import_cupy().asnumpy(self._results[:_SUMMARY])[:-1].tolist()
                if active and logged + active <= self._capacity:
                    continue
            results = import_cupy().asnumpy(self._results)
            logged, active, begun = results[: _SUMMARY - 1].tolist()
            log, found = np.split(results[self._head :].reshape(6, self._capacity)[:, :logged], [4])
            logs.append(log)
            logprobs.append(found.view(np.float32))
            if active == 0 and begun == waiting:
                self._log, self._logprobs = np.concatenate(logs, axis=1), np.concatenate(logprobs, axis=1)
                return results[_SUMMARY : self._head].reshape(3, -1)
            self._best.view(np.int32)[self._cursor] = 0
            self._barrier.fill(0)

    def _launches_of_round(self, parity: int) -> Launches:
        layers = [("greedy_layer", (parity, layer)) for layer in range(1, self._network.net.layers + 1)]
        return [("greedy_score", (parity,)), ("greedy_decide", (parity,)), *layers]
