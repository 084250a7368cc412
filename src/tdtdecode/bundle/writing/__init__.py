"""Writing model directories, in any layout."""

from __future__ import annotations

from pathlib import Path

from ..description import Bundle
from ..files import find_file
from ..graph import load_graph
from . import combined, genai, split
from .content import Content
from .graphs import separate_modules
from .saving import copy_file, new_directory

__all__ = ["WRITERS", "Content", "content_of", "new_directory", "write_layout"]

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
    for path in sorted(bundle.directory.iterdir()):
        if path.name.lower().startswith(_COMPANIONS) and path.is_file() and find_file(bundle.directory, path.name):
            copy_file(path, folder / path.name)
