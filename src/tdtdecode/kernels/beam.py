"""Beam search over a batch, as a state machine that can be stopped and resumed. It knows nothing of networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..allowed import Binding, Masks
from ..arguments import as_flag, as_instance, as_tuple
from ..errors import InputError
from ..fusion.binding import BoundFusion
from ..hypothesis import Hypothesis
from ..options import Strategy, beam_options
from ..reprs import counted, one_line
from ..search import Beam, Greedy
from ..traces import WAITS, BeamTrace
from ..transducer import TransducerSpec
from . import beam_steps
from .beam_state import BeamState, FusionError
from .greedy import check_rows, checked_lengths
from .sets import KernelSet, as_kernels

MAX_HYPOTHESES = 8192
"""The most hypotheses of one utterance. It bounds the memory, since a hypothesis may need a predictor state."""


class BeamSearch:
    """Beam search over B utterances at once. It asks for predictor steps and joint rows, and moves on with the answers.

    >>> search.begin()                                                 # doctest: +SKIP
    >>> while search.pending:                                          # doctest: +SKIP
    ...     predict(*search.predictions)                               # parents, tokens, slots
    ...     search.step(joint(search.slots, search.utterances, search.frames))

    Parameters
    ----------
    spec, options:
        The joint row's layout; `Beam` or `Greedy`.
    lengths:
        Integers [B], the frames of each utterance.
    kernels:
        A kernel set or its name (`tdtdecode.kernels.get`).
    fusions:
        The fusions of ``options``, bound to the vocabulary.
    states:
        The B beams that `close` returned, to go on from them; None to start anew.
    trace:
        Also keep all candidates of every step, for `traces`.
    masks:
        ``options.allow``, bound to the vocabulary. None: it is bound here, if it needs no vocabulary.

    Attributes
    ----------
    pending:
        The number N of joint rows that are wanted; 0 when the search is done.
    predictions:
        int32 [3, P]: the predictor steps that are wanted before the joint rows. The three rows are the slot of the
        state to step from, the token, and the slot for the new state.
    slots, utterances, frames:
        int32 [N] each: for every joint row that is wanted, the slot of its predictor state, its utterance and its
        frame.
    masks:
        The tokens that each utterance may emit.
    kernel_options:
        The options in the form that kernels take, a `tdtdecode.options.BEAM_OPTIONS`.
    size:
        The number of hypotheses kept.
    slots_per_utterance:
        The predictor states of utterance i are in the slots from ``i * slots_per_utterance`` on. Before `begin`, the
        first of these slots must hold its start state; or, with ``states``, the first ones the states to go on from.

    Raises
    ------
    InputError
        If the lengths are wrong, or the beam and the durations need more than MAX_HYPOTHESES hypotheses.
    """

    def __init__(
        self,
        spec: TransducerSpec,
        options: Greedy | Beam,
        lengths: np.ndarray,
        kernels: KernelSet | str = "auto",
        fusions: Sequence[BoundFusion] = (),
        states: Sequence[BeamState] | None = None,
        trace: bool = False,
        masks: Masks | None = None,
    ):
        as_instance("spec", spec, TransducerSpec, "a TransducerSpec")
        as_instance("options", options, (Greedy, Beam), "Beam(...) or Greedy(...)")
        as_flag("trace", trace)
        if masks is not None:
            as_instance("masks", masks, Masks, "what tdtdecode.allowed.Binding.masks returned")
        kernels = as_kernels(kernels)
        lengths = checked_lengths(lengths)
        fusions = as_tuple("fusions", fusions, "the fusions, bound to the vocabulary")
        for i, fusion in enumerate(fusions):
            as_instance(f"fusions[{i}]", fusion, BoundFusion, "a fusion that is bound to the vocabulary")
        if states is not None:
            states = as_tuple("states", states, "the beams that `close` returned")
            for i, state in enumerate(states):
                as_instance(f"states[{i}]", state, BeamState, "a beam that `close` returned")
            if len(states) != len(lengths):
                raise InputError(f"states must have one beam for each of the {len(lengths)} lengths, got {len(states)}")
        kernel_options = beam_options(options, [fusion.weight for fusion in fusions], spec.max_symbols)
        size = int(kernel_options["size"])
        longest = max((1, *spec.durations, *spec.big_blanks))
        hypotheses = size * (longest + 1)
        if kernel_options["strategy"] == Strategy.MALSD and spec.big_blanks:
            raise InputError(
                "Beam(strategy='malsd') is NeMo's search, which does not know models with several blanks: use "
                "Beam(strategy='tsd') or Greedy()"
            )
        if kernel_options["strategy"] == Strategy.TSD and hypotheses > MAX_HYPOTHESES:
            raise InputError(
                f"a beam of {size} with durations up to {longest} may have {hypotheses} "
                f"hypotheses to compare, but at most {MAX_HYPOTHESES} are possible: make the beam smaller"
            )
        self.spec = spec
        self.options = options
        self._lengths = lengths.astype(np.int32)
        self.kernel_options = kernel_options
        self.size = size
        self.fusions = tuple(fusions)
        self.masks = Binding(spec, None).masks(options.allow, len(lengths)) if masks is None else masks
        self.engine = kernels.beam_engine(
            spec.layout, kernel_options, self.fusions, self.masks, len(lengths), trace
        )
        self.slots_per_utterance = self.engine.slots
        if states is None:
            starts = [np.broadcast_to(fusion.start, (len(lengths), fusion.state_size)) for fusion in self.fusions]
            for utterance, start in enumerate(np.hstack([np.empty((len(lengths), 0), np.int64), *starts])):
                self.engine.start(utterance, start)
        else:
            for utterance, state in enumerate(states):
                self.engine.restore(utterance, state)
        self.predictions = self._wanted = np.empty((3, 0), np.int32)

    def begin(self) -> None:
        """Ask for the first predictor steps and joint rows.

        Raises
        ------
        InputError
            Here and in `step`, if a user's scoring function fails.
        """
        with self.naming_failures():
            self.engine.open(self._lengths)
            self.predictions, self._wanted = self.engine.request()

    def step(self, rows: np.ndarray) -> None:
        """Take the joint rows that were wanted, float32 [N, V + B + D] in the order of `slots`, and ask for the next.

        Raises
        ------
        InputError
            If the rows have another shape or dtype.
        """
        check_rows(rows, self.pending, self.spec.joint_width)
        self.engine.answer(rows)
        with self.naming_failures():
            self.predictions, self._wanted = self.engine.request()

    def __repr__(self) -> str:
        batch = counted(len(self._lengths), "utterance")
        return one_line(self, batch, f"{self.pending} joint rows wanted", repr(self.options))

    @property
    def pending(self) -> int:
        return self._wanted.shape[1]

    @property
    def slots(self) -> np.ndarray:
        return self._wanted[0]

    @property
    def utterances(self) -> np.ndarray:
        return self._wanted[1]

    @property
    def frames(self) -> np.ndarray:
        return self._wanted[2]

    @property
    def lengths(self) -> np.ndarray:
        """int32 [B]: the frames of each utterance."""
        return self._lengths

    def hypotheses(self) -> list[Hypothesis]:
        """The best hypothesis of each utterance with its alternatives. All begin after the last settled token."""
        nbest = 1 if isinstance(self.options, Greedy) else self.options.nbest
        found = (self.engine.results(utterance, nbest) for utterance in self._all())
        return [
            self._hypothesis(score, numbers, values, tuple(self._hypothesis(*entry) for entry in others))
            for (score, numbers, values), *others in found
        ]

    def settled(self) -> list[Hypothesis]:
        """The tokens that all hypotheses of an utterance share, for each utterance. They can no longer change."""
        return [self._hypothesis(None, *self.engine.settled(utterance)) for utterance in self._all()]

    def traces(self) -> list[BeamTrace]:
        """Every step of each of the B utterances. Only for a search with ``trace``, which has ended."""
        assert self.spec.blank is not None
        found = []
        for utterance, hypothesis in zip(self._all(), self.hypotheses(), strict=True):
            candidates, ends = self.engine.trace(utterance)
            columns = {name: np.ascontiguousarray(candidates[name]) for name in beam_steps.CANDIDATE.names or ()}
            rank = columns["token"]
            tokens = np.where(rank == beam_steps.BLANK, self.spec.blank, rank)
            tokens[rank == beam_steps.KEPT] = WAITS
            found.append(
                BeamTrace(
                    steps=columns["step"], parents=columns["parent"], tokens=tokens, frames=columns["frame"],
                    durations=columns["duration"], next_frames=columns["next_frame"], scores=columns["score"],
                    totals=columns["total"], merged_into=columns["into"], kept=columns["kept"].astype(bool),
                    alignments=columns["alignment"], ends=ends, hypothesis=hypothesis, blank=self.spec.blank,
                )
            )  # fmt: skip
        return found

    def close(self) -> tuple[list[BeamState], np.ndarray]:
        """End the chunk.

        Returns
        -------
        The B beams to go on from, and the slots of their predictor states, int [n], stream by stream.
        """
        states, slots = [], [np.empty(0, np.intp)]
        for utterance in self._all():
            scores, prefixes, numbers, records, logprobs, fusion, first_frame, used = self.engine.close(utterance)
            states.append(
                BeamState(scores, prefixes, numbers, records, logprobs, fusion, first_frame, states=len(used))
            )
            slots.append(utterance * self.slots_per_utterance + used)
        return states, np.concatenate(slots)

    def naming_failures(self) -> _NamingFailures:
        """A context manager that turns a `FusionError` into an InputError that says how the user's function failed."""
        return _NamingFailures(self.fusions)

    def _all(self) -> range:
        return range(len(self._lengths))

    def _hypothesis(
        self, score: float | None, numbers: np.ndarray, values: np.ndarray, alternatives: tuple[Hypothesis, ...] = ()
    ) -> Hypothesis:
        token_logprobs, duration_logprobs, statistic = values
        if score is None or isinstance(self.options, Greedy):
            score = float(token_logprobs.sum(dtype=np.float64) + duration_logprobs.sum(dtype=np.float64))
        confidence = self.options.confidence
        return Hypothesis(
            numbers[0], numbers[1], numbers[2], token_logprobs, duration_logprobs, score,
            alternatives=alternatives,
            token_confidence=None if confidence is None else confidence.from_sum(statistic, self.spec.token_entries),
        )  # fmt: skip


class _NamingFailures:
    def __init__(self, fusions: tuple[BoundFusion, ...]):
        self._fusions = fusions

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, FusionError):
            function = self._fusions[error.fusion].function
            assert function is not None
            raise function.failure(error.kind, error.token, error.state) from None
