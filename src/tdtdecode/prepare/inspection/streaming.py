"""What can be wrong with a cache-aware encoder: windows and caches that are not those of its graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...bundle.caches import EncoderCaches
from ...errors import BundleError
from ...speech.audio.features import HOP
from .evidence import ENCODER, Evidence
from .report import REPAIR, Problem

_WINDOWS = ("window_size", "chunk_shift")


def streaming_encoder(evidence: Evidence) -> Iterator[Problem]:
    """Windows that nothing says, or that contradict the graph; sizes of caches that do."""
    if not evidence.streaming:
        return
    graph = evidence.graphs[ENCODER]
    caches = evidence.caches
    if caches is None:
        try:
            evidence.read_caches(graph)
        except BundleError as error:
            yield _unread(error, graph.file.name)
        return
    for name, value in caches.metadata().items():
        stated = evidence.metadata.get(name)
        if stated is None or stated == value or not (name in _WINDOWS or name.startswith("cache_")):
            continue
        code, why = ("windows", _WHY_WINDOWS) if name in _WINDOWS else ("caches", "the graph's own size")
        yield Problem(code, graph.file.name, name, stated, f"{value}: {why}", REPAIR)
    frames = evidence.metadata.get("chunk_size_output_frames")
    if frames is not None and frames != str(caches.chunk):
        expected = f"{caches.chunk}: {_WHY_WINDOWS}"
        yield Problem("windows", graph.file.name, "chunk_size_output_frames", frames, expected, REPAIR)
    before = evidence.metadata.get("pre_encode_cache")
    if before is not None and before != str(caches.overlap):
        expected = f"{caches.overlap}: {_WHY_WINDOWS}"
        yield Problem("windows", graph.file.name, "pre_encode_cache", before, expected, REPAIR)
    for section, name, size in configured(evidence, caches):
        found = section.get(name)
        if found is not None and found != size:
            prefix = "model." if evidence.layout == "genai" else ""
            code = "windows" if name in (*_WINDOWS, "chunk_samples", "pre_encode_cache_size") else "caches"
            why = _WHY_WINDOWS if code == "windows" else "the graph's own size"
            where = f"{prefix}{'encoder.' if section is not evidence.model and prefix else ''}{name}"
            yield Problem(code, evidence.configuration_name, where, f"{found}", f"{size}: {why}", REPAIR)
    yield from _subsampling(evidence, caches)


_WHY_WINDOWS = (
    "the graph drops the encoder frames of the overlap itself and cuts off what is beyond a window's, so with others "
    "words are lost or doubled"
)


def configured(evidence: Evidence, caches: EncoderCaches) -> list[tuple[dict[str, Any], str, int]]:
    """The settings of the layout's configuration that describe a cache-aware encoder: (section, name, value)."""
    if evidence.layout == "combined":
        whole = evidence.configuration
        return [(whole, "window_size", caches.window), (whole, "chunk_shift", caches.shift)]
    if evidence.layout != "genai":
        return []
    attention, convolution, _ = caches.caches
    found = [
        (evidence.model, "left_context", attention.shape[1]),
        (evidence.model, "conv_context", convolution.shape[2]),
        (evidence.model, "pre_encode_cache_size", caches.overlap),
        (evidence.model, "chunk_samples", caches.shift * HOP),
    ]
    encoder = evidence.model.get("encoder")
    if isinstance(encoder, dict):
        found += [(encoder, "hidden_size", attention.shape[2]), (encoder, "num_hidden_layers", attention.shape[0])]
    return found


def _subsampling(evidence: Evidence, caches: EncoderCaches) -> Iterator[Problem]:
    """A stated number of feature frames per encoder frame that is not the graph's."""
    encoder = evidence.graphs[ENCODER].file.name
    section = evidence.model if evidence.layout == "genai" else evidence.configuration
    prefix = "model." if evidence.layout == "genai" else ""
    for file, name, stated in (
        (encoder, "subsampling_factor", evidence.metadata.get("subsampling_factor")),
        (evidence.configuration_name, f"{prefix}subsampling_factor", section.get("subsampling_factor")),
    ):
        if stated is not None and str(stated) != str(caches.subsampling_factor):
            yield Problem(
                "subsampling", file, name, f"{stated}", f"{caches.subsampling_factor}: {encoder} gives an encoder "
                "frame for as many feature frames; the times of words follow from it", REPAIR,
            )  # fmt: skip


def _unread(error: BundleError, encoder: str) -> Problem:
    field = error.field or ""
    if field == "chunk_shift":
        return Problem(
            "windows-unknown", encoder, field, "a streaming encoder of which nothing says how its windows lie",
            "window_size and chunk_shift, in feature frames: a window of NeMo's models has 9 old ones and 8 for each "
            "frame of look-ahead and one more", f"{REPAIR} --window with the model's own, such as 65,56",
        )  # fmt: skip
    return Problem(
        "streaming-encoder", encoder, field, error.problem, "the ports and sizes of a cache-aware encoder",
        "export it again: `tdtdecode export MODEL.nemo --streaming`",
    )  # fmt: skip
