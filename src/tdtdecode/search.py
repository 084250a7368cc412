"""How to search: frozen option classes, validated once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

from .errors import InputError
from .transducer import as_integer


@dataclass(frozen=True)
class Greedy:
    """Greedy search: at each step the best token and, independently, the best duration.

    At frame t with row r: ``k = argmax(tokens of r)``, ``d = durations[argmax(durations of r)]``. Blank moves
    ``max(d, 1)`` frames; a token is emitted at t and moves d frames, where 0 stays.

    Parameters
    ----------
    max_symbols:
        Most tokens emitted at one frame by durations of 0; then the search moves one frame.
    blank_penalty:
        Subtracted from the blank logit for the choice, not for the reported log-probs. Above 0: fewer deletions.

    Raises
    ------
    InputError
        If an option is out of range.
    """

    max_symbols: int = 10
    blank_penalty: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_symbols", as_integer("max_symbols", self.max_symbols, low=1, high=2**31 - 1))
        if not isinstance(self.blank_penalty, Real) or not math.isfinite(self.blank_penalty):
            raise InputError(f"blank_penalty must be a finite number, got {self.blank_penalty!r}")
        object.__setattr__(self, "blank_penalty", float(self.blank_penalty))
