"""The beams of a `BeamSearch` on the device: they are copied there, decoded, and copied back.

During the decode hypotheses, records and the fusions' states stay on the device, where ``csrc/cuda/beam.cuh`` advances
them. The CPU's engine does what happens once per chunk: it ranks the results, and settles the tokens that can no longer
change.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...cuda.device import current_device, import_cupy
from ...cuda.kernels import Defines
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
    put_masks,
)
from ...errors import InputError
from ...fusion.binding import BoundFusion
from ...kernels.beam_state import BeamState
from ...options import Strategy

if TYPE_CHECKING:
    from ...cuda.arrays import DeviceArray
    from ...cuda.transfer import Transfer
    from ...kernels import BeamSearch

MAX_ENTRIES = 8192
"""Most hypotheses that one step of a beam may have to choose from. Each of them is compared with all others."""

_TABLES = ("first_arc", "arc_token", "arc_weight", "arc_target", "backoff_state", "backoff_weight")
_SCORES = ("score", "best")
_NUMBERS = ("frame", "symbols", "length", "record", "slot", "parent", "token")
_RECORDED = ("previous", "token", "frame", "duration")
_LOGPROBS = ("token_logprob", "duration_logprob", "statistic")
_RECORDS_PER_FRAME = 2
"""Memory is made for so many records for each frame and hypothesis. If that is not enough, the host makes room for more
and the search goes on."""

_automata: weakref.WeakKeyDictionary[Any, dict[int, tuple[Any, ...]]] = weakref.WeakKeyDictionary()


class DeviceBeams:
    """The beams of some utterances of a batch.

    Parameters
    ----------
    search:
        The search over the whole batch, before it begins.
    some:
        int [N]: which utterances of the batch.
    layout:
        `structs.ROW_LAYOUT`.
    first_frames:
        int [N]: where the frames of each of these utterances begin among the frames of all N.
    rows:
        Joint rows of a round that all N may ask for together beyond those that they need at once.

    Attributes
    ----------
    slots:
        Number of slots for predictor states that each utterance has.
    defines:
        The macros with which the kernels of this search are compiled.
    rows:
        Most joint rows that a beam asks for in a round.
    state_counts:
        int [N]: how many predictor states each beam begins with.
    struct:
        `structs.BEAM_SEARCH` [1], complete after `put`.
    scored:
        Whether the fusions' scores at `start_slots` have been computed. The caller sets it.

    Raises
    ------
    InputError
        If the beam is larger than the kernels take, or a user's function steers it.
    """

    def __init__(
        self, search: BeamSearch, some: np.ndarray, layout: np.ndarray, first_frames: np.ndarray, rows: int = 1
    ):
        cupy = import_cupy()
        spec = search.spec
        self._search, self._some = search, some
        batch = len(some)
        self.slots = search.slots_per_utterance
        self.defines: Defines = (("TDT_STRATEGY", Strategy(search.kernel_options["strategy"]).name.lower()),)
        hypotheses, ranks = self.slots // 2, min(search.size, spec.vocab_size)
        self.rows = max(search.size, min(hypotheses, rows // batch))
        most = max(most_entries(search), 2 * self.rows)
        check_beam(search)
        self._states = []
        for utterance in some.tolist():
            scores, prefixes, numbers, records, logprobs, fusion, first_frame, used = search.engine.close(utterance)
            state = BeamState(scores, prefixes, numbers, records, logprobs, fusion, first_frame, states=len(used))
            self._states.append(state)
        self.state_counts = np.array([state.states for state in self._states])
        self._lengths = search.lengths[some]

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
            "blank_logprobs": cupy.empty(places * len(spec.layout.blank_frames), np.float32),
            "bonus": cupy.empty((batch * self.slots if fusions else 0, entries), np.float32),
            "fusion_states": self._fusion_states,
            "counts": self._counts,
            "beams": self._beams,
            "records": self._records,
        }
        self.struct = filled(
            BEAM_SEARCH, options=search.kernel_options, layout=layout, utterances=batch, hypotheses=hypotheses,
            slots=self.slots, ranks=ranks, max_entries=most, capacity=self._capacity, rows=self.rows,
            fusions=len(fusions), **self._memory,
        )  # fmt: skip
        self._first_frames = first_frames
        self.scored = False

    def put(self, transfer: Transfer) -> None:
        """Add the arrays that kernels only read to a transfer."""
        offsets = np.array([state.first_frame for state in self._states], np.int32)
        for name, array in (("lengths", self._lengths), ("first_frames", self._first_frames), ("offsets", offsets)):
            self.struct[name] = transfer.put(array.astype(np.int32))
        self.struct["masks"] = put_masks(self._search.masks.select(self._some), transfer)
        automata = np.zeros(max(len(self._tables), 1), AUTOMATON)
        for record, fusion, tables in zip(automata, self._search.fusions, self._tables):
            for name, table in zip(_TABLES, tables):
                record[name] = address(table)
            record["weight"] = fusion.weight
        self.struct["automata"] = transfer.put(automata)

    @property
    def start_slots(self) -> np.ndarray:
        """int32 [S]: slots of the S predictor states that the beams begin with, numbered through all N utterances."""
        parts = [i * self.slots + np.arange(count) for i, count in enumerate(self.state_counts)]
        return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int32)

    def make_room(self) -> bool:
        """If a beam has no room left for records, double the room of all beams. Returns whether it did."""
        cupy = import_cupy()
        if not cupy.asnumpy(self._counts)[:, 3].any():
            return False
        old, self._capacity = self._capacity, 2 * self._capacity
        grown = cupy.empty((len(self._some), self._capacity, self._records.shape[2]), np.int32)
        grown[:, :old] = self._records
        self._records = grown
        self.struct["records"], self.struct["capacity"] = address(grown), self._capacity
        return True

    def finish(self) -> np.ndarray:
        """Copy the beams back to the search.

        Returns
        -------
        int64 [S]: slots of the S predictor states that the beams need to go on, utterance by utterance.
        """
        cupy = import_cupy()
        counts = cupy.asnumpy(self._counts)
        beams = cupy.asnumpy(self._beams).view(HYPOTHESIS).reshape(len(self._some), 2, -1)
        most = int(counts[:, 2].max(initial=0))
        records = cupy.asnumpy(self._records[:, :most]).view(RECORD).reshape(len(self._some), most)
        fusion_states = cupy.asnumpy(self._fusion_states)
        used = [np.empty(0, np.int64)]
        for i, (utterance, state) in enumerate(zip(self._some, self._states)):
            beam = beams[i, counts[i, 1], : counts[i, 0]]
            numbers = np.stack([beam[name] for name in _NUMBERS]).astype(np.int32)
            # The engine numbers slots in the order in which the hypotheses first name them.
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
            self._search.engine.restore(int(utterance), after)
            used.append(i * self.slots + np.array(kept, np.int64))
        return np.concatenate(used)


def decode_in_parts(
    decode: Callable[[list[DeviceArray], np.ndarray, Any], tuple[Any, np.ndarray]],
    search: BeamSearch,
    utterances: Sequence[DeviceArray],
    start: Any,
    places: np.ndarray,
    final: bool,
    together: int,
) -> Any:
    """Decode B utterances in parts of at most ``together``, those of similar length in one part.

    Parameters
    ----------
    decode:
        Decodes the N utterances of a part. It takes their encoder output [E, T], int [N] which utterances of the batch
        they are, and the predictor states of their beams. It returns the states that the beams need to go on, utterance
        by utterance, and int [N] how many states each has.
    search, utterances, start, places, final:
        As for `Program.beam`.
    together:
        Most utterances of a part.

    Returns
    -------
    The states that the beams need to go on, utterance by utterance; none if ``final``.
    """
    order = np.argsort(-search.lengths, kind="stable")
    parts = []
    counts = np.zeros(len(order), np.int64)
    decoded = []
    for first in range(0, len(order), together):
        some = np.sort(order[first : first + together])
        index = np.concatenate([np.arange(places[i], places[i + 1]) for i in some])
        states, counts[some] = decode([utterances[i] for i in some], some, start.select(index))
        if not final:
            parts.append(states)
            decoded.append(some)
    if final:
        return start.select(np.empty(0, np.int64))
    if len(parts) == 1:
        return parts[0]  # already in the order of the batch
    joined, order = parts[0].join(parts[1:]), np.concatenate(decoded)
    ends = np.empty(len(order), np.int64)
    ends[order] = np.cumsum(counts[order])
    return joined.select(np.concatenate([np.arange(end - count, end) for end, count in zip(ends, counts)]))


def most_entries(search: BeamSearch) -> int:
    """Most hypotheses that one step of a beam may have to choose from.

    For ``"tsd"`` they are the hypotheses that wait and every extension of the others. For ``"malsd"`` they are `size`
    extensions of each of `size` hypotheses.
    """
    spec, size = search.spec, search.size
    ways = (min(size, spec.vocab_size) + 1 + len(spec.big_blanks)) * max(spec.num_durations, 1)
    return max(search.slots_per_utterance // 2 + size * ways, size**2)


def check_beam(search: BeamSearch) -> None:
    """Raise InputError if the device's kernels cannot run a search."""
    most = most_entries(search)
    if most > MAX_ENTRIES:
        raise InputError(
            f"a beam of {search.size} may have to choose from {most} hypotheses in one step, and {MAX_ENTRIES} is the "
            "limit on cuda: make the beam smaller, or use device='cpu'"
        )
    if any(fusion.automaton is None for fusion in search.fusions):
        raise InputError(
            "ScoringFunction runs only on the CPU: use NgramLM or PhraseBoost, or a decoder with device='cpu'"
        )


def _fill(structs: np.ndarray, names: tuple[str, ...], columns: tuple[np.ndarray, ...]) -> None:
    for name, column in zip(names, columns, strict=True):
        structs[name][: len(column)] = column


def _on_device(structs: np.ndarray) -> Any:
    return import_cupy().asarray(structs.view(np.uint8).reshape(-1))


def _on_this_device(fusion: BoundFusion) -> tuple[Any, ...]:
    """An automaton's tables on the current device. They are copied there once."""
    automaton, device = fusion.automaton, current_device().index
    asarray = import_cupy().asarray
    devices = _automata.setdefault(automaton, {})
    if device not in devices:
        devices[device] = tuple(asarray(np.ascontiguousarray(getattr(automaton, name))) for name in _TABLES)
    return devices[device]
