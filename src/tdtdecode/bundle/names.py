"""What the graphs of the split and the combined layout are called. Names are hints: where none is known, ports tell."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import BundleError
from .layouts import variants_of
from .roles import COMBINED, ENCODER, JOINT, PREDICTOR, names_by_role


@dataclass(frozen=True)
class GraphNames:
    """The names of files without a variant's suffix.

    Attributes
    ----------
    encoder:
        Of the encoder.
    graphs:
        Of predictor and joint, or of the combined graph.
    """

    encoder: str
    graphs: tuple[str, ...]


SPLIT = GraphNames("encoder.onnx", ("decoder.onnx", "joiner.onnx"))
COMBINED_CONVENTIONS = {
    "nemo": GraphNames("encoder-model.onnx", ("decoder_joint-model.onnx",)),
    "parakeet-rs": GraphNames("encoder.onnx", ("decoder_joint.onnx",)),
    "soniqo": GraphNames("parakeet-encoder.onnx", ("parakeet-decoder-joint.onnx",)),
}
"""What the combined layout calls them, by whose convention it is. NeMo's is onnx-asr's as well."""

COMBINED_NAMES = tuple(COMBINED_CONVENTIONS.values())

VOSK = GraphNames("am-onnx/encoder.onnx", ("am-onnx/decoder.onnx", "am-onnx/joiner.onnx"))
_OF_TRAINING = re.compile(r"joiner([-_][\w-]*)(\.[\w.-]+)?\.onnx")
"""A joiner as icefall names it, after the training: ``joiner-epoch-99-avg-1.int8.onnx``."""


def split_names(directory: Path, variant: str | None) -> GraphNames | None:
    """What a directory calls encoder, predictor and joint; None if it does not have them.

    Raises
    ------
    BundleError
        If there are several models in the directory.
    """
    for names in (SPLIT, VOSK):
        if all(variants_of(directory, name, variant) for name in names.graphs):
            return names
    files = {path.name for path in directory.iterdir()}
    endings = sorted({match[1] for name in files if (match := _OF_TRAINING.fullmatch(name))})
    found = [
        names for ending in endings
        for names in [GraphNames(f"encoder{ending}.onnx", (f"decoder{ending}.onnx", f"joiner{ending}.onnx"))]
        if all(variants_of(directory, name, variant) for name in names.graphs)
    ]  # fmt: skip
    if len(found) > 1:
        listed = " and ".join(names.graphs[-1] for names in found)
        raise BundleError(f"several models: {listed}; put the files of one into a folder", file=directory)
    return found[0] if found else None


def combined_names(directory: Path, variant: str | None) -> GraphNames | None:
    """What a directory calls the encoder, and the graph of predictor and joint; None if it does not have that."""
    for names in COMBINED_NAMES:
        if variants_of(directory, names.graphs[0], variant):
            return names
    return None


def told_by_ports(directory: Path) -> tuple[str, GraphNames] | None:
    """The layout and the names of a directory whose graphs are called otherwise; None if there is no transducer.

    Raises
    ------
    BundleError
        If the directory has a joint with the argmax inside.
    """
    roles = names_by_role(directory)
    encoder = roles.get(ENCODER, SPLIT.encoder)
    if COMBINED in roles:
        return "combined", GraphNames(encoder, (roles[COMBINED],))
    if PREDICTOR in roles and JOINT in roles:
        return "split", GraphNames(encoder, (roles[PREDICTOR], roles[JOINT]))
    return None


def names_of(layout: str, directory: Path, variant: str | None) -> GraphNames:
    """What a directory in the split or the combined layout calls its graphs; the usual names if it has none of them."""
    known = split_names(directory, variant) if layout == "split" else combined_names(directory, variant)
    if known is not None:
        return known
    told = told_by_ports(directory)
    if told is not None and told[0] == layout:
        return told[1]
    return SPLIT if layout == "split" else COMBINED_NAMES[0]
