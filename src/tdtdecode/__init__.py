"""Compiled, batched, exact Token-and-Duration Transducer (TDT) decoding for ONNX Runtime speech recognition."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from . import kernels
    from .allowed import ExceptTokens, OnlyTokens, Script
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
        SlowerWarning,
        TdtDecodeError,
        TdtDecodeWarning,
        UnsupportedVersionError,
    )
    from .fusion import NgramLM, PhraseBoost, ScoringFunction
    from .hypothesis import Hypothesis, SpeechSegment, Transcript, Word
    from .networks.callable import CallableNetwork
    from .search import Beam, Greedy
    from .speech.loading import load_model
    from .speech.progress import Progress
    from .speech.recognizer import Recognizer
    from .speech.streaming import Latency
    from .speech.vad import SileroVad
    from .transducer import TransducerSpec

__version__ = "0.2.0"

__all__ = [
    "AudioWarning",
    "Beam",
    "BundleError",
    "CallableNetwork",
    "Confidence",
    "Decoder",
    "DecoderState",
    "DeviceError",
    "ExceptTokens",
    "Greedy",
    "Hypothesis",
    "InputError",
    "Latency",
    "LanguageModelWarning",
    "MissingDependencyError",
    "NgramLM",
    "OnlyTokens",
    "PhraseBoost",
    "PhraseWarning",
    "Progress",
    "Recognizer",
    "ScoringFunction",
    "Script",
    "SileroVad",
    "SkippedInputWarning",
    "SlowerWarning",
    "SpeechSegment",
    "TdtDecodeError",
    "TdtDecodeWarning",
    "Transcript",
    "TransducerSpec",
    "UnsupportedVersionError",
    "Word",
    "kernels",
    "load_model",
]

_HOMES = {
    "Beam": "search",
    "CallableNetwork": "networks.callable",
    "Confidence": "confidence",
    "Decoder": "decoder",
    "DecoderState": "decoder",
    "ExceptTokens": "allowed",
    "Greedy": "search",
    "Hypothesis": "hypothesis",
    "Latency": "speech.streaming",
    "NgramLM": "fusion",
    "OnlyTokens": "allowed",
    "PhraseBoost": "fusion",
    "Progress": "speech.progress",
    "Recognizer": "speech.recognizer",
    "ScoringFunction": "fusion",
    "Script": "allowed",
    "SileroVad": "speech.vad",
    "SpeechSegment": "hypothesis",
    "Transcript": "hypothesis",
    "TransducerSpec": "transducer",
    "Word": "hypothesis",
    "load_model": "speech.loading",
}
"""The module of each name that is not an error's."""


def __getattr__(name: str) -> object:
    # Modules are imported on first use: the command line can answer, and be interrupted, before anything is loaded.
    if name == "kernels":
        return _import_module(".kernels", __name__)
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(f".{_HOMES.get(name, 'errors')}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
