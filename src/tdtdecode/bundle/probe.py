"""Running a graph on a small batch, to learn exact shapes and to check that utterances do not affect each other."""

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
"""Time limit of a probe. Running a predictor or joint on a few utterances normally takes milliseconds."""

_TOLERANCE = {"float16": 2e-2, "bfloat16": 1e-1}
"""Largest accepted difference between an utterance computed in a batch and alone, relative to the largest value.

In float32 it is 1e-3. The two differ by rounding; a graph that mixes up utterances differs by more.
"""


def make_batch_dynamic(graph: Graph, axes: Mapping[str, int]) -> None:
    """Make the batch axis of the named inputs dynamic, in place, and remove the shapes that depended on it.

    Parameters
    ----------
    axes:
        The index of the batch axis, by the input's name.
    """
    for value in graph.model.graph.input:
        if value.name in axes:
            value.type.tensor_type.shape.dim[axes[value.name]].dim_param = BATCH_AXIS
    for value in graph.model.graph.output:
        value.type.tensor_type.ClearField("shape")
    del graph.model.graph.value_info[:]


def probe_batch(graph: Graph) -> int:
    """A batch size that no other dimension of the graph has, so that shapes show where the batch axis is."""
    taken = {dim for port in (*graph.inputs, *graph.outputs) for dim in port.shape if isinstance(dim, int)}
    for tensor in graph.model.graph.initializer:
        taken.update(tensor.dims)
    return next(size for size in range(3, len(taken) + 4) if size not in taken)


def run_probe(graph: Graph, feeds: Mapping[str, np.ndarray], batch_axes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Run the graph on a batch, and check its last utterance against a run of that utterance alone.

    Parameters
    ----------
    feeds:
        Input arrays by name.
    batch_axes:
        The index of each input's batch axis.

    Returns
    -------
    The outputs by name.

    Raises
    ------
    BundleError
        If ONNX Runtime cannot load or run the graph, the time limit is exceeded, or utterances affect each other. The
        last check is skipped for dynamically quantised graphs, in which all utterances share one activation scale.
    """
    names = [port.name for port in graph.outputs]
    try:
        session = graph.plain_session()
        with _time_limit() as options:
            values = session.run(names, dict(feeds), options)
            last = {name: _last_utterance(feed, batch_axes[name]) for name, feed in feeds.items()}
            alone = session.run(names, last, options)
    except BundleError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        raise BundleError(f"ONNX Runtime cannot run it for a batch: {first_line(error)}", file=graph.file) from None
    if not graph.quantized:
        for port, value, expected in zip(graph.outputs, values, alone, strict=True):
            if port.is_float:
                _check_last_utterance(graph, port, value, expected)
    return dict(zip(names, values, strict=True))


def run_limited(graph: Graph, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Run a graph once, on the CPU, for a limited time.

    Returns
    -------
    The outputs in order.

    Raises
    ------
    BundleError
        If ONNX Runtime cannot load or run it, or the time limit is exceeded.
    """
    try:
        with _time_limit() as options:
            return graph.plain_session().run(None, dict(feeds), options)
    except BundleError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        raise BundleError(f"ONNX Runtime cannot run it: {first_line(error)}", file=graph.file) from None


@contextmanager
def _time_limit() -> Iterator[ort.RunOptions]:
    """Run options that end a run after `_SECONDS`: a graph may contain an endless loop."""
    options = import_onnxruntime().RunOptions()
    timer = threading.Timer(_SECONDS, setattr, (options, "terminate", True))
    timer.start()
    try:
        yield options
    finally:
        timer.cancel()


def batch_shape(graph: Graph, port: Port, value: np.ndarray, batch: int) -> Shape:
    """The shape of an output of the probe, with None for the batch axis.

    Raises
    ------
    BundleError
        If the shape has not exactly one batch axis.
    """
    if list(value.shape).count(batch) != 1:
        raise BundleError(
            f"expected one batch axis, got the shape {list(value.shape)} for a batch of {batch}",
            file=graph.file,
            field=port.name,
        )
    return tuple(None if dim == batch else dim for dim in value.shape)


def random_values(shape: Sequence[int | None], batch: int, dtype: np.dtype, seed: int) -> np.ndarray:
    """Normally distributed values of a shape in which None stands for the batch."""
    values = np.random.default_rng(seed).standard_normal([batch if dim is None else dim for dim in shape])
    return values.astype(dtype)


def _last_utterance(values: np.ndarray, axis: int) -> np.ndarray:
    return np.ascontiguousarray(np.take(values, [-1], axis=axis))


def _check_last_utterance(graph: Graph, port: Port, value: np.ndarray, alone: np.ndarray) -> None:
    axes = [axis for axis in range(value.ndim) if value.shape[axis] != alone.shape[axis]]
    last = _last_utterance(value, axes[0]) if len(axes) == 1 else None
    if last is None or last.shape != alone.shape:
        raise BundleError(
            f"the shape is {list(value.shape)} for a batch and {list(alone.shape)} for one utterance; expected them "
            "to differ in the batch axis only",
            file=graph.file,
            field=port.name,
        )
    expected = alone.astype(np.float64)
    scale = max(1.0, float(np.max(np.abs(expected[np.isfinite(expected)]), initial=0.0)))
    if not np.allclose(last, expected, rtol=0, atol=scale * _TOLERANCE.get(port.dtype.name, 1e-3), equal_nan=True):
        raise BundleError(
            "utterances of a batch affect each other: this export only works for a batch of one; export it with a "
            "dynamic batch axis",
            file=graph.file,
            field=port.name,
        )
