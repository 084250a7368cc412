"""`optimize`: making smaller or faster graphs with ONNX Runtime's tools, and measuring what they change."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import as_choice, as_integer, as_path, as_tuple, listed, refusal
from ..bundle import Bundle, load_graph, read_bundle
from ..bundle.encoder import encoder_ports
from ..bundle.onnx_files.dependencies import import_onnx
from ..bundle.onnx_files.sorting import names_read, sort_nodes
from ..bundle.reading import checked_reading, reread
from ..errors import BundleError, InputError, MissingDependencyError
from ..evaluation import edit_distance
from ..optional import raise_interrupt
from ..outputs import new_directory
from ..reprs import counted, one_line
from ..speech.audio.reading import Audio, check_audio
from ..speech.loading import load_model
from .inspection.checks import overflow
from .writing import copy_texts
from .writing.saving import save_graph

METHODS = ("int8", "fp16", "int4", "fused")
"""What `optimize` can write."""

ALGORITHMS = ("rtn", "k_quant", "hqq")
"""How int4 weights are rounded."""

BLOCK_SIZES = (16, 32, 64, 128, 256)
"""How many int4 weights can share a scale."""

_EMBEDDED_LIMIT = 1 << 30
"""Size, in bytes, above which a graph's weights go into a file of their own. A protobuf ends at two gigabytes."""

_ROUNDING = 1e-3
"""Largest accepted difference of a fused encoder's output, relative to its largest absolute value."""

_TRIAL_FRAMES = 400
"""Feature frames of the random input on which a fused encoder is compared with the original."""

_TEXTS = (".txt", ".json")
"""Suffixes of the files that are copied along."""


@dataclass(frozen=True)
class Change:
    """How the recognised recordings changed.

    Attributes
    ----------
    tokens:
        Number of tokens that the original model recognises.
    edits:
        Fewest insertions, deletions and substitutions that turn them into the optimised model's tokens.
    texts:
        How many recordings have another text, and how many recordings there are.
    seconds:
        Time that recognition took before and after.
    """

    tokens: int
    edits: int
    texts: tuple[int, int]
    seconds: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Optimization:
    """What was written.

    Attributes
    ----------
    bundle:
        The new directory, as `read_bundle` reads it.
    sizes:
        Bytes of each graph with its weights, before and after, by the new file's name.
    notes:
        How much of a graph was changed, and what was not changed and why.
    change:
        How the recognised recordings changed; None if no recordings were given.
    """

    bundle: Bundle
    sizes: dict[str, tuple[int, int]]
    notes: tuple[str, ...]
    change: Change | None

    def __repr__(self) -> str:
        before, after = (sum(sizes[i] for sizes in self.sizes.values()) for i in range(2))
        change = "" if self.change is None else f"{self.change.edits} edits in {counted(self.change.tokens, 'token')}"
        return one_line(self, str(self.bundle.directory), f"{before:,} -> {after:,} bytes", change)


def optimize(
    directory: str | os.PathLike[str],
    out: str | os.PathLike[str],
    to: str,
    *,
    layout: str = "auto",
    variant: str | None = None,
    durations: Sequence[int] | None = None,
    big_blanks: Sequence[int] | None = None,
    block_size: int = 32,
    algorithm: str = "rtn",
    recordings: Sequence[Audio] = (),
) -> Optimization:
    """Write a model directory with smaller or faster graphs, whose results are nearly the same.

    Parameters
    ----------
    directory:
        A directory of float32 graphs. Nothing in it is changed.
    out:
        A new folder for the result. It is complete, or, after an error, not there. The names of the new graphs have the
        suffix `to`, except in the GenAI layout and for ``"fused"``. The token file and the configurations are copied.
    to:
        What to write.

        - ``"int8"``: all graphs dynamically quantised as in the official exports, with uint8 weights in the encoder and
          int8 weights in predictor and joint.
        - ``"fp16"``: all graphs computing in float16, with float32 inputs and outputs. If the joint would overflow,
          predictor and joint stay float32.
        - ``"int4"``: the weights of the encoder's matrix products in four bits (``MatMulNBits``), all else unchanged.
        - ``"fused"``: the encoder's attention in fused operators, if ONNX Runtime recognises it.
    layout, variant, durations, big_blanks:
        As for `read_bundle`.
    block_size:
        For int4, how many weights share a scale: one of `BLOCK_SIZES`.
    algorithm:
        For int4, how weights are rounded: ``"rtn"`` (to the nearest), ``"k_quant"``, or ``"hqq"``, which needs PyTorch.
    recordings:
        Recordings that are recognised before and after, to measure what changes.

    Returns
    -------
    The new directory, its sizes and what changed.

    Raises
    ------
    BundleError
        If the directory cannot be used or is quantised already, or if ONNX Runtime cannot fuse the attention, such as
        that of cache-aware encoders.
    InputError
        If an argument is wrong, or `out` exists and is not empty.
    MissingDependencyError
        If a package is missing that ONNX Runtime's tools need.
    """
    as_choice("to", to, METHODS)
    durations, big_blanks = checked_reading(layout, variant, durations, big_blanks)
    as_choice("algorithm", algorithm, ALGORITHMS)
    if isinstance(block_size, bool) or not isinstance(block_size, int) or block_size not in BLOCK_SIZES:
        raise refusal("block_size", listed(map(str, BLOCK_SIZES)), block_size)
    recordings = as_tuple("recordings", recordings, "a list of recordings")
    for i, recording in enumerate(recordings):
        check_audio(f"recordings[{i}]", recording)
    as_path("out", out, "the path of a new folder")
    bundle = read_bundle(directory, layout, variant, durations, big_blanks)
    graphs = _graphs(bundle)
    if to == "fused" and bundle.cache_aware:
        assert bundle.encoder is not None
        raise BundleError(
            "is cache-aware, and ONNX Runtime knows no fused attention with caches. Use the graph as it is: all other "
            "fusions are made when ONNX Runtime loads it", file=bundle.encoder,
        )  # fmt: skip
    suffix = "" if bundle.layout == "genai" or to == "fused" else f".{to}"
    notes: list[str] = []
    sizes: dict[str, tuple[int, int]] = {}
    with new_directory(out) as folder:
        copy_texts(bundle.directory, folder, _TEXTS)
        stems = {file: file.name.removesuffix(".onnx").removesuffix(f".{bundle.variant}") for file in graphs}
        targets = {file: folder / f"{stem}{suffix}.onnx" for file, stem in stems.items()}
        for file, target in targets.items():
            before = _write(bundle, file, graphs[file], target, to, block_size, algorithm, notes)
            sizes[target.name] = (before, _size(target))
        written = read_bundle(folder, bundle.layout, suffix[1:] or None, *reread(bundle)[3:])
        if to == "fp16" and (problems := list(overflow(written))):
            notes += [f"{problem.file}: {problem.found}: predictor and joint stay in float32" for problem in problems]
            for file, target in targets.items():
                if not graphs[file]:
                    save_graph(load_graph(file, bundle.directory), target)
                    sizes[target.name] = (sizes[target.name][0], _size(target))
    written = read_bundle(out, bundle.layout, suffix[1:] or None, *reread(bundle)[3:])
    change = _compared(bundle, written, recordings) if recordings else None
    return Optimization(written, sizes, tuple(notes), change)


def _graphs(bundle: Bundle) -> dict[Path, bool]:
    """The graphs' files, each with whether it is the encoder."""
    if bundle.encoder is None:
        raise BundleError("has no encoder, which has nearly all weights: add it", file=bundle.directory)
    files = {bundle.encoder: True} | {graph.file: False for graph in bundle.transducer.graphs}
    for file in files:
        graph = load_graph(file, bundle.directory)
        if graph.quantized or any(node.op_type == "MatMulNBits" for node in graph.model.graph.node):
            raise BundleError("is quantised already; use the float32 files", file=file)
    return files


def _write(
    bundle: Bundle, file: Path, is_encoder: bool, target: Path, to: str, block_size: int, algorithm: str,
    notes: list[str],
) -> int:
    """Write one graph, and return its size before, in bytes. Notes are added to `notes`."""
    graph = load_graph(file, bundle.directory)
    if to in ("int4", "fused") and not is_encoder:
        save_graph(graph, target)
        return _size(target)
    with tempfile.TemporaryDirectory(dir=target.parent.parent) as scratch:
        source = Path(scratch, "source.onnx")  # a copy, because the tools do not follow links
        metadata = {entry.key: entry.value for entry in graph.model.metadata_props}
        save_graph(graph, source)
        before = _size(source)
        _widen_weights(source)
        result = Path(scratch, "result.onnx")
        with _quiet():
            if to == "int8":
                _int8(source, result, is_encoder, before)
            elif to == "fp16":
                _fp16(source, result)
            elif to == "int4":
                notes.append(_int4(source, result, block_size, algorithm))
            else:
                notes.append(_fused(source, result, file))
        made = load_graph(result, Path(scratch))
        import_onnx().helper.set_model_props(made.model, metadata)
        save_graph(made, target)
    return before


def _widen_weights(file: Path) -> None:
    """Replace float16 weights that a Cast turns into float32 by float32 weights, in place.

    The tools only handle weights that are constants themselves.
    """
    onnx = import_onnx()
    model = onnx.load(file)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    casts = [
        node for node in model.graph.node
        if node.op_type == "Cast" and node.input[0] in stored and node.attribute[0].i == onnx.TensorProto.FLOAT
    ]  # fmt: skip
    for node in casts:
        values = onnx.numpy_helper.to_array(stored[node.input[0]]).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, node.output[0]))
        model.graph.node.remove(node)
    if casts:
        read = {name for node in model.graph.node for name in names_read(node)}
        for tensor in stored.values():
            if tensor.name not in read:
                model.graph.initializer.remove(tensor)
        _save(model, file)


def _int8(source: Path, result: Path, is_encoder: bool, size: int) -> None:
    with _needing("onnx-ir and sympy"):
        from onnxruntime.quantization import QuantType, quantize_dynamic
    quantize_dynamic(
        source, result, weight_type=QuantType.QUInt8 if is_encoder else QuantType.QInt8,
        use_external_data_format=size > 3 * _EMBEDDED_LIMIT,
    )  # fmt: skip


def _fp16(source: Path, result: Path) -> None:
    with _needing("onnx-ir and sympy"):
        from onnxruntime.transformers.float16 import convert_float_to_float16
    # Given a path and not a model, the tool infers shapes in a file, which has no limit of two gigabytes.
    made = convert_float_to_float16(str(source), keep_io_types=True)
    sort_nodes(made.graph, source)  # the tool puts some Casts behind the nodes that read them
    _save(made, result)


def _int4(source: Path, result: Path, block_size: int, algorithm: str) -> str:
    """Quantise weights to four bits. Returns a note that says how many."""
    with _needing("onnx-ir and sympy"):
        from onnxruntime.quantization import matmul_nbits_quantizer as tool
    if algorithm == "hqq":
        try:
            import torch  # noqa: F401
        except ImportError as error:
            raise_interrupt(error)
            raise InputError("algorithm 'hqq' needs PyTorch: pip install torch; or use 'rtn' or 'k_quant'") from None
    configs: dict[str, Callable[[], Any]] = {
        "rtn": lambda: tool.DefaultWeightOnlyQuantConfig(block_size=block_size, is_symmetric=False, accuracy_level=4),
        "k_quant": tool.KQuantWeightOnlyQuantConfig,
        "hqq": lambda: tool.HQQWeightOnlyQuantConfig(block_size=block_size, bits=4),
    }
    model = import_onnx().load(source)
    # Two zero points share a byte. With k_quant, the tool cannot handle an odd number of them.
    odd = _with_odd_blocks(model, block_size) if algorithm == "k_quant" else []
    quantizer = tool.MatMulNBitsQuantizer(
        model, block_size=block_size, is_symmetric=False, accuracy_level=4, nodes_to_exclude=odd,
        algo_config=configs[algorithm](),
    )  # fmt: skip
    quantizer.process()
    made = quantizer.model.model
    counts = Counter(node.op_type for node in made.graph.node)
    _save(made, result)
    others = f", {len(odd)} of them with an odd number of blocks, which k_quant cannot pack" if odd else ""
    return f"{counts['MatMulNBits']} products in four bits, {counts['MatMul']} unchanged{others}"


def _with_odd_blocks(model: Any, block_size: int) -> list[str]:
    """The names of matrix products whose inputs are divided into an odd number of blocks."""
    inputs = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if len(tensor.dims) == 2}
    return [
        node.name for node in model.graph.node
        if node.op_type == "MatMul" and -(-inputs.get(node.input[1], 0) // block_size) % 2
    ]  # fmt: skip


def _fused(source: Path, result: Path, file: Path) -> str:
    """Fuse the encoder's attention. Returns a note that says how much was fused, and what did not match.

    Raises
    ------
    BundleError
        If nothing matches, the tool fails, or the fused encoder gives other results.
    """
    with _needing("onnx-ir and sympy"):
        from onnxruntime.transformers.fusion_options import FusionOptions
        from onnxruntime.transformers.optimizer import optimize_model
    options = FusionOptions("conformer")
    softmaxes = sum(node.op_type == "Softmax" for node in load_graph(source, source.parent).model.graph.node)
    with _messages("fusion_conformer_attention") as messages:
        try:
            made = optimize_model(str(source), "conformer", optimization_options=options, opt_level=0)
            _save(made.model, result)
            counts = Counter(node.op_type for node in made.model.graph.node if node.domain == "com.microsoft")
            failure = "" if counts["Attention"] + counts["MultiHeadAttention"] else "none matches"
        except Exception as error:  # the tool may raise anything
            failure = f"it fails ({type(error).__name__}: {error})"
    missed = ", ".join(f"{text} ({count} times)" for text, count in Counter(messages).most_common(4))
    failure = failure or _difference(source, result)
    if failure:
        raise BundleError(
            f"ONNX Runtime cannot fuse its {softmaxes} attentions: {failure}{f'; {missed}' if missed else ''}. Plain "
            "NeMo exports add the position scores before they divide, and have biases; ONNX Runtime's patterns expect "
            "neither. Use the graph as it is: all other fusions are made when ONNX Runtime loads it",
            file=file,
        )
    fused = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    return f"fused: {fused}" + (f"; not matched: {missed}" if missed else "")


def _difference(source: Path, result: Path) -> str:
    """How a fused encoder's output differs from the original's on random features; "" if only by rounding."""
    import onnxruntime

    audio, length, frames, _ = encoder_ports(load_graph(source, source.parent))
    _, mel, time = audio.shape
    steps = time if isinstance(time, int) else _TRIAL_FRAMES
    features = np.random.default_rng(0).standard_normal((1, as_integer("mel", mel, low=1), steps)).astype(np.float32)
    feeds = {audio.name: features, length.name: np.array([steps], length.dtype)}
    outputs = []
    for file in (source, result):
        try:
            session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
            outputs.append(session.run([frames.name], feeds)[0])
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            return f"the fused encoder fails ({error})"
    largest = max(float(np.abs(outputs[0]).max()), 1e-6)
    found = float(np.abs(outputs[0] - outputs[1]).max()) / largest
    return "" if found <= _ROUNDING else f"the fused encoder's frames differ by {found:.2g} of their largest value"


def _save(model: Any, file: Path) -> None:
    """Write a graph; a large one gets its weights in a file of their own."""
    onnx = import_onnx()
    large = model.ByteSize() > _EMBEDDED_LIMIT or model.ByteSize() < 0
    data = {"save_as_external_data": True, "location": f"{file.name}.data"} if large else {}
    onnx.save(model, file, **data)


def _size(file: Path) -> int:
    """Bytes of a graph with its weights."""
    data = file.with_name(f"{file.name}.data")
    return file.stat().st_size + (data.stat().st_size if data.exists() else 0)


def _compared(before: Bundle, after: Bundle, recordings: Sequence[Audio]) -> Change:
    """Recognise recordings with both bundles, and compare."""
    seconds, results = [], []
    for bundle in (before, after):
        directory, layout, variant, durations, big_blanks = reread(bundle)
        model = load_model(directory, layout=layout, variant=variant, durations=durations, big_blanks=big_blanks)
        model.recognize(recordings[0])  # warm up
        begin = time.perf_counter()
        results.append(model.recognize(list(recordings)))
        seconds.append(time.perf_counter() - begin)
    tokens = [[out.hypothesis.tokens.tolist() for out in outs if out.hypothesis is not None] for outs in results]
    return Change(
        sum(map(len, tokens[0])),
        sum(edit_distance(one, other) for one, other in zip(*tokens, strict=True)),
        (sum(one.text != other.text for one, other in zip(*results, strict=True)), len(results[0])),
        (seconds[0], seconds[1]),
    )


@contextmanager
def _needing(packages: str) -> Iterator[None]:
    """Turn an ImportError into a `MissingDependencyError` that names the missing package, or else `packages`."""
    try:
        yield
    except ImportError as error:
        raise_interrupt(error)
        raise MissingDependencyError(error.name or packages, "optimize", "ONNX Runtime's optimisation") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the root logger, to which the tools report every node."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


@contextmanager
def _messages(name: str) -> Iterator[list[str]]:
    """Collect the messages of a logger, from level DEBUG up, in place of showing them."""
    said: list[str] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage().removeprefix("fuse_conformer_attention: "))

    logger, handler = logging.getLogger(name), Keeping()
    level, passes_on = logger.level, logger.propagate
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = passes_on
