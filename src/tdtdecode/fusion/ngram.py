"""N-gram language models."""

from __future__ import annotations

import hashlib
import math
import threading
from dataclasses import dataclass, field
from numbers import Real
from os import PathLike
from pathlib import Path

import numpy as np

from ..errors import InputError
from .arpa import read_arpa
from .automaton import Automaton
from .cache import cached

UNITS = ("pieces", "nemo")
NEMO_OFFSET = 100


@dataclass(frozen=True, eq=False)
class NgramLM:
    """A back-off n-gram language model over the tokens of a transducer. `from_arpa` makes one.

    The score of a token is its log-probability after the tokens before it; a hypothesis starts after ``<s>``. Tokens
    that the file does not have share the probability of ``<unk>`` evenly, as in NeMo; without ``<unk>`` they are
    impossible. ``</s>`` is not used.

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
    _automata: dict = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @staticmethod
    def from_arpa(path: str | PathLike[str], weight: float, units: str = "pieces") -> NgramLM:
        """A model from an ARPA file, of order 32 at most.

        The file is compiled to tables when a decoder first needs it. The tables are stored in a cache folder
        (TDTDECODE_CACHE, else ``~/.cache/tdtdecode``) and memory-mapped from there as long as the file's content stays
        the same. If that folder cannot be written, they stay in memory.

        Parameters
        ----------
        path:
            The ARPA file.
        weight:
            Factor on the scores, which are natural log-probabilities.
        units:
            ``"pieces"``: the words are tokens, spelt as in the model's token file. ``"nemo"``: the word
            ``chr(i + 100)`` is token i, as in the models that NeMo trains.

        Raises
        ------
        InputError
            If the file cannot be read or an option is wrong. The content is checked on first use: the decoder then
            raises an InputError that names the line.
        """
        if units not in UNITS:
            raise InputError(f"units must be {' or '.join(map(repr, UNITS))}, got {units!r}")
        path = Path(path)
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
        return NgramLM(path, as_weight(weight), units, digest)

    def automaton(self, vocab_size: int, blank: int, pieces: tuple[str, ...] | None) -> Automaton:
        """Compile the model for V tokens; ``pieces`` are the V + 1 entries of the token file by id.

        Raises
        ------
        InputError
            If the file is not a language model in ARPA format, or does not fit the tokens.
        """
        key = vocab_size, blank, pieces if self.units == "pieces" else None
        with self._lock:
            if key not in self._automata:
                self._automata[key] = self._compiled(*key)
            return self._automata[key]

    def _compiled(self, vocab_size: int, blank: int, pieces: tuple[str, ...] | None) -> Automaton:
        tokens = [token for token in range(vocab_size + 1) if token != blank]
        if self.units == "nemo":
            ids = {chr(i + NEMO_OFFSET): token for i, token in enumerate(tokens)}
        elif pieces is None:
            raise InputError(f"{self.path}: units='pieces' needs a decoder with a vocabulary; this one has none")
        else:
            ids = {pieces[token]: token for token in tokens}
        automaton = cached(
            {"content": self._digest, "ids": ids, "blank": blank},
            vocab_size + 1,
            lambda: read_arpa(self.path, ids, blank, vocab_size + 1),
        )
        if self.weight < 0 and np.isinf(automaton.arc_weight).any():
            raise InputError(f"{self.path}: a negative weight needs a model that makes every token possible: add <unk>")
        return automaton


def as_weight(weight: float) -> float:
    """The weight as a float, or an InputError unless it is a finite number."""
    if not isinstance(weight, Real) or not math.isfinite(weight):
        raise InputError(f"weight must be a finite number, got {weight!r}")
    return float(weight)
