"""Greedy search over a batch, as a state machine that can be stopped and resumed. It knows nothing of networks."""

from __future__ import annotations

import numpy as np

from ..allowed import Binding, Masks
from ..arguments import as_flag, as_instance, refusal
from ..errors import InputError
from ..hypothesis import Hypothesis
from ..options import greedy_options
from ..reprs import counted, one_line
from ..search import Beam, Greedy
from ..traces import Trace
from ..transducer import MAX_FRAMES, TransducerSpec
from .sets import KernelSet, as_kernels


class GreedySearch:
    """Greedy search over B utterances at once. It asks for joint rows, and moves on with the answers.

    Slot i has the predictor state of utterance i.

    Parameters
    ----------
    spec, options:
        The joint row's layout; the search options.
    lengths:
        Integers [B], the frames of each utterance.
    kernels:
        A kernel set or its name (`tdtdecode.kernels.get`).
    frame, symbols:
        int32 [B], the positions to go on from: the next frame of each utterance, and the tokens already emitted there.
        Default 0.
    trace:
        Also keep the steps that decided on blank, for `traces`.
    masks:
        ``options.allow``, bound to the vocabulary. None: it is bound here, if it needs no vocabulary.

    Attributes
    ----------
    pending:
        The number N of joint rows that are wanted; 0 when the search is done.
    slots, frames:
        int32 [N] each: the slot and the frame of every joint row that is wanted. Views, rewritten by `step`.
    options:
        The options in the form that kernels take, a `tdtdecode.options.GREEDY_OPTIONS`.
    positions:
        int32 [3, B]: the next frame of each utterance, the tokens emitted there, and its length.
    masks:
        The tokens that each utterance may emit.

    Raises
    ------
    InputError
        If the lengths are wrong.
    """

    def __init__(
        self,
        spec: TransducerSpec,
        options: Greedy,
        lengths: np.ndarray,
        kernels: KernelSet | str = "auto",
        frame: np.ndarray | None = None,
        symbols: np.ndarray | None = None,
        trace: bool = False,
        masks: Masks | None = None,
    ):
        as_instance("spec", spec, TransducerSpec, "a TransducerSpec")
        as_instance("options", options, (Greedy, Beam), "Greedy(...)")
        kernels = as_kernels(kernels)
        lengths = checked_lengths(lengths)
        frame = checked_positions("frame", frame, len(lengths))
        symbols = checked_positions("symbols", symbols, len(lengths))
        as_flag("trace", trace)
        if masks is not None:
            as_instance("masks", masks, Masks, "what tdtdecode.allowed.Binding.masks returned")
        self.spec = spec
        self.options = greedy_options(options, trace, spec.max_symbols)
        self._kernels = kernels
        self._layout = spec.layout
        batch = len(lengths)
        self.positions = np.zeros((3, batch), np.int32)
        self.positions[0] = frame
        self.positions[1] = symbols
        self.positions[2] = lengths
        self._queue = np.empty((2, batch), np.int32)
        self._decisions = np.empty((2, batch), np.int32)
        self._logprobs = np.empty((2, batch), np.float32)
        # Room for a few tokens of each utterance at first. The log doubles when it is full, so that it seldom grows.
        self._log = np.empty((4, 64 + 4 * batch), np.int32)
        self._log_logprobs = np.empty((2, self._log.shape[1]), np.float32)
        self._logged = 0
        self.masks = Binding(spec, None).masks(options.allow, batch) if masks is None else masks
        waiting = np.flatnonzero(frame < lengths)
        self.pending = len(waiting)
        self._queue[0, : self.pending], self._queue[1, : self.pending] = waiting, frame[waiting]

    def __repr__(self) -> str:
        batch = counted(self.positions.shape[1], "utterance")
        return one_line(self, batch, f"{self.pending} joint rows wanted", f"kernels {self._kernels.name}")

    @property
    def slots(self) -> np.ndarray:
        return self._queue[0, : self.pending]

    @property
    def frames(self) -> np.ndarray:
        return self._queue[1, : self.pending]

    @property
    def frame(self) -> np.ndarray:
        """int32 [B]: the next frame of each utterance; at or past its length once it is done."""
        return self.positions[0]

    @property
    def symbols(self) -> np.ndarray:
        """int32 [B]: the tokens emitted so far at the next frame of each utterance."""
        return self.positions[1]

    def step(self, rows: np.ndarray, hold: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Take the joint rows that were wanted, float32 [N, V + B + D] in the order of `slots`, and ask for the next.

        With ``hold``, slots that emitted ask for no more rows until `resume`. Networks that run the predictor for all
        utterances together need this.

        Returns
        -------
        The slots that emitted and their tokens, int32 [M] each. The predictor must run for them before their next joint
        row. Views into the log: leave them unchanged.

        Raises
        ------
        InputError
            If the rows have another shape or dtype.
        """
        count = self.pending
        check_rows(rows, count, self.spec.joint_width)
        as_flag("hold", hold)
        if self._logged + count > self._log.shape[1]:
            self._grow()
        self._kernels.decide(
            rows, self._layout, self.options, self.masks.select(self.slots), self._decisions, self._logprobs
        )
        logged, self.pending = self._kernels.advance(
            self._queue,
            count,
            self._decisions,
            self._logprobs,
            self.spec.blank,
            self.options,
            hold,
            self.positions,
            self._log,
            self._log_logprobs,
            self._logged,
        )
        slots, tokens = self._log[:2, self._logged : self._logged + logged]
        self._logged += logged
        if self.options["trace"]:
            emitted = tokens != self.spec.blank
            return slots[emitted], tokens[emitted]
        return slots, tokens

    def resume(self, slots: np.ndarray) -> None:
        """Let slots that were held ask for joint rows again, if their utterances have frames left."""
        waiting = slots[self.frame[slots] < self.positions[2, slots]]
        self._queue[0, self.pending : self.pending + len(waiting)] = waiting
        self._queue[1, self.pending : self.pending + len(waiting)] = self.frame[waiting]
        self.pending += len(waiting)

    def finish(self, log: np.ndarray, logprobs: np.ndarray) -> None:
        """Take the result of a compiled run, which has already moved `positions` on to the end.

        Parameters
        ----------
        log:
            int32 [4, N]: slot, token, frame and duration of every emission; also of every blank if the search is
            traced.
        logprobs:
            float32 [2, N]: log-probs of their tokens and durations.
        """
        self._log, self._log_logprobs = log, logprobs
        self._logged = log.shape[1]
        self.pending = 0

    def hypotheses(self, first_frame: np.ndarray | int = 0) -> list[Hypothesis]:
        """What each of the B utterances emitted in this search. ``first_frame`` [B] is added to the frames."""
        counts, (tokens, frames, durations), (token_logprobs, duration_logprobs) = self._by_utterance()
        offset = np.repeat(first_frame, counts) if isinstance(first_frame, np.ndarray) else first_frame
        frames = (frames + offset).astype(np.int32, copy=False)
        ends = np.cumsum(counts)
        scores = np.zeros(len(counts))
        some = np.flatnonzero(counts)
        if len(some):
            for logprobs in (token_logprobs, duration_logprobs):
                scores[some] += np.add.reduceat(logprobs.astype(np.float64), (ends - counts)[some])
        parts = [slice(end - count, end) for end, count in zip(ends.tolist(), counts.tolist())]
        return [
            Hypothesis(
                tokens[part], frames[part], durations[part], token_logprobs[part], duration_logprobs[part], score
            )
            for part, score in zip(parts, scores.tolist(), strict=True)
        ]

    def traces(self) -> list[Trace]:
        """Every step of each of the B utterances. Only for a search with ``trace``."""
        assert self.spec.blank is not None
        counts, (tokens, frames, durations), (token_logprobs, duration_logprobs) = self._by_utterance()
        parts = [slice(end - count, end) for end, count in zip(np.cumsum(counts), counts)]
        return [
            Trace(
                frames[part], tokens[part], durations[part], token_logprobs[part], duration_logprobs[part],
                self.spec.blank,
            )
            for part in parts
        ]  # fmt: skip

    def _by_utterance(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What was logged, utterance by utterance.

        Returns
        -------
        int [B], how much was logged for each; int32 [3, N], the tokens, frames and durations of all; float32 [2, N],
        the log-probs of tokens and durations.
        """
        slots, batch = self._log[0, : self._logged], self.positions.shape[1]
        if batch == 1:  # as it is: sorting costs more than anything else here
            return np.array([self._logged]), self._log[1:, : self._logged], self._log_logprobs[:, : self._logged]
        order = np.argsort(slots, kind="stable")
        return np.bincount(slots, minlength=batch), self._log[1:, order], self._log_logprobs[:, order]

    def _grow(self) -> None:
        """Double the log."""
        for name in ("_log", "_log_logprobs"):
            old = getattr(self, name)
            new = np.empty((old.shape[0], 2 * old.shape[1]), old.dtype)
            new[:, : self._logged] = old[:, : self._logged]
            setattr(self, name, new)


def check_rows(rows: object, count: int, width: int) -> None:
    """Raise an InputError unless joint rows, on any device, are those that were wanted."""
    expected = f"contiguous float32 [{count}, {width}]"
    if not hasattr(rows, "shape") or not hasattr(rows, "dtype") or not hasattr(rows, "flags"):
        raise refusal("joint rows", expected, rows)
    if rows.shape != (count, width) or rows.dtype != np.float32 or not rows.flags.c_contiguous:
        raise InputError(f"joint rows must be {expected}, got {rows.dtype} {list(rows.shape)}")


def checked_positions(name: str, positions: np.ndarray | None, batch: int) -> np.ndarray:
    """Counts as integers [B]; None means zeros."""
    if positions is None:
        return np.zeros(batch, np.int32)
    found = checked_lengths(positions, name)
    if len(found) != batch:
        raise InputError(f"{name} must have one entry for each of the {batch} lengths, got {len(found)}")
    return found


def checked_lengths(lengths: np.ndarray, name: str = "lengths") -> np.ndarray:
    """The lengths as integers [B]; an InputError if one is no possible number of frames."""
    try:
        lengths = np.asarray(lengths)
    except ValueError:
        raise refusal(name, "integers [B]", lengths) from None
    if lengths.ndim != 1 or (lengths.size and lengths.dtype.kind not in "iu"):
        raise InputError(f"{name} must be integers [B], got {lengths.dtype} {list(lengths.shape)}")
    low, high = (lengths.min(), lengths.max()) if lengths.size else (0, 0)
    if low < 0 or high > MAX_FRAMES:
        raise InputError(f"{name} must be from 0 to {MAX_FRAMES}, got {low} to {high}")
    return lengths
