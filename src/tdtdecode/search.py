"""The searches and their options: frozen classes that check their values when they are made."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from typing import Any, Protocol, runtime_checkable

from .allowed import Allow, as_allow
from .arguments import as_choice, as_instance, as_integer, as_number, as_tuple, refusal, shown
from .confidence import Confidence
from .errors import InputError

MAX_SYMBOLS = 2**31 - 1
MAX_BEAM = 1024
MAX_WEIGHT = 1e6
"""Largest weight, penalty or score that may be asked for: products of a few of them stay within float32."""
STRATEGIES = ("tsd", "malsd")
BLANK_MODES = ("no_score", "lm_weighted_full")
PRUNING_MODES = ("early", "late")
DEFAULT_THRESHOLD = 6.0
"""Nats, see `Beam`."""


class Fusion(Protocol):
    """Scores added to a search beside the network's: an n-gram model, boosted phrases or a user's function."""

    @property
    def weight(self) -> float:
        """The factor on its scores, which are in nats."""


@runtime_checkable
class FusionByUtterance(Protocol):
    """A fusion that may differ from utterance to utterance of a batch."""

    @property
    def utterances(self) -> int | None:
        """The number of utterances that it was made for; None if it is the same for all."""

    def select(self, utterances: Sequence[int]) -> Fusion:
        """The fusion for some utterances of the batch, by their places in it, in that order."""


def _statistic(confidence: Confidence | None) -> object:
    """What beams hold for a confidence: a sum for each token. The measure itself is made of it at the end."""
    return None if confidence is None else confidence.statistic


def _held(value: Callable[[Any], Any] = lambda value: value) -> dict[str, Any]:
    """Marks an option that the state of a stream depends on; ``value`` gives the part of it that does."""
    return {"held": value}


def as_search(search: object) -> Greedy | Beam:
    """The search, or an InputError that says how one is made."""
    if not isinstance(search, (Greedy, Beam)):
        advice = ""
        if isinstance(search, str) and search.lower() in ("greedy", "beam", *STRATEGIES):
            made = {"greedy": "Greedy()", "beam": "Beam()"}.get(search.lower(), f"Beam(strategy={search.lower()!r})")
            advice = f"give tdtdecode.{made}"
        elif isinstance(search, int):
            advice = "samples and their rate are one recording, (samples, rate); other options are given by name"
        raise refusal("search", "Greedy(...) or Beam(...)", search, advice)
    return search


def changed_settings(before: Greedy | Beam, after: Greedy | Beam) -> list[str]:
    """What differs between two searches of what the state of a stream depends on, in words; empty if nothing does.

    A state that was made by one of them can be gone on with by the other only if nothing differs.
    """
    if type(before) is not type(after):
        return [f"the search, {type(before).__name__} (now {type(after).__name__})"]
    changes = []
    for option in fields(before):
        part = option.metadata.get("held")
        old, new = getattr(before, option.name), getattr(after, option.name)
        if part is not None and part(old) != part(new):
            changes.append(f"{option.name}={old!r} (now {new!r})")
    return changes


def changeable_settings(search: Greedy | Beam) -> list[str]:
    """The options of a search that may change in the middle of a stream."""
    return [option.name for option in fields(search) if "held" not in option.metadata]


def for_utterances(search: Greedy | Beam, utterances: Sequence[int], batch: int) -> Greedy | Beam:
    """The search for some utterances of a batch.

    Parameters
    ----------
    utterances:
        Their places in the batch.
    batch:
        The number of utterances in the batch.

    Raises
    ------
    InputError
        If a fusion, or what may be emitted, was given for another number of utterances.
    """
    changes: dict[str, Any] = {}
    fusion = list(search.fusion)
    for i, part in enumerate(fusion):
        if isinstance(part, FusionByUtterance) and part.utterances is not None:
            check_utterances(part.utterances, batch)
            fusion[i] = part.select(utterances)
    if fusion != list(search.fusion):
        changes["fusion"] = tuple(fusion)
    if isinstance(search.allow, tuple):
        check_utterances(len(search.allow), batch)
        changes["allow"] = tuple(search.allow[i] for i in utterances)
    return replace(search, **changes) if changes else search


def utterances_of(search: Greedy | Beam) -> int | None:
    """The number of utterances that the options of a search were given for; None if it serves any number.

    Raises
    ------
    InputError
        If they were given for different numbers.
    """
    numbers = [part.utterances for part in search.fusion if isinstance(part, FusionByUtterance)]
    known = [number for number in numbers if number is not None]
    if isinstance(search.allow, tuple):
        known.append(len(search.allow))
    for number in known:
        check_utterances(number, known[0])
    return known[0] if known else None


def check_utterances(given: int, batch: int) -> None:
    """Raise an InputError if options are given for another number of utterances than the batch has."""
    if given != batch:
        raise InputError(f"phrases or tokens are given for {given} utterances, but there are {batch}")


def runs_in_the_beam_engine(search: Greedy | Beam) -> bool:
    """Whether the beam engine runs a search: every `Beam`, and `Greedy` with fusion or confidence.

    Fusion needs the best tokens of a joint row with their scores, and confidence needs a sum over the whole row. The
    beam engine computes both anyway, so it runs greedy search with either as a beam of one hypothesis. This keeps the
    greedy loops simple and fast. Only the fused network on the CPU has fusion in its greedy loop too, where a step is
    cheaper: ``run_beams`` in ``csrc/cpu/fused_beam.h`` says when.
    """
    return isinstance(search, Beam) or bool(search.fusion) or search.confidence is not None


@dataclass(frozen=True)
class Greedy:
    """Greedy search: takes the best token and, independently, the best duration at each step.

    For the joint row r at frame t, the token is ``k = argmax(tokens of r)`` and the duration is
    ``d = durations[argmax(durations of r)]``. A blank moves the search by ``max(d, 1)`` frames. Any other token is
    emitted at t and moves the search by d frames; with d = 0 the next token is searched at the same frame. In
    multi-blank RNN-T, k is one of several blanks or a token; a blank moves the search by its own frames.

    With fusion, the joint row alone still decides between blank and token. If it is a token, it is
    ``argmax(tokens of r + S)`` without blank, where S is the weighted sum of the fusions' scores. Durations do not
    depend on fusion.

    Parameters
    ----------
    max_symbols:
        The most tokens emitted at one frame. If the last of them has duration 0, the search moves on by one frame.
    blank_penalty:
        Subtracted from the blank logit for the choice; the reported log-probs ignore it. A value above 0 means fewer
        deletions.
    fusion:
        Language models, boosted phrases and functions whose scores are added: `NgramLM`, `PhraseBoost`,
        `ScoringFunction`.
    confidence:
        The measure for `Hypothesis.token_confidence`; None: it is not computed.
    allow:
        The tokens that may be emitted: `Script`, `OnlyTokens` or `ExceptTokens`, or a list of one for each utterance,
        in which None stands for all. Whether a token is emitted is decided by the whole row, as if all could be. Which
        one, is decided among those that may. Reported log-probs stay the network's.

    Notes
    -----
    In the middle of a stream (`Decoder.decode_chunk`), ``max_symbols``, ``blank_penalty`` and ``allow`` may change.
    ``fusion`` and ``confidence`` may not, since the state of the stream depends on them.

    Raises
    ------
    InputError
        If an option is out of range.
    """

    _: KW_ONLY
    max_symbols: int = 10
    blank_penalty: float = 0.0
    fusion: Sequence[Fusion] = field(default=(), metadata=_held())
    confidence: Confidence | None = field(default=None, metadata=_held(_statistic))
    allow: Allow | Sequence[Allow | None] | None = None

    def __post_init__(self) -> None:
        _check_common(self)

    def __repr__(self) -> str:
        return _options_given(self, {option.name: option.default for option in fields(self)})


@dataclass(frozen=True)
class Beam:
    """Beam search: keeps several hypotheses at a time.

    ``strategy="tsd"``, time-synchronous decoding, looks for the token sequences y with the highest

        score(y) = log sum_a prod_s p(k_s) p(d_s)  +  sum_j w_j S_j(y)

    The first sum is over all alignments a of y. An alignment is a sequence of steps s from the first frame to past the
    last. Each step has a token or blank k_s and a duration d_s. A blank moves at least one frame (in multi-blank RNN-T,
    its own frames), and so does the last of `max_symbols` tokens at one frame. p are the softmaxes of the joint row's
    two parts, at `temperature`. S_j is the score that fusion j gives the tokens, w_j its weight. Scores are not
    normalised by length.

    The search goes from frame to frame. Hypotheses with the same tokens that reach the same frame are merged, which
    adds up their probabilities, before any are pruned. A hypothesis is dropped only if `size` others that are at least
    as far in the audio score at least as high, or if one of them scores higher by more than `threshold`. On the way to
    them it could only fall further behind, so the comparison is fair. Results do not depend on chunks. The frames,
    durations and log-probs of the tokens are those of the sequence's best alignment. With size 1 and no fusion, this is
    greedy search.

    ``strategy="malsd"`` is NeMo's ``malsd_batch``. All hypotheses take one step at a time, whatever frames they have
    reached. They are pruned, then merged, and in the end ranked by score / (number of tokens + 1). Results depend on
    chunks: at the end of a chunk, hypotheses that are ahead wait for the others, and are pruned against other ones than
    in the whole stream.

    Parameters
    ----------
    strategy:
        ``"tsd"`` or ``"malsd"``.
    size:
        The number of hypotheses kept, 1 to 1024.
    nbest:
        The number of hypotheses returned, at most `size`. With a number above 1 the threshold gives way: unless one is
        given too, there is none, so that the list is as long as was asked for. None: all that the threshold has left,
        often only one.
    max_symbols:
        The most tokens emitted at one frame, as for `Greedy`.
    blank_penalty:
        Subtracted from blank's log-probability in the scores. A value above 0 means fewer deletions.
    threshold:
        "tsd" also drops a hypothesis if the best of those at least as far in the audio scores higher by more than this
        many nats. ``inf``: never, which is slower. None: 6, or ``inf`` if ``nbest`` asks for more than one hypothesis.
    temperature:
        Temperature of the softmaxes in the score of "tsd", 0.01 to 100; the reported log-probs ignore it. A value above
        1 trusts the network less. Models tend to be overconfident: with 1.2 to 1.5 the demo model makes fewer word
        errors.
    fusion, confidence:
        As for `Greedy`.
    allow:
        The tokens that may be emitted, as for `Greedy`. They are raised together in the scores, until the best of them
        is as probable as the best of all tokens.
    blank_mode:
        How "malsd" treats blank under fusion, ``"no_score"`` or ``"lm_weighted_full"``: NeMo's ``blank_lm_score_mode``.
    pruning_mode:
        Whether "malsd" prunes before fusion scores are added (``"early"``) or after (``"late"``): NeMo's
        ``pruning_mode``.

    Notes
    -----
    In the middle of a stream (`Decoder.decode_chunk`), ``nbest``, ``max_symbols``, ``threshold``, ``pruning_mode`` and
    ``allow`` may change. The others may not: the state of the stream holds hypotheses with scores, which depend on
    them.

    Raises
    ------
    InputError
        If an option is out of range, or not the strategy's.
    """

    strategy: str = field(default="tsd", metadata=_held())
    _: KW_ONLY
    size: int = field(default=4, metadata=_held())
    nbest: int | None = None
    max_symbols: int = 10
    blank_penalty: float = field(default=0.0, metadata=_held())
    threshold: float | None = None
    temperature: float = field(default=1.0, metadata=_held())
    fusion: Sequence[Fusion] = field(default=(), metadata=_held())
    confidence: Confidence | None = field(default=None, metadata=_held(_statistic))
    blank_mode: str = field(default="no_score", metadata=_held())
    pruning_mode: str = "early"
    allow: Allow | Sequence[Allow | None] | None = None

    def __post_init__(self) -> None:
        advice = "give the other options by name, as in Beam(size=4)" if not isinstance(self.strategy, str) else ""
        as_choice("strategy", self.strategy, STRATEGIES, advice)
        _check_common(self)
        as_choice("blank_mode", self.blank_mode, BLANK_MODES)
        as_choice("pruning_mode", self.pruning_mode, PRUNING_MODES)
        size = as_integer("size", self.size, low=1, high=MAX_BEAM)
        nbest = size if self.nbest is None else as_integer("nbest", self.nbest, low=1)
        if nbest > size:
            raise InputError(f"nbest must be at most size, {size}, got {shown(nbest)}")
        if self.threshold is None:
            threshold = DEFAULT_THRESHOLD if self.nbest in (None, 1) else math.inf
        else:
            threshold = as_number("threshold", self.threshold, "a positive number of nats", above=0)
        temperature = as_number("temperature", self.temperature, "a number from 0.01 to 100", low=0.01, high=100)
        for name, value in (
            ("size", size), ("nbest", nbest), ("threshold", threshold), ("temperature", temperature)
        ):  # fmt: skip
            object.__setattr__(self, name, value)
        if self.strategy != "tsd" and self.temperature != 1:
            raise InputError("temperature is an option of strategy 'tsd'")
        if self.strategy != "malsd" and (self.blank_mode, self.pruning_mode) != (BLANK_MODES[0], PRUNING_MODES[0]):
            raise InputError("blank_mode and pruning_mode are options of strategy 'malsd'")

    def __repr__(self) -> str:
        made = {option.name: option.default for option in fields(self)} | {"nbest": self.size}
        made["threshold"] = DEFAULT_THRESHOLD
        if (self.nbest, self.threshold) != (self.size, DEFAULT_THRESHOLD):  # `nbest` is what the threshold follows
            made["nbest"] = None
            if (self.nbest or 0) > 1:
                made["threshold"] = math.inf
        return _options_given(self, made)


def _options_given(search: Greedy | Beam, defaults: dict[str, Any]) -> str:
    """A search with the options that differ from the defaults."""
    options = {name: getattr(search, name) for name in defaults if getattr(search, name) != defaults[name]}
    if "fusion" in options:
        options["fusion"] = list(options["fusion"])
    return f"{type(search).__name__}({', '.join(f'{name}={value!r}' for name, value in options.items())})"


def _check_common(search: Greedy | Beam) -> None:
    fusion = as_tuple("fusion", search.fusion, _FUSION)
    for i, part in enumerate(fusion):
        if isinstance(part, type) or not hasattr(part, "weight") or not _SCORES & set(dir(part)):
            raise refusal(f"fusion[{i}]", "an NgramLM, a PhraseBoost or a ScoringFunction", part)
    if search.confidence is not None:
        as_instance("confidence", search.confidence, Confidence, "Confidence(...) or None")
    for name, value in (
        ("max_symbols", as_integer("max_symbols", search.max_symbols, low=1, high=MAX_SYMBOLS)),
        ("blank_penalty", as_weight("blank_penalty", search.blank_penalty)),
        ("fusion", fusion),
        ("allow", as_allow(search.allow)),
    ):
        object.__setattr__(search, name, value)


_SCORES = {"automaton", "compiled"}
"""What fusions are turned into: they have one method or the other."""

_FUSION = "a list of NgramLM, PhraseBoost and ScoringFunction"


def as_weight(name: str, value: object) -> float:
    """A weight, a penalty or a score: a number whose product with a score cannot overflow."""
    return as_number(name, value, f"a finite number of at most {MAX_WEIGHT:.0e}", low=-MAX_WEIGHT, high=MAX_WEIGHT)
