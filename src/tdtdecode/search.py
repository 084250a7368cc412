"""How to search: frozen option classes, validated once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Protocol, runtime_checkable

from .confidence import Confidence
from .errors import InputError
from .transducer import as_integer

MAX_SYMBOLS = 2**31 - 1
MAX_BEAM = 1024
MAX_WEIGHT = 1e6
"""Largest weight, penalty or score that may be asked for: products of a few of them stay within float32."""
STRATEGIES = ("tsd", "malsd")
BLANK_MODES = ("no_score", "lm_weighted_full")
PRUNING_MODES = ("early", "late")


class Fusion(Protocol):
    """What steers a search beside the network: an n-gram model, boosted phrases or a user's function."""

    @property
    def weight(self) -> float:
        """What its scores, in nats, are multiplied with."""


@runtime_checkable
class FusionByRow(Protocol):
    """A fusion that may differ by row of a batch."""

    @property
    def rows(self) -> int | None:
        """How many rows it was made for; None: any, all alike."""

    def select(self, rows: Sequence[int]) -> Fusion:
        """That of some rows, in that order."""


def for_rows(search: Greedy | Beam, rows: Sequence[int], batch: int) -> Greedy | Beam:
    """The search for some rows of a batch of so many.

    Raises
    ------
    InputError
        If a fusion was made for another number of rows.
    """
    fusion = list(search.fusion)
    for i, part in enumerate(fusion):
        if isinstance(part, FusionByRow) and part.rows is not None:
            check_rows(part.rows, batch)
            fusion[i] = part.select(rows)
    return replace(search, fusion=tuple(fusion)) if fusion != list(search.fusion) else search


def check_rows(given: int, batch: int) -> None:
    """InputError unless what is given by row is given for every row."""
    if given != batch:
        raise InputError(f"phrases are given for {given} rows, but there are {batch}")


def runs_in_the_beam_engine(search: Greedy | Beam) -> bool:
    """Whether the beam engine runs a search: every `Beam`, and `Greedy` with fusion or confidence.

    Fusion needs the best tokens of a row with their scores, confidence a sum over the whole row. The beam engine ranks
    rows anyway, so greedy search with either is a beam of one hypothesis there; the greedy loops stay simple and fast.
    """
    return isinstance(search, Beam) or bool(search.fusion) or search.confidence is not None


@dataclass(frozen=True)
class Greedy:
    """Greedy search: at each step the best token and, independently, the best duration.

    At frame t with row r: ``k = argmax(tokens of r)``, ``d = durations[argmax(durations of r)]``. Blank moves
    ``max(d, 1)`` frames; a token is emitted at t and moves d frames, where 0 stays.

    With fusion, blank or token is still decided by the row alone; if a token, it is ``argmax(tokens of r + S)`` without
    blank, S the weighted sum of the fusions' scores. Durations are untouched.

    Parameters
    ----------
    max_symbols:
        Most tokens emitted at one frame by durations of 0; then the search moves one frame.
    blank_penalty:
        Subtracted from the blank logit for the choice, not for the reported log-probs. Above 0: fewer deletions.
    fusion:
        Language models, boosted phrases and functions that steer the search: `NgramLM`, `PhraseBoost`,
        `ScoringFunction`.
    confidence:
        The measure behind `Hypothesis.token_confidence`.

    Raises
    ------
    InputError
        If an option is out of range.
    """

    max_symbols: int = 10
    blank_penalty: float = 0.0
    fusion: tuple[Fusion, ...] = ()
    confidence: Confidence | None = None

    def __post_init__(self) -> None:
        _check_common(self)


@dataclass(frozen=True)
class Beam:
    """Beam search: several hypotheses side by side.

    ``strategy="tsd"``, time-synchronous decoding, looks for the token sequences y of the highest

        score(y) = log sum_a prod_s p(k_s) p(d_s)  +  sum_j w_j S_j(y)

    The sum is over the alignments a of y: sequences of steps s, each a token or blank k_s with a duration d_s, that
    lead from the first frame past the last, by at most `max_symbols` tokens of duration 0 on one frame. p are the
    softmaxes of the joint row's two parts, at `temperature`; a blank of duration 0 moves one frame. S_j is the score
    that fusion j gives the tokens, w_j its weight. Nothing is normalised by length.

    The search goes from frame to frame. Hypotheses with equal tokens that reach the same frame are merged, their
    probabilities added, before anything is pruned. Hypotheses of different frames wait for their turn: one is dropped
    only once `size` others that are at least as far score at least as high. It could only fall further behind before
    it reached them, so the comparison is fair. Chunks change nothing. The tokens' frames, durations and log-probs are
    those of the sequence's best alignment. At size 1 without fusion it is greedy search.

    ``strategy="malsd"`` is NeMo's ``malsd_batch``: all hypotheses take one step at a time whatever frames they stand
    on, are pruned and then merged, and are ranked by score / (number of tokens + 1).

    Parameters
    ----------
    strategy:
        ``"tsd"`` or ``"malsd"``.
    size:
        Hypotheses kept. 1 to 1024.
    nbest:
        Hypotheses returned, `size` at most; None: as many as were kept.
    max_symbols:
        Most tokens at one frame by durations of 0.
    blank_penalty:
        Subtracted from blank's log-probability in the scores. Above 0: fewer deletions.
    threshold:
        "tsd" drops a hypothesis that scores less than the best of those as far as it, by more than this many nats.
        ``inf``: never.
    temperature:
        Of the softmaxes in the score of "tsd", not of the log-probs reported; 0.01 to 100. Above 1 it trusts the
        network less: models are too sure of themselves, and 1.2 to 1.5 saved the demo model more of its word errors.
    fusion, confidence:
        As for `Greedy`.
    blank_mode, pruning_mode:
        How "malsd" treats blank under fusion, and whether it prunes before (``"early"``) or after it (``"late"``):
        NeMo's ``blank_lm_score_mode`` and ``pruning_mode``.

    Raises
    ------
    InputError
        If an option is out of range, or not the strategy's.
    """

    strategy: str = "tsd"
    size: int = 4
    nbest: int | None = None
    max_symbols: int = 10
    blank_penalty: float = 0.0
    threshold: float = 6.0
    temperature: float = 1.0
    fusion: tuple[Fusion, ...] = ()
    confidence: Confidence | None = None
    blank_mode: str = "no_score"
    pruning_mode: str = "early"

    def __post_init__(self) -> None:
        _check_common(self)
        for name, names in (("strategy", STRATEGIES), ("blank_mode", BLANK_MODES), ("pruning_mode", PRUNING_MODES)):
            if getattr(self, name) not in names:
                raise InputError(f"{name} must be {' or '.join(map(repr, names))}, got {getattr(self, name)!r}")
        size = as_integer("size", self.size, low=1, high=MAX_BEAM)
        object.__setattr__(self, "size", size)
        nbest = size if self.nbest is None else as_integer("nbest", self.nbest, low=1)
        if nbest > size:
            raise InputError(f"nbest must be at most size, {size}, got {nbest}")
        object.__setattr__(self, "nbest", nbest)
        if not isinstance(self.threshold, Real) or not self.threshold > 0:
            raise InputError(f"threshold must be a positive number of nats, got {self.threshold!r}")
        object.__setattr__(self, "threshold", float(self.threshold))
        if not isinstance(self.temperature, Real) or not 0.01 <= self.temperature <= 100:
            raise InputError(f"temperature must be a number from 0.01 to 100, got {self.temperature!r}")
        object.__setattr__(self, "temperature", float(self.temperature))
        if self.strategy != "tsd" and self.temperature != 1:
            raise InputError("temperature is an option of strategy 'tsd'")
        if self.strategy != "malsd" and (self.blank_mode, self.pruning_mode) != (BLANK_MODES[0], PRUNING_MODES[0]):
            raise InputError("blank_mode and pruning_mode are options of strategy 'malsd'")


def _check_common(search: Greedy | Beam) -> None:
    object.__setattr__(
        search, "max_symbols", as_integer("max_symbols", search.max_symbols, low=1, high=MAX_SYMBOLS)
    )
    if not isinstance(search.blank_penalty, Real) or not abs(search.blank_penalty) <= MAX_WEIGHT:
        raise InputError(
            f"blank_penalty must be a finite number of at most {MAX_WEIGHT:.0e}, got {search.blank_penalty!r}"
        )
    object.__setattr__(search, "blank_penalty", float(search.blank_penalty))
    fusion = search.fusion
    if not isinstance(fusion, Iterable) or any(not hasattr(part, "weight") for part in fusion):
        raise InputError(f"fusion must be a list of NgramLM, PhraseBoost and ScoringFunction, got {fusion!r}")
    object.__setattr__(search, "fusion", tuple(fusion))
    if search.confidence is not None and not isinstance(search.confidence, Confidence):
        raise InputError(f"confidence must be Confidence(...), got {search.confidence!r}")
