"""The layout of onnxruntime-genai and Olive: encoder, decoder and joint, described by genai_config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import BundleError
from .description import BundleFiles, Stated, StatedWindows
from .files import find_file, read_json
from .layouts import choose_files, stated_count, stated_durations
from .tokens import read_pieces

CONFIGURATION = "genai_config.json"

STREAMING_TYPE = "nemotron_speech"
"""The ``type`` of models with a cache-aware encoder."""

_HOP = 160
"""Samples per feature frame, if the configuration does not state them."""


def read(directory: Path, variant: str | None) -> BundleFiles:
    """Find the files that genai_config.json names, and read its settings."""
    file = find_file(directory, CONFIGURATION)
    if file is None:
        raise BundleError(f"no {CONFIGURATION!r}, which the 'genai' layout needs", file=directory)
    model = _section(read_json(file), "model", file)
    chosen = choose_files(
        directory,
        "genai",
        (_graph_name(model, "decoder", "decoder.onnx", file), _graph_name(model, "joiner", "joint.onnx", file)),
        _graph_name(model, "encoder", "encoder.onnx", file),
        variant,
    )
    symbols, token_file, blank = _symbols(directory, model, file)
    audio_file, audio = _audio_settings(directory, model, file)
    durations = model.get("tdt_durations")
    mel_bins = (stated_count(model, file, "num_mels"), stated_count(audio, audio_file, "n_mels"))
    return BundleFiles(
        layout="genai",
        chosen=chosen,
        symbols=symbols,
        token_file=token_file,
        blank=blank,
        durations=None if durations is None else stated_durations(durations, file, "model.tdt_durations"),
        mel_bins=tuple(stated for stated in mel_bins if stated is not None),
        subsampling_factor=stated_count(model, file, "subsampling_factor"),
        sample_rate=stated_count(model, file, "sample_rate"),
        normalize=Stated(audio["normalize"], audio_file, "audio_params.normalize") if "normalize" in audio else None,
        windows=stated_windows(model, file),
    )


def stated_windows(model: dict[str, Any], file: Path) -> StatedWindows:
    """The windows of a ``nemotron_speech`` model: samples of a chunk, and feature frames before it."""
    samples = stated_count(model, file, "chunk_samples")
    hop = stated_count(model, file, "hop_length")
    overlap = stated_count(model, file, "pre_encode_cache_size", low=0)
    if model.get("type") != STREAMING_TYPE or samples is None:
        return StatedWindows()
    shift, rest = divmod(samples.value, _HOP if hop is None else hop.value)
    if rest:
        raise BundleError(
            f"{samples.value} samples are no whole number of feature frames", file=file, field="model.chunk_samples",
        )  # fmt: skip
    return StatedWindows(
        overlap, Stated(shift, file, "model.chunk_samples"), stated_count(model, file, "left_context")
    )


def _symbols(
    directory: Path, model: dict[str, Any], file: Path
) -> tuple[tuple[str, ...], Path, Stated[int] | None]:
    """The entries by id, the file they are in, and the blank's id, if it is stated."""
    stated = stated_count(model, file, "vocab_size", low=2)
    if stated is None:
        raise BundleError(
            "missing; expected the number of tokens, counting the blank", file=file, field="model.vocab_size"
        )
    entries = stated.value
    blank = stated_count(model, file, "blank_id", low=0)
    blank_id = entries - 1 if blank is None else blank.value
    if blank_id >= entries:
        raise BundleError(
            f"{blank_id} is outside a vocabulary of {entries} (vocab_size counts the blank)", file=file,
            field="model.blank_id",
        )
    for name in ("vocab.txt", "tokenizer.json"):
        token_file = find_file(directory, name)
        if token_file is not None:
            return read_pieces(token_file, entries, blank_id), token_file, blank
    raise BundleError("no token file: looked for vocab.txt and tokenizer.json", file=directory)


def _audio_settings(directory: Path, model: dict[str, Any], file: Path) -> tuple[Path, dict[str, Any]]:
    name = _section(model, "speech", file).get("config_filename", "audio_processor_config.json")
    audio_file = find_file(directory, _file_name(name, file, "model.speech.config_filename"))
    if audio_file is None:
        return file, {}
    return audio_file, _section(read_json(audio_file), "audio_params", audio_file)


def _graph_name(model: dict[str, Any], section: str, default: str, file: Path) -> str:
    name = _section(model, section, file).get("filename", default)
    return _file_name(name, file, f"model.{section}.filename")


def _file_name(name: Any, file: Path, field: str) -> str:
    if not isinstance(name, str) or not name or "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise BundleError(f"expected the name of a file in the directory, got {name!r:.80}", file=file, field=field)
    return name


def _section(data: dict[str, Any], name: str, file: Path) -> dict[str, Any]:
    section = data.get(name, {})
    if not isinstance(section, dict):
        raise BundleError(f"expected an object, got {section!r:.60}", file=file, field=name)
    return section
