"""The layout of a transducer's joint row: vocabulary, blanks, durations and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import numpy as np

from .arguments import as_durations, as_integer
from .errors import InputError

MAX_FRAMES = 1 << 30
"""The most frames in an utterance. A duration added to this many frames still fits an int32."""


class RowLayout(NamedTuple):
    """The layout of a joint row in the form that kernels take: ``RowLayout`` of ``csrc/tdt/row.h``.

    ``vocab_size`` is V, ``blank`` the entry of the first blank. ``blank_frames`` is int32 [B], the frames of each
    blank; ``durations`` is int32 [D].
    """

    vocab_size: int
    blank: int
    blank_frames: np.ndarray
    durations: np.ndarray


@dataclass(frozen=True)
class TransducerSpec:
    """The layout of a joint row: ``[V token logits, B blank logits among them | D duration logits]``.

    B is 1, except in multi-blank RNN-T. There the row is that of NeMo, V tokens, then the big blanks, then the blank
    that moves one frame. Wherever a token id is given, V stands for all these blanks. The predictor starts with it.

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
    big_blanks:
        The frames of each big blank, in the order of NeMo's ``big_blank_durations``. In the joint row they stand in the
        opposite order: for ``[2, 4, 8]``, entry V moves 8 frames, V + 1 moves 4, V + 2 moves 2, and V + 3 moves 1. Such
        a model has no durations, so ``durations`` must be empty, and its blanks come last.

    Raises
    ------
    InputError
        If a number is out of range, or big blanks are combined with durations or with another place of the blank.
    """

    vocab_size: int
    durations: Sequence[int] = (0, 1, 2, 3, 4)
    blank: int | None = None
    encoder_size: int | None = None
    _: KW_ONLY
    max_symbols: int | None = None
    big_blanks: Sequence[int] = ()

    def __post_init__(self) -> None:
        vocab_size = as_integer("vocab_size", self.vocab_size, low=1)
        blank = vocab_size if self.blank is None else as_integer("blank", self.blank, low=0, high=vocab_size)
        durations = as_durations("durations", self.durations)
        object.__setattr__(self, "vocab_size", vocab_size)
        object.__setattr__(self, "blank", blank)
        object.__setattr__(self, "durations", durations)
        object.__setattr__(self, "big_blanks", as_big_blanks(self.big_blanks))
        if self.big_blanks and durations:
            raise InputError("big_blanks are those of multi-blank RNN-T, which has no durations: give durations=()")
        if self.big_blanks and blank != vocab_size:
            raise InputError(f"blank must be {vocab_size}, behind all tokens, in a model with big_blanks; got {blank}")
        if self.encoder_size is not None:
            object.__setattr__(self, "encoder_size", as_integer("encoder_size", self.encoder_size, low=1))
        if self.max_symbols is not None:
            object.__setattr__(self, "max_symbols", as_integer("max_symbols", self.max_symbols, low=1))

    @property
    def num_durations(self) -> int:
        """D; 0 for RNN-T."""
        return len(self.durations)

    @property
    def token_entries(self) -> int:
        """Number of entries of tokens and blanks in a joint row, ``V + B``; ``V + 1`` without big blanks."""
        return self.vocab_size + 1 + len(self.big_blanks)

    @property
    def joint_width(self) -> int:
        """Width of a joint row, ``V + B + D``."""
        return self.token_entries + self.num_durations

    @property
    def duration_table(self) -> np.ndarray:
        """The durations as int32 [D]."""
        return np.asarray(self.durations, dtype=np.int32)

    @property
    def layout(self) -> RowLayout:
        """The layout in the form that kernels take."""
        assert self.blank is not None
        blank_frames = np.array([*reversed(self.big_blanks), 1], np.int32)
        return RowLayout(self.vocab_size, self.blank, blank_frames, self.duration_table)


def as_big_blanks(frames: object) -> tuple[int, ...]:
    """The frames of big blanks, each 1 or more; InputError for anything else."""
    big_blanks = as_durations("big_blanks", frames)
    if 0 in big_blanks:
        raise InputError(f"big_blanks must be frames, each 1 or more, got {list(big_blanks)}")
    return big_blanks
