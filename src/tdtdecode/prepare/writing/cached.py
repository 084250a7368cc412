"""Writing cache-aware encoders: their ports in the convention of a layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ...bundle.caches import EncoderCaches
from ...bundle.onnx_files.dependencies import import_onnx
from ...bundle.onnx_files.graph import Graph, Port
from ...bundle.probe import BATCH_AXIS
from .rewiring import PortChange, rewire

_FLOAT, _INTEGER = np.dtype(np.float32), np.dtype(np.int64)
"""The types that all systems use."""


@dataclass(frozen=True)
class CachedNames:
    """The names of a cache-aware encoder's ports in a convention, and its axes.

    Attributes
    ----------
    prompt:
        The input of the language's number.
    cache_length_next:
        The output that continues the length of the cache.
    time_first:
        Whether features are [batch, time, mel] and frames [batch, time, width], and not the other way round.
    """

    prompt: str
    cache_length_next: str
    time_first: bool


NEMO = CachedNames("prompt_index", "cache_last_channel_next_len", False)
"""NeMo's export, and sherpa-onnx."""

GENAI = CachedNames("lang_id", "cache_last_channel_len_next", True)
"""onnxruntime-genai's ``nemotron_speech``."""


def write_cached_encoder(
    graph: Graph, caches: EncoderCaches, names: CachedNames, metadata: Mapping[str, str]
) -> Graph:
    """Give a cache-aware encoder's graph the inputs and outputs of a convention, and add metadata, in place.

    In all of them the streams come before the layers in the caches.
    """
    attention, convolution, length = caches.caches
    audio_axes, frames_axes = (
        "BTM" if caches.time_axis == 1 else "BMT", "BTE" if caches.frames_time_axis == 1 else "BET"
    )  # fmt: skip
    layers = "LB" if caches.layers_first else "BL"
    first, second = ("BTM", "BTE") if names.time_first else ("BMT", "BET")
    inputs = [
        _change(caches.audio, "audio_signal", _FLOAT, audio_axes, first),
        _change(caches.length, "length", _INTEGER, "B", "B"),
        _change(attention.into, "cache_last_channel", _FLOAT, f"{layers}CD", "BLCD", attention.shape),
        _change(convolution.into, "cache_last_time", _FLOAT, f"{layers}DK", "BLDK", convolution.shape),
        _change(length.into, "cache_last_channel_len", _INTEGER, "B", "B"),
    ]
    if caches.prompt is not None:
        inputs.append(_change(caches.prompt, names.prompt, _INTEGER, "B", "B"))
    outputs = [
        _change(caches.frames, "outputs", _FLOAT, frames_axes, second),
        _change(caches.counts, "encoded_lengths", _INTEGER, "B", "B"),
        _change(attention.out, "cache_last_channel_next", _FLOAT, f"{layers}CD", "BLCD", attention.shape),
        _change(convolution.out, "cache_last_time_next", _FLOAT, f"{layers}DK", "BLDK", convolution.shape),
        _change(length.out, names.cache_length_next, _INTEGER, "B", "B"),
    ]
    rewire(graph, inputs, outputs)
    entries = {entry.key: entry.value for entry in graph.model.metadata_props} | dict(metadata)
    import_onnx().helper.set_model_props(graph.model, entries)
    return graph


def _change(
    port: Port, name: str, dtype: np.dtype, axes: str, new_axes: str, sizes: tuple[int, ...] | None = None
) -> PortChange:
    """A port's new name, type and axes. ``sizes`` are those of all axes but the batch, if they are known."""
    by_letter = dict(zip(axes, port.shape, strict=True))
    if sizes is not None:
        by_letter |= dict(zip(new_axes.replace("B", ""), sizes, strict=True))
    if not isinstance(by_letter["B"], int):
        by_letter["B"] = BATCH_AXIS
    new = replace(port, name=name, dtype=dtype, shape=tuple(by_letter[letter] for letter in new_axes))
    return PortChange(port, axes, new, new_axes)
