"""Fusions bound to a decoder's vocabulary, as the kernels take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..kernels.beam import BoundFusion
from ..transducer import TransducerSpec
from .functions import ScoringFunction

if TYPE_CHECKING:
    from ..bundle.vocabulary import Vocabulary


def bound(
    fusions: Sequence[Any], spec: TransducerSpec, vocabulary: Vocabulary | None, batch: int
) -> list[BoundFusion]:
    """The fusions of a search over a batch of so many rows; those of weight 0 are left out.

    Raises
    ------
    InputError
        If a fusion does not fit the vocabulary, or has other rows than the batch.
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
            continue
        automaton = fusion.automaton(spec.vocab_size, spec.blank, pieces)
        if len(automaton.start) not in (1, batch):
            raise InputError(f"phrases are given for {len(automaton.start)} rows, encoder_out has {batch}")
        found.append(BoundFusion(fusion.weight, automaton, None, automaton.start.astype(np.int64)[:, None]))
    return found
