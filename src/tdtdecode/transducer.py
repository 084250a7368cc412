"""The layout of a transducer's joint row: vocabulary, blank, durations and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .arguments import as_durations, as_integer

MAX_FRAMES = 1 << 30
"""The most frames in an utterance. A duration added to this many frames still fits an int32."""


@dataclass(frozen=True)
class TransducerSpec:
    """The layout of a joint row: ``[V + 1 token logits, blank among them | D duration logits]``.

    Parameters
    ----------
    vocab_size:
        V, the number of tokens **without** blank.
    durations:
        The D durations in frames, by index; each 0 or more, in any order. Empty for RNN-T.
    blank:
        Id of blank, from 0 to V. The default is V: blank comes last, as in NeMo. Models of k2 have it first, at 0.
    encoder_size:
        E, the width of an encoder frame, if known. Encoder output is then checked against it.
    max_symbols:
        The most tokens at one frame that the model was trained for: 1 in models of k2. It is the limit of every
        search, whose own ``max_symbols`` may only be lower. None: the model sets no limit.

    Raises
    ------
    InputError
        If a number is out of range.
    """

    vocab_size: int
    durations: Sequence[int] = (0, 1, 2, 3, 4)
    blank: int | None = None
    encoder_size: int | None = None
    max_symbols: int | None = None

    def __post_init__(self) -> None:
        vocab_size = as_integer("vocab_size", self.vocab_size, low=1)
        blank = vocab_size if self.blank is None else as_integer("blank", self.blank, low=0, high=vocab_size)
        durations = as_durations("durations", self.durations)
        object.__setattr__(self, "vocab_size", vocab_size)
        object.__setattr__(self, "blank", blank)
        object.__setattr__(self, "durations", durations)
        if self.encoder_size is not None:
            object.__setattr__(self, "encoder_size", as_integer("encoder_size", self.encoder_size, low=1))
        if self.max_symbols is not None:
            object.__setattr__(self, "max_symbols", as_integer("max_symbols", self.max_symbols, low=1))

    @property
    def num_durations(self) -> int:
        """D; 0 for RNN-T."""
        return len(self.durations)

    @property
    def joint_width(self) -> int:
        """Width of a joint row, ``V + 1 + D``."""
        return self.vocab_size + 1 + self.num_durations

    @property
    def duration_table(self) -> np.ndarray:
        """The durations as int32 [D]."""
        return np.asarray(self.durations, dtype=np.int32)
