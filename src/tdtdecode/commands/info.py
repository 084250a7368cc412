"""``tdtdecode info``: what is installed here, what can be used, and how a model is decoded."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from ..bundle import Bundle, CombinedTransducer, Graph, read_bundle
from ..bundle.lifting import CannotLift
from ..cuda.device import current_device
from ..decoder import Decoder
from ..errors import TdtDecodeError
from ..evaluation import edit_distance
from ..networks.choice import fused_network
from ..speech.hub import find_model
from .status import DONE

HELP = "Show versions, kernel sets with their instruction sets, execution providers, and how a model would be decoded."

_PACKAGES = (
    "tdtdecode", "numpy", "onnxruntime", "onnxruntime-gpu", "onnx", "soundfile", "soxr", "huggingface_hub", "numba",
    "cupy-cuda13x",
)


_TRIAL_FRAMES = 400


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("model", nargs="?", help="'demo', a model directory or a hub id")
    parser.add_argument("--variant", help="which files of the model: int8, fp16, ... (default: those without a suffix)")


def run(arguments: argparse.Namespace) -> int:
    """Print what there is."""
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
    print(f"GPU: {_card()}")
    print(f"execution providers: {', '.join(_providers()) or 'none'}")
    if versions["onnxruntime"] and versions["onnxruntime-gpu"]:
        print("warning: onnxruntime and onnxruntime-gpu overwrite each other's files: uninstall both, then install one")
    if arguments.model is not None:
        _print_model(arguments.model, arguments.variant)
    return DONE


def _print_model(model: str, variant: str | None) -> None:
    bundle = read_bundle(find_model(model, variant), variant=variant)
    spec = bundle.spec
    print(f"model {bundle.directory}:")
    print(f"  layout {bundle.layout}, {spec.vocab_size} tokens, blank {spec.blank}, durations {list(spec.durations)}")
    try:
        network = fused_network(bundle)
    except CannotLift as error:
        print(f"  network: ort. Its weights cannot be lifted for 'fused': {error}")
        return
    layers, size = len(network.weights.layers), network.weights.prediction.weight.shape[1]
    joint = len(network.weights.encoder.weight)
    print(f"  network: fused ({layers} LSTM layers of {size}, joint of {joint}, {network.weights.activation})")
    if any(graph.quantized for graph in _graphs(bundle)):
        differing, tokens = _difference(bundle, network.weights.encoder.weight.shape[1])
        print(
            f"  its int8 graphs scale activations as they come; fused computes with their weights in float32: "
            f"{differing} of {tokens} tokens on random input differ"
        )


def _graphs(bundle: Bundle) -> list[Graph]:
    transducer = bundle.transducer
    if isinstance(transducer, CombinedTransducer):
        return [transducer.graph]
    return [transducer.predictor.graph, transducer.joint.graph]


def _difference(bundle: Bundle, encoder_size: int) -> tuple[int, int]:
    """Edits between the tokens of graphs and fused network on random encoder output, and the graphs' tokens."""
    decoders = [Decoder.from_bundle(bundle, network=network) for network in ("ort", "fused")]
    noise = np.random.default_rng(0).standard_normal((1, encoder_size, _TRIAL_FRAMES)).astype(np.float32)
    graph, fused = (decoder.decode(noise)[0].tokens for decoder in decoders)
    return edit_distance(graph.tolist(), fused.tolist()), len(graph)


def _card() -> str:
    """The card that device 'cuda' would use, or why there is none."""
    try:
        card = current_device()
    except TdtDecodeError as error:
        return f"none ({error})"
    capability = f"{card.capability // 10}.{card.capability % 10}"
    return f"{card.name}, compute capability {capability}, {card.multiprocessors} multiprocessors"


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
