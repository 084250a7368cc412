"""How a model of whole recordings goes over a live one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from os import PathLike
from typing import Any

from ...arguments import as_number
from ...errors import BundleError, InputError
from ..windows import Windows

_MOST_FRAMES = 1 << 20


def _seconds(default: float, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Latency:
    """The windows, in seconds, in which a model of whole recordings hears a live one.

    A word is known when its chunk and the right context have come, so after at most ``chunk + right`` seconds and the
    time of computing. The encoder hears ``left + chunk + right`` seconds for each chunk.

    Parameters
    ----------
    chunk:
        How much is decoded at a time.
    right:
        How much the encoder hears after a chunk before the chunk is decoded.
    left:
        How much it hears before it.

    Raises
    ------
    InputError
        If a number is negative or not finite, or ``chunk`` is 0.
    """

    chunk: float = _seconds(0.8, "how much is decoded at a time")
    right: float = _seconds(1.0, "how much is heard after a chunk before it is decoded")
    left: float = _seconds(2.8, "how much is heard before it")

    def __post_init__(self) -> None:
        for option in fields(self):
            expected = "a number of seconds, at least 0"
            value = getattr(self, option.name)
            seconds = as_number(option.name, value, expected, low=0, high=sys.float_info.max)
            object.__setattr__(self, option.name, seconds)
        if not self.chunk:
            raise InputError("chunk must be more than 0 seconds")


_STATED = ("left_encoder_frames", "chunk_encoder_frames", "right_encoder_frames")
"""The keys under which sherpa-onnx's export scripts state the windows of an encoder, such as parakeet-unified's."""


def stated_windows(metadata: Mapping[str, str], file: str | PathLike[str]) -> Windows | None:
    """The windows that an encoder was exported for, of its metadata; None if it states none.

    Raises
    ------
    BundleError
        If they are no windows.
    """
    if not any(key in metadata for key in _STATED):
        return None
    values = [metadata.get(key, "") for key in _STATED]
    least = (0, 1, 0)
    for key, value, low in zip(_STATED, values, least, strict=True):
        if not value.isdecimal() or not low <= int(value) <= _MOST_FRAMES:
            raise BundleError(f"expected a number of frames, at least {low}, got {value!r}", file=file, field=key)
    return Windows(*map(int, values))


def windows_for(
    latency: Latency | None, frame_seconds: float, most_frames: int | None, stated: Windows | None = None
) -> Windows:
    """The windows in encoder frames.

    Parameters
    ----------
    latency:
        The windows in seconds. None: those that the encoder was exported for, or the default ones, with a shorter left
        context if the encoder takes no more.
    frame_seconds:
        Seconds of an encoder frame.
    most_frames:
        The most encoder frames that the encoder takes; None if there is no limit.
    stated:
        The windows that the encoder was exported for. Its attention sees a window in chunks of that length, each with
        that right context. None: it sees all of a window.

    Raises
    ------
    InputError
        If the encoder does not take as many, or its attention does not see such chunks.
    """
    if latency is None and stated is not None:
        return stated
    asked = latency or Latency()
    left, chunk, right = (round(seconds / frame_seconds) for seconds in (asked.left, asked.chunk, asked.right))
    chunk = max(chunk, 1)
    if most_frames is not None and latency is None:
        left = max(min(left, most_frames - chunk - right), 0)
    if most_frames is not None and left + chunk + right > most_frames:
        raise InputError(
            f"a window of {(left + chunk + right) * frame_seconds:.2f} s is longer than the "
            f"{most_frames * frame_seconds:.2f} s that the encoder takes: give a shorter Latency(...)"
        )
    if stated is not None and (chunk % stated.chunk or left % stated.chunk or right < stated.right):
        raise InputError(
            f"the encoder was exported for chunks of {stated.chunk * frame_seconds:.2f} s with "
            f"{stated.right * frame_seconds:.2f} s after them: chunk and left must be multiples of the one, and right "
            "at least the other; without a latency, its own windows are taken"
        )
    return Windows(left, chunk, right)
