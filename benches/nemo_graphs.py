"""Makes ONNX graphs with the structure of NeMo's exports from the weights of a random transducer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .random_weights import Weights

OPSET = 17
IR_VERSION = 8
SUBSAMPLING = 8

_ACTIVATION_OPS = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}


@dataclass
class GraphBuilder:
    """Collects the nodes and weights of a graph; `dtype` is that of weights and activations."""

    dtype: np.dtype = field(default_factory=lambda: np.dtype(np.float32))
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    @property
    def elem_type(self) -> int:
        return helper.np_dtype_to_tensor_dtype(self.dtype)

    def add(self, op: str, inputs: list[str], name: str | None = None, **attributes) -> str:
        """Add a node with one output, and return the output's name."""
        name = name or f"/{op}_{len(self.nodes)}_output_0"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def weight(self, name: str, values: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values, self.dtype), name))
        return name

    def constant(self, *values: int) -> str:
        tensor = numpy_helper.from_array(np.asarray(values, np.int64))
        return self.add("Constant", [], f"/Constant_{len(self.nodes)}_output_0", value=tensor)

    def value(self, name: str, dims: list[int | str], elem_type: int | None = None) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, self.elem_type if elem_type is None else elem_type, dims)

    def build(self, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "main_graph", inputs, outputs, self.weights)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="pytorch"
        )
        onnx.checker.check_model(model)
        return model

    def affine(self, x: str, name: str, matrix: np.ndarray, bias: np.ndarray | None, out: str | None = None) -> str:
        product = out if bias is None else None
        y = self.add("MatMul", [x, self.weight(f"onnx::MatMul_{name}", matrix)], product)
        return y if bias is None else self.add("Add", [self.weight(f"{name}.bias", bias), y], out)


def add_predictor(g: GraphBuilder, w: Weights, states: tuple[str, str], states_out: tuple[str, str]) -> str:
    """Add the embedding and the LSTM layers, and return the name of their output [U, B, H]."""
    tokens = g.add("Cast", ["targets"], to=TensorProto.INT64)
    embedded = g.add("Gather", [g.weight("decoder.prediction.embed.weight", w.embedding), tokens])
    x = g.add("Transpose", [embedded], perm=[1, 0, 2])
    new: tuple[list[str], list[str]] = ([], [])
    hidden = w.embedding.shape[1]
    for i, layer in enumerate(w.layers):
        initial = list(states)
        if len(w.layers) > 1:
            axis, start, end = g.constant(0), g.constant(i), g.constant(i + 1)
            initial = [g.add("Slice", [state, start, end, axis]) for state in states]
        bias = ""
        if layer.w_bias is not None:
            bias = g.weight(f"onnx::LSTM_B{i}", np.concatenate([layer.w_bias, layer.r_bias])[None])
        outputs = [f"/lstm_{i}_output_{k}" for k in range(3)]
        weights = [g.weight(f"onnx::LSTM_W{i}", layer.w[None]), g.weight(f"onnx::LSTM_R{i}", layer.r[None])]
        g.nodes.append(helper.make_node("LSTM", [x, *weights, bias, "", *initial], outputs, hidden_size=hidden))
        x = g.add("Squeeze", [outputs[0], g.constant(1)])
        new[0].append(outputs[1])
        new[1].append(outputs[2])
    for parts, name in zip(new, states_out, strict=True):
        if len(parts) > 1:
            g.add("Concat", parts, name, axis=0)
        else:
            g.add("Identity", parts, name)
    return x


def add_joint(g: GraphBuilder, w: Weights, frames: str, prediction: str, out: str | None) -> str:
    """Add the joint: rows [B, T, U, V + 1 + D] from frames [B, T, E] and predictor outputs [B, U, H]."""
    projected = g.affine(frames, "joint.enc", w.enc, w.enc_bias)
    predicted = g.affine(prediction, "joint.pred", w.pred, w.pred_bias)
    projected = g.add("Unsqueeze", [projected, g.constant(2)])
    both = g.add("Add", [projected, g.add("Unsqueeze", [predicted, g.constant(1)])])
    return g.affine(g.add(_ACTIVATION_OPS[w.activation], [both]), "joint.joint_net.2", w.out, w.out_bias, out)


def split_graphs(w: Weights, dtype: np.dtype, static_batch: bool) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """decoder.onnx and joiner.onnx of the split layout. `static_batch` fixes the batch of the second state at 1."""
    layers, hidden = len(w.layers), w.embedding.shape[1]
    g = GraphBuilder(dtype)
    x = add_predictor(g, w, ("states.1", "onnx::Slice_3"), ("states", "162"))
    g.add("Transpose", [x], "outputs", perm=[1, 2, 0])
    g.add("Identity", ["target_length"], "prednet_lengths")
    decoder = g.build(
        [
            g.value("targets", ["targets_dynamic_axes_1", "targets_dynamic_axes_2"], TensorProto.INT32),
            g.value("target_length", ["target_length_dynamic_axes_1"], TensorProto.INT32),
            g.value("states.1", [layers, "states.1_dim_1", hidden]),
            g.value("onnx::Slice_3", [layers, 1 if static_batch else "onnx::Slice_3_dim_1", hidden]),
        ],
        [
            g.value("outputs", ["targets_dynamic_axes_1", hidden, "targets_dynamic_axes_2"]),
            g.value("prednet_lengths", ["target_length_dynamic_axes_1"], TensorProto.INT32),
            g.value("states", [layers, "states_dynamic_axes_1", hidden]),
            g.value("162", [layers, "Concat162_dim_1", hidden]),
        ],
    )
    j = GraphBuilder(dtype)
    frames = j.add("Transpose", ["encoder_outputs"], perm=[0, 2, 1])
    add_joint(j, w, frames, j.add("Transpose", ["decoder_outputs"], perm=[0, 2, 1]), "outputs")
    joiner = j.build(
        [
            j.value("encoder_outputs", ["enc_axes_1", len(w.enc), "enc_axes_2"]),
            j.value("decoder_outputs", ["dec_axes_1", hidden, "dec_axes_2"]),
        ],
        [j.value("outputs", ["B", "T", "U", w.out.shape[1]])],
    )
    return decoder, joiner


def combined_graph(w: Weights, dtype: np.dtype, static_batch: bool) -> onnx.ModelProto:
    """decoder_joint-model.onnx of the combined layout. `static_batch` fixes the batch of the states at 1."""
    layers, hidden = len(w.layers), w.embedding.shape[1]
    batch: int | str = 1 if static_batch else "input_states_1_dynamic_axes_1"
    g = GraphBuilder(dtype)
    x = add_predictor(g, w, ("input_states_1", "input_states_2"), ("output_states_1", "output_states_2"))
    frames = g.add("Transpose", ["encoder_outputs"], perm=[0, 2, 1])
    add_joint(g, w, frames, g.add("Transpose", [x], perm=[1, 0, 2]), "outputs")
    g.add("Identity", ["target_length"], "prednet_lengths")
    return g.build(
        [
            g.value("encoder_outputs", ["enc_axes_1", len(w.enc), "enc_axes_2"]),
            g.value("targets", ["targets_dynamic_axes_1", "targets_dynamic_axes_2"], TensorProto.INT32),
            g.value("target_length", ["target_length_dynamic_axes_1"], TensorProto.INT32),
            g.value("input_states_1", [layers, batch, hidden]),
            g.value("input_states_2", [layers, batch, hidden]),
        ],
        [
            g.value("outputs", ["B", "T", "U", w.out.shape[1]]),
            g.value("prednet_lengths", ["target_length_dynamic_axes_1"], TensorProto.INT32),
            g.value("output_states_1", [layers, "L1", hidden]),
            g.value("output_states_2", [layers, "L2", hidden]),
        ],
    )


def genai_graphs(w: Weights, dtype: np.dtype, static_batch: bool) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """decoder.onnx and joint.onnx of the GenAI layout.

    Tokens are int64, the time axis comes before the width, and a log-softmax runs over whole joint rows.
    """
    layers, hidden = len(w.layers), w.embedding.shape[1]
    batch: int | str = 1 if static_batch else "batch"
    g = GraphBuilder(dtype)
    x = add_predictor(g, w, ("h_in", "c_in"), ("h_out", "c_out"))
    g.add("Transpose", [x], "decoder_output", perm=[1, 2, 0])
    g.add("Identity", ["target_length_orig"], "target_length")
    decoder = g.build(
        [
            g.value("targets", [batch, 1], TensorProto.INT64),
            g.value("target_length_orig", [batch], TensorProto.INT64),
            g.value("h_in", [layers, batch, hidden]),
            g.value("c_in", [layers, batch, hidden]),
        ],
        [
            g.value("decoder_output", [batch, hidden, 1]),
            g.value("target_length", [batch], TensorProto.INT64),
            g.value("h_out", [layers, batch, hidden]),
            g.value("c_out", [layers, batch, hidden]),
        ],
    )
    j = GraphBuilder(dtype)
    j.add("LogSoftmax", [add_joint(j, w, "encoder_output", "decoder_output", None)], "joint_output", axis=-1)
    joint = j.build(
        [
            j.value("encoder_output", [batch, "time", len(w.enc)]),
            j.value("decoder_output", [batch, "tokens", hidden]),
        ],
        [j.value("joint_output", [batch, "time", "tokens", w.out.shape[1]])],
    )
    return decoder, joint


def encoder_graph(
    mel_bins: int, encoder_size: int, dtype: np.dtype, seed: int, position_frames: int | None = None
) -> onnx.ModelProto:
    """A tiny encoder, one strided convolution: features [B, mel, T] to frames [B, E, ceil(T / 8)].

    With `position_frames` it adds relative positions from a table [1, 2 * position_frames - 1, E]. Like a real encoder
    it then fails on more encoder frames than that.
    """
    rng = np.random.default_rng([seed, 2])
    g = GraphBuilder()
    kernel = rng.standard_normal((encoder_size, mel_bins, SUBSAMPLING)) / (mel_bins * SUBSAMPLING) ** 0.5
    x = g.add(
        "Conv",
        ["audio_signal", g.weight("pre_encode.conv.weight", kernel)],
        kernel_shape=[SUBSAMPLING],
        strides=[SUBSAMPLING],
        pads=[0, SUBSAMPLING - 1],
    )
    if position_frames is not None:
        table = g.weight("pos_enc.pe", 0.1 * rng.standard_normal((1, 2 * position_frames - 1, encoder_size)))
        time = g.add("Gather", [g.add("Shape", [x]), g.constant(2)], axis=0)
        end = g.constant(position_frames)
        positions = g.add("Slice", [table, g.add("Sub", [end, time]), end, g.constant(1)])
        x = g.add("Add", [x, g.add("Transpose", [positions], perm=[0, 2, 1])])
    g.add("Cast", [x], "outputs", to=helper.np_dtype_to_tensor_dtype(dtype))
    longer = g.add("Add", ["length", g.constant(SUBSAMPLING - 1)])
    g.add("Div", [longer, g.constant(SUBSAMPLING)], "encoded_lengths")
    return g.build(
        [
            g.value("audio_signal", ["audio_signal_dynamic_axes_1", mel_bins, "audio_signal_dynamic_axes_2"]),
            g.value("length", ["length_dynamic_axes_1"], TensorProto.INT64),
        ],
        [
            g.value("outputs", ["B", encoder_size, "T"], helper.np_dtype_to_tensor_dtype(dtype)),
            g.value("encoded_lengths", ["length_dynamic_axes_1"], TensorProto.INT64),
        ],
    )
