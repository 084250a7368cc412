"""Writing model directories in any layout."""

from __future__ import annotations

import shutil
from pathlib import Path

from ...arguments import as_choice
from ...bundle.cached_encoder import read_caches
from ...bundle.description import Bundle
from ...bundle.files import TEXT_LIMIT, find_file
from ...bundle.names import COMBINED_NAMES, GraphNames
from ...bundle.onnx_files.graph import load_graph
from ...bundle.transducers import SplitTransducer
from ...errors import BundleError
from . import combined, genai, split
from .content import Content, state_big_blanks
from .graphs import separate_modules

__all__ = ["WRITERS", "Content", "check_layout", "content_of", "copy_texts", "write_layout"]

WRITERS = {"split": split.write, "combined": combined.write, "genai": genai.write}
"""The writer of each layout: (content, folder, suffix of the graphs' names) -> None.

That of the combined layout also takes what it calls its graphs.
"""

_COMPANIONS = ("readme", "license", "licence", "notice", "copying")
"""Beginnings of the names of files that are copied along into any layout."""


def check_layout(to: str) -> None:
    """Raise an `InputError` if `to` is not a layout that can be written."""
    as_choice("to", to, WRITERS)


def content_of(bundle: Bundle) -> Content:
    """Read a bundle's graphs again, from their files, and separate predictor and joint.

    Raises
    ------
    BundleError
        If it is a model of k2, which no other layout can hold.
    """
    spec = bundle.spec
    if isinstance(bundle.transducer, SplitTransducer) and bundle.transducer.predictor.context is not None:
        raise BundleError(
            "a model of k2, whose predictor has no states: only the split layout, in which it is, can hold it",
            file=bundle.directory,
        )
    modules = separate_modules(bundle.transducer, bundle.directory, bundle.vocabulary.blank, spec.encoder_size)
    encoder = None if bundle.encoder is None else load_graph(bundle.encoder, bundle.directory)
    caches = None
    if encoder is not None and bundle.cache_aware:
        caches = read_caches(encoder, bundle.windows, bundle.features.mel_bins)
    return Content(spec, bundle.vocabulary, bundle.features, modules, encoder, caches)


def write_layout(bundle: Bundle, folder: Path, to: str, names: GraphNames = COMBINED_NAMES[0]) -> None:
    """Write a bundle into a folder, in a layout. README and licence files are copied along.

    ``names`` is what the combined layout calls its graphs.

    Raises
    ------
    BundleError
        If the layout cannot hold the model. The message says why.
    """
    suffix = "" if bundle.variant is None else f".{bundle.variant}"
    content = content_of(bundle)
    if to == "combined":
        combined.write(content, folder, suffix, names)
    else:
        WRITERS[to](content, folder, suffix)
    if bundle.spec.big_blanks:
        state_big_blanks(folder, bundle.spec.big_blanks, folder.joinpath)
    copy_texts(bundle.directory, folder, ())


def copy_texts(directory: Path, folder: Path, suffixes: tuple[str, ...]) -> None:
    """Copy the README and licence files of a model directory, and files with the given suffixes.

    Raises
    ------
    BundleError
        If a file leads outside the directory, is not a regular file, or is larger than `TEXT_LIMIT`.
    """
    for path in sorted(directory.iterdir()):
        name = path.name.lower()
        if path.is_dir() or not (name.startswith(_COMPANIONS) or name.endswith(suffixes)):
            continue
        if find_file(directory, path.name) is not None:
            if path.stat().st_size > TEXT_LIMIT:
                raise BundleError(f"larger than {TEXT_LIMIT} bytes, the most that a text file may have", file=path)
            shutil.copyfile(path, folder / path.name)
