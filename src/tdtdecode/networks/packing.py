"""Lays out weights for the compiled network. ``csrc/cpu/matrix.h`` and ``network.h`` define the layout."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from ..transducer import RowLayout, TransducerSpec
from ..weights import ACTIVATIONS, Affine, LstmLayer, TransducerWeights

PANEL = 64
UNITS = PANEL // 4
LANES = 16
GROUPS = 16
ALIGNMENT = 64
MAX_INPUTS = 65_000
"""The most inputs of an 8-bit product: the sum of products of up to 255 * 127 must fit in 32 bits."""

_LARGEST_NORM = 1e22
"""Norms up to which a matrix is screened, so that no bound on an error overflows (``csrc/cpu/screening.h``)."""


class Format(IntEnum):
    """How a matrix is stored and multiplied. The first three give the same bits for the same weights."""

    FLOAT32 = 0
    FLOAT16 = 1
    BFLOAT16 = 2
    BFLOAT16_PAIRS = 3
    INT8 = 4


class TableKind(IntEnum):
    """What the table of a `PackedNetwork` holds for each token."""

    GATES = 0
    INPUT = 1
    PREDICTION = 2
    CONTEXT = 3


@dataclass(frozen=True, eq=False)
class PackedMatrix:
    """A packed matrix and its bias, for products ``y = weight x + bias``.

    Attributes
    ----------
    outputs, inputs:
        The number of outputs, padded to whole panels; the number of inputs, not padded.
    panels:
        [outputs / PANEL, groups, PANEL, inputs in a group]: float32; float16 or bfloat16 bits as uint16; or int8.
        Padding is 0.
    bias:
        float32 [outputs].
    scales, sums:
        For int8 only: float32 [outputs]; and int32 [outputs], the sum of each output's weights.
    """

    format: Format
    outputs: int
    inputs: int
    panels: np.ndarray
    bias: np.ndarray
    scales: np.ndarray | None = None
    sums: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        """The bytes that a product reads."""
        return self.panels.nbytes


@dataclass(frozen=True, eq=False)
class Screen:
    """An int8 copy of a matrix, and numbers that bound its errors (``csrc/cpu/screening.h`` has the proof).

    Attributes
    ----------
    norms, errors:
        float32 [outputs]: ``weight_norms`` and ``weight_errors`` of the proof.
    slots:
        The most utterances in flight for which it is used.
    """

    matrix: PackedMatrix
    norms: np.ndarray
    errors: np.ndarray
    slots: int


@dataclass(frozen=True, eq=False)
class PackedNetwork:
    """A transducer ready for the compiled search.

    Attributes
    ----------
    table:
        float32 [V + 1, width]. For each token, either the first layer's gates from its input and all biases, or the
        first layer's input, or, for a predictor without layers, its share of the joint's hidden vector, or, if that
        looks at C tokens, what the token adds to its output as the last token, as the second last, and so on.
    layers:
        The matrix of each LSTM layer: gates from [what comes from below | the layer's own last output].
    prediction:
        From the predictor's output to the joint's hidden vector; None for a predictor without layers that looks at one
        token.
    encoder, output:
        From an encoder frame to the joint's hidden vector; from that to the joint row.
    hidden:
        H, padded to whole blocks of units.
    cells:
        The vectors of width H that the next step needs beside the layers' outputs.
    """

    layout: RowLayout
    activation: int
    predictor_size: int
    joint_size: int
    hidden: int
    cells: int
    table_kind: TableKind
    table: np.ndarray
    layers: tuple[PackedMatrix, ...]
    prediction: PackedMatrix | None
    encoder: PackedMatrix
    output: PackedMatrix
    screen: Screen | None

    @property
    def token_bytes(self) -> int:
        """The bytes of weights that must be read for every emitted token: layers, prediction and the joint's output."""
        matrices = [*self.layers, self.prediction, self.output if self.screen is None else self.screen.matrix]
        return sum(matrix.nbytes for matrix in matrices if matrix is not None)

    @property
    def streamed_bytes(self) -> int:
        """The bytes of weights that are read again and again; includes the encoder's projection."""
        return self.token_bytes + self.encoder.nbytes

    @property
    def decode_bytes(self) -> int:
        """The bytes of weights that must be read once for a decode: the encoder's projection, and if the output is
        screened, the full output."""
        return self.encoder.nbytes + (0 if self.screen is None else self.output.nbytes)


@dataclass(frozen=True)
class Arithmetic:
    """How to pack. Only `precision` changes results.

    Attributes
    ----------
    precision:
        ``"float32"``, ``"bfloat16"`` or ``"int8"``.
    halves:
        Whether to store float32 weights in 16 bits if they all fit exactly.
    screen:
        Whether to screen the joint's output in int8; for float32 only.
    screened_slots:
        The most utterances in flight for which the output is screened.
    table_bytes:
        The largest table of gates by token. If it would be larger, the table has the first layer's inputs, and that
        layer computes its gates from them.
    """

    precision: str = "float32"
    halves: bool = True
    screen: bool = False
    screened_slots: int = 1 << 30
    table_bytes: int = 1 << 29


def pack_network(weights: TransducerWeights, spec: TransducerSpec, arithmetic: Arithmetic) -> PackedNetwork:
    """Pack a transducer's weights."""
    size = weights.prediction.weight.shape[1]
    hidden = _padded(size, UNITS) if weights.cells else size
    joint_size = len(weights.encoder.weight)
    prediction = None
    layers: list[PackedMatrix] = []
    if weights.earlier:
        kind, tables = TableKind.CONTEXT, (weights.embedding, *weights.earlier)
        table = np.concatenate([_widened(one, 1, hidden) for one in tables], axis=1)
        prediction = _pack(weights.prediction, arithmetic)
    elif not weights.layers:
        kind, table = TableKind.PREDICTION, _affine(weights.embedding, weights.prediction)
        table = _widened(table, 1, _padded(joint_size, PANEL))
    else:
        first, *upper = weights.layers
        folds = weights.embedding.shape[0] * 4 * hidden * 4 <= arithmetic.table_bytes
        if folds:
            kind = TableKind.GATES
            index, real = _interleaved(size, hidden), _is_gate(size, hidden)
            table = _affine(weights.embedding, Affine(first.input[index] * real[:, None], first.bias[index] * real))
            layers.append(_pack(_gates(first, size, hidden, 0, biased=False), arithmetic))
        else:
            kind = TableKind.INPUT
            table = _widened(weights.embedding, 1, _padded(weights.embedding.shape[1], LANES))
            layers.append(_pack(_gates(first, size, hidden, table.shape[1]), arithmetic))
        layers += [_pack(_gates(layer, size, hidden, hidden), arithmetic) for layer in upper]
        prediction = _pack(weights.prediction, arithmetic)
    return PackedNetwork(
        layout=spec.layout,
        activation=ACTIVATIONS.index(weights.activation),
        predictor_size=size,
        joint_size=joint_size,
        hidden=hidden,
        cells=weights.cells,
        table_kind=kind,
        table=aligned(table),
        layers=tuple(layers),
        prediction=prediction,
        encoder=_pack(weights.encoder, arithmetic),
        output=_pack(weights.output, arithmetic),
        screen=pack_screen(weights.output, arithmetic.screened_slots) if arithmetic.screen else None,
    )


def pack(affine: Affine, format: Format) -> PackedMatrix:
    """Pack a matrix of weights float32 [outputs, inputs].

    INT8 and BFLOAT16_PAIRS round them. For other formats the weights must be exact in that format.
    """
    outputs, inputs = affine.weight.shape
    padded = _padded(outputs, PANEL)
    scales = sums = None
    group = 1
    if format == Format.INT8:
        group = 4
        values, scale = quantized(affine.weight)
        scales = aligned(_widened(scale, 0, padded))
        sums = aligned(_widened(values.sum(axis=1, dtype=np.int32), 0, padded))
    elif format == Format.FLOAT32:
        values = affine.weight
    elif format == Format.FLOAT16:
        values = affine.weight.astype(np.float16).view(np.uint16)
    else:
        group = 2 if format == Format.BFLOAT16_PAIRS else 1
        values = bfloat16_bits(affine.weight)
    values = _widened(_widened(values, 0, padded), 1, _padded(inputs, group * (GROUPS if group > 1 else 1)))
    panels = values.reshape(padded // PANEL, PANEL, -1, group).transpose(0, 2, 1, 3)
    bias = aligned(_widened(affine.bias, 0, padded))
    return PackedMatrix(format, padded, inputs, aligned(panels), bias, scales, sums)


def quantized(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values int8 [outputs, inputs] from -127 to 127, and scales float32 [outputs]: ``weight ~ values * scale``."""
    scale = (np.abs(weight).max(axis=1) / 127).astype(np.float32)
    scale[scale < 1e-30] = 0  # an output so small counts as zero
    steps = np.divide(weight, scale[:, None], out=np.zeros_like(weight), where=scale[:, None] > 0)
    return np.rint(steps).clip(-127, 127).astype(np.int8), scale


def pack_screen(output: Affine, slots: int = 1 << 30) -> Screen | None:
    """An int8 copy of the joint's output matrix, with the norms that bound its errors; None if a bound might overflow.
    """
    values, scale = quantized(output.weight)
    rounding = (2 * output.weight.shape[1] + 64) * 2.0**-24 * (1 + 1e-3)
    weight = output.weight.astype(np.float64)
    stored = values * scale[:, None].astype(np.float64)
    size = np.hypot(np.linalg.norm(weight, axis=1), output.bias)
    errors = np.linalg.norm(weight - stored, axis=1) + rounding * size
    norms = np.linalg.norm(stored, axis=1)
    if max(norms.max(), errors.max()) > _LARGEST_NORM:
        return None
    matrix = pack(output, Format.INT8)
    up = 1 + 1e-6  # more than rounding to float32 takes away
    return Screen(
        matrix,
        aligned(_widened((norms * up).astype(np.float32), 0, matrix.outputs)),
        aligned(_widened((errors * up).astype(np.float32), 0, matrix.outputs)),
        slots,
    )


def bfloat16_bits(values: np.ndarray) -> np.ndarray:
    """float32 rounded to bfloat16, ties to even, as uint16 bits."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def aligned(array: np.ndarray) -> np.ndarray:
    """A C-contiguous copy whose memory begins at a multiple of `ALIGNMENT` bytes."""
    memory = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _pack(affine: Affine, arithmetic: Arithmetic) -> PackedMatrix:
    if arithmetic.precision == "int8":
        return pack(affine, Format.INT8)
    if arithmetic.precision == "bfloat16":
        return pack(affine, Format.BFLOAT16_PAIRS)
    return pack(affine, _exact_format(affine.weight) if arithmetic.halves else Format.FLOAT32)


def _exact_format(weight: np.ndarray) -> Format:
    """The smallest format that holds every weight exactly."""
    if not (weight.view(np.uint32) & 0xFFFF).any():
        return Format.BFLOAT16
    with np.errstate(over="ignore"):
        if np.array_equal(weight.astype(np.float16).astype(np.float32), weight):
            return Format.FLOAT16
    return Format.FLOAT32


def _gates(layer: LstmLayer, size: int, hidden: int, below: int, biased: bool = True) -> Affine:
    """The matrix of a layer's gates from [`below` numbers | its own last output], interleaved in blocks of units."""
    weight = np.zeros((4 * size, below + hidden), np.float32)
    if below:
        weight[:, : layer.input.shape[1]] = layer.input
    weight[:, below : below + size] = layer.recurrent
    index, real = _interleaved(size, hidden), _is_gate(size, hidden)
    bias = layer.bias if biased else np.zeros_like(layer.bias)
    return Affine(weight[index] * real[:, None], bias[index] * real)


def _interleaved(size: int, hidden: int) -> np.ndarray:
    """For each place of the interleaved gates, the index of its gate among the model's 4 * ``size`` gates."""
    unit = np.minimum(np.arange(hidden).reshape(-1, 1, UNITS), size - 1)
    return (unit + size * np.arange(4).reshape(1, 4, 1)).reshape(-1)


def _is_gate(size: int, hidden: int) -> np.ndarray:
    """For each place of the interleaved gates, float32: 1 for a gate, 0 for padding."""
    unit = np.broadcast_to(np.arange(hidden).reshape(-1, 1, UNITS), (hidden // UNITS, 4, UNITS))
    return (unit.reshape(-1) < size).astype(np.float32)


def _affine(x: np.ndarray, affine: Affine) -> np.ndarray:
    y: np.ndarray = x @ affine.weight.T
    y += affine.bias
    return y


def _padded(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _widened(array: np.ndarray, axis: int, size: int) -> np.ndarray:
    """The array with zeros added at the end of an axis, up to ``size``."""
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, size - array.shape[axis])
    return np.pad(array, widths)
