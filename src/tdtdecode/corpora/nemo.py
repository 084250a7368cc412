"""NeMo's manifests: a path, and often an offset, a duration and the text."""

from __future__ import annotations

import math
import os
from typing import Any

from ..arguments import shown
from ..speech.audio import Audio, Segment
from .kind import Fields, Kind, removed, replaced

PATH = "audio_filepath"
_PATHS = (PATH, "audio_filename")
"""The fields that name the recording."""
_TEXTS = ("text", "normalized_text")
"""The fields of the reference, the first one that is there."""


def matches(fields: Fields) -> bool:
    return any(name in fields for name in _PATHS)


def check(fields: Fields) -> None:
    path = _path(fields)
    if isinstance(path, list):
        raise ValueError(f"names {len(path)} files for one recording, which is not read: mix them into one file")
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError(f"has {shown(path)} where the path of a recording was expected")
    if "shard_id" in fields:
        raise ValueError(
            "belongs to a tarred dataset (it has a shard_id): unpack the tar files (tar -xf), and remove shard_id"
        )
    for name in ("offset", "duration"):
        value = fields.get(name)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value)
        ):
            raise ValueError(f"has {name} {shown(value)}; expected a number of seconds, or null")
    if (fields.get("offset") or 0) < 0:
        raise ValueError(f"has offset {shown(fields['offset'])}; expected at least 0")


def name(fields: Fields) -> str:
    part = _part(fields, str(_path(fields)))
    times = f" {part.times}" if isinstance(part, Segment) and part.start else ""
    return f"{_path(fields)}{times}"


def seconds(fields: Fields) -> float | None:
    """The duration. As in NeMo, one of 0 or less means that the recording is read to its end."""
    value = fields.get("duration")
    return float(value) if value is not None and value > 0 else None


def reference(fields: Fields) -> str | None:
    found = next((fields[name] for name in _TEXTS if fields.get(name) is not None), None)
    return None if found is None else str(found)


def audio(fields: Fields, folder: str) -> Audio:
    return _part(fields, _resolved(_path(fields), folder))


def file(fields: Fields, folder: str) -> tuple[str, float, float | None]:
    return _resolved(_path(fields), folder), float(fields.get("offset") or 0), seconds(fields)


def _path(fields: Fields) -> Any:
    return next(fields[name] for name in _PATHS if name in fields)


def _part(fields: Fields, path: str) -> str | Segment:
    start, duration = float(fields.get("offset") or 0), seconds(fields)
    return Segment(path, start, duration) if start or duration is not None else path


def _resolved(path: str, folder: str) -> str:
    """The path of a recording as NeMo finds it: relative to the manifest's folder, else as it stands."""
    beside = os.path.join(folder, path)
    if not os.path.isabs(path) and os.path.isfile(beside):
        return beside
    return os.path.expanduser(path)


KIND = Kind(
    expected="audio_filepath (a NeMo manifest)",
    matches=matches, check=check, name=name, seconds=seconds, reference=reference, audio=audio, file=file,
    results=lambda fields: fields, with_results=replaced, without=removed,
)  # fmt: skip
