"""Binding the ports of exported graphs by type, rank, position and shape: their names mean nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import BundleError
from .onnx_files.graph import Graph, Port
from .probe import batch_shape, filled, free_batch_axes, probe_batch, run_probe
from .transducers import CombinedTransducer, JointGraph, PredictorGraph, Shape, width

MAX_STEP_ELEMENTS = 1 << 22
"""Largest state or frame accepted, in elements per row: a thousand times any model's, and safe to allocate."""


@dataclass(frozen=True)
class TokenInputs:
    """The inputs of a graph that takes tokens."""

    targets: Port
    target_length: Port | None
    floats: tuple[Port, ...]

    @property
    def batch_axes(self) -> dict[str, int]:
        axes = {self.targets.name: 0}
        if self.target_length is not None:
            axes[self.target_length.name] = 0
        return axes

    def feeds(self, batch: int, blank: int) -> dict[str, np.ndarray]:
        # Blank starts every hypothesis, so the probe shows that the graph takes it.
        tokens = np.resize([blank, 1 - min(blank, 1)], (batch, 1))
        feeds = {self.targets.name: tokens.astype(self.targets.dtype)}
        if self.target_length is not None:
            feeds[self.target_length.name] = np.ones(batch, self.target_length.dtype)
        return feeds


def token_inputs(graph: Graph) -> TokenInputs:
    """Sort the inputs of a predictor or a combined graph into targets, their length and the rest.

    Raises
    ------
    BundleError
        If there are other inputs than these, or the tokens have a context longer than one.
    """
    inputs = graph.inputs
    targets = [port for port in inputs if port.dtype.kind == "i" and port.rank == 2]
    lengths = [port for port in inputs if port.dtype.kind == "i" and port.rank == 1]
    floats = tuple(port for port in inputs if port.is_float)
    listed = "; ".join(map(str, inputs))
    if not targets:
        raise BundleError(
            f"no input for tokens (integers [batch, tokens]) among its inputs: {listed}. It is no predictor: an "
            "encoder, a joint, or the CTC head of a hybrid model? Export the transducer head instead",
            file=graph.file,
        )
    if len(targets) > 1 or len(lengths) > 1 or len(targets) + len(lengths) + len(floats) != len(inputs):
        raise BundleError(
            f"expected inputs targets [batch, 1], target length [batch] and float states, got {listed}",
            file=graph.file,
        )
    tokens = targets[0].shape[1]
    if isinstance(tokens, int) and tokens != 1:
        raise BundleError(
            f"takes {tokens} tokens at once; only predictors that take one token a step are supported",
            file=graph.file,
            field=targets[0].name,
        )
    return TokenInputs(targets[0], lengths[0] if lengths else None, floats)


def bind_predictor(graph: Graph, blank: int) -> PredictorGraph:
    """Bind a predictor's ports, after making its batch axes dynamic in place."""
    inputs = token_inputs(graph)
    states = inputs.floats
    shapes = tuple(_state_shape(graph, state) for state in states)
    axes = {**inputs.batch_axes, **{state.name: 1 for state in states}}
    free_batch_axes(graph, axes)
    batch = probe_batch(graph)
    feeds = inputs.feeds(batch, blank)
    for i, (state, (layers, size)) in enumerate(zip(states, shapes, strict=True)):
        feeds[state.name] = filled((layers, None, size), batch, state.dtype, i)
    values = run_probe(graph, feeds, axes)
    output, states_out = _outputs_and_states(graph, values, shapes, batch)
    output_shape = batch_shape(graph, output, values[output.name], batch)
    if any(dim not in (None, 1) for dim in output_shape[: output_shape.index(None)]):
        raise BundleError(
            f"expected the output of each row in one run of memory, the batch first, got {list(output_shape)}",
            file=graph.file,
            field=output.name,
        )
    return PredictorGraph(
        graph=graph,
        targets=_now(graph, inputs.targets),
        target_length=inputs.target_length and _now(graph, inputs.target_length),
        states_in=tuple(_now(graph, state) for state in states),
        output=replace(output, shape=output_shape),
        states_out=states_out,
        state_shapes=shapes,
        output_shape=output_shape,
    )


def bind_joint(graph: Graph, predictor: PredictorGraph, encoder_size: int | None) -> JointGraph:
    """Bind a joint's ports, after making its batch axes dynamic in place.

    Parameters
    ----------
    predictor:
        The predictor it goes with.
    encoder_size:
        The encoder's width, where known.
    """
    inputs = graph.inputs
    listed = "; ".join(map(str, inputs))
    if len(inputs) != 2 or not all(port.is_float and port.rank >= 2 for port in inputs):
        hint = " (a CTC head? Export the transducer head instead)" if len(inputs) == 1 else ""
        raise BundleError(
            f"expected a joint with two inputs, encoder and predictor outputs, got {listed}{hint}", file=graph.file
        )
    predictor_size = width(predictor.output_shape)
    encoder, prediction = inputs
    if _takes(encoder, predictor_size) and not _takes(prediction, predictor_size):
        encoder, prediction = prediction, encoder
    if not _takes(prediction, predictor_size):
        raise BundleError(
            f"takes predictor outputs {prediction}, but {predictor.graph.file.name} gives {predictor_size} numbers per "
            "token; the files belong to different models",
            file=graph.file,
            field=prediction.name,
        )
    encoder_shape = encoder_step_shape(graph, encoder, encoder_size)
    prediction_shape = predictor.output_shape
    if not _fits(prediction, prediction_shape):
        prediction_shape = _step_shape(graph, prediction, predictor_size)
    axes = {encoder.name: 0, prediction.name: prediction_shape.index(None)}
    free_batch_axes(graph, axes)
    batch = probe_batch(graph)
    feeds = {
        encoder.name: filled(encoder_shape, batch, encoder.dtype, 0),
        prediction.name: filled(prediction_shape, batch, prediction.dtype, 1),
    }
    values = run_probe(graph, feeds, axes)
    output = _only_float(graph, graph.outputs)
    output_shape = _row_shape(graph, output, values[output.name], batch)
    return JointGraph(
        graph=graph,
        encoder=_now(graph, encoder),
        predictor=_now(graph, prediction),
        output=replace(output, shape=output_shape),
        encoder_shape=encoder_shape,
        predictor_shape=prediction_shape,
        output_shape=output_shape,
    )


def bind_combined(graph: Graph, encoder: Port, blank: int, encoder_size: int | None, reason: str) -> CombinedTransducer:
    """Bind the ports of a graph that is run whole, after making its batch axes dynamic in place."""
    inputs = token_inputs(graph)
    states = tuple(port for port in inputs.floats if port.name != encoder.name)
    shapes = tuple(_state_shape(graph, state) for state in states)
    encoder_shape = encoder_step_shape(graph, encoder, encoder_size)
    axes = {**inputs.batch_axes, encoder.name: 0, **{state.name: 1 for state in states}}
    free_batch_axes(graph, axes)
    batch = probe_batch(graph)
    feeds = inputs.feeds(batch, blank)
    feeds[encoder.name] = filled(encoder_shape, batch, encoder.dtype, 0)
    for i, (state, (layers, size)) in enumerate(zip(states, shapes, strict=True)):
        feeds[state.name] = filled((layers, None, size), batch, state.dtype, i)
    values = run_probe(graph, feeds, axes)
    output, states_out = _outputs_and_states(graph, values, shapes, batch)
    output_shape = _row_shape(graph, output, values[output.name], batch)
    return CombinedTransducer(
        graph=graph,
        encoder=_now(graph, encoder),
        encoder_shape=encoder_shape,
        targets=_now(graph, inputs.targets),
        target_length=inputs.target_length and _now(graph, inputs.target_length),
        states_in=tuple(_now(graph, state) for state in states),
        states_out=states_out,
        state_shapes=shapes,
        output=replace(output, shape=output_shape),
        output_shape=output_shape,
        reason=reason,
    )


def encoder_step_shape(graph: Graph, encoder: Port, size: int | None) -> Shape:
    """The shape of one encoder frame at a joint's input: (None, E, 1), (None, 1, E) or (None, E)."""
    if size is not None and not _takes(encoder, size):
        raise BundleError(
            f"takes encoder frames {encoder}, but the encoder's are {size} wide; the files belong to different models",
            file=graph.file,
            field=encoder.name,
        )
    return _step_shape(graph, encoder, size)


def _step_shape(graph: Graph, port: Port, size: int | None) -> Shape:
    """A joint input's shape at T = U = 1: one axis has the width, the others one element."""
    fixed = _fixed(port)
    if len(fixed) > 1:
        raise BundleError(
            f"{port} has a static time axis; export the joint with dynamic time axes", file=graph.file, field=port.name
        )
    if fixed and not 0 < fixed[0] <= MAX_STEP_ELEMENTS:
        raise BundleError(f"{port} has an impossible width", file=graph.file, field=port.name)
    if len(fixed) == 1:
        return (None, *(dim if dim in fixed else 1 for dim in port.shape[1:]))
    if size is None or not 2 <= port.rank <= 3:
        raise BundleError(
            f"cannot tell the width of {port}: expected one fixed axis besides the batch",
            file=graph.file,
            field=port.name,
        )
    return (None, size, 1)[: port.rank]


def _fixed(port: Port) -> list[int]:
    return [dim for dim in port.shape[1:] if isinstance(dim, int) and dim != 1]


def _takes(port: Port, size: int) -> bool:
    """Whether a joint input can take frames of this width."""
    return size in _fixed(port) or not _fixed(port)


def _fits(port: Port, shape: Shape) -> bool:
    """Whether a tensor of a shape can go into a port as it is."""
    return port.rank == len(shape) and all(
        size is None or size == dim or not isinstance(dim, int)
        for dim, size in zip(port.shape, shape, strict=True)
    )


def _state_shape(graph: Graph, port: Port) -> tuple[int, int]:
    if port.rank == 3:
        layers, batch, size = port.shape
        if isinstance(layers, int) and isinstance(size, int) and (batch == 1 or not isinstance(batch, int)):
            if 0 < layers * size <= MAX_STEP_ELEMENTS:
                return layers, size
    raise BundleError(
        f"expected a state [layers, batch, size] with fixed layers and size, got {port}", file=graph.file,
        field=port.name,
    )


def _outputs_and_states(
    graph: Graph, values: dict[str, np.ndarray], shapes: tuple[tuple[int, int], ...], batch: int
) -> tuple[Port, tuple[Port, ...]]:
    """Tell the output from the states, which come out in the shapes they go in; where that is not enough, it is first.
    """
    floats = [port for port in graph.outputs if port.is_float]
    if len(floats) != len(shapes) + 1:
        raise BundleError(
            f"expected an output and {len(shapes)} states, got the float outputs "
            f"{', '.join(port.name for port in floats) or 'none'}",
            file=graph.file,
        )
    state_shapes = {(layers, batch, size) for layers, size in shapes}
    others = [port for port in floats if values[port.name].shape not in state_shapes]
    output = others[0] if len(others) == 1 else floats[0]
    states = tuple(
        replace(port, shape=(layers, None, size))
        for port, (layers, size) in zip((port for port in floats if port is not output), shapes, strict=True)
    )
    for state, (layers, size) in zip(states, shapes, strict=True):
        if values[state.name].shape != (layers, batch, size):
            raise BundleError(
                f"expected a state [{layers}, batch, {size}], got {list(values[state.name].shape)} for a batch of "
                f"{batch}",
                file=graph.file,
                field=state.name,
            )
    return output, states


def _only_float(graph: Graph, ports: tuple[Port, ...]) -> Port:
    floats = [port for port in ports if port.is_float]
    if len(floats) != 1:
        raise BundleError(
            f"expected one float output, got {', '.join(port.name for port in floats) or 'none'}", file=graph.file
        )
    return floats[0]


def _row_shape(graph: Graph, port: Port, value: np.ndarray, batch: int) -> Shape:
    shape = batch_shape(graph, port, value, batch)
    if shape[0] is not None or any(dim != 1 for dim in shape[1:-1]):
        raise BundleError(f"expected rows [batch, 1, 1, width], got {list(shape)}", file=graph.file, field=port.name)
    return shape


def _now(graph: Graph, port: Port) -> Port:
    """The port as it is after the batch axis became dynamic."""
    return next(current for current in graph.inputs if current.name == port.name)
