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
from benches.random_bundle import LAYOUTS, make_bundle, random_weights
from tdtdecode.bundle import read_bundle
from tdtdecode.bundle.lifting import CannotLift, lift
from tdtdecode.bundle.lifting.dequantize import dequantized
from tdtdecode.networks import choice
from tdtdecode.networks.agreement import deviation
from tdtdecode.networks.fused import FusedNetwork
from tdtdecode.networks.ort import OrtNetwork
from tests import demo
from tests.bundle.edits import SIZES, after, before, edited, log_softmax_by_parts, node, renamed, store
from tests.conftest import random_frames
from tests.decoding.fused_helpers import as_lifted

pytestmark = pytest.mark.filterwarnings("ignore::tdtdecode.errors.SlowerWarning")
"""These tests choose slower ways on purpose."""

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
        other = FusedNetwork(weights, bundle.spec)
        weights.output.bias[3] = np.nan
        assert np.isnan(deviation(OrtNetwork(bundle.transducer), other, bundle.spec, 14))

    def test_a_wrong_lift_is_not_used(self, bundle, monkeypatch):
        weights = copy.deepcopy(lift(bundle.transducer))
        weights.layers[0].bias[:] = 0
        monkeypatch.setattr(choice, "lift", lambda _: weights)
        with pytest.raises(CannotLift, match="give other joint rows than the graphs"):
            choice.fused_network(bundle)
        assert tdt.Decoder.from_bundle(bundle).network.name == "ort"
        with pytest.raises(tdt.BundleError, match="network='fused' is not possible.*use network='ort'"):
            tdt.Decoder.from_bundle(bundle, network="fused")
        with pytest.raises(tdt.BundleError, match="precision='int8' is not possible"):
            tdt.Decoder.from_bundle(bundle, precision="int8")


# --- the same networks, spelt otherwise ----------------------------------------------------------------------------


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


def test_the_logarithm_of_a_softmax(tmp_path):
    # Its rows underflow to -inf, which the lifted network's do not: it is found, but ONNX Runtime decodes it.
    bundle = edited(tmp_path, logarithm_of_softmax)
    check_equal(lift(bundle.transducer), as_lifted(random_weights(**SIZES)))
    assert tdt.Decoder.from_bundle(bundle).network.name == "ort"


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
