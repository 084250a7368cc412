"""Compares two decodes decision by decision. Only a tie within rounding excuses a difference.

Two networks may order their sums differently. So where two decodes first differ, the reference's scores of the two
choices must differ by at most `TIE` times the largest magnitude in the joint row. Such ties are counted, and the rest
of the utterance is not compared, because the two decodes have different tokens from there on. Every other difference
is an error.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np

from tdtdecode import Decoder, Greedy, TransducerSpec
from tdtdecode.allowed import Binding
from tdtdecode.kernels import KernelSet

TIE = 1e-5
LOGPROB_TOLERANCE = 1e-4


@dataclass
class Step:
    """One decision: the joint row, and what was decided."""

    frame: int
    token: int
    duration: int
    logprobs: tuple[float, float]
    row: np.ndarray


@dataclass
class Trace:
    """Every decision of a decode, including blanks, by utterance."""

    steps: dict[int, list[Step]] = field(default_factory=dict)

    def kernels(self, kernels: KernelSet) -> KernelSet:
        """The same kernels, which also record what they decide."""
        current: list[np.ndarray] = []

        def decide(rows, *arguments):
            current[:] = [rows.copy()]
            kernels.decide(rows, *arguments)

        def advance(queue, count, decisions, logprobs, *arguments):
            for i in range(count):
                step = Step(
                    int(queue[1, i]), int(decisions[0, i]), int(decisions[1, i]), tuple(logprobs[:, i]), current[0][i]
                )
                self.steps.setdefault(int(queue[0, i]), []).append(step)
            return kernels.advance(queue, count, decisions, logprobs, *arguments)

        return KernelSet(f"traced {kernels.name}", kernels.isa, decide, advance, kernels.beam_engine)


def traced_decode(decoder: Decoder, *arguments, **options):
    """The hypotheses of a decode, and the trace of its decisions."""
    trace = Trace()
    decoder = copy.copy(decoder)
    decoder.kernels = trace.kernels(decoder.kernels)
    return decoder.decode(*arguments, **options), trace


def check_traces(reference: Trace, other: Trace, spec: TransducerSpec, exact: bool = False) -> int:
    """The number of utterances that differ because of a tie.

    AssertionError for any other difference; with ``exact``, for a tie too.
    """
    assert reference.steps.keys() == other.steps.keys()
    ties = 0
    for utterance, steps in reference.steps.items():
        others = other.steps[utterance]
        parted = False
        for at, (a, b) in enumerate(zip(steps, others)):
            where = f"utterance {utterance}, decision {at}: {a.token, a.duration} against {b.token, b.duration}"
            assert a.frame == b.frame, where
            if (a.token, a.duration) != (b.token, b.duration):
                assert not exact and _tied(a, b, spec), where
                parted = True
                ties += 1
                break
            np.testing.assert_allclose(b.logprobs, a.logprobs, atol=LOGPROB_TOLERANCE, rtol=1e-6, err_msg=where)
        assert parted or len(steps) == len(others)
    return ties


def check_hypotheses(expected, reference: Trace, found, spec: TransducerSpec, search: Greedy) -> int:
    """As `check_traces`, for a result without a trace.

    ``expected`` are the reference's hypotheses, ``found`` the other result's. Where they first differ, the reference
    must have a tie between the last emission that both share and its own next emission.
    """
    assert len(expected) == len(found)
    ties = 0
    masks = Binding(spec, None).masks(search.allow, len(expected))
    for utterance, (a, b) in enumerate(zip(expected, found)):
        number = masks.numbers[utterance]
        mask = masks.table[number] if number >= 0 else None
        same = 0
        emissions = [list(zip(h.tokens.tolist(), h.frames.tolist(), h.durations.tolist())) for h in (a, b)]
        for x, y in zip(*emissions):
            if x != y:
                break
            same += 1
        for name in ("token_logprobs", "duration_logprobs"):
            np.testing.assert_allclose(
                getattr(b, name)[:same], getattr(a, name)[:same], atol=LOGPROB_TOLERANCE, rtol=1e-6, err_msg=name
            )
        if len(a) == len(b) == same:
            continue
        emitted = 0
        tied = False
        for step in reference.steps[utterance]:
            tied = tied or (emitted == same and _has_tie(step.row, spec, search, mask))
            emitted += step.token != spec.blank
        where = f"{emissions[0][same:][:1]} against {emissions[1][same:][:1]}"
        assert tied, f"utterance {utterance} differs after {same} tokens: {where}"
        ties += 1
    return ties


def _has_tie(row: np.ndarray, spec: TransducerSpec, search: Greedy, mask: np.ndarray | None) -> bool:
    """Whether the two best tokens, or the two best that may be emitted, or the two best durations, lie within rounding
    of each other."""
    allowed = TIE * np.abs(row[np.isfinite(row)]).max(initial=0)
    row = row.copy()
    row[spec.blank : spec.blank + len(spec.layout.blank_frames)] -= search.blank_penalty
    parts = [row[: spec.token_entries], row[spec.token_entries :]]
    if mask is not None:
        parts.append(row[: spec.vocab_size + 1][(mask != 0) & (np.arange(spec.vocab_size + 1) != spec.blank)])
    for part in parts:
        if len(part) > 1:
            first, second = np.sort(np.nan_to_num(part, nan=-np.inf))[:-3:-1]
            if first - second <= allowed:
                return True
    return False


def _tied(a: Step, b: Step, spec: TransducerSpec) -> bool:
    allowed = TIE * np.abs(a.row[np.isfinite(a.row)]).max()
    gap = abs(float(a.row[a.token]) - float(a.row[b.token]))
    if a.duration != b.duration and spec.durations:
        timing = a.row[spec.token_entries :]
        first, second = (timing[list(spec.durations).index(step.duration)] for step in (a, b))
        gap = max(gap, abs(float(first) - float(second)))
    return gap <= allowed


def check_same_hypotheses(a, b, tolerance: float = LOGPROB_TOLERANCE) -> None:
    """Identical tokens, frames and durations, log-probs within the tolerance."""
    assert len(a) == len(b)
    for x, y in zip(a, b):
        for name in ("tokens", "frames", "durations"):
            np.testing.assert_array_equal(getattr(x, name), getattr(y, name), err_msg=name)
        for name in ("token_logprobs", "duration_logprobs"):
            np.testing.assert_allclose(getattr(x, name), getattr(y, name), atol=tolerance, err_msg=name)
