"""The result of an inspection."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...reprs import counted, one_line

REPAIR = "`tdtdecode repair DIR -o OUT`"
"""The remedy of most problems."""


@dataclass(frozen=True)
class Fact:
    """Something that was found out about a model.

    Attributes
    ----------
    name:
        What it is, such as ``"mel bins"``.
    value:
        A number, a text, None, or a list or dict of these.
    file, field:
        Where it was read: the file's name, or ``"."`` for the directory; and the place in the file, or "".
    """

    name: str
    value: Any
    file: str
    field: str = ""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a directory.

    Attributes
    ----------
    code:
        A short name for the kind of problem. It stays the same in all releases.
    file, field:
        Where the problem is: the file's name, or ``"."`` for the directory; and the place in the file, or "".
    found:
        What is there.
    expected:
        What should be there, and why.
    remedy:
        What to do about it.
    """

    code: str
    file: str
    field: str
    found: str
    expected: str
    remedy: str

    @property
    def where(self) -> str:
        """File and field, for messages."""
        if self.file == ".":
            return self.field or "the directory"
        return f"{self.file}, {self.field}" if self.field else self.file


@dataclass(frozen=True)
class Use:
    """Whether a system can use the directory as it is, and the reasons if it cannot."""

    system: str
    usable: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """What a model directory is, what is wrong with it, and which systems can use it.

    Attributes
    ----------
    directory:
        The directory's path, with links resolved.
    layout, variant:
        The files that were inspected. The layout is None if the directory has no model.
    facts:
        What was found out about the model.
    problems:
        What is wrong.
    notes:
        What is not wrong, but good to know.
    uses:
        Which systems can use the directory.
    """

    directory: Path
    layout: str | None
    variant: str | None
    facts: tuple[Fact, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    uses: tuple[Use, ...]

    def __repr__(self) -> str:
        layout = f"layout {self.layout}" if self.layout else "no model"
        usable = sum(use.usable for use in self.uses)
        systems = f"{usable} of {len(self.uses)} systems can use it"
        return one_line(self, str(self.directory), layout, counted(len(self.problems), "problem"), systems)

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """The inspection as a dict that `json` can write."""
        return asdict(self) | {"directory": str(self.directory), "ok": self.ok}
