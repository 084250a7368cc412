"""Reads ARPA files and compiles them to automata.

SRILM's manual page ngram-format(5) describes the format. Its logarithms to base 10 become natural logarithms.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError
from .automaton import Automaton
from .fit import Fit, Tokens, measured
from .text import TextFile

MAX_ORDER = 32
MAX_BACKOFF = 1e6
_LN10 = math.log(10)
_IMPOSSIBLE = -1e30
_NEVER = -90.0
"""Programs that know no infinity write -99 for what cannot be."""
"""Log-probabilities below count as -inf, so that no sum of them overflows."""
_COUNT = re.compile(r"ngram\s+(\d{1,18})\s*=\s*(\d{1,18})\s*")
_BEGIN, _END, _UNKNOWN = "<s>", "</s>", ("<unk>", "<UNK>")


@dataclass
class _Order:
    """The n-grams of one length: int32 [m, n] words, float32 [m] log-probabilities and back-off weights.

    Of single words, `names` has those that the file lists as possible, and `unknown` is the log-probability of <unk>,
    if it has one.
    """

    words: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    backoffs: list[float] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    unknown: float | None = None

    def arrays(self, order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        words = np.array(self.words, np.int64).reshape(-1, order)
        return words, np.array(self.logprobs, np.float32), np.array(self.backoffs, np.float32)


def read_arpa(file: TextFile, tokens: Tokens) -> tuple[Automaton, Fit]:
    """The automaton of an ARPA file over V tokens, and how the file fits them.

    N-grams with words that are no tokens are skipped, except ``<s>`` in contexts and ``<unk>``. A vocabulary's pieces
    ``<s>``, ``</s>`` and ``<unk>`` are tokens that the file does not have: in it, these words mean something else.

    Raises
    ------
    InputError
        If the file is not a language model in ARPA format, or cannot be meant for the tokens. The message names the
        line.
    """
    begin = tokens.entries  # <s> gets the first id that no token has
    special = (_BEGIN, _END, *_UNKNOWN)
    ids = {word: same for word, same in tokens.ids.items() if word not in special}
    known = {word: same[0] for word, same in ids.items()} | {_BEGIN: begin}
    lines = file.lines()
    counts = _read_counts(file, lines)
    orders: list[_Order] = []
    for order, count in enumerate(counts, 1):
        if order > 1:
            _expect_header(file, lines, order)
        orders.append(_read_section(file, lines, order, len(counts), count, known))
    if next((line for line in lines if line.strip()), "").strip() != "\\end\\":
        file.fail(r"expected \end\ after the last n-gram: the file is cut off, or the counts at its head are wrong")
    file.check_rest(lines)
    unigrams = orders[0]
    has_unknown = any(word in unigrams.names for word in _UNKNOWN)
    fit = measured([word for word in unigrams.names if word not in special], has_unknown, tokens)
    fit.require(file.path, tokens.units)
    unknown = -math.inf if unigrams.unknown is None else unigrams.unknown
    twins = {same[0]: same[1:] for same in ids.values() if len(same) > 1}
    compiler = _Compiler(file.path, tokens, begin, twins, unknown)
    return compiler.compile([o.arrays(n) for n, o in enumerate(orders, 1)]), fit


def _read_counts(file: TextFile, lines: Iterator[str]) -> list[int]:
    for line in lines:
        if line.strip() == "\\data\\":
            break
    else:
        raise InputError(rf"{file.path}: has no \data\ section: not a language model in ARPA format")
    counts: list[int] = []
    for line in lines:
        text = line.strip()
        match = _COUNT.fullmatch(text)
        if match:
            if int(match[1]) != len(counts) + 1:
                file.fail(f"expected the count of {len(counts) + 1}-grams, got {text!r}")
            counts.append(int(match[2]))
            if len(counts) > MAX_ORDER:
                file.fail(f"n-grams longer than {MAX_ORDER} are not supported")
        elif text == "\\1-grams:" and counts:
            return counts
        elif text:
            file.fail(rf"expected 'ngram 1=...' or \1-grams:, got {text[:40]!r}")
    raise InputError(rf"{file.path}: ends before \1-grams:")


def _expect_header(file: TextFile, lines: Iterator[str], order: int) -> None:
    text = next((line.strip() for line in lines if line.strip()), "the end of the file")
    if text != f"\\{order}-grams:":
        more = "" if text.startswith("\\") else ": there are more n-grams than the head of the file counts"
        file.fail(rf"expected \{order}-grams:, got {text[:40]!r}{more}")


def _read_section(
    file: TextFile, lines: Iterator[str], order: int, orders: int, count: int, known: Mapping[str, int]
) -> _Order:
    """Read a section: the n-grams whose words are all known."""
    found = _Order()
    words, logprobs, backoffs = found.words, found.logprobs, found.backoffs
    read = 0
    # Not `split()`: with units="nemo", other white space may be a word.
    separator = re.compile("[ \t]+")
    while read < count:
        line = next(lines, None)
        if line is None:
            file.fail(f"the file ends after {read} of {count} {order}-grams")
        if not line.strip(" \t"):
            continue
        parts = separator.split(line.strip(" \t"))
        if not order + 1 <= len(parts) <= order + 1 + (order < orders):
            if line.startswith("\\"):
                file.fail(f"expected {count} {order}-grams, got {read} before {line.strip()!r}")
            allowed = "and perhaps a back-off weight" if order < orders else "without a back-off weight"
            file.fail(f"expected a log-probability and {order} words, {allowed}, got {len(parts)} fields")
        read += 1
        try:
            logprob = float(parts[0])
            backoff = float(parts[order + 1]) if len(parts) > order + 1 else 0.0
        except ValueError:
            file.fail(f"expected numbers before and after the words, got {line[:60]!r}")
        if not logprob <= 0 or not abs(backoff) <= MAX_BACKOFF:
            file.fail(f"expected a log10 probability of at most 0 and a finite back-off weight, got {line[:60]!r}")
        if order == 1 and logprob > _NEVER:
            found.names.append(parts[1])
        logprob = logprob * _LN10 if logprob > _IMPOSSIBLE else -math.inf
        if order == 1 and parts[1] in _UNKNOWN:
            found.unknown = logprob
        try:
            n_gram = [known[word] for word in parts[1 : order + 1]]
        except KeyError:
            continue
        words += n_gram
        logprobs.append(logprob)
        backoffs.append(backoff * _LN10)
    return found


class _Compiler:
    """Turns n-grams into arcs, and their contexts into states.

    The n-grams and all their prefixes form a tree of nodes; node 0, the root, is the empty prefix. The parent of a node
    is the node of all its words but the last. A node is found by its key, one number made of its parent and its last
    word.
    """

    def __init__(self, path: Path, tokens: Tokens, begin: int, twins: Mapping[int, tuple[int, ...]], unknown: float):
        self._path, self._entries, self._blank = path, tokens.entries, tokens.blank
        self._begin, self._twins, self._unknown = begin, twins, unknown
        self._width = begin + 1
        self._keys, self._nodes = np.empty(0, np.int64), np.empty(0, np.int64)  # by ascending key
        self._key_of = [np.array([-1], np.int64)]
        self._level = [np.zeros(1, np.int64)]
        self._logprob, self._backoff = [np.zeros(1, np.float32)], [np.zeros(1, np.float32)]
        self._count = 1

    def compile(self, orders: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Automaton:
        for order, (words, logprobs, backoffs) in enumerate(orders, 1):
            keys = self._contexts(words) * self._width + words[:, -1]
            ascending, places = np.unique(keys, return_index=True)
            if len(ascending) < len(keys):
                raise InputError(f"{self._path}: the same {order}-gram is listed twice")
            self._add(ascending, order, logprobs[places], backoffs[places])
        return self._automaton(len(orders))

    def _contexts(self, words: np.ndarray) -> np.ndarray:
        """The node of each n-gram's words but the last. Pruned models lack some of these nodes; they are added, with
        NaN as log-probability."""
        nodes = np.zeros(len(words), np.int64)
        for place in range(words.shape[1] - 1):
            keys = nodes * self._width + words[:, place]
            missing = np.unique(keys[self._find(keys) < 0])
            if len(missing):
                self._add(missing, place + 1, np.full(len(missing), np.nan), np.zeros(len(missing)))
            nodes = self._find(keys)
        return nodes

    def _add(self, keys: np.ndarray, level: int, logprobs: np.ndarray, backoffs: np.ndarray) -> None:
        nodes = np.arange(self._count, self._count + len(keys))
        self._count += len(keys)
        self._key_of.append(keys)
        self._level.append(np.full(len(keys), level))
        self._logprob.append(logprobs.astype(np.float32))
        self._backoff.append(backoffs.astype(np.float32))
        keys, nodes = np.concatenate([self._keys, keys]), np.concatenate([self._nodes, nodes])
        order = np.argsort(keys, kind="stable")
        self._keys, self._nodes = keys[order], nodes[order]

    def _find(self, keys: np.ndarray) -> np.ndarray:
        """The node of each key; -1 where there is none."""
        if not len(self._keys):
            return np.full(len(keys), -1)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[places] == keys, self._nodes[places], -1)

    def _suffixes(self, parent: np.ndarray, word: np.ndarray, level: np.ndarray) -> np.ndarray:
        """For each node, the node of its longest proper suffix that has one."""
        suffix = np.zeros(self._count, np.int64)
        for current in range(2, int(level.max()) + 1):
            nodes = np.flatnonzero(level == current)
            shorter = suffix[parent[nodes]]
            while len(nodes):
                found = self._find(shorter * self._width + word[nodes])
                done = (found >= 0) | (shorter == 0)
                suffix[nodes[done]] = np.maximum(found[done], 0)
                nodes, shorter = nodes[~done], suffix[shorter[~done]]
        return suffix

    def _automaton(self, orders: int) -> Automaton:
        key, level = np.concatenate(self._key_of), np.concatenate(self._level)
        logprob, backoff = np.concatenate(self._logprob), np.concatenate(self._backoff)
        parent, word = key // self._width, key % self._width
        parent[0] = word[0] = 0
        suffix = self._suffixes(parent, word, level)

        # Tokens that the file does not have share <unk>'s probability evenly.
        has_unigram = np.zeros(self._entries, bool)
        unigram = (level == 1) & ~np.isnan(logprob) & (word < self._entries)
        has_unigram[word[unigram]] = has_unigram[self._blank] = True
        for first, others in self._twins.items():
            has_unigram[list(others)] = has_unigram[first]
        unknown = np.flatnonzero(~has_unigram)
        share = np.float32(self._unknown - math.log(max(len(unknown), 1)))

        # The nodes added for pruned models get the log-probability that backing off gives them.
        for node in np.flatnonzero(np.isnan(logprob)):
            context, total = parent[node], np.float32(0)
            while True:
                if context == 0:
                    found = self._find(np.array([word[node]]))[0]
                    known = found >= 0 and found != node and not np.isnan(logprob[found])
                    logprob[node] = total + (logprob[found] if known else share)
                    break
                total, context = total + backoff[context], suffix[context]
                found = self._find(np.array([context * self._width + word[node]]))[0]
                if context and found >= 0:
                    logprob[node] = total + logprob[found]
                    break

        is_state = level < orders
        is_state[0] = True
        state = np.cumsum(is_state) - 1
        while not is_state[suffix].all():
            suffix = np.where(is_state[suffix], suffix, suffix[suffix])
        arcs, tokens = self._with_twins(np.flatnonzero((np.arange(self._count) > 0) & (word < self._entries)), word)
        left_out = np.setdiff1d(unknown, tokens[level[arcs] == 1])
        origin = np.concatenate([state[parent[arcs]], np.zeros(len(left_out), np.int64)])
        token = np.concatenate([tokens, left_out])
        weight = np.concatenate([logprob[arcs], np.full(len(left_out), share)])
        target = np.concatenate([
            state[np.where(is_state[arcs], arcs, suffix[arcs])], np.zeros(len(left_out), np.int64)
        ])  # fmt: skip
        order = np.lexsort((token, origin))
        states = int(is_state.sum())
        begin = self._find(np.array([self._begin]))[0]
        start = state[begin] if begin >= 0 and is_state[begin] else 0
        backoff[0] = 0
        return Automaton(
            first_arc=np.concatenate([[0], np.cumsum(np.bincount(origin, minlength=states))]).astype(np.int64),
            arc_token=token[order].astype(np.int32),
            arc_weight=weight[order].astype(np.float32),
            arc_target=target[order].astype(np.int32),
            backoff_state=state[suffix[is_state]].astype(np.int32),
            backoff_weight=backoff[is_state].astype(np.float32),
            final_weight=np.zeros(states, np.float32),
            start=np.array([start], np.int32),
        )

    def _with_twins(self, arcs: np.ndarray, word: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Arcs and their tokens, each also with the other tokens of its piece, where a vocabulary has pieces twice."""
        tokens = word[arcs]
        order = np.argsort(tokens, kind="stable")
        ascending = tokens[order]
        found_arcs, found_tokens = [arcs], [tokens]
        for token, others in self._twins.items():
            first, last = np.searchsorted(ascending, [token, token + 1])
            for other in others:
                found_arcs.append(arcs[order[first:last]])
                found_tokens.append(np.full(last - first, other))
        return np.concatenate(found_arcs), np.concatenate(found_tokens)
