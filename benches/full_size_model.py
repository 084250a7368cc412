"""Makes a model of Parakeet's size with random weights: NeMo's encoder, and a decoder tuned to what comes out of it.

    python -m benches.full_size_model OUT [--kind 0.6b-v3] [--encoder FILE]

OUT gets two model directories that share the encoder's weights: `combined`, as onnx-asr reads it, and `split`, as
sherpa-onnx does. Decoding emits about as many tokens per second as speech does. The export of the encoder needs NeMo
(pip install torch nemo_toolkit[asr]==3.0.0); FILE is an encoder that was exported before. Besides float32 files, both
directories get int8 ones, dynamically quantised.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import onnx

from tdtdecode.prepare import optimize
from tdtdecode.speech.audio import FeatureExtractor, read_audio
from tdtdecode.speech.hub import demo_directory

from .nemo_checkpoints import KINDS, encoder_settings
from .random_bundle import add_metadata, random_pieces, write_bundle
from .random_weights import random_weights

DATA = "encoder-model.onnx.data"
TOKENS_PER_SECOND = 3.3
TUNING_SAMPLES = 30 * 16_000


def export_encoder(kind: str, file: Path) -> None:
    """Let NeMo export an encoder of a kind, with random weights."""
    import torch
    from nemo.collections.asr.modules import ConformerEncoder

    torch.manual_seed(0)
    ConformerEncoder(**encoder_settings(KINDS[kind])).eval().export(str(file))


def speech_features(mel_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """The features of half a minute of the demo's speech, with faint noise: float32 [1, mel_bins, T], int64 [1]."""
    speech = np.resize(read_audio(demo_directory() / "speech.flac"), TUNING_SAMPLES)
    noise = 0.003 * np.random.default_rng(0).standard_normal(TUNING_SAMPLES)
    features, lengths = FeatureExtractor(mel_bins)([(speech + noise).astype(np.float32)])
    return features[:, :, : lengths[0]], lengths


def make(out: Path, kind: str, encoder: Path) -> None:
    """Write both directories, of an encoder that was exported."""
    import onnxruntime

    sizes = KINDS[kind]
    combined, split = out / "combined", out / "split"
    combined.mkdir(parents=True, exist_ok=True)
    file = combined / "encoder-model.onnx"
    onnx.save(onnx.load(encoder), file, save_as_external_data=True, location=DATA, size_threshold=1024)
    session = onnxruntime.InferenceSession(os.fspath(file), providers=["CPUExecutionProvider"])
    audio, length = (port.name for port in session.get_inputs())
    features, lengths = speech_features(sizes["mel"])
    frames = session.run(None, {audio: features, length: lengths})[0][0]
    del session
    weights = random_weights(
        sizes["pieces"], (0, 1, 2, 3, 4), sizes["width"], 640, sizes["predictor_layers"], 640,
        tokens_per_second=TOKENS_PER_SECOND, frames=frames,
    )  # fmt: skip
    pieces = random_pieces(weights)
    write_bundle(combined, "combined", weights, pieces, mel_bins=sizes["mel"])
    write_bundle(split, "split", weights, pieces, mel_bins=sizes["mel"])
    graph = onnx.load(file, load_external_data=False)
    add_metadata(graph, weights, sizes["mel"])
    onnx.save(graph, split / "encoder.onnx")
    (split / DATA).unlink(missing_ok=True)
    os.link(combined / DATA, split / DATA)
    write_bundle(split, "split", weights, pieces, precision="int8", mel_bins=sizes["mel"])
    with tempfile.TemporaryDirectory(dir=out) as folder:
        quantised = Path(folder) / "int8"
        optimize(combined, quantised, "int8")
        for graph_file in quantised.glob("*.int8.onnx"):
            graph_file.rename(combined / graph_file.name)
    graph = onnx.load(combined / "encoder-model.int8.onnx")
    add_metadata(graph, weights, sizes["mel"])
    onnx.save(graph, split / "encoder.int8.onnx")
    print(f"written: {combined} and {split}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", choices=tuple(KINDS), default="0.6b-v3")
    parser.add_argument("--encoder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        encoder = options.encoder or Path(folder) / "encoder.onnx"
        if options.encoder is None:
            export_encoder(options.kind, encoder)
        make(options.out, options.kind, encoder)


if __name__ == "__main__":
    main()
