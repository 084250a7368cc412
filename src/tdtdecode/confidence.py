"""How sure a model is of each token: measures of how far the distribution of a joint row is from uniform.

The measures are NeMo's (`asr_confidence_utils`), after Laptev and Ginsburg, "Fast Entropy-Based Methods of Word-Level
Confidence Estimation for End-to-End Automatic Speech Recognition" (2022). Each can be computed from one sum over the
row.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from enum import IntEnum

import numpy as np

from .arguments import as_choice, as_number

MEASURES = ("max_prob", "gibbs", "tsallis", "renyi")
NORMALIZATIONS = ("lin", "exp")
AGGREGATIONS: dict[str, Callable] = {"min": np.min, "mean": np.mean, "prod": np.prod}


class Statistic(IntEnum):
    """The sum over a joint row that a measure needs; p is the softmax of the row's V + 1 token entries."""

    MAX_PROB = 1  # the largest p
    POWER_SUM = 2  # sum of p^alpha
    POWER_LOG_SUM = 3  # sum of p^alpha ln p
    SHANNON = 4  # sum of p ln p


@dataclass(frozen=True)
class Confidence:
    """How to measure the confidence of a token: from 0 (all tokens equally likely) to 1 (one token is certain).

    Blank counts as a token here. With p the softmax of the V + 1 token entries, v = V + 1, a = ``alpha``,
    S = sum p^a ln p and Q = sum p^a:

    ========  =======================================  ======================================================
    measure   lin                                      exp
    ========  =======================================  ======================================================
    max_prob  (pmax^a v^a - 1) / (v^a - 1)             the same
    gibbs     1 + S / (ln v * v^(1-a))                 (e^(a S) - m) / (1 - m), m = v^(-a v^(1-a))
    tsallis   1 + (1 - Q) / (v^(1-a) - 1)              (e^((1-Q)/(1-a)) - m) / (1 - m), m = e^((1-v^(1-a))/(1-a))
    renyi     1 + log2 Q / ((a-1) log2 v)              (Q^(1/(a-1)) v - 1) / (v - 1)
    ========  =======================================  ======================================================

    At a = 1 the last three measures are Shannon's: 1 + H / ln v (lin) and (v e^H - 1) / (v - 1) (exp), with
    H = sum p ln p. Values outside 0 to 1, which some measures give for a > 1, are clipped.

    Parameters
    ----------
    measure:
        ``"max_prob"``, ``"gibbs"``, ``"tsallis"`` or ``"renyi"``.
    alpha:
        The exponent a, above 0.
    normalization:
        ``"lin"`` or ``"exp"``.
    aggregation:
        How a word's confidence follows from those of its tokens: ``"min"``, ``"mean"`` or ``"prod"``.

    Raises
    ------
    InputError
        If an option is wrong.
    """

    measure: str = "tsallis"
    _: KW_ONLY
    alpha: float = 0.33
    normalization: str = "exp"
    aggregation: str = "min"

    def __post_init__(self) -> None:
        options = (("measure", MEASURES), ("normalization", NORMALIZATIONS), ("aggregation", tuple(AGGREGATIONS)))
        for name, names in options:
            as_choice(name, getattr(self, name), names)
        alpha = as_number("alpha", self.alpha, "a positive number", above=0, high=sys.float_info.max)
        object.__setattr__(self, "alpha", alpha)

    @property
    def statistic(self) -> tuple[Statistic, float]:
        """The sum that is needed of each joint row, and its exponent."""
        if self.measure == "max_prob":
            return Statistic.MAX_PROB, self.alpha
        if self.alpha == 1:
            return Statistic.SHANNON, self.alpha
        return (Statistic.POWER_LOG_SUM if self.measure == "gibbs" else Statistic.POWER_SUM), self.alpha

    def from_sum(self, sums: np.ndarray, entries: int) -> np.ndarray:
        """Confidences float32 [N] of N joint rows from their sums [N]; ``entries`` is V + 1."""
        x, a, v = np.asarray(sums, np.float64), self.alpha, float(entries)
        linear = self.normalization == "lin"
        if self.measure == "max_prob":
            result = ((x * v) ** a - 1) / (v**a - 1)
        elif a == 1:
            result = 1 + x / math.log(v) if linear else (v * np.exp(x) - 1) / (v - 1)
        elif self.measure == "gibbs":
            least = math.exp(-a * v ** (1 - a) * math.log(v))
            result = 1 + x / (math.log(v) * v ** (1 - a)) if linear else (np.exp(a * x) - least) / (1 - least)
        elif self.measure == "tsallis":
            least = math.exp((1 - v ** (1 - a)) / (1 - a))
            exponential = (np.exp((1 - x) / (1 - a)) - least) / (1 - least)
            result = 1 + (1 - x) / (v ** (1 - a) - 1) if linear else exponential
        elif linear:
            result = 1 + np.log2(x) / ((a - 1) * math.log2(v))
        else:
            result = (x ** (1 / (a - 1)) * v - 1) / (v - 1)
        return np.clip(result, 0, 1).astype(np.float32)

    def aggregate(self, confidences: np.ndarray) -> float:
        """A word's confidence from those of its tokens, [n] with n > 0."""
        return float(AGGREGATIONS[self.aggregation](confidences))
