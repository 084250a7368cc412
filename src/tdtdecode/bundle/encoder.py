"""What an encoder's graph and metadata tell about its features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BundleError
from .description import FeatureSettings, Found, Stated
from .layouts import numbers_listed, stated_count, stated_durations
from .onnx_files.dependencies import import_onnx
from .onnx_files.graph import Graph, Port, load_graph

if TYPE_CHECKING:
    import onnx

# Shorter tables are not position tables: attention windows, biases.
_MIN_POSITIONS = 64

_NO_NORMALIZATION = {"", "na", "none"}


@dataclass(frozen=True)
class EncoderFacts:
    """Facts read from an encoder: its settings, its width, and the vocabulary size and durations in its metadata."""

    features: FeatureSettings
    size: int | None = None
    vocab_size: Stated[int] | None = None
    durations: Stated[tuple[int, ...]] | None = None


def read_encoder(file: Path | None, directory: Path, found: Found) -> EncoderFacts:
    """The features of a bundle, from its encoder where it has one and from what is written beside it.

    Raises
    ------
    BundleError
        If the encoder cannot be used, or what it takes contradicts what is written.
    """
    if file is None:
        return EncoderFacts(_settings(None, None, None, found.mel_bins, found.subsampling_factor, found))
    graph = load_graph(file, directory)
    metadata = {entry.key: entry.value for entry in graph.model.metadata_props}
    audio = [port for port in graph.inputs if port.is_float and port.rank == 3]
    frames = [port for port in graph.outputs if port.is_float and port.rank == 3]
    if not audio or not frames:
        listed = "; ".join(map(str, (*graph.inputs, *graph.outputs)))
        raise BundleError(
            f"expected an encoder from features [batch, mel, time] to frames [batch, width, time], got {listed}",
            file=file,
        )
    _, mel, time = audio[0].shape
    size = frames[0].shape[1]
    if isinstance(frames[0].shape[2], int) and not isinstance(size, int):
        raise BundleError(
            f"gives frames {frames[0]}; expected [batch, width, time] with a fixed width", file=file,
            field=frames[0].name,
        )
    mel_bins = [Stated(mel, file, f"input {audio[0].name}")] if isinstance(mel, int) else []
    feat_dim = stated_count(metadata, file, "feat_dim")
    stated_mel = (*mel_bins, *found.mel_bins, *([feat_dim] if feat_dim else []))
    subsampling = found.subsampling_factor or stated_count(metadata, file, "subsampling_factor")
    normalize = Stated(metadata["normalize_type"], file, "normalize_type") if "normalize_type" in metadata else None
    fixed_time = time if isinstance(time, int) else None
    durations = metadata.get("tdt_durations")
    return EncoderFacts(
        _settings(_positions(graph), fixed_time, normalize, stated_mel, subsampling, found),
        size if isinstance(size, int) else None,
        stated_count(metadata, file, "vocab_size"),
        None if durations is None else stated_durations(numbers_listed(durations), file, "tdt_durations"),
    )


def encoder_ports(graph: Graph) -> tuple[Port, Port, Port, Port]:
    """An encoder's features [B, mel, T], their lengths [B], its frames [B, width, T'] and theirs.

    Raises
    ------
    BundleError
        If it has other inputs than these, or not one each of these outputs.
    """
    found = []
    for kind, ports in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        data = [port for port in ports if port.is_float and port.rank == 3]
        lengths = [port for port in ports if port.dtype.kind == "i" and port.rank == 1]
        if len(data) != 1 or len(lengths) != 1 or (kind == "inputs" and len(ports) != 2):
            listed = "; ".join(map(str, ports))
            raise BundleError(
                f"expected {kind} of data [batch, width, time] and lengths [batch], got {listed}", file=graph.file
            )
        found += [data[0], lengths[0]]
    audio, length, frames, counts = found
    return audio, length, frames, counts


def _settings(
    max_frames: int | None,
    fixed_input_frames: int | None,
    normalize: Stated[Any] | None,
    mel_bins: Sequence[Stated[int]],
    subsampling: Stated[int] | None,
    found: Found,
) -> FeatureSettings:
    for other in mel_bins[1:]:
        if other.value != mel_bins[0].value:
            raise BundleError(
                f"{other.value} mel bins contradict {mel_bins[0]}; correct the one that is wrong",
                file=other.file,
                field=other.field,
            )
    defaults = FeatureSettings()
    return FeatureSettings(
        mel_bins=mel_bins[0].value if mel_bins else None,
        subsampling_factor=subsampling.value if subsampling else defaults.subsampling_factor,
        normalize=_normalization(normalize or found.normalize, defaults.normalize),
        sample_rate=found.sample_rate.value if found.sample_rate else defaults.sample_rate,
        max_frames=max_frames,
        fixed_input_frames=fixed_input_frames,
    )


def _normalization(stated: Stated[Any] | None, default: str | None) -> str | None:
    if stated is None:
        return default
    if stated.value is None:
        return None
    if isinstance(stated.value, str):
        if stated.value.lower() in _NO_NORMALIZATION:
            return None
        if stated.value == "per_feature":
            return stated.value
    raise BundleError(
        f"expected 'per_feature' or 'NA', got {stated.value!r:.60}", file=stated.file, field=stated.field
    )


def _positions(graph: Graph) -> int | None:
    """Encoder frames that the position table allows: the table [1, P, width] is cut to length by a Slice.

    A table of relative positions has an entry for each distance either way, P = 2 * frames - 1.
    """
    tables = {tensor.name: tuple(tensor.dims) for tensor in graph.model.graph.initializer}
    tables.update(_constants(graph.model.graph.node))
    casts = (node for node in graph.model.graph.node if node.op_type == "Cast")  # weights stored in float16
    tables.update({node.output[0]: tables[node.input[0]] for node in casts if node.input[0] in tables})
    lengths = [
        tables[node.input[0]][1]
        for node in graph.model.graph.node
        if node.op_type == "Slice" and len(tables.get(node.input[0], ())) == 3 and tables[node.input[0]][0] == 1
    ]
    frames = [(length + 1) // 2 if length % 2 else length for length in lengths if length >= _MIN_POSITIONS]
    return min(frames, default=None)


def _constants(nodes: Iterable[onnx.NodeProto]) -> dict[str, tuple[int, ...]]:
    onnx = import_onnx()
    return {
        node.output[0]: tuple(attribute.t.dims)
        for node in nodes
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value" and attribute.type == onnx.AttributeProto.TENSOR
    }
