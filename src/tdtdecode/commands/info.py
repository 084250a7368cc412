"""``tdtdecode info``: what is installed here, and what can be used."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version

from .status import DONE

HELP = "Show versions, kernel sets with their instruction sets, and ONNX Runtime's execution providers."

_PACKAGES = (
    "tdtdecode", "numpy", "onnxruntime", "onnxruntime-gpu", "onnx", "soundfile", "soxr", "huggingface_hub", "numba",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This command has no options."""


def run(arguments: argparse.Namespace) -> int:
    """Print what there is."""
    from .. import kernels

    print(f"Python {platform.python_version()} on {platform.platform()}")
    versions = {package: _version(package) for package in _PACKAGES}
    for package, installed in versions.items():
        print(f"{package:<16} {installed or 'not installed'}")
    print("kernel sets:")
    for kernel_set in kernels.available():
        print(f"  {kernel_set.name}")
    print(f"execution providers: {', '.join(_providers()) or 'none'}")
    if versions["onnxruntime"] and versions["onnxruntime-gpu"]:
        print("warning: onnxruntime and onnxruntime-gpu overwrite each other's files: uninstall both, then install one")
    return DONE


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _providers() -> list[str]:
    try:
        import onnxruntime
    except ImportError:
        return []
    return onnxruntime.get_available_providers()
