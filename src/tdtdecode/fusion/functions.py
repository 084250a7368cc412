"""Scoring functions: a user writes them in Python, Numba compiles them, and the search calls them without the GIL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from numbers import Integral
from typing import Any

import numpy as np

from ..arguments import as_function, as_integer, as_tuple
from ..errors import InputError
from ..optional import needed
from ..reprs import one_line
from ..search import as_weight


@dataclass(frozen=True, eq=False)
class CompiledFunction:
    """A scoring function as machine code: the addresses of two C functions. They return 0, or 1 after an error."""

    source: ScoringFunction
    entries: int
    scores_address: int
    advance_address: int
    keep: tuple[Any, ...] = field(repr=False)

    def failure(self, kind: int, token: int, state: list[int]) -> InputError:
        """The error of a call that failed, found by making the same call again in Python.

        `kind` is 1 if `scores` raised, 2 if `advance` raised, 3 if `token` got a score that is NaN or infinite.
        """
        source, at = self.source, np.array(state, np.int64)
        name, problem = ("advance", f"token {token}, ") if kind == 2 else ("scores", "")
        where = f"{name} of the scoring function {source.name!r}, called with {problem}state {state}"
        if kind == 3:
            return InputError(f"{where}, gave token {token} a score that is NaN or infinite")
        try:
            if name == "advance":
                source.advance(at, token, np.zeros_like(at))
            else:
                source.scores(at, np.zeros(self.entries, np.float32))
        except Exception as error:
            failure = InputError(f"{where}, raised {type(error).__name__}: {error}")
            failure.__cause__ = error
            return failure
        return InputError(f"{where}, raised an error in its compiled form, though not in Python")


@dataclass(frozen=True, eq=False)
class ScoringFunction:
    """A user's own scores for tokens, computed inside the search.

    Parameters
    ----------
    scores:
        ``scores(state, out)`` writes the scores of the next token into ``out``: float32 [V + 1], in nats by token id,
        zeros at first. ``state`` is int64 [n] and stands for the tokens so far. -inf forbids a token. The entry of
        blank is ignored.
    advance:
        ``advance(state, token, next)`` writes the state after one more token into ``next``, int64 [n].
    start:
        n integers: the state before the first token.
    weight:
        Factor on the scores.

    Notes
    -----
    Numba compiles both functions (nopython mode; extra ``[numba]``). They are called from several threads at once, so
    they must depend on nothing but their arguments and constants. If one raises an error, or a score is NaN or +inf,
    the decode ends with an `InputError`.

    Examples
    --------
    >>> def scores(state, out):       # no token twice in a row
    ...     if state[0] >= 0:
    ...         out[state[0]] = -np.inf
    >>> def advance(state, token, next):
    ...     next[0] = token
    >>> no_repeats = ScoringFunction(scores, advance, start=[-1])
    """

    scores: Callable[[np.ndarray, np.ndarray], None]
    advance: Callable[[np.ndarray, int, np.ndarray], None]
    start: Sequence[int] = (0,)
    weight: float = 1.0

    def __post_init__(self) -> None:
        as_function("scores", self.scores)
        as_function("advance", self.advance)
        given = (self.start,) if isinstance(self.start, Integral) else self.start
        start = tuple(
            as_integer(f"start[{i}]", value, low=-(2**63), high=2**63 - 1)
            for i, value in enumerate(as_tuple("start", given, "integers"))
        )
        if not start:
            raise InputError("start must have at least one integer")
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "weight", as_weight("weight", self.weight))

    def __repr__(self) -> str:
        return one_line(self, f"function {self.name}", f"start {list(self.start)}", f"weight {self.weight:g}")

    @property
    def name(self) -> str:
        return getattr(self.scores, "__qualname__", repr(self.scores))

    @lru_cache(maxsize=8)  # noqa: B019 -- there are few of them, and they live as long as their decoder
    def compiled(self, entries: int) -> CompiledFunction:
        """Compile for ``entries`` = V + 1 scores.

        Raises
        ------
        MissingDependencyError
            If Numba is not installed.
        InputError
            If Numba cannot compile a function. The message ends with Numba's explanation.
        """
        with needed("numba", "numba", "a scoring function"):
            import numba
            from numba import carray, cfunc, types
        size = len(self.start)
        fast_scores, fast_advance = numba.njit(nogil=True)(self.scores), numba.njit(nogil=True)(self.advance)
        integers, floats = types.CPointer(types.int64), types.CPointer(types.float32)
        state, row = types.int64[::1], types.float32[::1]

        def call_scores(state, out):
            try:
                fast_scores(carray(state, size), carray(out, entries))
            except Exception:
                return 1
            return 0

        def call_advance(state, token, next_state):
            try:
                fast_advance(carray(state, size), token, carray(next_state, size))
            except Exception:
                return 1
            return 0

        try:
            fast_scores.compile((state, row))
            fast_advance.compile((state, types.int64, state))
            compiled_scores = cfunc(types.int32(integers, floats))(call_scores)
            compiled_advance = cfunc(types.int32(integers, types.int64, integers))(call_advance)
        except numba.core.errors.NumbaError as error:
            raise InputError(f"Numba cannot compile the scoring function {self.name!r}: {error}") from error
        keep = (compiled_scores, compiled_advance)
        addresses = int(compiled_scores.address or 0), int(compiled_advance.address or 0)
        return CompiledFunction(self, entries, *addresses, keep)
