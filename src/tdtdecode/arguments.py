"""Checks of arguments. Each returns the argument in the form that the code goes on with, or raises an InputError.

The message names the argument, says what was expected and what was given, and, where that is not clear from it, what to
do. Checks stand at the doors, before any work begins. Inside there are none.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

from .errors import InputError

MAX_DURATION = 1 << 20
"""The longest duration accepted, in frames; far more than any model has."""

Value = TypeVar("Value")

_MOST_CHARACTERS = 80
"""The longest value that is shown whole."""


def as_integer(name: str, value: object, *, low: int | None = None, high: int | None = None) -> int:
    """The value as an int from ``low`` to ``high``; None: it may be any."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise refusal(name, "an integer", value) from None
    if isinstance(value, bool):
        raise refusal(name, "an integer", value)
    if (low is not None and number < low) or (high is not None and number > high):
        raise refusal(name, f"at least {low}" if high is None else f"from {low} to {high}", value)
    return number


def as_number(
    name: str,
    value: object,
    expected: str,
    *,
    low: float = float("-inf"),
    high: float = float("inf"),
    above: float = float("-inf"),
) -> float:
    """The value as a float from ``low`` to ``high`` and greater than ``above``; ``expected`` says so in words."""
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # an integer beyond the floats
            raise refusal(name, expected, value) from None
        if low <= number <= high and (number > above or above == float("-inf")):
            return number
    raise refusal(name, expected, value)


def as_flag(name: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise refusal(name, "True or False", value)
    return value


def as_choice(name: str, value: Any, choices: Iterable[str], advice: str = "") -> str:
    """One of several names."""
    names = list(choices)
    if not isinstance(value, str) or value not in names:
        raise refusal(name, listed(map(repr, names)), value, advice)
    return value


def as_path(name: str, value: object, what: str = "a path") -> Path:
    """A path of the file system."""
    if not isinstance(value, (str, os.PathLike)):
        raise refusal(name, f"{what}, as text or pathlib.Path", value)
    path = os.fspath(value)
    if not isinstance(path, str) or "\0" in path or not path:
        raise refusal(name, f"{what}, as text or pathlib.Path", value)
    return Path(path)


def as_instance(
    name: str, value: Any, kinds: type[Value] | tuple[type[Value], ...], expected: str, advice: str = ""
) -> Value:
    """An object of a class, or of one of several; ``expected`` says how to get one."""
    if not isinstance(value, kinds):
        raise refusal(name, expected, value, advice)
    return value


def as_function(name: str, value: Any, expected: str = "a function") -> Callable:
    """Something that can be called."""
    if not callable(value):
        raise refusal(name, expected, value)
    return value


def as_tuple(name: str, value: object, expected: str) -> tuple[Any, ...]:
    """The items of a list or of anything else that can be iterated. Texts, bytes and dicts are no lists."""
    if isinstance(value, (str, bytes, bytearray, dict)):
        raise refusal(name, expected, value)
    try:
        return tuple(value)  # type: ignore[arg-type]
    except TypeError:  # also of arrays without axes, which say that they can be iterated
        raise refusal(name, expected, value) from None


def as_durations(name: str, value: object) -> tuple[int, ...]:
    """A duration table: frame counts by duration index."""
    counts = as_tuple(name, value, "a sequence of frame counts, such as (0, 1, 2, 3, 4)")
    return tuple(as_integer(f"{name}[{i}]", count, low=0, high=MAX_DURATION) for i, count in enumerate(counts))


def refusal(name: str, expected: str, value: object, advice: str = "") -> InputError:
    """The error of an argument that is wrong."""
    return InputError(f"{name} must be {expected}, got {shown(value)}{f': {advice}' if advice else ''}")


def shown(value: object) -> str:
    """A value in a message: short, on one line. An object is its class."""
    if value is None or isinstance(value, (bool, int, float, str, os.PathLike)):
        text = repr(value)
    elif isinstance(value, (bytes, bytearray)):
        text = f"{len(value)} bytes" if len(value) > _MOST_CHARACTERS // 2 else repr(value)
    elif isinstance(value, (list, tuple, dict, set, frozenset)):
        try:
            text = repr(value)
        except Exception:  # an item's own
            text = ""
        if len(text) > _MOST_CHARACTERS or "\n" in text or " at 0x" in text or not text:
            return f"a {type(value).__name__} of {len(value)}"
    elif hasattr(value, "shape") and hasattr(value, "dtype"):
        text = f"an array {value.dtype} {list(value.shape)}"
    elif isinstance(value, type):
        text = f"the class {value.__name__}: it must be called, {value.__name__}(...)"
    else:
        text = f"{'an' if type(value).__name__[:1].lower() in 'aeiou' else 'a'} {type(value).__name__}"
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."


def listed(names: Iterable[str]) -> str:
    """Names to choose from: one, two with an "or" between them, or "one of" more."""
    given = list(names)
    return " or ".join(given) if len(given) <= 2 else f"one of {', '.join(given)}"
