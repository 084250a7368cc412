"""How long audio is cut for an encoder that takes only so much at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .description import FEATURE_FRAME_SECONDS, FeatureSettings

_LONGEST_SECONDS = 120.0
"""Of a window, where the encoder would take more: its attention costs the square of the length."""

_MOST_CONTEXT_SECONDS = 10.0
_LEAST_CONTEXT_SECONDS = 1.0
"""Of context on either side of the frames that are decoded. `benches.windows`: from a second on it costs no words."""


@dataclass(frozen=True)
class Windows:
    """Windows over a long recording, in encoder frames.

    Each shows the encoder `context` frames before and after its `centre` frames, which alone are decoded: the next
    window's begin where they end.
    """

    centre: int
    context: int

    @staticmethod
    def of(features: FeatureSettings) -> Windows:
        """The windows for an encoder: as long as it takes, at most two minutes.

        An eighth of it is context on either side, at most ten seconds; in short windows a second, at most a quarter.
        """
        frame_seconds = features.subsampling_factor * FEATURE_FRAME_SECONDS
        longest = int(_LONGEST_SECONDS / frame_seconds)
        if features.max_frames is not None:
            longest = min(longest, features.max_frames)
        if features.fixed_input_frames is not None:
            longest = min(longest, features.fixed_input_frames // features.subsampling_factor)
        least, most = (int(seconds / frame_seconds) for seconds in (_LEAST_CONTEXT_SECONDS, _MOST_CONTEXT_SECONDS))
        context = min(max(longest // 8, least), longest // 4, most)
        return Windows(max(longest - 2 * context, 1), context)

    def over(self, frames: int, factor: int) -> Iterator[Window]:
        """The windows over a recording of that many feature frames, `factor` of which make an encoder frame."""
        begin, ended = 0, False
        while not ended:
            left = min(begin, self.context)
            ended = (begin + self.centre) * factor >= frames
            stop = min((begin + self.centre + self.context) * factor, frames)
            yield Window((begin - left) * factor, stop, left, None if ended else left + self.centre)
            begin += self.centre


@dataclass(frozen=True)
class Window:
    """A window over a recording.

    Attributes
    ----------
    start, stop:
        The feature frames that the encoder is shown.
    first, last:
        Which of the encoder frames it makes of them are decoded; `last` is None for all that are left, in the last
        window.
    """

    start: int
    stop: int
    first: int
    last: int | None
