"""Beam search over a batch in Python: the specification of the engine behind `BeamSearch`.

This module runs the steps, which are in `beam_steps`. The compiled engine (``csrc/cpu/beam.h``) has the same methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np

from ..allowed import Masks
from ..fusion.binding import BoundFusion
from ..transducer import RowLayout
from . import beam_steps
from .beam_state import BeamState, FusionError

Chain = tuple[np.ndarray, np.ndarray]
"""A token sequence: int32 [3, n] tokens, frames and durations; float32 [3, n] log-probs of tokens and of durations, and
the statistics of their joint rows."""


class BeamEngine:
    """The beams of B utterances.

    Parameters
    ----------
    layout:
        The layout of joint rows.
    options:
        `tdtdecode.options.BEAM_OPTIONS`.
    fusions:
        The fusions of the search, bound to the vocabulary.
    masks:
        The tokens that each utterance may emit.
    batch:
        B.
    trace:
        Whether to keep what `trace` returns.

    Attributes
    ----------
    slots:
        The number of predictor states that one beam may need at once.
    """

    steps: ModuleType = beam_steps

    def __init__(
        self,
        layout: RowLayout,
        options: np.void,
        fusions: Sequence[BoundFusion],
        masks: Masks,
        batch: int,
        trace: bool = False,
    ):
        vocab_size, self.blank, blank_frames, durations = layout
        reach = int(max([*blank_frames, *durations])) + 1 if options["strategy"] == beam_steps.TSD else 1
        self.hypotheses = int(options["size"]) * reach
        self.slots = 2 * self.hypotheses
        self.entries = vocab_size + 1
        self.layout = layout
        self.ways = (min(int(options["size"]), vocab_size) + len(blank_frames)) * max(len(durations), 1)
        self.fusions = tuple(fusions)
        self.ranks = min(int(options["size"]), vocab_size)
        self.options = options
        self.traced = trace
        masked = [masks.table[number] if number >= 0 else np.empty(0, np.uint8) for number in masks.numbers[:batch]]
        self._beams = [_Beam(self, mask) for mask in masked]

    def start(self, utterance: int, fusion_state: np.ndarray) -> None:
        """Begin an utterance with the empty hypothesis, whose predictor state is in slot 0.

        ``fusion_state`` is int64 [k], the fusions' states before the first token.
        """
        beam = self._beams[utterance]
        beam.count, beam.recorded, beam.first_frame = 1, 0, 0
        beam.hypotheses[0] = (0, 0, beam_steps.EMPTY_PREFIX, 0, 0, 0, -1, 0, -1, -1, -1)
        beam.fusion_states = np.asarray(fusion_state, np.int64)[None]

    def restore(self, utterance: int, state: BeamState) -> None:
        """Go on from the beam that `close` returned. Its predictor state i is in slot i."""
        beam = self._beams[utterance]
        beam.count, beam.recorded, beam.first_frame = len(state.prefixes), state.records.shape[1], state.first_frame
        beam.grow(beam.recorded)
        hypotheses = dict(zip((*_SCORES, "prefix", *_NUMBERS), (*state.scores, state.prefixes, *state.numbers)))
        for name, column in hypotheses.items():
            beam.hypotheses[name][: beam.count] = column
        beam.hypotheses["place"] = -1
        for name, column in zip((*_RECORDED, *_LOGPROBS), (*state.records, *state.logprobs)):
            beam.records[name][: beam.recorded] = column
        beam.fusion_states = state.fusion

    def open(self, lengths: np.ndarray) -> None:
        """Begin a chunk. ``lengths`` is int32 [B], its frames of each utterance.

        Raises
        ------
        FusionError
            Here and in `request`, if a user's function fails.
        """
        for beam, length in zip(self._beams, lengths):
            beam.open(int(length))

    def request(self) -> tuple[np.ndarray, np.ndarray]:
        """Move on as far as the ranked rows allow, then list what is needed next.

        Returns
        -------
        int32 [3, P]: for every predictor step, the parent's slot, the token, and the slot for the new state. int32
        [3, N]: for every joint row, the slot, the utterance and the frame. Slots are counted through the batch: those
        of utterance i begin at ``i * slots``.
        """
        predictions, scorings = [np.empty((3, 0), np.int32)], [np.empty((3, 0), np.int32)]
        for utterance, beam in enumerate(self._beams):
            beam.request()
            offset = utterance * self.slots
            parent, token, slot = beam.predictions.T
            predictions.append(np.stack([parent + offset, token, slot + offset]))
            slot, frame, _ = beam.scorings.T
            scorings.append(np.stack([slot + offset, np.full_like(slot, utterance), frame]))
        return np.concatenate(predictions, axis=1), np.concatenate(scorings, axis=1)

    def answer(self, rows: np.ndarray) -> None:
        """Take the joint rows that `request` listed, float32 [N, V + B + D] in that order."""
        answered = 0
        for beam in self._beams:
            for slot, _, place in beam.scorings:
                beam.rank(slot, place, rows[answered])
                answered += 1

    def results(self, utterance: int, nbest: int) -> list[tuple[float, np.ndarray, np.ndarray]]:
        """At most ``nbest`` hypotheses of an utterance as (score, *chain), best first."""
        beam = self._beams[utterance]
        return [(score, *beam.chain(record)) for score, record, _ in beam.results()[:nbest]]

    def trace(self, utterance: int) -> tuple[np.ndarray, np.ndarray]:
        """All candidates of an utterance's chunk.

        Returns
        -------
        The candidates in the order of the search, `beam_steps.CANDIDATE`; and int32 [n], the candidate that each
        hypothesis of the n-best list ends with.
        """
        beam = self._beams[utterance]
        ends = [beam.beam[hypothesis] for _, _, hypothesis in beam.results()]
        return np.concatenate([np.empty(0, beam_steps.CANDIDATE), *beam.traced]), np.array(ends, np.int32)

    def settled(self, utterance: int) -> Chain:
        """The tokens that all hypotheses of an utterance share."""
        beam = self._beams[utterance]
        return beam.chain(beam.settled())

    def close(self, utterance: int) -> tuple:
        """End an utterance's chunk.

        Returns
        -------
        The arrays of a `BeamState`, its first frame, and int [n], the slots of its predictor states.
        """
        return self._beams[utterance].close()


_SCORES = ("score", "best")
_NUMBERS = ("frame", "symbols", "length", "record", "slot", "parent", "token")
_RECORDED = ("previous", "token", "frame", "duration")
_LOGPROBS = ("token_logprob", "duration_logprob", "statistic")


class _Beam:
    """One utterance's beam.

    A slot has all that depends on the tokens alone: the predictor state, the fusions' states and the scores of the next
    tokens. So hypotheses with the same tokens share a slot.
    """

    def __init__(self, engine: BeamEngine, mask: np.ndarray):
        self.engine, self.mask = engine, mask
        capacity = engine.hypotheses
        size = int(engine.options["size"])
        self.count = self.recorded = self.first_frame = self.length = 0
        self.hypotheses, self.following = (np.zeros(capacity, beam_steps.HYPOTHESIS) for _ in range(2))
        self.records = np.zeros(64, beam_steps.RECORD)
        self.entries = np.zeros(capacity + size * engine.ways + 1, beam_steps.ENTRY)
        self.candidates = np.zeros(len(self.entries) if engine.traced else 0, beam_steps.CANDIDATE)
        self.traced: list[np.ndarray] = []
        self.beam = np.empty(0, np.intp)  # the candidate of each hypothesis, if the search is traced
        self.pairs = np.zeros((4, engine.ways))
        self.ranked = np.zeros(capacity, beam_steps.RANKED)
        self.tokens = np.zeros((capacity, engine.ranks), np.int32)
        self.token_logprobs = np.zeros((capacity, engine.ranks), np.float32)
        self.duration_logprobs = np.zeros((capacity, len(engine.layout.durations)), np.float32)
        self.blank_logprobs = np.zeros((capacity, len(engine.layout.blank_frames)), np.float32)
        self.fusion_states = np.zeros((0, 0), np.int64)
        self.bonus = np.zeros((engine.slots, engine.entries if engine.fusions else 0), np.float32)
        self.predictions, self.scorings = (np.zeros((0, 3), np.int32) for _ in range(2))
        self._requests = np.zeros((2, capacity, 3), np.int32)

    def grow(self, records: int) -> None:
        while len(self.records) < records:
            self.records = np.concatenate([self.records, np.zeros_like(self.records)])

    def open(self, length: int) -> None:
        self.length = length
        self.traced, self.beam = [], np.full(self.count, -1)
        known = self.fusion_states
        self.fusion_states = np.zeros((self.engine.slots, known.shape[1]), np.int64)
        self.fusion_states[: len(known)] = known
        for slot in range(len(known)):
            self._score_fusions(slot)

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")
    def request(self) -> None:
        engine, steps = self.engine, self.engine.steps
        strategy = int(engine.options["strategy"])
        while steps.ready(self.hypotheses, self.count, self.length, strategy):
            self._advance(strategy)
        predicted, scored = steps.request(
            self.hypotheses, self.count, self.records, self.length, engine.slots, *self._requests
        )
        self.predictions, self.scorings = self._requests[0, :predicted], self._requests[1, :scored]
        for parent, token, slot in self.predictions:
            self._advance_fusions(parent, token, slot)
            self._score_fusions(slot)

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")
    def rank(self, slot: int, place: int, row: np.ndarray) -> None:
        options = self.engine.options
        early = options["strategy"] == beam_steps.MALSD and options["prune_early"]
        self.engine.steps.rank_row(
            row, self.bonus[slot, :0] if early else self.bonus[slot], self.mask, options, self.engine.layout,
            self.ranked, place, self.tokens[place], self.token_logprobs[place], self.duration_logprobs[place],
            self.blank_logprobs[place],
        )  # fmt: skip

    def _advance(self, strategy: int) -> None:
        engine, steps = self.engine, self.engine.steps
        rows = self.ranked, self.tokens, self.token_logprobs, self.duration_logprobs
        scored = *rows, self.blank_logprobs, self.bonus, self.entries, self.candidates
        beam = engine.layout, self.length, self.hypotheses, self.count, self.records
        if strategy == beam_steps.GREEDY:
            written, listed = steps.advance_greedy(engine.options, engine.layout, self.hypotheses, *scored)
        elif strategy == beam_steps.TSD:
            written, listed = steps.advance_tsd(engine.options, *beam, *scored)
        else:
            written, listed = steps.advance_malsd(engine.options, *beam, *scored, self.pairs)
        if engine.traced:
            self._keep_candidates(written, listed)
        self.grow(self.recorded + written)
        self.recorded = steps.commit(
            self.entries, written, self.hypotheses, self.following, self.records, self.recorded, *rows,
            engine.layout.durations, self.first_frame,
        )  # fmt: skip
        self.count = written
        self.hypotheses, self.following = self.following, self.hypotheses

    def _keep_candidates(self, written: int, listed: int) -> None:
        """Number a step's candidates through the search, and mark those that became entries."""
        step, first = self.candidates[:listed].copy(), sum(map(len, self.traced))
        entries = self.entries["candidate"][:written].astype(np.intp)
        step["kept"][entries] = 1
        step["step"] = len(self.traced)
        step["parent"] = self.beam[step["parent"]]
        step["frame"] += self.first_frame
        step["next_frame"] += self.first_frame
        step["alignment"] += first
        step["into"] += np.where(step["into"] >= 0, first, 0).astype(np.int32)
        self.traced.append(step)
        self.beam = first + entries

    def _advance_fusions(self, parent: int, token: int, slot: int) -> None:
        self.fusion_states[slot] = self._advanced(self.fusion_states[parent], token)

    def _advanced(self, states: np.ndarray, token: int) -> np.ndarray:
        """The fusions' states after a token."""
        after, first = np.zeros_like(states), 0
        for number, fusion in enumerate(self.engine.fusions):
            part = slice(first, first + fusion.state_size)
            first = part.stop
            if fusion.function is None:
                assert fusion.automaton is not None
                after[part] = fusion.automaton.step(int(states[part][0]), int(token))[1]
                continue
            try:
                fusion.function.source.advance(states[part].copy(), int(token), after[part])
            except Exception:
                raise FusionError(2, number, int(token), states[part].tolist()) from None
        return after

    def _score_fusions(self, slot: int) -> None:
        """Compute the weighted sum of all fusions' scores of the tokens that may follow the prefix in a slot."""
        total, first = np.zeros(self.bonus.shape[1], np.float32), 0
        blank = self.engine.blank
        for number, fusion in enumerate(self.engine.fusions):
            state = self.fusion_states[slot, first : first + fusion.state_size]
            first += fusion.state_size
            if fusion.function is None:
                assert fusion.automaton is not None
                total += np.float32(fusion.weight) * fusion.automaton.scores(int(state[0]), self.engine.entries)
                continue
            scores = np.zeros(self.engine.entries, np.float32)
            try:
                fusion.function.source.scores(state.copy(), scores)
            except Exception:
                raise FusionError(1, number, -1, state.tolist()) from None
            weighted = np.float32(fusion.weight) * scores
            weighted[blank] = 0
            if not (weighted < np.inf).all():
                raise FusionError(3, number, int(np.argmin(weighted < np.inf)), state.tolist())
            total += weighted
        if self.engine.fusions:
            total[blank] = 0
            self.bonus[slot] = total

    def results(self) -> list[tuple[float, int, int]]:
        """The hypotheses, best first: the score, the last record, and the number of the hypothesis that it is from."""
        strategy = self.engine.options["strategy"]
        found: list[list] = []  # score, best, record, hypothesis, number of the one with that record
        for number, h in enumerate(self.hypotheses[: self.count]):
            for other in found if strategy == beam_steps.TSD else ():  # the frame where one ended no longer matters
                if h["length"] == other[3]["length"] and beam_steps.same_tokens(
                    self.records, other[2], -1, h["record"], -1
                ):
                    other[0] = beam_steps.log_add(other[0], float(h["score"]))
                    if h["best"] > other[1]:
                        other[1], other[2], other[4] = h["best"], h["record"], number
                    break
            else:
                found.append([float(h["score"]), h["best"], h["record"], h, number])
        if strategy == beam_steps.TSD:
            for entry in found:
                entry[0] += self._final_score(entry[3])
        ranks = [
            -score / (h["length"] + 1) if strategy == beam_steps.MALSD else -score  # as NeMo ranks them
            for score, _, _, h, _ in found
        ]
        ordered = [found[i] for i in np.argsort(ranks, kind="stable")]
        return [
            (score, record, number)
            for i, (score, _, record, _, number) in enumerate(ordered)
            if not i or score > -np.inf
        ]

    def _final_score(self, h: np.void) -> float:
        """What the fusions add to a hypothesis's score if the utterance ends there."""
        states = self.fusion_states[h["slot"] if h["slot"] >= 0 else h["parent"]]
        total, first = 0.0, 0
        for fusion in self.engine.fusions:
            state = int(states[first])
            first += fusion.state_size
            if fusion.automaton is not None:
                if h["slot"] < 0:
                    state = fusion.automaton.step(state, int(h["token"]))[1]
                total += float(np.float32(fusion.weight)) * float(fusion.automaton.final_weight[state])
        return total

    def settled(self) -> int:
        chains = []
        for h in self.hypotheses[: self.count]:
            chain, record = [-1], int(h["record"])
            while record >= 0:
                chain.append(record)
                record = int(self.records[record]["previous"])
            chains.append(set(chain))
        return max(set.intersection(*chains))  # records point to lower indices

    def chain(self, record: int) -> Chain:
        found = []
        while record >= 0:
            found.append(record)
            record = int(self.records[record]["previous"])
        records = self.records[found[::-1]]
        numbers = np.array([records[name] for name in ("token", "frame", "duration")], np.int32)
        return numbers, np.array([records[name] for name in _LOGPROBS], np.float32)

    def close(self) -> tuple:
        root = self.settled()
        hypotheses = self.hypotheses[: self.count].copy()
        reached = set()
        for h in hypotheses:
            record = int(h["record"])
            while record != root:
                reached.add(record)
                record = int(self.records[record]["previous"])
        kept = sorted(reached)
        place = {record: i for i, record in enumerate(kept)}
        records = self.records[kept]
        records["previous"] = [place.get(int(record), -1) for record in records["previous"]]
        slots: list[int] = []
        for h in hypotheses:
            h["record"] = place.get(int(h["record"]), -1)
            h["frame"] -= self.length
            name = "slot" if h["slot"] >= 0 else "parent"
            if h[name] not in slots:
                slots.append(int(h[name]))
            h[name] = slots.index(h[name])
        return (
            np.array([hypotheses[name] for name in _SCORES]),
            hypotheses["prefix"].copy(),
            np.array([hypotheses[name] for name in _NUMBERS], np.int32),
            np.array([records[name] for name in _RECORDED], np.int32),
            np.array([records[name] for name in _LOGPROBS], np.float32),
            self.fusion_states[slots] if self.engine.fusions else np.zeros((0, 0), np.int64),
            self.first_frame + self.length,
            np.array(slots, np.intp),
        )
