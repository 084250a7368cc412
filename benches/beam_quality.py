"""What beam search finds: the most probable sequence of tiny models, and the words of noisy speech.

    python -m benches.beam_quality [--corpus FOLDER] [--save]

1. Tiny random models, small enough to sum the probability of every token sequence over all its alignments. How often
   does a search find the most probable sequence, and how far below its log-probability is the sequence found?
2. The demo model on speech with white noise. Word errors of greedy search, "tsd" and "malsd" by beam size; of their
   n-best lists ranked with and without NeMo's length normalisation; by pruning threshold, temperature and blank
   penalty; and with a reward for each token. FOLDER is a corpus made by `tools/demo_model/speech.py`. Without one, the
   recordings of the tests are used.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path

import numpy as np

import tdtdecode as tdt
from tdtdecode.evaluation import edit_distance
from tests import demo
from tests.conftest import RandomTransducer, random_frames
from tests.decoding.test_beam import Alignments

from .report import environment, save

SIZES = (1, 2, 4, 8)
NOISE = (20, 10, 5, 0)  # signal-to-noise ratios in dB


def normalised(result: tdt.Hypothesis) -> tdt.Hypothesis:
    return max(result.nbest, key=lambda h: h.score / (len(h) + 1))


def raw(result: tdt.Hypothesis) -> tdt.Hypothesis:
    return max(result.nbest, key=lambda h: h.score)


def tiny_models(count: int) -> dict:
    """For each search: the share of models whose most probable sequence it finds ("found"), and by how many nats the
    log-probability of what it finds falls below that sequence's on average ("nats_below")."""
    spec = tdt.TransducerSpec(vocab_size=2, durations=(0, 1, 2))
    found: dict = defaultdict(lambda: [0, 0.0])
    choices = (("tsd", "", raw), ("malsd", ", ranked by score", raw), ("malsd", "", normalised))
    for seed in range(count):
        model = RandomTransducer(spec, seed)
        frames, _ = random_frames(1, model.encoder_size, 5, seed)
        total = Alignments(model, spec, frames[0], max_symbols=2).total
        best = max(total, key=lambda tokens: total[tokens])
        decoder = model.decoder(spec)
        for size in SIZES:
            for strategy, how, choose in choices:
                search = tdt.Beam(strategy=strategy, size=size, max_symbols=2)
                tokens = tuple(choose(decoder.decode(frames, search=search)[0]).tokens.tolist())
                entry = found[f"{strategy} {size}{how}"]
                entry[0] += tokens == best
                entry[1] += total[best] - total[tokens]
    return {name: {"found": hits / count, "nats_below": float(lost) / count} for name, (hits, lost) in found.items()}


def noisy(recordings: list[tuple[np.ndarray, str]], decibels: float) -> list:
    rng = np.random.default_rng(0)
    level = [float(np.sqrt(np.mean(samples**2))) for samples, _ in recordings]
    scale = 10 ** (-decibels / 20)
    return [
        (samples + np.float32(size * scale) * rng.standard_normal(len(samples), dtype=np.float32), 16000)
        for (samples, _), size in zip(recordings, level)
    ]


class Words:
    """Counts word errors of many searches on the same encoder output, which is computed only once."""

    def __init__(self, model: tdt.Recognizer, recordings: list[tuple[np.ndarray, str]], decibels: float):
        self.decoder = model.decoder
        self.texts = [text.split() for _, text in recordings]
        self.frames: list[np.ndarray] = []
        decode = model.decoder.decode

        def keep(encoder_out, lengths, search):
            kept = np.asarray(encoder_out)
            self.frames += [kept[i, :, :length] for i, length in enumerate(lengths)]
            return decode(encoder_out, lengths, search)

        audio = noisy(recordings, decibels)
        try:
            model.decoder.decode = keep
            for one in audio:  # one by one, because a batch would be sorted by length
                model.recognize(one)
        finally:
            del model.decoder.decode

    def errors(self, search, choose=lambda hypothesis: hypothesis) -> float:
        """Word error rate in percent."""
        wrong = 0
        for start in range(0, len(self.frames), 64):
            part = slice(start, start + 64)
            for result, text in zip(self.decoder.decode(self.frames[part], search=search), self.texts[part]):
                best = choose(result)
                wrong += edit_distance(text, self.decoder.detokenize(best.tokens).split())
        return 100 * wrong / sum(map(len, self.texts))

    def oracle(self, search) -> float:
        """Word error rate in percent if the best entry of each n-best list could be chosen."""
        def closest(result, texts=iter(self.texts)):
            text = next(texts)
            return min(result.nbest, key=lambda h: edit_distance(text, self.decoder.detokenize(h.tokens).split()))

        return self.errors(search, closest)


def on_speech(words: Words) -> dict:
    result = {"greedy": words.errors(tdt.Greedy())}
    for size in SIZES[1:]:
        tsd, malsd = tdt.Beam(size=size), tdt.Beam(strategy="malsd", size=size)
        result[f"tsd {size}"] = words.errors(tsd)
        result[f"malsd {size}"] = words.errors(malsd)
        result[f"tsd {size}, ranked by score / (tokens + 1)"] = words.errors(tsd, normalised)
        result[f"malsd {size}, ranked by score"] = words.errors(malsd, raw)
        result[f"tsd {size}, best of the n-best list"] = words.oracle(tsd)
        result[f"malsd {size}, best of the n-best list"] = words.oracle(malsd)
    for threshold in (2.0, 4.0, 6.0, 10.0, math.inf):
        result[f"tsd 8, threshold {threshold}"] = words.errors(tdt.Beam(size=8, threshold=threshold))
    for temperature in (0.7, 1.2, 1.5):
        for size in (4, 8):
            search = tdt.Beam(size=size, temperature=temperature)
            result[f"tsd {size}, temperature {temperature}"] = words.errors(search)
    for penalty in (-1.0, 0.5, 1.0, 2.0):
        result[f"tsd 4, blank penalty {penalty}"] = words.errors(tdt.Beam(blank_penalty=penalty))
    for reward in (-0.5, 0.5, 1.0):
        result[f"tsd 4, {reward} for each token"] = words.errors(tdt.Beam(fusion=[constant(reward)]))
    return result


def constant(score: float) -> tdt.ScoringFunction:
    def scores(state, out):
        out[:] = score

    def advance(state, token, following):
        following[0] = 0

    return tdt.ScoringFunction(scores, advance)


def recordings_of(folder: Path | None, limit: int) -> list[tuple[np.ndarray, str]]:
    if folder is None:
        return list(demo.recordings().values())
    audio = np.memmap(folder / "audio.i16", np.int16, mode="r")
    entries = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()[:limit]]
    return [
        (audio[entry["start"] : entry["start"] + entry["length"]].astype(np.float32) / 32768, entry["text"])
        for entry in entries
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, metavar="FOLDER", help="default: the recordings of the tests")
    parser.add_argument("--limit", type=int, default=500, help="most utterances of the corpus (default: 500)")
    parser.add_argument("--tiny", type=int, default=200, help="number of tiny models (default: 200)")
    parser.add_argument("--save", action="store_true", help="keep the figures under benches/results")
    options = parser.parse_args()
    result: dict = {"tiny_models": options.tiny, "exhaustive": tiny_models(options.tiny)}
    for name, entry in result["exhaustive"].items():
        print(f"{name:<28} finds the most probable sequence in {entry['found']:6.1%}; on average its own is "
              f"{entry['nats_below']:.4f} nats below", flush=True)  # fmt: skip
    recordings = recordings_of(options.corpus, options.limit)
    result |= {"utterances": len(recordings), "words": sum(len(text.split()) for _, text in recordings), "noise": {}}
    model = tdt.load_model("demo")
    for decibels in NOISE:
        rates = on_speech(Words(model, recordings, decibels))
        result["noise"][f"{decibels} dB"] = rates
        print(f"\n{decibels} dB, {result['words']} words")
        for name, rate in rates.items():
            print(f"  {name:<48} {rate:6.2f} %", flush=True)
    if options.save:
        save("beam_quality", environment("onnxruntime") | result)


if __name__ == "__main__":
    main()
