"""Manifests: lists of recordings, one JSON object on each line."""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..arguments import as_path
from ..errors import InputError
from ..speech.audio import name_of
from .kinds import KINDS, Entry, kind_of
from .lines import opened, parsed, raw_lines, spooled

_MOST_NAMED = 5
"""The most damaged lines in a message."""
_SHARDS = re.compile(r"_OP_.*_CL_|\{[^}]*\.\.[^}]*\}|\[[^]]*\.\.[^]]*\]")
"""How NeMo writes the names of several files as one."""
_TARRED = re.compile(r"(^|/)tarred_audio_manifest\.json$|/sharded_manifests/manifest_\d+\.json$")
"""By these names NeMo knows the manifests of recordings in tar files."""


@dataclass(eq=False)
class Manifest:
    """A list of recordings in a file, whose lines are sound. To iterate over it reads it again: it may be long.

    Attributes
    ----------
    path:
        The file that is read.
    name:
        What messages call it.
    kind:
        What its lines are: ``"nemo"`` or ``"lhotse"``.
    folder:
        The folder that paths in it are relative to.
    entries:
        The number of recordings.
    seconds:
        Their length, as far as it is stated.
    stated:
        For how many recordings it is.
    """

    path: Path
    name: str
    kind: str
    folder: str
    entries: int
    seconds: float
    stated: int

    def __len__(self) -> int:
        return self.entries

    def __iter__(self) -> Iterator[Entry]:
        with opened(self.path) as file:
            index = 0
            for number, line in enumerate(raw_lines(file, self.name), 1):
                if line.strip():
                    try:
                        fields = parsed(line)
                    except ValueError as error:
                        raise InputError(f"{self.name}: line {number} {error}; it was sound before") from None
                    yield Entry(index, number, fields, self.kind, self.folder)
                    index += 1


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Check a manifest, and count what is in it. No recording is opened.

    Parameters
    ----------
    path:
        NeMo's manifest or lhotse's cuts, as JSON Lines, which may be compressed with gzip, bzip2 or xz; a pipe; or
        ``"-"`` for standard input. Empty lines are passed over.

    Raises
    ------
    InputError
        If there is no such file, it is something else, or lines are damaged. They are named by their numbers.
    """
    path = as_path("manifest", path, "the path of a manifest")
    name = "standard input" if str(path) == "-" else name_of(path)
    _refuse_shards(path, name)
    copied = spooled(path)
    folder = "" if copied is not None else os.path.dirname(os.path.abspath(path))
    manifest = Manifest(copied or path, name, "", folder, 0, 0.0, 0)
    if copied is not None:
        weakref.finalize(manifest, copied.unlink, missing_ok=True)
    damaged: list[str] = []
    count = 0
    with opened(manifest.path) as file:
        for number, line in enumerate(raw_lines(file, name), 1):
            if not line.strip():
                continue
            try:
                fields = parsed(line)
                kind = kind_of(fields)
                manifest.kind = manifest.kind or kind
                if kind != manifest.kind:
                    raise ValueError(f"is of another kind than the lines before it ({kind}, not {manifest.kind})")
                KINDS[kind].check(fields)
                seconds = KINDS[kind].seconds(fields)
            except ValueError as error:
                count += 1
                if count <= _MOST_NAMED:
                    damaged.append(f"line {number} {error}")
                continue
            manifest.entries += 1
            if seconds is not None:
                manifest.seconds += seconds
                manifest.stated += 1
    if damaged:
        more = f"; and {count - len(damaged)} more lines" if count > len(damaged) else ""
        whole = "; expected one JSON object on each line" if damaged[0].startswith("line 1 is ") else ""
        raise InputError(f"{name}: {'; '.join(damaged)}{more}{whole}")
    if not manifest.entries:
        raise InputError(f"{name}: has no lines; expected one JSON object on each line")
    return manifest


def _refuse_shards(path: Path, name: str) -> None:
    """Refuse what NeMo and lhotse read together with tar files."""
    if path.is_dir():
        raise InputError(f"{name}: is a folder; expected a manifest, one file of JSON Lines")
    if _TARRED.search(os.path.abspath(path).replace(os.sep, "/")):
        raise InputError(
            f"{name}: is the manifest of a tarred dataset: its recordings lie in tar files; unpack them (tar -xf), and "
            "give a manifest of another name with their paths"
        )
    if not path.exists() and _SHARDS.search(str(path)):
        raise InputError(
            f"{name}: names several manifests at once, which is not read; give one after the other, or join them: "
            "cat manifest_*.json > manifest.jsonl"
        )
