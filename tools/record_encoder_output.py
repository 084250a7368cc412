"""Writes what the examples in C, Rust and Go decode: the demo model as one file, encoder output, and the words in it.

    python -m tools.record_encoder_output
"""

from pathlib import Path

import numpy as np

import tdtdecode as tdt
from tdtdecode.prepare import pack
from tdtdecode.speech.audio import FeatureExtractor, read_audio
from tdtdecode.speech.hub import demo_directory

RECORDED = Path(__file__).parents[1] / "examples/recorded"


def encoder_output() -> np.ndarray:
    """Encoder output [E, T] for the demo recording."""
    model = tdt.load_model("demo")
    samples = read_audio(demo_directory() / "speech.flac")
    features, lengths = FeatureExtractor(model.bundle.features.mel_bins)([samples])
    found, lengths = model.encoder(features, lengths)
    return np.ascontiguousarray(found.numpy()[0, :, : int(lengths[0])], np.float32)


def words(frames: np.ndarray) -> str:
    """A line for each word that the Python package finds: start and end in seconds, and the word."""
    decoder = tdt.Decoder.from_bundle(RECORDED / "demo.tdt")
    assert decoder.vocabulary is not None
    (hypothesis,) = decoder.decode(frames[None])
    found = decoder.vocabulary.words(hypothesis, 0.08)
    return "".join(f"{word.start:.2f} {word.end:.2f} {word.text}\n" for word in found)


if __name__ == "__main__":
    pack(demo_directory(), RECORDED / "demo.tdt")
    frames = encoder_output()
    (RECORDED / "encoder_output.f32").write_bytes(frames.astype("<f4").tobytes())
    (RECORDED / "words.txt").write_text(words(frames), encoding="utf-8")
