"""N-gram language models."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import as_choice, as_path
from ..errors import InputError
from ..forks import Lock
from ..reprs import one_line
from ..search import as_weight
from .arpa import read_arpa
from .automaton import Automaton
from .cache import Compiled, cached
from .fit import UNITS, Fit, Tokens
from .text import TextFile

_KIND = "an ARPA file"


@dataclass(frozen=True, eq=False)
class NgramLM:
    """A back-off n-gram language model over the tokens of a transducer. `from_arpa` makes one.

    The score of a token is its log-probability after the tokens before it; a hypothesis starts after ``<s>``. Tokens
    that the file does not have share the probability of ``<unk>`` evenly, as in NeMo; without ``<unk>`` they are
    impossible. ``</s>`` is not used. Pieces of the vocabulary that are called ``<s>``, ``</s>`` or ``<unk>`` are tokens
    that the file does not have. Where a piece stands twice in the vocabulary, both tokens get its score.

    Models are pickled as their settings: whoever unpickles one reads the same file.

    Attributes
    ----------
    path:
        The ARPA file.
    weight:
        Factor on the scores, which are in nats.
    units:
        What the words of the file are: ``"pieces"`` or ``"nemo"``, see `from_arpa`.
    """

    path: Path
    weight: float
    units: str
    _digest: str = field(repr=False)
    _automata: list = field(default_factory=list, repr=False)  # with what they were compiled for
    _lock: Lock = field(default_factory=Lock, repr=False)

    @staticmethod
    def from_arpa(path: str | PathLike[str], weight: float = 0.1, units: str = "pieces") -> NgramLM:
        """A model from an ARPA file, of order 32 at most.

        The file is compiled to tables when a decoder first needs it. The tables are stored with a checksum in a cache
        folder (TDTDECODE_CACHE, else ``~/.cache/tdtdecode``) and memory-mapped from there as long as the file's content
        stays the same. What is damaged there is compiled again. If that folder cannot be written, they stay in memory.

        A model that hardly fits the vocabulary is reported by a `LanguageModelWarning` then.

        Parameters
        ----------
        path:
            The ARPA file. It may be compressed with gzip, bzip2 or xz.
        weight:
            Factor on the scores, which are natural log-probabilities. The default is small, since a transducer contains
            a language model already.
        units:
            ``"pieces"``: the words are tokens, spelt as in the model's token file. ``"nemo"``: the word
            ``chr(i + 100)`` is token i, as in the models that NeMo trains.

        Raises
        ------
        InputError
            If the file cannot be read or an option is wrong. The content is checked on first use: the decoder then
            raises an InputError that names the line.
        """
        as_choice("units", units, UNITS)
        weight = as_weight("weight", weight)
        file = TextFile(as_path("path", path, f"the path of {_KIND}"), _KIND)
        return NgramLM(file.path, weight, units, file.digest())

    def __repr__(self) -> str:
        return one_line(self, f"{self.path}", f"weight {self.weight:g}", f"units {self.units!r}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NgramLM) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    @property
    def _value(self) -> tuple[str, float, str]:
        return self._digest, self.weight, self.units

    def __getstate__(self) -> dict[str, Any]:
        path = Path(os.path.abspath(self.path))
        return {"path": path, "weight": self.weight, "units": self.units, "_digest": self._digest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in (state | {"_automata": [], "_lock": Lock()}).items():
            object.__setattr__(self, name, value)

    def automaton(self, vocab_size: int, blank: int, pieces: tuple[str, ...] | None) -> Automaton:
        """Compile the model for V tokens; ``pieces`` are the V + 1 entries of the token file by id.

        Raises
        ------
        InputError
            If the file is not a language model in ARPA format, or cannot be meant for the tokens.
        """
        tokens = Tokens(self.units, pieces, blank, vocab_size + 1)
        with self._lock.held:
            # Compared and not hashed: comparing a vocabulary with itself takes no time.
            found = next((automaton for known, automaton in self._automata if known == tokens), None)
            if found is None:
                found = self._compiled(tokens)
                self._automata.append((tokens, found))
            return found

    @staticmethod
    def starts(automaton: Automaton) -> np.ndarray:
        """Where utterances begin in the automaton, int32: in one state."""
        return automaton.start

    def _compiled(self, tokens: Tokens) -> Automaton:
        if self.units == "pieces" and tokens.pieces is None:
            raise InputError(f"{self.path}: units='pieces' needs a decoder with a vocabulary; this one has none")

        def compile_file() -> Compiled:
            file = TextFile(self.path, _KIND)
            if file.digest() != self._digest:
                raise InputError(f"{self.path}: has changed since it was opened: make the language model again")
            automaton, fit = read_arpa(file, tokens)
            return automaton, asdict(fit)

        key = {"content": self._digest, "tokens": asdict(tokens)}
        automaton, fit = cached(key, tokens.entries, compile_file)
        if self.weight < 0 and np.isinf(automaton.arc_weight).any():
            raise InputError(f"{self.path}: a negative weight needs a model that makes every token possible: add <unk>")
        Fit(**fit).warn(self.path, self.units)
        return automaton
