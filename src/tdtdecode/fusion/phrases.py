"""Boosted phrases: words and names that a search is to expect."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np

from ..errors import InputError
from ..transducer import as_integer
from .automaton import Automaton
from .ngram import as_weight
from .spelling import Speller

Phrase = str | tuple[int, ...]


@dataclass(frozen=True, eq=False)
class PhraseBoost:
    """Raises the scores of phrases, from their first token on.

    The phrases stand in a trie of tokens. The arc to a node at depth i, counted from 0, scores ``context_score`` for
    i = 0, else ``context_score * depth_scaling + ln(i + 1)``, times the phrase's own weight; where phrases share a
    node, the largest counts. Who leaves a phrase goes on from the longest end of its tokens that begins a phrase: with
    the sum of that one's scores in place of its own where the phrase was half-matched, at no cost where it was
    complete. (Aho and Corasick's automaton with the scores of NeMo's boosting tree.) A "tsd" beam takes back the scores
    of a phrase that an utterance ends in the middle of.

    Parameters
    ----------
    phrases:
        Each a text, or a sequence of token ids; or a tuple of one of these and a weight of its own. Text is split by
        the model's vocabulary: as byte-pair encoding does, and in all ways with the fewest pieces or one more to a
        word, 16 in all.
    weight:
        What all scores, in nats, are multiplied with.
    context_score, depth_scaling:
        See above.

    Raises
    ------
    InputError
        If an option or a phrase is wrong. Whether a phrase can be spelt is seen when a decoder first needs it.
    """

    phrases: Sequence[Any]
    weight: float
    context_score: float = 1.0
    depth_scaling: float = 2.0
    _lists: tuple[tuple[tuple[Phrase, float], ...], ...] = field(init=False, repr=False)
    _picked: tuple[int, ...] = field(init=False, repr=False)
    _by_utterance: bool = field(default=False, init=False, repr=False)
    _automata: dict = field(default_factory=dict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", as_weight(self.weight))
        for name in ("context_score", "depth_scaling"):
            value = getattr(self, name)
            if not isinstance(value, Real) or not 0 < float(value) < math.inf:
                raise InputError(f"{name} must be a positive number, got {value!r}")
            object.__setattr__(self, name, float(value))
        object.__setattr__(self, "_lists", (_checked(self.phrases),))
        object.__setattr__(self, "_picked", (0,))

    @staticmethod
    def per_row(
        lists: Sequence[Sequence[Any]], weight: float, context_score: float = 1.0, depth_scaling: float = 2.0
    ) -> PhraseBoost:
        """Other phrases for each row of a batch: a list of them for each row, which may be empty."""
        made = PhraseBoost((), weight, context_score, depth_scaling)
        distinct: dict[tuple, int] = {}
        picked = [distinct.setdefault(_checked(phrases), len(distinct)) for phrases in lists]
        return made._by_utterances(tuple(lists), tuple(distinct) or ((),), tuple(picked))

    def _by_utterances(self, phrases: tuple, lists: tuple, picked: tuple[int, ...]) -> PhraseBoost:
        for name, value in (("phrases", phrases), ("_lists", lists), ("_picked", picked), ("_by_utterance", True)):
            object.__setattr__(self, name, value)
        return self

    @property
    def utterances(self) -> int | None:
        """How many rows there are lists for; None: one list for all."""
        return len(self._picked) if self._by_utterance else None

    def select(self, utterances: Sequence[int]) -> PhraseBoost:
        """The boost for some rows of a batch, in that order."""
        made = PhraseBoost((), self.weight, self.context_score, self.depth_scaling)
        object.__setattr__(made, "_automata", self._automata)
        object.__setattr__(made, "_lock", self._lock)
        picked = tuple(self._picked[i] for i in utterances)
        return made._by_utterances(tuple(self.phrases[i] for i in utterances), self._lists, picked)

    def automaton(self, vocab_size: int, blank: int, pieces: tuple[str, ...] | None) -> Automaton:
        """The phrases over V tokens; ``pieces`` are the V + 1 entries of the token file by id.

        Raises
        ------
        InputError
            If a phrase cannot be spelt, or its tokens do not exist.
        """
        key = vocab_size, blank, pieces
        with self._lock:
            if key not in self._automata:
                speller = None if pieces is None else Speller(pieces, blank)
                tries = [self._trie(phrases, vocab_size, blank, speller) for phrases in self._lists]
                self._automata[key] = _joined(tries)
            joined = self._automata[key]
        start = joined.start[list(self._picked)]
        return Automaton(**{**vars(joined), "start": start.astype(np.int32)})

    def _trie(self, phrases: Iterable[tuple[Phrase, float]], vocab_size: int, blank: int, speller: Any) -> Automaton:
        children: list[dict[int, int]] = [{}]
        arc_score, complete, parent, depth = [0.0], [False], [0], [0]
        for phrase, weight in phrases:
            for tokens in _token_lists(phrase, vocab_size, blank, speller):
                node = 0
                for i, token in enumerate(tokens):
                    after = children[node].get(token)
                    if after is None:
                        after = children[node][token] = len(children)
                        children.append({})
                        arc_score.append(0.0)
                        complete.append(False)
                        parent.append(node)
                        depth.append(i + 1)
                    step = self.context_score if i == 0 else self.context_score * self.depth_scaling + math.log(i + 1)
                    arc_score[after] = max(arc_score[after], weight * step)
                    node = after
                complete[node] = True

        nodes = len(children)
        token_of = [0] * nodes
        for arcs in children:
            for token, after in arcs.items():
                token_of[after] = token
        fail, score = [0] * nodes, [0.0] * nodes
        open_score = [0.0] * nodes  # got since the last complete phrase
        for node in sorted(range(1, nodes), key=depth.__getitem__):
            above = parent[node]
            score[node] = score[above] + arc_score[node]
            open_score[node] = 0.0 if complete[node] else open_score[above] + arc_score[node]
            at = fail[above]
            while above and token_of[node] not in children[at] and at:
                at = fail[at]
            fail[node] = children[at].get(token_of[node], 0) if above else 0
        arcs_of = [sorted(arcs.items()) for arcs in children]
        order = [after for arcs in arcs_of for _, after in arcs]
        sums, failed = np.array(score), np.array(fail)
        return Automaton(
            first_arc=np.concatenate([[0], np.cumsum([len(arcs) for arcs in arcs_of])]).astype(np.int64),
            arc_token=np.array([token for arcs in arcs_of for token, _ in arcs], np.int32),
            arc_weight=np.array(arc_score, np.float32)[order],
            arc_target=np.array(order, np.int32),
            backoff_state=failed.astype(np.int32),
            backoff_weight=np.where(complete, 0, sums[failed] - sums).astype(np.float32),
            final_weight=-np.array(open_score, np.float32),
            start=np.zeros(1, np.int32),
        )


def _checked(phrases: Any) -> tuple[tuple[Phrase, float], ...]:
    """Phrases with their weights."""
    if isinstance(phrases, (str, bytes)) or not isinstance(phrases, Iterable):
        raise InputError(f"phrases must be a list, got {phrases!r}")
    found = []
    for entry in phrases:
        phrase, weight = entry, 1.0
        if isinstance(entry, tuple) and len(entry) == 2 and (
            isinstance(entry[0], str) or not isinstance(entry[0], Real)
        ):
            phrase, weight = entry
            if not isinstance(weight, Real) or not 0 < float(weight) < math.inf:
                raise InputError(f"the weight of the phrase {phrase!r} must be a positive number, got {weight!r}")
        if not isinstance(phrase, str):
            if not isinstance(phrase, Iterable):
                raise InputError(f"a phrase must be text or a list of token ids, got {phrase!r}")
            phrase = tuple(as_integer(f"a token of the phrase {phrase!r}", token, low=0) for token in phrase)
        if not phrase or (isinstance(phrase, str) and not phrase.strip()):
            raise InputError(f"a phrase must not be empty, got {entry!r}")
        found.append((phrase, float(weight)))
    return tuple(found)


def _token_lists(phrase: Phrase, vocab_size: int, blank: int, speller: Speller | None) -> Iterable[Sequence[int]]:
    if isinstance(phrase, str):
        if speller is None:
            raise InputError(f"the phrase {phrase!r} needs a decoder with a vocabulary: give its token ids instead")
        return speller.spellings(phrase)
    for token in phrase:
        if token > vocab_size or token == blank:
            raise InputError(f"the phrase {phrase!r} has token {token}: tokens are 0 to {vocab_size}, but {blank}")
    return [phrase]


def _joined(automata: list[Automaton]) -> Automaton:
    """Several automata side by side, each with its root; their starts one after the other."""
    states = np.cumsum([0, *map(len, automata)])
    arcs = np.cumsum([0, *(len(automaton.arc_token) for automaton in automata)])

    def all_of(name: str, shifts: Iterable[int] | None = None) -> np.ndarray:
        parts = [getattr(automaton, name) for automaton in automata]
        if shifts is not None:
            parts = [part + np.asarray(shift, part.dtype) for part, shift in zip(parts, shifts)]
        return np.concatenate(parts)

    return Automaton(
        first_arc=np.concatenate(
            [automaton.first_arc[:-1] + first for automaton, first in zip(automata, arcs)] + [arcs[-1:]]
        ).astype(np.int64),
        arc_token=all_of("arc_token"),
        arc_weight=all_of("arc_weight"),
        arc_target=all_of("arc_target", states),
        backoff_state=all_of("backoff_state", states),
        backoff_weight=all_of("backoff_weight"),
        final_weight=all_of("final_weight"),
        start=all_of("start", states),
    )
