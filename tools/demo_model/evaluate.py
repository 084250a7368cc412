"""Word errors of an exported demo model on held-out sentences, clean and with silence, noise and joined sentences.

    python evaluate.py CORPUS... --model DIRECTORY [--nemo FOLDER] [--limit 500]

CORPUS are folders made by ``speech.py --split known`` and ``--split unseen``.

For the model of whole recordings NeMo computes the features. The networks run in ONNX Runtime in padded batches, and
decoding follows the rules of NeMo's batched greedy search. The streaming model hears each recording as a live stream of
this package, `tdtdecode`, in pieces of 0.1 s, from samples to words.

With --nemo and a training folder, NeMo also decodes the same recordings with its own classes: whole, and for the
streaming model also step by step. Texts that differ from those of the exported model are counted.
"""

import argparse
import json
from collections.abc import Callable
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

    def texts(self, scenes: list[Scene]) -> list[str]:
        """The texts of scenes."""
        found = [""] * len(scenes)
        for part, features, lengths in batched_features(scenes, "per_feature"):
            encoded, frames = self.encoder.run(
                None, {"audio_signal": features.numpy(), "length": lengths.numpy()}
            )
            for k, ids in zip(part, self.greedy(encoded, frames)):
                found[k] = "".join(self.pieces[i] for i in ids).replace("\u2581", " ").strip()
        return found

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


def batched_features(scenes: list[Scene], normalize: str, batch: int = 32):
    """Yields batches as (scene numbers, features [B, 80, T], lengths [B]), with the shortest scenes first."""
    preprocessor = AudioToMelSpectrogramPreprocessor(
        sample_rate=RATE, normalize=normalize, features=80, n_fft=512, window_size=0.025, window_stride=0.01,
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


def nemo_encoded_in_steps(encoder, features: torch.Tensor, lengths: torch.Tensor):
    """NeMo's encoder output of streams, and its lengths: step by step with its caches, as a stream is encoded that has
    zeros in front of its first window (`pad_and_drop_preencoded` in NeMo). The last windows are filled up with zeros,
    so that the end of a row does not depend on how long other rows are."""
    settings = encoder.streaming_cfg
    shift, overlap = settings.shift_size[1], settings.pre_encode_cache_size[1]
    steps = -(-int(lengths.max()) // shift)
    padded = torch.nn.functional.pad(features, (overlap, steps * shift - features.shape[2]))
    caches = encoder.get_initial_cache_state(batch_size=len(features))
    parts, counts = [], torch.zeros_like(lengths)
    for start in range(0, steps * shift, shift):
        encoded, frames, *caches = encoder.cache_aware_stream_step(
            padded[:, :, start : start + overlap + shift],
            # A row that has ended still needs the window's first frames, for NeMo divides by the number of frames.
            (lengths - start + overlap).clamp(overlap, overlap + shift), *caches, keep_all_outputs=False,
            drop_extra_pre_encoded=settings.drop_extra_pre_encoded,
        )
        parts.append(torch.nn.functional.pad(encoded, (0, shift // demo.SUBSAMPLING - encoded.shape[2])))
        counts += torch.where(lengths > start, frames, 0)
    return torch.cat(parts, 2), counts


def nemo_texts(model, scenes: list[Scene], in_steps: bool = False) -> list[str]:
    """The texts of scenes as NeMo decodes them, whole or in steps."""
    found = [""] * len(scenes)
    for part, features, lengths in batched_features(scenes, model.cfg.preprocessor.normalize):
        with torch.inference_mode():
            if in_steps:
                encoded, frames = nemo_encoded_in_steps(model.encoder, features, lengths)
            else:
                encoded, frames = model.encoder(audio_signal=features, length=lengths)
            texts = model.decoding.rnnt_decoder_predictions_tensor(encoded, frames, return_hypotheses=False)
        for k, hypothesis in zip(part, texts):
            found[k] = hypothesis.text
    return found


def streamed_texts(model, scenes: list[Scene], together: int = 32) -> list[str]:
    """The texts of scenes that a model of `tdtdecode` hears live, in pieces of 0.1 s, many streams at once."""
    piece, found = RATE // 10, []
    for first in range(0, len(scenes), together):
        part = [scene.samples for scene in scenes[first : first + together]]
        pool = model.streams()
        for start in range(0, max(map(len, part)), piece):
            pool.feed({i: one[start : start + piece] for i, one in enumerate(part) if start < len(one)})
        heard = pool.finish()
        found += [heard[i].text for i in range(len(part))]
    return found


Recogniser = Callable[[list[Scene]], list[str]]


def recognisers(folder: Path, training: Path | None) -> dict[str, Recogniser]:
    """By name. The first one uses the exported files, the others NeMo."""
    original = demo.restore(training) if training else None
    if not onnx_streams(folder):
        found: dict[str, Recogniser] = {"exported": Onnx(folder).texts}
    else:
        import tdtdecode

        model = tdtdecode.load_model(folder, threads=1)
        found = {"streamed": lambda scenes: streamed_texts(model, scenes)}
        if original:
            found["NeMo in steps"] = lambda scenes: nemo_texts(original, scenes, in_steps=True)
    if original:
        found["NeMo whole"] = lambda scenes: nemo_texts(original, scenes)
    return found


def onnx_streams(folder: Path) -> bool:
    """Whether an exported encoder has caches."""
    return len(ort.InferenceSession(folder / "encoder-model.onnx").get_inputs()) > 2


def report(corpus: Corpus, kind: str, count: int, ways: dict[str, Recogniser]) -> str:
    """A line for each recogniser: recordings, words, errors, recordings with an error, and texts that differ from the
    first recogniser's."""
    rng = np.random.default_rng(7)
    scenes = [SETS[kind](corpus, i, rng) for i in range(min(count, len(corpus)))]
    words = sum(len(scene.text.split()) for scene in scenes)
    lines, first = [], None
    for name, recognise in ways.items():
        texts = recognise(scenes)
        errors = [word_errors(scene.text, text) for scene, text in zip(scenes, texts)]
        differ = "" if first is None else sum(a != b for a, b in zip(first, texts))
        first = first or texts
        lines.append(
            f"{kind:<34} {name:<14} {len(scenes):>6} {words:>6} {100 * sum(errors) / words:>6.2f}% "
            f"{100 * sum(map(bool, errors)) / len(scenes):>11.1f}%  {differ}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="+")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--nemo", type=Path)
    parser.add_argument("--limit", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    ways = recognisers(options.model, options.nemo)
    print(f"{'set':<34} {'recogniser':<14} {'clips':>6} {'words':>6} {'errors':>7} {'wrong clips':>12}  differ")
    for folder in options.corpus:
        print(folder.name)
        for kind in SETS:
            print(report(Corpus(folder), kind, options.limit, ways), flush=True)
