"""Greedy search with a fused network on the device: the whole loop in one launch (``csrc/cuda/fused_greedy.cu``)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...cuda.arrays import DeviceArray
from ...cuda.device import import_cupy
from ...cuda.state import DeviceState
from ...cuda.structs import CONTROL, EXCHANGED_ROUNDS, GREEDY, address, filled, offset_of
from ...cuda.upload import Upload
from .program import ROUNDS_AT_ONCE, FusedNetworkOnDevice

if TYPE_CHECKING:
    from ...kernels import GreedySearch

FILE = "fused_greedy.cu"

_SUMMARY = 4
"""Numbers at the start of the results: tokens logged, slots in use, utterances that have begun, and one for padding."""
_MOST_LOGGED = 1 << 20
"""Most tokens that a log has room for, beside one for each slot. If the log is full, the host empties it and the search
goes on."""


def run_greedy(
    network: FusedNetworkOnDevice,
    search: GreedySearch,
    utterances: Sequence[DeviceArray],
    start: DeviceState,
    final: bool,
) -> DeviceState | None:
    """Run a greedy search to its end; parameters and result are those of `Program.greedy`."""
    after = _GreedyDecode(network, search, utterances, start).run()
    return None if final else after


class _GreedyDecode:
    """The greedy decode of one batch: its parameters and its memory on the device, and the launches."""

    def __init__(
        self,
        network: FusedNetworkOnDevice,
        search: GreedySearch,
        utterances: Sequence[DeviceArray],
        start: DeviceState,
    ):
        cupy = import_cupy()
        self._network, self._search = network, search
        lengths = search.positions[2]
        batch = len(lengths)
        self._waiting = np.flatnonzero(search.frame < lengths)
        remaining = lengths[self._waiting] - search.frame[self._waiting]
        # Long utterances begin first, so that none of them is left to run alone at the end.
        order = self._waiting[np.argsort(-remaining, kind="stable")].astype(np.int32)
        slots = min(len(self._waiting), network.launch.slots) or 1
        window = 4 if network.net.precision == "float32" else 8
        columns = max(slots, window)
        spread = network.spread(FILE, columns)
        self._shared, columns = spread.shared, spread.columns
        # Each utterance has two places for its predictor state, which it uses in turn; the state lies in the first.
        states = 2 * np.arange(batch, dtype=np.int32)
        self._starts = np.stack([search.frame, search.symbols, states]).astype(np.int32)
        self._upload = Upload(64 * 1024 + 256 * batch)
        self._preparation = network.prepare(self._upload, utterances, lengths, start, 2 * batch, states)

        # What must be zero before the first launch lies in one array, which is cleared at once.
        blocks = network.launch.blocks
        best_end = EXCHANGED_ROUNDS * columns * np.dtype(np.uint64).itemsize
        control_end = best_end + 2 * CONTROL.itemsize
        zeros = cupy.zeros(control_end + blocks * np.dtype(np.uint32).itemsize, np.uint8)
        best, control, self._barrier = zeros[:best_end], zeros[best_end:control_end], zeros[control_end:]
        cursor = offset_of(CONTROL, "cursor")
        self._cursor = control[cursor : cursor + np.dtype(np.int32).itemsize]
        self._exchanged = (
            cupy.empty((EXCHANGED_ROUNDS, columns, 1 + search.spec.num_durations), np.float32),
            cupy.empty((EXCHANGED_ROUNDS, columns, blocks, 2), np.float32),
        )
        specials, sums = self._exchanged

        # The results: a summary, where each utterance ended, and the log. Speech has less than a token a frame.
        self._capacity = min(int(np.sum(remaining, dtype=np.int64)), _MOST_LOGGED) + network.launch.slots
        self._log_start = _SUMMARY + 3 * batch
        self._results = cupy.empty(self._log_start + 6 * self._capacity, np.int32)
        summary = address(self._results)
        log = summary + 4 * self._log_start
        put = self._upload.put
        self._parameters = filled(
            GREEDY, net=spread.net[0], states=self._preparation.states[0], slots=slots, window=window, columns=columns,
            options=search.options, batch=batch, waiting=len(self._waiting), order=put(order), lengths=put(lengths),
            first_frames=put(self._preparation.first_frames), starts=put(self._starts),
            projected=self._preparation.projected, best=best, specials=specials, sums=sums, control=control,
            barrier=self._barrier, summary=summary, ends=summary + 4 * _SUMMARY, log=log,
            logprobs=log + 4 * 4 * self._capacity, capacity=self._capacity,
        )  # fmt: skip
        self._address = put(self._parameters)
        self._upload.send()

    def run(self) -> DeviceState:
        """Decode to the end and give the search what was found. Returns the states that the utterances end in."""
        self._preparation.run()
        ends = self._starts.copy()
        logs, logprobs = [np.empty((4, 0), np.int32)], [np.empty((2, 0), np.float32)]
        done = not len(self._waiting)
        while not done:
            self._launch()
            results = import_cupy().asnumpy(self._results)
            logged, active, begun = results[: _SUMMARY - 1].tolist()
            log, values = np.split(results[self._log_start :].reshape(6, self._capacity)[:, :logged], [4])
            logs.append(log)
            logprobs.append(values.view(np.float32))
            done = active == 0 and begun == len(self._waiting)
            if done:
                found = results[_SUMMARY : self._log_start].reshape(3, -1)
                ends[:, self._waiting] = found[:, self._waiting]
            else:  # go on with an empty log
                self._cursor.fill(0)
                self._barrier.fill(0)
        self._search.positions[:2] = ends[:2]
        self._search.finish(np.concatenate(logs, axis=1), np.concatenate(logprobs, axis=1))
        return self._preparation.state(ends[2])

    def _launch(self) -> None:
        """Run rounds until no utterance is in flight or the log is full."""
        if self._network.launch.persistent:
            self._network.run(FILE, "fused_greedy", self._address, self._shared, cooperative=True)
            return
        active, room = True, True
        while active and room:
            for i in range(ROUNDS_AT_ONCE):
                self._launch_round(i % 2)
            logged, active, _ = import_cupy().asnumpy(self._results[:_SUMMARY])[:-1].tolist()
            room = logged + active <= self._capacity

    def _launch_round(self, parity: int) -> None:
        """Launch the phases of a round, which reads one of two buffers, number ``parity``."""
        run = partial(self._network.run, FILE, parameters=self._address, shared=self._shared)
        run("greedy_score", numbers=(parity,))
        run("greedy_decide", numbers=(parity,))
        for layer in range(1, self._network.net.layers + 1):
            run("greedy_layer", numbers=(parity, layer))
