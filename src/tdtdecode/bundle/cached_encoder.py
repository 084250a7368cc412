"""Reading a cache-aware encoder: finding its ports, and the windows that its metadata states.

Sources: NeMo's `ConformerEncoder` and `CacheAwareStreamingAudioBuffer` (3.0.0), and the metadata that the export
scripts of sherpa-onnx write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import BundleError
from .caches import CachePort, EncoderCaches
from .families import is_cache
from .layouts import stated_count
from .onnx_files.graph import Graph, Port

_PRE_ENCODE = 9
"""Features of the window before that a window begins with. NeMo's subsampling by 8 needs them."""
_MOST = 1 << 16
"""The largest size of a cache's axis."""


def read_caches(graph: Graph, metadata: Mapping[str, str], subsampling_factor: int) -> EncoderCaches:
    """Read the ports and windows of a cache-aware encoder.

    Parameters
    ----------
    graph, metadata:
        The encoder, and the entries of its metadata.
    subsampling_factor:
        Feature frames per encoder frame.

    Raises
    ------
    BundleError
        If its ports are not those of a cache-aware encoder, or no metadata states its windows.
    """
    inputs, outputs = list(graph.inputs), list(graph.outputs)
    caches = _caches(graph, metadata, inputs, outputs)
    for cache in caches:
        inputs.remove(cache.into)
        outputs.remove(cache.out)
    audio = [port for port in inputs if port.is_float and port.rank == 3]
    frames = [port for port in outputs if port.is_float and port.rank == 3]
    numbers = [port for port in inputs if port.dtype.kind == "i" and port.rank == 1]
    prompt = [port for port in numbers if "prompt" in port.name or "lang" in port.name]
    lengths = [port for port in numbers if port not in prompt]
    counts = [port for port in outputs if port.dtype.kind == "i" and port.rank == 1]
    others = len(inputs) - len(audio) - len(numbers) + len(outputs) - len(frames) - len(counts)
    if others or any(len(found) != 1 for found in (audio, frames, lengths, counts)) or len(prompt) > 1:
        raise BundleError(
            "expected a streaming encoder with features [batch, mel, time], their lengths, caches and at most a "
            f"prompt, got {_listed(graph.inputs)} -> {_listed(graph.outputs)}", file=graph.file,
        )  # fmt: skip
    languages, default = _languages(graph.file, metadata) if prompt else ({}, None)
    return EncoderCaches(
        audio[0], lengths[0], frames[0], counts[0], caches, prompt[0] if prompt else None,
        *_windows(graph.file, metadata, subsampling_factor), languages, default,
    )  # fmt: skip


def _listed(ports: Sequence[Port]) -> str:
    return "; ".join(map(str, ports))


def _caches(
    graph: Graph, metadata: Mapping[str, str], inputs: Sequence[Port], outputs: Sequence[Port]
) -> tuple[CachePort, ...]:
    """The three caches. Exports put `_next` at the end of a name or before its `_len`, or `new_` before it."""
    found = []
    for port in inputs:
        if not is_cache(port.name):
            continue
        stem, length = (port.name[:-4], "_len") if port.name.endswith("_len") else (port.name, "")
        names = {f"{stem}{length}_next", f"{stem}_next{length}", f"new_{port.name}"}
        out = [other for other in outputs if other.name in names]
        if len(out) != 1 or out[0].rank != port.rank:
            raise BundleError(
                f"the cache {port} has no output that continues it; expected {' or '.join(sorted(names))} among "
                f"{_listed(outputs)}", file=graph.file, field=port.name,
            )  # fmt: skip
        found.append((port, out[0]))
    if [port.rank for port, _ in found] != [4, 4, 1]:
        raise BundleError(
            "expected the caches of attention [batch, layers, context, width], of convolutions [batch, layers, width, "
            f"kernel - 1] and their length [batch], got {_listed([port for port, _ in found])}", file=graph.file,
        )  # fmt: skip
    axis = _batch_axis(found[0][0])
    return tuple(
        CachePort(into, out, axis, _sizes(graph.file, metadata, into, axis)) if into.rank == 4
        else CachePort(into, out, 0, ())
        for into, out in found
    )  # fmt: skip


def _batch_axis(attention: Port) -> int:
    """Whether the streams or the layers come first: the streams' axis is open, or 1."""
    first, second = attention.shape[:2]
    if isinstance(first, int) and not isinstance(second, int):
        return 1
    # Where both are fixed at 1, the order is NeMo's: streams first.
    return 1 if second == 1 and isinstance(first, int) and first > 1 else 0


def _sizes(file: Path, metadata: Mapping[str, str], port: Port, axis: int) -> tuple[int, ...]:
    """The sizes of one stream's cache. What the graph leaves open the metadata states."""
    sizes = []
    for number, size in enumerate((*port.shape[:axis], *port.shape[axis + 1 :]), 1):
        if not isinstance(size, int):
            stated = stated_count(dict(metadata), file, f"{port.name}_dim{number}")
            if stated is None:
                raise BundleError(
                    f"the graph leaves a size of the cache {port} open, and the metadata does not state it", file=file,
                    field=f"{port.name}_dim{number}",
                )  # fmt: skip
            size = stated.value
        if size < 1 or size > _MOST:
            raise BundleError(f"expected sizes from 1 to {_MOST}, got {port}", file=file, field=port.name)
        sizes.append(size)
    return tuple(sizes)


def _windows(file: Path, metadata: Mapping[str, str], factor: int) -> tuple[int, int]:
    """Overlap and shift in feature frames."""
    window, shift = (stated_count(dict(metadata), file, name) for name in ("window_size", "chunk_shift"))
    if window is not None and shift is not None:
        overlap, moved = window.value - shift.value, shift.value
    else:
        frames = stated_count(dict(metadata), file, "chunk_size_output_frames")
        before = stated_count(dict(metadata), file, "pre_encode_cache")
        if frames is None:
            raise BundleError(
                "is a streaming encoder, but its metadata does not state how far a window moves: expected window_size "
                "and chunk_shift, as the export scripts of sherpa-onnx write them", file=file, field="chunk_shift",
            )  # fmt: skip
        overlap, moved = _PRE_ENCODE if before is None else before.value, frames.value * factor
    if overlap < 0 or moved % factor:
        raise BundleError(
            f"a window that moves {moved} feature frames and overlaps by {overlap} does not fit a subsampling by "
            f"{factor}", file=file, field="chunk_shift",
        )  # fmt: skip
    return overlap, moved


def _languages(file: Path, metadata: Mapping[str, str]) -> tuple[dict[str, int], int | None]:
    try:
        stated = json.loads(metadata.get("prompt_dictionary", "{}"))
        languages = {str(name): int(number) for name, number in stated.items()}
        default = int(metadata["auto_prompt_id"]) if "auto_prompt_id" in metadata else languages.get("auto")
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleError(
            f"expected a JSON object of names and numbers, and a number in auto_prompt_id ({error})", file=file,
            field="prompt_dictionary",
        ) from error  # fmt: skip
    if any(number < 0 for number in languages.values()) or (default is not None and default < 0):
        raise BundleError("a language has a negative number", file=file, field="prompt_dictionary")
    return languages, default
