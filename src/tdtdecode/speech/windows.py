"""Recordings longer than the encoder takes at once: shown to it in windows, decoded frame by frame all the same.

The features are those of the whole recording, normalised over all of it. Windows overlap, so that the encoder knows
what comes before and after; of each only the centre is decoded, with the decoder's state carried on from window to
window, so that every frame is decoded once, and a word that lies across a seam is one word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from ..bundle.description import FEATURE_FRAME_SECONDS, FeatureSettings
from ..decoder import Decoder, DecoderState
from ..hypothesis import Hypothesis, joined
from ..search import Beam, Greedy
from .encoder import Encoder

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


def decode_in_windows(
    features: np.ndarray,
    encoder: Encoder,
    decoder: Decoder,
    search: Greedy | Beam,
    windows: Windows,
    factor: int,
    at_once: int,
) -> Hypothesis:
    """Decode one long recording.

    Parameters
    ----------
    features:
        float32 [mel, T], all of it valid.
    windows:
        How it is cut.
    factor:
        Feature frames per encoder frame.
    at_once:
        Windows that go through the encoder together.
    """
    plan = windows.over(features.shape[1], factor)
    state: DecoderState | None = None
    parts = []
    while group := list(islice(plan, at_once)):
        for window, frames in _encoded(features, group, encoder):
            (part,), state = decoder.decode_chunk([frames], None, state, final=window.last is None, search=search)
            parts.append(part)
    whole = joined(parts)
    if isinstance(search, Greedy):
        logprobs = (whole.token_logprobs, whole.duration_logprobs)
        whole = replace(whole, score=float(sum(np.sum(values, dtype=np.float64) for values in logprobs)))
    return whole


def _encoded(features: np.ndarray, group: list[Window], encoder: Encoder) -> Iterator[tuple[Window, Any]]:
    """Each window with the frames [E, t] of its centre, where the encoder left them."""
    lengths = np.array([window.stop - window.start for window in group], np.int64)
    batch = np.zeros((len(group), len(features), int(lengths.max())), np.float32)
    for row, window in zip(batch, group):
        row[:, : window.stop - window.start] = features[:, window.start : window.stop]
    encoder_out, counts = encoder(batch, lengths)
    rows = encoder.rows(encoder_out)
    for window, row, count in zip(group, rows, counts.tolist()):
        yield window, row[:, window.first : count if window.last is None else min(window.last, count)]
