"""Settings that are read from an encoder: its graph's shapes and its metadata."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BundleError
from .cached_encoder import cache_aware_ports, graph_factor
from .description import BundleFiles, FeatureSettings, Stated
from .families import OFFLINE, encoder_family, feature_family, is_cache_aware
from .layouts import parse_numbers, stated_count, stated_durations
from .onnx_files.dependencies import import_onnx
from .onnx_files.graph import Graph, Port, load_graph

if TYPE_CHECKING:
    import onnx

_MIN_POSITIONS = 64
"""Fewest entries of a position table. Shorter tables have other uses, such as attention windows or biases."""

_NO_NORMALIZATION = {"", "na", "none"}


@dataclass(frozen=True)
class EncoderFacts:
    """What an encoder states.

    Attributes
    ----------
    features:
        The features it takes.
    size:
        Width of an encoder frame; None if the graph leaves it open.
    vocab_size, durations:
        From the metadata; None if it has none.
    cache_aware:
        Whether the encoder goes over a recording window by window, with caches.
    """

    features: FeatureSettings
    size: int | None = None
    vocab_size: Stated[int] | None = None
    durations: Stated[tuple[int, ...]] | None = None
    cache_aware: bool = False


def takes_time_first(graph: Graph) -> bool:
    """Whether an encoder for whole recordings takes features [B, T, mel] and gives frames [B, T', E], as k2's do.

    Of k2's, mel bins and width are fixed; where an export leaves all axes open, their name tells.
    """
    audio, frames = ([port for port in ports if port.is_float and port.rank == 3]
                     for ports in (graph.inputs, graph.outputs))  # fmt: skip
    if len(audio) != 1 or len(frames) != 1 or is_cache_aware(graph):
        return False
    (_, time, mel), (_, _, width) = audio[0].shape, frames[0].shape
    named = audio[0].name == "x"
    return not isinstance(time, int) and isinstance(mel, int) and (named or isinstance(width, int)) or (
        named and not isinstance(frames[0].shape[1], int)
    )


def read_encoder(file: Path | None, directory: Path, files: BundleFiles, of_k2: bool = False) -> EncoderFacts:
    """Read an encoder's settings, and complete them with those in the configuration files.

    Parameters
    ----------
    file:
        The encoder; None if the bundle has none.
    directory:
        The model directory.
    files:
        The bundle's other files and settings.
    of_k2:
        Whether the predictor is one of k2.

    Raises
    ------
    BundleError
        If the encoder cannot be used, or contradicts the configuration files.
    """
    if file is None:
        family = feature_family({}, directory, files.model_type, of_k2)
        return EncoderFacts(_settings(None, None, None, files.mel_bins, files.subsampling_factor, files, family))
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
    mel_stated = (*files.mel_bins, *([feat_dim] if (feat_dim := stated_count(metadata, file, "feat_dim")) else []))
    cache_aware = is_cache_aware(graph)
    factor = None
    mel: int | str | None
    time: int | str | None
    size: int | str | None
    time_first = takes_time_first(graph)
    if cache_aware and of_k2:
        raise BundleError(
            "a streaming encoder of k2: this package runs those for whole recordings only; take the model's export "
            "for offline use", file=file,
        )  # fmt: skip
    if cache_aware:
        ports = cache_aware_ports(graph, mel_stated[0].value if mel_stated else None)
        mel, time, size = ports.mel_bins, ports.fixed_window, ports.width
        factor = graph_factor(graph, ports)
    elif time_first:
        _, time, mel = audio[0].shape
        size = frames[0].shape[2]
    else:
        _, mel, time = audio[0].shape
        size = frames[0].shape[1]
    if isinstance(frames[0].shape[2], int) and not isinstance(size, int):
        raise BundleError(
            f"its frames are {frames[0]}; expected [batch, width, time] with a fixed width", file=file,
            field=frames[0].name,
        )
    mel_bins = [Stated(mel, file, f"input {audio[0].name}")] if isinstance(mel, int) else []
    subsampling = files.subsampling_factor or stated_count(metadata, file, "subsampling_factor")
    if factor is not None:
        if subsampling is not None and subsampling.value != factor:
            raise BundleError(
                f"{subsampling.value}, but {file.name} gives a frame for each {factor} feature frames",
                file=subsampling.file, field=subsampling.field,
            )  # fmt: skip
        subsampling = Stated(factor, file, "the number of its frames")
    normalize = Stated(metadata["normalize_type"], file, "normalize_type") if "normalize_type" in metadata else None
    fixed_time = time if isinstance(time, int) else None
    durations = metadata.get("tdt_durations")
    family = feature_family(metadata, file, files.model_type, of_k2 or time_first)
    # A cache-aware encoder sees a recording window by window, so its length is not limited.
    limits = (None, None) if cache_aware else (_max_frames(graph), fixed_time)
    return EncoderFacts(
        _settings(*limits, normalize, (*mel_bins, *mel_stated), subsampling, files, family, cache_aware),
        size if isinstance(size, int) else None,
        stated_count(metadata, file, "vocab_size"),
        None if durations is None else stated_durations(parse_numbers(durations), file, "tdt_durations"),
        cache_aware,
    )


def encoder_ports(graph: Graph) -> tuple[Port, Port, Port, Port]:
    """The ports of an encoder.

    Returns
    -------
    The inputs: features [B, mel, T] and their lengths [B]. Then the outputs: encoder frames [B, width, T'] and their
    lengths [B]. If it `takes_time_first`, features and frames have their last two axes in the other order.

    Raises
    ------
    BundleError
        If the encoder has other inputs than these, or has not exactly one output of each of these two kinds.
    """
    found = []
    for kind, ports in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        data = [port for port in ports if port.is_float and port.rank == 3]
        lengths = [port for port in ports if port.dtype.kind == "i" and port.rank == 1]
        if len(data) != 1 or len(lengths) != 1 or (kind == "inputs" and len(ports) != 2):
            family = encoder_family(graph)
            if kind == "inputs" and family != OFFLINE:
                names = ", ".join(port.name for port in ports)
                raise BundleError(
                    f"an encoder for {family} (inputs {names}); expected one for {OFFLINE}, with data [batch, width, "
                    "time] and lengths [batch] as its only inputs", file=graph.file,
                )  # fmt: skip
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
    files: BundleFiles,
    family: str,
    cache_aware: bool = False,
) -> FeatureSettings:
    for other in mel_bins[1:]:
        if other.value != mel_bins[0].value:
            raise BundleError(
                f"{other.value} mel bins contradict {mel_bins[0]}; correct the one that is wrong",
                file=other.file,
                field=other.field,
            )
    stated = normalize or files.normalize
    if family == "kaldi" and stated is not None and _normalization(stated, None) is not None:
        raise BundleError(
            f"{stated.value!r}, but models of k2 take features that are not normalised", file=stated.file,
            field=stated.field,
        )  # fmt: skip
    defaults = FeatureSettings(subsampling_factor=4) if family == "kaldi" else FeatureSettings()
    # A stream's features cannot be normalised over a recording that has not ended: NeMo's models take them as they are.
    normalized = defaults.normalize if family == "nemo" and not cache_aware else None
    return FeatureSettings(
        mel_bins=mel_bins[0].value if mel_bins else None,
        subsampling_factor=subsampling.value if subsampling else defaults.subsampling_factor,
        normalize=_normalization(stated, normalized),
        sample_rate=files.sample_rate.value if files.sample_rate else defaults.sample_rate,
        max_frames=max_frames,
        fixed_input_frames=fixed_input_frames,
        family=family,
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


def _max_frames(graph: Graph) -> int | None:
    """Most encoder frames that the position table allows; None if no table is found.

    The table is a constant [1, P, width] that a Slice cuts to the length of the recording. A table of relative
    positions has one entry for each distance in both directions, so P = 2 * frames - 1 is odd.
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
