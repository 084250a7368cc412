"""Smaller graphs by ONNX Runtime's tools: whole directories again, which say what the original says, or nearly."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tdtdecode as tdt
from benches.random_bundle import LAYOUTS
from tdtdecode.bundle import read_bundle
from tdtdecode.cli import main
from tdtdecode.prepare.conversion import convert
from tdtdecode.prepare.inspection import inspect
from tdtdecode.prepare.optimization import optimize
from tests import demo, peers
from tests.bundle.helpers import edit, small_bundle

RATE = 16_000


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """The demo model in each layout."""
    root = tmp_path_factory.mktemp("demos")
    found = {"combined": demo.DIRECTORY}
    for layout in ("split", "genai"):
        convert(demo.DIRECTORY, root / layout, layout)
        found[layout] = root / layout
    return found


@pytest.fixture(scope="module")
def recordings():
    return [(samples, RATE) for samples, _ in demo.recordings().values()]


def texts(directory, recordings, **options):
    return [out.text for out in tdt.load_model(directory, **options).recognize(recordings)]


def kinds(file) -> set[str]:
    model = onnx.load(file)
    return {node.op_type for node in model.graph.node}


@pytest.mark.parametrize(
    "method, layout",
    [
        pytest.param(method, layout, marks=() if i == j else pytest.mark.exhaustive)
        for i, method in enumerate(("int8", "fp16", "int4"))
        for j, layout in enumerate(LAYOUTS)
    ],
)
def test_the_demo_still_understands(demos, recordings, tmp_path, method, layout):
    result = optimize(demos[layout], tmp_path / "out", method, recordings=recordings)
    assert result.bundle.layout == layout
    assert result.bundle.variant == (None if layout == "genai" else method)
    assert inspect(tmp_path / "out").ok
    change = result.change
    assert change.tokens > 150 and change.edits <= 8 and change.texts[1] == len(recordings)
    expected = [text for _, text in demo.recordings().values()]
    said = texts(tmp_path / "out", recordings, variant=result.bundle.variant)
    assert sum(a == b for a, b in zip(said, expected)) >= 13
    assert result.bundle.features == read_bundle(demos[layout]).features
    assert result.bundle.spec == read_bundle(demos[layout]).spec


def test_int8_is_that_of_the_official_exports(demos, tmp_path):
    """uint8 weights in the encoder, int8 in predictor and joint, products of integers."""
    result = optimize(demos["split"], tmp_path / "out", "int8")
    for name, kind in (("encoder", TensorProto.UINT8), ("decoder", TensorProto.INT8), ("joiner", TensorProto.INT8)):
        model = onnx.load(tmp_path / "out" / f"{name}.int8.onnx")
        assert {"DynamicQuantizeLinear", "DynamicQuantizeLSTM"} & {node.op_type for node in model.graph.node}
        large = [t.data_type for t in model.graph.initializer if np.prod(t.dims) > 1000]
        assert kind in large
    assert all(after < before for before, after in result.sizes.values())


def test_sherpa_onnx_takes_int8(demos, tmp_path):
    optimize(demos["split"], tmp_path / "out", "int8")
    for part in ("encoder", "decoder", "joiner"):
        (tmp_path / "out" / f"{part}.int8.onnx").rename(tmp_path / "out" / f"{part}.onnx")
    said = peers.sherpa_onnx_texts(tmp_path / "out")
    assert sum(a == b for a, (_, b) in zip(said, demo.recordings().values())) >= 11


def test_onnx_asr_takes_fp16(demos, tmp_path):
    """Inputs and outputs are float32: what hands in float32 notices nothing."""
    optimize(demos["combined"], tmp_path / "out", "fp16")
    for stem in ("encoder-model", "decoder_joint-model"):
        (tmp_path / "out" / f"{stem}.fp16.onnx").rename(tmp_path / "out" / f"{stem}.onnx")
    said = peers.onnx_asr_texts(tmp_path / "out")
    assert sum(a == b for a, (_, b) in zip(said, demo.recordings().values())) >= 13


@pytest.mark.parametrize("network", ["fused", "ort"])
def test_fp16_is_decoded_by_both_networks(demos, recordings, tmp_path, network):
    optimize(demos["split"], tmp_path / "out", "fp16")
    said = texts(tmp_path / "out", recordings, variant="fp16", network=network)
    assert said == texts("demo", recordings)


def test_fp16_leaves_what_would_overflow(tmp_path):
    directory = small_bundle(tmp_path / "bundle", "split", mel_bins=80)

    def enlarge(model):
        for tensor in model.graph.initializer:
            if list(tensor.dims) == [10, 18]:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 3e5, tensor.name))

    edit(directory / "joiner.onnx", enlarge)
    result = optimize(directory, tmp_path / "out", "fp16")
    assert any("stay in float32" in note for note in result.notes)
    assert inspect(tmp_path / "out").ok
    joiner = onnx.load(tmp_path / "out" / "joiner.fp16.onnx")
    assert {tensor.data_type for tensor in joiner.graph.initializer} == {TensorProto.FLOAT}


@pytest.mark.parametrize(("algorithm", "block_size"), [("rtn", 16), ("rtn", 128), ("k_quant", 32)])
def test_int4(demos, recordings, tmp_path, algorithm, block_size):
    result = optimize(
        demos["split"], tmp_path / "out", "int4", algorithm=algorithm, block_size=block_size, recordings=recordings
    )
    assert "MatMulNBits" in kinds(tmp_path / "out" / "encoder.int4.onnx")
    assert "products in four bits" in result.notes[0]
    assert result.change.edits <= 0.15 * result.change.tokens
    assert result.sizes["decoder.int4.onnx"][0] == result.sizes["decoder.int4.onnx"][1]


def test_hqq(demos, recordings, tmp_path):
    pytest.importorskip("torch", reason="HQQ needs PyTorch (pip install torch)")
    result = optimize(demos["split"], tmp_path / "out", "int4", algorithm="hqq", recordings=recordings)
    assert "MatMulNBits" in kinds(tmp_path / "out" / "encoder.int4.onnx")
    assert result.change.edits <= 0.15 * result.change.tokens


def test_hqq_without_torch(demos, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(tdt.InputError, match="pip install torch"):
        optimize(demos["split"], tmp_path / "out", "int4", algorithm="hqq")


def test_without_the_tools_packages(demos, tmp_path, monkeypatch):
    for name in list(__import__("sys").modules):
        if name.startswith("onnxruntime.quantization"):
            monkeypatch.delitem(__import__("sys").modules, name)
    monkeypatch.setitem(__import__("sys").modules, "onnx_ir", None)
    with pytest.raises(tdt.MissingDependencyError, match=r"tdtdecode\[optimize\]"):
        optimize(demos["split"], tmp_path / "out", "int4")


def test_plain_nemo_exports_do_not_match_the_fusion(demos, tmp_path):
    """The message says which pattern did not match, how often, and why; nothing is written."""
    pytest.importorskip("sympy", reason="sympy is not installed")
    with pytest.raises(tdt.BundleError, match=r"5 attentions: none matches; failed to match .* path \(\d+ times\)"):
        optimize(demos["combined"], tmp_path / "out", "fused")
    assert not (tmp_path / "out").exists()


def test_attention_that_matches_is_fused(tmp_path):
    pytest.importorskip("sympy", reason="sympy is not installed")
    directory = small_bundle(tmp_path / "bundle", "split", mel_bins=80)
    onnx.save(attentive_encoder(80, 16), directory / "encoder.onnx")
    result = optimize(directory, tmp_path / "out", "fused", recordings=[(np.ones(64_000, np.float32) * 0.01, RATE)])
    assert kinds(tmp_path / "out" / "encoder.onnx") & {"MultiHeadAttention", "Attention"}
    assert any(note.startswith("fused: ") for note in result.notes)
    assert result.change.edits == 0


def attentive_encoder(mel: int, width: int, heads: int = 2) -> onnx.ModelProto:
    """An encoder with one attention and a layer norm, in the form that ONNX Runtime's conformer pattern has."""
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array((rng.standard_normal((mel, width)) / mel**0.5).astype(np.float32), "w_in")]
    nodes = [
        helper.make_node("Transpose", ["audio_signal"], ["x0"], perm=[0, 2, 1]),
        helper.make_node("Slice", ["x0", "zero", "end", "one", "eight"], ["x1"]),
        helper.make_node("MatMul", ["x1", "w_in"], ["x2"]),
        helper.make_node("LayerNormalization", ["x2", "scale", "shift"], ["x"], axis=-1),
    ]
    turned = {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1], "v": [0, 2, 1, 3]}
    for name in "qkv":
        matrix = (rng.standard_normal((width, width)) / width**0.5).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"w_{name}"))
        weights.append(numpy_helper.from_array(rng.standard_normal(width).astype(np.float32), f"b_{name}"))
        nodes += [
            helper.make_node("MatMul", ["x", f"w_{name}"], [f"{name}0"]),
            helper.make_node("Add", [f"{name}0", f"b_{name}"], [f"{name}1"]),
            helper.make_node("Reshape", [f"{name}1", "split"], [f"{name}2"]),
            helper.make_node("Transpose", [f"{name}2"], [f"{name}3"], perm=turned[name]),
        ]
    matrix = (rng.standard_normal((width, width)) / width**0.5).astype(np.float32)
    weights.append(numpy_helper.from_array(matrix, "w_o"))
    for name, value in {
        "zero": [0], "end": [1 << 40], "one": [1], "eight": [8], "split": [0, 0, heads, width // heads],
        "join": [0, 0, width], "seven": [7], "by": [8],
    }.items():  # fmt: skip
        weights.append(numpy_helper.from_array(np.array(value, np.int64), name))
    weights.append(numpy_helper.from_array(np.ones(width, np.float32), "scale"))
    weights.append(numpy_helper.from_array(np.zeros(width, np.float32), "shift"))
    weights.append(numpy_helper.from_array(np.array((width // heads) ** -0.5, np.float32), "root"))
    weights.append(numpy_helper.from_array(rng.standard_normal((width, 1)).astype(np.float32), "w_b"))
    nodes += [
        helper.make_node("MatMul", ["x", "w_b"], ["b0"]),
        helper.make_node("Transpose", ["b0"], ["b1"], perm=[0, 2, 1]),
        helper.make_node("Add", ["b0", "b1"], ["b2"]),
        helper.make_node("Unsqueeze", ["b2", "one"], ["bias"]),
        helper.make_node("Mul", ["q3", "root"], ["q4"]),
        helper.make_node("MatMul", ["q4", "k3"], ["a0"]),
        helper.make_node("Add", ["a0", "bias"], ["a1"]),
        helper.make_node("Softmax", ["a1"], ["a2"], axis=-1),
        helper.make_node("MatMul", ["a2", "v3"], ["a3"]),
        helper.make_node("Transpose", ["a3"], ["a4"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["a4", "join"], ["a5"]),
        helper.make_node("MatMul", ["a5", "w_o"], ["a6"]),
        helper.make_node("Add", ["x", "a6"], ["y0"]),
        helper.make_node("LayerNormalization", ["y0", "scale", "shift"], ["y"], axis=-1),
        helper.make_node("Transpose", ["y"], ["outputs"], perm=[0, 2, 1]),
        helper.make_node("Add", ["length", "seven"], ["longer"]),
        helper.make_node("Div", ["longer", "by"], ["encoded_lengths"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "encoder",
        [value("audio_signal", TensorProto.FLOAT, ["batch", mel, "time"]),
         value("length", TensorProto.INT64, ["batch"])],
        [value("outputs", TensorProto.FLOAT, ["batch", width, "frames"]),
         value("encoded_lengths", TensorProto.INT64, ["batch"])],
        weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_large_encoders_keep_their_weights_outside(tmp_path):
    """Weights in a file of their own go through the tools; a hub's links too."""
    directory = small_bundle(tmp_path / "bundle", "combined", mel_bins=80, external_weights=True)
    result = optimize(directory, tmp_path / "out", "int8")
    assert result.sizes["encoder-model.int8.onnx"][0] > 40_000  # bytes, with those outside
    assert inspect(tmp_path / "out").ok


def test_wrong_arguments(demos, tmp_path):
    for options, message in (
        ({"to": "int2"}, "'int8', 'fp16', 'int4', 'fused'"), ({"to": "int4", "block_size": 33}, "block_size"),
        ({"to": "int4", "algorithm": "gptq"}, "'rtn', 'k_quant', 'hqq'"),
    ):  # fmt: skip
        with pytest.raises(tdt.InputError, match=message):
            optimize(demos["split"], tmp_path / "out", **options)
    with pytest.raises(tdt.BundleError, match="quantised already"):
        optimize(small_bundle(tmp_path / "q", precision="int8", mel_bins=80), tmp_path / "out", "fp16", variant="int8")
    with pytest.raises(tdt.BundleError, match="has no encoder"):
        optimize(small_bundle(tmp_path / "d"), tmp_path / "out", "fp16")


def test_the_command(demos, tmp_path, capsys):
    pytest.importorskip("soundfile", reason="soundfile is not installed")
    some = [str(path) for path in sorted(demo.RECORDINGS.glob("known-*.flac"))[:2]]
    status = main(["optimize", str(demos["split"]), "--to", "int8", "-o", str(tmp_path / "out"), "--recordings", *some])
    out = capsys.readouterr().out
    assert status == 0 and "encoder.int8.onnx: 3," in out and "on 2 recordings: 0 edits in" in out
