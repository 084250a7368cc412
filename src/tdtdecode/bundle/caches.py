"""What a cache-aware encoder takes and gives: its ports, its caches and its windows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from .description import FEATURE_FRAME_SECONDS
from .onnx_files.graph import Port

ATTENTION, CONVOLUTION = "cache_last_channel", "cache_last_time"
"""NeMo's names of the caches, which metadata uses whatever the ports are called."""


@dataclass(frozen=True)
class CachePort:
    """One cache: what goes into the encoder with a window, and what comes out for the next one.

    Attributes
    ----------
    batch_axis:
        The axis of the streams.
    shape:
        The shape of one stream's cache, without that axis.
    """

    into: Port
    out: Port
    batch_axis: int
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of one stream's cache."""
        return prod(self.shape) * self.into.dtype.itemsize


@dataclass(frozen=True)
class EncoderCaches:
    """How a cache-aware encoder goes over a stream: the convention that NeMo calls ``pad_and_drop_preencoded``.

    Window i has the feature frames from ``i * shift - overlap`` to ``(i + 1) * shift``, with zeros in front of the
    first. The graph itself drops the encoder frames of the overlap.

    Attributes
    ----------
    audio, length, frames, counts:
        The ports of the features, their number, the encoder frames and their number.
    time_axis, frames_time_axis:
        The axis of time of the features and of the encoder frames: 2, or 1 where the width comes last.
    caches:
        The caches: of the attention, of the convolutions, and the number of frames in the first.
    prompt:
        The port of the language's number; None if there is none.
    overlap, shift:
        Feature frames.
    subsampling_factor:
        Feature frames per encoder frame.
    languages:
        The numbers of the languages, if there is a prompt.
    default_language:
        The number to take if no language is given.
    """

    audio: Port
    length: Port
    frames: Port
    counts: Port
    time_axis: int
    frames_time_axis: int
    caches: tuple[CachePort, ...]
    prompt: Port | None
    overlap: int
    shift: int
    subsampling_factor: int
    languages: Mapping[str, int] = field(default_factory=dict)
    default_language: int | None = None

    @property
    def window(self) -> int:
        """Feature frames of a window."""
        return self.overlap + self.shift

    @property
    def chunk(self) -> int:
        """Encoder frames that a window gives."""
        return self.shift // self.subsampling_factor

    @property
    def latency(self) -> float:
        """Seconds of audio that a window waits for."""
        return self.shift * FEATURE_FRAME_SECONDS

    @property
    def look_ahead(self) -> float:
        """Seconds that the encoder hears after the first frame of a window: its right context."""
        return (self.shift - self.subsampling_factor) * FEATURE_FRAME_SECONDS

    @property
    def layers_first(self) -> bool:
        """Whether the layers come before the streams in the caches, as in the files of parakeet-rs."""
        return self.caches[0].batch_axis == 1

    @property
    def batch_axes(self) -> dict[str, int]:
        """The axis of the streams of every input, by its name."""
        axes = {self.audio.name: 0, self.length.name: 0} | {one.into.name: one.batch_axis for one in self.caches}
        return axes if self.prompt is None else axes | {self.prompt.name: 0}

    @property
    def takes_batches(self) -> bool:
        """Whether the graph leaves the number of streams open."""
        ports = [(self.audio, 0), (self.length, 0), *((cache.into, cache.batch_axis) for cache in self.caches)]
        return not any(isinstance(port.shape[axis], int) for port, axis in ports)

    def metadata(self) -> dict[str, str]:
        """The entries of the encoder's metadata that say all this. The names are those of sherpa-onnx.

        Sources: sherpa-onnx's ``scripts/nemo`` exports of streaming models, and what its online recognizer reads.
        """
        attention, convolution, _ = self.caches
        entries: dict[str, object] = {
            "window_size": self.window,
            "chunk_shift": self.shift,
            "chunk_size_ms": round(self.latency * 1000),
        }
        for name, cache in ((ATTENTION, attention), (CONVOLUTION, convolution)):
            entries |= {f"{name}_dim{number}": size for number, size in enumerate(cache.shape, 1)}
        if self.languages:
            entries["prompt_dictionary"] = json.dumps(dict(self.languages), ensure_ascii=False)
        if self.default_language is not None:
            entries["auto_prompt_id"] = self.default_language
        return {name: str(value) for name, value in entries.items()}
