"""Structures that no weights are lifted from: each is refused with what was found and what was expected."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

import tdtdecode as tdt
from benches.random_bundle import make_bundle
from tdtdecode.bundle import read_bundle, reading
from tdtdecode.bundle.cut import CannotSplit
from tdtdecode.bundle.lifting import CannotLift, lift
from tdtdecode.networks import choice
from tests.bundle.edits import SIZES, after, before, edited, log_softmax_by_parts, node, renamed, store

pytestmark = pytest.mark.filterwarnings("ignore::tdtdecode.errors.SlowerWarning")
"""These tests choose slower ways on purpose."""


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
        ("decoder.onnx", no_initial_state, "expected its initial hidden state to be slice 1 .*, found nothing"),
        ("decoder.onnx", other_tokens, "expected the embedding to be looked up by the tokens targets, found Mod"),
        ("decoder.onnx", a_norm_of_the_embedding, "expected LSTM layers over .*, found LayerNormalization"),
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
