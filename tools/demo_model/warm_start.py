"""Weights of an exported demo model as the beginning of a streaming one.

The model of whole recordings is made by the same tools, so its layers are as wide. A streaming model takes over

- what has the same shape, of all layers but the middle one, for it has one layer less;
- of each convolution over time the half that lies in the past;
- pieces that both vocabularies have, in the embedding and in the joint's output.
"""

import re
from pathlib import Path

import model as demo
import numpy as np
import onnx
import torch
from onnx import numpy_helper


def exported_weights(file: Path) -> dict[str, np.ndarray]:
    """The weights of an exported graph by their names in NeMo, float32.

    The exporter transposes the weights of linear layers and gives them names of its own. The names of the nodes that
    use them still tell where they come from.
    """
    graph = onnx.load(file).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in arrays:  # stored as float16
            arrays[node.output[0]] = arrays.pop(node.input[0])
    found = {name: array.astype(np.float32) for name, array in arrays.items() if not name.startswith("onnx::")}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in arrays:
            place = re.sub(r"(\w+)/\1\.", r"\1.", node.name.removesuffix("/MatMul").strip("/")).replace("/", ".")
            found[f"{place}.weight"] = arrays[node.input[1]].astype(np.float32).T
        if node.op_type == "LSTM":
            inputs, states, biases = (arrays[name][0].astype(np.float32) for name in node.input[1:4])
            halves = np.split(biases, 2)
            for name, array in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), (inputs, states, *halves)):
                i, o, f, c = np.split(array, 4)  # ONNX's order of gates; PyTorch's is i, f, c, o
                found[f"lstm.{name}_l0"] = np.concatenate([i, f, c, o])
    return found


def warm_start(model, exported: Path) -> None:
    """Fill an untrained streaming model with the weights of an exported demo model."""
    encoder = exported_weights(exported / "encoder-model.onnx")
    heads = exported_weights(exported / "decoder_joint-model.onnx")
    lines = (exported / "vocab.txt").read_text(encoding="utf-8").splitlines()
    old = {line.rsplit(" ", 1)[0]: i for i, line in enumerate(lines)}
    depth = 1 + max(int(name.split(".")[1]) for name in encoder if name.startswith("layers."))
    kept = [i for i in range(depth) if i != depth // 2]
    shared = [(i, old[piece]) for i, piece in enumerate([*model.joint.vocabulary, "<blk>"]) if piece in old]
    new_rows, old_rows = map(list, zip(*shared))
    state = model.state_dict()
    for name, value in state.items():
        part, _, rest = name.partition(".")
        if part == "encoder":
            if rest.startswith("layers."):
                _, layer, rest = rest.split(".", 2)
                rest = f"layers.{kept[int(layer)]}.{rest}"
            array = torch.from_numpy(encoder[rest])
            if rest.endswith("depthwise_conv.weight"):
                past = array.shape[2] // 2 + 1
                value.zero_()[:, :, -past:] = array[:, :, :past]
            elif rest == "pre_encode.out.weight":
                # Causal convolutions pad the mel axis by two instead of one, which gives one band more, the lowest.
                bands = value.shape[1] // demo.SUBSAMPLING_CHANNELS
                value.zero_().unflatten(1, (-1, bands))[:, :, 1:] = array.unflatten(1, (-1, bands - 1))
            else:
                value.copy_(array)
        elif part in ("decoder", "joint"):
            source = name[name.index("lstm.") :] if "lstm." in name else name
            array = torch.from_numpy(heads[source])
            if name == "decoder.prediction.embed.weight":
                value[new_rows] = array[old_rows]
            elif name.startswith("joint.joint_net.1."):
                value[new_rows], value[-len(demo.DURATIONS) :] = array[old_rows], array[-len(demo.DURATIONS) :]
            else:
                value.copy_(array)
    first = "encoder.pre_encode.conv.0."
    state[first + "weight"] /= demo.FEATURE_DEVIATION
    state[first + "bias"] -= demo.FEATURE_MEAN * state[first + "weight"].sum((1, 2, 3))
