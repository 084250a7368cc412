"""Dequantised graphs hold (stored - zero point) * scale, and run as float graphs; the rest is refused by name."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from benches.random_bundle import make_bundle
from tdtdecode.bundle import read_bundle
from tdtdecode.bundle.lifting import CannotLift, lift
from tdtdecode.bundle.lifting.dequantize import dequantized
from tdtdecode.bundle.onnx_files.graph import Graph
from tdtdecode.networks import choice

SIZES = {
    "vocab_size": 20, "durations": (0, 1, 2, 3, 4), "encoder_size": 14, "predictor_size": 12, "joint_size": 10,
    "predictor_layers": 2,
}  # fmt: skip
GRAPHS = {"split": ["decoder", "joiner"], "combined": ["decoder_joint-model"], "genai": ["decoder", "joint"]}


def stored_weights(directory, layout):
    """(q - zero) * scale of every quantised weight by its name before, computed apart from the code under test."""
    found = {}
    for stem in GRAPHS[layout]:
        model = onnx.load(directory / f"{stem}.int8.onnx")
        tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for name in tensors:
            if name.endswith("_quantized"):
                stem_name = name.removesuffix("_quantized")
                q, scale = tensors[name].astype(np.float32), tensors[f"{stem_name}_scale"]
                zero = tensors[f"{stem_name}_zero_point"].astype(np.float32)
                if "LSTM" in name:  # [1, inputs, 4H], scales [1] or [1, 4H]
                    q, scale, zero = q[0], scale.reshape(-1), zero.reshape(-1)
                found[stem_name] = (q - zero) * scale
    return found


def requantized(directory, layout, **options):
    """Quantise the float32 graphs of a bundle again, by other options."""
    for stem in GRAPHS[layout]:
        quantize_dynamic(directory / f"{stem}.onnx", directory / f"{stem}.int8.onnx", **options)


def check_lifted(weights, stored):
    same = np.testing.assert_array_equal
    same(weights.embedding, stored["decoder.prediction.embed.weight"])
    for i, layer in enumerate(weights.layers):
        same(layer.input, stored[f"onnx::LSTM_W{i}"].T)
        same(layer.recurrent, stored[f"onnx::LSTM_R{i}"].T)
    for name, found in (
        ("enc", weights.encoder), ("pred", weights.prediction), ("joint_net.2", weights.output)
    ):  # fmt: skip
        same(found.weight, stored[f"onnx::MatMul_joint.{name}"].T)
        assert found.weight.dtype == np.float32 and found.weight.flags.c_contiguous


@pytest.mark.parametrize("layout", list(GRAPHS))
@pytest.mark.parametrize("layers, biases", [(1, True), (3, False)])
def test_lifted_weights_are_the_stored_ones(tmp_path, layout, layers, biases):
    options = {**SIZES, "predictor_layers": layers, "biases": biases, "tokens_per_second": None}
    make_bundle(tmp_path, layout, precision="int8", **options)
    check_lifted(lift(read_bundle(tmp_path, variant="int8").transducer), stored_weights(tmp_path, layout))


@pytest.mark.parametrize(
    "options",
    [
        {"weight_type": QuantType.QUInt8},
        {"weight_type": QuantType.QInt8, "reduce_range": True},
        {"weight_type": QuantType.QInt8, "per_channel": True},
        {"weight_type": QuantType.QUInt8, "per_channel": True, "reduce_range": True},
    ],
    ids=lambda o: "-".join(str(value) for value in o.values()),
)
@pytest.mark.parametrize("layout", ["split", "combined"])
def test_signs_ranges_and_channels(tmp_path, layout, options):
    make_bundle(tmp_path, layout, tokens_per_second=None, **SIZES)
    # GatherQuant has no scales per channel, so the embedding stays float with them.
    operators = ["MatMul", "LSTM"] if options.get("per_channel") else None
    requantized(tmp_path, layout, op_types_to_quantize=operators, **options)
    bundle = read_bundle(tmp_path, variant="int8", durations=SIZES["durations"])
    weights, stored = lift(bundle.transducer), stored_weights(tmp_path, layout)
    stored.setdefault("decoder.prediction.embed.weight", weights.embedding)
    check_lifted(weights, stored)
    assert choice.fused_network(bundle).weights.activation == "relu"


def test_external_weights(tmp_path):
    make_bundle(tmp_path, "combined", precision="int8", tokens_per_second=None, external_weights=True, **SIZES)
    bundle = read_bundle(tmp_path, variant="int8")
    assert bundle.transducer.joint.graph.weights_folder == tmp_path
    check_lifted(lift(bundle.transducer), stored_weights(tmp_path, "combined"))


def test_a_float_graph_is_returned_as_it_is(tmp_path):
    make_bundle(tmp_path, "split", tokens_per_second=None, **SIZES)
    graph = read_bundle(tmp_path).transducer.joint.graph
    assert dequantized(graph) is graph


@pytest.fixture()
def transducer(tmp_path):
    make_bundle(tmp_path, "split", precision="int8", tokens_per_second=None, **SIZES)
    return read_bundle(tmp_path, variant="int8").transducer


def run(graph, feeds):
    session = onnxruntime.InferenceSession(graph.model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def test_the_original_is_left_alone(transducer):
    before = transducer.joint.graph.model.SerializeToString()
    plain = dequantized(transducer.joint.graph)
    assert transducer.joint.graph.model.SerializeToString() == before
    assert not plain.quantized and {"MatMul"} <= {node.op_type for node in plain.model.graph.node}
    assert [str(port) for port in plain.inputs] == [str(port) for port in transducer.joint.graph.inputs]


def test_a_dequantized_predictor_is_the_lstm_of_its_weights(transducer):
    weights, ports = lift(transducer), transducer.predictor
    rng = np.random.default_rng(1)
    h, c = rng.standard_normal((2, 2, 1, 12)).astype(np.float32)
    feeds = {ports.targets.name: np.array([[7]], ports.targets.dtype), ports.states_in[0].name: h}
    feeds |= {ports.target_length.name: np.ones(1, ports.target_length.dtype), ports.states_in[1].name: c}
    graph = dequantized(ports.graph)
    results = dict(zip([port.name for port in graph.outputs], run(graph, feeds)))

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    x = weights.embedding[7]
    for i, layer in enumerate(weights.layers):
        gates = layer.input @ x + layer.recurrent @ h[i, 0] + layer.bias
        gate_i, gate_o, gate_f, cell = np.split(gates, 4)
        new_c = sigmoid(gate_f) * c[i, 0] + sigmoid(gate_i) * np.tanh(cell)
        x = sigmoid(gate_o) * np.tanh(new_c)
        np.testing.assert_allclose(results[ports.states_out[0].name][i, 0], x, atol=1e-5)
        np.testing.assert_allclose(results[ports.states_out[1].name][i, 0], new_c, atol=1e-5)
    np.testing.assert_allclose(results[ports.output.name].reshape(-1), x, atol=1e-5)


# --- operators by themselves -----------------------------------------------------------------------------------------

Q = np.array([[1, -2, 3], [4, 5, -6]], np.int8)
SCALE, ZERO = np.array([0.5, 0.25, 2.0], np.float32), np.array([1, 0, -1], np.int8)
FLOAT = (Q.astype(np.float32) - ZERO) * SCALE
X = np.array([[1.5, -2.0]], np.float32)


def graph_of(tmp_path, nodes, **weights):
    """x [1, 2] -> y, of nodes and named weights."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return Graph(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "test.onnx")


def microsoft(op, inputs):
    return helper.make_node(op, inputs, ["y"], domain="com.microsoft")


def quantize(name="x", suffix=""):
    return helper.make_node("DynamicQuantizeLinear", [name], [f"{part}{suffix}" for part in ("xq", "xs", "xz")])


def chain(scales=("xs", "scale"), product=("xq", "q", "xz", "zero"), value_first=True):
    """MatMulInteger, Cast and the Mul by both scales."""
    return [
        helper.make_node("MatMulInteger", list(product), ["integers"]),
        helper.make_node("Cast", ["integers"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", list(scales), ["scales"]),
        helper.make_node("Mul", ["floats", "scales"] if value_first else ["scales", "floats"], ["y"]),
    ]


BIAS = np.array([1, 2, 3], np.float32)


@pytest.mark.parametrize(
    "nodes, expected",
    [
        ([quantize(), *chain()], X @ FLOAT),
        ([quantize(), *chain(("scale", "xs"), value_first=False)], X @ FLOAT),
        ([quantize(), *chain(product=("xq", "q", "xz"))], X @ (Q * SCALE)),
        ([microsoft("DynamicQuantizeMatMul", ["x", "q", "scale", "zero", "bias"])], X @ FLOAT + BIAS),
        ([microsoft("DynamicQuantizeMatMul", ["x", "q", "scale"])], X @ (Q * SCALE)),
        ([microsoft("DynamicQuantizeMatMul", ["x", "q", "scale", "", "bias"])], X @ (Q * SCALE) + BIAS),
        ([quantize(), microsoft("MatMulIntegerToFloat", ["xq", "q", "xs", "scale", "xz", "zero", "bias"])],
         X @ FLOAT + BIAS),
        ([quantize(), microsoft("MatMulIntegerToFloat", ["xq", "q", "xs", "scale", "xz"])], X @ (Q * SCALE)),
    ],
    ids=["chain", "swapped", "no-zero", "matmul", "matmul-short", "matmul-gap", "tofloat", "tofloat-short"],
)  # fmt: skip
def test_products(tmp_path, nodes, expected):
    graph = graph_of(tmp_path, nodes, q=Q, scale=SCALE, zero=ZERO, bias=BIAS)
    plain = dequantized(graph)
    (y,) = run(plain, {"x": X})
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    assert {node.op_type for node in plain.model.graph.node} <= {"MatMul", "Add"}


def test_one_weight_read_with_two_scales(tmp_path):
    nodes = [
        helper.make_node("DynamicQuantizeMatMul", ["x", "q", scale], [y], domain="com.microsoft")
        for scale, y in (("scale", "a"), ("other", "b"))
    ]
    nodes.append(helper.make_node("Add", ["a", "b"], ["y"]))
    taken = {"q_float": np.zeros(3, np.float32)}  # a name that the rewriting would like to have
    nodes.append(helper.make_node("Identity", ["q_float"], ["dead"]))
    (y,) = run(dequantized(graph_of(tmp_path, nodes, q=Q, scale=SCALE, other=3 * SCALE, **taken)), {"x": X})
    np.testing.assert_allclose(y, 4 * (X @ (Q * SCALE)), rtol=1e-6)


def test_weights_listed_among_the_inputs(tmp_path):
    graph = graph_of(tmp_path, [quantize(), *chain()], q=Q, scale=SCALE, zero=ZERO)
    for tensor in graph.model.graph.initializer:
        graph.model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )
    plain = dequantized(graph)
    assert [value.name for value in plain.model.graph.input] == ["x"]
    np.testing.assert_allclose(run(plain, {"x": X})[0], X @ FLOAT, rtol=1e-6)


@pytest.mark.parametrize(
    "nodes, message",
    [
        ([quantize(), quantize("bias", "2"), *chain(("xs2", "scale"))], "is read with scale xs2 .*expected xs and xz"),
        ([quantize(), quantize("bias", "2"), *chain(product=("xq", "q", "xz2", "zero"))], "point xz2, expected xs"),
        ([quantize(), *chain(product=("xq", "q"))], "zero point none, expected xs and xz"),
        ([quantize(), *chain()[:2], helper.make_node("Mul", ["floats", "scale"], ["y"])],
         r"Mul \(y\) reads floats of Cast|Cast \(floats\) reads integers of MatMulInteger"),
        ([quantize(), *chain(("xs", "xs"))], "reads integers of MatMulInteger"),
        ([quantize(), helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["y"])],
         r"DequantizeLinear \(y\) reads xq of DynamicQuantizeLinear"),
        ([quantize(), *chain(product=("fixed", "q", "xz", "zero"))], "fixed does not come from DynamicQuantizeLinear"),
        ([quantize(), *chain(), microsoft("QGemm", ["x"])], r"QGemm \(y\): no float form"),
        ([microsoft("DynamicQuantizeMatMul", ["x", "q", "short"])], "short holds 2 numbers .*expected one, or 3"),
        ([microsoft("DynamicQuantizeMatMul", ["x", "wide", "scale"])], "wide are int32, expected int8 or uint8"),
        ([microsoft("DynamicQuantizeMatMul", ["x", "x", "scale"])], "x belongs to quantised .* and is not a constant"),
    ],
)  # fmt: skip
def test_refusals(tmp_path, nodes, message):
    weights = {"q": Q, "scale": SCALE, "zero": ZERO, "bias": BIAS, "fixed": np.ones((1, 2), np.uint8)}
    weights |= {"short": SCALE[:2], "wide": Q.astype(np.int32)}
    with pytest.raises(CannotLift, match=message):
        dequantized(graph_of(tmp_path, nodes, **weights))
