"""Running a graph once at a small batch: exact shapes, and proof that its rows do not depend on each other."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ..errors import BundleError
from .onnx_files.dependencies import import_onnxruntime
from .onnx_files.graph import Graph, Port, first_line
from .transducers import Shape

if TYPE_CHECKING:
    import onnxruntime as ort

BATCH_AXIS = "batch"

_SECONDS = 60.0
"""For a few rows of a predictor or a joint, which take milliseconds."""

# Computed in other widths and orders, the rows of a batch differ by rounding; a graph that mixes rows up differs more.
_TOLERANCE = {"float16": 2e-2, "bfloat16": 1e-1}


def free_batch_axes(graph: Graph, axes: Mapping[str, int]) -> None:
    """Make the batch axis of the named inputs dynamic, in place, and forget what shapes followed from it."""
    for value in graph.model.graph.input:
        if value.name in axes:
            value.type.tensor_type.shape.dim[axes[value.name]].dim_param = BATCH_AXIS
    for value in graph.model.graph.output:
        value.type.tensor_type.ClearField("shape")
    del graph.model.graph.value_info[:]


def probe_batch(graph: Graph) -> int:
    """A batch size that equals no dimension of the graph, so that it can be recognised in shapes."""
    taken = {dim for port in (*graph.inputs, *graph.outputs) for dim in port.shape if isinstance(dim, int)}
    for tensor in graph.model.graph.initializer:
        taken.update(tensor.dims)
    return next(size for size in range(3, len(taken) + 4) if size not in taken)


def run_probe(graph: Graph, feeds: Mapping[str, np.ndarray], batch_axes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Outputs of the graph by name, for feeds of a batch.

    Raises
    ------
    BundleError
        If ONNX Runtime cannot load or run the graph, or rows of the batch change each other.
    """
    names = [port.name for port in graph.outputs]
    try:
        session = graph.plain_session()
        with _time_limit() as options:
            values = session.run(names, dict(feeds), options)
            one = {name: _last_row(feed, batch_axes[name]) for name, feed in feeds.items()}
            single = session.run(names, one, options)
    except BundleError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        raise BundleError(f"ONNX Runtime cannot run it for a batch: {first_line(error)}", file=graph.file) from None
    if not graph.quantized:
        for port, value, row in zip(graph.outputs, values, single, strict=True):
            if port.is_float:
                _check_row(graph, port, value, row)
    return dict(zip(names, values, strict=True))


@contextmanager
def _time_limit() -> Iterator[ort.RunOptions]:
    """Options of runs that are ended when they take too long: a graph may have loops."""
    options = import_onnxruntime().RunOptions()
    timer = threading.Timer(_SECONDS, setattr, (options, "terminate", True))
    timer.start()
    try:
        yield options
    finally:
        timer.cancel()


def batch_shape(graph: Graph, port: Port, value: np.ndarray, batch: int) -> Shape:
    """The shape of a probed value, with None for its one batch axis."""
    if list(value.shape).count(batch) != 1:
        raise BundleError(
            f"expected one batch axis, got the shape {list(value.shape)} for a batch of {batch}",
            file=graph.file,
            field=port.name,
        )
    return tuple(None if dim == batch else dim for dim in value.shape)


def filled(shape: Sequence[int | None], batch: int, dtype: np.dtype, seed: int) -> np.ndarray:
    """Random numbers of a shape whose None is the batch."""
    values = np.random.default_rng(seed).standard_normal([batch if dim is None else dim for dim in shape])
    return values.astype(dtype)


def _last_row(feed: np.ndarray, axis: int) -> np.ndarray:
    return np.ascontiguousarray(np.take(feed, [-1], axis=axis))


def _check_row(graph: Graph, port: Port, value: np.ndarray, row: np.ndarray) -> None:
    axes = [axis for axis in range(value.ndim) if value.shape[axis] != row.shape[axis]]
    last = _last_row(value, axes[0]) if len(axes) == 1 else None
    if last is None or last.shape != row.shape:
        raise BundleError(
            f"shape {list(value.shape)} for a batch does not follow from {list(row.shape)} for one row",
            file=graph.file,
            field=port.name,
        )
    expected = row.astype(np.float64)
    scale = max(1.0, float(np.max(np.abs(expected[np.isfinite(expected)]), initial=0.0)))
    if not np.allclose(last, expected, rtol=0, atol=scale * _TOLERANCE.get(port.dtype.name, 1e-3), equal_nan=True):
        raise BundleError(
            "rows of a batch change each other: this export works for a batch of one only; export it with a dynamic "
            "batch axis",
            file=graph.file,
            field=port.name,
        )

