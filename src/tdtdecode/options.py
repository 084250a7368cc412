"""A search's options in the form that kernels take: the structures of ``csrc/tdt/options.h``.

A new option is a field here and in ``options.h``, at the same place. `docs/architecture.md` lists the other files.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Any

import numpy as np

from .search import BLANK_MODES, Beam, Greedy

GREEDY_OPTIONS = np.dtype([("max_symbols", "i4"), ("blank_penalty", "f4"), ("trace", "i4")], align=True)
"""``GreedyOptions``: the options of greedy search, which beam search has too."""

BEAM_OPTIONS = np.dtype(
    [
        ("greedy", GREEDY_OPTIONS),
        ("strategy", "i4"),
        ("size", "i4"),
        ("temperature", "f4"),
        ("blank_mode", "i4"),
        ("prune_early", "i4"),
        ("statistic", "i4"),
        ("alpha", "f4"),
        ("weight_sum", "f4"),
        ("threshold", "f8"),
    ],
    align=True,
)
"""``BeamOptions``."""


class Strategy(IntEnum):
    """How hypotheses are extended and pruned: the strategies of `tdtdecode.Beam`, and greedy search."""

    GREEDY = 0
    TSD = 1
    MALSD = 2


def greedy_options(search: Greedy | Beam, trace: bool = False, most: int | None = None) -> np.void:
    """The options that both kinds of search have, as a `GREEDY_OPTIONS`.

    Parameters
    ----------
    trace:
        Whether blanks are logged like tokens.
    most:
        The model's own limit of tokens at one frame (`TransducerSpec.max_symbols`), if it has one.
    """
    symbols = search.max_symbols if most is None else min(search.max_symbols, most)
    return np.array([(symbols, search.blank_penalty, trace)], GREEDY_OPTIONS)[0]


def beam_options(search: Greedy | Beam, weights: Iterable[float] = (), most: int | None = None) -> np.void:
    """The options of a search that the beam engine runs, as a `BEAM_OPTIONS`.

    ``weights`` are those of its fusions; ``most`` is as for `greedy_options`.

    Greedy search is a strategy of the engine too. A "tsd" beam of size 1 without fusion is run as greedy search, since
    its result is the same.
    """
    weights = list(weights)
    options = np.zeros(1, BEAM_OPTIONS)[0]
    options["greedy"] = greedy_options(search, most=most)
    options["statistic"], options["alpha"] = (0, 1.0) if search.confidence is None else search.confidence.statistic
    options["weight_sum"] = sum(weights)
    chosen: dict[str, Any]
    if isinstance(search, Greedy) or (search.strategy == "tsd" and search.size == 1 and not weights):
        chosen = {"strategy": Strategy.GREEDY, "size": 1, "temperature": 1.0, "threshold": np.inf}
    else:
        chosen = {
            "strategy": Strategy[search.strategy.upper()],
            "size": search.size,
            "temperature": search.temperature,
            "threshold": search.threshold,
            "blank_mode": BLANK_MODES.index(search.blank_mode),
            "prune_early": search.pruning_mode == "early",
        }
    for name, value in chosen.items():
        options[name] = value
    return options
