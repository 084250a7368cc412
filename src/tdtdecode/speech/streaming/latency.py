"""How a model of whole recordings goes over a live one."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields
from typing import Any

from ...arguments import as_number
from ...errors import InputError
from ..windows import Windows


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


def windows_for(latency: Latency | None, frame_seconds: float, most_frames: int | None) -> Windows:
    """The windows in encoder frames.

    Parameters
    ----------
    latency:
        The windows in seconds. None: the default ones, with a shorter left context if the encoder takes no more.
    frame_seconds:
        Seconds of an encoder frame.
    most_frames:
        The most encoder frames that the encoder takes; None if there is no limit.

    Raises
    ------
    InputError
        If the encoder does not take as many.
    """
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
    return Windows(left, chunk, right)
