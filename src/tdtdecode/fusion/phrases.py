"""Boosted phrases: words and names that a search should prefer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import as_flag, as_integer, as_number, as_path, as_tuple, refusal
from ..errors import InputError, PhraseWarning
from ..forks import Lock
from ..reprs import counted, excerpt, one_line
from ..search import MAX_WEIGHT, as_weight
from .automaton import Automaton
from .spelling import BEGIN, CannotSpell, Speller
from .text import TextFile

MAX_LENGTH = 1000
"""Longest phrase, in characters or tokens: phrases are words and names."""
MAX_FILE = 32 << 20
"""Largest file of phrases, in bytes."""

Phrase = str | tuple[int, ...]

_KIND = "a list of phrases"
_PHRASES = "a list of phrases, perhaps of (phrase, weight)"


@dataclass(frozen=True, eq=False)
class PhraseBoost:
    """Raises the scores of phrases, from their first token on.

    Every token that begins or continues a phrase gets a score: the first token ``context_score``, token i (counted
    from 0) ``context_score * depth_scaling + ln(i + 1)``, each times the phrase's own weight. Where several phrases
    begin with the same tokens, the highest score counts.

    When a token does not continue the phrase, the search falls back to the longest suffix of the matched tokens that
    begins a phrase, and goes on from there. If the phrase was complete, its scores are kept. If it was not, they are
    taken back, and only the scores of that suffix remain. A "tsd" beam also takes them back if the utterance ends
    before the phrase is complete.

    This is the automaton of Aho and Corasick with the scores of NeMo's boosting tree.

    Parameters
    ----------
    phrases:
        Each phrase is a text or a sequence of token ids, or a tuple (phrase, weight) with a weight of its own; 1000
        characters or tokens at most. A text is spelt with the pieces of the model's vocabulary: as byte-pair encoding
        splits it, and in all other ways that need the fewest pieces or one more per word. At most 16 spellings are
        used for each tokenizer that the vocabulary was joined from.
    weight:
        Factor on all scores, which are in nats.
    context_score, depth_scaling:
        See above.
    ignore_case:
        Whether a text stands for all texts that differ from it in case only, for models that write capitals.

    Notes
    -----
    A text is spelt when a decoder first needs it. Those that cannot be spelt are left out, and a `PhraseWarning` names
    them.

    Raises
    ------
    InputError
        If an option or a phrase is wrong; and from the decoder, if none of the phrases can be spelt.
    """

    phrases: Sequence[Any]
    weight: float = 0.6
    context_score: float = 1.0
    depth_scaling: float = 2.0
    ignore_case: bool = False
    _lists: tuple[tuple[tuple[Phrase, float], ...], ...] = field(init=False, repr=False)
    _list_of: tuple[int, ...] = field(init=False, repr=False)
    _for_each: bool = field(default=False, init=False, repr=False)
    _file: tuple[Path, tuple[int, ...]] | None = field(default=None, init=False, repr=False)
    _automata: list = field(default_factory=list, init=False, repr=False)  # with what they were compiled for
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.phrases, (list, tuple)):  # what can be iterated only once
            object.__setattr__(self, "phrases", list(as_tuple("phrases", self.phrases, _PHRASES)))
        object.__setattr__(self, "weight", as_weight("weight", self.weight))
        for name in ("context_score", "depth_scaling"):
            value = getattr(self, name)
            object.__setattr__(self, name, _positive(name, value))
        as_flag("ignore_case", self.ignore_case)
        object.__setattr__(self, "_lists", (_checked(self.phrases),))
        object.__setattr__(self, "_list_of", (0,))

    @staticmethod
    def from_file(
        path: str | PathLike[str],
        weight: float = 0.6,
        context_score: float = 1.0,
        depth_scaling: float = 2.0,
        ignore_case: bool = False,
    ) -> PhraseBoost:
        """The phrases of a text file, one to a line; a tab and a number after one is its own weight.

        Empty lines are passed over. The file may be compressed with gzip, bzip2 or xz. The other parameters are those
        of the class.

        Raises
        ------
        InputError
            If the file cannot be read, or an option or a phrase is wrong. The message names the line.
        """
        file = TextFile(as_path("path", path, f"the path of {_KIND}"), _KIND, MAX_FILE)
        phrases: list[Phrase | tuple[Phrase, float]] = []
        numbers = []
        for line in file.lines():
            phrase, tab, own = line.partition("\t")
            if not phrase.strip():
                continue
            try:
                phrases.append((phrase, float(own)) if tab else phrase)
            except ValueError:
                file.fail(f"expected a number after the tab, got {own!r}")
            try:
                _checked_phrase(phrases[-1])
            except InputError as error:
                file.fail(str(error))
            numbers.append(file.number)
        made = PhraseBoost(
            phrases, weight, context_score=context_score, depth_scaling=depth_scaling, ignore_case=ignore_case
        )
        object.__setattr__(made, "_file", (file.path, tuple(numbers)))
        return made

    @staticmethod
    def per_row(
        lists: Sequence[Sequence[Any]],
        weight: float = 0.6,
        context_score: float = 1.0,
        depth_scaling: float = 2.0,
        ignore_case: bool = False,
    ) -> PhraseBoost:
        """Different phrases for each utterance of a batch: one list for each, which may be empty.

        The other parameters are those of the class.
        """
        made = PhraseBoost(
            (), weight, context_score=context_score, depth_scaling=depth_scaling, ignore_case=ignore_case
        )
        distinct: dict[tuple, int] = {}
        lists = as_tuple("lists", lists, "a list of phrases for each utterance")
        list_of = [distinct.setdefault(_checked(phrases, f"lists[{i}]"), len(distinct))
                   for i, phrases in enumerate(lists)]  # fmt: skip
        return made._with_lists(tuple(lists), tuple(distinct) or ((),), tuple(list_of))

    def _with_lists(self, phrases: tuple, lists: tuple, list_of: tuple[int, ...]) -> PhraseBoost:
        """Set the phrases of each utterance: the distinct lists, and the number of the list that each utterance has."""
        for name, value in (("phrases", phrases), ("_lists", lists), ("_list_of", list_of), ("_for_each", True)):
            object.__setattr__(self, name, value)
        return self

    @property
    def utterances(self) -> int | None:
        """The number of utterances that lists were given for; None if one list serves all."""
        return len(self._list_of) if self._for_each else None

    def select(self, utterances: Sequence[int]) -> PhraseBoost:
        """The boost for some utterances of a batch, by their places in it, in that order."""
        made = replace(self, phrases=())
        object.__setattr__(made, "_automata", self._automata)
        object.__setattr__(made, "_lock", self._lock)
        picked = tuple(self._list_of[i] for i in utterances)
        return made._with_lists(tuple(self.phrases[i] for i in utterances), self._lists, picked)

    def __repr__(self) -> str:
        first = next((f" from {excerpt(str(phrase))} on" for phrases in self._lists for phrase, _ in phrases), "")
        return one_line(
            self, counted(sum(map(len, self._lists)), "phrase") + first,
            f"for {counted(len(self._list_of), 'utterance')}" if self._for_each else "", f"weight {self.weight:g}",
        )  # fmt: skip

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PhraseBoost) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    @property
    def _value(self) -> tuple[Any, ...]:
        settings = self.weight, self.context_score, self.depth_scaling, self.ignore_case
        return *settings, self._for_each, self._list_of, self._lists

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_automata", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in (state | {"_automata": [], "_lock": Lock()}).items():
            object.__setattr__(self, name, value)

    def automaton(self, vocab_size: int, blank: int, pieces: tuple[str, ...] | None) -> Automaton:
        """Compile the phrases for V tokens; ``pieces`` are the V + 1 entries of the token file by id.

        The same automaton is returned each time, so that its tables are copied to a GPU once. It has a start for each
        distinct list of phrases.

        Raises
        ------
        InputError
            If a phrase has a token id that does not exist, or none of the phrases can be spelt.
        """
        key = vocab_size, blank, pieces
        with self._lock.held:
            # Compared and not hashed: comparing a vocabulary with itself takes no time.
            joined = next((automaton for known, automaton in self._automata if known == key), None)
            if joined is None:
                joined = self._compiled(vocab_size, blank, pieces)
                self._automata.append((key, joined))
        return joined

    def starts(self, automaton: Automaton) -> np.ndarray:
        """Where utterances begin in the automaton, int32: one state for each, or one for all if all have one list."""
        return automaton.start[list(self._list_of)]

    def _compiled(self, vocab_size: int, blank: int, pieces: tuple[str, ...] | None) -> Automaton:
        speller = None if pieces is None else Speller(pieces, blank, self.ignore_case)
        same = {} if speller is None else speller.same
        left_out: dict[str, CannotSpell] = {}
        tries = []
        for phrases in self._lists:
            spelt = []
            for i, (phrase, weight) in enumerate(phrases):
                try:
                    spelt.append((_token_lists(phrase, vocab_size, blank, speller), weight))
                except CannotSpell as error:
                    place = "" if self._file is None else f"line {self._file[1][i]}, "
                    left_out.setdefault(f"{place}{phrase!r}", error)
            tries.append(self._trie(spelt, same))
        if left_out and pieces is not None:
            problem = self._said(left_out, Speller(pieces, blank, ignore_case=True))
            if not self._for_each and len(tries[0].arc_token) == 0:
                raise InputError(problem)
            warnings.warn(f"{problem}; left out", PhraseWarning, stacklevel=2)
        return _joined(tries)

    def _said(self, left_out: dict[str, CannotSpell], without_case: Speller) -> str:
        """What to say of phrases that cannot be spelt."""
        if self._file is None and len(left_out) == 1:
            problem = str(*left_out.values())
        else:
            named = "; ".join(f"{name} (none fits at {error.place!r})" for name, error in left_out.items())
            where = "" if self._file is None else f"{self._file[0]}: "
            count = f"{len(left_out)} of {sum(map(len, self._lists))}"
            problem = f"{where}{count} phrases cannot be spelt with the model's pieces: {named}"
        in_another_case = 0 if self.ignore_case else sum(without_case.spells(error.text) for error in left_out.values())
        return f"{problem}; {in_another_case} can in another case: ignore_case=True" if in_another_case else problem

    def _trie(
        self, phrases: Iterable[tuple[Iterable[Sequence[int]], float]], same: dict[int, tuple[int, ...]]
    ) -> Automaton:
        """The automaton of phrases' spellings, each with its weight; ``same``: all tokens that one stands for."""
        children: list[dict[int, int]] = [{}]
        arc_score, complete, parent, depth = [0.0], [False], [0], [0]
        for spellings, weight in phrases:
            for tokens in spellings:
                node = 0
                for i, token in enumerate(tokens, -1 if tokens[0] == BEGIN else 0):
                    after = children[node].get(token)
                    if after is None:
                        after = children[node][token] = len(children)
                        children.append({})
                        arc_score.append(0.0)
                        complete.append(False)
                        parent.append(node)
                        depth.append(depth[node] + 1)
                    if i < 0:
                        step = 0.0
                    elif i == 0:
                        step = self.context_score
                    else:
                        step = self.context_score * self.depth_scaling + math.log(i + 1)
                    arc_score[after] = max(arc_score[after], weight * step)
                    node = after
                complete[node] = True

        nodes = len(children)
        token_of = [0] * nodes
        for arcs in children:
            for token, after in arcs.items():
                token_of[after] = token
        fail, score = [0] * nodes, [0.0] * nodes
        open_score = [0.0] * nodes  # the scores since the last complete phrase
        for node in sorted(range(1, nodes), key=depth.__getitem__):
            above = parent[node]
            score[node] = score[above] + arc_score[node]
            open_score[node] = 0.0 if complete[node] else open_score[above] + arc_score[node]
            at = fail[above]
            while above and token_of[node] not in children[at] and at:
                at = fail[at]
            fail[node] = children[at].get(token_of[node], 0) if above else 0
        start = children[0].pop(BEGIN, 0)
        arcs_of = [
            sorted((token, after) for first, after in arcs.items() for token in same.get(first, (first,)))
            for arcs in children
        ]
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
            start=np.array([start], np.int32),
        )


def _checked(phrases: Any, name: str = "phrases") -> tuple[tuple[Phrase, float], ...]:
    """The phrases with their weights, checked."""
    return tuple(map(_checked_phrase, as_tuple(name, phrases, _PHRASES)))


def _checked_phrase(entry: Any) -> tuple[Phrase, float]:
    """A phrase with its weight, checked."""
    phrase, weight = entry, 1.0
    if isinstance(entry, tuple) and len(entry) == 2 and (
        isinstance(entry[0], str) or not isinstance(entry[0], Real)
    ):
        phrase, weight = entry
    if isinstance(phrase, bytes) or not isinstance(phrase, Iterable):
        raise refusal("a phrase", "text or a list of token ids", phrase)
    phrase = phrase if isinstance(phrase, str) else tuple(islice(phrase, MAX_LENGTH + 1))
    if len(phrase) > MAX_LENGTH:
        unit = "characters" if isinstance(phrase, str) else "tokens"
        raise InputError(f"a phrase may have {MAX_LENGTH:,} {unit} at most, unlike the one with {phrase[:20]!r}...")
    weight = _positive(f"the weight of the phrase {phrase!r}", weight)
    if not isinstance(phrase, str):
        phrase = tuple(as_integer(f"a token of the phrase {phrase!r}", token, low=0) for token in phrase)
    if not phrase or (isinstance(phrase, str) and not phrase.strip()):
        raise InputError(f"a phrase must not be empty, got {entry!r}")
    return phrase, weight


def _positive(name: str, value: Any) -> float:
    return as_number(name, value, f"a positive number of at most {MAX_WEIGHT:.0e}", above=0, high=MAX_WEIGHT)


def _token_lists(phrase: Phrase, vocab_size: int, blank: int, speller: Speller | None) -> Iterable[Sequence[int]]:
    if isinstance(phrase, str):
        if speller is None:
            raise InputError(f"the phrase {phrase!r} needs a decoder with a vocabulary: give its token ids instead")
        return speller.spellings(phrase)
    for token in phrase:
        if token > vocab_size or token == blank:
            raise InputError(f"the phrase {phrase!r} has token {token}; tokens are 0 to {vocab_size}, except {blank}")
    return [phrase if speller is None else tuple(map(speller.first_of, phrase))]


def _joined(automata: list[Automaton]) -> Automaton:
    """Several automata in one, each with its own root. Its starts are theirs, one after the other."""
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
