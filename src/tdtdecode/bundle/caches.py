"""What a cache-aware encoder takes and gives: its ports, its caches and its windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .onnx_files.graph import Port


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


@dataclass(frozen=True)
class EncoderCaches:
    """How a cache-aware encoder goes over a stream: the convention that NeMo calls ``pad_and_drop_preencoded``.

    Window i has the feature frames from ``i * shift - overlap`` to ``(i + 1) * shift``, with zeros in front of the
    first. The graph itself drops the encoder frames of the overlap.

    Attributes
    ----------
    audio, length, frames, counts:
        The ports of the features, their number, the encoder frames and their number.
    caches:
        The caches: of the attention, of the convolutions, and the number of frames in the first.
    prompt:
        The port of the language's number; None if there is none.
    overlap, shift:
        Feature frames.
    languages:
        The numbers of the languages, if there is a prompt.
    default_language:
        The number to take if no language is given.
    """

    audio: Port
    length: Port
    frames: Port
    counts: Port
    caches: tuple[CachePort, ...]
    prompt: Port | None
    overlap: int
    shift: int
    languages: Mapping[str, int] = field(default_factory=dict)
    default_language: int | None = None

    @property
    def window(self) -> int:
        """Feature frames of a window."""
        return self.overlap + self.shift

    @property
    def takes_batches(self) -> bool:
        """Whether the graph leaves the number of streams open."""
        ports = [(self.audio, 0), (self.length, 0), *((cache.into, cache.batch_axis) for cache in self.caches)]
        return not any(isinstance(port.shape[axis], int) for port, axis in ports)
