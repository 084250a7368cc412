"""Reading a cache-aware encoder: finding its ports, its caches and its windows.

Sources: NeMo's `ConformerEncoder` and `CacheAwareStreamingAudioBuffer` (3.0.0); the metadata that the export scripts of
sherpa-onnx write, and those of parakeet-rs; the ``nemotron_speech`` models of onnxruntime-genai.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BundleError
from .cached_graph import GraphWindows, graph_kernel, graph_left_context, graph_windows
from .caches import ATTENTION, CONVOLUTION, CachePort, EncoderCaches
from .description import Stated, StatedWindows
from .families import is_cache, is_prompt
from .layouts import stated_count
from .onnx_files.graph import Graph, Port

_PRE_ENCODE = 9
"""The overlap of models whose metadata has parakeet-rs's names, if it does not state it. NeMo's subsampling by 8 needs
as many feature frames."""

_MOST = 1 << 16
"""The largest size of a cache's axis."""

_FACTOR = 8
"""Feature frames per encoder frame, if neither the graph nor a configuration says it: that of all of NeMo's models."""


@dataclass(frozen=True)
class CacheAwarePorts:
    """The ports of a cache-aware encoder; each cache is a pair of input and output.

    Attributes
    ----------
    time_axis, frames_time_axis:
        As in `EncoderCaches`.
    """

    audio: Port
    length: Port
    frames: Port
    counts: Port
    attention: tuple[Port, Port]
    convolution: tuple[Port, Port]
    cache_length: tuple[Port, Port]
    prompt: Port | None
    time_axis: int
    frames_time_axis: int

    @property
    def mel_bins(self) -> int | None:
        """The number of mel bins; None if the graph leaves it open."""
        return _as_size(self.audio.shape[3 - self.time_axis])

    @property
    def width(self) -> int | None:
        """The width of an encoder frame; None if the graph leaves it open."""
        return _as_size(self.frames.shape[3 - self.frames_time_axis])

    @property
    def fixed_window(self) -> int | None:
        """The feature frames of a window; None if the graph leaves them open."""
        return _as_size(self.audio.shape[self.time_axis])

    @property
    def batch_axis(self) -> int:
        """The axis of the streams in the caches of attention and convolutions: 0, or 1 where the layers come first.

        The axis of the streams is open, or 1. Where both axes could be it, names decide: parakeet-rs, whose files have
        the layers first, calls the features ``processed_signal``.
        """
        first, second = self.attention[0].shape[:2]
        if isinstance(first, int) != isinstance(second, int):
            return int(isinstance(first, int))
        if isinstance(first, int) and (first == 1) != (second == 1):
            return int(second == 1)
        return int(self.audio.name.startswith("processed"))


def cache_aware_ports(graph: Graph, mel_bins: int | None = None) -> CacheAwarePorts:
    """Find out what the ports of a cache-aware encoder are for, by their types and ranks.

    Names decide what these leave open: which of the whole numbers is the length of the cache, and which is a language.

    Parameters
    ----------
    mel_bins:
        The number of mel bins that is stated beside the graph.

    Raises
    ------
    BundleError
        If its ports are not those of a cache-aware encoder.
    """
    inputs, outputs = graph.inputs, graph.outputs
    audio = [port for port in inputs if port.is_float and port.rank == 3]
    frames = [port for port in outputs if port.is_float and port.rank == 3]
    big = [port for port in inputs if port.is_float and port.rank == 4]
    next_big = [port for port in outputs if port.is_float and port.rank == 4]
    numbers = [port for port in inputs if port.dtype.kind == "i" and port.rank == 1]
    next_numbers = [port for port in outputs if port.dtype.kind == "i" and port.rank == 1]
    prompt = [port for port in numbers if is_prompt(port)]
    lengths = [port for port in numbers if port not in prompt]
    known = len(audio) + len(big) + len(numbers), len(frames) + len(next_big) + len(next_numbers)
    counts = [len(found) for found in (audio, frames, big, next_big, lengths, next_numbers)]
    if counts != [1, 1, 2, 2, 2, 2] or len(prompt) > 1 or known != (len(inputs), len(outputs)):
        raise BundleError(
            "expected a streaming encoder with features [batch, mel, time], their lengths, at most a language, and the "
            "caches of attention [batch, layers, context, width], of convolutions [batch, layers, width, kernel - 1] "
            f"and their length [batch], which it also gives for the next window; got {_listed(inputs)} -> "
            f"{_listed(outputs)}", file=graph.file,
        )  # fmt: skip
    if is_cache(lengths[0]) and not is_cache(lengths[1]):
        lengths.reverse()
    (attention, convolution), _ = _continued(graph, _sorted_caches(big), next_big)
    (cache_length,), (frame_counts,) = _continued(graph, [lengths[1]], next_numbers)
    time_axis = _time_axis(audio[0], (mel_bins, 80, 128))
    return CacheAwarePorts(
        audio[0], lengths[0], frames[0], frame_counts, attention, convolution, cache_length,
        prompt[0] if prompt else None, time_axis,
        _time_axis(frames[0], (_as_size(attention[0].shape[3]),), time_axis),
    )  # fmt: skip


def _as_size(dim: int | str | None) -> int | None:
    return dim if isinstance(dim, int) else None


def _listed(ports: Sequence[Port]) -> str:
    return "; ".join(map(str, ports))


def _sorted_caches(caches: Sequence[Port]) -> Sequence[Port]:
    """The cache of the attention [.., context, width] before that of the convolutions [.., width, kernel - 1]."""
    first, second = caches
    fits = [isinstance(a.shape[3], int) and a.shape[3] == b.shape[2] for a, b in ((first, second), (second, first))]
    if fits[0] != fits[1]:
        return caches if fits[0] else (second, first)
    return (second, first) if "time" in first.name and "time" not in second.name else caches


def _continued(
    graph: Graph, caches: Sequence[Port], outputs: Sequence[Port]
) -> tuple[list[tuple[Port, Port]], list[Port]]:
    """Each cache with the output that continues it, and the other outputs.

    Exports put ``_next`` at the end of a name or before its ``_len``, or ``new_`` before it. Where names say nothing,
    the outputs have the order of the inputs, the caches last.
    """
    names = [_names_of_next(cache.name) for cache in caches]
    found = [[port for port in outputs if port.name in of_one] for of_one in names]
    pairs = [(cache, ports[0]) for cache, ports in zip(caches, found, strict=True) if len(ports) == 1]
    if len(pairs) < len(caches):
        if any(found) or any("cache" in port.name for port in outputs):
            missing = next(cache for cache, ports in zip(caches, found, strict=True) if len(ports) != 1)
            raise BundleError(
                f"the cache {missing} has no output that continues it; expected "
                f"{' or '.join(sorted(_names_of_next(missing.name)))} among {_listed(graph.outputs)}", file=graph.file,
                field=missing.name,
            )  # fmt: skip
        pairs = list(zip(caches, outputs[-len(caches) :], strict=True))
    taken = [out for _, out in pairs]
    return pairs, [port for port in outputs if port not in taken]


def _names_of_next(name: str) -> set[str]:
    stem, length = (name[:-4], "_len") if name.endswith("_len") else (name, "")
    return {f"{stem}{length}_next", f"{stem}_next{length}", f"new_{name}"}


def _time_axis(port: Port, widths: Sequence[int | None], otherwise: int = 2) -> int:
    """The axis of time of features or frames: the open one; where both are fixed, not the one of known width."""
    _, second, third = port.shape
    if isinstance(second, int) != isinstance(third, int):
        return 2 if isinstance(second, int) else 1
    for width in widths:
        if width is not None and (second == width) != (third == width):
            return 2 if second == width else 1
    return otherwise


def read_caches(graph: Graph, windows: StatedWindows, mel_bins: int | None = None, check: bool = True) -> EncoderCaches:
    """Read the ports, caches and windows of a cache-aware encoder.

    The graph says for which windows it was made. Where it does not, its metadata counts, and then what the
    configurations state.

    Parameters
    ----------
    windows:
        What the configurations state.
    mel_bins:
        The number of mel bins that is stated beside the graph.
    check:
        Whether a statement that contradicts the graph is an error.

    Raises
    ------
    BundleError
        If its ports are not those of a cache-aware encoder, or nothing says what its windows are.
    """
    metadata = {entry.key: entry.value for entry in graph.model.metadata_props}
    ports = cache_aware_ports(graph, mel_bins)
    axis = ports.batch_axis
    context = graph_left_context(graph, ports.cache_length[1])
    kernel = graph_kernel(graph)
    attention = _sizes(graph, metadata, ATTENTION, ports.attention[0], axis, [None, context, None], windows, check)
    convolution = _sizes(
        graph, metadata, CONVOLUTION, ports.convolution[0], axis, [None, None, kernel and kernel - 1], windows, check
    )
    measured = graph_windows(graph, ports.length, ports.counts)
    factor = _factor(graph, metadata, measured)
    overlap, shift = _windows(graph, metadata, windows, ports, measured, factor, check)
    languages, default = _languages(graph.file, metadata, windows) if ports.prompt is not None else ({}, None)
    return EncoderCaches(
        ports.audio, ports.length, ports.frames, ports.counts, ports.time_axis, ports.frames_time_axis,
        (CachePort(*ports.attention, axis, attention), CachePort(*ports.convolution, axis, convolution),
         CachePort(*ports.cache_length, 0, ())),
        ports.prompt, overlap, shift, factor, languages, default,
    )  # fmt: skip


def _sizes(
    graph: Graph,
    metadata: Mapping[str, str],
    name: str,
    port: Port,
    axis: int,
    measured: Sequence[int | None],
    windows: StatedWindows,
    check: bool,
) -> tuple[int, ...]:
    """The sizes of one stream's cache: of its port, of the operators that use it, or as stated."""
    sizes = []
    for number, dim in enumerate((*port.shape[:axis], *port.shape[axis + 1 :])):
        field = f"{name}_dim{number + 1}"
        stated = stated_count(dict(metadata), graph.file, field)
        if stated is None and name == ATTENTION and number == 1:
            stated = windows.left_context
        size = dim if isinstance(dim, int) else measured[number]
        if stated is not None and size is not None and stated.value != size and check:
            raise BundleError(
                f"{stated.value}, but the cache {port} of {graph.file.name} has the size {size}: `tdtdecode repair` "
                "corrects it", file=stated.file, field=stated.field,
            )  # fmt: skip
        if size is None and stated is None:
            raise BundleError(
                f"the graph leaves a size of the cache {port} open, and neither the graph nor its metadata says it",
                file=graph.file, field=field,
            )  # fmt: skip
        chosen = stated.value if size is None and stated is not None else size
        if chosen is None or not 1 <= chosen <= _MOST:
            raise BundleError(f"expected sizes from 1 to {_MOST}, got {port}", file=graph.file, field=port.name)
        sizes.append(chosen)
    return tuple(sizes)


def graph_factor(graph: Graph, ports: CacheAwarePorts) -> int | None:
    """Feature frames per encoder frame, by a cache-aware encoder's graph; None if it does not say it."""
    measured = graph_windows(graph, ports.length, ports.counts)
    return None if measured is None else measured.factor


def _factor(graph: Graph, metadata: Mapping[str, str], measured: GraphWindows | None) -> int:
    if measured is not None and measured.factor is not None:
        return measured.factor
    stated = stated_count(dict(metadata), graph.file, "subsampling_factor")
    return _FACTOR if stated is None else stated.value


def stated_windows(
    graph: Graph, windows: StatedWindows, factor: int
) -> tuple[Stated[int] | None, Stated[int] | None]:
    """The overlap and the shift in feature frames that the metadata states, else the configurations.

    Metadata has ``window_size`` and ``chunk_shift``, as sherpa-onnx's scripts write them, or parakeet-rs's
    ``chunk_size_output_frames`` and ``pre_encode_cache``.
    """
    metadata = {entry.key: entry.value for entry in graph.model.metadata_props}
    window, shift = (stated_count(metadata, graph.file, name) for name in ("window_size", "chunk_shift"))
    if window is not None and shift is not None:
        if window.value < shift.value:
            raise BundleError(
                f"a window of {window.value} feature frames that moves on by {shift.value} would skip some",
                file=graph.file, field="chunk_shift",
            )  # fmt: skip
        return Stated(window.value - shift.value, graph.file, "window_size"), shift
    frames = stated_count(metadata, graph.file, "chunk_size_output_frames")
    if frames is not None:
        overlap = stated_count(metadata, graph.file, "pre_encode_cache", low=0)
        moved = Stated(frames.value * factor, graph.file, frames.field)
        return overlap or Stated(_PRE_ENCODE, graph.file, "pre_encode_cache"), moved
    return windows.overlap, windows.shift


def _windows(
    graph: Graph,
    metadata: Mapping[str, str],
    windows: StatedWindows,
    ports: CacheAwarePorts,
    measured: GraphWindows | None,
    factor: int,
    check: bool,
) -> tuple[int, int]:
    """Overlap and shift in feature frames."""
    overlap, shift = stated_windows(graph, windows, factor)
    known = None if measured is None else measured.overlap
    moved = None if measured is None or measured.frames is None else measured.frames * factor
    if moved is None and known is not None and ports.fixed_window is not None:
        moved = ports.fixed_window - known
    for stated, found, what in ((overlap, known, "overlap by"), (shift, moved, "move on by")):
        if check and stated is not None and found is not None and stated.value != found:
            raise BundleError(
                f"windows that {what} {stated.value} feature frames, but {graph.file.name} was made for windows that "
                f"{what} {found}: `tdtdecode repair` corrects it", file=stated.file, field=stated.field,
            )  # fmt: skip
    if known is None and overlap is not None:
        known = overlap.value
    if moved is None and shift is not None:
        moved = shift.value
    if known is None or moved is None:
        raise BundleError(
            "is a streaming encoder, but neither the graph nor its metadata says how its windows lie: state them, such "
            "as 65 feature frames that move on by 56: `tdtdecode repair DIR -o OUT --window 65,56` writes window_size "
            "and chunk_shift", file=graph.file, field="chunk_shift",
        )  # fmt: skip
    if moved <= 0 or moved % factor:
        raise BundleError(
            f"a window that moves on by {moved} feature frames does not fit a subsampling by {factor}", file=graph.file,
            field="chunk_shift",
        )  # fmt: skip
    if ports.fixed_window is not None and ports.fixed_window != known + moved:
        raise BundleError(
            f"takes windows of {ports.fixed_window} feature frames, but they are said to overlap by {known} and to "
            f"move on by {moved}", file=graph.file, field=ports.audio.name,
        )  # fmt: skip
    return known, moved


def _languages(file: Path, metadata: Mapping[str, str], windows: StatedWindows) -> tuple[dict[str, int], int | None]:
    stated: Any = metadata.get("prompt_dictionary")
    number: Any = metadata.get("auto_prompt_id")
    try:
        if isinstance(stated, str):
            stated = json.loads(stated)
        elif windows.languages is not None:
            file, stated = windows.languages.file, windows.languages.value
        if number is None and windows.default_language is not None:
            number = windows.default_language.value
        languages = {str(name): int(index) for name, index in (stated or {}).items()}
        default = languages.get("auto") if number is None else int(number)
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleError(
            f"expected a JSON object of names and numbers, and a number in auto_prompt_id ({error})", file=file,
            field="prompt_dictionary",
        ) from error  # fmt: skip
    if any(index < 0 for index in languages.values()) or (default is not None and default < 0):
        raise BundleError("a language has a negative number", file=file, field="prompt_dictionary")
    return languages, default
