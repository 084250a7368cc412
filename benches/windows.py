"""Word errors of the demo model on long recordings in windows: what do the windows cost?

    python -m benches.windows [--corpus FOLDER] [--save]

Sentences are joined with pauses to recordings that the encoder still takes whole (30 s) and to long ones (3 min). The
borders of the windows fall anywhere, also into words. Word errors are counted without windows and with windows of
several lengths and contexts. The features are normalised over the whole recording, as in `recognize`; over each window
by itself; or over everything up to the end of the window, as a live stream would have to. FOLDER is a corpus made by
`tools/demo_model/speech.py`. Without one, the recordings of the tests are used.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import tdtdecode as tdt
from tdtdecode.evaluation import edit_distance
from tdtdecode.speech.audio.features import FeatureExtractor
from tdtdecode.speech.encoder import Encoder
from tdtdecode.speech.windows import Windows, decode_in_windows

from .beam_quality import recordings_of
from .report import environment, save

RATE = 16_000
LENGTHS = (30.0, 180.0)
SIZES = (32.0, 16.0, 12.0, 8.0, 4.0)
CONTEXTS = (0.0, 1 / 16, 1 / 8, 1 / 4)
"""The context on either side, as a share of the window."""
NORMALISATIONS = ("recording", "window", "heard so far")


def long_recordings(sentences: list[tuple[np.ndarray, str]], seconds: float) -> list[tuple[np.ndarray, str]]:
    """Join sentences with pauses of faint noise, 0.1 to 0.8 s long, to recordings of `seconds` at most."""
    rng = np.random.default_rng(0)
    made, parts, texts, length = [], [], [], 0
    for samples, text in sentences:
        pause = (1e-3 * rng.standard_normal(int(rng.uniform(0.1, 0.8) * RATE))).astype(np.float32)
        if length + len(samples) + len(pause) > seconds * RATE:
            made.append((np.concatenate(parts), " ".join(texts)))
            parts, texts, length = [], [], 0
        parts += [samples, pause]
        texts.append(text)
        length += len(samples) + len(pause)
    return made or [(np.concatenate(parts), " ".join(texts))]


class Normalised:
    """An encoder that gets log-mel features and normalises them itself: by the window, or by what was heard so far."""

    def __init__(self, encoder: Encoder, logs: np.ndarray, how: str):
        self._encoder, self._logs, self._how = encoder, logs, how
        self.utterances = encoder.utterances

    def __call__(self, batch: np.ndarray, lengths: np.ndarray):
        for window, length in zip(batch, lengths):
            heard = window[:, :length]
            if self._how == "heard so far":
                end = self._end(heard)
                heard = self._logs[:, :end]
            mean, deviation = heard.mean(axis=1, keepdims=True), heard.std(axis=1, ddof=1, keepdims=True)
            window[:, :length] = (window[:, :length] - mean) / (deviation + 1e-5)
        return self._encoder(batch, lengths)

    def _end(self, window: np.ndarray) -> int:
        last = np.flatnonzero((self._logs == window[:, -1:]).all(axis=0))
        return int(last[-1]) + 1


def errors(model: tdt.Recognizer, recordings: list, windows: Windows | None, how: str = "recording") -> float:
    """Word error rate, in windows, or without them if `windows` is None."""
    wrong = words = 0
    features = model.bundle.features
    extract = FeatureExtractor(features.mel_bins, features.normalize if how == "recording" else None)
    for samples, text in recordings:
        if windows is None:
            said = model.recognize((samples, RATE)).text
        else:
            mel, (length,) = extract([samples])
            mel = mel[0, :, :length]
            encoder = model.encoder if how == "recording" else Normalised(model.encoder, mel, how)
            hypothesis = decode_in_windows(
                mel, encoder, model.decoder, tdt.Greedy(), windows, features.subsampling_factor, 1
            )
            said = model.bundle.vocabulary.detokenize(hypothesis.tokens)
        wrong += edit_distance(text.split(), said.split())
        words += len(text.split())
    return wrong / words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    sentences = recordings_of(options.corpus, 500)
    model = tdt.load_model("demo")
    result: dict = {"environment": environment("onnxruntime"), "sentences": len(sentences)}
    result["one by one"] = errors(model, sentences, None)
    print(f"{len(sentences)} sentences one by one: {result['one by one']:.2%} word errors")
    for seconds in LENGTHS:
        recordings = long_recordings(sentences, seconds)
        rates: dict = {}
        if seconds <= model.max_seconds:
            rates["whole"] = errors(model, recordings, None)
            print(f"{len(recordings)} recordings of {seconds:g} s, whole: {rates['whole']:.2%}")
        for size in SIZES:
            for share in CONTEXTS:
                frames = int(size / model.bundle.frame_seconds)
                context = int(frames * share)
                for how in NORMALISATIONS if share == 1 / 8 else NORMALISATIONS[:1]:
                    name = f"windows of {size:g} s, context {context * model.bundle.frame_seconds:.2f} s, by {how}"
                    rates[name] = errors(model, recordings, Windows(context, frames - 2 * context, context), how)
                    print(f"recordings of {seconds:g} s, {name}: {rates[name]:.2%}", flush=True)
        result[f"{seconds:g} s"] = rates
    if options.save:
        save("windows", result)


if __name__ == "__main__":
    main()
