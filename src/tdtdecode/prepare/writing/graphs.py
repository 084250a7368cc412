"""Making the graphs of one layout from those of another."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...bundle.caches import EncoderCaches
from ...bundle.cut import CannotSplit, Cut, encoder_input
from ...bundle.encoder import encoder_ports
from ...bundle.lifting.expressions import CannotLift, Expressions
from ...bundle.lifting.patterns import without_log_softmax
from ...bundle.onnx_files.dependencies import import_onnx
from ...bundle.onnx_files.external import external_tensors
from ...bundle.onnx_files.graph import Graph, Port, load_graph
from ...bundle.onnx_files.sorting import names_read
from ...bundle.ports import bind_joint, bind_predictor
from ...bundle.probe import BATCH_AXIS
from ...bundle.transducers import CombinedTransducer, JointGraph, PredictorGraph, Shape, SplitTransducer, width
from ...errors import BundleError
from .cached import NEMO, CachedNames, write_cached_encoder
from .rewiring import PortChange, rename, rewire, tensor_names


@dataclass(frozen=True)
class PortNames:
    """The names, types and axes of the inputs and outputs of predictor and joint in a layout.

    Axes are given by letters: B is the batch, U tokens, T frames, H the predictor's width, E the encoder's width, and W
    the width of a joint row.

    Attributes
    ----------
    integers:
        Type of the tokens and their length.
    targets, target_length, states_in, output, output_length, states_out:
        The predictor's inputs and outputs; each pair is the hidden state and the cell. No `target_length`: the
        predictor is not told how many tokens there are, which is one.
    frames, prediction, rows:
        The joint's inputs and its output.
    output_axes, frames_axes, prediction_axes:
        The axes of `output`, `frames` and `prediction`.
    log_softmax:
        Whether the joint ends in a log-softmax over a whole joint row.
    """

    integers: str
    targets: str
    target_length: str | None
    states_in: tuple[str, str]
    output: str
    output_length: str
    states_out: tuple[str, str]
    frames: str
    prediction: str
    rows: str
    output_axes: str = "BHU"
    frames_axes: str = "BET"
    prediction_axes: str = "BHU"
    log_softmax: bool = False


_FLOAT = np.dtype(np.float32)
"""Type of all float inputs and outputs that are written, because it is what all systems use."""

_LENGTHS = np.dtype(np.int64)
"""Type of an encoder's input and output lengths."""

_NO_LENGTH = "length/of/targets"
"""What the length of the targets is called until it is taken away."""

_AXIS_NAMES = {"B": BATCH_AXIS, "T": "time", "U": "tokens"}


def separate_modules(
    transducer: SplitTransducer | CombinedTransducer, directory: Path, blank: int, encoder_size: int | None
) -> SplitTransducer:
    """The predictor and the joint as two graphs, each with all of its weights.

    A combined graph is read again from its file. It is split where NeMo's predictor module ends (`module_boundary`),
    which is earlier than where `read_bundle` splits it.

    Parameters
    ----------
    transducer, directory:
        The predictor and joint of a bundle, and its directory.
    blank:
        Id of blank.
    encoder_size:
        Width of an encoder frame; None if unknown.

    Raises
    ------
    BundleError
        If the combined graph cannot be split there, or the graphs have inputs or outputs that the layouts do not have.
    """
    modules = _read_modules(transducer, directory, blank, encoder_size)
    predictor, joint = modules.predictor, modules.joint
    if len(predictor.states_in) != 2:
        raise BundleError(
            f"has {len(predictor.states_in)} states; all layouts expect the two states of an LSTM",
            file=predictor.graph.file,
        )
    for what, graph, shape in (
        ("predictor outputs", predictor.graph, predictor.output_shape),
        ("encoder frames", joint.graph, joint.encoder_shape),
        ("predictor outputs", joint.graph, joint.predictor_shape),
    ):
        if len(shape) != 3:
            raise BundleError(f"its {what} are {list(shape)}; all layouts expect three axes", file=graph.file)
    if len(joint.output_shape) != 4:
        raise BundleError(
            f"its joint rows are {list(joint.output_shape)}; all layouts expect [batch, time, tokens, width]",
            file=joint.graph.file,
        )
    return modules


def _read_modules(
    transducer: SplitTransducer | CombinedTransducer, directory: Path, blank: int, encoder_size: int | None
) -> SplitTransducer:
    if isinstance(transducer, SplitTransducer) and transducer.predictor.graph.file != transducer.joint.graph.file:
        return transducer
    part = transducer.predictor if isinstance(transducer, SplitTransducer) else transducer
    graph = load_graph(part.graph.file, directory)
    try:
        cut = Cut(graph, encoder_input(graph))
        predictor = bind_predictor(cut.predictor(cut.module_boundary(blank)), blank)
        return SplitTransducer(predictor, bind_joint(cut.joint(predictor), predictor, encoder_size))
    except CannotSplit as reason:
        raise BundleError(f"cannot be split into predictor and joint: {reason}", file=graph.file) from None


def write_predictor(predictor: PredictorGraph, names: PortNames) -> Graph:
    """Give a predictor's graph the inputs and outputs of a layout, in place, and return it."""
    (layers, hidden), _ = predictor.state_shapes
    integers = np.dtype(names.integers)
    targets = Port(names.targets, integers, _shape("BU", {}))
    length = Port(names.target_length or _NO_LENGTH, integers, _shape("B", {}))
    states_in, states_out = (
        [Port(name, _FLOAT, (layers, BATCH_AXIS, hidden)) for name in both]
        for both in (names.states_in, names.states_out)
    )
    output = Port(names.output, _FLOAT, _shape(names.output_axes, {"H": width(predictor.output_shape)}))
    given = [] if predictor.target_length is None else [PortChange(predictor.target_length, "B", length, "B")]
    rewire(
        predictor.graph,
        [
            PortChange(predictor.targets, "BU", targets, "BU"),
            *given,
            *(PortChange(old, "LBH", new, "LBH") for old, new in zip(predictor.states_in, states_in, strict=True)),
        ],
        [
            PortChange(predictor.output, _axes(predictor.output_shape, "H", "U"), output, names.output_axes),
            *(PortChange(old, "LBH", new, "LBH") for old, new in zip(predictor.states_out, states_out, strict=True)),
        ],
        # `_pass_length` and `merge` add tensors with these names.
        reserved={length.name, names.output_length, names.frames, names.rows},
    )
    if names.target_length is None:
        _drop_length(predictor.graph)
    else:
        _pass_length(predictor.graph, length, names.output_length)
    return predictor.graph


def write_joint(joint: JointGraph, names: PortNames) -> Graph:
    """Give a joint's graph the inputs and outputs of a layout, in place, and return it."""
    rows = replace(joint.output, name=_logits(joint))
    widths = {"E": width(joint.encoder_shape), "H": width(joint.predictor_shape), "W": joint.output_shape[-1]}
    inputs = [
        PortChange(
            joint.encoder, _axes(joint.encoder_shape, "E", "T"),
            Port(names.frames, _FLOAT, _shape(names.frames_axes, widths)), names.frames_axes,
        ),
        PortChange(
            joint.predictor, _axes(joint.predictor_shape, "H", "U"),
            Port(names.prediction, _FLOAT, _shape(names.prediction_axes, widths)), names.prediction_axes,
        ),
    ]  # fmt: skip
    new = Port(names.rows, _FLOAT, _shape("BTUW", widths))
    rewire(joint.graph, inputs, [PortChange(rows, "BTUW", new, "BTUW")])
    if names.log_softmax:
        proto = joint.graph.model.graph
        rename(proto, {names.rows: f"{names.rows}/logits"})
        proto.node.append(
            import_onnx().helper.make_node("LogSoftmax", [f"{names.rows}/logits"], [names.rows], axis=-1)
        )
    return joint.graph


def merge(predictor: Graph, joint: Graph, names: PortNames) -> Graph:
    """Merge a predictor and a joint, which have the inputs and outputs of `names`, into one graph.

    Both graphs are changed in place.

    Raises
    ------
    BundleError
        If the two were exported for different versions of the operators.
    """
    onnx = import_onnx()
    versions = {entry.domain: entry.version for entry in predictor.model.opset_import}
    for entry in joint.model.opset_import:
        if versions.setdefault(entry.domain, entry.version) != entry.version:
            raise BundleError(
                f"is for version {entry.version} of the operators {entry.domain or 'ai.onnx'!r}, but "
                f"{predictor.file.name} is for version {versions[entry.domain]}. One graph can only have one version: "
                "export both for the same version",
                file=joint.file,
            )
    one, other = predictor.model.graph, joint.model.graph
    taken = tensor_names(one) | {names.output}
    clashes = tensor_names(other) & taken | {names.prediction}
    rename(other, {name: names.output if name == names.prediction else f"joint/{name}" for name in clashes})
    folder = _common_folder(predictor, joint)
    graph = onnx.helper.make_graph(
        [*one.node, *other.node],
        one.name,
        [other.input[0], *one.input],
        [other.output[0], *one.output[1:]],
        [*one.initializer, *other.initializer],
        sparse_initializer=[*one.sparse_initializer, *other.sparse_initializer],
    )
    graph.quantization_annotation.extend((*one.quantization_annotation, *other.quantization_annotation))
    model = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid(domain, version) for domain, version in versions.items()],
        functions=[*predictor.model.functions, *joint.model.functions],
        ir_version=max(predictor.model.ir_version, joint.model.ir_version),
        producer_name=predictor.model.producer_name,
    )
    return Graph(model, predictor.file, folder)


def write_encoder(
    graph: Graph, caches: EncoderCaches | None, metadata: Mapping[str, str], names: CachedNames = NEMO
) -> Graph:
    """Give an encoder's graph the inputs and outputs of a layout, and add metadata, in place.

    Parameters
    ----------
    caches, names:
        The ports of a cache-aware encoder, and the convention for them. Other encoders have the same ports in all
        layouts.
    """
    if caches is not None:
        return write_cached_encoder(graph, caches, names, metadata)
    audio, length, frames, counts = encoder_ports(graph)
    named = (
        (audio, "audio_signal", _FLOAT, "BMT"), (length, "length", _LENGTHS, "B"),
        (frames, "outputs", _FLOAT, "BET"), (counts, "encoded_lengths", _LENGTHS, "B"),
    )  # fmt: skip
    changes = [PortChange(port, axes, replace(port, name=name, dtype=dtype), axes) for port, name, dtype, axes in named]
    rewire(graph, changes[:2], changes[2:])
    entries = {entry.key: entry.value for entry in graph.model.metadata_props} | dict(metadata)
    import_onnx().helper.set_model_props(graph.model, entries)
    return graph


def _pass_length(graph: Graph, length: Port, output: str) -> None:
    """Make the length of the targets the second input and, unchanged, the second output, in place.

    An input that the predictor does not have is added. Its value is always 1.
    """
    helper = import_onnx().helper
    proto = graph.model.graph
    kind = helper.np_dtype_to_tensor_dtype(length.dtype)
    if length.name not in {value.name for value in proto.input}:
        proto.input.insert(1, helper.make_tensor_value_info(length.name, kind, length.shape))
    proto.node.append(helper.make_node("Identity", [length.name], [output], name=f"{output}/identity"))
    proto.output.insert(1, helper.make_tensor_value_info(output, kind, length.shape))


def _drop_length(graph: Graph) -> None:
    """Take the length of the targets away, in place.

    Raises
    ------
    BundleError
        If the predictor computes something from it.
    """
    proto = graph.model.graph
    if any(_NO_LENGTH in names_read(node) for node in proto.node):
        raise BundleError("computes with the length of the targets, which this layout does not have", file=graph.file)
    for value in list(proto.input):
        if value.name == _NO_LENGTH:
            proto.input.remove(value)


def _logits(joint: JointGraph) -> str:
    """The name of the joint rows before the log-softmax at the joint's end; of its output if there is none."""
    name = joint.output.name
    expressions = Expressions(joint.graph)
    node, _ = expressions.producer(name)
    if node is None or node.op_type != "LogSoftmax":
        return name
    try:
        return without_log_softmax(expressions, name, len(joint.output_shape))
    except CannotLift:  # it normalises something else than whole joint rows
        return name


def _shape(axes: str, widths: Mapping[str, int | None]) -> tuple[int | str | None, ...]:
    return tuple(widths[letter] if letter in widths else _AXIS_NAMES[letter] for letter in axes)


def _axes(shape: Shape, wide: str, single: str) -> str:
    """The letters of three axes: B for the batch (None), `wide` for the width, `single` for the axis of size 1."""
    letters = ["B" if dim is None else single for dim in shape]
    letters[shape.index(width(shape))] = wide
    return "".join(letters)


def _common_folder(one: Graph, other: Graph) -> Path | None:
    """A folder that contains the external weights of both; their locations are made relative to it, in place."""
    folders = [graph.weights_folder for graph in (one, other) if graph.weights_folder is not None]
    if not folders:
        return None
    common = Path(os.path.commonpath(folders))
    for graph in (one, other):
        for tensor in external_tensors(graph.model):
            for entry in tensor.external_data:
                if entry.key == "location":
                    assert graph.weights_folder is not None
                    entry.value = (graph.weights_folder / entry.value).relative_to(common).as_posix()
    return common
