"""Families of encoders: what their inputs are for, and which features they take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BundleError
from .description import Stated
from .onnx_files.graph import Graph, Port

OFFLINE = "whole recordings"
"""The family that takes features and their lengths, and nothing else."""

_CACHES = "cache-aware streaming"
_PROMPT = "language prompt"
_OTHERS = ((_PROMPT, ("prompt", "lang")), ("speakers to follow", ("spk", "speaker")))
"""Inputs that encoders of any family may have besides, with parts of their names."""


def is_cache_aware(graph: Graph) -> bool:
    """Whether an encoder goes over a recording window by window, with caches: it has inputs for them."""
    return any(is_cache(port) for port in graph.inputs)


def is_cache(port: Port) -> bool:
    """Whether a port is a cache: it is called so, or has an axis for layers besides those of the frames."""
    return _part_of(port) == _CACHES


def is_prompt(port: Port) -> bool:
    """Whether a port is the number of a language, by its name."""
    return _part_of(port) == _PROMPT


def encoder_family(graph: Graph) -> str:
    """What an encoder expects besides features and their lengths, for messages: `OFFLINE` if nothing.

    NeMo, parakeet-rs and onnxruntime-genai all have "cache" in the names of caches. Inputs that nothing is known about
    are named.
    """
    rest = list(graph.inputs)
    for kind, rank in ((True, 3), (False, 1)):
        known = [port for port in graph.inputs if (port.is_float, port.rank) == (kind, rank)]
        plain = [port for port in known if _part_of(port) is None]
        if plain:
            rest.remove(plain[0])
    parts = list(dict.fromkeys(_part_of(port) or f"unknown input {port.name}" for port in rest))
    if not parts:
        return OFFLINE
    first = _CACHES if _CACHES in parts else OFFLINE
    others = [part for part in parts if part != first]
    return f"{first}, with {' and '.join(others)}" if others else first


def _part_of(port: Port) -> str | None:
    """What an input is for, if its name or its rank tells."""
    name = port.name.lower()
    if "cache" in name or (port.is_float and port.rank == 4):
        return _CACHES
    return next((part for part, words in _OTHERS if any(word in name for word in words)), None)


_OF_K2 = ("zipformer", "kaldi", "icefall", "vosk", "k2")
_OTHER_FEATURES = ("whisper", "t-one", "paraformer", "sense", "wenet")
"""What the types of models begin with that take Kaldi's features, if their graphs are k2's too; and others' features.
"""


def feature_family(
    metadata: Mapping[str, str], file: Path, model_type: Stated[Any] | None, of_k2: bool = False
) -> str:
    """The family of features that an encoder takes, of those that this package computes.

    Features of other families may have the same shape, so nothing but a name tells them apart. sherpa-onnx marks GigaAM
    by ``is_giga_am``; its export scripts write the version of GigaAM. The features are those of the third version, and
    of the first and second if those are named.

    Parameters
    ----------
    metadata, file:
        The encoder's metadata, and its file, for messages.
    model_type:
        The type of the model in a configuration, if it states one.
    of_k2:
        Whether predictor or encoder are of k2's kind, which takes Kaldi's features whatever the type is.

    Raises
    ------
    BundleError
        If the model is of a type that takes other features.
    """
    types = [model_type] if model_type is not None else []
    if "model_type" in metadata:
        types.append(Stated(metadata["model_type"], file, "model_type"))
    for stated in types:
        name = str(stated.value).lower()
        if name.startswith(_OTHER_FEATURES) or (name.startswith(_OF_K2) and not of_k2):
            raise BundleError(
                f"{stated.value}: models of this type take features that this package does not compute; it computes "
                "those of NeMo and GigaAM, and Kaldi's for models whose graphs are k2's", file=stated.file,
                field=stated.field,
            )  # fmt: skip
        if name.startswith("gigaam"):
            return "gigaam-v2" if name.startswith(("gigaam-v1", "gigaam-v2")) else "gigaam"
    if of_k2:
        return "kaldi"
    if metadata.get("is_giga_am", "0").strip() in ("", "0"):
        return "nemo"
    of_gigaam = "gigaam" in metadata.get("model_author", "").lower()
    return "gigaam-v2" if of_gigaam and metadata.get("version") in ("1", "2") else "gigaam"
