"""Exported graphs of small random bundles, rewritten by hand."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benches.random_bundle import make_bundle
from tdtdecode.bundle import Bundle, read_bundle

SIZES = {
    "vocab_size": 20, "durations": (0, 1, 2, 3, 4), "encoder_size": 14, "predictor_size": 12, "joint_size": 10,
    "predictor_layers": 2,
}  # fmt: skip


def edited(tmp_path, edit, layout="split", file="joiner.onnx", **options) -> Bundle:
    """A bundle after `edit(model)` of one of its graphs."""
    make_bundle(tmp_path, layout, **{**SIZES, **options})
    model = onnx.load(tmp_path / file)
    edit(model)
    onnx.save(model, tmp_path / file)
    return read_bundle(tmp_path, durations=(0, 1, 2, 3, 4))


def node(model, op_type, index=0):
    return [n for n in model.graph.node if n.op_type == op_type][index]


def renamed(n, old, new):
    n.input[:] = [new if name == old else name for name in n.input]


def before(model, n, *new):
    """Insert nodes before another."""
    at = list(model.graph.node).index(n)
    for i, added in enumerate(new):
        model.graph.node.insert(at + i, added)


def after(model, n, *new):
    """Insert nodes after another, whose first output they read as "inner"; the last takes its place."""
    old, n.output[0] = n.output[0], "inner"
    new[-1].output[0] = old
    at = list(model.graph.node).index(n) + 1
    for i, added in enumerate(new):
        model.graph.node.insert(at + i, added)


def store(model, **values):
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in values.items())


def log_softmax_by_parts(model):
    """Tokens and durations normalised apart, as the loss does it."""
    end = 1 << 40
    store(model, zero=[0], split_at=[21], row_end=[end], last=[-1])
    after(
        model, node(model, "Add", -1),
        helper.make_node("Slice", ["inner", "zero", "split_at", "last"], ["tokens"]),
        helper.make_node("Slice", ["inner", "split_at", "row_end", "last"], ["durations"]),
        helper.make_node("LogSoftmax", ["tokens"], ["token_logprobs"], axis=-1),
        helper.make_node("LogSoftmax", ["durations"], ["duration_logprobs"], axis=3),
        helper.make_node("Concat", ["token_logprobs", "duration_logprobs"], [""], axis=-1),
    )  # fmt: skip
