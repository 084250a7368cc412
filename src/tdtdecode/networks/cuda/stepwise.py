"""Searches on the device that drive a network step by step.

Kernels advance a search and write what it asks for into lists on the device. The host launches rounds of kernels, and
checks every few rounds whether the search is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...arrays import first_frames
from ...cuda.device import Device, import_cupy
from ...cuda.kernels import kernels
from ...cuda.requests import Requests
from ...cuda.state import DeviceState
from ...cuda.structs import GREEDY_STEPS, WANTED, filled, mask_bytes, offset_of, put_masks, row_layout
from ...cuda.transfer import Transfer, transfers
from .beams import DeviceBeams, check_beam, decode_in_parts

if TYPE_CHECKING:
    from ...cuda.arrays import DeviceArray
    from ...kernels import BeamSearch, GreedySearch


_REDUCE_SHARED = 8 * 32
_BEAM_SHARED = 20 * 1024
"""Bytes of shared memory for a block that reduces joint rows, and for a block that advances a beam."""


class DeviceWorkspace(Protocol):
    """One decode's predictor states by slot, and its frames. It computes what a search asks for in its lists."""

    def joint(self, requests: Requests, rows: int) -> Any:
        """Compute the joint rows that are wanted, of which there are at most ``rows``.

        Returns float32 [rows, V + 1 + D] on the device, in the order of the list, valid until the next call.
        """

    def predict(self, requests: Requests, steps: int) -> None:
        """Take the predictor steps that are asked for, of which there are at most ``steps``."""

    def state(self, slots: np.ndarray) -> Any:
        """The states in those slots, a `NetworkState`."""


class StepwiseNetwork(Protocol):
    """A network on the device that is run step by step."""

    card: Device
    max_rows: int
    """Most joint rows of one round."""
    rounds: int
    """Rounds after which the host checks whether the search is done."""

    def frames(self, utterances: Sequence[DeviceArray], lengths: np.ndarray) -> Any:
        """The frames of B utterances [E, T] in one array [all frames, E] on the device, in the network's dtype."""

    def workspace(self, state: Any, places: np.ndarray, slots: int, frames: Any, capacity: int) -> DeviceWorkspace:
        """A workspace with ``slots`` slots, for lists of at most ``capacity`` entries; state i is put in slot
        ``places[i]``."""


def run_greedy(
    network: StepwiseNetwork, search: GreedySearch, utterances: Sequence[DeviceArray], start: Any
) -> DeviceState:
    """Run a greedy search to its end on B ``utterances`` [E, T], from their states ``start`` to the states returned."""
    lengths = search.positions[2]
    order = np.argsort(search.frame - lengths, kind="stable")
    logs, logprobs, states = [], [], []
    for first in range(0, max(len(order), 1), network.max_rows):
        some = order[first : first + network.max_rows]
        with transfers(network.card).taken(4096 + 16 * len(some) + mask_bytes(search.masks)) as transfer:
            mine = [utterances[i] for i in some]
            log, values, state = _greedy_part(network, transfer, search, mine, some, start.select(some))
        log[0] = some[log[0]]
        logs.append(log)
        logprobs.append(values)
        states.append(state)
    search.finish(np.concatenate(logs, axis=1), np.concatenate(logprobs, axis=1))
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return states[0].join(states[1:]).select(places)


def _greedy_part(
    network: StepwiseNetwork,
    transfer: Transfer,
    search: GreedySearch,
    utterances: list[DeviceArray],
    some: np.ndarray,
    start: Any,
) -> tuple[np.ndarray, np.ndarray, Any]:
    """Decode N utterances of the batch, ``some``.

    Returns
    -------
    int32 [4, M] what was emitted: utterance from 0 to N - 1, token, frame, duration; float32 [2, M] log-probs; and the
    states that the N utterances end in.
    """
    cupy = import_cupy()
    spec, card = search.spec, network.card
    frame, symbols, lengths = search.positions[:, some]
    count = len(some)
    first = first_frames(lengths).astype(np.int32)
    waiting = np.flatnonzero(frame < lengths)
    wanted = np.zeros(len(waiting), WANTED)
    wanted["slot"] = wanted["utterance"] = waiting
    wanted["frame"] = first[waiting] + frame[waiting]
    requests = Requests(max(count, 1), wanted)
    workspace = network.workspace(
        start, np.arange(count), count, network.frames(utterances, lengths), max(count, 1)
    )
    decisions, logprobs = cupy.empty((2, count), np.int32), cupy.empty((2, count), np.float32)
    places = cupy.asarray(np.stack([frame, symbols]))
    capacity = int(np.sum(lengths - np.minimum(frame, lengths), dtype=np.int64)) + count
    log, log_logprobs = cupy.empty((4, capacity), np.int32), cupy.empty((2, capacity), np.float32)
    layout, kept = row_layout(spec.layout)
    search_at = transfer.put(
        filled(
            GREEDY_STEPS, options=search.options, blank=spec.blank, rows=count,
            decisions=decisions, logprobs=logprobs, lengths=transfer.put(lengths.astype(np.int32)),
            first_frames=transfer.put(first), frames=places[0], symbols=places[1], capacity=capacity, log=log,
            log_logprobs=log_logprobs, logged=requests.flags,
        )  # fmt: skip
    )
    layout_at = transfer.put(layout)
    masks_at = transfer.put(put_masks(search.masks.select(some), transfer))
    transfer.send()
    decide = (
        np.int32(count), np.uint64(requests.address), np.uint64(layout_at),
        np.uint64(search_at + offset_of(GREEDY_STEPS, "options")), np.uint64(masks_at), decisions, logprobs,
    )  # fmt: skip
    found, values = [np.empty((4, 0), np.int32)], [np.empty((2, 0), np.float32)]
    pending = len(waiting)
    while pending:
        launched = min(count, 1 << (pending - 1).bit_length())  # powers of two: few numbers of rows, so few bindings
        for _ in range(network.rounds):
            logits = workspace.joint(requests, launched)
            kernels(card, "rows.cu").launch("decide_rows", launched, card.threads, (logits, *decide), _REDUCE_SHARED)
            arguments = (np.uint64(search_at), np.uint64(requests.address))
            kernels(card, "greedy.cu").launch("advance_greedy", 1, card.threads, arguments, _REDUCE_SHARED)
            workspace.predict(requests, launched)
        words = requests.fetch()
        pending, (logged, full) = int(words[1]), words[-2:]
        if full or not pending:
            found.append(cupy.asnumpy(log)[:, :logged])
            values.append(cupy.asnumpy(log_logprobs)[:, :logged])
            requests.words[-2:] = 0
    search.positions[:2, some] = cupy.asnumpy(places)
    del kept
    return np.concatenate(found, axis=1), np.concatenate(values, axis=1), workspace.state(np.arange(count))


def run_beam(
    network: StepwiseNetwork,
    search: BeamSearch,
    utterances: Sequence[DeviceArray],
    start: Any,
    places: np.ndarray,
    final: bool,
) -> Any:
    """Run a beam search to its end; parameters and result are those of `Program.beam`."""
    check_beam(search)
    together = max(1, network.max_rows // search.size)

    def decode(some: list[DeviceArray], places: np.ndarray, start: Any) -> tuple[Any, np.ndarray]:
        room = 16 * 1024 + 64 * len(some) + 8 * len(start) + mask_bytes(search.masks)
        with transfers(network.card).taken(room) as transfer:
            return _beam_part(network, transfer, search, some, places, start)

    return decode_in_parts(decode, search, utterances, start, places, final, together)


def _beam_part(
    network: StepwiseNetwork,
    transfer: Transfer,
    search: BeamSearch,
    utterances: list[DeviceArray],
    some: np.ndarray,
    start: Any,
) -> tuple[Any, np.ndarray]:
    """Decode some utterances of the batch; the others are as for ``decode`` in `decode_in_parts`."""
    cupy = import_cupy()
    spec, card = search.spec, network.card
    lengths = search.lengths[some]
    layout, kept = row_layout(spec.layout)
    beams = DeviceBeams(search, some, layout, first_frames(lengths))
    launched = len(some) * beams.rows
    requests = Requests(launched)
    workspace = network.workspace(
        start, beams.start_slots, len(some) * beams.slots, network.frames(utterances, lengths), launched
    )
    scratch = cupy.empty((card.multiprocessors if search.fusions else 0, spec.vocab_size + 1), np.float32)
    module = kernels(card, "beam.cu", beams.defines)
    while True:
        transfer.clear()
        beams.put(transfer)
        search_at = np.uint64(transfer.put(beams.struct))
        slots = np.uint64(transfer.put(beams.start_slots))
        transfer.send()
        if search.fusions and not beams.scored:
            arguments = (search_at, slots, np.int32(len(beams.start_slots)), scratch)
            kernels(card, "fusion.cu").launch("score_slots", card.multiprocessors, card.threads, arguments)
            beams.scored = True
        pending = 1
        asked = np.uint64(requests.address)
        while pending:
            for _ in range(network.rounds):
                requests.clear()
                module.launch("advance_beams", len(some), card.threads, (search_at, asked), _BEAM_SHARED)
                workspace.predict(requests, launched)
                if search.fusions:
                    module.launch("score_requests", card.multiprocessors, card.threads, (search_at, asked, scratch))
                logits = workspace.joint(requests, launched)
                module.launch("rank_rows", launched, card.threads, (search_at, asked, logits), _BEAM_SHARED)
            pending = int(requests.fetch()[1])
        if not beams.make_room():
            del kept
            used = beams.finish()
            return workspace.state(used), np.bincount(used // beams.slots, minlength=len(some))
