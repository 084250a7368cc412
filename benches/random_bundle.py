"""Writes model directories with random weights, of any size, in every layout and precision, for tests and benchmarks.

    python -m benches.random_bundle OUT --layout combined --vocab-size 8192

The same sizes and seed give the same weights in every layout.
"""

from __future__ import annotations

import argparse
import json
import os
import string
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from . import nemo_graphs
from .random_weights import Weights, random_encoder_out, random_weights

__all__ = ["LAYOUTS", "PRECISIONS", "make_bundle", "random_encoder_out", "random_weights", "write_bundle"]

LAYOUTS = ("split", "combined", "genai")
PRECISIONS = ("fp32", "fp16", "int8")
"""Files of fp32 have no suffix. The others are written as variants, ``*.fp16.onnx`` and ``*.int8.onnx``."""


def make_bundle(
    directory: str | os.PathLike[str],
    layout: str = "combined",
    vocab_size: int = 1024,
    durations: Sequence[int] = (0, 1, 2, 3, 4),
    encoder_size: int = 1024,
    predictor_size: int = 640,
    predictor_layers: int = 2,
    joint_size: int = 640,
    *,
    blank: str = "last",
    precision: str = "fp32",
    external_weights: bool = False,
    activation: str = "relu",
    biases: bool = True,
    static_batch: bool | None = None,
    mel_bins: int | None = None,
    position_frames: int | None = None,
    tokens_per_second: float | None = 3.3,
    seed: int = 0,
) -> Path:
    """Write a random model and return its directory, which is created if it does not exist.

    Parameters
    ----------
    layout:
        One of `LAYOUTS`.
    blank:
        ``"last"`` or ``"first"``.
    precision:
        One of `PRECISIONS`. int8 is dynamic quantisation, as in the official exports.
    external_weights:
        Keep weights in ``*.onnx.data`` beside each graph.
    activation:
        The joint's activation: ``"relu"``, ``"tanh"`` or ``"sigmoid"``.
    biases:
        Whether LSTM and joint have biases. Without them the rate of tokens cannot be tuned.
    static_batch:
        Whether the batch size is fixed at 1 where an export may fix it (split: the second state, GenAI: everywhere,
        combined: the states). Default: as in the layout's official export, true for split and GenAI, false for
        combined.
    mel_bins:
        Also write a tiny encoder, for that many mel bins.
    position_frames:
        Length of the encoder's position table, in encoder frames. Default: it has none.
    tokens_per_second:
        Tune the weights so that greedy search emits this many tokens per second on `random_encoder_out` of the same
        seed. None leaves the rate to chance.
    """
    weights = random_weights(
        vocab_size, durations, encoder_size, predictor_size, predictor_layers, joint_size,
        blank=blank, activation=activation, biases=biases, tokens_per_second=tokens_per_second, seed=seed,
    )
    encoder = None
    if mel_bins is not None:
        dtype = np.dtype(np.float16 if precision == "fp16" else np.float32)
        encoder = nemo_graphs.encoder_graph(mel_bins, encoder_size, dtype, seed, position_frames)
    return write_bundle(
        directory, layout, weights, random_pieces(weights), encoder,
        precision=precision, external_weights=external_weights, static_batch=static_batch,
    )


def write_bundle(
    directory: str | os.PathLike[str],
    layout: str,
    weights: Weights,
    pieces: Sequence[str],
    encoder: onnx.ModelProto | None = None,
    *,
    precision: str = "fp32",
    external_weights: bool = False,
    static_batch: bool | None = None,
    mel_bins: int | None = None,
) -> Path:
    """Write a model directory with the weights, V + 1 pieces (blank among them) and encoder graph given.

    The other options are those of `make_bundle`. Without an encoder graph, ``mel_bins`` is what the directory states of
    an encoder that is put there by other means.
    """
    if layout not in LAYOUTS or precision not in PRECISIONS:
        raise ValueError(f"unknown layout {layout!r} or precision {precision!r}")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    dtype = np.dtype(np.float16 if precision == "fp16" else np.float32)
    static = layout != "combined" if static_batch is None else static_batch
    if layout == "split":
        decoder, joiner = nemo_graphs.split_graphs(weights, dtype, static)
        graphs = {"decoder": decoder, "joiner": joiner}
    elif layout == "combined":
        graphs = {"decoder_joint-model": nemo_graphs.combined_graph(weights, dtype, static)}
    else:
        decoder, joint = nemo_graphs.genai_graphs(weights, dtype, static)
        graphs = {"decoder": decoder, "joint": joint}
    if encoder is not None:
        mel_bins = encoder.graph.input[0].type.tensor_type.shape.dim[1].dim_value
        if layout == "split":
            add_metadata(encoder, weights, mel_bins)
        graphs["encoder-model" if layout == "combined" else "encoder"] = encoder
    suffix = "" if precision == "fp32" else f".{precision}"
    for stem, model in graphs.items():
        if precision == "int8":
            model = _quantized(model)
        _save(model, directory / f"{stem}{suffix}.onnx", external_weights)
    _DESCRIPTIONS[layout](directory, weights, pieces, mel_bins)
    return directory


def random_pieces(weights: Weights) -> list[str]:
    """V + 1 pieces by id. Every second one begins a word."""
    names = []
    letters = string.ascii_lowercase
    for i in range(weights.vocab_size):
        name, n = "", i
        while True:
            n, letter = divmod(n, len(letters))
            name = letters[letter] + name
            if n == 0:
                break
        names.append(f"\u2581{name}" if i % 2 == 0 else name)
    names.insert(weights.blank, "<blk>")
    return names


def _describe_split(directory: Path, weights: Weights, pieces: Sequence[str], mel_bins: int | None) -> None:
    _write_symbols(directory / "tokens.txt", pieces)


def _describe_combined(directory: Path, weights: Weights, pieces: Sequence[str], mel_bins: int | None) -> None:
    _write_symbols(directory / "vocab.txt", pieces)
    model_type = "nemo-conformer-tdt" if weights.durations else "nemo-conformer-rnnt"
    configuration = {"model_type": model_type, "subsampling_factor": nemo_graphs.SUBSAMPLING}
    if mel_bins is not None:
        configuration["features_size"] = mel_bins
    _write_json(directory / "config.json", configuration)


def _describe_genai(directory: Path, weights: Weights, pieces: Sequence[str], mel_bins: int | None) -> None:
    names = ["<blank>" if name == "<blk>" else name for name in pieces]
    (directory / "vocab.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    tokenizer = {"version": "1.0", "added_tokens": [], "model": {"type": "Unigram", "vocab": [[n, 0.0] for n in names]}}
    _write_json(directory / "tokenizer.json", tokenizer)
    _write_json(directory / "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer"})
    model = {
        "type": "parakeet_tdt",
        "vocab_size": len(names),
        "blank_id": weights.blank,
        "sample_rate": 16000,
        "subsampling_factor": nemo_graphs.SUBSAMPLING,
        "tdt_durations": list(weights.durations),
        "encoder": {"filename": "encoder.onnx"},
        "decoder": {"filename": "decoder.onnx"},
        "joiner": {"filename": "joint.onnx"},
        "speech": {"config_filename": "audio_processor_config.json"},
    }
    audio = {"sample_rate": 16000, "normalize": "per_feature"}
    if mel_bins is not None:
        model["num_mels"] = audio["n_mels"] = mel_bins
    _write_json(directory / "genai_config.json", {"model": model, "search": {}})
    _write_json(directory / "audio_processor_config.json", {"model_type": "speech_features", "audio_params": audio})


_DESCRIPTIONS = {"split": _describe_split, "combined": _describe_combined, "genai": _describe_genai}


def _write_symbols(file: Path, pieces: Sequence[str]) -> None:
    lines = [f"{piece} {i}\n" for i, piece in enumerate(pieces)]
    file.write_text("".join(lines), encoding="utf-8")


def _write_json(file: Path, value: dict) -> None:
    file.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")


def add_metadata(encoder: onnx.ModelProto, weights: Weights, mel_bins: int) -> None:
    kind = "tdt" if weights.durations else "rnnt"
    entries = {
        "vocab_size": weights.vocab_size,
        "normalize_type": "per_feature",
        "pred_rnn_layers": len(weights.layers),
        "pred_hidden": weights.embedding.shape[1],
        "subsampling_factor": nemo_graphs.SUBSAMPLING,
        "model_type": "EncDecRNNTBPEModel",
        "version": "2",
        "model_author": "random",
        "url": f"random-{kind}",
        "comment": "random weights",
        "feat_dim": mel_bins,
    }
    onnx.helper.set_model_props(encoder, {key: str(value) for key, value in entries.items()})


def _quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, source)
        quantize_dynamic(source, target, weight_type=QuantType.QInt8)
        return onnx.load(target)


def _save(model: onnx.ModelProto, file: Path, external: bool) -> None:
    data = f"{file.name}.data"
    file.with_name(data).unlink(missing_ok=True)
    if external:
        onnx.save(model, file, save_as_external_data=True, location=data, size_threshold=0)
    else:
        onnx.save(model, file)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benches.random_bundle", description="Write a model directory with random weights."
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--layout", choices=LAYOUTS, default="combined")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--vocab-size", type=int, default=1024)
    parser.add_argument("--durations", type=int, nargs="*", default=[0, 1, 2, 3, 4], help="none for RNN-T")
    parser.add_argument("--encoder-size", type=int, default=1024)
    parser.add_argument("--predictor-size", type=int, default=640)
    parser.add_argument("--predictor-layers", type=int, default=2)
    parser.add_argument("--joint-size", type=int, default=640)
    parser.add_argument("--blank", choices=("last", "first"), default="last")
    parser.add_argument("--activation", choices=("relu", "tanh", "sigmoid"), default="relu")
    parser.add_argument("--no-biases", dest="biases", action="store_false")
    parser.add_argument("--external-weights", action="store_true")
    parser.add_argument("--mel-bins", type=int, help="also write a tiny encoder, for that many mel bins")
    parser.add_argument("--position-frames", type=int, help="length of the encoder's position table")
    parser.add_argument("--tokens-per-second", type=float, default=3.3)
    parser.add_argument("--seed", type=int, default=0)
    print(make_bundle(**vars(parser.parse_args(arguments))))


if __name__ == "__main__":
    main()
