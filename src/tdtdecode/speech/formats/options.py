"""What subtitles may look like."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields
from typing import Any

from ...arguments import as_integer, as_number
from ...errors import InputError


def _option(default: Any, least: float, help: str) -> Any:
    return field(default=default, metadata={"least": least, "help": help})


@dataclass(frozen=True)
class CueOptions:
    """How words become cues: what is shown together, in which lines, for how long.

    The defaults are the numbers of Netflix's style guides for timed text. A wide character (an East Asian ideograph,
    kana, Hangul, an emoji) counts as two.

    Parameters
    ----------
    max_line_length:
        The most characters in a line.
    max_wide_line_length:
        The most full-width characters in a line of Japanese, Chinese or Korean, where that is less.
    max_lines:
        The most lines in a cue.
    min_cue_seconds:
        The least time that a cue is on screen, where there is room before the next one: 20 frames of 24 per second.
    max_cue_seconds:
        The longest time that a cue is on screen.
    min_gap_seconds:
        The least time between two cues, where there is room: 2 frames. Gaps below half a second become as short.
    pause_seconds:
        A pause in speech after which a new cue begins.
    reading_speed:
        The most characters that people read in a second. Cues stay on screen for so long where there is room.

    Raises
    ------
    InputError
        If an option is not a number in its range.
    """

    max_line_length: int = _option(42, 2, "the most characters in a line; a wide character counts as two")
    max_wide_line_length: int = _option(16, 1, "the most full-width characters in a line of Japanese, Chinese, Korean")
    max_lines: int = _option(2, 1, "the most lines in a cue")
    min_cue_seconds: float = _option(5 / 6, 0.0, "the least time on screen, where there is room")
    max_cue_seconds: float = _option(7.0, 0.001, "the longest time on screen")
    min_gap_seconds: float = _option(2 / 24, 0.0, "the least time between two cues")
    pause_seconds: float = _option(1.0, 0.001, "a pause after which a new cue begins")
    reading_speed: float = _option(20.0, 0.001, "the most characters that people read in a second")

    def __post_init__(self) -> None:
        for option in fields(self):
            value, least = getattr(self, option.name), option.metadata["least"]
            if isinstance(option.default, int):
                value = as_integer(option.name, value, low=least)
            else:
                expected = f"a number of at least {least}"
                value = as_number(option.name, value, expected, low=least, high=sys.float_info.max)
            object.__setattr__(self, option.name, value)
        if self.min_cue_seconds > self.max_cue_seconds:
            raise InputError(
                f"min_cue_seconds is {self.min_cue_seconds:g}, which is more than max_cue_seconds, "
                f"{self.max_cue_seconds:g}"
            )

    def line_columns(self, wide: bool) -> int:
        """The columns of a line, with or without letters of full width."""
        return min(self.max_line_length, 2 * self.max_wide_line_length) if wide else self.max_line_length
