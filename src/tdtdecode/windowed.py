"""Recordings longer than the encoder takes at once: shown to it in windows, decoded frame by frame all the same.

The features are those of the whole recording, normalised over all of it. Windows overlap, so that the encoder knows
what comes before and after; of each only the centre is decoded, with the decoder's state carried on from window to
window, so that every frame is decoded once, and a word that lies across a seam is one word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from .bundle.windows import Window, Windows
from .decoder import Decoder, DecoderState
from .encoder import Encoder
from .hypothesis import Hypothesis, joined
from .search import Beam, Greedy


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
