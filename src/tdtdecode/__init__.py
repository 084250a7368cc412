"""Compiled, batched, exact Token-and-Duration Transducer (TDT) decoding for ONNX Runtime speech recognition."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from . import kernels
from .confidence import Confidence
from .decoder import Decoder, DecoderState
from .errors import (
    AudioWarning,
    BundleError,
    DeviceError,
    InputError,
    LanguageModelWarning,
    MissingDependencyError,
    PhraseWarning,
    SkippedInputWarning,
    TdtDecodeError,
    TdtDecodeWarning,
    UnsupportedVersionError,
)
from .hypothesis import Hypothesis, Transcript, Word
from .networks.callable import CallableNetwork
from .search import Beam, Greedy
from .transducer import TransducerSpec

if _TYPE_CHECKING:
    from .fusion import NgramLM, PhraseBoost, ScoringFunction
    from .speech.loading import load_model
    from .speech.recognizer import Recognizer

__version__ = "0.1.0"

__all__ = [
    "AudioWarning",
    "Beam",
    "BundleError",
    "CallableNetwork",
    "Confidence",
    "Decoder",
    "DecoderState",
    "DeviceError",
    "Greedy",
    "Hypothesis",
    "InputError",
    "LanguageModelWarning",
    "MissingDependencyError",
    "NgramLM",
    "PhraseBoost",
    "PhraseWarning",
    "Recognizer",
    "ScoringFunction",
    "SkippedInputWarning",
    "TdtDecodeError",
    "TdtDecodeWarning",
    "Transcript",
    "TransducerSpec",
    "UnsupportedVersionError",
    "Word",
    "kernels",
    "load_model",
]


def __getattr__(name: str) -> object:
    # The modules for audio and model directories are imported on first use, so that `import tdtdecode` is fast.
    if name == "load_model":
        from .speech.loading import load_model

        return load_model
    if name == "Recognizer":
        from .speech.recognizer import Recognizer

        return Recognizer
    if name in ("NgramLM", "PhraseBoost", "ScoringFunction"):
        from . import fusion

        return getattr(fusion, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
