"""Greedy search with a fused network on the device: the whole loop in one launch (``csrc/cuda/fused_greedy.cu``)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...cuda.arrays import DeviceArray
from ...cuda.device import import_cupy
from ...cuda.state import DeviceState
from ...cuda.structs import (
    CONTROL,
    EXCHANGED_ROUNDS,
    SOURCE,
    STEP,
    copied,
    mask_bytes,
    offset_of,
    put_masks,
)
from ...cuda.transfer import Transfer
from .program import MANY_COLUMNS, ROUNDS_AT_ONCE, FusedNetworkOnDevice

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
    waiting = search.frame < search.positions[2]
    if not waiting.any():  # nothing is launched then, which would read frames that the caller may free
        return None if final else start
    with network.transfers.taken(_transfer_bytes(network, search)) as transfer:
        decode = _GreedyDecode(network, transfer, search, np.flatnonzero(waiting), utterances, start)
        ends = decode.run()
        return None if final else decode.preparation.state(ends)


def _transfer_bytes(network: FusedNetworkOnDevice, search: GreedySearch) -> int:
    """At least what a decode sends."""
    batch = search.positions.shape[1]
    utterance = SOURCE.itemsize + STEP.itemsize + 6 * 4
    rounds = 2 * EXCHANGED_ROUNDS * MANY_COLUMNS * 8 + 2 * CONTROL.itemsize + 4 * network.launch.blocks
    return 4096 + rounds + batch * utterance + mask_bytes(search.masks)


class _GreedyDecode:
    """The greedy decode of one batch: its parameters and its memory on the device, and the launches."""

    def __init__(
        self,
        network: FusedNetworkOnDevice,
        transfer: Transfer,
        search: GreedySearch,
        waiting: np.ndarray,
        utterances: Sequence[DeviceArray],
        start: DeviceState,
    ):
        self._network, self._transfer, self._search, self._waiting = network, transfer, search, waiting
        lengths = search.positions[2]
        batch = len(lengths)
        remaining = (lengths - search.frame)[waiting]
        slots = min(len(waiting), network.launch.slots)
        window = 4 if network.net.precision == "float32" else 8
        spread = network.spread(FILE, max(slots, window))
        columns, blocks = spread.columns, network.launch.blocks
        # The results: a summary, where each utterance ended, and the log. Speech has less than a token a frame.
        self._capacity = min(int(remaining.sum(dtype=np.int64)), _MOST_LOGGED) + network.launch.slots
        self._log_start = _SUMMARY + 3 * batch
        specials = search.spec.joint_width - search.spec.vocab_size  # blanks and durations
        exchanged = EXCHANGED_ROUNDS * columns * specials, EXCHANGED_ROUNDS * columns * blocks
        room = 4 * (self._log_start + 6 * self._capacity + exchanged[0] + 2 * exchanged[1])
        # Each utterance has two places for its predictor state, which it uses in turn; the state lies in the first.
        states = 2 * np.arange(batch)
        self.preparation = network.prepare(transfer, utterances, lengths, start, 2 * batch, states, columns, room)

        numbers, numbers_at = transfer.room(np.dtype(np.int32), 6 * batch)
        numbers = numbers.reshape(6, batch)
        # Long utterances begin first, so that none of them is left to run alone at the end.
        numbers[0, : len(waiting)] = waiting[np.argsort(-remaining, kind="stable")]
        numbers[1] = lengths
        np.cumsum(lengths[:-1], out=numbers[2, 1:])
        numbers[2, 0] = 0
        self._starts = numbers[3:]
        self._starts[0], self._starts[1], self._starts[2] = search.frame, search.symbols, states
        # What must be zero before the first launch: the best tokens, the controls and the barrier.
        best_bytes = 2 * EXCHANGED_ROUNDS * columns * 8
        zeros, best = transfer.room(np.dtype(np.uint8), best_bytes + 2 * CONTROL.itemsize + 4 * blocks)
        zeros.fill(0)
        self._control = best + best_bytes
        self._barrier = self._control + 2 * CONTROL.itemsize
        self._summary = self.preparation.room
        log = self._summary + 4 * self._log_start
        specials_at = log + 4 * 6 * self._capacity
        self._parameters = copied(spread.parameters)
        values = {
            "states": self.preparation.states[0], "options": search.options, "slots": slots, "window": window,
            "columns": columns, "batch": batch, "waiting": len(waiting), "order": numbers_at,
            "lengths": numbers_at + 4 * batch, "first_frames": numbers_at + 8 * batch,
            "starts": numbers_at + 12 * batch, "ends": self._summary + 4 * _SUMMARY,
            "projected": self.preparation.projected, "best": best, "specials": specials_at,
            "sums": specials_at + 4 * exchanged[0], "capacity": self._capacity, "log": log,
            "logprobs": log + 4 * 4 * self._capacity, "summary": self._summary, "control": self._control,
            "barrier": self._barrier, "masks": put_masks(search.masks, transfer)[0],
        }  # fmt: skip
        for name, value in values.items():
            self._parameters[name] = value
        self._shared = spread.shared

    def run(self) -> np.ndarray:
        """Decode to the end and give the search what was found. Returns int [B], the slots of the states at the end."""
        self._transfer.send()
        self.preparation.run()
        logs, logprobs = [], []
        while True:
            results = self._launched()
            logged, active, begun = results[: _SUMMARY - 1].tolist()
            log = results[self._log_start :].reshape(6, self._capacity)[:, :logged].copy()
            logs.append(log[:4])
            logprobs.append(log[4:].view(np.float32))
            if active == 0 and begun == len(self._waiting):
                break
            self._go_on()
        ends = self._starts.copy()
        ends[:, self._waiting] = results[_SUMMARY : self._log_start].reshape(3, -1)[:, self._waiting]
        self._search.positions[:2] = ends[:2]
        one = len(logs) == 1
        self._search.finish(
            logs[0] if one else np.concatenate(logs, axis=1), logprobs[0] if one else np.concatenate(logprobs, axis=1)
        )
        return ends[2]

    def _fetch(self, count: int) -> np.ndarray:
        """The first numbers of the results, int32 [count]."""
        return self._transfer.fetch(self._summary, np.dtype(np.int32), count)

    def _go_on(self) -> None:
        """Make the log empty, and the barrier and the tagged words ready for another launch."""
        cuda = import_cupy().cuda
        stream = cuda.get_current_stream().ptr
        cursor = offset_of(CONTROL, "cursor")
        cuda.runtime.memsetAsync(self._control + cursor, 0, 4, stream)
        cuda.runtime.memsetAsync(self._barrier, 0, 4 * self._network.launch.blocks, stream)
        self.preparation.clear_words()

    def _launched(self) -> np.ndarray:
        """Run rounds until no utterance is in flight or the log is full. Returns the results."""
        everything = self._log_start + 6 * self._capacity
        if self._network.launch.persistent:
            with self._network.alone.held:
                self._network.run(FILE, "fused_greedy", self._parameters, self._shared)
                return self._fetch(everything)
        active, room = True, True
        while active and room:
            for i in range(ROUNDS_AT_ONCE):
                self._launch_round(i % 2)
            logged, active, _, _ = self._fetch(_SUMMARY).tolist()
            room = logged + active <= self._capacity
        return self._fetch(everything)

    def _launch_round(self, parity: int) -> None:
        """Launch the phases of a round, which reads one of two buffers, number ``parity``."""
        run = partial(self._network.run, FILE, parameters=self._parameters, shared=self._shared)
        run("greedy_score", numbers=(parity,))
        run("greedy_decide", numbers=(parity,))
        for layer in range(1, self._network.net.layers + 1):
            run("greedy_layer", numbers=(parity, layer))
