"""ONNX graphs of a model directory: loaded with care, described by their ports, opened as sessions."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BundleError, MissingDependencyError
from .external import anchor_weights, external_tensors
from .files import read_bytes
from .tensors import check_tensors

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort

GRAPH_LIMIT = (1 << 31) - 1
"""Largest graph file in bytes, weights outside it not counted: protobuf's own limit."""

_FOLDER_OPTION = "session.model_external_initializers_file_folder_path"

# Operators that scale a whole activation tensor at once, so that a row's result depends on its neighbours.
_DYNAMIC_QUANTIZATION = {
    "DynamicQuantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger", "ConvInteger",
}

_options_lock = threading.Lock()


def import_onnx() -> Any:
    """The `onnx` package, imported on first use."""
    try:
        import onnx
    except ImportError:
        raise MissingDependencyError("onnx", "cpu", "Reading a model directory") from None
    return onnx


def import_onnxruntime() -> Any:
    """The `onnxruntime` package, imported on first use."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError("onnxruntime", "cpu", "Running an ONNX graph") from None
    return onnxruntime


@dataclass(frozen=True)
class Port:
    """An input or output of a graph; names or None stand for dimensions that may vary."""

    name: str
    dtype: np.dtype
    shape: tuple[int | str | None, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_float(self) -> bool:
        return self.dtype.kind == "f" or self.dtype.name == "bfloat16"

    def __str__(self) -> str:
        return f"{self.name} {self.dtype.name} [{', '.join('?' if d is None else str(d) for d in self.shape)}]"


@dataclass(frozen=True, eq=False)
class Graph:
    """A graph and where it came from.

    Attributes
    ----------
    model:
        The graph; external weights stay in their files.
    file:
        The file it was read from, for messages.
    weights_folder:
        The folder that the locations of external weights are relative to; None if there are none.
    """

    model: onnx.ModelProto
    file: Path
    weights_folder: Path | None = None

    @property
    def inputs(self) -> tuple[Port, ...]:
        """Inputs in order, without weights that are listed among them."""
        weights = {tensor.name for tensor in self.model.graph.initializer}
        return tuple(self._port(value) for value in self.model.graph.input if value.name not in weights)

    @property
    def outputs(self) -> tuple[Port, ...]:
        return tuple(self._port(value) for value in self.model.graph.output)

    @cached_property
    def quantized(self) -> bool:
        """Whether activations are quantised dynamically, one scale for a whole batch."""
        return any(node.op_type in _DYNAMIC_QUANTIZATION for node in self.model.graph.node)

    @cached_property
    def initializers(self) -> dict[str, onnx.TensorProto]:
        """Weights by name."""
        return {tensor.name: tensor for tensor in self.model.graph.initializer}

    def array(self, name: str) -> np.ndarray:
        """A weight by name, memory-mapped and read-only where it is external."""
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
        """An ONNX Runtime session on the graph.

        `options` are used as they are. Where weights are external, their folder is entered into them and stays there:
        options can be neither copied nor cleared.
        """
        ort = import_onnxruntime()
        if options is None:
            options = ort.SessionOptions()
        data = self.model.SerializeToString()
        with _options_lock:
            if self.weights_folder is not None:
                _enter(options, _FOLDER_OPTION, str(self.weights_folder))
            return ort.InferenceSession(data, options, providers=providers, disabled_optimizers=self._needless)

    def plain_session(self) -> ort.InferenceSession:
        """A session on the CPU for a look at the graph: quick to make, silent, unoptimised."""
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return self.session(options, ["CPUExecutionProvider"])

    @property
    def _needless(self) -> list[str]:
        # It lays out convolutions. On some float16 LSTM graphs without any, ONNX Runtime 1.31's ends the process.
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


def _enter(options: ort.SessionOptions, key: str, value: str) -> None:
    # Entering a key twice, even with the same value, makes ONNX Runtime warn.
    try:
        if options.get_session_config_entry(key) == value:
            return
    except RuntimeError:
        pass  # not there yet
    options.add_session_config_entry(key, value)


def load_graph(file: Path, directory: Path) -> Graph:
    """Read a graph of a model directory; its external weights are checked but not loaded.

    Raises
    ------
    BundleError
        If the file is no ONNX graph, or its external weights are missing, truncated or outside the directory.
    """
    model = parse_graph(file)
    return Graph(model, file, anchor_weights(model, file, directory))


def parse_graph(file: Path) -> onnx.ModelProto:
    """What a graph's file says; nothing is known of its external weights.

    Raises
    ------
    BundleError
        If the file is no ONNX graph.
    """
    onnx = import_onnx()
    data = read_bytes(file, GRAPH_LIMIT)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's own exception type differs between its implementations
        raise BundleError(f"not an ONNX graph{_in_its_place(data)}: {error}", file=file) from None
    if not model.graph.node or not model.graph.output:
        raise BundleError(f"not an ONNX graph{_in_its_place(data)}: it has no nodes or no outputs", file=file)
    for node in model.graph.node:
        if node.op_type == "EPContext":
            raise BundleError("contains precompiled code (EPContext); use the original export", file=file)
    _check_names(model, file)
    _check_nodes(model, file)
    check_tensors(model, file)
    return model


def _check_names(model: onnx.ModelProto, file: Path) -> None:
    """Names are texts: those that are no UTF-8 come out of the protobuf as bytes."""
    names = [entry.key for entry in model.metadata_props] + [entry.value for entry in model.metadata_props]
    for tensor in external_tensors(model):
        names += [entry.value for entry in tensor.external_data] + [entry.key for entry in tensor.external_data]
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        names += [item.name for item in (*graph.input, *graph.output, *graph.initializer, *graph.node)]
        names += [dim.dim_param for value in (*graph.input, *graph.output) for dim in value.type.tensor_type.shape.dim]
        for node in graph.node:
            names += [*node.input, *node.output, node.op_type, node.domain]
            for attribute in node.attribute:
                names.append(attribute.name)
                graphs += ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs)
    for name in names:
        if not isinstance(name, str):
            raise BundleError(f"a name is no UTF-8 text: {name!r:.60}", file=file)


def _check_nodes(model: onnx.ModelProto, file: Path) -> None:
    """Nodes of the standard's operators have the inputs and outputs that these must have."""
    onnx = import_onnx()
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            continue
        try:
            schema = onnx.defs.get_schema(node.op_type, max(versions, default=1))
        except Exception:  # an operator, or a version, that this onnx does not know, and ONNX Runtime may
            continue
        if len(node.input) < schema.min_input or len(node.output) < schema.min_output:
            raise BundleError(
                f"a {node.op_type} with {len(node.input)} inputs and {len(node.output)} outputs: the file is damaged",
                file=file,
                field=node.name,
            )


def _in_its_place(data: bytes) -> str:
    """What came instead of a graph, for messages."""
    beginning = data[:256].lstrip().lower()
    if beginning.startswith(b"version https://git-lfs"):
        return " but a Git LFS pointer to it (fetch the file itself: git lfs pull)"
    if beginning.startswith((b"<!doctype", b"<html")):
        return " but a web page (download the file itself)"
    return ", or a truncated one (an interrupted download?)"
