"""What the results of a job depend on: a run that goes on with another's results must have the same."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bundle import Bundle
from .transcription import Fields

if TYPE_CHECKING:
    from ..search import Beam, Greedy
    from ..speech.vad import SileroVad


def settings_of(
    bundle: Bundle, search: Greedy | Beam, fields: Fields, *, network: str = "auto", precision: str = "float32",
    tf32: bool = False, language: str | None = None, vad: SileroVad | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What results depend on, by name, as JSON values.

    Devices, kernels, threads and the size of batches are not among them: results are the same on each.

    Parameters
    ----------
    bundle:
        The model. It counts with the content of its files, wherever they are.
    search:
        The search. Language models and phrases count with their content.
    fields:
        What results consist of.
    network, precision, tf32:
        As for `load_model`.
    language, vad:
        As for `Recognizer.recognize`.
    """
    fusion = hashlib.sha256()
    for part in search.fusion:
        with contextlib.suppress(Exception):  # functions that cannot be pickled are known by their names alone
            fusion.update(pickle.dumps(part))
    return {
        "model": model_digest(bundle),
        "layout": bundle.layout,
        "variant": bundle.variant,
        "network": network,
        "precision": precision,
        "tf32": tf32,
        "search": repr(search),
        "fusion": fusion.hexdigest() if search.fusion else None,
        "words": fields.words,
        "language": language,
        "vad": None if vad is None else repr(vad),
    }


def model_digest(bundle: Bundle) -> str:
    """A digest of all that makes a model: its files, the weights beside them, vocabulary, features and durations."""
    graphs = {graph.file.resolve() for graph in bundle.transducer.graphs}
    graphs |= {bundle.encoder.resolve()} if bundle.encoder is not None else set()
    files = set(graphs)
    for other in bundle.directory.rglob("*"):
        if other.suffix != ".onnx" and other.is_file() and any(_mentions(graph, other.name) for graph in graphs):
            files.add(other.resolve())
    # The digests are sorted, not the files: of a hub's snapshot only the links have speaking names.
    digests = sorted(_content(file) for file in files)
    facts = repr((bundle.spec, bundle.vocabulary.pieces, bundle.features))
    return hashlib.sha256("\n".join([*digests, facts]).encode()).hexdigest()


def _content(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _mentions(graph: Path, name: str) -> bool:
    """Whether a graph has a file of this name for its weights."""
    with open(graph, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(name.encode()) >= 0
