"""Recognising products, sums and log-softmaxes in an exported joint, in all the forms in which exporters write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...weights import Affine
from ..onnx_files.graph import Port
from .expressions import MAX_CONSTANT_BYTES, CannotLift, Expressions, attributes

if TYPE_CHECKING:
    import onnx


@dataclass
class _Term:
    """A term of a sum: ``weight source + bias``. Without a weight (None) it is ``source + bias``."""

    source: str
    weight: np.ndarray | None
    bias: np.ndarray | float


def logits(graph: Expressions, name: str, rank: int) -> tuple[str, int | None]:
    """Find the logits before a log-softmax at the end of a joint.

    A log-softmax adds a constant to a whole joint row, or one to its token part and one to its duration part. That
    changes neither decisions nor log-probabilities.

    Parameters
    ----------
    name:
        The joint's output.
    rank:
        Its number of axes.

    Returns
    -------
    The name of the tensor of logits, which is `name` if there is no log-softmax. Then the index where the durations
    begin, if the token part and the duration part are normalised separately, else None.
    """
    _, node, _ = graph.source(name)
    if node is not None and node.op_type == "Concat":
        return _logits_of_parts(graph, node)
    return without_log_softmax(graph, name, rank), None


def without_log_softmax(graph: Expressions, name: str, rank: int) -> str:
    """The name of the tensor before a log-softmax of whole joint rows; `name` itself if there is none.

    Raises
    ------
    CannotLift
        If there is a log-softmax over something else than joint rows.
    """
    _, node, _ = graph.source(name)
    if node is not None and node.op_type == "Log":
        _, node, _ = graph.source(node.input[0])
        if node is None or node.op_type != "Softmax":
            raise CannotLift("expected a Softmax before the Log at the end of the joint")
    elif node is None or node.op_type != "LogSoftmax":
        return name
    versions = [entry.version for entry in graph.graph.model.opset_import if entry.domain in ("", "ai.onnx")]
    if max(versions, default=1) >= 13:
        axis, rows = attributes(node).get("axis", -1), (-1, rank - 1)
    else:  # the given axis and all after it are normalised together; all but the last have size 1
        axis, rows = attributes(node).get("axis", 1), (-1, *range(1, rank))
    if axis not in rows:
        raise CannotLift(f"{describe(node, name)} normalises axis {axis}; expected the last, the joint row")
    return node.input[0]


def _logits_of_parts(graph: Expressions, concat: onnx.NodeProto) -> tuple[str, int | None]:
    """Match a joint row that is split into tokens and durations, normalised in parts, and put together again.

    Either part may be normalised, or both. Returns the same as `logits`.
    """
    where = f"{describe(concat, concat.output[0])} at the end of the joint"
    parts = []
    for value in concat.input:
        _, node, _ = graph.source(value)
        normalised = node is not None and node.op_type == "LogSoftmax"
        parts.append(graph.source(node.input[0] if node is not None and normalised else value))
    sources = {graph.behind_views(node.input[0]) for _, node, _ in parts if node is not None and node.input}
    if len(parts) != 2 or len(sources) != 1 or any(node is None for _, node, _ in parts):
        raise CannotLift(f"{where}: expected tokens and durations that are slices of one row")
    (_, first, first_output), (_, second, second_output) = parts
    assert first is not None and second is not None
    if first.op_type == second.op_type == "Slice":
        (begin, end), (second_begin, _) = _extent(graph, first), _extent(graph, second)
        if (begin, end) == (0, second_begin):
            return sources.pop(), end
    elif first.op_type == "Split" and first is second and (first_output, second_output) == (0, 1):
        sizes = graph.constant(first.input[1]) if len(first.input) > 1 else attributes(first).get("split")
        if sizes is not None and len(sizes) == 2:
            return sources.pop(), int(sizes[0])
    raise CannotLift(f"{where}: expected the row's tokens first and then the rest of it, its durations")


def _extent(graph: Expressions, node: onnx.NodeProto) -> tuple[int | None, int | None]:
    """Start and end of a Slice along one axis; None if they are not constants, or if it slices several axes."""
    options = attributes(node)
    ends = []
    for i, name in ((1, "starts"), (2, "ends")):
        value = graph.constant(node.input[i]) if len(node.input) > i else np.asarray(options.get(name, ()))
        ends.append(int(value.reshape(())) if value is not None and value.size == 1 else None)
    return ends[0], ends[1]


def projections(
    joint: Expressions, name: str, encoder: Port, prediction: Port, size: int
) -> tuple[Affine, Affine | None]:
    """The projections of an encoder frame and of the predictor's output, whose sum a joint computes.

    Parameters
    ----------
    name:
        The sum, before the joint's activation.
    encoder, prediction:
        The joint's inputs.
    size:
        Width of the sum.

    Returns
    -------
    The encoder's projection and the predictor's. The second is None if the joint adds the predictor's output as it is.
    The first then has the bias of both.

    Raises
    ------
    CannotLift
        If the tensor `name` is anything but such a sum.
    """
    terms = _terms(joint, name)
    by_source = {term.source: term for term in terms}
    if len(by_source) < len(terms):
        raise CannotLift(f"the joint adds {terms[0].source} twice")
    if set(by_source) != {encoder.name, prediction.name}:
        raise CannotLift(
            f"expected the sum of a projected frame and a projected predictor output before the joint's activation, "
            f"found the sum of {', '.join(sorted(by_source)) or 'constants'}"
        )
    frame, token = by_source[encoder.name], by_source[prediction.name]
    if token.weight is None:
        frame.bias, token.bias = frame.bias + token.bias, 0.0
    elif frame.weight is None:
        frame.bias, token.bias = 0.0, token.bias + frame.bias
    if frame.weight is None:
        frame.weight = identity(size).weight
    found = [Affine(term.weight, _bias(term, size)) for term in (frame, token) if term.weight is not None]
    for affine, what in zip(found, ("frame", "predictor output")):
        if len(affine.weight) != size:
            raise CannotLift(f"the joint projects a {what} to {len(affine.weight)} values, expected {size}")
    return found[0], found[1] if len(found) == 2 else None


def _terms(graph: Expressions, name: str) -> list[_Term]:
    """The terms of a sum. Constants become part of the first term's bias."""
    name, node, _ = graph.source(name)
    if node is not None and node.op_type == "Add":
        constants = [graph.constant(value) for value in node.input]
        terms: list[_Term] = []
        for value, constant in zip(node.input, constants):
            terms += [] if constant is not None else _terms(graph, value)
            # Checked at every level: if each level adds a tensor to itself, the number of terms doubles each time.
            if len(terms) > 2:
                sources = ", ".join(sorted({term.source for term in terms}))
                raise CannotLift(
                    "expected a projected frame and a projected predictor output, found more terms in the joint: "
                    f"{sources}"
                )
        for constant in constants:
            if constant is not None and terms:
                terms[0].bias = terms[0].bias + _flat(constant)
        return terms
    found = product(graph, node)
    if found is not None:
        return [found]
    if node is not None:
        raise CannotLift(f"expected products and sums before the joint's activation, found {describe(node, name)}")
    return [_Term(name, None, 0.0)]


def affine(graph: Expressions, name: str, what: str) -> tuple[str, Affine]:
    """Match ``weight x + bias`` with constant weight and bias.

    Parameters
    ----------
    name:
        The tensor to match.
    what:
        What it is, for messages.

    Returns
    -------
    The name of x, behind views, and the weight and bias.

    Raises
    ------
    CannotLift
        If the tensor is computed in another way.
    """
    name, node, _ = graph.source(name)
    bias: np.ndarray | float = 0.0
    while node is not None and node.op_type == "Add":
        constants = [graph.constant(value) for value in node.input]
        if sum(constant is not None for constant in constants) != 1:
            raise CannotLift(f"expected {what} to be one product and a bias, found {describe(node, name)}")
        added = next(constant for constant in constants if constant is not None)
        bias = bias + _flat(added)
        name, node, _ = graph.source(next(v for v, constant in zip(node.input, constants) if constant is None))
    found = product(graph, node)
    if found is None or found.weight is None:
        raise CannotLift(f"expected {what} to be a product with weights, found {describe(node, name)}")
    found.bias = found.bias + bias
    return found.source, Affine(found.weight, _bias(found, len(found.weight)))


def product(graph: Expressions, node: onnx.NodeProto | None) -> _Term | None:
    """Match a MatMul or Gemm of one tensor and a constant weight; None for other nodes.

    The weight returned is float32 [outputs, inputs], whichever of the two factors it is.
    """
    if node is None or node.op_type not in ("MatMul", "Gemm"):
        return None
    left, right = (graph.constant(value) for value in node.input[:2])
    if (left is None) == (right is None):
        return None
    stored = right if left is None else left
    assert stored is not None
    if stored.ndim < 2 or stored.size != stored.shape[-2] * stored.shape[-1]:
        return None
    weight = stored.reshape(stored.shape[-2:])
    options = attributes(node) if node.op_type == "Gemm" else {}
    if left is None:
        weight = weight if options.get("transB", 0) else weight.T
    else:
        weight = weight.T if options.get("transA", 0) else weight
    bias: np.ndarray | float = 0.0
    if len(node.input) > 2 and node.input[2]:
        constant = graph.constant(node.input[2])
        if constant is None:
            return None
        bias = _flat(constant) * np.float32(options.get("beta", 1.0))
    weight = as_float32(weight)
    alpha = np.float32(options.get("alpha", 1.0))
    source = graph.behind_views(node.input[0 if left is None else 1])
    return _Term(source, weight if alpha == 1 else weight * alpha, bias)


def as_float32(values: np.ndarray) -> np.ndarray:
    """The values as a float32 array, C-contiguous and aligned; copied only if they are not that already."""
    # External weights may begin at any byte of their file, so they may be unaligned.
    return np.require(values, np.float32, ["C", "A"])


def identity(size: int) -> Affine:
    """A projection that leaves `size` values as they are."""
    if 4 * size * size > MAX_CONSTANT_BYTES:
        raise CannotLift(f"the joint adds an input of {size} values without weights: that is too wide to lift")
    return Affine(np.eye(size, dtype=np.float32), np.zeros(size, np.float32))


def describe(node: onnx.NodeProto | None, name: str) -> str:
    """A tensor's operator and name, for messages."""
    return name if node is None else f"{node.op_type} ({node.name or name})"


def _bias(term: _Term, outputs: int) -> np.ndarray:
    values = np.asarray(term.bias, np.float32).reshape(-1)
    if values.size not in (1, outputs):
        raise CannotLift(f"the bias added to {term.source} has {values.size} values, expected {outputs}")
    return as_float32(np.broadcast_to(values, outputs))


def _flat(constant: np.ndarray) -> np.ndarray:
    return constant.astype(np.float32).reshape(-1)
