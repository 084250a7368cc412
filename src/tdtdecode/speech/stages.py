"""What a model does in each stage of the pipeline."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from ..bundle import Bundle
from ..bundle.description import FEATURE_FRAME_SECONDS
from ..confidence import Confidence
from ..cuda.device import Device, own_stream, shared_stream
from ..decoder import Decoder
from ..hypothesis import Hypothesis, Transcript
from ..search import Beam, Greedy, for_utterances
from .audio import as_samples
from .audio.device_features import Array, DeviceFeatureExtractor, together
from .audio.extractors import Extractor
from .audio.features import SAMPLE_RATE
from .batching import cheapest_batches, encoder_cost
from .encoder import Encoder
from .pipeline import AHEAD_SECONDS, READERS, Encoded, Heard, Piece
from .transcripts import nothing, transcript
from .vad import SileroVad
from .vad.skipping import SpeechPieces
from .windows import WindowedDecode, Windows, encoded_windows

_log = logging.getLogger(__name__)

Encode: TypeAlias = Callable[[Array, np.ndarray], Callable[[], tuple[Any, np.ndarray]]]
"""Takes features and lengths of a batch; gives a function that waits for the encoder output and its lengths, as
`Encoder.launched` does."""

BATCH_SIZES = {"cpu": 16, "cuda": 256}
"""The most recordings in a batch unless the caller says it, by device."""
_CARD_READERS = 8
"""Threads that read for a GPU, which takes some thousand seconds of audio in a second."""
_CARD_AHEAD = 4.0
"""Batches under way at most on a GPU: one is encoded, one is decoded, and there are others to choose from."""
_BUCKET = 200
"""On a GPU, a batch has a multiple of so many feature frames, 2 s: cuDNN prepares itself for each new width."""


class ModelStages:
    """Reads, encodes and decodes recordings with a model.

    On a GPU the threads that read copy samples to the card, and compute features there. The batches of the encoder
    follow each other on one stream. Nobody waits for them but the thread that decodes, on a stream of its own, so that
    a batch is encoded while the one before is decoded.

    Parameters
    ----------
    bundle, encoder, decoder:
        The model.
    extract:
        Computes its features, where the encoder takes them.
    search:
        How to decode.
    utterances:
        The number of recordings that the search was made for; None if it serves any number.
    batch_size:
        The most recordings in a batch; None: what suits the device.
    device:
        Where encoder and decoder run, ``"cpu"`` or ``"cuda"``: then on the card that they were made on.
    limit:
        The most feature frames that the encoder takes at once; None: there is no limit.
    windows:
        How longer recordings are cut.
    encode:
        Launches the encoder with a batch of features and lengths, and with what else it is told.
    vad:
        Finds where someone speaks; None: all is recognised.

    Attributes
    ----------
    utterances:
        As the parameter.
    """

    def __init__(
        self,
        bundle: Bundle,
        encoder: Encoder,
        decoder: Decoder,
        extract: Extractor | DeviceFeatureExtractor,
        *,
        search: Greedy | Beam,
        utterances: int | None,
        batch_size: int | None,
        device: str,
        limit: int | None,
        windows: Windows,
        encode: Encode,
        vad: SileroVad | None,
    ):
        self._bundle, self._encoder, self._decoder, self._extract = bundle, encoder, decoder, extract
        self._search, self.utterances = search, utterances
        self._encode, self._vad = encode, vad
        self._confidence = search.confidence or Confidence()
        self._batch_size = (batch_size or BATCH_SIZES[device]) if encoder.takes_batches else 1
        self._card: Device | None = decoder.network.card if device == "cuda" else None
        self._cost = encoder_cost(device, None if self._card is None else self._card.memory)
        self._bucket = 1 if self._card is None or encoder.sees_padding else _BUCKET
        self.readers = READERS if self._card is None else _CARD_READERS
        self.ahead_seconds = AHEAD_SECONDS if self._card is None else _CARD_AHEAD * self._cost.most_seconds
        self._limit = limit
        self._windows = windows
        factor = bundle.features.subsampling_factor
        self._window_seconds = (windows.left + windows.chunk + windows.right) * factor * FEATURE_FRAME_SECONDS
        at_once = int(self._cost.most_seconds / self._window_seconds)
        self._windows_at_once = max(1, at_once) if encoder.takes_batches else 1

    def thread(self, stage: str) -> AbstractContextManager[object]:
        """What a thread works within: on a GPU, the model's card and a stream, which CuPy knows for each thread."""
        return nullcontext() if self._card is None else _on_card(self._card, stage)

    def read(self, place: int, audio: Any) -> Heard:
        """Read a recording and compute its features."""
        samples = as_samples(audio, SAMPLE_RATE)
        seconds = len(samples) / SAMPLE_RATE
        finish: Callable[[list[Hypothesis]], Transcript]
        if self._vad is None:
            parts = [(0.0, samples)] if self._extract.frames(len(samples)) else []
            finish = partial(_transcript_of, self._bundle, seconds, self._confidence)
        else:
            frame = round(self._bundle.frame_seconds * SAMPLE_RATE)
            spoken = SpeechPieces(self._vad, samples, frame, self._extract.frames)
            parts = spoken.parts
            finish = partial(spoken.transcript, self._bundle, self._search)
        pieces: list[Piece] = []
        for begin, part in parts:
            features, lengths = self._extract([part])
            length = len(part) / SAMPLE_RATE
            pieces.append(Piece(place, len(pieces), features[0], int(lengths[0]), length, begin))
        return Heard(seconds, pieces, finish)

    def batches(self, pieces: Sequence[Piece]) -> list[list[Piece]]:
        """The batches that take the encoder the least time. A recording that needs windows is one by itself."""
        whole = [i for i, piece in enumerate(pieces) if not self._in_windows(piece)]
        least = (self._bundle.features.fixed_input_frames or 0) * FEATURE_FRAME_SECONDS
        lengths = [max(least, pieces[i].frames * FEATURE_FRAME_SECONDS) for i in whole]
        batches = [[whole[i] for i in batch] for batch in cheapest_batches(lengths, self._cost, self._batch_size)]
        batches += [[i] for i, piece in enumerate(pieces) if self._in_windows(piece)]
        self._log_batches(pieces, batches)
        return [[pieces[i] for i in batch] for batch in sorted(batches)]

    def _log_batches(self, pieces: Sequence[Piece], batches: list[list[int]]) -> None:
        why = "" if self._encoder.takes_batches else ", since this encoder takes one recording at a time"
        long = sum(map(self._in_windows, pieces))
        _log.info(
            "batches: %d recordings (%.1f s) in %d batches of at most %d%s%s", len(pieces),
            sum(piece.seconds for piece in pieces), len(batches), self._batch_size, why,
            f"; {long} of them in windows of {self._window_seconds:g} s" if long else "",
        )  # fmt: skip

    def encode(self, pieces: list[Piece]) -> Iterator[Encoded]:
        """Encode a batch; a recording that needs windows, window by window."""
        if self._in_windows(pieces[0]):
            (piece,) = pieces
            factor = self._bundle.features.subsampling_factor
            features = piece.features[:, : piece.frames]
            for window, frames in encoded_windows(
                features, self._encoder, self._windows, factor, self._windows_at_once
            ):
                yield Encoded(pieces, (window, frames))
            return
        features = together([piece.features for piece in pieces], self._width(pieces))
        lengths = np.array([piece.frames for piece in pieces], np.int64)
        yield Encoded(pieces, self._encode(features, lengths))

    def decode(self, encoded: Encoded, reached: Callable[[int, float], None]) -> list[Hypothesis] | None:
        """Decode a batch, or a window."""
        pieces, content = encoded.pieces, encoded.content
        if callable(content):
            encoder_out, counts = content()
            return self._decoder.decode(encoder_out, counts, self._search_for(pieces))
        (piece,), (window, frames) = pieces, content
        if piece.state is None:
            piece.state = WindowedDecode(
                self._decoder, self._search_for(pieces), self._bundle.features.subsampling_factor
            )
        seconds = piece.state.add(window, frames)
        reached(piece.place, piece.begin + seconds)
        return None if window.last is not None else [piece.state.so_far()]

    def _width(self, pieces: Sequence[Piece]) -> int:
        """The feature frames of a batch."""
        longest = max(piece.features.shape[1] for piece in pieces)
        width = -(-longest // self._bucket) * self._bucket
        # NeMo's features end with a frame of padding. At the limit that is one frame too many for the encoder.
        return width if self._limit is None else min(width, self._limit)

    def _in_windows(self, piece: Piece) -> bool:
        return self._limit is not None and piece.frames > self._limit

    def _search_for(self, pieces: Sequence[Piece]) -> Greedy | Beam:
        if self.utterances is None:
            return self._search
        return for_utterances(self._search, [piece.place for piece in pieces], self.utterances)


@contextmanager
def _on_card(card: Device, stage: str) -> Iterator[None]:
    """Within it, CuPy uses the card, and a stream that suits the stage. The stream's work is done when this ends."""
    with ExitStack() as stack:
        stack.enter_context(card.current())
        if stage == "encode":
            stream = stack.enter_context(shared_stream(card.index))
            stack.callback(stream.synchronize)
        else:
            stack.enter_context(own_stream(card))
        yield


def _transcript_of(
    bundle: Bundle, seconds: float, confidence: Confidence, hypotheses: list[Hypothesis]
) -> Transcript:
    """The transcript of a recording that is one piece, or that nothing is to be heard in."""
    return transcript(bundle, hypotheses[0] if hypotheses else nothing(), seconds, confidence)
