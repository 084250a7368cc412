"""Compiled automata on disk. They are memory-mapped, so that several processes share their pages."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, SlowerWarning
from ..outputs import new_file
from .automaton import DTYPES, Automaton

CACHE_VARIABLE = "TDTDECODE_CACHE"
"""Environment variable that names the folder for compiled tables."""
VERSION = 3
"""Goes up with each change of what is compiled or how it is stored: older entries are not found then."""
SUFFIX = ".tables"

_DIGEST, _LENGTH, _ALIGNMENT = 32, 8, 64

_log = logging.getLogger(__name__)

Compiled = tuple[Automaton, dict[str, Any]]
"""An automaton, and JSON values that belong to it."""


def cache_folder() -> Path:
    """The folder for compiled tables: TDTDECODE_CACHE, else ``tdtdecode`` in XDG_CACHE_HOME or ``~/.cache``."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tdtdecode"


def cached(key: dict, entries: int, compile_automaton: Callable[[], Compiled]) -> Compiled:
    """The automaton of a key: memory-mapped from the cache, or compiled and stored there.

    An entry is used only if its checksum is right; else it is compiled again. If the folder cannot be written, the
    automaton stays in memory.

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
        path = cache_folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}{SUFFIX}"
    except RuntimeError:  # the user has no home directory
        return compile_automaton()
    compiled = _opened(path, entries)
    if compiled is not None:
        return compiled
    compiled = compile_automaton()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, *compiled)
    except (OSError, InputError) as error:
        warnings.warn(
            f"{path}: cannot be written ({error}); the tables stay in memory, and are compiled anew next time; "
            f"{CACHE_VARIABLE} can name another folder", SlowerWarning, stacklevel=2,
        )  # fmt: skip
        return compiled
    return _opened(path, entries) or compiled


def _opened(path: Path, entries: int) -> Compiled | None:
    """The automaton of a file; None if there is none, or it is not what `_write` wrote."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        memory = np.memmap(path, np.uint8, "r")
    except (OSError, ValueError):  # an empty file cannot be mapped
        return None
    if memory[:_DIGEST].tobytes() != hashlib.sha256(memory[_DIGEST:].data).digest():
        _log.info("%s: damaged, and compiled again", path)
        return None
    start = _aligned(_DIGEST + _LENGTH)
    length = int.from_bytes(memory[_DIGEST : _DIGEST + _LENGTH].tobytes(), "little")
    head = json.loads(memory[start : start + length].tobytes())
    arrays = {}
    for name, dtype in DTYPES.items():
        start = _aligned(start + length)
        length = head["sizes"][name] * np.dtype(dtype).itemsize
        arrays[name] = memory[start : start + length].view(dtype)
    automaton = Automaton(**arrays)
    automaton.check(entries)
    return automaton, head["values"]


def _write(path: Path, automaton: Automaton, values: dict[str, Any]) -> None:
    """Write a file: SHA-256 of all that follows; the length of a JSON text; the text and the arrays, aligned."""
    sizes = {name: len(getattr(automaton, name)) for name in DTYPES}
    head = json.dumps({"sizes": sizes, "values": values}).encode()
    content = bytearray(len(head).to_bytes(_LENGTH, "little"))
    for part in (head, *(getattr(automaton, name).tobytes() for name in DTYPES)):
        content += b"\0" * (_aligned(_DIGEST + len(content)) - _DIGEST - len(content)) + part
    with new_file(path) as file:
        file.write(hashlib.sha256(content).digest())
        file.write(content)


def _aligned(place: int) -> int:
    return -(-place // _ALIGNMENT) * _ALIGNMENT
