"""The frames of the big blanks of multi-blank RNN-T. No export states them, so config.json or the caller does."""

from __future__ import annotations

from pathlib import Path

from ..errors import BundleError, InputError
from .description import Stated
from .files import find_file, read_json
from .layouts import stated_durations

CONFIGURATION = "config.json"
FIELD = "big_blank_durations"
"""NeMo's name of the field in a model's configuration."""


def stated_big_blanks(root: Path) -> Stated[tuple[int, ...]] | None:
    """The big blanks that a directory's config.json states, in any layout; None if it states none.

    Raises
    ------
    BundleError
        If the field is no list of frames, each 1 or more.
    """
    file = find_file(root, CONFIGURATION)
    value = None if file is None else read_json(file).get(FIELD)
    if file is None or value is None:
        return None
    stated = stated_durations(value, file, FIELD)
    if 0 in stated.value:
        raise BundleError(f"expected frames, each 1 or more, got {list(stated.value)}", file=file, field=FIELD)
    return stated


def known_big_blanks(root: Path, asked: tuple[int, ...] | None) -> tuple[int, ...]:
    """The big blanks that a caller gave, else those that the directory states, else none."""
    if asked is not None:
        return asked
    stated = stated_big_blanks(root)
    return () if stated is None else stated.value


def check_big_blanks(
    root: Path, asked: tuple[int, ...] | None, known: tuple[int, ...], joint: Path, count: int
) -> None:
    """Check the big blanks against ``count``, the entries of a joint row behind the V + 1 tokens and blank.

    Raises
    ------
    InputError
        If the caller gave another number of big blanks.
    BundleError
        If config.json did.
    """
    if len(known) == count:
        return
    found = f"{joint.name} has {count} outputs beside its tokens and its blank"
    if asked is not None:
        raise InputError(f"big_blanks has {len(known)} entries, but {found}")
    raise BundleError(f"has {len(known)} entries, but {found}", file=root / CONFIGURATION, field=FIELD)
