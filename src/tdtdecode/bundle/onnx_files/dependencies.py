"""The packages that reading a model directory needs, imported on first use."""

from __future__ import annotations

from typing import Any

from ...errors import MissingDependencyError


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
