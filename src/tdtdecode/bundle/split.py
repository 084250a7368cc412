"""The split layout of sherpa-onnx: encoder, decoder and joiner, with tokens.txt."""

from __future__ import annotations

from pathlib import Path

from .description import Found
from .layouts import find_token_file, require, variants_of
from .tokens import read_symbol_table

PREDICTOR = "decoder.onnx"
JOINT = "joiner.onnx"


def read(directory: Path, variant: str | None) -> Found:
    """Find the files of a split bundle; what is written about it is in the encoder's metadata."""
    graphs = require(directory, "split", (PREDICTOR, JOINT), variant)
    token_file = find_token_file(directory, ("tokens.txt", "vocab.txt"))
    return Found(
        layout="split",
        graphs=graphs,
        encoders=variants_of(directory, "encoder.onnx", variant),
        vocabulary=read_symbol_table(token_file),
        token_file=token_file,
    )
