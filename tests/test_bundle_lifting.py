"""Weights lifted out of graphs equal those the graphs were made of; other structures are refused with the reason."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import tdtdecode as tdt
from benches.random_bundle import make_bundle, random_weights
from tdtdecode.bundle import read_bundle, reading
from tdtdecode.bundle.cut import CannotSplit
from tdtdecode.bundle.dequantize import dequantized
from tdtdecode.bundle.lifting import CannotLift, lift
from tdtdecode.networks import choice
from tdtdecode.networks.agreement import deviation
from tdtdecode.networks.fused import FusedNetwork
from tdtdecode.networks.ort import OrtNetwork
from tests import demo
from tests.conftest import random_frames
from tests.fused_helpers import as_lifted

SIZES = {
    "vocab_size": 20, "durations": (0, 1, 2, 3, 4), "encoder_size": 14, "predictor_size": 12, "joint_size": 10,
    "predictor_layers": 2,
}  # fmt: skip
LAYOUTS = ["split", "combined", "genai"]
MODELS = [
    {"predictor_layers": 1, "activation": "relu"},
    {"predictor_layers": 2, "activation": "tanh", "blank": "first"},
    {"predictor_layers": 3, "activation": "sigmoid", "biases": False},
]


def arrays(weights):
    """Every array by name."""
    named = {"embedding": weights.embedding}
    for i, layer in enumerate(weights.layers):
        named |= {f"{i}.{name}": getattr(layer, name) for name in ("input", "recurrent", "bias")}
    for name in ("prediction", "encoder", "output"):
        affine = getattr(weights, name)
        named |= {f"{name}.weight": affine.weight, f"{name}.bias": affine.bias}
    return named


def check_equal(found, expected, **tolerance):
    assert found.activation == expected.activation
    a, b = arrays(found), arrays(expected)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == np.float32 and a[name].flags.c_contiguous
        np.testing.assert_allclose(a[name], b[name], err_msg=name, **(tolerance or {"rtol": 0, "atol": 0}))


@pytest.mark.parametrize("options", MODELS, ids=lambda o: o["activation"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("external", [False, True])
def test_float32_weights_are_found_as_they_are(tmp_path, layout, options, external):
    make_bundle(tmp_path, layout, external_weights=external, tokens_per_second=None, **{**SIZES, **options})
    expected = as_lifted(random_weights(tokens_per_second=None, **{**SIZES, **options}))
    check_equal(lift(read_bundle(tmp_path).transducer), expected)


@pytest.mark.parametrize("options", MODELS, ids=lambda o: o["activation"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_float16_weights_are_widened(tmp_path, layout, options):
    make_bundle(tmp_path, layout, precision="fp16", tokens_per_second=None, **{**SIZES, **options})
    bundle = read_bundle(tmp_path, variant="fp16")
    found = lift(bundle.transducer)
    expected = as_lifted(random_weights(tokens_per_second=None, **{**SIZES, **options}))
    check_equal(found, expected, rtol=1e-3, atol=2e-3)
    assert np.array_equal(found.output.weight, found.output.weight.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("options", MODELS, ids=lambda o: o["activation"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_int8_weights_are_dequantized(tmp_path, layout, options):
    make_bundle(tmp_path, layout, precision="int8", tokens_per_second=None, **{**SIZES, **options})
    bundle = read_bundle(tmp_path, variant="int8")
    expected = as_lifted(random_weights(tokens_per_second=None, **{**SIZES, **options}))
    check_equal(lift(bundle.transducer), expected, rtol=0, atol=0.02)
    for graph in (bundle.transducer.predictor.graph, bundle.transducer.joint.graph):
        plain = dequantized(graph)
        assert not plain.quantized and [p.name for p in plain.outputs] == [p.name for p in graph.outputs]
    assert choice.fused_network(bundle).weights.activation == options["activation"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_demo_model(tmp_path, layout):
    directory = demo.DIRECTORY if layout == "combined" else demo.write_demo(tmp_path, layout)
    check_equal(lift(read_bundle(directory).transducer), as_lifted(demo.weights()))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_lifted_networks_decode_like_their_graphs(tmp_path, precision):
    make_bundle(tmp_path, "combined", precision=precision, **{**SIZES, "vocab_size": 60})
    bundle = read_bundle(tmp_path, variant=None if precision == "fp32" else precision)
    frames, lengths = random_frames(12, 14, 40, 3)
    plain = tdt.Decoder(OrtNetwork(choice._plain(bundle.transducer)), bundle.spec)
    found = tdt.Decoder.from_bundle(bundle, network="fused").decode(frames, lengths)
    same = [a.tokens.tolist() == b.tokens.tolist() for a, b in zip(plain.decode(frames, lengths), found)]
    assert sum(same) == 12 if precision != "fp16" else sum(same) >= 10
    assert sum(map(len, found)) > 20


class TestDeviation:
    @pytest.fixture()
    def bundle(self, tmp_path):
        return read_bundle(make_bundle(tmp_path, "split", **SIZES))

    def test_of_the_same_weights_is_rounding(self, bundle, tmp_path):
        other = read_bundle(make_bundle(tmp_path / "genai", "genai", **SIZES))
        assert deviation(OrtNetwork(bundle.transducer), OrtNetwork(other.transducer), bundle.spec, 14) < 1e-5

    @pytest.mark.parametrize("name", ["embedding", "0.input", "1.recurrent", "1.bias", "encoder.weight", "output.bias"])
    def test_shows_a_single_weight(self, bundle, name):
        weights = copy.deepcopy(lift(bundle.transducer))  # arrays that may be written to
        arrays(weights)[name].reshape(-1)[:10] += 0.3
        other = FusedNetwork(weights, bundle.spec)
        assert deviation(OrtNetwork(bundle.transducer), other, bundle.spec, 14) > 1e-3

    def test_a_wrong_lift_is_not_used(self, bundle, monkeypatch):
        weights = copy.deepcopy(lift(bundle.transducer))
        weights.layers[0].bias[:] = 0
        monkeypatch.setattr(choice, "lift", lambda _: weights)
        with pytest.raises(CannotLift, match="give other rows than the graphs"):
            choice.fused_network(bundle)
        assert tdt.Decoder.from_bundle(bundle).network.name == "ort"
        with pytest.raises(tdt.BundleError, match="network='fused' cannot be had.*use network='ort'"):
            tdt.Decoder.from_bundle(bundle, network="fused")
        with pytest.raises(tdt.BundleError, match="precision='int8' cannot be had"):
            tdt.Decoder.from_bundle(bundle, precision="int8")


# --- graphs rewritten by hand ----------------------------------------------------------------------------------------


def edited(tmp_path, edit, layout="split", file="joiner.onnx", **options):
    """A bundle after `edit(model)` of one of its graphs."""
    make_bundle(tmp_path, layout, **{**SIZES, **options})
    model = onnx.load(tmp_path / file)
    edit(model)
    onnx.save(model, tmp_path / file)
    return read_bundle(tmp_path, durations=(0, 1, 2, 3, 4))


def node(model, op_type, index=0):
    return [n for n in model.graph.node if n.op_type == op_type][index]


def renamed(n, old, new):
    n.input[:] = [new if name == old else name for name in n.input]


def gemm_for_the_output(model):
    """Gemm with the weights transposed in place of the last MatMul and Add; it takes [rows, J]."""
    graph = model.graph
    add, product = node(model, "Add", -1), node(model, "MatMul", -1)
    weight = next(t for t in graph.initializer if t.name == product.input[1])
    transposed = numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(weight).T * 2), "transposed")
    shapes = [numpy_helper.from_array(np.array(s), n) for s, n in (([-1, 10], "flat"), ([-1, 1, 1, 26], "row"))]
    graph.initializer.extend([transposed, *shapes])
    bias = next(name for name in add.input if name != product.output[0])
    graph.node.remove(add)
    graph.node.remove(product)
    graph.node.extend([
        helper.make_node("Reshape", [product.input[0], "flat"], ["flattened"]),
        helper.make_node("Gemm", ["flattened", "transposed", bias], ["rows"], alpha=0.5, transB=1),
        helper.make_node("Reshape", ["rows", "row"], [graph.output[0].name]),
    ])  # fmt: skip


def swapped_operands(model):
    for n in model.graph.node:
        if n.op_type == "Add":
            n.input[:] = list(reversed(n.input))


def constants_for_weights(model):
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    old = list(model.graph.node)
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend([*nodes, *old])


def weights_computed(model):
    """The last weights through Transpose twice, as exporters leave them."""
    product = node(model, "MatMul", -1)
    at = list(model.graph.node).index(product)
    model.graph.node.insert(at, helper.make_node("Transpose", [product.input[1]], ["t"], perm=[1, 0]))
    model.graph.node.insert(at + 1, helper.make_node("Transpose", ["t"], ["tt"], perm=[1, 0]))
    product.input[1] = "tt"


def identities(model):
    relu = node(model, "Relu")
    at = list(model.graph.node).index(relu)
    model.graph.node.insert(at + 1, helper.make_node("Dropout", [relu.output[0]], ["dropped"]))
    model.graph.node.insert(at + 2, helper.make_node("Identity", ["dropped"], ["same"]))
    renamed(node(model, "MatMul", -1), relu.output[0], "same")


@pytest.mark.parametrize(
    "edit", [gemm_for_the_output, swapped_operands, constants_for_weights, weights_computed, identities],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_other_spellings_of_the_same(tmp_path, edit):
    expected = as_lifted(random_weights(**SIZES))
    bundle = edited(tmp_path, edit)
    check_equal(lift(bundle.transducer), expected)
    assert choice.fused_network(bundle)


def stateless_predictor(model):
    """An embedding and a Relu in place of the layers."""
    graph = model.graph
    gather = node(model, "Gather")
    keep = [n for n in graph.node if n.op_type == "Cast" or n is gather]
    del graph.node[:]
    graph.node.extend([
        *keep,
        helper.make_node("Relu", [gather.output[0]], ["positive"]),
        helper.make_node("Transpose", ["positive"], ["outputs"], perm=[0, 2, 1]),
    ])  # fmt: skip
    for values, names in ((graph.input, {"targets"}), (graph.output, {"outputs"})):
        kept = [value for value in values if value.name in names]
        del values[:]
        values.extend(kept)


def test_stateless_predictor(tmp_path):
    bundle = edited(tmp_path, stateless_predictor, file="decoder.onnx")
    weights = lift(bundle.transducer)
    expected = as_lifted(random_weights(**SIZES))
    assert weights.layers == ()
    np.testing.assert_array_equal(weights.embedding, np.maximum(expected.embedding, 0))
    frames, lengths = random_frames(6, 14, 30, 3)
    a, b = (tdt.Decoder.from_bundle(bundle, network=n).decode(frames, lengths) for n in ("ort", "fused"))
    assert [h.tokens.tolist() for h in a] == [h.tokens.tolist() for h in b]


def with_attribute(**attributes):
    def edit(model):
        lstm = node(model, "LSTM")
        lstm.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())

    return edit


def peepholes(model):
    lstm = node(model, "LSTM")
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 36), np.float32), "peepholes"))
    lstm.input.append("peepholes")


def crossed_layers(model):
    """The first layer begins with the second's state and the other way round."""
    first, second = node(model, "LSTM", 0), node(model, "LSTM", 1)
    first.input[5], second.input[5] = second.input[5], first.input[5]
    # In topological order all slices must come before the first layer.
    slices = [n for n in model.graph.node if n.op_type in ("Constant", "Slice")]
    others = [n for n in model.graph.node if n.op_type not in ("Constant", "Slice")]
    del model.graph.node[:]
    model.graph.node.extend([*slices, *others])


def crossed_results(model):
    """The new hidden states come out where the cells should."""
    first, second = node(model, "Concat", 0), node(model, "Concat", 1)
    first.input[0], second.input[0] = second.input[0], first.input[0]


def a_weight_that_is_no_number(model):
    weight = model.graph.initializer[-1]
    values = numpy_helper.to_array(weight).copy()
    values.reshape(-1)[3] = np.nan
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))


def gelu(model):
    relu = node(model, "Relu")
    relu.op_type = "Softplus"


def around_the_activation(model):
    """A residual path from the sum to the activation's result."""
    relu = node(model, "Relu")
    at = list(model.graph.node).index(relu)
    model.graph.node.insert(at + 1, helper.make_node("Add", [relu.output[0], relu.input[0]], ["residual"]))
    renamed(node(model, "MatMul", -1), relu.output[0], "residual")


@pytest.mark.parametrize(
    "file, edit, message",
    [
        ("decoder.onnx", with_attribute(clip=1.0), "option clip is not supported"),
        ("decoder.onnx", with_attribute(activations=["Sigmoid", "Relu", "Tanh"]), "expected activations Sigmoid, Tanh"),
        ("decoder.onnx", with_attribute(direction="reverse"), "expected the forward direction, found reverse"),
        ("decoder.onnx", peepholes, "peepholes are not supported"),
        ("decoder.onnx", crossed_layers, "expected its initial hidden state to be slice 0 of a state, found .*1"),
        ("decoder.onnx", crossed_results, "expected slice 0 of .* to be the layer's new"),
        ("joiner.onnx", a_weight_that_is_no_number, "the (output|encoder|prediction) product has weights that are inf"),
        ("joiner.onnx", gelu, "expected Relu, Tanh, Sigmoid before the joint's last product, found Softplus"),
        ("joiner.onnx", around_the_activation, "expected Relu, Tanh, Sigmoid before .* last product, found Add"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_refusals(tmp_path, file, edit, message):
    bundle = edited(tmp_path, edit, file=file)
    with pytest.raises(CannotLift, match=message):
        choice.fused_network(bundle)
    assert tdt.Decoder.from_bundle(bundle).network.name == "ort"


def test_a_graph_that_could_not_be_split(tmp_path, monkeypatch):
    def refuse(*_):
        raise CannotSplit("for this test")

    monkeypatch.setattr(reading, "Cut", refuse)
    bundle = read_bundle(make_bundle(tmp_path, "combined", **SIZES))
    with pytest.raises(CannotLift, match="could not be told apart in the combined graph: for this test"):
        lift(bundle.transducer)


def test_dequantized_graphs_are_the_float_products_of_their_weights(tmp_path):
    make_bundle(tmp_path, "split", precision="int8", **SIZES)
    bundle = read_bundle(tmp_path, variant="int8")
    weights = lift(bundle.transducer)
    joint = bundle.transducer.joint
    graph = dequantized(joint.graph)
    session = onnxruntime.InferenceSession(graph.model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    frame, g = rng.standard_normal((1, 14, 1), np.float32), rng.standard_normal((1, 12, 1), np.float32)
    (row,) = session.run(None, {joint.encoder.name: frame, joint.predictor.name: g})
    hidden = weights.encoder.weight @ frame[0] + weights.prediction.weight @ g[0]
    hidden = np.maximum(hidden[:, 0] + weights.encoder.bias + weights.prediction.bias, 0)
    np.testing.assert_allclose(row.reshape(-1), weights.output.weight @ hidden + weights.output.bias, atol=1e-4)
