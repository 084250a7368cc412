"""What objects say of themselves, in one line."""

from __future__ import annotations

from collections.abc import Iterable


def one_line(thing: object, *facts: str) -> str:
    """The `repr` of an object: its class, and what it is. Empty facts are left out."""
    return f"<{type(thing).__name__}: {', '.join(fact for fact in facts if fact)}>".replace("\n", " ")


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 token", "2 tokens"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def joined_names(names: Iterable[str]) -> str:
    """Names with commas and an "and" between them."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def excerpt(text: str, most: int = 40) -> str:
    """The beginning of a text, in quotes."""
    return repr(text if len(text) <= most else f"{text[:most]}...")
