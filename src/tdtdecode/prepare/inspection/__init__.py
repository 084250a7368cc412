"""`inspect`: what a model directory is, what is wrong with it, and which systems can use it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path

from ...arguments import as_choice
from ...bundle.big_blanks import CONFIGURATION
from ...bundle.cached_encoder import read_caches
from ...bundle.description import FEATURE_FRAME_SECONDS, Bundle
from ...bundle.encoder import encoder_ports
from ...bundle.files import open_directory
from ...bundle.onnx_files.dependencies import import_onnx, import_onnxruntime
from ...bundle.onnx_files.external import external_tensors
from ...bundle.onnx_files.graph import Graph, load_graph
from ...bundle.reading import checked_reading, read_bundle
from ...errors import BundleError, InputError, TdtDecodeError
from .checks import CHECKS, STILL_READABLE, overflow
from .evidence import ENCODER, Evidence, collect
from .model_families import convention, family, treatment
from .report import Fact, Inspection, Problem, Use
from .systems import SYSTEMS, reasons_against, uses

__all__ = ["Fact", "Inspection", "Problem", "SYSTEMS", "Use", "inspect"]


def inspect(
    directory: str | os.PathLike[str],
    *,
    layout: str = "auto",
    variant: str | None = None,
    system: str | None = None,
    durations: Sequence[int] | None = None,
    big_blanks: Sequence[int] | None = None,
) -> Inspection:
    """Find out what a model directory is, what is wrong with it, and which systems can use it.

    The graphs, the token file, the configurations and the weights of predictor and joint are read. The encoder's
    weights are not read if they are in files of their own.

    Parameters
    ----------
    directory:
        The directory. Nothing in it is changed.
    layout:
        ``"split"``, ``"combined"``, ``"genai"``, or ``"auto"``: the layout that the file names suggest.
    variant:
        Which files to inspect: ``"int8"`` for ``*.int8.onnx``, None for files without a suffix. If there are none
        without a suffix, None means the first variant that exists.
    system:
        One of `SYSTEMS`. If that system cannot use the directory, the reasons are reported as problems, too.
    durations:
        The model's duration table, frames by duration index, if the directory does not state it.
    big_blanks:
        The frames of the big blanks of a multi-blank RNN-T, if the directory does not state them.

    Returns
    -------
    Facts, problems and notes, and the systems that can use the directory.

    Raises
    ------
    BundleError
        If there is no such directory. Anything wrong inside the directory is reported in the result instead.
    InputError
        If an argument is wrong.
    MissingDependencyError
        If onnx or onnxruntime is not installed.
    """
    durations, big_blanks = checked_reading(layout, variant, durations, big_blanks)
    if system is not None:
        as_choice("system", system, SYSTEMS)
    import_onnx()
    import_onnxruntime()
    root = open_directory(directory)
    evidence = collect(root, layout, variant)
    problems = [*evidence.problems, *(problem for check in CHECKS for problem in check(evidence))]
    bundle, refusal = _read(evidence, durations, big_blanks)
    if bundle is not None:
        problems += overflow(bundle)
    if refusal is not None and all(problem.code in STILL_READABLE for problem in problems):
        problems.append(_as_problem(refusal))  # no other problem explains why it cannot be read
    reasons = {problem.code: f"{problem.where}: {problem.found}" for problem in problems}
    found = uses(evidence, None if refusal is None else str(refusal), reasons)
    if system is not None:
        problems += _unmet(evidence, system)
    return Inspection(
        root, evidence.layout, evidence.variant, tuple(_facts(evidence, bundle, refusal)), tuple(problems),
        tuple(_notes(evidence, bundle)), found,
    )  # fmt: skip


def _read(
    evidence: Evidence, durations: Sequence[int] | None, big_blanks: Sequence[int] | None
) -> tuple[Bundle | None, TdtDecodeError | None]:
    try:
        bundle = read_bundle(evidence.root, evidence.layout or "auto", evidence.variant, durations, big_blanks)
        if bundle.encoder is not None:
            graph = load_graph(bundle.encoder, bundle.directory)
            if bundle.cache_aware:
                read_caches(graph, bundle.windows, bundle.features.mel_bins)
            else:
                encoder_ports(graph)
        return bundle, None
    except (BundleError, InputError) as error:
        return None, error


def _as_problem(error: TdtDecodeError) -> Problem:
    file, field = (Path(error.file).name, error.field or "") if isinstance(error, BundleError) else (".", "")
    found = error.problem if isinstance(error, BundleError) else str(error)
    return Problem("unusable", file, field, found, "a model that this package can decode", "correct what was found")


def _unmet(evidence: Evidence, system: str) -> Iterator[Problem]:
    for reason in dict.fromkeys(reasons_against(evidence, system)):
        what, _, remedy = reason.partition(": `")
        yield Problem("system", ".", system, what, f"a directory that {system} can use",
                      f"`{remedy}" if remedy else "see `tdtdecode repair` and `tdtdecode convert`")


def _facts(evidence: Evidence, bundle: Bundle | None, refusal: TdtDecodeError | None) -> Iterator[Fact]:
    if evidence.layout is None:
        return
    yield Fact("family", family(evidence), ".", "inputs and outputs of the graphs")
    yield Fact("files as written by", convention(evidence), ".", "names of files")
    why = refusal.problem if isinstance(refusal, BundleError) else None if refusal is None else str(refusal)
    yield Fact("this package", treatment(evidence, bundle, why), ".")
    yield Fact("layout", evidence.layout, ".", "names of files")
    yield Fact("variants", list(dict.fromkeys(key or "unsuffixed" for key in evidence.variants)), ".", "names of files")
    for role, graph in evidence.graphs.items():
        file = graph.file.name
        size = graph.file.stat().st_size
        yield Fact(f"{role}: size in bytes", size, file)
        external = _external(graph)
        if external:
            yield Fact(f"{role}: external weights", external, file, "external_data")
        yield Fact(f"{role}: precision", _precision(graph), file, "weights")
        yield Fact(f"{role}: inputs", [str(port) for port in graph.inputs], file)
        yield Fact(f"{role}: outputs", [str(port) for port in graph.outputs], file)
        yield Fact(f"{role}: operators", {e.domain or "ai.onnx": e.version for e in graph.model.opset_import}, file)
    if evidence.tokens is not None:
        yield Fact("tokens in the file", len(evidence.tokens.entries), evidence.tokens.file.name, evidence.tokens.form)
    if evidence.spaces is not None and evidence.spaces.form is not None and evidence.tokens is not None:
        yield Fact("spaces", evidence.spaces.form, evidence.tokens.file.name, "pieces")
    if evidence.embedding_rows is not None and evidence.decoder is not None:
        yield Fact("embedding rows", evidence.embedding_rows, evidence.decoder.file.name, "weights")
    if evidence.row_width is not None and evidence.joint is not None:
        yield Fact("joint row width", evidence.row_width, evidence.joint.file.name, "output")
    if evidence.states and evidence.states[0].rank == 3 and evidence.decoder is not None:
        state = evidence.states[0]
        yield Fact("predictor layers", state.shape[0], evidence.decoder.file.name, state.name)
        yield Fact("predictor width", state.shape[-1], evidence.decoder.file.name, state.name)
    if bundle is not None:
        joint = evidence.joint.file.name if evidence.joint is not None else "."
        vocabulary = evidence.tokens.file.name if evidence.tokens is not None else "."
        yield Fact("vocabulary without blank", bundle.spec.vocab_size, vocabulary)
        yield Fact("blank", bundle.spec.blank, vocabulary)
        yield Fact("durations", list(bundle.spec.durations), *_where_durations(evidence, joint))
        if bundle.spec.big_blanks:
            yield Fact("big blanks", list(bundle.spec.big_blanks), CONFIGURATION)
        yield Fact("encoder width", bundle.spec.encoder_size, joint)
    yield from _encoder_facts(evidence, bundle)
    for name, value in sorted(evidence.metadata.items()):
        yield Fact(f"metadata: {name}", value[:200], evidence.graphs[ENCODER].file.name, "metadata")


def _where_durations(evidence: Evidence, joint: str) -> tuple[str, str]:
    section = evidence.model if evidence.layout == "genai" else evidence.configuration
    if "tdt_durations" in section:
        return evidence.configuration_name, "tdt_durations"
    if "tdt_durations" in evidence.metadata:
        return evidence.graphs[ENCODER].file.name, "metadata tdt_durations"
    return joint, "row width; index = value"


def _encoder_facts(evidence: Evidence, bundle: Bundle | None) -> Iterator[Fact]:
    port = evidence.audio_port
    if port is None:
        return
    file = evidence.graphs[ENCODER].file.name
    yield Fact("encoder for", evidence.family, file, "inputs")
    mel_bins = evidence.mel_bins or port.shape[evidence.mel_axis]
    yield Fact("mel bins", mel_bins, file, f"{port.name}, {evidence.axis_names[0]} axis")
    yield Fact("time axis", evidence.fixed_time or "dynamic", file, f"{port.name}, {evidence.axis_names[1]} axis")
    yield from _streaming_facts(evidence, file)
    if bundle is not None:
        features = bundle.features
        yield Fact("features", features.family, file, "metadata or configuration; default nemo")
        default = "none" if evidence.streaming or features.family == "kaldi" else "per_feature"
        yield Fact("normalisation", features.normalize, file, f"metadata or configuration; default {default}")
        source = f"metadata or configuration; default {4 if features.family == 'kaldi' else 8}"
        yield Fact("subsampling factor", features.subsampling_factor, file, source)
        if features.max_frames is not None:
            seconds = features.max_frames * features.subsampling_factor * FEATURE_FRAME_SECONDS
            yield Fact("longest audio at once, seconds", seconds, file, "position table")


def _streaming_facts(evidence: Evidence, file: str) -> Iterator[Fact]:
    """What a cache-aware encoder takes window by window, and what it holds of a stream meanwhile."""
    caches = evidence.caches
    if caches is None:
        return
    yield Fact("window", f"{caches.window} feature frames, {caches.shift} of them new", file, "number of its frames")
    yield Fact("latency, seconds", round(caches.latency, 3), file, "the new feature frames of a window")
    yield Fact("look-ahead, seconds", round(caches.look_ahead, 3), file, "the window, without its first encoder frame")
    sizes = [f"{one.into.name} {one.into.dtype.name} {list(one.shape)}" for one in caches.caches[:2]]
    yield Fact("caches of a stream", sizes, file, f"inputs, the {'layers' if caches.layers_first else 'streams'} first")
    yield Fact("bytes of a stream's caches", sum(one.nbytes for one in caches.caches), file, "inputs")
    if caches.prompt is not None:
        yield Fact("languages", sorted(caches.languages) or "by number", file, "metadata prompt_dictionary")
        default = caches.default_language
        named = [name for name, number in sorted(caches.languages.items()) if number == default]
        yield Fact("language if none is told", named[0] if named else default, file, "metadata auto_prompt_id")


def _notes(evidence: Evidence, bundle: Bundle | None) -> Iterator[str]:
    if None not in evidence.variants and len(set(evidence.variants)) > 1:
        names = ", ".join(sorted({str(variant) for variant in evidence.variants}))
        yield f"there are several variants ({names}) and none without a suffix: choose one with --variant"
    time = evidence.fixed_time
    if time is not None and evidence.mel_bins is not None and not evidence.streaming:
        yield (
            f"the encoder takes {time} feature frames ({time * FEATURE_FRAME_SECONDS:g} s) at once, "
            "no more and no fewer: this package recognises longer audio in windows; other systems may not accept it"
        )
    fixed = [
        f"{port.name} of {graph.file.name}" for role, graph in evidence.graphs.items() for port in graph.inputs
        if port.is_float and port.rank == 3 and port.shape[1 if port in evidence.states else 0] == 1
        and not (role == ENCODER and evidence.streaming)
    ]  # fmt: skip
    if fixed:
        yield (
            f"a batch of one is fixed in {', '.join(fixed)}: this package runs it at any batch size all the same; for "
            "other systems, `tdtdecode repair` makes the batch axis dynamic"
        )
    if evidence.caches is not None and not evidence.caches.takes_batches:
        yield (
            f"a batch of one is fixed in {evidence.graphs[ENCODER].file.name}: this package gives it several streams "
            "at a time if the graph computes the same then, and else one after the other; for other systems, "
            "`tdtdecode repair` makes the axis dynamic then"
        )
    if any(graph.quantized for graph in evidence.graphs.values()):
        yield "int8 graphs: they are meant for the CPU; on a GPU use float16 or float32 files"
    if ENCODER not in evidence.graphs and bundle is not None:
        yield "no encoder: the directory can decode encoder output, but it cannot recognise audio"


def _external(graph: Graph) -> list[str]:
    entries = (entry for tensor in external_tensors(graph.model) for entry in tensor.external_data)
    return sorted({entry.value for entry in entries if entry.key == "location"})[:8]


def _precision(graph: Graph) -> str:
    """The types of the weights and their shares of all values, the most frequent first."""
    onnx = import_onnx()
    counts: Counter[str] = Counter()
    for tensor in graph.model.graph.initializer:
        name = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        counts["float32" if name == "float" else name] += prod(tensor.dims)
    total = sum(counts.values()) or 1
    shares = [(name, count / total) for name, count in counts.most_common()]
    return ", ".join(f"{name} {share:.0%}" for name, share in shares if share >= 0.005) or "no weights"
