"""Predictors of k2 (icefall), which have no states: they take the last few tokens at each step.

Such a graph is rewritten in memory to one with a state, as all other predictors have. The state is the tokens before
the last, so everything that runs predictors runs these, too. Source of the form: the ``export-onnx.py`` of icefall's
recipes. Its context begins with -1 for each token before the blank, for which the graph adds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import BundleError
from .layouts import stated_count
from .onnx_files.dependencies import import_onnx
from .onnx_files.graph import Graph, Port

CONTEXT_SIZE = "context_size"
"""The entry of a predictor's metadata that says how many tokens it takes, in exports of icefall."""

_TARGETS, _STATE, _NEXT = "context/targets", "context/state", "context/state_next"
_MOST = 64
"""The most tokens that a predictor may take."""


@dataclass(frozen=True, eq=False)
class Predictor:
    """A predictor's graph, or a combined graph, in the form that has one new token and states as its inputs.

    Attributes
    ----------
    context:
        How many tokens the graph takes that was rewritten; None for graphs that are as they were in their file.
    """

    graph: Graph
    context: int | None = None


def with_state(graph: Graph) -> Predictor:
    """The graph of a predictor, rewritten if it takes several tokens in place of states.

    The state is float32 [1, B, C - 1], each token's number plus 1, so that zeros stand for the -1 of the beginning.

    Raises
    ------
    BundleError
        If its metadata states an impossible number of tokens, or another than its input has.
    """
    context = context_size(graph)
    if context is None:
        return Predictor(graph)
    return Predictor(_rewritten(graph, context) if context > 1 else graph, context)


def context_size(graph: Graph) -> int | None:
    """The number of tokens that a predictor of k2 takes at each step; None if the graph is none."""
    inputs = graph.inputs
    if len(inputs) != 1 or inputs[0].dtype.kind != "i" or inputs[0].rank != 2:
        return None
    metadata = {entry.key: entry.value for entry in graph.model.metadata_props}
    stated = stated_count(metadata, graph.file, CONTEXT_SIZE)
    size = inputs[0].shape[1]
    if isinstance(size, int) and stated is not None and stated.value != size:
        raise BundleError(
            f"{stated.value}, but {inputs[0].name} takes {size} tokens at a time", file=graph.file, field=CONTEXT_SIZE
        )
    found = size if isinstance(size, int) and size > 1 else None if stated is None else stated.value
    if found is not None and found > _MOST:
        raise BundleError(f"takes {found} tokens at a time; at most {_MOST} are accepted", file=graph.file,
                          field=inputs[0].name)  # fmt: skip
    return found


def _rewritten(graph: Graph, context: int) -> Graph:
    onnx = import_onnx()
    helper, types = onnx.helper, onnx.TensorProto
    tokens: Port = graph.inputs[0]
    kind = helper.np_dtype_to_tensor_dtype(tokens.dtype)
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)

    def constant(name: str, values: list[float], dtype: int) -> Any:
        tensor = helper.make_tensor(f"{name}/value", dtype, [len(values)], values)
        return helper.make_node("Constant", [], [name], value=tensor)

    earlier = [
        constant("context/rows", [-1, context - 1], types.INT64),
        constant("context/one", [1], types.FLOAT),
        helper.make_node("Reshape", [_STATE, "context/rows"], ["context/numbers"]),
        helper.make_node("Sub", ["context/numbers", "context/one"], ["context/signed"]),
        helper.make_node("Cast", ["context/signed"], ["context/earlier"], to=kind),
        helper.make_node("Concat", ["context/earlier", _TARGETS], [tokens.name], axis=1),
    ]
    later = [
        constant("context/kept", list(range(1, context)), types.INT64),
        constant("context/shape", [1, -1, context - 1], types.INT64),
        helper.make_node("Gather", [tokens.name, "context/kept"], ["context/last"], axis=1),
        helper.make_node("Cast", ["context/last"], ["context/floats"], to=types.FLOAT),
        helper.make_node("Add", ["context/floats", "context/one"], ["context/shifted"]),
        helper.make_node("Reshape", ["context/shifted", "context/shape"], [_NEXT]),
    ]
    nodes = [*earlier, *model.graph.node, *later]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    weights = [value for value in model.graph.input if value.name != tokens.name]
    del model.graph.input[:]
    model.graph.input.extend([
        helper.make_tensor_value_info(_TARGETS, kind, ["batch", 1]),
        helper.make_tensor_value_info(_STATE, types.FLOAT, [1, "batch", context - 1]),
        *weights,
    ])  # fmt: skip
    model.graph.output.append(helper.make_tensor_value_info(_NEXT, types.FLOAT, [1, "batch", context - 1]))
    return Graph(model, graph.file, graph.weights_folder)
