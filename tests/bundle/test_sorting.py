"""Graphs whose nodes are in any order, which ONNX Runtime runs: they are sorted when they are read."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import tdtdecode as tdt
from tdtdecode.bundle import read_bundle
from tdtdecode.bundle.lifting import lift
from tdtdecode.bundle.onnx_files.parsing import parse_graph
from tdtdecode.prepare import convert, inspect
from tests.bundle.helpers import SMALL, edit, small_bundle
from tests.prepare.test_conversion import decoded

FRAMES = np.random.default_rng(0).standard_normal((3, SMALL["encoder_size"], 20)).astype(np.float32)


def shuffled(model, seed=0):
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes[i] for i in np.random.default_rng(seed).permutation(len(nodes)))


def backwards(model):
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))


@pytest.mark.parametrize("change", [shuffled, backwards])
@pytest.mark.parametrize("layout", ["split", "combined", "genai"])
def test_any_order_is_read(tmp_path, layout, change):
    directory = small_bundle(tmp_path, layout, mel_bins=80)
    frames = FRAMES
    expected = decoded(directory, frames)
    for file in directory.glob("*.onnx"):
        edit(file, change)
        ort.InferenceSession(file, providers=["CPUExecutionProvider"])  # ONNX Runtime takes it
    assert decoded(directory, frames) == expected
    lift(read_bundle(directory).transducer)
    assert inspect(directory).ok
    other = "combined" if layout == "split" else "split"
    convert(directory, tmp_path / "converted", other)
    assert decoded(tmp_path / "converted", frames) == expected


@pytest.mark.parametrize("module", ["onnxconverter_common.float16", "onnxruntime.transformers.float16"])
@pytest.mark.parametrize("layers", [1, 2])
def test_after_a_float16_converter(tmp_path, module, layers):
    """Some put Casts of inputs behind the nodes that read them; some make two nodes of one name, which is no graph."""
    converter = pytest.importorskip(module, reason=f"{module} is not installed")
    directory = small_bundle(tmp_path, "combined", mel_bins=80, predictor_layers=layers)
    file = directory / "decoder_joint-model.onnx"
    onnx.save(converter.convert_float_to_float16(onnx.load(file), keep_io_types=True), file)
    try:
        ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    except Exception:
        with pytest.raises(tdt.BundleError, match="two nodes make this tensor"):
            read_bundle(directory)
        return
    lift(read_bundle(directory).transducer)
    decoder = tdt.Decoder.from_bundle(directory, network="ort")
    assert any(len(h.tokens) for h in decoder.decode(FRAMES))


def test_sorted_graphs_keep_their_order(tmp_path):
    for file in small_bundle(tmp_path, "split", mel_bins=80).glob("*.onnx"):
        assert parse_graph(file) == onnx.load(file)


def test_subgraphs_are_sorted_and_count_as_readers(tmp_path):
    """The branch of an If reads a tensor of the graph around it, which is made later in the file."""
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    branch = helper.make_graph(
        [helper.make_node("Neg", ["inner"], ["y"]), helper.make_node("Abs", ["outer"], ["inner"])], "branch", [],
        [value],
    )
    model = helper.make_model(helper.make_graph(
        [helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch),
         helper.make_node("Exp", ["x"], ["outer"])],
        "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
              helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])],
    ), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)  # fmt: skip
    onnx.save(model, tmp_path / "model.onnx")
    found = parse_graph(tmp_path / "model.onnx")
    onnx.checker.check_model(found)
    assert [node.op_type for node in found.graph.node] == ["Exp", "If"]


@pytest.mark.parametrize(("nodes", "message"), [
    ([("Neg", "b", "a"), ("Abs", "a", "b"), ("Exp", "x", "z")], "wait for each other in a circle"),
    ([("Neg", "z", "z")], "wait for each other in a circle"),
    ([("Neg", "x", "z"), ("Abs", "x", "z")], "two nodes make this tensor"),
])  # fmt: skip
def test_what_no_order_helps(tmp_path, nodes, message):
    model = helper.make_model(helper.make_graph(
        [helper.make_node(kind, [source], [result]) for kind, source, result in nodes], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])],
    ))  # fmt: skip
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(tdt.BundleError, match=message):
        parse_graph(tmp_path / "model.onnx")
