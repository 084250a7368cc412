"""The split layout of sherpa-onnx: encoder, decoder and joiner, with tokens.txt."""

from __future__ import annotations

from pathlib import Path

from .description import BundleFiles
from .layouts import find_token_file, require, variants_of
from .tokens import read_symbol_table

PREDICTOR = "decoder.onnx"
JOINT = "joiner.onnx"


def read(directory: Path, variant: str | None) -> BundleFiles:
    """Find the files of a split bundle. Its settings are in the encoder's metadata, which `read_encoder` reads."""
    graphs = require(directory, "split", (PREDICTOR, JOINT), variant)
    token_file = find_token_file(directory, ("tokens.txt", "vocab.txt"))
    return BundleFiles(
        layout="split",
        graphs=graphs,
        encoders=variants_of(directory, "encoder.onnx", variant),
        vocabulary=read_symbol_table(token_file),
        token_file=token_file,
    )
