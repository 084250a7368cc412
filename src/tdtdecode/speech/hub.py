"""Model directories by name: the demo model, a directory, or a repository of the Hugging Face hub."""

from __future__ import annotations

import os
import re
from importlib.resources import files
from os import PathLike
from pathlib import Path

from ..arguments import refusal
from ..bundle.layouts import check_variant, match_variants
from ..errors import InputError
from ..optional import needed

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_EXPECTED = "'demo', an existing directory, or a Hugging Face hub id such as 'organisation/name'"
_GRAPHS = (
    "encoder", "decoder", "joiner", "joint", "encoder-model", "decoder_joint-model", "decoder_joint",
    "parakeet-encoder", "parakeet-decoder-joint",
)  # fmt: skip
_OF_K2 = tuple(
    pattern for part in ("encoder", "decoder", "joiner")
    for pattern in (f"am-onnx/{part}", f"{part}-epoch-*-avg-[0-9]", f"{part}-epoch-*-avg-[0-9][0-9]")
)  # fmt: skip
"""Patterns of the names in Vosk's folders, and of those that icefall gives after a training."""
_TEXTS = (
    "tokens.txt", "vocab.txt", "config.json", "genai_config.json", "audio_processor_config.json", "tokenizer.json",
    "tokenizer_config.json", "tokenizer.model", "vocab.json", "lang/tokens.txt", "model_config.yaml",
)


def find_model(name: str | PathLike[str], variant: str | None = None) -> Path:
    """The directory of a model.

    Parameters
    ----------
    name:
        ``"demo"`` for the model inside this package; a directory; or ``"organisation/name"`` for a repository of the
        Hugging Face hub. From the hub only the files of the variant are downloaded, and its cache is used. A
        directory ``demo`` in the current folder is named ``"./demo"``.
    variant:
        The files to download: ``"int8"``, ``"fp16"``, ... None: those without a suffix, else the only variant there is.

    Raises
    ------
    InputError
        If `name` is none of these, or the hub cannot provide it.
    MissingDependencyError
        If `name` has the form of a hub id and huggingface_hub is not installed.
    """
    check_variant(variant)
    if isinstance(name, str) and name == "demo":
        return demo_directory()
    if isinstance(name, (str, PathLike)) and os.path.isdir(name):
        return Path(name)
    if not isinstance(name, (str, PathLike)):
        raise refusal("the model", f"{_EXPECTED}, as text or pathlib.Path", name)
    if not isinstance(name, str) or not _HUB_ID.fullmatch(name):
        raise InputError(f"no model {os.fspath(name)!r}: expected {_EXPECTED}")
    purpose = f"{name!r} is neither 'demo' nor a directory here; downloading it from the Hugging Face hub"
    with needed("huggingface_hub", "hub", purpose):
        import huggingface_hub
    try:
        directory = Path(huggingface_hub.snapshot_download(name, allow_patterns=_patterns(variant)))
        if variant is None and not any(directory.glob("*encoder*.onnx")):
            others = _variants(huggingface_hub.list_repo_files(name))
            if len(others) > 1:
                listed = ", ".join(sorted(others))
                raise InputError(f"{name} has no encoder without a suffix: choose a variant ({listed})")
            if others:
                huggingface_hub.snapshot_download(name, allow_patterns=_patterns(others.pop()))
        return directory
    except InputError:
        raise
    except Exception as error:  # huggingface_hub raises errors of several packages, which differ between its releases
        raise InputError(
            f"no model {name!r}: it is neither 'demo' nor a directory here, and the Hugging Face hub does not provide "
            f"it ({type(error).__name__}: {error})"
        ) from error


def demo_directory() -> Path:
    """The demonstration model, which comes with the package."""
    return Path(str(files("tdtdecode") / "demo"))


def _variants(names: list[str]) -> set[str]:
    """The suffixes of the encoders among the files of a repository."""
    found = (match_variants(names, f"{name}.onnx", None) for name in _GRAPHS if name.startswith("encoder"))
    return {suffix for files in found for suffix in files if suffix is not None}


def _patterns(variant: str | None) -> list[str]:
    """Patterns for the files of one variant in any layout. A repository may hold gigabytes of other files."""
    suffix = "" if variant is None else f"[._-]{variant}"
    ends = (".onnx", ".onnx[._]data", ".data", ".weights")
    graphs = [f"{name}{suffix}{end}" for name in (*_GRAPHS, *_OF_K2) for end in ends]
    return [*graphs, *_TEXTS]
