"""Beams on the device: what `BeamSearch` begins with goes there, and what comes of it goes back.

Between the two, hypotheses, records and fusions' states stay on the device; ``csrc/cuda/beam.cuh`` moves them on. What
happens once per chunk, ranking the results and settling what can no longer change, is the CPU engine's.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...cuda.device import current_device, import_cupy
from ...cuda.structs import (
    ASKING_BYTES,
    AUTOMATON,
    BEAM_SEARCH,
    ENTRY_BYTES,
    HYPOTHESIS,
    PAIR_BYTES,
    RANKED_BYTES,
    RECORD,
    address,
    filled,
)
from ...errors import InputError
from ...fusion.binding import BoundFusion
from ...kernels.beam_state import BeamState

if TYPE_CHECKING:
    from ...cuda.arrays import DeviceArray
    from ...cuda.upload import Upload
    from ...kernels import BeamSearch

MAX_ENTRIES = 8192
"""Hypotheses that one step of a beam may have to choose from: each is compared with all others."""

_TABLES = ("first_arc", "arc_token", "arc_weight", "arc_target", "backoff_state", "backoff_weight")
_SCORES = ("score", "best")
_NUMBERS = ("frame", "symbols", "length", "record", "slot", "parent", "token")
_RECORDED = ("previous", "token", "frame", "duration")
_LOGPROBS = ("token_logprob", "duration_logprob", "statistic")
_RECORDS_PER_FRAME = 2
"""For each hypothesis: where it is not enough the host makes room and the search goes on."""

_automata: weakref.WeakKeyDictionary[Any, dict[int, tuple[Any, ...]]] = weakref.WeakKeyDictionary()


class DeviceBeams:
    """The beams of some utterances of a batch.

    Parameters
    ----------
    search:
        The batch's search, not yet begun.
    rows:
        Which utterances of it.
    layout:
        `structs.ROW_LAYOUT`, on the device.
    first_frames:
        Where the frames of each of these utterances begin among all.

    Raises
    ------
    InputError
        If the beam is larger than the kernels take, or is steered by a user's function.
    """

    def __init__(self, search: BeamSearch, rows: np.ndarray, layout: np.ndarray, first_frames: np.ndarray):
        cupy = import_cupy()
        spec = search.spec
        self._search, self._rows = search, rows
        batch = len(rows)
        self.slots = search.slots_per_utterance
        self.size = search.size
        hypotheses, ranks = self.slots // 2, min(search.size, spec.vocab_size)
        most = most_entries(search)
        check_beam(search)
        self._states = []
        for row in rows.tolist():
            scores, prefixes, numbers, records, logprobs, fusion, first_frame, used = search.engine.close(row)
            state = BeamState(scores, prefixes, numbers, records, logprobs, fusion, first_frame, states=len(used))
            self._states.append(state)
        self.state_counts = np.array([state.states for state in self._states])
        self._lengths = search.lengths[rows]

        beams = np.zeros((batch, 2, hypotheses), HYPOTHESIS)
        counts = np.zeros((batch, 4), np.int32)
        recorded = max((state.records.shape[1] for state in self._states), default=0)
        frames = int(self._lengths.max(initial=0))
        self._capacity = recorded + (_RECORDS_PER_FRAME * frames + 4) * hypotheses
        records_at_start = np.zeros((batch, recorded), RECORD)
        fusions = search.fusions
        fusion_states = np.zeros((batch, self.slots, len(fusions)), np.int64)
        for i, state in enumerate(self._states):
            counts[i, 0], counts[i, 2] = len(state.prefixes), state.records.shape[1]
            _fill(beams[i, 0], (*_SCORES, "prefix", *_NUMBERS), (*state.scores, state.prefixes, *state.numbers))
            beams[i, 0]["place"] = -1
            _fill(records_at_start[i], (*_RECORDED, *_LOGPROBS), (*state.records, *state.logprobs))
            if fusions:
                fusion_states[i, : state.states] = state.fusion
        self._counts, self._beams = cupy.asarray(counts), _on_device(beams)
        self._records = cupy.empty((batch, self._capacity, RECORD.itemsize // 4), np.int32)
        if recorded:
            self._records[:, :recorded] = cupy.asarray(records_at_start.view(np.int32).reshape(batch, recorded, -1))
        self._fusion_states = cupy.asarray(fusion_states)
        self._tables = [_on_this_device(fusion) for fusion in fusions]
        entries = spec.vocab_size + 1
        places = batch * hypotheses
        self._memory = {
            "entries": cupy.empty(batch * most * ENTRY_BYTES, np.uint8),
            "marks": cupy.empty(batch * most, np.int32),
            "pairs": cupy.empty(batch * most * PAIR_BYTES, np.uint8),
            "asking": cupy.empty(places * ASKING_BYTES, np.uint8),
            "ranked": cupy.empty(places * RANKED_BYTES, np.uint8),
            "tokens": cupy.empty(places * ranks, np.int32),
            "token_logprobs": cupy.empty(places * ranks, np.float32),
            "duration_logprobs": cupy.empty(places * max(spec.num_durations, 1), np.float32),
            "bonus": cupy.empty((batch * self.slots if fusions else 0, entries), np.float32),
            "fusion_states": self._fusion_states,
            "counts": self._counts,
            "beams": self._beams,
            "records": self._records,
        }
        self.struct = filled(
            BEAM_SEARCH, options=search.kernel_options, layout=layout, utterances=batch, hypotheses=hypotheses,
            slots=self.slots, ranks=ranks, max_entries=most, capacity=self._capacity, fusions=len(fusions),
            **self._memory,
        )  # fmt: skip
        self._first_frames = first_frames
        self.scored = False

    def put(self, upload: Upload) -> None:
        """Put what the kernels only read into an upload."""
        offsets = np.array([state.first_frame for state in self._states], np.int32)
        for name, array in (("lengths", self._lengths), ("first_frames", self._first_frames), ("offsets", offsets)):
            self.struct[name] = upload.put(array.astype(np.int32))
        automata = np.zeros(max(len(self._tables), 1), AUTOMATON)
        for record, fusion, tables in zip(automata, self._search.fusions, self._tables):
            for name, table in zip(_TABLES, tables):
                record[name] = address(table)
            record["weight"] = fusion.weight
        self.struct["automata"] = upload.put(automata)

    @property
    def start_slots(self) -> np.ndarray:
        """int32 [N]: the slots of the predictor states that the beams begin with, counted through these beams."""
        parts = [i * self.slots + np.arange(count) for i, count in enumerate(self.state_counts)]
        return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int32)

    def make_room(self) -> bool:
        """Double the room for records where a beam has none left; whether there was one."""
        cupy = import_cupy()
        if not cupy.asnumpy(self._counts)[:, 3].any():
            return False
        old, self._capacity = self._capacity, 2 * self._capacity
        grown = cupy.empty((len(self._rows), self._capacity, self._records.shape[2]), np.int32)
        grown[:, :old] = self._records
        self._records = grown
        self.struct["records"], self.struct["capacity"] = address(grown), self._capacity
        return True

    def finish(self) -> np.ndarray:
        """Give the search what the beams have found.

        Returns
        -------
        int64 [N]: the slots of the predictor states to go on from, utterance by utterance.
        """
        cupy = import_cupy()
        counts = cupy.asnumpy(self._counts)
        beams = cupy.asnumpy(self._beams).view(HYPOTHESIS).reshape(len(self._rows), 2, -1)
        most = int(counts[:, 2].max(initial=0))
        records = cupy.asnumpy(self._records[:, :most]).view(RECORD).reshape(len(self._rows), most)
        fusion_states = cupy.asnumpy(self._fusion_states)
        used = [np.empty(0, np.int64)]
        for i, (row, state) in enumerate(zip(self._rows, self._states)):
            beam = beams[i, counts[i, 1], : counts[i, 0]]
            numbers = np.stack([beam[name] for name in _NUMBERS]).astype(np.int32)
            # Slots in the order in which hypotheses name them first, as the engine numbers them.
            slots = np.where(beam["slot"] >= 0, beam["slot"], beam["parent"])
            kept = list(dict.fromkeys(slots.tolist()))
            places = np.array([kept.index(slot) for slot in slots.tolist()], np.int32)
            known = beam["slot"] >= 0
            numbers[_NUMBERS.index("slot")] = np.where(known, places, -1)
            numbers[_NUMBERS.index("parent")] = np.where(known, 0, places)
            numbers[_NUMBERS.index("frame")] -= self._lengths[i]
            found = records[i, : counts[i, 2]]
            after = BeamState(
                np.stack([beam[name] for name in _SCORES]),
                beam["prefix"].copy(),
                numbers,
                np.stack([found[name] for name in _RECORDED]),
                np.stack([found[name] for name in _LOGPROBS]),
                fusion_states[i, kept],
                state.first_frame + int(self._lengths[i]),
                len(kept),
            )
            self._search.engine.restore(int(row), after)
            used.append(i * self.slots + np.array(kept, np.int64))
        return np.concatenate(used)


def decode_in_parts(
    decode: Callable[[list[DeviceArray], np.ndarray, Any], tuple[Any, np.ndarray]],
    search: BeamSearch,
    rows: Sequence[DeviceArray],
    start: Any,
    places: np.ndarray,
    final: bool,
    together: int,
) -> Any:
    """Decode B utterances, at most ``together`` at a time, those of similar length together.

    ``decode`` takes their encoder output, their places in the batch and the states of their beams; those of utterance i
    lie in ``start`` from ``places[i]`` on. It returns the states that the beams end with, utterance by utterance, and
    how many each has.

    Returns
    -------
    The states that the beams end with, utterance by utterance; none if ``final``.
    """
    order = np.argsort(-search.lengths, kind="stable")
    parts = []
    counts = np.zeros(len(order), np.int64)
    decoded = []
    for first in range(0, len(order), together):
        some = np.sort(order[first : first + together])
        index = np.concatenate([np.arange(places[i], places[i + 1]) for i in some])
        states, counts[some] = decode([rows[i] for i in some], some, start.select(index))
        if not final:
            parts.append(states)
            decoded.append(some)
    if final:
        return start.select(np.empty(0, np.int64))
    if len(parts) == 1:
        return parts[0]  # in the order of the batch as it is
    joined, order = parts[0].join(parts[1:]), np.concatenate(decoded)
    ends = np.empty(len(order), np.int64)
    ends[order] = np.cumsum(counts[order])
    return joined.select(np.concatenate([np.arange(end - count, end) for end, count in zip(ends, counts)]))


def most_entries(search: BeamSearch) -> int:
    """Hypotheses that one step of a beam may have to choose from: those that wait and all ways to extend the others, or
    as many of each as a beam keeps."""
    spec, size = search.spec, search.size
    ways = (min(size, spec.vocab_size) + 1) * max(spec.num_durations, 1)
    return max(search.slots_per_utterance // 2 + size * ways, size**2)


def check_beam(search: BeamSearch) -> None:
    """InputError if a search is not one that the device's kernels run."""
    most = most_entries(search)
    if most > MAX_ENTRIES:
        raise InputError(
            f"a beam of {search.size} may have {most} hypotheses to choose from in one step, "
            f"{MAX_ENTRIES} is the most on cuda: make the beam smaller, or use device='cpu'"
        )
    if any(fusion.automaton is None for fusion in search.fusions):
        raise InputError(
            "ScoringFunction runs on the cpu alone: use NgramLM or PhraseBoost, or a decoder with device='cpu'"
        )


def _fill(structs: np.ndarray, names: tuple[str, ...], columns: tuple[np.ndarray, ...]) -> None:
    for name, column in zip(names, columns, strict=True):
        structs[name][: len(column)] = column


def _on_device(structs: np.ndarray) -> Any:
    return import_cupy().asarray(structs.view(np.uint8).reshape(-1))


def _on_this_device(fusion: BoundFusion) -> tuple[Any, ...]:
    """An automaton's tables on the device, brought there once."""
    automaton, device = fusion.automaton, current_device().index
    asarray = import_cupy().asarray
    devices = _automata.setdefault(automaton, {})
    if device not in devices:
        devices[device] = tuple(asarray(np.ascontiguousarray(getattr(automaton, name))) for name in _TABLES)
    return devices[device]
