"""Beam search over a batch as a resumable state machine. It knows nothing of networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..fusion.binding import BoundFusion
from ..hypothesis import Hypothesis
from ..options import Strategy, beam_options
from ..search import Beam, Greedy
from ..transducer import TransducerSpec
from .beam_state import BeamState, FusionError
from .greedy import checked_lengths
from .sets import KernelSet, get

MAX_HYPOTHESES = 8192
"""Of one utterance: some hold a predictor state each."""


class BeamSearch:
    """Asks for predictor steps and joint rows, is answered, and moves on, for B rows at once.

    >>> while search.pending:                                          # doctest: +SKIP
    ...     predict(*search.predictions)                               # states of parents, tokens -> states of slots
    ...     search.step(joint(search.slots, search.utterances, search.frames))

    Parameters
    ----------
    spec, options:
        The joint row's layout; `Beam` or `Greedy`.
    lengths:
        Integers [B], the frames of each row.
    kernels:
        A kernel set or its name (`tdtdecode.kernels.get`).
    fusions:
        What steers the search, bound to the vocabulary.
    states:
        B beams to go on from; None: the start.

    Attributes
    ----------
    pending:
        Number N of joint rows that are wanted; 0 when the search is done.
    predictions:
        int32 [3, P]: predictor steps that are wanted before the rows: slot of the state to start from, token, slot of
        the new state.
    slots, utterances, frames:
        int32 [N] each: the joint rows that are wanted: slot of the predictor's state, row of the batch, frame.
    kernel_options:
        The options as kernels take them, a `tdtdecode.options.BEAM_OPTIONS`.
    size:
        Hypotheses kept.
    slots_per_utterance:
        Utterance i has the predictor states at slots ``i * slots_per_utterance`` and after; a new search has its start
        state in the first of them.
    """

    def __init__(
        self,
        spec: TransducerSpec,
        options: Greedy | Beam,
        lengths: np.ndarray,
        kernels: KernelSet | str = "auto",
        fusions: Sequence[BoundFusion] = (),
        states: Sequence[BeamState] | None = None,
    ):
        if isinstance(kernels, str):
            kernels = get(kernels)
        lengths = checked_lengths(lengths)
        kernel_options = beam_options(options, [fusion.weight for fusion in fusions])
        size = int(kernel_options["size"])
        hypotheses = size * (max((1, *spec.durations)) + 1)
        if kernel_options["strategy"] == Strategy.TSD and hypotheses > MAX_HYPOTHESES:
            raise InputError(
                f"a beam of {size} with durations up to {max(spec.durations)} may have {hypotheses} "
                f"hypotheses to compare, {MAX_HYPOTHESES} is the most: make the beam smaller"
            )
        self.spec = spec
        self.options = options
        self._lengths = lengths.astype(np.int32)
        self.kernel_options = kernel_options
        self.size = size
        self.fusions = tuple(fusions)
        self.engine = kernels.beam_engine(
            spec.vocab_size, spec.blank, spec.duration_table, kernel_options, self.fusions, len(lengths)
        )
        self.slots_per_utterance = self.engine.slots
        for utterance in range(len(lengths)):
            if states is None:
                start = [fusion.start[utterance if len(fusion.start) > 1 else 0] for fusion in self.fusions]
                self.engine.start(utterance, np.concatenate([np.empty(0, np.int64), *start]).astype(np.int64))
            else:
                self.engine.restore(utterance, states[utterance])
        self.predictions = self._wanted = np.empty((3, 0), np.int32)

    def begin(self) -> None:
        """Ask for the first rows."""
        with self.naming_failures():
            self.engine.open(self._lengths)
            self.predictions, self._wanted = self.engine.request()

    def step(self, rows: np.ndarray) -> None:
        """Take the joint rows that were asked for, float32 [N, V + 1 + D] in the order of `slots`."""
        width = self.spec.joint_width
        if rows.shape != (self.pending, width) or rows.dtype != np.float32 or not rows.flags.c_contiguous:
            raise InputError(
                f"joint rows must be contiguous float32 [{self.pending}, {width}], got {rows.dtype} {list(rows.shape)}"
            )
        self.engine.answer(rows)
        with self.naming_failures():
            self.predictions, self._wanted = self.engine.request()

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
        """int32 [B]: the frames of each row."""
        return self._lengths

    def hypotheses(self) -> list[Hypothesis]:
        """The best hypothesis of each row with its alternatives, all of them from the last settled token on."""
        nbest = 1 if isinstance(self.options, Greedy) else self.options.nbest
        found = [
            [self._hypothesis(*entry) for entry in self.engine.results(utterance, nbest)] for utterance in self._all()
        ]
        return [replace(first, alternatives=tuple(others)) for first, *others in found]

    def settled(self) -> list[Hypothesis]:
        """The tokens of each row that all its hypotheses share; nothing can change them any more."""
        return [self._hypothesis(None, *self.engine.settled(utterance)) for utterance in self._all()]

    def close(self) -> tuple[list[BeamState], np.ndarray]:
        """End the chunk: the beams to go on from, and the slots of their predictor states, one stream after another."""
        states, slots = [], [np.empty(0, np.intp)]
        for utterance in self._all():
            scores, prefixes, numbers, records, logprobs, fusion, first_frame, used = self.engine.close(utterance)
            states.append(
                BeamState(scores, prefixes, numbers, records, logprobs, fusion, first_frame, states=len(used))
            )
            slots.append(utterance * self.slots_per_utterance + used)
        return states, np.concatenate(slots)

    def naming_failures(self) -> _NamingFailures:
        """A context that tells what was wrong with a user's function that failed inside."""
        return _NamingFailures(self.fusions)

    def _all(self) -> range:
        return range(len(self._lengths))

    def _hypothesis(self, score: float | None, numbers: np.ndarray, values: np.ndarray) -> Hypothesis:
        token_logprobs, duration_logprobs, statistic = values
        if score is None or isinstance(self.options, Greedy):
            score = float(np.sum(token_logprobs, dtype=np.float64) + np.sum(duration_logprobs, dtype=np.float64))
        confidence = self.options.confidence
        return Hypothesis(
            numbers[0], numbers[1], numbers[2], token_logprobs, duration_logprobs, score,
            token_confidence=None if confidence is None else confidence.from_sum(statistic, self.spec.vocab_size + 1),
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
