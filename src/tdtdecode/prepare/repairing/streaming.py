"""The steps of a repair that concern cache-aware encoders."""

from __future__ import annotations

from typing import Any

from ...bundle.onnx_files.dependencies import import_onnx
from ...bundle.probe import BATCH_AXIS
from ...errors import BundleError, InputError
from ...speech.streaming.cache_aware import CacheAwareEncoder
from ..inspection.evidence import ENCODER, Evidence
from ..inspection.streaming import configured
from .working import Repairs, rewrite

_GRAPH = "the graph, which was made for these"


def state_windows(repairs: Repairs) -> None:
    """Write the windows that the caller gave into the encoder's metadata, unless the graph says others.

    Raises
    ------
    InputError
        If the graph says that it was made for other windows.
    """
    evidence = repairs.evidence()
    if repairs.windows is None or not evidence.streaming:
        return
    encoder = evidence.graphs[ENCODER]
    window, shift = repairs.windows
    before = evidence.metadata
    given = {"window_size": str(window), "chunk_shift": str(shift)}
    changed = {name: value for name, value in given.items() if before.get(name) != value}
    if changed:
        entries = before | changed
        rewrite(repairs, encoder.file.name, lambda model: import_onnx().helper.set_model_props(model, entries))
        for name, value in changed.items():
            repairs.record(encoder.file.name, f"metadata {name}", before.get(name), value, "as given")
    caches = repairs.evidence().caches
    if caches is not None and (caches.window, caches.shift) != (window, shift):
        raise InputError(
            f"windows={window},{shift}: {encoder.file.name} was made for windows of {caches.window} feature frames "
            f"that move on by {caches.shift}"
        )


def streaming_metadata(evidence: Evidence) -> dict[str, tuple[str, str]]:
    """What the metadata of a cache-aware encoder should contain besides: name -> (value, where it comes from)."""
    caches = evidence.caches
    if caches is None:
        return {}
    correct = {name: (value, _GRAPH) for name, value in caches.metadata().items()}
    correct["subsampling_factor"] = str(caches.subsampling_factor), _GRAPH
    stated = evidence.metadata.get("normalize_type")
    why = "not stated; NeMo's streaming models take features as they are"
    correct["normalize_type"] = "NA" if stated is None else stated, why
    for name, value in (("chunk_size_output_frames", caches.chunk), ("pre_encode_cache", caches.overlap)):
        if name in evidence.metadata:
            correct[name] = str(value), _GRAPH
    return correct


def streaming_configuration(evidence: Evidence) -> list[tuple[dict[str, Any], str, dict[str, tuple[Any, str]]]]:
    """What a configuration should state of a cache-aware encoder: its sections, what comes before a field's name, and
    name -> (value, where it comes from). Fields that are not there are left out, as other systems refuse some."""
    caches = evidence.caches
    if caches is None:
        return []
    found: dict[int, tuple[dict[str, Any], str, dict[str, tuple[Any, str]]]] = {}
    whole = evidence.model if evidence.layout == "genai" else evidence.configuration
    for section, name, value in [
        *configured(evidence, caches), (whole, "subsampling_factor", caches.subsampling_factor),
    ]:  # fmt: skip
        prefix = "" if evidence.layout != "genai" else "model." if section is evidence.model else "model.encoder."
        if name in section:
            found.setdefault(id(section), (section, prefix, {}))[2][name] = value, _GRAPH
    return list(found.values())


def unfix_streams(repairs: Repairs) -> None:
    """Make the axis of the streams dynamic if an encoder fixes it at one, and computes several all the same."""
    bundle, caches = repairs.bundle(), repairs.evidence().caches
    if bundle is None or bundle.encoder is None or caches is None:
        return
    axes = caches.batch_axes
    graph = repairs.evidence().graphs[ENCODER]
    fixed = [port.name for port in graph.inputs if port.name in axes and port.shape[axes[port.name]] == 1]
    try:
        if not fixed or not CacheAwareEncoder(bundle, threads=1).opened_batch:
            return
    except BundleError:
        return
    outs = {caches.frames.name: 0, caches.counts.name: 0} | {one.out.name: one.batch_axis for one in caches.caches}

    def unfix(model: Any) -> None:
        del model.graph.value_info[:]
        for value in (*model.graph.input, *model.graph.output):
            axis = (axes | outs).get(value.name)
            dims = value.type.tensor_type.shape.dim
            if axis is not None and axis < len(dims):
                dims[axis].dim_param = BATCH_AXIS

    repairs.record(
        graph.file.name, ", ".join(fixed), "a batch of 1", "any batch", "the graph was run on two streams, and they "
        "did not affect each other",
    )  # fmt: skip
    rewrite(repairs, graph.file.name, unfix)
