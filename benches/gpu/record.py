"""Figures that are written to a file as soon as they are measured, so that a hang or an error costs one of them."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Record:
    """A JSON file of figures by section and name.

    A file that is there already is gone on with: what it has is not measured again. What failed is.

    Parameters
    ----------
    path:
        The file; None: nothing is written.
    about:
        What every result states: the machine and versions. A file of another card or version is begun anew.
    """

    def __init__(self, path: Path | None, about: dict[str, Any]):
        self._path = path
        self.values: dict[str, Any] = about
        if path is not None and path.exists():
            before = json.loads(path.read_text())
            if all(before.get(name) == about.get(name) for name in ("card", "versions")):
                self.values = before | about

    def measured(self, section: str, name: str, measure: Callable[[], Any]) -> Any:
        """The figures of that name: those in the file, or what ``measure`` returns. None if it raises; that is kept."""
        known = self.values.setdefault(section, {})
        if name in known and "error" not in known[name]:
            return known[name]
        try:
            known[name] = measure()
        except Exception as error:  # whatever a peer or a driver raises
            traceback.print_exc()
            known[name] = {"error": f"{type(error).__name__}: {error}"}
        self.write()
        return None if "error" in known[name] else known[name]

    def tried(self, section: str, name: str, make: Callable[[], Any]) -> Any:
        """What ``make`` returns, which is no figure and is not kept. None if it raises; that is kept."""
        known = self.values.setdefault(section, {})
        known.pop(name, None)
        try:
            return make()
        except Exception as error:  # whatever a peer or a driver raises
            traceback.print_exc()
            known[name] = {"error": f"{type(error).__name__}: {error}"}
            self.write()
            return None

    def write(self) -> None:
        """Write the file whole, or not at all."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_suffix(".part")
        beside.write_text(json.dumps(self.values, indent=2) + "\n")
        os.replace(beside, self._path)
