"""The kinds of manifest: what the fields of a line mean, and where results stand in it.

To add a kind, write a file beside this one that ends with its ``KIND``, and give it a line in the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..speech.audio import Audio
from . import lhotse_cuts, nemo
from .kind import ERROR, PREDICTION, Kind

KINDS: dict[str, Kind] = {"nemo": nemo.KIND, "lhotse": lhotse_cuts.KIND}
"""Name -> kind."""


@dataclass(frozen=True)
class Entry:
    """A recording of a manifest.

    Attributes
    ----------
    index:
        Its place among the recordings, from 0.
    line:
        The number of its line, from 1.
    fields:
        What the line says.
    kind:
        The kind of the manifest, a name in `KINDS`.
    folder:
        The folder of the manifest, which paths are relative to.
    """

    index: int
    line: int
    fields: Mapping[str, Any]
    kind: str
    folder: str

    @property
    def name(self) -> str:
        """What messages call the recording."""
        return KINDS[self.kind].name(self.fields)

    @property
    def seconds(self) -> float | None:
        """Its length as the manifest states it; None if it does not."""
        return KINDS[self.kind].seconds(self.fields)

    @property
    def reference(self) -> str | None:
        """What is said in it; None if the manifest does not state that."""
        return KINDS[self.kind].reference(self.fields)

    @property
    def prediction(self) -> str | None:
        """The text that was recognised; None if there is none."""
        found = KINDS[self.kind].results(self.fields).get(PREDICTION)
        return found if isinstance(found, str) else None

    @property
    def error(self) -> str | None:
        """Why it was not transcribed; None if that did not fail."""
        found = KINDS[self.kind].results(self.fields).get(ERROR)
        return None if found is None else str(found)

    def audio(self) -> Audio:
        """The recording, for `Recognizer.recognize`.

        Raises
        ------
        InputError, MissingDependencyError
            If it cannot be read, as far as that shows now.
        """
        return KINDS[self.kind].audio(self.fields, self.folder)

    def file(self) -> tuple[str, float, float | None] | None:
        """The path of the recording's file, where it begins in it, and its length, in seconds; None if it has none."""
        return KINDS[self.kind].file(self.fields, self.folder)

    def with_results(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """The fields with results added. Those of an earlier run are removed."""
        return KINDS[self.kind].with_results(self.fields, results)

    def is_of(self, fields: Mapping[str, Any], names: set[str]) -> bool:
        """Whether a line of results, which have these names, belongs to this entry."""
        kind = KINDS[self.kind]
        return same(kind.without(fields, names), kind.without(self.fields, names))


def kind_of(fields: Mapping[str, Any]) -> str:
    """The kind of manifest that a line belongs to.

    Raises
    ------
    ValueError
        If it is of none. The message says what was expected.
    """
    for name, kind in KINDS.items():
        if kind.matches(fields):
            return name
    raise ValueError(f"has neither {' nor '.join(kind.expected for kind in KINDS.values())}")


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same. NaN is the same as NaN."""
    import json

    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
