"""Weights laid out as the kernels read them, in ``csrc/cuda/weights.cuh`` and ``network.cuh``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...cuda.device import import_cupy
from ...cuda.structs import MATRIX, MAX_LAYERS, NETWORK, address, filled, row_layout
from ...errors import InputError
from ...transducer import TransducerSpec
from ...weights import ACTIVATIONS, Affine, LstmLayer, TransducerWeights
from ..packing import bfloat16_bits

TILE = 16
DEPTH = 16
UNITS = TILE // 4

WEIGHT_TYPES = {"float32": "Float32", "float16": "Float16", "bfloat16": "Bfloat16"}
"""Precision -> the name of its type in ``weights.cuh``."""


@dataclass(frozen=True, eq=False)
class DeviceNetwork:
    """A transducer's weights on the device.

    Attributes
    ----------
    struct:
        `structs.NETWORK` [1]. Fields that depend on the launch are not set yet (`FusedNetworkOnDevice.spread`).
    arrays:
        The device arrays that it points to.
    precision:
        A key of `WEIGHT_TYPES`.
    hidden, joint, entries:
        H, padded; J; V + 1.
    outputs, cells:
        How many layers' outputs and cells, of width H, a predictor state has.
    context:
        Whether the predictor looks at several tokens. It has no LSTM layers then, and its states no layers' outputs.
    nbytes:
        Bytes of all arrays.
    """

    struct: np.ndarray
    arrays: tuple
    precision: str
    hidden: int
    joint: int
    entries: int
    outputs: int
    cells: int
    context: bool
    nbytes: int

    @property
    def layers(self) -> int:
        """Levels below the prediction: the LSTM layers, or 1 for a predictor that looks at several tokens."""
        return 1 if self.context else self.outputs


def pack_network(weights: TransducerWeights, spec: TransducerSpec, precision: str, blocks: int) -> DeviceNetwork:
    """Copy a transducer's weights to the device, cut into tiles that are dealt out over ``blocks`` blocks.

    Raises
    ------
    InputError
        If the predictor has more than `MAX_LAYERS` layers.
    """
    cupy = import_cupy()
    if len(weights.layers) > MAX_LAYERS:
        raise InputError(
            f"network 'fused' on cuda takes {MAX_LAYERS} predictor layers at most, this model has "
            f"{len(weights.layers)}: use network='ort'"
        )
    size = weights.prediction.weight.shape[1]
    hidden = -(-size // UNITS) * UNITS
    joint = len(weights.encoder.weight)
    kept: list = []
    dealt = 0

    def on_device(array: np.ndarray) -> int:
        kept.append(cupy.asarray(array))
        return address(kept[-1])

    def matrix(affine: Affine) -> np.ndarray:
        nonlocal dealt
        tiles = packed_tiles(affine.weight, precision)
        bias = np.zeros(len(tiles) * TILE, np.float32)
        bias[: len(affine.bias)] = affine.bias
        record = filled(
            MATRIX, tiles=on_device(tiles), bias=on_device(bias), count=len(tiles), inputs=affine.weight.shape[1],
            owner=dealt % blocks,
        )  # fmt: skip
        dealt += len(tiles)
        return record[0]

    struct = np.zeros(1, NETWORK)
    net = struct[0]

    def recurrent(i: int) -> np.ndarray:
        layer = weights.layers[i]
        return matrix(_by_unit(Affine(layer.recurrent, np.zeros_like(layer.bias)), size, hidden, hidden))

    # Each matrix begins behind the one before, so that all blocks get as many tiles, within one. The order is such that
    # a block with one more tile of a layer's recurrent product than others has none of what comes after it: the output
    # after the last layer's, the prediction after the others'.
    net["output"] = matrix(weights.output)
    last = len(weights.layers) - 1
    if weights.layers:
        net["recurrent"][last] = recurrent(last)
    if weights.cells:
        padded = np.pad(weights.prediction.weight, ((0, 0), (0, hidden - size)))
        net["prediction"] = matrix(Affine(padded, weights.prediction.bias))
    for i, layer in enumerate(weights.layers):
        if i < last:
            net["recurrent"][i] = recurrent(i)
        if i:
            net["input"][i] = matrix(_by_unit(Affine(layer.input, layer.bias), size, hidden, hidden))
    if weights.layers:
        table = _gate_table(weights.embedding, weights.layers[0], size, hidden)
    elif weights.earlier:
        tables = np.stack([weights.embedding, *weights.earlier], axis=1)
        table = np.pad(tables, ((0, 0), (0, 0), (0, hidden - size)))
    else:
        table = weights.embedding @ weights.prediction.weight.T + weights.prediction.bias
    net["encoder"] = matrix(weights.encoder)
    net["table"] = on_device(_rounded(np.ascontiguousarray(table, np.float32), precision))
    layout, durations = row_layout(spec.layout)
    net["layout"] = layout[0]
    kept.append(durations)
    net["activation"] = ACTIVATIONS.index(weights.activation)
    packed = DeviceNetwork(
        struct, tuple(kept), precision, hidden, joint, spec.vocab_size + 1, outputs=len(weights.layers),
        cells=weights.cells, context=bool(weights.earlier), nbytes=sum(array.nbytes for array in kept),
    )  # fmt: skip
    for name in ("layers", "hidden", "joint", "cells"):
        net[name] = getattr(packed, name)
    return packed


def packed_tiles(weight: np.ndarray, precision: str) -> np.ndarray:
    """Weights [outputs, inputs] as tiles [outputs / 16, ...]. The numbers that a lane reads lie side by side."""
    outputs, inputs = weight.shape
    tiles, steps = -(-outputs // TILE), -(-inputs // DEPTH)
    wide = np.zeros((tiles * TILE, steps * DEPTH), np.float32)
    wide[:outputs, :inputs] = weight
    if precision == "float32":
        # [tile, half, g, step, quarter, 4] -> [tile, step, half, lane = (g, quarter), 4]
        lanes = wide.reshape(tiles, 2, 8, steps, 4, 4).transpose(0, 3, 1, 2, 4, 5)
        return np.ascontiguousarray(lanes)
    # [tile, half, g, step, k half, quarter, 2] -> [tile, step, lane = (g, quarter), word = (k half, half), 2]
    lanes = wide.reshape(tiles, 2, 8, steps, 2, 4, 2).transpose(0, 3, 2, 5, 4, 1, 6)
    return _rounded(np.ascontiguousarray(lanes), precision)


def _rounded(numbers: np.ndarray, precision: str) -> np.ndarray:
    """float32 numbers as the kernels keep them: float32, or the bits of 16-bit numbers."""
    if precision == "float32":
        return numbers
    if precision == "bfloat16":
        return bfloat16_bits(numbers)
    largest = float(np.finfo(np.float16).max)
    return numbers.clip(-largest, largest).astype(np.float16).view(np.uint16)


def _by_unit(affine: Affine, size: int, hidden: int, inputs: int) -> Affine:
    """Gates [4H, inputs], reordered so that the four gates of a unit are neighbours, and padded with zeros."""
    weight = np.zeros((hidden, 4, inputs), np.float32)
    weight[:size, :, : affine.weight.shape[1]] = affine.weight.reshape(4, size, -1).transpose(1, 0, 2)
    bias = np.zeros((hidden, 4), np.float32)
    bias[:size] = affine.bias.reshape(4, size).T
    return Affine(weight.reshape(4 * hidden, inputs), bias.reshape(-1))


def _gate_table(embedding: np.ndarray, layer: LstmLayer, size: int, hidden: int) -> np.ndarray:
    """float32 [V + 1, 4H]: for each token, the first layer's gates with bias but without the recurrent product."""
    gates = _by_unit(Affine(layer.input, layer.bias), size, hidden, layer.input.shape[1])
    table: np.ndarray = embedding @ gates.weight.T + gates.bias
    return table
