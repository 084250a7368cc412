"""Weights lifted out of graphs equal those the graphs were made of; other structures are refused with the reason."""

from __future__ import annotations

import copy
from dataclasses import replace

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


def as_float16(weights):
    """The weights after rounding to float16, in float32."""

    def rounded(value):
        return None if value is None else value.astype(np.float16).astype(np.float32)

    names = ("embedding", "enc", "enc_bias", "pred", "pred_bias", "out", "out_bias")
    layers = [
        replace(layer, **{name: rounded(getattr(layer, name)) for name in ("w", "r", "w_bias", "r_bias")})
        for layer in weights.layers
    ]
    return replace(weights, layers=tuple(layers), **{name: rounded(getattr(weights, name)) for name in names})


@pytest.mark.parametrize("options", MODELS, ids=lambda o: o["activation"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_float16_weights_are_widened(tmp_path, layout, options):
    external = layout == "combined"
    make_bundle(
        tmp_path, layout, precision="fp16", external_weights=external, tokens_per_second=None, **{**SIZES, **options}
    )
    expected = as_lifted(as_float16(random_weights(tokens_per_second=None, **{**SIZES, **options})))
    check_equal(lift(read_bundle(tmp_path, variant="fp16").transducer), expected)


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


def test_golden_models(tmp_path, golden):
    found = []
    for layout in ("split", "combined"):
        bundle = read_bundle(golden.directory(layout, tmp_path), durations=golden.durations or None)
        found.append(choice.fused_network(bundle).weights)  # checked against the graphs
        assert found[-1].output.weight.shape[0] == bundle.spec.joint_width
    assert len(found[0].layers) >= 1
    # NeMo's two exports round the same checkpoint alike.
    check_equal(found[0], found[1], rtol=0, atol=1e-6)


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

    @pytest.mark.parametrize("name", ["0.input", "1.recurrent", "prediction.weight", "encoder.bias", "output.weight"])
    def test_shows_one_number(self, bundle, name):
        weights = copy.deepcopy(lift(bundle.transducer))
        arrays(weights)[name].reshape(-1)[0] += 0.5
        other = FusedNetwork(weights, bundle.spec)
        assert deviation(OrtNetwork(bundle.transducer), other, bundle.spec, 14) > choice.TOLERANCE["float32"]

    @pytest.mark.parametrize("order", [(0, 2, 1, 3), (1, 0, 2, 3), (0, 1, 3, 2)], ids=["o-f", "i-o", "f-c"])
    def test_shows_swapped_gates(self, bundle, order):
        weights = copy.deepcopy(lift(bundle.transducer))
        for array in (weights.layers[1].input, weights.layers[1].recurrent, weights.layers[1].bias):
            array[:] = array.reshape(4, 12, -1)[list(order)].reshape(array.shape)
        assert deviation(OrtNetwork(bundle.transducer), FusedNetwork(weights, bundle.spec), bundle.spec, 14) > 1e-2

    def test_does_not_see_shifts_of_a_part(self, bundle):
        weights = copy.deepcopy(lift(bundle.transducer))
        weights.output.bias[:21] += 3
        weights.output.bias[21:] -= 2
        other = FusedNetwork(weights, bundle.spec)
        assert deviation(OrtNetwork(bundle.transducer), other, bundle.spec, 14) < 1e-5

    def test_is_no_number_where_a_row_is_none(self, bundle):
        weights = copy.deepcopy(lift(bundle.transducer))
        weights.output.bias[3] = np.nan
        other = FusedNetwork(weights, bundle.spec)
        assert np.isnan(deviation(OrtNetwork(bundle.transducer), other, bundle.spec, 14))

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


def before(model, n, *new):
    """Insert nodes before another."""
    at = list(model.graph.node).index(n)
    for i, added in enumerate(new):
        model.graph.node.insert(at + i, added)


def after(model, n, *new):
    """Insert nodes after another, whose first output they read as "inner"; the last takes its place."""
    old, n.output[0] = n.output[0], "inner"
    new[-1].output[0] = old
    at = list(model.graph.node).index(n) + 1
    for i, added in enumerate(new):
        model.graph.node.insert(at + i, added)


def store(model, **values):
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in values.items())


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


def weights_on_the_left(model):
    """[rows, J] columns: weights times hidden, as exporters of channels-first joints write it."""
    add, product = node(model, "Add", -1), node(model, "MatMul", -1)
    weight = next(t for t in model.graph.initializer if t.name == product.input[1])
    bias = next(name for name in add.input if name != product.output[0])
    store(model, turned=np.ascontiguousarray(numpy_helper.to_array(weight).T))
    column = helper.make_node("Transpose", [product.input[0]], ["column"], perm=[0, 1, 3, 2])
    before(model, product, column)
    product.input[:] = ["turned", "column"]
    old, product.output[0] = product.output[0], "result"
    before(model, add, helper.make_node("Transpose", ["result"], [old], perm=[0, 1, 3, 2]))
    add.input[:] = [old, bias]


def log_softmax_by_parts(model):
    """Tokens and durations normalised apart, as the loss does it."""
    end = 1 << 40
    store(model, zero=[0], split_at=[21], row_end=[end], last=[-1])
    after(
        model, node(model, "Add", -1),
        helper.make_node("Slice", ["inner", "zero", "split_at", "last"], ["tokens"]),
        helper.make_node("Slice", ["inner", "split_at", "row_end", "last"], ["durations"]),
        helper.make_node("LogSoftmax", ["tokens"], ["token_logprobs"], axis=-1),
        helper.make_node("LogSoftmax", ["durations"], ["duration_logprobs"], axis=3),
        helper.make_node("Concat", ["token_logprobs", "duration_logprobs"], [""], axis=-1),
    )  # fmt: skip


def log_softmax_of_the_tokens(model):
    """By Split, and the durations left as they are."""
    store(model, sizes=[21, 5])
    after(
        model, node(model, "Add", -1),
        helper.make_node("Split", ["inner", "sizes"], ["tokens", "durations"], axis=-1),
        helper.make_node("LogSoftmax", ["tokens"], ["token_logprobs"], axis=-1),
        helper.make_node("Concat", ["token_logprobs", "durations"], [""], axis=-1),
    )  # fmt: skip


def logarithm_of_softmax(model):
    after(
        model, node(model, "Add", -1),
        helper.make_node("Softmax", ["inner"], ["probabilities"], axis=-1),
        helper.make_node("Log", ["probabilities"], [""]),
    )  # fmt: skip


def mask_of_blank(model):
    """The blank's row put to zero once more, by a condition on the token."""
    gather = node(model, "Gather")
    store(model, pad=20, nothing=np.float32(0), last=[-1])
    after(
        model, gather,
        helper.make_node("Equal", [gather.input[1], "pad"], ["is_pad"]),
        helper.make_node("Unsqueeze", ["is_pad", "last"], ["condition"]),
        helper.make_node("Where", ["condition", "nothing", "inner"], [""]),
    )  # fmt: skip


def product_with_a_mask(model):
    gather = node(model, "Gather")
    store(model, pad=20, last=[-1])
    after(
        model, gather,
        helper.make_node("Less", [gather.input[1], "pad"], ["is_token"]),
        helper.make_node("Cast", ["is_token"], ["factor"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["factor", "last"], ["mask"]),
        helper.make_node("Mul", ["mask", "inner"], [""]),
    )  # fmt: skip


def states_by_split(model):
    """Split and Gather in place of Slice."""
    slices = [n for n in model.graph.node if n.op_type == "Slice"]
    store(model, first=[0], second=[-1])
    h, c = slices[0].input[0], slices[1].input[0]
    new = [
        helper.make_node("Split", [h], [slices[0].output[0], slices[2].output[0]], axis=0),
        helper.make_node("Gather", [c, "first"], [slices[1].output[0]], axis=0),
        helper.make_node("Gather", [c, "second"], [slices[3].output[0]], axis=0),
    ]
    for n in slices:
        model.graph.node.remove(n)
    before(model, model.graph.node[0], *new)


@pytest.mark.parametrize(
    "file, edit",
    [
        ("joiner.onnx", gemm_for_the_output),
        ("joiner.onnx", swapped_operands),
        ("joiner.onnx", constants_for_weights),
        ("decoder.onnx", constants_for_weights),
        ("joiner.onnx", weights_computed),
        ("joiner.onnx", identities),
        ("joiner.onnx", weights_on_the_left),
        ("joiner.onnx", log_softmax_by_parts),
        ("joiner.onnx", log_softmax_of_the_tokens),
        ("joiner.onnx", logarithm_of_softmax),
        ("decoder.onnx", mask_of_blank),
        ("decoder.onnx", product_with_a_mask),
        ("decoder.onnx", states_by_split),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_other_spellings_of_the_same(tmp_path, file, edit):
    expected = as_lifted(random_weights(**SIZES))
    bundle = edited(tmp_path, edit, file=file)
    check_equal(lift(bundle.transducer), expected)
    assert choice.fused_network(bundle)


def test_a_mask_of_a_row_that_is_not_zero(tmp_path):
    def mask_of_a_token(model):
        mask_of_blank(model)
        pad = next(tensor for tensor in model.graph.initializer if tensor.name == "pad")
        pad.CopyFrom(numpy_helper.from_array(np.array(4), "pad"))

    expected = as_lifted(random_weights(**SIZES))
    assert expected.embedding[4].any()
    expected.embedding[4] = 0
    check_equal(lift(edited(tmp_path, mask_of_a_token, file="decoder.onnx").transducer), expected)


def test_products_already_made_before_the_joint(tmp_path):
    """A joint that adds what it is given: its encoder's product is the identity, the biases count once."""

    def without_encoder_product(model):
        product = node(model, "MatMul", 0)
        source, result = product.input[0], product.output[0]
        model.graph.node.remove(product)
        for n in model.graph.node:
            renamed(n, result, source)

    bundle = edited(tmp_path, without_encoder_product, encoder_size=10)
    weights = choice.fused_network(bundle).weights
    expected = as_lifted(random_weights(**{**SIZES, "encoder_size": 10}))
    np.testing.assert_array_equal(weights.encoder.weight, np.eye(10, dtype=np.float32))
    np.testing.assert_array_equal(weights.encoder.bias, np.zeros(10, np.float32))
    np.testing.assert_allclose(weights.prediction.bias, expected.prediction.bias + expected.encoder.bias, atol=1e-6)


def test_a_joint_as_wide_as_its_predictor_without_products(tmp_path):
    def without_products(model):
        for product in [n for n in model.graph.node if n.op_type == "MatMul"][:2]:
            model.graph.node.remove(product)
            for n in model.graph.node:
                renamed(n, product.output[0], product.input[0])

    bundle = edited(tmp_path, without_products, encoder_size=12, joint_size=12)
    weights = choice.fused_network(bundle).weights
    for affine in (weights.encoder, weights.prediction):
        np.testing.assert_array_equal(affine.weight, np.eye(12, dtype=np.float32))


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


def test_stateless_predictor_with_a_layer(tmp_path):
    def with_layer(model):
        stateless_predictor(model)
        store(model, scale=np.float32(3.0), weight=layer, bias=np.full((1, 1, 12), 0.25, np.float32))
        after(
            model, node(model, "Gather"),
            helper.make_node("Mul", ["scale", "inner"], ["scaled"]),
            helper.make_node("MatMul", ["scaled", "weight"], ["product"]),
            helper.make_node("Add", ["bias", "product"], [""]),
        )  # fmt: skip

    rng = np.random.default_rng(3)
    layer = rng.standard_normal((12, 12)).astype(np.float32)
    bundle = edited(tmp_path, with_layer, file="decoder.onnx")
    embedding = as_lifted(random_weights(**SIZES)).embedding
    weights = choice.fused_network(bundle).weights
    assert weights.layers == ()
    np.testing.assert_allclose(weights.embedding, np.maximum(3 * embedding @ layer + 0.25, 0), rtol=1e-4, atol=1e-5)


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


def another_activation(op_type):
    def edit(model):
        node(model, "Relu").op_type = op_type

    edit.__name__ = op_type
    return edit


def hidden_state_and_cell_swapped(model):
    """The second layer begins with the cell in the place of the hidden state."""
    lstm = node(model, "LSTM", 1)
    lstm.input[5], lstm.input[6] = lstm.input[6], lstm.input[5]


def no_initial_state(model):
    lstm = node(model, "LSTM", 1)
    lstm.input[5] = lstm.input[6] = ""


def gru(model):
    """A GRU with the LSTM's first three gates; the cell passes through."""
    lstm, graph = node(model, "LSTM"), model.graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    w, r, b = (stored[name] for name in lstm.input[1:4])
    store(model, gru_w=w[:, :36], gru_r=r[:, :36], gru_b=np.concatenate([b[:, :36], b[:, 48:84]], axis=1))
    cell, hidden = lstm.input[6], lstm.input[5]
    cell_out = next(n for n in graph.node if lstm.output[2] in n.input)
    renamed(cell_out, lstm.output[2], cell)
    lstm.op_type = "GRU"
    lstm.input[:] = [lstm.input[0], "gru_w", "gru_r", "gru_b", "", hidden]
    lstm.output[:] = list(lstm.output[:2])


def other_tokens(model):
    """The embedding is looked up by the token before."""
    gather = node(model, "Gather")
    store(model, one=np.int64(1), entries=np.int64(21))
    before(
        model, gather,
        helper.make_node("Add", [gather.input[1], "one"], ["next"]),
        helper.make_node("Mod", ["next", "entries"], ["other"]),
    )  # fmt: skip
    gather.input[1] = "other"


def a_norm_of_the_embedding(model):
    store(model, ones=np.ones(12, np.float32))
    after(model, node(model, "Gather"), helper.make_node("LayerNormalization", ["inner", "ones"], [""], axis=-1))


def mask_by_the_embedding(model):
    store(model, nothing=np.float32(0))
    after(
        model, node(model, "Gather"),
        helper.make_node("Greater", ["inner", "nothing"], ["positive"]),
        helper.make_node("Where", ["positive", "inner", "nothing"], [""]),
    )  # fmt: skip


def log_softmax_over_a_wrong_axis(model):
    after(model, node(model, "Add", -1), helper.make_node("LogSoftmax", ["inner"], [""], axis=1))


def blank_normalised_by_itself(model):
    log_softmax_by_parts(model)
    at = next(tensor for tensor in model.graph.initializer if tensor.name == "split_at")
    at.CopyFrom(numpy_helper.from_array(np.array([20]), "split_at"))


def durations_before_tokens(model):
    log_softmax_by_parts(model)
    concat = node(model, "Concat")
    concat.input[:] = list(reversed(concat.input))


def a_product_of_the_shares(model):
    node(model, "Add", 2).op_type = "Mul"


def a_sum_that_doubles(model):
    """As many terms as 2^40: it must be refused, not counted."""
    relu = node(model, "Relu")
    names = [relu.input[0], *(f"double_{i}" for i in range(40))]
    before(model, relu, *(helper.make_node("Add", [a, a], [b]) for a, b in zip(names, names[1:])))
    relu.input[0] = names[-1]


def a_bias_of_many_sums(model):
    add = node(model, "Add", -1)
    bias = next(name for name in add.input if name in {tensor.name for tensor in model.graph.initializer})
    names = [bias, *(f"sum_{i}" for i in range(2000))]
    before(model, add, *(helper.make_node("Add", [a, bias], [b]) for a, b in zip(names, names[1:])))
    renamed(add, bias, names[-1])


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
        ("joiner.onnx", a_weight_that_is_no_number, r"the output product has weights .* \(joint.joint_net.2.bias\)"),
        ("joiner.onnx", another_activation("Softplus"), "expected Relu, Tanh, Sigmoid before .*, found Softplus"),
        ("joiner.onnx", another_activation("Erf"), "expected Relu, Tanh, Sigmoid before .*, found Erf"),
        ("decoder.onnx", hidden_state_and_cell_swapped, "expected slice 1 of .* to be the layer's new hidden state"),
        ("decoder.onnx", no_initial_state, r"expected its initial hidden state to be slice 1 of a state, found nothing"),
        ("decoder.onnx", other_tokens, "expected the embedding to be looked up by the tokens targets, found Mod"),
        ("decoder.onnx", a_norm_of_the_embedding, "expected LSTM layers over an embedding .*, found LayerNormalization"),
        ("decoder.onnx", mask_by_the_embedding, "expected a mask that compares the token with a number, found Gather"),
        ("joiner.onnx", log_softmax_over_a_wrong_axis, "LogSoftmax .* normalises axis 1; expected the last"),
        ("joiner.onnx", blank_normalised_by_itself, "normalises 20 numbers of a row .*; expected the 21 tokens"),
        ("joiner.onnx", durations_before_tokens, "expected the row's tokens first and then the rest of it"),
        ("joiner.onnx", a_product_of_the_shares, "expected products and sums before .* activation, found Mul"),
        ("joiner.onnx", a_sum_that_doubles, "found more terms in the joint: decoder_outputs, encoder_outputs"),
        ("joiner.onnx", a_bias_of_many_sums, "nested too deeply"),
        ("joiner.onnx", around_the_activation, "expected Relu, Tanh, Sigmoid before .* last product, found Add"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_refusals(tmp_path, file, edit, message):
    bundle = edited(tmp_path, edit, file=file)
    with pytest.raises(CannotLift, match=message):
        choice.fused_network(bundle)
    assert tdt.Decoder.from_bundle(bundle).network.name == "ort"


def test_a_gru(tmp_path):
    bundle = edited(tmp_path, gru, file="decoder.onnx", predictor_layers=1)
    with pytest.raises(CannotLift, match="expected LSTM layers and their outputs in the predictor, found GRU"):
        lift(bundle.transducer)


def test_both_directions(tmp_path):
    bundle = read_bundle(make_bundle(tmp_path, "split", **SIZES))
    # No predictor can look ahead, so that no such model loads.
    with_attribute(direction="bidirectional")(bundle.transducer.predictor.graph.model)
    with pytest.raises(CannotLift, match="expected the forward direction, found bidirectional"):
        lift(bundle.transducer)


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
