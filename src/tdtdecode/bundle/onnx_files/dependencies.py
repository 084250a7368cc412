"""The packages that reading a model directory needs, imported on first use."""

from __future__ import annotations

from typing import Any

from ...optional import needed


def import_onnx() -> Any:
    """The `onnx` package, imported on first use."""
    with needed("onnx", "cpu", "Reading a model directory"):
        import onnx
    return onnx


def import_onnxruntime() -> Any:
    """The `onnxruntime` package, imported on first use."""
    with needed("onnxruntime", "cpu", "Running an ONNX graph"):
        import onnxruntime
    return onnxruntime
