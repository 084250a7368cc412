"""An ONNX graph of a model directory: its inputs, outputs and weights, and how it is loaded and run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import BundleError
from ...forks import Lock, cached_property
from ...reprs import one_line
from .dependencies import import_onnx, import_onnxruntime
from .external import resolve_weights
from .parsing import parse_graph

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort

_FOLDER_OPTION = "session.model_external_initializers_file_folder_path"

_DYNAMIC_QUANTIZATION = {
    "DynamicQuantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger", "ConvInteger",
}
"""Operators of graphs whose activations share one scale per batch, so that utterances affect each other's results."""

_options_lock = Lock()


@dataclass(frozen=True)
class Port:
    """An input or output of a graph.

    Attributes
    ----------
    shape:
        An integer for each fixed dimension; a name or None for each dynamic one.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int | str | None, ...]

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether the type is a float type, bfloat16 included."""
        return self.dtype.kind == "f" or self.dtype.name == "bfloat16"

    def __str__(self) -> str:
        return f"{self.name} {self.dtype.name} [{', '.join('?' if d is None else str(d) for d in self.shape)}]"


@dataclass(frozen=True, eq=False)
class Graph:
    """A graph, and the file it was read from.

    Attributes
    ----------
    model:
        The graph. External weights are not loaded into it.
    file:
        The file it was read from, for messages.
    weights_folder:
        The folder that the locations of external weights are relative to; None if no weights are external.
    """

    model: onnx.ModelProto
    file: Path
    weights_folder: Path | None = None

    def __repr__(self) -> str:
        inputs, outputs = ([port.name for port in ports] for ports in (self.inputs, self.outputs))
        return one_line(self, self.file.name, f"inputs {', '.join(inputs)}", f"outputs {', '.join(outputs)}")

    @property
    def inputs(self) -> tuple[Port, ...]:
        """The inputs in order, without weights, which old exports list among the inputs."""
        weights = {tensor.name for tensor in self.model.graph.initializer}
        return tuple(self._port(value) for value in self.model.graph.input if value.name not in weights)

    @property
    def outputs(self) -> tuple[Port, ...]:
        """The outputs in order."""
        return tuple(self._port(value) for value in self.model.graph.output)

    @cached_property
    def quantized(self) -> bool:
        """Whether activations are quantised dynamically, with one scale per batch."""
        return any(node.op_type in _DYNAMIC_QUANTIZATION for node in self.model.graph.node)

    @cached_property
    def initializers(self) -> dict[str, onnx.TensorProto]:
        """Weights by name."""
        return {tensor.name: tensor for tensor in self.model.graph.initializer}

    def array(self, name: str) -> np.ndarray:
        """A weight by name. If it is external, the array is memory-mapped and read-only."""
        onnx = import_onnx()
        tensor = self.initializers[name]
        if tensor.data_location != tensor.EXTERNAL:
            return onnx.numpy_helper.to_array(tensor)
        entries = {entry.key: entry.value for entry in tensor.external_data}
        assert self.weights_folder is not None
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        shape = tuple(tensor.dims)
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.memmap(
            self.weights_folder / entries["location"], dtype, "r", offset=int(entries.get("offset", "0")), shape=shape
        )

    def session(
        self, options: ort.SessionOptions | None = None, providers: Sequence[Any] | None = None
    ) -> ort.InferenceSession:
        """Open an ONNX Runtime session for the graph.

        Parameters
        ----------
        options:
            Used as they are, except for one entry: if weights are external, their folder is added and stays there,
            because options cannot be copied and entries cannot be removed.
        providers:
            Execution providers, in order of preference. Default: ONNX Runtime's.

        Raises
        ------
        BundleError
            If ONNX Runtime cannot load the graph.
        """
        ort = import_onnxruntime()
        if options is None:
            options = ort.SessionOptions()
        data = self.model.SerializeToString()
        with _options_lock.held:
            if self.weights_folder is not None:
                _add_entry(options, _FOLDER_OPTION, str(self.weights_folder))
            with loading(self.file):
                return ort.InferenceSession(data, options, providers=providers, disabled_optimizers=self._disabled)

    def plain_session(self) -> ort.InferenceSession:
        """Open a session for a quick check of the graph: on the CPU, in one thread, without optimisation or log."""
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return self.session(options, ["CPUExecutionProvider"])

    @property
    def _disabled(self) -> list[str]:
        """Optimizers that are turned off: the one for convolutions, in graphs that have none.

        On some float16 LSTM graphs without convolutions, that optimizer of ONNX Runtime 1.31 crashes the process.
        """
        convolves = any("Conv" in node.op_type for node in self.model.graph.node)
        return [] if convolves else ["NchwcTransformer"]

    def _port(self, value: onnx.ValueInfoProto) -> Port:
        onnx = import_onnx()
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not tensor.elem_type:
            raise BundleError("expected a tensor", file=self.file, field=value.name)
        try:
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        except KeyError:
            raise BundleError(f"unknown data type {tensor.elem_type}", file=self.file, field=value.name) from None
        shape = tuple(
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in tensor.shape.dim
        )
        return Port(value.name, dtype, shape)


@contextmanager
def loading(file: Path) -> Iterator[None]:
    """Surrounds the making of a session: what ONNX Runtime raises then becomes a `BundleError`."""
    try:
        yield
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        raise BundleError(f"ONNX Runtime cannot load it: {first_line(error)}", file=file) from error


def first_line(error: Exception) -> str:
    """The first line of an exception of ONNX Runtime, which may be pages long."""
    return str(error).strip().split("\n")[0][:500] or type(error).__name__


def _add_entry(options: ort.SessionOptions, key: str, value: str) -> None:
    # Adding a key twice, even with the same value, makes ONNX Runtime warn.
    try:
        if options.get_session_config_entry(key) == value:
            return
    except RuntimeError:
        pass  # not there yet
    options.add_session_config_entry(key, value)


def load_graph(file: Path, directory: Path) -> Graph:
    """Read a graph of a model directory. Its external weights are checked, but not loaded.

    Raises
    ------
    BundleError
        If the file is not an ONNX graph, or external weights are missing, truncated or outside the directory.
    """
    model = parse_graph(file)
    return Graph(model, file, resolve_weights(model, file, directory))
