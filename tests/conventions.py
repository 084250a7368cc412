"""Cache-aware encoders as other exporters write them, made from NeMo's in `tests/golden_streaming`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

GOLDEN = Path(__file__).parent / "golden_streaming"

Edit = Callable[[onnx.ModelProto], None]


def edited(directory: Path, name: str, *edits: Edit) -> Path:
    """A copy of a golden model in the split layout, its encoder edited."""
    directory.mkdir(parents=True, exist_ok=True)
    for file in ("decoder.onnx", "joiner.onnx", "tokens.txt"):
        shutil.copy(GOLDEN / name / file, directory)
    model = onnx.load(GOLDEN / name / "encoder.onnx")
    for edit in edits:
        edit(model)
    onnx.save(model, directory / "encoder.onnx")
    return directory


def _values(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return [*model.graph.input, *model.graph.output]


def rename(names: dict[str, str]) -> Edit:
    """Give ports other names."""

    def edit(model: onnx.ModelProto) -> None:
        for value in _values(model):
            value.name = names.get(value.name, value.name)
        for node in model.graph.node:
            for side in (node.input, node.output):
                for i, name in enumerate(side):
                    side[i] = names.get(name, name)

    return edit


def _transposed(name: str, perm: list[int]) -> Edit:
    """Give a port other axes."""

    def edit(model: onnx.ModelProto) -> None:
        inside = f"{name}/inside"
        is_input = any(value.name == name for value in model.graph.input)
        for node in model.graph.node:
            for side in (node.input, node.output):
                for i, other in enumerate(side):
                    side[i] = inside if other == name else other
        back = [perm.index(axis) for axis in range(len(perm))]
        nodes = list(model.graph.node)
        if is_input:
            nodes.insert(0, helper.make_node("Transpose", [name], [inside], perm=back))
        else:
            nodes.append(helper.make_node("Transpose", [inside], [name], perm=perm))
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        (value,) = [value for value in _values(model) if value.name == name]
        shape = value.type.tensor_type.shape
        old = onnx.TensorShapeProto.FromString(shape.SerializeToString())
        del shape.dim[:]
        shape.dim.extend(old.dim[axis] for axis in perm)

    return edit


def together(*edits: Edit) -> Edit:
    """One edit after the other."""

    def edit(model: onnx.ModelProto) -> None:
        for one in edits:
            one(model)

    return edit


LAYERS_FIRST = together(*(
    _transposed(name, [1, 0, 2, 3])
    for name in ("cache_last_channel", "cache_last_time", "cache_last_channel_next", "cache_last_time_next")
))  # fmt: skip
"""parakeet-rs's order of axes."""

TIME_FIRST = together(_transposed("audio_signal", [0, 2, 1]), _transposed("outputs", [0, 2, 1]))
"""The order of axes of onnxruntime-genai's ``nemotron_speech``."""


def without_metadata(*kept: str) -> Edit:
    """Take the metadata away, but for these entries."""

    def edit(model: onnx.ModelProto) -> None:
        entries = [entry for entry in model.metadata_props if entry.key in kept]
        del model.metadata_props[:]
        model.metadata_props.extend(entries)

    return edit


def metadata(**entries: str | None) -> Edit:
    """Change entries of the metadata; None takes one away."""

    def edit(model: onnx.ModelProto) -> None:
        found = {entry.key: entry.value for entry in model.metadata_props} | entries
        helper.set_model_props(model, {name: value for name, value in found.items() if value is not None})

    return edit


def fixed(axes: dict[str, dict[int, int]]) -> Edit:
    """Fix axes of ports: name -> axis -> size. "*" is for every port."""

    def edit(model: onnx.ModelProto) -> None:
        for value in _values(model):
            for axis, size in (axes.get("*", {}) | axes.get(value.name, {})).items():
                dim = value.type.tensor_type.shape.dim[axis]
                dim.Clear()
                dim.dim_value = size

    return edit


def for_one_stream(model: onnx.ModelProto) -> None:
    """A constant batch of one inside the graph, as a trace with a fixed batch leaves it."""
    (frames,) = [value for value in model.graph.output if value.name == "outputs"]
    width = frames.type.tensor_type.shape.dim[1].dim_value
    for node in model.graph.node:
        for i, name in enumerate(node.output):
            node.output[i] = "outputs/whole" if name == "outputs" else name
    shape = onnx.numpy_helper.from_array(np.array([1, width, -1]), "shape/of/one")
    model.graph.initializer.append(shape)
    model.graph.node.append(helper.make_node("Reshape", ["outputs/whole", "shape/of/one"], ["outputs"]))
    fixed({"*": {0: 1}})(model)


def in_float16(model: onnx.ModelProto) -> None:
    """Weights, features, caches and frames in float16."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model.CopyFrom(convert_float_to_float16(model, keep_io_types=False))


def uncounted(model: onnx.ModelProto) -> None:
    """A graph that does not say for which windows it is: it counts frames by its features."""
    nodes = list(model.graph.node)
    for node in nodes:
        for i, name in enumerate(node.input):
            node.input[i] = "length/told" if name == "length" else name
    extra = [
        helper.make_node("ReduceSum", ["audio_signal"], ["sum"], keepdims=0),
        helper.make_node("Sub", ["sum", "sum"], ["zero"]),
        helper.make_node("Cast", ["zero"], ["zero/whole"], to=onnx.TensorProto.INT64),
        helper.make_node("Add", ["length", "zero/whole"], ["length/told"]),
    ]
    del model.graph.node[:]
    model.graph.node.extend([*extra, *nodes])
