"""lhotse's cuts. Results stand among the custom fields of a cut, so that lhotse can read it again."""

from __future__ import annotations

import copy
import math
from typing import Any

from ..arguments import shown
from ..errors import InputError, TdtDecodeError
from ..optional import needed, raise_interrupt
from ..speech.audio import Audio, Segment
from .kind import Fields, Kind, removed, replaced

_CUTS = ("MonoCut", "MultiCut", "MixedCut", "Cut")
_FILE = "file"


def matches(fields: Fields) -> bool:
    return fields.get("type") in (*_CUTS, "PaddingCut") or "sources" in fields or "recording_id" in fields


def check(fields: Fields) -> None:
    if fields.get("type") not in _CUTS:
        kind = "a recording" if "sources" in fields else "a supervision" if "recording_id" in fields else "padding"
        raise ValueError(f"is {kind} of lhotse, not a cut: make cuts, with 'lhotse cut simple' for example")
    for cut in _parts(fields):
        if not isinstance(cut, dict):
            raise ValueError(f"is no cut: a track has {shown(cut)} where a cut was expected")
        duration = cut.get("duration")
        if isinstance(duration, bool) or not isinstance(duration, (int, float)) or not 0 < duration < math.inf:
            raise ValueError(f"is a cut with duration {shown(duration)}; expected a number of seconds above 0")
        if cut.get("type") == "PaddingCut":
            continue
        sources = _sources(cut)
        if not sources:
            raise ValueError("is a cut without a recording: it has features alone, or damage")
        for source in sources:
            place = source.get("type") if isinstance(source, dict) else None
            if place == "shar" or "shard_origin" in (cut.get("custom") or {}):
                raise ValueError("belongs to shards of lhotse (Shar), whose recordings lie in tar files: export them "
                                 "with CutSet.save_audios, and give the manifest that this returns")  # fmt: skip
            if place == "command":
                raise ValueError("has a recording that a command makes, and no command is run: write it to a file")


def name(fields: Fields) -> str:
    return str(fields.get("id", "a cut"))


def seconds(fields: Fields) -> float | None:
    if "tracks" not in fields:
        return float(fields["duration"])
    return max(float(track.get("offset") or 0) + float(track["cut"]["duration"]) for track in fields["tracks"])


def reference(fields: Fields) -> str | None:
    """The texts of all supervisions, in the order of their times."""
    found = []
    for track, cut in zip(fields.get("tracks") or [{}], _parts(fields)):
        for supervision in cut.get("supervisions") or []:
            if supervision.get("text") is not None:
                start = float(track.get("offset") or 0) + float(supervision.get("start") or 0)
                found.append((start, str(supervision["text"])))
    return " ".join(text for _, text in sorted(found, key=lambda one: one[0])) if found else None


def audio(fields: Fields, folder: str) -> Audio:
    """A part of a file where the cut is no more than that; else what lhotse makes of it."""
    with needed("lhotse", "lhotse", "reading lhotse's cuts"):
        from lhotse.serialization import deserialize_item
    try:
        cut = deserialize_item(copy.deepcopy(dict(fields)))
        if (found := file(fields, folder)) is not None:
            return Segment(*found)
        return cut.load_audio().T, int(cut.sampling_rate)
    except TdtDecodeError:
        raise
    except Exception as error:  # lhotse's readers raise what their libraries do
        raise_interrupt(error)
        raise InputError(f"{name(fields)}: lhotse cannot read it ({type(error).__name__}: {error})") from error


def file(fields: Fields, folder: str) -> tuple[str, float, float | None] | None:
    """The part of a file that a cut is; None if it is a mixture, one of several channels, or changed by lhotse."""
    if fields.get("type") not in ("MonoCut", "Cut"):
        return None
    recording, sources = fields["recording"], _sources(fields)
    plain = len(sources) == 1 and sources[0].get("type") == _FILE and list(sources[0].get("channels", [])) == [0]
    if not plain or recording.get("transforms"):
        return None
    return str(sources[0]["source"]), float(fields.get("start") or 0), float(fields["duration"])


def results(fields: Fields) -> Fields:
    found = _holder(fields).get("custom")
    return found if isinstance(found, dict) else {}


def with_results(fields: Fields, made: Fields) -> dict[str, Any]:
    changed = copy.deepcopy(dict(fields))
    holder = _holder(changed)
    holder["custom"] = replaced(holder.get("custom") or {}, made)
    return changed


def without(fields: Fields, names: set[str]) -> dict[str, Any]:
    changed = copy.deepcopy(dict(fields))
    holder = _holder(changed)
    holder["custom"] = removed(holder.get("custom") or {}, names)
    return changed


def _parts(fields: Fields) -> list[Any]:
    """The cuts of a mixture, or the one cut itself."""
    if "tracks" not in fields:
        return [fields]
    tracks = fields["tracks"]
    if not isinstance(tracks, list) or not tracks or not all(isinstance(track, dict) for track in tracks):
        raise ValueError("is a mixture whose tracks are damaged")
    return [track.get("cut") for track in tracks]


def _holder(fields: Any) -> Any:
    """The cut whose custom fields lhotse takes for those of the whole: of a mixture, the first that is no padding."""
    parts = _parts(fields)
    return next((cut for cut in parts if cut.get("type") != "PaddingCut"), parts[0])


def _sources(cut: Fields) -> list[Any]:
    recording = cut.get("recording")
    sources = recording.get("sources") if isinstance(recording, dict) else None
    return sources if isinstance(sources, list) else []


KIND = Kind(
    expected="type MonoCut, MultiCut or MixedCut (lhotse's cuts)",
    matches=matches, check=check, name=name, seconds=seconds, reference=reference, audio=audio, file=file,
    results=results, with_results=with_results, without=without,
)  # fmt: skip
