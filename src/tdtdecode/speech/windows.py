"""Recordings that are too long for the encoder. It gets overlapping windows of them; the decoder sees one stream.

The features are computed and normalised over the whole recording. Windows overlap, so that the encoder sees what comes
before and after the frames that count. Only the chunk in the middle of each window is decoded, and the decoder's state
is carried on from window to window. So every frame is decoded once, and a word that crosses from one window to the next
stays one word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any

import numpy as np

from ..bundle.description import FEATURE_FRAME_SECONDS, FeatureSettings
from ..decoder import Decoder, DecoderState
from ..hypothesis import Hypothesis, joined
from ..search import Beam, Greedy
from .audio.device_features import together
from .encoder import Encoder

_LONGEST_SECONDS = 120.0
"""The longest window, even if the encoder takes more: the cost of its attention grows with the square of the length."""

_MOST_CONTEXT_SECONDS = 10.0
_LEAST_CONTEXT_SECONDS = 1.0
"""Context on either side of the chunk. `benches.windows` shows that a second is enough not to lose words."""


@dataclass(frozen=True)
class Windows:
    """How a recording is cut into windows; sizes in encoder frames.

    Each window has `chunk` frames that are decoded. The `left` frames before them and the `right` ones after them only
    the encoder sees. The chunks follow each other without a gap.
    """

    left: int
    chunk: int
    right: int

    @staticmethod
    def of(features: FeatureSettings) -> Windows:
        """The windows for an encoder: as long as it takes, but at most two minutes.

        The context on either side is an eighth of the window, at least a second and at most ten seconds, and never more
        than a quarter of the window.
        """
        frame_seconds = features.subsampling_factor * FEATURE_FRAME_SECONDS
        longest = int(_LONGEST_SECONDS / frame_seconds)
        if features.max_frames is not None:
            longest = min(longest, features.max_frames)
        if features.fixed_input_frames is not None:
            longest = min(longest, features.fixed_input_frames // features.subsampling_factor)
        least, most = (int(seconds / frame_seconds) for seconds in (_LEAST_CONTEXT_SECONDS, _MOST_CONTEXT_SECONDS))
        context = min(max(longest // 8, least), longest // 4, most)
        return Windows(context, max(longest - 2 * context, 1), context)

    def at(self, begin: int, frames: int, factor: int, ended: bool = True) -> Window | None:
        """The window whose chunk begins at an encoder frame.

        Parameters
        ----------
        frames:
            The feature frames there are.
        factor:
            Feature frames per encoder frame.
        ended:
            Whether there will be no more.

        Returns
        -------
        The window; None if it needs feature frames that are still to come.
        """
        stop = (begin + self.chunk + self.right) * factor
        if not ended and frames < stop:
            return None
        left = min(begin, self.left)
        is_last = ended and (begin + self.chunk) * factor >= frames
        return Window((begin - left) * factor, min(stop, frames), left, None if is_last else left + self.chunk)

    def over(self, frames: int, factor: int) -> Iterator[Window]:
        """The windows over a recording of `frames` feature frames, of which `factor` make an encoder frame."""
        for begin in count(0, self.chunk):
            window = self.at(begin, frames, factor)
            assert window is not None
            yield window
            if window.last is None:
                return


@dataclass(frozen=True)
class Window:
    """A window over a recording.

    Attributes
    ----------
    start, stop:
        The feature frames that go through the encoder.
    first, last:
        The encoder frames of this window that are decoded, the chunk. `last` is None in the last window, which is
        decoded to its end.
    """

    start: int
    stop: int
    first: int
    last: int | None


class WindowedDecode:
    """Decodes the windows of one long recording, in order, as one stream.

    Parameters
    ----------
    factor:
        Feature frames per encoder frame.
    """

    def __init__(self, decoder: Decoder, search: Greedy | Beam, factor: int):
        self._decoder, self._search, self._factor = decoder, search, factor
        self._state: DecoderState | None = None
        self._parts: list[Hypothesis] = []

    def add(self, window: Window, frames: Any) -> float:
        """Decode the encoder frames [E, t] of a window's chunk. Returns how many seconds of the recording are done."""
        (part,), self._state = self._decoder.decode_chunk(
            [frames], None, self._state, final=window.last is None, search=self._search
        )
        self._parts.append(part)
        end = window.stop if window.last is None else window.start + window.last * self._factor
        return end * FEATURE_FRAME_SECONDS

    def so_far(self) -> Hypothesis:
        """What was decoded up to the last window that was added: of the whole recording after its last one."""
        return joined_stream(self._parts, self._search)


def decode_in_windows(
    features: np.ndarray,
    encoder: Encoder,
    decoder: Decoder,
    search: Greedy | Beam,
    windows: Windows,
    factor: int,
    at_once: int,
) -> Hypothesis:
    """Decode one long recording; parameters as for `encoded_windows` and `WindowedDecode`."""
    decode = WindowedDecode(decoder, search, factor)
    for window, frames in encoded_windows(features, encoder, windows, factor, at_once):
        decode.add(window, frames)
    return decode.so_far()


def joined_stream(parts: list[Hypothesis], search: Greedy | Beam) -> Hypothesis:
    """The hypothesis of a whole stream, of those of its chunks."""
    whole = joined(parts)
    if isinstance(search, Greedy):
        logprobs = (whole.token_logprobs, whole.duration_logprobs)
        whole = replace(whole, score=float(sum(np.sum(values, dtype=np.float64) for values in logprobs)))
    return whole


def encoded_windows(
    features: Any, encoder: Encoder, windows: Windows, factor: int, at_once: int
) -> Iterator[tuple[Window, Any]]:
    """Encode one long recording.

    Parameters
    ----------
    features:
        float32 [mel, T], without padding, where the encoder takes them.
    windows:
        How the recording is cut.
    factor:
        Feature frames per encoder frame.
    at_once:
        The number of windows that go through the encoder together.

    Yields
    ------
    Each window with the encoder frames [E, t] of its chunk, on the encoder's device.
    """
    plan = windows.over(features.shape[1], factor)
    while group := list(islice(plan, at_once)):
        yield from _encoded(features, group, encoder)


def _encoded(features: Any, group: list[Window], encoder: Encoder) -> Iterator[tuple[Window, Any]]:
    """Each window with the encoder frames [E, t] of its chunk, on the encoder's device."""
    lengths = np.array([window.stop - window.start for window in group], np.int64)
    batch = together([features[:, window.start : window.stop] for window in group], int(lengths.max()))
    encoder_out, counts = encoder(batch, lengths)
    for window, frames, valid in zip(group, encoder.utterances(encoder_out), counts.tolist()):
        yield window, frames[:, window.first : valid if window.last is None else min(window.last, valid)]
