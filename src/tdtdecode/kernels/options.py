"""The options of a search as the kernels take them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from ..search import Beam, Greedy


class Strategy(IntEnum):
    """How hypotheses are extended and pruned; see `tdtdecode.Beam`."""

    GREEDY = 0
    TSD = 1
    MALSD = 2


@dataclass(frozen=True)
class EngineOptions:
    """A search's options as the kernels take them."""

    strategy: Strategy
    size: int
    max_symbols: int
    blank_penalty: float
    threshold: float
    temperature: float
    blank_mode: int
    prune_early: bool
    statistic: int
    alpha: float

    @staticmethod
    def of(search: Greedy | Beam, fused: bool) -> EngineOptions:
        """``fused``: whether fusion steers the search. Without, a beam of one is greedy search."""
        statistic, alpha = (0, 1.0) if search.confidence is None else search.confidence.statistic
        common = search.max_symbols, search.blank_penalty
        if isinstance(search, Greedy) or (search.strategy == "tsd" and search.size == 1 and not fused):
            return EngineOptions(Strategy.GREEDY, 1, *common, np.inf, 1.0, 0, False, statistic, alpha)
        return EngineOptions(
            Strategy[search.strategy.upper()],
            search.size,
            *common,
            search.threshold,
            search.temperature,
            ("no_score", "lm_weighted_full").index(search.blank_mode),
            search.pruning_mode == "early",
            statistic,
            alpha,
        )
