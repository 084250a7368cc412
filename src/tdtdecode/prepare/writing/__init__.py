"""Writing model directories, in any layout."""

from __future__ import annotations

import shutil
from pathlib import Path

from ...bundle.description import Bundle
from ...bundle.files import TEXT_LIMIT, find_file
from ...bundle.onnx_files.graph import load_graph
from ...errors import BundleError
from . import combined, genai, split
from .content import Content
from .graphs import separate_modules

__all__ = ["WRITERS", "Content", "content_of", "copy_texts", "write_layout"]

WRITERS = {"split": split.write, "combined": combined.write, "genai": genai.write}
"""Writers by layout: (content, folder, suffix of the graphs' names)."""

_COMPANIONS = ("readme", "license", "licence", "notice", "copying")
"""How the names of files begin that go with the weights into any layout."""


def content_of(bundle: Bundle) -> Content:
    """A bundle taken apart, from its files."""
    spec = bundle.spec
    modules = separate_modules(bundle.transducer, bundle.directory, bundle.vocabulary.blank, spec.encoder_size)
    encoder = None if bundle.encoder is None else load_graph(bundle.encoder, bundle.directory)
    return Content(spec, bundle.vocabulary, bundle.features, modules, encoder)


def write_layout(bundle: Bundle, folder: Path, to: str) -> None:
    """Write a bundle into a folder in a layout; README and licence files go along.

    Raises
    ------
    BundleError
        If the model does not go into that layout; the message says why.
    """
    suffix = "" if bundle.variant is None else f".{bundle.variant}"
    WRITERS[to](content_of(bundle), folder, suffix)
    copy_texts(bundle.directory, folder, ())


def copy_texts(directory: Path, folder: Path, suffixes: tuple[str, ...]) -> None:
    """Copy README and licence files of a model directory, and those with the given suffixes.

    Raises
    ------
    BundleError
        If one leads outside the directory, is no regular file, or is larger than a text may be.
    """
    for path in sorted(directory.iterdir()):
        name = path.name.lower()
        if path.is_dir() or not (name.startswith(_COMPANIONS) or name.endswith(suffixes)):
            continue
        if find_file(directory, path.name) is not None:
            if path.stat().st_size > TEXT_LIMIT:
                raise BundleError(f"larger than the {TEXT_LIMIT} bytes that a text may have", file=path)
            shutil.copyfile(path, folder / path.name)
