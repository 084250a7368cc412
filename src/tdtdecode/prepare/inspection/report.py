"""What an inspection says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Fact:
    """Something a directory tells about its model.

    Attributes
    ----------
    name, value:
        What it is; numbers, texts or lists of them.
    file, field:
        Where it was read: the file's name, and what in it.
    """

    name: str
    value: Any
    file: str
    field: str = ""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong.

    Attributes
    ----------
    code:
        A short name, the same in every release.
    file, field:
        Where: the file's name, or ``"."`` for the directory; and what in it, or "".
    found:
        What is there.
    expected:
        What should be, and why.
    remedy:
        What to do.
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
        return f"{self.file}, {self.field}" if self.field else self.file


@dataclass(frozen=True)
class Use:
    """Whether a system can use the directory as it is; if not, the reasons."""

    system: str
    usable: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """What a model directory is, what is wrong with it, and what it can be used with.

    Attributes
    ----------
    directory:
        Links resolved.
    layout, variant:
        Which files were looked at; the layout is None where there are none.
    facts, problems, uses:
        In the order to read them in.
    notes:
        What is as it may be, but is good to know.
    """

    directory: Path
    layout: str | None
    variant: str | None
    facts: tuple[Fact, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    uses: tuple[Use, ...]

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"directory": str(self.directory), "ok": self.ok}
