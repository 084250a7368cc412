"""Word errors of an exported demo model on held-out sentences, clean and with silence, noise and joined sentences.

    python evaluate.py CORPUS... --model DIRECTORY [--nemo FOLDER] [--limit 500]

CORPUS are folders made by ``speech.py --split known`` and ``--split unseen``. NeMo computes the features. The networks
run in ONNX Runtime in padded batches, and decoding follows the rules of NeMo's batched greedy search. With --nemo and a
training folder, NeMo also decodes the same features with its own classes, and the texts that differ are counted.
"""

import argparse
import json
from pathlib import Path

import model as demo
import numpy as np
import onnxruntime as ort
import speech
import torch
from nemo.collections.asr.modules import AudioToMelSpectrogramPreprocessor
from scenes import Scene, assemble, make_plan
from speech import RATE, Corpus

MAX_SYMBOLS = 10


def _edges(rng: np.random.Generator) -> list[float]:
    return list(rng.uniform(0, 2, 2))


def clean(corpus: Corpus, i: int, rng: np.random.Generator) -> Scene:
    return assemble(corpus, make_plan(corpus, [i], [0.05, 0.05]))


def zeros_at_edges(corpus: Corpus, i: int, rng: np.random.Generator) -> Scene:
    return assemble(corpus, make_plan(corpus, [i], _edges(rng)))


def noise_at_edges(corpus: Corpus, i: int, rng: np.random.Generator) -> Scene:
    """0 to 2 s of silence at each end, and white or pink noise throughout, 35 to 55 dB below the speech."""
    scene = zeros_at_edges(corpus, i, rng)
    floor = speech.coloured_noise(len(scene.samples), rng.integers(0, 2), rng)
    scene.samples += floor * np.float32(10 ** ((-23 - rng.uniform(35, 55)) / 20))
    return scene


def white_20_db(corpus: Corpus, i: int, rng: np.random.Generator) -> Scene:
    scene = clean(corpus, i, rng)
    power = np.square(scene.samples).mean()
    scene.samples += rng.standard_normal(len(scene.samples), np.float32) * np.float32(np.sqrt(power / 100))
    return scene


def joined(corpus: Corpus, i: int, rng: np.random.Generator) -> Scene:
    """Two to four sentences with pauses of 0 to 1.5 s. A third and fourth are left out if 15 s are not enough."""
    wanted = int(rng.integers(2, 5))
    sentences = [i, *rng.integers(0, len(corpus), wanted - 1).tolist()]
    while True:
        pauses = list(rng.uniform(0, 1.5, len(sentences) - 1))
        plan = make_plan(corpus, sentences, [0.05, *pauses, 0.05])
        if plan.length <= 15 * RATE or len(sentences) == 2:
            return assemble(corpus, plan)
        sentences.pop()


SETS = {
    "clean": clean,
    "0-2 s of zeros at the edges": zeros_at_edges,
    "0-2 s of noise floor at the edges": noise_at_edges,
    "white noise, 20 dB": white_20_db,
    "2-4 sentences joined": joined,
}


class Onnx:
    """The two exported graphs, from features to texts."""

    def __init__(self, folder: Path):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.encoder = ort.InferenceSession(folder / "encoder-model.onnx", options)
        self.decoder = ort.InferenceSession(folder / "decoder_joint-model.onnx", options)
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        self.pieces = [line.rsplit(" ", 1)[0] for line in lines]
        self.blank = len(self.pieces) - 1
        self.durations = np.asarray(json.loads((folder / "config.json").read_text())["tdt_durations"])

    def texts(self, features: np.ndarray, lengths: np.ndarray) -> list[str]:
        """The texts of a batch of features float32 [B, 80, T] with lengths int64 [B]."""
        encoded, frames = self.encoder.run(None, {"audio_signal": features, "length": lengths})
        return ["".join(self.pieces[k] for k in ids).replace("\u2581", " ").strip()
                for ids in self.greedy(encoded, frames)]

    def greedy(self, encoded: np.ndarray, frames: np.ndarray) -> list[list[int]]:
        """Tokens of each utterance. All take each step together; one that has ended is computed on but ignored."""
        batch = len(frames)
        each = np.arange(batch)
        width = self.decoder.get_inputs()[3].shape
        old = [np.zeros((width[0], batch, width[2]), np.float32) for _ in range(2)]
        last = np.full((batch, 1), self.blank, np.int32)
        time, symbols = np.zeros(batch, np.int64), np.zeros(batch, np.int64)
        hypotheses: list[list[int]] = [[] for _ in range(batch)]
        while (live := time < frames).any():
            at = np.minimum(time, encoded.shape[2] - 1)
            names = [value.name for value in self.decoder.get_inputs()]
            values = [encoded[each, :, at][:, :, None], last, np.ones(batch, np.int32), *old]
            rows, _, *new = self.decoder.run(None, dict(zip(names, values)))
            rows = rows.reshape(batch, -1)
            token = rows[:, : self.blank + 1].argmax(1)
            duration = self.durations[rows[:, self.blank + 1 :].argmax(1)]
            emits = live & (token != self.blank)
            for b in np.flatnonzero(emits):
                hypotheses[b].append(int(token[b]))
            last[emits, 0] = token[emits]
            for state, kept in zip(new, old):
                kept[:, emits] = state[:, emits]
            symbols = np.where(emits & (duration == 0), symbols + 1, 0)
            step = np.where(emits, duration, np.maximum(duration, 1))
            capped = symbols >= MAX_SYMBOLS
            time += np.where(capped, 1, step)
            symbols[capped] = 0
        return hypotheses


def word_errors(reference: str, hypothesis: str) -> int:
    """Edit distance in words."""
    wanted, found = reference.split(), hypothesis.split()
    row = list(range(len(found) + 1))
    for i, word in enumerate(wanted, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(found, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


def batched_features(scenes: list[Scene], batch: int = 32):
    """Yields batches as (scene numbers, features [B, 80, T], lengths [B]), with the shortest scenes first."""
    preprocessor = AudioToMelSpectrogramPreprocessor(
        sample_rate=RATE, normalize="per_feature", features=80, n_fft=512, window_size=0.025, window_stride=0.01,
        dither=0.0, pad_to=0,
    ).eval()
    order = sorted(range(len(scenes)), key=lambda k: len(scenes[k].samples))
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        samples = torch.zeros(len(part), len(scenes[part[-1]].samples))
        for row, k in enumerate(part):
            samples[row, : len(scenes[k].samples)] = torch.from_numpy(scenes[k].samples)
        lengths = torch.tensor([len(scenes[k].samples) for k in part])
        with torch.no_grad():
            features, lengths = preprocessor(input_signal=samples, length=lengths)
        yield part, features, lengths


def nemo_texts(model, features: torch.Tensor, lengths: torch.Tensor) -> list[str]:
    with torch.inference_mode():
        encoded, frames = model.encoder(audio_signal=features, length=lengths)
        found = model.decoding.rnnt_decoder_predictions_tensor(encoded, frames, return_hypotheses=False)
    return [hypothesis.text for hypothesis in found]


def evaluate(corpus: Corpus, kind: str, count: int, exported: Onnx, model=None) -> dict:
    """The counts of one set: utterances, words, word errors, utterances with an error, seconds, and texts that differ
    from NeMo's."""
    rng = np.random.default_rng(7)
    scenes = [SETS[kind](corpus, i, rng) for i in range(min(count, len(corpus)))]
    totals = {"utterances": len(scenes), "words": 0, "errors": 0, "wrong": 0, "differ": 0}
    totals["seconds"] = sum(len(scene.samples) for scene in scenes) / RATE
    for part, features, lengths in batched_features(scenes):
        texts = exported.texts(features.numpy(), lengths.numpy())
        if model is not None:
            totals["differ"] += sum(a != b for a, b in zip(texts, nemo_texts(model, features, lengths)))
        for k, text in zip(part, texts):
            errors = word_errors(scenes[k].text, text)
            totals["words"] += len(scenes[k].text.split())
            totals["errors"] += errors
            totals["wrong"] += errors > 0
    return totals


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="+")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--nemo", type=Path)
    parser.add_argument("--limit", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    exported = Onnx(options.model)
    original = demo.restore(options.nemo) if options.nemo else None
    print(f"{'set':<44} {'clips':>6} {'words':>6} {'errors':>7} {'wrong clips':>12}  differ from NeMo's")
    for folder in options.corpus:
        for kind in SETS:
            found = evaluate(Corpus(folder), kind, options.limit, exported, original)
            rate = 100 * found["errors"] / found["words"]
            print(
                f"{folder.name + ', ' + kind:<44} {found['utterances']:>6} {found['words']:>6} {rate:>6.2f}% "
                f"{100 * found['wrong'] / found['utterances']:>11.1f}%  "
                f"{found['differ'] if original else '-'}",
                flush=True,
            )
