"""A FastConformer encoder with the sizes of a Parakeet model and random weights, as a graph: no NeMo, no PyTorch.

It has the operators and the sizes of NeMo's export: convolutions that subsample by 8, and layers of two half-step
feed-forward modules, attention with relative positions, and a convolution over 9 frames. What lies beyond a recording's
length is masked, so its frames do not depend on the padding. It has no biases, whose cost cannot be measured.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, helper

from .nemo_graphs import IR_VERSION, OPSET, SUBSAMPLING, GraphBuilder

KERNEL = 9
MASKED = -1e4


@dataclass(frozen=True)
class Sizes:
    """Of an encoder; the defaults are those of parakeet-tdt-0.6b."""

    layers: int = 24
    width: int = 1024
    heads: int = 8
    channels: int = 256
    mel_bins: int = 128
    most_frames: int = 5000


class _Builder(GraphBuilder):
    """A builder that writes weights to a file at once: together they may be more than a graph's file can hold."""

    def __init__(self, dtype: np.dtype, file: IO[bytes]):
        super().__init__(dtype)
        self._file = file
        # Weights are cut from a row of random numbers that no width divides: to make new ones would take a minute.
        self._numbers = np.random.default_rng(0).standard_normal(4_000_037, np.float32)
        self._used = 0

    def weight(self, name: str, values: np.ndarray) -> str:
        data = np.ascontiguousarray(values, self.dtype).tobytes()
        tensor = TensorProto(name=name, dims=values.shape, data_type=self.elem_type, raw_data=b"")
        external_data_helper.set_external_data(
            tensor, os.path.basename(self._file.name), offset=self._file.tell(), length=len(data)
        )
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        self._file.write(data)
        self.weights.append(tensor)
        return name

    def random(self, *shape: int, inputs: int, gain: float = 1.0) -> str:
        """Weights with which each output has ``gain`` times the deviation of the inputs."""
        count = int(np.prod(shape))
        values = np.resize(np.roll(self._numbers, -self._used), shape) * np.float32(gain / inputs**0.5)
        self._used = (self._used + count) % len(self._numbers)
        return self.weight(f"weight_{len(self.weights)}", values)

    def product(self, x: str, inputs: int, outputs: int, gain: float = 1.0) -> str:
        return self.add("MatMul", [x, self.random(inputs, outputs, inputs=inputs, gain=gain)])

    def number(self, value: float) -> str:
        tensor = onnx.numpy_helper.from_array(np.array(value, self.dtype))
        return self.add("Constant", [], value=tensor)

    def normalized(self, x: str, width: int) -> str:
        scale = self.weight(f"scale_{len(self.weights)}", np.ones(width, np.float32))
        return self.add("LayerNormalization", [x, scale], axis=-1, epsilon=1e-5)

    def swish(self, x: str) -> str:
        return self.add("Mul", [x, self.add("Sigmoid", [x])])

    def shaped(self, x: str, *dims: int) -> str:
        return self.add("Reshape", [x, self.constant(*dims)])


def write(file: Path, sizes: Sizes = Sizes(), dtype: str = "float32") -> None:
    """Write the graph, and its weights beside it: features float32 [B, mel, T] to frames float32 [B, E, T / 8]."""
    with open(f"{file}.data", "wb") as data:
        g = _Builder(np.dtype(dtype), data)
        x, counts = _subsampled(g, sizes)
        time = g.add("Gather", [g.add("Shape", [x]), g.constant(1)], axis=0)
        inside = _inside(g, time, counts)
        kept = g.add("Unsqueeze", [inside, g.constant(2)])  # [B, T, 1]
        beyond = g.add("Sub", [g.number(1.0), g.add("Unsqueeze", [inside, g.constant(1, 2)])])
        mask = g.add("Mul", [beyond, g.number(MASKED)])  # [B, 1, 1, T]
        positions = _positions(g, sizes, time)
        for _ in range(sizes.layers):
            x = _layer(g, sizes, x, kept, mask, positions)
        g.add("Transpose", [g.add("Cast", [x], to=TensorProto.FLOAT)], "outputs", perm=[0, 2, 1])
        g.add("Identity", [counts], "encoded_lengths")
    batch, frames = "audio_signal_dynamic_axes_1", "audio_signal_dynamic_axes_2"
    graph = helper.make_graph(
        g.nodes, "main_graph",
        [g.value("audio_signal", [batch, sizes.mel_bins, frames], TensorProto.FLOAT),
         g.value("length", ["length_dynamic_axes_1"], TensorProto.INT64)],
        [g.value("outputs", ["outputs_dynamic_axes_1", sizes.width, "outputs_dynamic_axes_2"], TensorProto.FLOAT),
         g.value("encoded_lengths", ["encoded_lengths_dynamic_axes_1"], TensorProto.INT64)],
        g.weights,
    )  # fmt: skip
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="pytorch"
    )
    file.write_bytes(model.SerializeToString())


def _inside(g: _Builder, time: str, counts: str) -> str:
    """1 where a frame is one of a recording's, else 0: [B, T]."""
    zero, one = (g.add("Constant", [], value=onnx.numpy_helper.from_array(np.array(i, np.int64))) for i in (0, 1))
    steps = g.add("Unsqueeze", [g.add("Range", [zero, g.add("Squeeze", [time]), one]), g.constant(0)])
    return g.add("Cast", [g.add("Less", [steps, g.add("Unsqueeze", [counts, g.constant(1)])])], to=g.elem_type)


def _subsampled(g: _Builder, sizes: Sizes) -> tuple[str, str]:
    """Frames [B, T / 8, width], and their numbers."""
    channels = sizes.channels
    x = g.add("Transpose", [g.add("Cast", ["audio_signal"], to=g.elem_type)], perm=[0, 2, 1])
    x = g.add("Unsqueeze", [x, g.constant(1)])
    counts = "length"
    for i in range(3):
        x = g.add(
            "Conv", [x, g.random(channels, 1, 3, 3, inputs=5)], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1],
            group=channels if i else 1,
        )  # fmt: skip
        if i:
            pointwise = g.random(channels, channels, 1, 1, inputs=channels // 2)
            x = g.add("Conv", [x, pointwise], kernel_shape=[1, 1])
        counts = g.add("Div", [g.add("Add", [counts, g.constant(1)]), g.constant(2)])
        time = g.add("Gather", [g.add("Shape", [x]), g.constant(2)], axis=0)
        inside = g.add("Unsqueeze", [_inside(g, time, counts), g.constant(1, 3)])
        x = g.add("Mul", [g.add("Relu", [x]), inside])
    bins = -(-sizes.mel_bins // SUBSAMPLING)
    x = g.shaped(g.add("Transpose", [x], perm=[0, 2, 1, 3]), 0, 0, channels * bins)
    return g.product(x, channels * bins, sizes.width), counts


def _positions(g: _Builder, sizes: Sizes, time: str) -> str:
    """The table's rows for the distances from T - 1 to 1 - T: [1, 2 T - 1, width]."""
    most = sizes.most_frames
    distances = np.arange(most - 1, -most, -1)[:, None]
    rates = np.exp(-np.log(10_000) * np.arange(0, sizes.width, 2) / sizes.width)
    table = np.stack([np.sin(distances * rates), np.cos(distances * rates)], axis=2).reshape(1, 2 * most - 1, -1)
    end = g.add("Sub", [g.add("Add", [g.constant(most), time]), g.constant(1)])
    return g.add(
        "Slice", [g.weight("pos_enc.pe", table), g.add("Sub", [g.constant(most), time]), end, g.constant(1)]
    )


def _layer(g: _Builder, sizes: Sizes, x: str, kept: str, mask: str, positions: str) -> str:
    x = _feed_forward(g, sizes.width, x)
    x = g.add("Add", [x, _attention(g, sizes, g.normalized(x, sizes.width), mask, positions)])
    x = g.add("Add", [x, _convolution(g, sizes.width, g.normalized(x, sizes.width), kept)])
    return g.normalized(_feed_forward(g, sizes.width, x), sizes.width)


def _feed_forward(g: _Builder, width: int, x: str) -> str:
    hidden = g.swish(g.product(g.normalized(x, width), width, 4 * width))
    return g.add("Add", [x, g.add("Mul", [g.product(hidden, 4 * width, width), g.number(0.5)])])


def _attention(g: _Builder, sizes: Sizes, x: str, mask: str, positions: str) -> str:
    width, heads = sizes.width, sizes.heads
    size = width // heads

    def split(name: str, perm: list[int]) -> str:
        return g.add("Transpose", [g.shaped(name, 0, -1, heads, size)], perm=perm)

    query, key, value = (g.product(x, width, width) for _ in range(3))
    biases = [g.random(heads, 1, size, inputs=size) for _ in range(2)]
    with_content, with_place = (g.add("Add", [split(query, [0, 2, 1, 3]), bias]) for bias in biases)
    content = g.add("MatMul", [with_content, split(key, [0, 2, 3, 1])])
    place = g.add("MatMul", [with_place, split(g.product(positions, width, width), [0, 2, 3, 1])])
    # [B, h, T, 2 T - 1]: each row is shifted by one more than the row above it.
    shape = g.add("Shape", [place])
    batch, time, places = (g.add("Gather", [shape, g.constant(i)], axis=0) for i in (0, 2, 3))
    padded = g.add("Pad", [place, g.constant(0, 0, 0, 1, 0, 0, 0, 0)])
    turned = g.add("Concat", [batch, g.constant(heads), g.add("Add", [places, g.constant(1)]), time], axis=0)
    rows = g.add("Slice", [g.add("Reshape", [padded, turned]), g.constant(1), g.constant(2**31), g.constant(2)])
    shifted = g.add("Slice", [g.add("Reshape", [rows, shape]), g.constant(0), time, g.constant(3)])
    scores = g.add("Mul", [g.add("Add", [content, shifted]), g.number(size**-0.5)])
    weights = g.add("Softmax", [g.add("Add", [scores, mask])], axis=-1)
    mixed = g.add("Transpose", [g.add("MatMul", [weights, split(value, [0, 2, 1, 3])])], perm=[0, 2, 1, 3])
    return g.product(g.shaped(mixed, 0, 0, width), width, width)


def _convolution(g: _Builder, width: int, x: str, kept: str) -> str:
    doubled = g.product(x, width, 2 * width)
    first, second = (
        g.add("Slice", [doubled, g.constant(i * width), g.constant((i + 1) * width), g.constant(2)]) for i in (0, 1)
    )
    gated = g.add("Mul", [g.add("Mul", [first, g.add("Sigmoid", [second])]), kept])
    x = g.add(
        "Conv", [g.add("Transpose", [gated], perm=[0, 2, 1]), g.random(width, 1, KERNEL, inputs=KERNEL)], group=width,
        kernel_shape=[KERNEL], pads=[KERNEL // 2] * 2,
    )  # fmt: skip
    return g.product(g.swish(g.add("Transpose", [x], perm=[0, 2, 1])), width, width)
