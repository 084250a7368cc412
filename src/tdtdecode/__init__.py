"""Compiled, batched, exact Token-and-Duration Transducer (TDT) decoding for ONNX Runtime speech recognition."""

from . import kernels
from .decoder import Decoder, DecoderState
from .errors import BundleError, DeviceError, InputError, MissingDependencyError, TdtDecodeError
from .hypothesis import Hypothesis, Transcript, Word
from .networks.callable import CallableNetwork
from .search import Greedy
from .transducer import TransducerSpec

__version__ = "0.1.0"

__all__ = [
    "BundleError",
    "CallableNetwork",
    "Decoder",
    "DecoderState",
    "DeviceError",
    "Greedy",
    "Hypothesis",
    "InputError",
    "MissingDependencyError",
    "TdtDecodeError",
    "Transcript",
    "TransducerSpec",
    "Word",
    "kernels",
]
