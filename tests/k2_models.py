"""Random models of k2's kind, with the nodes that icefall's ``export-onnx.py`` gives its zipformer transducers.

The predictor and the joiner are as exported. The encoder is a single convolution over time, which takes what a
zipformer takes and gives a frame for every four.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MEL_BINS = 80
_KERNEL, _FACTOR = 9, 4


@dataclass(frozen=True)
class Sizes:
    """V + 1, the predictor's width, the joiner's width, and how many tokens the predictor takes."""

    entries: int = 40
    decoder: int = 24
    joiner: int = 32
    context: int = 2


def write_model(
    directory: Path,
    sizes: Sizes = Sizes(),
    *,
    seed: int = 0,
    suffix: str = "",
    blank_bias: float = 2.0,
    clamp: bool = True,
    opset: int = 13,
) -> Path:
    """Write encoder, decoder, joiner and tokens.txt.

    Parameters
    ----------
    suffix:
        Of the graphs' names, such as "-epoch-99-avg-1".
    blank_bias:
        Added to the blank's logit; larger means fewer tokens.
    clamp:
        Whether the decoder takes -1 for no token, as exports since 2022 do.
    """
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    graphs = {
        "encoder": _encoder(rng, sizes),
        "decoder": _decoder(rng, sizes, clamp),
        "joiner": _joiner(rng, sizes, blank_bias),
    }
    metadata = {
        "encoder": {"model_type": "zipformer2", "version": "1", "model_author": "k2-fsa", "comment": "zipformer2"},
        "decoder": {"context_size": str(sizes.context), "vocab_size": str(sizes.entries)},
        "joiner": {"joiner_dim": str(sizes.joiner)},
    }
    for name, graph in graphs.items():
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        helper.set_model_props(model, metadata[name])
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, directory / f"{name}{suffix}.onnx")
    lines = ["<blk> 0", "<sos/eos> 1", *(f"{_piece(i)} {i}" for i in range(2, sizes.entries))]
    (directory / "tokens.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return directory


def _piece(i: int) -> str:
    """Words of a syllable or two, so that texts can be told apart."""
    consonants, vowels = "bdfghjklmnprstvwz", "aeiou"
    syllable = consonants[i % len(consonants)] + vowels[i // len(consonants) % len(vowels)]
    return ("\u2581" if i % 2 else "") + syllable + str(i // 85 or "")


def _weight(rng: np.random.Generator, name: str, *shape: int, fan: int = 1) -> onnx.TensorProto:
    return numpy_helper.from_array((rng.standard_normal(shape) * fan**-0.5).astype(np.float32), name)


def _number(name: str, value: object, dtype: type = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def _value(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _encoder(rng: np.random.Generator, sizes: Sizes) -> onnx.GraphProto:
    width = 48
    node = helper.make_node
    # Filters without a mean hear only what changes.
    filters = (rng.standard_normal((width, MEL_BINS, _KERNEL)) * (MEL_BINS * _KERNEL) ** -0.5).astype(np.float32)
    nodes = [
        node("Add", ["x", "mean"], ["centred"]),
        node("Transpose", ["centred"], ["rows"], perm=[0, 2, 1]),
        node("Conv", ["rows", "encoder_embed.weight", "encoder_embed.bias"], ["convolved"], strides=[_FACTOR],
             kernel_shape=[_KERNEL]),
        node("Tanh", ["convolved"], ["active"]),
        node("Transpose", ["active"], ["frames"], perm=[0, 2, 1]),
        node("MatMul", ["frames", "encoder_proj.weight"], ["projected"]),
        node("Add", ["encoder_proj.bias", "projected"], ["encoder_out"]),
        node("Sub", ["x_lens", "five"], ["shortened"]),
        node("Div", ["shortened", "four"], ["encoder_out_lens"]),
    ]  # fmt: skip
    weights = [
        _number("mean", 8.0, np.float32), _number("five", _KERNEL - _FACTOR), _number("four", _FACTOR),
        numpy_helper.from_array(filters - filters.mean(axis=2, keepdims=True), "encoder_embed.weight"),
        _weight(rng, "encoder_embed.bias", width), _weight(rng, "encoder_proj.weight", width, sizes.joiner, fan=8),
        _weight(rng, "encoder_proj.bias", sizes.joiner, fan=4),
    ]  # fmt: skip
    return helper.make_graph(
        nodes, "encoder",
        [_value("x", TensorProto.FLOAT, "N", "T", MEL_BINS), _value("x_lens", TensorProto.INT64, "N")],
        [_value("encoder_out", TensorProto.FLOAT, "N", "T_out", sizes.joiner),
         _value("encoder_out_lens", TensorProto.INT64, "N")], weights,
    )  # fmt: skip


def _decoder(rng: np.random.Generator, sizes: Sizes, clamp: bool) -> onnx.GraphProto:
    """``relu(conv(embedding(y.clamp(min=0)) * (y >= 0)))``, then the joiner's projection."""
    group = 4
    node = helper.make_node
    nodes = [
        node("Clip", ["y", "zero"], ["clamped"]),
        node("Gather", ["decoder.embedding.weight", "clamped"], ["embedded"]),
        node("GreaterOrEqual", ["y", "zero"], ["given"]),
        node("Unsqueeze", ["given", "last"], ["given/axis"]),
        node("Cast", ["given/axis"], ["mask"], to=TensorProto.FLOAT),
        node("Mul", ["embedded", "mask"], ["masked"]),
    ] if clamp else [node("Gather", ["decoder.embedding.weight", "y"], ["masked"])]  # fmt: skip
    output = "masked"
    if sizes.context > 1:
        nodes += [
            node("Transpose", ["masked"], ["channels"], perm=[0, 2, 1]),
            node("Conv", ["channels", "decoder.conv.weight"], ["convolved"], group=sizes.decoder // group,
                 kernel_shape=[sizes.context]),
            node("Transpose", ["convolved"], ["tokens"], perm=[0, 2, 1]),
            node("Relu", ["tokens"], ["active"]),
        ]  # fmt: skip
        output = "active"
    nodes += [
        node("Squeeze", [output, "middle"], ["squeezed"]),
        node("Gemm", ["squeezed", "decoder_proj.weight", "decoder_proj.bias"], ["decoder_out"], transB=1),
    ]
    weights = [
        _weight(rng, "decoder.embedding.weight", sizes.entries, sizes.decoder),
        _weight(rng, "decoder_proj.weight", sizes.joiner, sizes.decoder, fan=sizes.decoder // 4),
        _weight(rng, "decoder_proj.bias", sizes.joiner, fan=10), _number("middle", [1]),
    ]  # fmt: skip
    if clamp:
        weights += [_number("zero", 0), _number("last", [-1])]
    if sizes.context > 1:
        weights.append(_weight(rng, "decoder.conv.weight", sizes.decoder, group, sizes.context, fan=group * 2))
    return helper.make_graph(
        nodes, "decoder", [_value("y", TensorProto.INT64, "N", sizes.context)],
        [_value("decoder_out", TensorProto.FLOAT, "N", sizes.joiner)], weights,
    )  # fmt: skip


def _joiner(rng: np.random.Generator, sizes: Sizes, blank_bias: float) -> onnx.GraphProto:
    """``linear(tanh(encoder_out + decoder_out))``."""
    nodes = [
        helper.make_node("Add", ["encoder_out", "decoder_out"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["active"]),
        helper.make_node("Gemm", ["active", "output_linear.weight", "output_linear.bias"], ["logit"], transB=1),
    ]
    bias = (0.3 * rng.standard_normal(sizes.entries)).astype(np.float32)
    bias[0] += blank_bias
    weights = [
        _weight(rng, "output_linear.weight", sizes.entries, sizes.joiner, fan=sizes.joiner // 4),
        numpy_helper.from_array(bias, "output_linear.bias"),
    ]
    return helper.make_graph(
        nodes, "joiner",
        [_value(name, TensorProto.FLOAT, "N", sizes.joiner) for name in ("encoder_out", "decoder_out")],
        [_value("logit", TensorProto.FLOAT, "N", sizes.entries)], weights,
    )  # fmt: skip
