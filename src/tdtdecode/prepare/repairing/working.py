"""The working copy of a repair: what every step reads and changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...bundle.description import Bundle
from ...bundle.onnx_files.parsing import parse_graph
from ...bundle.reading import read_bundle
from ...errors import BundleError
from ..inspection.evidence import Evidence, collect


@dataclass(frozen=True)
class Change:
    """One change.

    Attributes
    ----------
    file, field:
        The file's name, and the place in it; the field is "" if the whole file was changed.
    before, after:
        The old and the new value, as text.
    why:
        Where the new value comes from.
    """

    file: str
    field: str
    before: str
    after: str
    why: str


@dataclass
class Repairs:
    """A working copy of a directory, and what has been changed in it.

    Attributes
    ----------
    folder:
        The working copy.
    layout, variant:
        Which files are repaired.
    durations, big_blanks, windows:
        The duration table, and the window and its shift in feature frames, that the caller gave, or None.
    changes:
        The changes so far.
    written, removed:
        Names of the files that were written or removed.
    """

    folder: Path
    layout: str
    variant: str | None
    durations: list[int] | None
    big_blanks: tuple[int, ...] | None = None
    windows: tuple[int, int] | None = None
    changes: list[Change] = field(default_factory=list)
    written: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    _read: dict[str, Any] = field(default_factory=dict)

    def evidence(self) -> Evidence:
        """What can be read from the copy in its present state."""
        if "evidence" not in self._read:
            self._read["evidence"] = collect(self.folder, self.layout, self.variant)
        return self._read["evidence"]

    def bundle(self) -> Bundle | None:
        """The copy in its present state, as `read_bundle` reads it; None if it cannot be read."""
        if "bundle" not in self._read:
            try:
                self._read["bundle"] = read_bundle(self.folder, self.layout, self.variant)
            except BundleError:
                self._read["bundle"] = None
        return self._read["bundle"]

    def changed(self) -> None:
        """Forget what was read: files have changed."""
        self._read.clear()

    def target(self, name: str) -> Path:
        """The path at which to write a file. An old file or link there is removed, so nothing is written through it."""
        self.written.add(name)
        self.changed()
        path = self.folder / name
        path.unlink(missing_ok=True)
        return path

    def record(self, file: str, field: str, before: Any, after: Any, why: str) -> None:
        """Add a change to the list."""
        self.changes.append(Change(file, field, "nothing" if before is None else str(before)[:200], str(after), why))


def rewrite(repairs: Repairs, name: str, change: Callable[[Any], None]) -> None:
    """Apply a change to a graph's file. External weights stay where they are."""
    model = parse_graph(repairs.folder / name)
    change(model)
    repairs.target(name).write_bytes(model.SerializeToString())
