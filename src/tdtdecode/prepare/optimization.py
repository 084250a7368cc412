"""Smaller and faster graphs, by ONNX Runtime's own tools, and what they change."""

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

from ..bundle import Bundle, SplitTransducer, load_graph, read_bundle
from ..bundle.encoder import encoder_ports
from ..bundle.onnx_files.dependencies import import_onnx
from ..bundle.onnx_files.flow import names_read
from ..errors import BundleError, InputError, MissingDependencyError
from ..evaluation import edit_distance
from ..speech.audio.reading import Audio
from ..speech.loading import load_model
from ..transducer import as_integer
from .inspection.checks import overflow
from ..outputs import new_directory
from .writing import copy_texts
from .writing.saving import save_graph

METHODS = ("int8", "fp16", "int4", "fused")
ALGORITHMS = ("rtn", "k_quant", "hqq")

_EMBEDDED_LIMIT = 1 << 30
"""Graphs whose weights take more, in bytes, get a file for them: a protobuf ends at two gigabytes."""

_ROUNDING = 1e-3
"""Most that a fused encoder's output may differ, of its largest number."""

_TRIAL_FRAMES = 400

_TEXTS = (".txt", ".json")


@dataclass(frozen=True)
class Change:
    """What became of the recordings' tokens.

    Attributes
    ----------
    tokens:
        Of the original.
    edits:
        Fewest insertions, deletions and substitutions that make its tokens the optimised model's.
    texts:
        How many recordings read differently, of how many.
    seconds:
        What recognising them took, before and after.
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
        What was left as it is, and why.
    change:
        What became of the recordings; None where none were given.
    """

    bundle: Bundle
    sizes: dict[str, tuple[int, int]]
    notes: tuple[str, ...]
    change: Change | None


def optimize(
    directory: str | os.PathLike[str],
    out: str | os.PathLike[str],
    method: str,
    layout: str = "auto",
    variant: str | None = None,
    durations: Sequence[int] | None = None,
    block_size: int = 32,
    algorithm: str = "rtn",
    recordings: Sequence[Audio] = (),
) -> Optimization:
    """Write a model directory with other graphs, which compute nearly the same.

    Parameters
    ----------
    directory:
        A directory of float32 graphs. Nothing in it is changed.
    out:
        A new folder: the graphs with the method's suffix (GenAI: without), and the token file and configurations.
    method:
        ``"int8"``: dynamic quantisation as in the official exports, uint8 weights in the encoder, int8 in predictor and
        joint. ``"fp16"``: float16 inside, float32 outside; predictor and joint stay float32 where they would overflow.
        ``"int4"``: the encoder's products with weights in blocks of four bits (``MatMulNBits``), all else as it is.
        ``"fused"``: the encoder's attention in fused operators, where ONNX Runtime finds its patterns.
    layout, variant, durations:
        As for `read_bundle`.
    block_size:
        Of int4, weights that share a scale: 16, 32, 64, 128 or 256.
    algorithm:
        Of int4: ``"rtn"`` (to the nearest), ``"k_quant"``, or ``"hqq"``, which needs PyTorch.
    recordings:
        Recognised before and after.

    Raises
    ------
    BundleError
        If the directory cannot be used, is quantised already, or no pattern matches.
    InputError
        If an argument is wrong, or `out` exists and is not empty.
    MissingDependencyError
        If a package is missing that ONNX Runtime's tools need.
    """
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}")
    if algorithm not in ALGORITHMS:
        raise InputError(f"algorithm must be one of {', '.join(map(repr, ALGORITHMS))}, got {algorithm!r}")
    if block_size not in (16, 32, 64, 128, 256):
        raise InputError(f"block_size must be 16, 32, 64, 128 or 256, got {block_size!r}")
    bundle = read_bundle(directory, layout, variant, durations)
    graphs = _graphs(bundle)
    suffix = "" if bundle.layout == "genai" or method == "fused" else f".{method}"
    notes: list[str] = []
    sizes: dict[str, tuple[int, int]] = {}
    with new_directory(out) as folder:
        copy_texts(bundle.directory, folder, _TEXTS)
        stems = {file: file.name.removesuffix(".onnx").removesuffix(f".{variant}") for file in graphs}
        targets = {file: folder / f"{stem}{suffix}.onnx" for file, stem in stems.items()}
        for file, target in targets.items():
            before = _write(bundle, file, graphs[file], target, method, block_size, algorithm, notes)
            sizes[target.name] = (before, _size(target))
        written = read_bundle(folder, bundle.layout, suffix[1:] or None, bundle.spec.durations)
        if method == "fp16" and (problems := list(overflow(written))):
            notes += [f"{problem.file}: {problem.found}: predictor and joint stay in float32" for problem in problems]
            for file, target in targets.items():
                if not graphs[file]:
                    save_graph(load_graph(file, bundle.directory), target)
                    sizes[target.name] = (sizes[target.name][0], _size(target))
    written = read_bundle(out, bundle.layout, suffix[1:] or None, bundle.spec.durations)
    change = _compared(bundle, written, recordings) if recordings else None
    return Optimization(written, sizes, tuple(notes), change)


def _graphs(bundle: Bundle) -> dict[Path, bool]:
    """The graphs' files, and which is the encoder."""
    if bundle.encoder is None:
        raise BundleError("has no encoder, in which nearly all weights are", file=bundle.directory)
    transducer = bundle.transducer
    parts = (
        [transducer.predictor.graph, transducer.joint.graph]
        if isinstance(transducer, SplitTransducer)
        else [transducer.graph]
    )
    files = {bundle.encoder: True} | {graph.file: False for graph in parts}
    for file in files:
        graph = load_graph(file, bundle.directory)
        if graph.quantized or any(node.op_type == "MatMulNBits" for node in graph.model.graph.node):
            raise BundleError("is quantised already; begin with the float32 files", file=file)
    return files


def _write(
    bundle: Bundle, file: Path, is_encoder: bool, target: Path, method: str, block_size: int, algorithm: str,
    notes: list[str],
) -> int:
    """Write one graph; its size before."""
    graph = load_graph(file, bundle.directory)
    if method in ("int4", "fused") and not is_encoder:
        save_graph(graph, target)
        return _size(target)
    with tempfile.TemporaryDirectory(dir=target.parent.parent) as scratch:
        source = Path(scratch, "source.onnx")  # real files: the tools follow no links
        metadata = {entry.key: entry.value for entry in graph.model.metadata_props}
        save_graph(graph, source)
        before = _size(source)
        _widen_weights(source)
        result = Path(scratch, "result.onnx")
        with _quiet():
            if method == "int8":
                _int8(source, result, is_encoder, before)
            elif method == "fp16":
                _fp16(source, result)
            elif method == "int4":
                notes.append(_int4(source, result, block_size, algorithm))
            else:
                notes.append(_fused(source, result, file))
        made = load_graph(result, Path(scratch))
        import_onnx().helper.set_model_props(made.model, metadata)
        save_graph(made, target)
    return before


def _widen_weights(file: Path) -> None:
    """Weights stored in float16 behind a Cast become float32, in place: the tools see constants alone."""
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
        from onnxruntime.transformers.onnx_model import OnnxModel
    # Given the path, shapes are inferred in files, which have no limit of two gigabytes.
    made = convert_float_to_float16(str(source), keep_io_types=True)
    OnnxModel.graph_topological_sort(made.graph)  # it adds Casts where they stand behind what reads them
    _save(made, result)


def _int4(source: Path, result: Path, block_size: int, algorithm: str) -> str:
    with _needing("onnx-ir and sympy"):
        from onnxruntime.quantization import matmul_nbits_quantizer as tool
    if algorithm == "hqq":
        try:
            import torch  # noqa: F401
        except ImportError:
            raise InputError("algorithm 'hqq' needs PyTorch: pip install torch; or use 'rtn' or 'k_quant'") from None
    configs: dict[str, Callable[[], Any]] = {
        "rtn": lambda: tool.DefaultWeightOnlyQuantConfig(block_size=block_size, is_symmetric=False, accuracy_level=4),
        "k_quant": tool.KQuantWeightOnlyQuantConfig,
        "hqq": lambda: tool.HQQWeightOnlyQuantConfig(block_size=block_size, bits=4),
    }
    model = import_onnx().load(source)
    # Their zero points do not fill bytes, which the tool does not reckon with.
    odd = _of_odd_blocks(model, block_size) if algorithm == "k_quant" else []
    quantizer = tool.MatMulNBitsQuantizer(
        model, block_size=block_size, is_symmetric=False, accuracy_level=4, nodes_to_exclude=odd,
        algo_config=configs[algorithm](),
    )  # fmt: skip
    quantizer.process()
    made = quantizer.model.model
    counts = Counter(node.op_type for node in made.graph.node)
    _save(made, result)
    others = f", among them {len(odd)} of an odd number of blocks, which k_quant cannot pack" if odd else ""
    return f"{counts['MatMulNBits']} products in four bits, {counts['MatMul']} as before{others}"


def _of_odd_blocks(model: Any, block_size: int) -> list[str]:
    """The names of products whose weights have an odd number of blocks of inputs."""
    inputs = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if len(tensor.dims) == 2}
    return [
        node.name for node in model.graph.node
        if node.op_type == "MatMul" and -(-inputs.get(node.input[1], 0) // block_size) % 2
    ]  # fmt: skip


def _fused(source: Path, result: Path, file: Path) -> str:
    """Fuse attention; how much of it, and what did not match."""
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
        except Exception as error:  # the tool raises whatever comes up in it
            failure = f"it fails ({type(error).__name__}: {error})"
    missed = ", ".join(f"{text} ({count} times)" for text, count in Counter(messages).most_common(4))
    failure = failure or _difference(source, result)
    if failure:
        raise BundleError(
            f"ONNX Runtime's fusion of conformer attention on its {softmaxes} attentions: {failure}"
            f"{f'; {missed}' if missed else ''}. Plain NeMo exports add the positions' share before they divide, and "
            "have biases where the patterns have none. All other fusions ONNX Runtime makes when it loads a graph",
            file=file,
        )
    fused = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    return f"fused: {fused}" + (f"; not matched: {missed}" if missed else "")


def _difference(source: Path, result: Path) -> str:
    """How a fused encoder's output differs from the original's on random features; nothing where it is rounding."""
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
    return "" if found <= _ROUNDING else f"the fused encoder gives other frames (by {found:.2g} of the largest number)"


def _save(model: Any, file: Path) -> None:
    onnx = import_onnx()
    large = model.ByteSize() > _EMBEDDED_LIMIT or model.ByteSize() < 0
    data = {"save_as_external_data": True, "location": f"{file.name}.data"} if large else {}
    onnx.save(model, file, **data)


def _size(file: Path) -> int:
    """Bytes of a graph with its weights."""
    data = file.with_name(f"{file.name}.data")
    return file.stat().st_size + (data.stat().st_size if data.exists() else 0)


def _compared(before: Bundle, after: Bundle, recordings: Sequence[Audio]) -> Change:
    seconds, results = [], []
    for bundle in (before, after):
        spec = bundle.spec
        model = load_model(bundle.directory, layout=bundle.layout, variant=bundle.variant, durations=spec.durations)
        model.recognize(recordings[0])  # the first one warms up
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
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(error.name or packages, "optimize", "ONNX Runtime's optimisation") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """The tools tell the root logger of every node."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


@contextmanager
def _messages(name: str) -> Iterator[list[str]]:
    """What a logger says at level DEBUG."""
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
