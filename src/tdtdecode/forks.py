"""Locks, and values computed once, for processes that fork while other threads work.

A fork copies a lock as it is. If another thread holds it at that moment, it stays locked in the child, for that thread
does not exist there.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property
else:

    class cached_property:  # noqa: N801
        """As functools.cached_property of Python 3.12. The older one holds a lock that all objects of a class share."""

        def __init__(self, compute):
            self._compute = compute
            self.__doc__ = compute.__doc__

        def __set_name__(self, owner, name):
            self._name = name

        def __get__(self, instance, owner=None):
            if instance is None:
                return self
            value = vars(instance)[self._name] = self._compute(instance)
            return value


class Lock:
    """A lock for ``with lock.held:`` that is free in a forked child. A pickled one is a new one.

    Attributes
    ----------
    held:
        Python's own lock. An exception that comes at any moment, as an interrupt does, leaves it free: between its
        being taken and the block of ``with`` no other code of Python's runs.
    """

    def __init__(self) -> None:
        self.held = threading.Lock()
        _locks.add(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return Lock, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Lock:
        return Lock()


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


def _free_locks() -> None:
    for lock in _locks:
        lock.held = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_locks)

__all__ = ["Lock", "cached_property"]
