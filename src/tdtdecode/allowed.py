"""Which tokens a search may emit.

The rule: whether a token is emitted is decided by the whole joint row, as if all tokens could be. If the best token
may not be emitted, the best of those that may takes its place. So a token of a wrong script becomes one of the right
script. If it became a blank instead, a word would be deleted. (``benches/scripts.py`` measures both rules.)

In a beam, the tokens that may be emitted are raised together, until the best of them is as probable as the best of all.
Log-probs that are reported stay the network's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, cast

import numpy as np

from .arguments import as_integer, as_tuple, refusal
from .errors import InputError
from .optional import needed
from .reprs import counted
from .transducer import TransducerSpec


class Vocabulary(Protocol):
    """What a script needs of a `tdtdecode.bundle.Vocabulary`."""

    def text(self, token: int) -> str | None:
        """The text of a token; None if it is none by itself."""


class Allow(Protocol):
    """What may be emitted: `Script`, `OnlyTokens` or `ExceptTokens`."""

    def tokens(self, spec: TransducerSpec, vocabulary: Vocabulary | None) -> np.ndarray:
        """bool [V + 1]: which tokens may be emitted; the entry of blank does not matter.

        Raises
        ------
        InputError
            If it does not fit the vocabulary.
        """


@dataclass(frozen=True, init=False)
class Script:
    """The tokens whose letters are all of some Unicode scripts.

    Punctuation, digits, the space mark and whatever else several scripts share are ``"common"``. In a token with
    letters they do not matter. A token without letters may be emitted only if "common" is named too. Most models write
    such tokens, so ``Script("latin", "common")`` is what most texts need: without "common", a letter would take the
    place of a comma.

    Tokens that are no text by themselves may always be emitted: ``<EOU>``, names of languages, and bytes of UTF-8.

    Parameters
    ----------
    names:
        Names or codes of scripts, in any case: ``"latin"``, ``"Cyrl"``, ``"common"``.

    Raises
    ------
    InputError
        If a name is no script; and from the decoder, if no token of the vocabulary may be emitted.
    MissingDependencyError
        If the package ``regex`` is not installed. It knows the script of every character, and follows each version of
        Unicode.
    """

    names: tuple[str, ...]

    def __init__(self, *names: str):
        if not names:
            raise InputError('Script needs the name of a script, as in Script("latin", "common")')
        for name in names:
            if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z_ -]*", name) or not _exists(name):
                raise refusal("names", "names of Unicode scripts, such as 'latin' or 'common'", name)
        object.__setattr__(self, "names", tuple(name.lower() for name in names))

    def __repr__(self) -> str:
        return f"Script({', '.join(map(repr, self.names))})"

    def tokens(self, spec: TransducerSpec, vocabulary: Vocabulary | None) -> np.ndarray:
        if vocabulary is None:
            raise InputError(f"{self!r} needs a vocabulary, to know what the tokens are; this decoder has none")
        with_letters = _pattern(*self.names, *_SHARED)
        shared = with_letters if {"common", "zyyy"} & set(self.names) else None
        without_letters = _pattern(*_SHARED)
        may = np.ones(spec.vocab_size + 1, bool)
        for token in range(spec.vocab_size + 1):
            text = vocabulary.text(token)
            if text is not None:
                pattern = shared if without_letters.fullmatch(text) else with_letters
                may[token] = pattern is not None and pattern.fullmatch(text) is not None
        return may


@dataclass(frozen=True)
class _TokenList:
    """Token ids. A list may be long, and a decoder looks its mask up in each call, so the hash is computed once."""

    ids: Sequence[int]
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", _as_ids(self.ids))
        object.__setattr__(self, "_hash", hash((type(self), self.ids)))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple:
        return type(self), (self.ids,)  # a class has another hash in another process

    def __repr__(self) -> str:
        return f"{type(self).__name__}({counted(len(self.ids), 'token')})"


class OnlyTokens(_TokenList):
    """The tokens of a list. ``ids`` are token ids.

    Raises
    ------
    InputError
        If an id is no number; and from the decoder, if it is not in the vocabulary.
    """

    def tokens(self, spec: TransducerSpec, vocabulary: Vocabulary | None) -> np.ndarray:
        may = np.zeros(spec.vocab_size + 1, bool)
        may[_checked_ids(self.ids, spec)] = True
        return may


class ExceptTokens(_TokenList):
    """All tokens but those of a list. ``ids`` are token ids.

    Raises
    ------
    InputError
        As for `OnlyTokens`.
    """

    def tokens(self, spec: TransducerSpec, vocabulary: Vocabulary | None) -> np.ndarray:
        may = np.ones(spec.vocab_size + 1, bool)
        may[_checked_ids(self.ids, spec)] = False
        return may


class Masks(NamedTuple):
    """Which tokens may be emitted, in the form that kernels take: ``Masks`` of ``csrc/cpu/row_kernels.h``.

    ``table`` is uint8 [M, V + 1], a mask in each row: 0 for the tokens that may not be emitted. ``numbers`` is int32
    [N], the mask of each joint row or utterance; -1: all tokens may be emitted.
    """

    table: np.ndarray
    numbers: np.ndarray

    def __bool__(self) -> bool:
        """Whether there is a mask at all."""
        return len(self.table) > 0

    def select(self, index: np.ndarray) -> Masks:
        """The masks of some rows or utterances, by their places, in that order."""
        return Masks(self.table, self.numbers[index]) if self else self


def no_masks(batch: int) -> Masks:
    """All tokens may be emitted, in B rows or utterances."""
    return Masks(np.ones((0, 1), np.uint8), np.full(batch, -1, np.int32))


def as_allow(allow: object) -> Allow | tuple[Allow | None, ...] | None:
    """What a search may emit: the same for all utterances, or a tuple of one for each."""
    if isinstance(allow, (list, tuple)):
        return tuple(None if part is None else _as_one(f"allow[{i}]", part) for i, part in enumerate(allow))
    return None if allow is None else _as_one("allow", allow)


def _as_one(name: str, allow: object) -> Allow:
    if isinstance(allow, type) or not hasattr(allow, "tokens"):
        advice = f"give tdtdecode.Script({allow!r})" if isinstance(allow, str) else ""
        raise refusal(name, "a Script, OnlyTokens or ExceptTokens", allow, advice)
    return cast(Allow, allow)


class Binding:
    """What searches may emit, bound to a decoder's vocabulary. Each mask is made once."""

    def __init__(self, spec: TransducerSpec, vocabulary: Vocabulary | None):
        self._spec, self._vocabulary = spec, vocabulary
        self._made: dict[Allow, np.ndarray] = {}

    def masks(self, allow: Allow | Sequence[Allow | None] | None, batch: int) -> Masks:
        """The masks of B utterances.

        Raises
        ------
        InputError
            If a mask does not fit the vocabulary, or leaves no token.
        """
        each = allow if isinstance(allow, tuple) else (allow,)
        distinct = dict.fromkeys(part for part in each if part is not None)
        if not distinct:
            return no_masks(batch)
        number_of: dict[Allow | None, int] = {part: i for i, part in enumerate(distinct)}
        numbers = np.array([number_of.get(part, -1) for part in each], np.int32)
        table = np.stack([self._mask(part) for part in distinct])
        return Masks(table, numbers if isinstance(allow, tuple) else np.repeat(numbers, batch))

    def _mask(self, allow: Allow) -> np.ndarray:
        if allow not in self._made:
            may = allow.tokens(self._spec, self._vocabulary)
            assert self._spec.blank is not None
            if not np.delete(may, self._spec.blank).any():
                raise InputError(f"{allow!r} leaves no token of the vocabulary that may be emitted")
            self._made[allow] = may.astype(np.uint8)
        return self._made[allow]


_SHARED = ("common", "inherited")
"""The scripts of characters that several scripts use; the second one is that of combining marks."""


def _pattern(*names: str) -> re.Pattern[str]:
    with needed("regex", "cpu", "the scripts of tokens"):
        import regex
    return regex.compile("[" + "".join(rf"\p{{Script={name}}}" for name in names) + "]*")


def _exists(name: str) -> bool:
    with needed("regex", "cpu", "the scripts of tokens"):
        import regex
    try:
        _pattern(name)
    except regex.error:
        return False
    return True


def _as_ids(ids: Iterable[int]) -> tuple[int, ...]:
    given = as_tuple("ids", ids, "a list of token ids")
    return tuple(as_integer(f"ids[{i}]", token, low=0) for i, token in enumerate(given))


def _checked_ids(ids: Sequence[int], spec: TransducerSpec) -> list[int]:
    for token in ids:
        if token > spec.vocab_size or token == spec.blank:
            raise InputError(f"there is no token {token}; tokens are 0 to {spec.vocab_size}, except {spec.blank}")
    return list(ids)
