"""Packages that only some uses need, imported on first use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import MissingDependencyError


@contextmanager
def needed(package: str, extra: str, purpose: str) -> Iterator[None]:
    """Surrounds the import of an optional package.

    Parameters
    ----------
    package, extra, purpose:
        Its name, the extra that installs it, and what it is needed for.

    Raises
    ------
    MissingDependencyError
        If the package is not installed, or cannot be imported. In that case the message says why.
    KeyboardInterrupt
        If the user interrupted the import.
    """
    try:
        yield
    except (ImportError, OSError) as error:  # OSError: the package is there, a library that it loads is not
        raise_interrupt(error)
        absent = isinstance(error, ModuleNotFoundError) and _plain(str(error.name)) in _plain(package)
        raise MissingDependencyError(package, extra, purpose, "" if absent else str(error)) from error


def raise_interrupt(error: BaseException) -> None:
    """Raise a KeyboardInterrupt if an exception came of one.

    The import of a compiled module that is interrupted may raise an ImportError in its place.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            waiting += [one.__cause__, one.__context__]


def _plain(name: str) -> str:
    return name.replace("_", "-").lower()
