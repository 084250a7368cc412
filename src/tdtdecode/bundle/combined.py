"""The combined layout, which NeMo's export writes and onnx-asr reads: predictor and joint in one graph, vocab.txt.

parakeet-rs and others have other names for the graphs (`names`), and the vocabulary as SentencePiece's model or JSON.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .description import BundleFiles, Stated, StatedWindows
from .files import find_file, read_json
from .layouts import choose_files, find_token_file, stated_count, stated_durations
from .names import names_of
from .tokens import read_sentencepiece, read_symbol_table, read_vocabulary_json

CONFIGURATION = "config.json"
TOKEN_FILES = {
    "vocab.txt": read_symbol_table, "tokens.txt": read_symbol_table, "tokenizer.model": read_sentencepiece,
    "vocab.json": read_vocabulary_json,
}  # fmt: skip
"""How each token file is read that a combined bundle may have, the layout's own first."""


def read(directory: Path, variant: str | None) -> BundleFiles:
    """Find the files of a combined bundle, and read the settings in its config.json, if it has one."""
    names = names_of("combined", directory, variant)
    chosen = choose_files(directory, "combined", names.graphs, names.encoder, variant)
    token_file = find_token_file(directory, TOKEN_FILES)
    file = find_file(directory, CONFIGURATION)
    data = {} if file is None else read_json(file)
    source = file or directory / CONFIGURATION
    mel_bins = stated_count(data, source, "features_size")
    durations = data.get("tdt_durations")
    return BundleFiles(
        layout="combined",
        chosen=chosen,
        symbols=TOKEN_FILES[token_file.name](token_file),
        token_file=token_file,
        mel_bins=() if mel_bins is None else (mel_bins,),
        subsampling_factor=stated_count(data, source, "subsampling_factor"),
        durations=None if durations is None else stated_durations(durations, source, "tdt_durations"),
        normalize=Stated(data["normalize_type"], source, "normalize_type") if "normalize_type" in data else None,
        model_type=Stated(data["model_type"], source, "model_type") if "model_type" in data else None,
        windows=stated_windows(data, source),
    )


def stated_windows(data: dict[str, Any], file: Path) -> StatedWindows:
    """The windows of a cache-aware encoder, in the names that metadata has."""
    window, shift = (stated_count(data, file, name) for name in ("window_size", "chunk_shift"))
    if window is None or shift is None or window.value < shift.value:
        return StatedWindows()
    return StatedWindows(Stated(window.value - shift.value, file, "window_size"), shift)
