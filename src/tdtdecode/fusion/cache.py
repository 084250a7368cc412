"""Compiled automata on disk. They are memory-mapped, so that several processes share their pages."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .automaton import DTYPES, Automaton

CACHE_VARIABLE = "TDTDECODE_CACHE"
"""Environment variable that names the folder for compiled tables."""
VERSION = 1

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """The folder for compiled tables: TDTDECODE_CACHE, else ``tdtdecode`` in XDG_CACHE_HOME or ``~/.cache``."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tdtdecode"


def cached(key: dict, entries: int, compile_automaton: Callable[[], Automaton]) -> Automaton:
    """The automaton of a key: memory-mapped from the cache, or compiled and stored there.

    A damaged entry is compiled again. If the folder cannot be written, the automaton stays in memory.

    Parameters
    ----------
    key:
        Everything that the automaton depends on, as JSON values.
    entries:
        V + 1, to check the stored tables.
    compile_automaton:
        Called if the cache has no usable entry.
    """
    text = json.dumps({**key, "version": VERSION}, sort_keys=True)
    try:
        folder = cache_folder() / hashlib.sha256(text.encode()).hexdigest()[:32]
    except RuntimeError:  # the user has no home directory
        return compile_automaton()
    automaton = _opened(folder, entries)
    if automaton is not None:
        return automaton
    automaton = compile_automaton()
    try:
        _write(folder, automaton)
    except OSError as error:
        _log.info("%s: cannot be written (%s); the compiled tables stay in memory", folder, error)
        return automaton
    return _opened(folder, entries) or automaton


def _opened(folder: Path, entries: int) -> Automaton | None:
    try:
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in DTYPES}
        automaton = Automaton(**arrays)
        automaton.check(entries)
    except (OSError, ValueError, IndexError):
        return None
    return automaton


def _write(folder: Path, automaton: Automaton) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    try:
        for name in DTYPES:
            np.save(fresh / f"{name}.npy", getattr(automaton, name), allow_pickle=False)
        # What is there is damaged, or another process has just written the same: either may go.
        shutil.rmtree(folder, ignore_errors=True)
        fresh.replace(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
