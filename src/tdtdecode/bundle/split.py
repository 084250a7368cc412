"""The split layout of sherpa-onnx: encoder, decoder and joiner, with tokens.txt."""

from __future__ import annotations

from pathlib import Path

from .description import BundleFiles
from .layouts import choose_files, find_token_file
from .tokens import read_symbol_table

ENCODER = "encoder.onnx"
PREDICTOR = "decoder.onnx"
JOINT = "joiner.onnx"


def read(directory: Path, variant: str | None) -> BundleFiles:
    """Find the files of a split bundle. Its settings are in the encoder's metadata, which `read_encoder` reads."""
    chosen = choose_files(directory, "split", (PREDICTOR, JOINT), ENCODER, variant)
    token_file = find_token_file(directory, ("tokens.txt", "vocab.txt"))
    return BundleFiles(
        layout="split",
        chosen=chosen,
        symbols=read_symbol_table(token_file),
        token_file=token_file,
    )
