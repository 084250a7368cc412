"""Fusions bound to a decoder's vocabulary, in the form that the kernels take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..transducer import TransducerSpec
from .automaton import Automaton
from .functions import CompiledFunction, ScoringFunction

if TYPE_CHECKING:
    from ..bundle.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class BoundFusion:
    """A fusion bound to a vocabulary: either an automaton or a compiled function.

    ``start`` is int64 [R, n], the state of n integers before the first token. R is 1 if all utterances of a batch start
    alike, else the number of utterances.
    """

    weight: float
    automaton: Automaton | None
    function: CompiledFunction | None
    start: np.ndarray

    @property
    def state_size(self) -> int:
        return self.start.shape[1]


def bound(fusions: Sequence[Any], spec: TransducerSpec, vocabulary: Vocabulary | None) -> list[BoundFusion]:
    """Bind the fusions of a search. Those of weight 0 are left out.

    Raises
    ------
    InputError
        If a fusion cannot be read or compiled, or does not fit the vocabulary.
    MissingDependencyError
        If a scoring function is given and Numba is not installed.
    """
    assert spec.blank is not None
    pieces = None if vocabulary is None else tuple(vocabulary.pieces)
    found = []
    for fusion in fusions:
        if fusion.weight == 0:
            continue
        if isinstance(fusion, ScoringFunction):
            start = np.asarray([fusion.start], np.int64)
            found.append(BoundFusion(fusion.weight, None, fusion.compiled(spec.vocab_size + 1), start))
        else:
            automaton = fusion.automaton(spec.vocab_size, spec.blank, pieces)
            start = fusion.starts(automaton).astype(np.int64)[:, None]
            found.append(BoundFusion(fusion.weight, automaton, None, start))
    return found
