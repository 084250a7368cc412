"""Noisy speech for the notebooks, the word errors that a search makes on it, and how sure a difference is.

``sentences.opus`` has 320 sentences that the demo model was not trained on, in voices that it was not trained on. It is
synthetic speech by espeak-ng: ``python tools/demo_model/speech.py FOLDER --split unseen --count 320``, compressed.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile

import tdtdecode as tdt
from tdtdecode.evaluation import edit_distance
from tdtdecode.speech.audio import FeatureExtractor

HERE = Path(__file__).parent
RATE = 16_000


def sentences(decibels: float | None) -> tuple[list[np.ndarray], list[str]]:
    """The samples, float32 [N] at 16 kHz, and the text of each sentence.

    ``decibels`` is how much louder the speech is than the white noise that is added; None: there is no noise.
    """
    samples = soundfile.read(HERE / "sentences.opus", dtype="float32")[0]
    entries = [json.loads(line) for line in (HERE / "sentences.jsonl").read_text(encoding="utf-8").splitlines()]
    rng, audio = np.random.default_rng(0), []
    for entry in entries:
        spoken = samples[entry["start"] : entry["start"] + entry["length"]]
        noise = rng.standard_normal(len(spoken), dtype=np.float32)
        level = 0.0 if decibels is None else np.sqrt(np.mean(spoken**2)) * 10 ** (-decibels / 20)
        audio.append(spoken + np.float32(level) * noise)
    return audio, [entry["text"] for entry in entries]


def encoded(model: tdt.Recognizer, audio: list[np.ndarray], batch: int = 16) -> list[np.ndarray]:
    """The encoder output of each sentence, float32 [E, T]: computed once, then decoded in many ways."""
    extract, frames = FeatureExtractor(80), []
    for start in range(0, len(audio), batch):
        outputs, lengths = model.encoder(*extract(audio[start : start + batch]))
        frames += [output[:, :length] for output, length in zip(outputs.numpy(), lengths)]
    return frames


def word_errors(decoder: tdt.Decoder, frames: list[np.ndarray], texts: list[str], search) -> np.ndarray:
    """The word errors of each sentence, int [n]: insertions, deletions and substitutions."""
    found = decoder.decode(frames, search=search)
    return np.array([
        edit_distance(text.split(), decoder.detokenize(hypothesis.tokens).split())
        for text, hypothesis in zip(texts, found)
    ])


def percent(errors: np.ndarray, units: np.ndarray, draws: int = 2000) -> tuple[float, float, float]:
    """100 * errors / units over all sentences, and the ends of its 95 % interval, by the bootstrap over sentences.

    A difference of two systems has a much smaller interval than each of them: give the differences of their errors.
    """
    chosen = np.random.default_rng(0).integers(len(errors), size=(draws, len(errors)))
    rates = 100 * errors[chosen].sum(1) / units[chosen].sum(1)
    low, high = np.quantile(rates, (0.025, 0.975))
    return float(100 * errors.sum() / units.sum()), float(low), float(high)
