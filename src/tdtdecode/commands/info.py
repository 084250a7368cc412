"""``tdtdecode info``: say what is installed, what this machine can use, and how a model would be decoded."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version

from ..bundle import read_bundle
from ..bundle.lifting import CannotLift
from ..cuda.device import current_device
from ..errors import MissingDependencyError, TdtDecodeError
from ..networks.choice import fused_network
from ..optional import raise_interrupt
from ..speech.audio.decoders import MEDIA, import_soundfile, libavformat_version
from ..speech.hub import find_model
from .options import add_source, source_options
from .status import DONE

HELP = "Show versions, kernel sets with their instruction sets, execution providers, and how a model would be decoded."

_PACKAGES = (
    "tdtdecode", "numpy", "onnxruntime", "onnxruntime-gpu", "onnx", "soundfile", "soxr", "av", "silero-vad",
    "huggingface_hub", "numba", "cupy-cuda13x",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", nargs="?", help="'demo', a model directory or a hub id")
    add_source(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what is installed and, if a model is given, how it is decoded."""
    from .. import kernels
    from ..kernels._cpu import instruction_sets

    print(f"Python {platform.python_version()} on {platform.platform()}")
    versions = {package: _version(package) for package in _PACKAGES}
    for package, installed in versions.items():
        print(f"{package:<16} {installed or 'not installed'}")
    print("kernel sets:")
    for kernel_set in kernels.available():
        print(f"  {kernel_set.name}")
    for isa, supported in instruction_sets():
        if not supported:
            print(f"  cpu-{isa} (not on this machine)")
    print(f"GPU: {_gpu()}")
    print(f"execution providers: {', '.join(_providers()) or 'none'}")
    print("recordings that can be read:")
    for line in _readable():
        print(f"  {line}")
    if versions["onnxruntime"] and versions["onnxruntime-gpu"]:
        print("warning: onnxruntime and onnxruntime-gpu overwrite each other's files: uninstall both, then install one")
    if arguments.model is not None:
        _print_model(arguments)
    return DONE


def _print_model(arguments: argparse.Namespace) -> None:
    bundle = read_bundle(find_model(arguments.model, arguments.variant), **source_options(arguments))
    spec = bundle.spec
    print(f"model {bundle.directory}:")
    print(f"  layout {bundle.layout}, variant {bundle.variant or 'unsuffixed'}")
    print(f"  {spec.vocab_size} tokens, blank {spec.blank}, durations {list(spec.durations)}")
    try:
        network = fused_network(bundle)
    except CannotLift as error:
        print(f"  network: ort, because the weights cannot be lifted for 'fused': {error}")
        return
    print(f"  network: fused ({network.weights.sizes})")
    if any(graph.quantized for graph in bundle.transducer.graphs):
        print(
            "  the int8 graphs also round activations; fused computes with their weights, but in float32: some tokens "
            f"differ from network ort (`tdtdecode bench {arguments.model} --recordings AUDIO...` counts them)"
        )


def _gpu() -> str:
    """The GPU that device 'cuda' would use, or why there is none."""
    try:
        gpu = current_device()
    except TdtDecodeError as error:
        return f"none ({error})"
    capability = f"{gpu.capability // 10}.{gpu.capability % 10}"
    return f"{gpu.name}, compute capability {capability}, {gpu.multiprocessors} multiprocessors"


def _readable() -> list[str]:
    """The libraries that read recordings, with the formats that each reads; or what is to be installed."""
    lines = []
    try:
        soundfile = import_soundfile()
        formats = sorted(set(soundfile.available_formats()) - {"RAW"})  # it has no header to say what it is
        lines.append(f"by soundfile (libsndfile {soundfile.__libsndfile_version__}): {', '.join(formats)}")
    except MissingDependencyError as error:
        lines.append(f"none by soundfile: {error}")
    try:
        lines.append(f"by PyAV (libavformat {libavformat_version()}): {MEDIA}")
    except MissingDependencyError as error:
        lines.append(f"none by PyAV: {error}")
    return lines


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _providers() -> list[str]:
    try:
        import onnxruntime
    except ImportError as error:
        raise_interrupt(error)
        return []
    return onnxruntime.get_available_providers()
