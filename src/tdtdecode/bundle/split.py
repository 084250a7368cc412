"""The split layout of sherpa-onnx: encoder, decoder and joiner, with tokens.txt. Vosk has them in two folders."""

from __future__ import annotations

from pathlib import Path

from .description import BundleFiles
from .layouts import choose_files, find_token_file
from .names import VOSK, names_of
from .tokens import read_symbol_table

TOKEN_FILES = ("tokens.txt", "vocab.txt")
VOSK_TOKENS = "lang/tokens.txt"


def read(directory: Path, variant: str | None) -> BundleFiles:
    """Find the files of a split bundle. Its settings are in the encoder's metadata, which `read_encoder` reads."""
    names = names_of("split", directory, variant)
    chosen = choose_files(directory, "split", names.graphs, names.encoder, variant)
    token_file = find_token_file(directory, (VOSK_TOKENS,) if names == VOSK else TOKEN_FILES)
    return BundleFiles(
        layout="split",
        chosen=chosen,
        symbols=read_symbol_table(token_file),
        token_file=token_file,
    )
