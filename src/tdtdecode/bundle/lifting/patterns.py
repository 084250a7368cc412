"""The forms that products, sums and log-softmaxes of a joint take in exported graphs."""

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
    """A share of a sum: ``weight source + bias``, without a weight where it is the source itself."""

    source: str
    weight: np.ndarray | None
    bias: np.ndarray | float


def logits(graph: Expressions, name: str, rank: int) -> tuple[str, int | None]:
    """The tensor of logits behind a log-softmax at the end of a joint, or `name` itself if there is none.

    A log-softmax shifts a whole row, or its tokens and its durations each by themselves: no decision and no
    log-probability sees that. Where the two are normalised apart, the second value is where the durations begin.

    Parameters
    ----------
    rank:
        Number of axes of the tensor `name`.
    """
    _, node, _ = graph.source(name)
    if node is not None and node.op_type == "Concat":
        return _logits_of_parts(graph, node)
    return without_log_softmax(graph, name, rank), None


def without_log_softmax(graph: Expressions, name: str, rank: int) -> str:
    """The tensor before a log-softmax of whole rows, or `name` itself."""
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
    else:  # all axes from the given one on are normalised together, and those before the last have one element
        axis, rows = attributes(node).get("axis", 1), (-1, *range(1, rank))
    if axis not in rows:
        raise CannotLift(f"{described(node, name)} normalises axis {axis}; expected the last, the row")
    return node.input[0]


def _logits_of_parts(graph: Expressions, concat: onnx.NodeProto) -> tuple[str, int | None]:
    """Match tokens and durations cut from one row, either of them normalised, and put together again."""
    where = f"{described(concat, concat.output[0])} at the end of the joint"
    parts = []
    for value in concat.input:
        _, node, _ = graph.source(value)
        normalised = node is not None and node.op_type == "LogSoftmax"
        parts.append(graph.source(node.input[0] if node is not None and normalised else value))
    sources = {graph.behind_views(node.input[0]) for _, node, _ in parts if node is not None and node.input}
    if len(parts) != 2 or len(sources) != 1 or any(node is None for _, node, _ in parts):
        raise CannotLift(f"{where}: expected tokens and durations cut from one row")
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
    """Start and end of a Slice along one axis; None where they are not constants or not the only ones."""
    options = attributes(node)
    ends = []
    for i, name in ((1, "starts"), (2, "ends")):
        value = graph.constant(node.input[i]) if len(node.input) > i else np.asarray(options.get(name, ()))
        ends.append(int(value.reshape(())) if value is not None and value.size == 1 else None)
    return ends[0], ends[1]


def shares(
    joint: Expressions, name: str, encoder: Port, prediction: Port, size: int
) -> tuple[Affine, Affine | None]:
    """What a joint makes of a frame and of the predictor's output, which it adds up to `size` numbers.

    The second is None where the predictor's output goes into the sum as it is; its bias is then with the first.

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
            f"expected the sum of a frame's and a token's share before the joint's activation, found the sum of "
            f"{', '.join(sorted(by_source)) or 'constants'}"
        )
    frame, token = by_source[encoder.name], by_source[prediction.name]
    if token.weight is None:
        frame.bias, token.bias = frame.bias + token.bias, 0.0
    elif frame.weight is None:
        frame.bias, token.bias = 0.0, token.bias + frame.bias
    if frame.weight is None:
        frame.weight = identity(size).weight
    found = [Affine(term.weight, _bias(term, size)) for term in (frame, token) if term.weight is not None]
    for affine, what in zip(found, ("frame", "token")):
        if len(affine.weight) != size:
            raise CannotLift(f"the joint makes {len(affine.weight)} numbers of a {what}, expected {size}")
    return found[0], found[1] if len(found) == 2 else None


def _terms(graph: Expressions, name: str) -> list[_Term]:
    """The terms of a sum; constants are added to one of them."""
    name, node, _ = graph.source(name)
    if node is not None and node.op_type == "Add":
        constants = [graph.constant(value) for value in node.input]
        terms: list[_Term] = []
        for value, constant in zip(node.input, constants):
            terms += [] if constant is not None else _terms(graph, value)
            # Stopped here, for sums of sums of the same tensor double their terms at every level.
            if len(terms) > 2:
                sources = ", ".join(sorted({term.source for term in terms}))
                raise CannotLift(f"expected a frame's and a token's share, found more terms in the joint: {sources}")
        for constant in constants:
            if constant is not None and terms:
                terms[0].bias = terms[0].bias + _flat(constant)
        return terms
    found = product(graph, node)
    if found is not None:
        return [found]
    if node is not None:
        raise CannotLift(f"expected products and sums before the joint's activation, found {described(node, name)}")
    return [_Term(name, None, 0.0)]


def affine(graph: Expressions, name: str, what: str) -> tuple[str, Affine]:
    """Match ``weight x + bias``; returns x behind views."""
    name, node, _ = graph.source(name)
    bias: np.ndarray | float = 0.0
    while node is not None and node.op_type == "Add":
        constants = [graph.constant(value) for value in node.input]
        if sum(constant is not None for constant in constants) != 1:
            raise CannotLift(f"expected {what} to be one product and a bias, found {described(node, name)}")
        added = next(constant for constant in constants if constant is not None)
        bias = bias + _flat(added)
        name, node, _ = graph.source(next(v for v, constant in zip(node.input, constants) if constant is None))
    found = product(graph, node)
    if found is None or found.weight is None:
        raise CannotLift(f"expected {what} to be a product with weights, found {described(node, name)}")
    found.bias = found.bias + bias
    return found.source, Affine(found.weight, _bias(found, len(found.weight)))


def product(graph: Expressions, node: onnx.NodeProto | None) -> _Term | None:
    """A MatMul or Gemm of one tensor with constant weights, [outputs, inputs]."""
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
    weight = floats(weight)
    alpha = np.float32(options.get("alpha", 1.0))
    source = graph.behind_views(node.input[0 if left is None else 1])
    return _Term(source, weight if alpha == 1 else weight * alpha, bias)


def floats(values: np.ndarray) -> np.ndarray:
    """The values in float32, C-contiguous and aligned; copied only where they are not."""
    # External weights may begin at any byte of their file.
    return np.require(values, np.float32, ["C", "A"])


def identity(size: int) -> Affine:
    """What leaves `size` numbers as they are."""
    if 4 * size * size > MAX_CONSTANT_BYTES:
        raise CannotLift(f"a joint {size} wide that takes its input without weights is too large")
    return Affine(np.eye(size, dtype=np.float32), np.zeros(size, np.float32))


def described(node: onnx.NodeProto | None, name: str) -> str:
    """A tensor's operator and name, for messages."""
    return name if node is None else f"{node.op_type} ({node.name or name})"


def _bias(term: _Term, outputs: int) -> np.ndarray:
    values = np.asarray(term.bias, np.float32).reshape(-1)
    if values.size not in (1, outputs):
        raise CannotLift(f"the bias beside {term.source} has {values.size} numbers, expected {outputs}")
    return floats(np.broadcast_to(values, outputs))


def _flat(constant: np.ndarray) -> np.ndarray:
    return constant.astype(np.float32).reshape(-1)
