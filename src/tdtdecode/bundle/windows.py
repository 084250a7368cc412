"""How long audio is cut for an encoder that takes only so much at once."""

from __future__ import annotations

from dataclasses import dataclass

from .description import FEATURE_FRAME_SECONDS, FeatureSettings

_LONGEST_SECONDS = 120.0
"""Of a window, where the encoder would take more: its attention costs the square of the length."""

_CONTEXT_SECONDS = 10.0
"""Most context on either side of the frames that are decoded."""


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
        """The windows for an encoder: as long as it takes, at most two minutes, an eighth of it context either way."""
        frame_seconds = features.subsampling_factor * FEATURE_FRAME_SECONDS
        longest = int(_LONGEST_SECONDS / frame_seconds)
        if features.max_frames is not None:
            longest = min(longest, features.max_frames)
        if features.fixed_input_frames is not None:
            longest = min(longest, features.fixed_input_frames // features.subsampling_factor)
        context = min(longest // 8, int(_CONTEXT_SECONDS / frame_seconds))
        return Windows(max(longest - 2 * context, 1), context)
