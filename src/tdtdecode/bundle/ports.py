"""Finding out what the inputs and outputs of exported graphs are for.

Names differ between exporters, so they are not used. Inputs and outputs are recognised by type, rank, order and shape.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from ..errors import BundleError
from .onnx_files.graph import Graph, Port
from .probe import batch_shape, make_batch_dynamic, probe_batch, random_values, run_probe
from .roles import decision_refused, gives_decisions
from .transducers import CombinedTransducer, JointGraph, PredictorGraph, Shape, width

MAX_STEP_ELEMENTS = 1 << 22
"""Largest state or frame accepted, in elements per utterance: far more than any model has, and safe to allocate."""


@dataclass(frozen=True)
class TokenInputs:
    """The inputs of a predictor or a combined graph.

    Attributes
    ----------
    targets:
        Tokens, integers [B, 1].
    target_length:
        Their number, integers [B]; None if the graph has no such input.
    floats:
        The states, and in a combined graph the encoder frames.
    """

    targets: Port
    target_length: Port | None
    floats: tuple[Port, ...]

    @property
    def batch_axes(self) -> dict[str, int]:
        """The batch axis of the integer inputs, by name."""
        axes = {self.targets.name: 0}
        if self.target_length is not None:
            axes[self.target_length.name] = 0
        return axes

    def feeds(self, batch: int, blank: int) -> dict[str, np.ndarray]:
        """Arrays for the integer inputs, by name: a probe with one token per utterance, blank and another in turn."""
        # Every hypothesis starts with blank, so the probe must show that the graph accepts it.
        tokens = np.resize([blank, 1 - min(blank, 1)], (batch, 1))
        feeds = {self.targets.name: tokens.astype(self.targets.dtype)}
        if self.target_length is not None:
            feeds[self.target_length.name] = np.ones(batch, self.target_length.dtype)
        return feeds


def token_inputs(graph: Graph) -> TokenInputs:
    """Sort the inputs of a predictor or a combined graph into tokens, their length and float inputs.

    Raises
    ------
    BundleError
        If there are other inputs than these, or the predictor takes more than one token at a time.
    """
    inputs = graph.inputs
    targets = [port for port in inputs if port.dtype.kind == "i" and port.rank == 2]
    lengths = [port for port in inputs if port.dtype.kind == "i" and port.rank == 1]
    floats = tuple(port for port in inputs if port.is_float)
    listed = "; ".join(map(str, inputs))
    if not targets:
        raise BundleError(
            f"no input for tokens (integers [batch, tokens]) among its inputs: {listed}. So it is not a predictor. Is "
            "it an encoder, a joint, or the CTC head of a hybrid model? Export the transducer head instead",
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
            f"takes {tokens} tokens at once; only predictors that take one token per step are supported",
            file=graph.file,
            field=targets[0].name,
        )
    return TokenInputs(targets[0], lengths[0] if lengths else None, floats)


def bind_predictor(graph: Graph, blank: int, context: int | None = None) -> PredictorGraph:
    """Find out what a predictor's inputs and outputs are for, by running it once.

    Parameters
    ----------
    graph:
        The predictor. Its batch axes are made dynamic in place.
    blank:
        Id of blank.
    context:
        As in `PredictorGraph`.

    Raises
    ------
    BundleError
        If the graph is not a predictor that can be run at any batch size.
    """
    inputs = token_inputs(graph)
    states = inputs.floats
    shapes = tuple(_state_shape(graph, state) for state in states)
    axes = {**inputs.batch_axes, **{state.name: 1 for state in states}}
    make_batch_dynamic(graph, axes)
    batch = probe_batch(graph)
    feeds = inputs.feeds(batch, blank)
    for i, (state, (layers, size)) in enumerate(zip(states, shapes, strict=True)):
        feeds[state.name] = random_values((layers, None, size), batch, state.dtype, i)
    values = run_probe(graph, feeds, axes)
    output, states_out = _outputs_and_states(graph, values, shapes, batch)
    output_shape = batch_shape(graph, output, values[output.name], batch)
    if any(dim not in (None, 1) for dim in output_shape[: output_shape.index(None)]):
        raise BundleError(
            f"expected the values of each utterance to be contiguous, the batch first, got {list(output_shape)}",
            file=graph.file,
            field=output.name,
        )
    return PredictorGraph(
        graph=graph,
        targets=_input(graph, inputs.targets.name),
        target_length=inputs.target_length and _input(graph, inputs.target_length.name),
        states_in=tuple(_input(graph, state.name) for state in states),
        output=replace(output, shape=output_shape),
        states_out=states_out,
        state_shapes=shapes,
        output_shape=output_shape,
        context=context,
    )


def bind_joint(graph: Graph, predictor: PredictorGraph, encoder_size: int | None) -> JointGraph:
    """Find out what a joint's inputs and outputs are for, by running it once.

    Parameters
    ----------
    graph:
        The joint. Its batch axes are made dynamic in place.
    predictor:
        The predictor whose output it takes.
    encoder_size:
        Width of an encoder frame; None if unknown.

    Raises
    ------
    BundleError
        If the graph is not a joint that can be run at any batch size, or does not belong to the predictor.
    """
    if gives_decisions(graph):
        raise decision_refused(graph)
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
            f"takes predictor outputs {prediction}, but {predictor.graph.file.name} gives {predictor_size} values per "
            "token: the files belong to different models",
            file=graph.file,
            field=prediction.name,
        )
    encoder_shape = encoder_step_shape(graph, encoder, encoder_size)
    prediction_shape = predictor.output_shape
    if not _fits(prediction, prediction_shape):
        prediction_shape = _step_shape(graph, prediction, predictor_size)
    axes = {encoder.name: 0, prediction.name: prediction_shape.index(None)}
    make_batch_dynamic(graph, axes)
    batch = probe_batch(graph)
    feeds = {
        encoder.name: random_values(encoder_shape, batch, encoder.dtype, 0),
        prediction.name: random_values(prediction_shape, batch, prediction.dtype, 1),
    }
    values = run_probe(graph, feeds, axes)
    output = _only_float(graph, graph.outputs)
    output_shape = _row_shape(graph, output, values[output.name], batch)
    return JointGraph(
        graph=graph,
        encoder=_input(graph, encoder.name),
        predictor=_input(graph, prediction.name),
        output=replace(output, shape=output_shape),
        encoder_shape=encoder_shape,
        predictor_shape=prediction_shape,
        output_shape=output_shape,
    )


def bind_combined(graph: Graph, encoder: Port, blank: int, encoder_size: int | None, reason: str) -> CombinedTransducer:
    """Find out what the inputs and outputs of a combined graph are for, by running it once.

    Parameters
    ----------
    graph:
        The graph. Its batch axes are made dynamic in place.
    encoder:
        Its input of encoder frames.
    blank:
        Id of blank.
    encoder_size:
        Width of an encoder frame; None if unknown.
    reason:
        Why the graph cannot be split.

    Raises
    ------
    BundleError
        If the graph is not a predictor and joint that can be run at any batch size.
    """
    inputs = token_inputs(graph)
    states = tuple(port for port in inputs.floats if port.name != encoder.name)
    shapes = tuple(_state_shape(graph, state) for state in states)
    encoder_shape = encoder_step_shape(graph, encoder, encoder_size)
    axes = {**inputs.batch_axes, encoder.name: 0, **{state.name: 1 for state in states}}
    make_batch_dynamic(graph, axes)
    batch = probe_batch(graph)
    feeds = inputs.feeds(batch, blank)
    feeds[encoder.name] = random_values(encoder_shape, batch, encoder.dtype, 0)
    for i, (state, (layers, size)) in enumerate(zip(states, shapes, strict=True)):
        feeds[state.name] = random_values((layers, None, size), batch, state.dtype, i)
    values = run_probe(graph, feeds, axes)
    output, states_out = _outputs_and_states(graph, values, shapes, batch)
    output_shape = _row_shape(graph, output, values[output.name], batch)
    return CombinedTransducer(
        graph=graph,
        encoder=_input(graph, encoder.name),
        encoder_shape=encoder_shape,
        targets=_input(graph, inputs.targets.name),
        target_length=inputs.target_length and _input(graph, inputs.target_length.name),
        states_in=tuple(_input(graph, state.name) for state in states),
        states_out=states_out,
        state_shapes=shapes,
        output=replace(output, shape=output_shape),
        output_shape=output_shape,
        reason=reason,
    )


def row_width(outputs: Iterable[Port]) -> int | None:
    """V + 1 + D, the width of a joint row, by the outputs of a joint or a combined graph; None if it is open."""
    floats = [port for port in outputs if port.is_float and port.rank >= 2]
    rows = max(floats, key=lambda port: port.rank, default=None)  # states have three axes, rows mostly four
    if rows is None or not isinstance(rows.shape[-1], int):
        return None
    return rows.shape[-1]


def encoder_step_shape(graph: Graph, encoder: Port, size: int | None) -> Shape:
    """The shape of one encoder frame per utterance at a joint's input: (None, E, 1), (None, 1, E) or (None, E).

    Raises
    ------
    BundleError
        If the input does not take frames of width `size`, or its width is unknown.
    """
    if size is not None and not _takes(encoder, size):
        raise BundleError(
            f"takes encoder frames {encoder}, but the encoder's are {size} wide: the files belong to different models",
            file=graph.file,
            field=encoder.name,
        )
    return _step_shape(graph, encoder, size)


def _step_shape(graph: Graph, port: Port, size: int | None) -> Shape:
    """A joint input's shape for one frame or token: one axis has the width, the other axes have size 1."""
    fixed = _fixed(port)
    if len(fixed) > 1:
        raise BundleError(
            f"{port} has a static time axis; export the joint with dynamic time axes", file=graph.file, field=port.name
        )
    if fixed and not 0 < fixed[0] <= MAX_STEP_ELEMENTS:
        raise BundleError(
            f"{port} has an impossible width; expected 1 to {MAX_STEP_ELEMENTS}", file=graph.file, field=port.name
        )
    if len(fixed) == 1:
        return (None, *(dim if dim in fixed else 1 for dim in port.shape[1:]))
    if size is None or not 2 <= port.rank <= 3:
        raise BundleError(
            f"cannot tell the width of {port}: expected one axis of fixed size besides the batch axis",
            file=graph.file,
            field=port.name,
        )
    return (None, size, 1)[: port.rank]


def _fixed(port: Port) -> list[int]:
    """The fixed dimensions other than 1, without the first axis."""
    return [dim for dim in port.shape[1:] if isinstance(dim, int) and dim != 1]


def _takes(port: Port, size: int) -> bool:
    """Whether a joint input can take vectors of this width."""
    return size in _fixed(port) or not _fixed(port)


def _fits(port: Port, shape: Shape) -> bool:
    """Whether the port accepts a tensor of this shape."""
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
    """Tell the output from the states.

    The states are the outputs that have the states' input shapes. If that is ambiguous, the first float output is the
    output and the others are the states.
    """
    floats = [port for port in graph.outputs if port.is_float]
    if len(floats) != len(shapes) + 1:
        raise BundleError(
            f"expected {len(shapes) + 1} float outputs, one output and {len(shapes)} states; got "
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
        raise BundleError(
            f"expected joint rows [batch, 1, 1, width], got {list(shape)}", file=graph.file, field=port.name
        )
    return shape


def _input(graph: Graph, name: str) -> Port:
    """The graph's input of that name, with its batch axis as it is now."""
    return next(port for port in graph.inputs if port.name == name)
