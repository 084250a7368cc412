"""Corpora of synthetic speech, with the effects of rooms and microphones. Debian's synthesisers speak.

    python speech.py OUT --split train --count 96000      a corpus of single sentences, cut tight at both ends
    python speech.py OUT --split known --count 400 --wav  held-out sentences, also as one file each
    python speech.py OUT --synthesiser flite --count 8000 sentences said by flite instead of espeak-ng

A corpus is a folder with ``audio.i16`` (the samples of all sentences, one after another, 16 kHz mono) and
``index.jsonl`` (one line per sentence: start and length in samples, text, voice, accent).

There are three splits: `train`; `known`, held-out sentences in the synthesiser's voices of the training set; and
`unseen`, held-out sentences in held-out voices. Training also uses invented voices, which are espeak-ng variants with
random settings (`invent_voice`). Whether a sentence is held out depends on its text alone, so no sentence is both
trained on and tested.
"""

import argparse
import functools
import json
import random
import wave
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import grammar
import numpy as np
import synthesisers
from synthesisers import (
    ACCENTS,
    INVENTED_VOICES,
    KNOWN_VOICES,
    RATE,
    UNSEEN_VOICES,
    data_with_invented_voices,
)


def coloured_noise(count: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Noise, float32 [count] of unit power. Its power spectrum is 1 / f**exponent: 0 is white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequency = np.maximum(np.arange(len(spectrum)), 20 * count / RATE)
    noise = np.fft.irfft(spectrum / frequency ** (exponent / 2), count)
    return (noise / noise.std()).astype(np.float32)


def room_and_microphone(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Adds a mild room in a quarter of the cases. In about a third it tilts the spectrum or cuts a telephone's band."""
    from scipy.signal import fftconvolve, lfilter  # tests are said without it

    if rng.random() < 0.25:
        decay = rng.uniform(0.08, 0.35)  # seconds until 60 dB down
        time = np.arange(int(decay * RATE)) / RATE
        response = rng.standard_normal(len(time)) * 10 ** (-3 * time / decay)
        response *= rng.uniform(0.1, 0.5) / np.sqrt(np.square(response).sum())
        response[0] = 1
        samples = fftconvolve(samples, response)[: len(samples) + RATE // 10]
    if rng.random() < 0.2:
        samples = lfilter([1, rng.uniform(-0.7, 0.7)], [1], samples)
    elif rng.random() < 0.15:
        cutoff = rng.uniform(3400, 6500)
        taps = np.sinc(2 * cutoff / RATE * (np.arange(63) - 31)) * np.hamming(63)
        samples = fftconvolve(samples, taps / taps.sum(), mode="same")
    return samples.astype(np.float32)


def at_level(samples: np.ndarray, level_db: float) -> np.ndarray:
    """Scales to a root mean square of `level_db` dB relative to full scale, or to less if that would clip."""
    gain = 10 ** (level_db / 20) / max(float(np.sqrt(np.square(samples).mean())), 1e-9)
    return samples * np.float32(min(gain, 0.99 / max(float(np.abs(samples).max()), 1e-9)))


def utterance(split: str, synthesiser: str, invented: float, data: Path | None, seed: int) -> tuple[dict, np.ndarray]:
    """One sentence of a split, as (index entry, int16 samples). Training speech also gets a warp and a room.

    invented: share of the training sentences of espeak-ng that an invented voice speaks.
    """
    espeak_speaks = synthesiser == "espeak-ng"
    rng = random.Random(f"{split}/{seed}" if espeak_speaks else f"{split}/{synthesiser}/{seed}")
    while grammar.is_held_out(text := grammar.sentence(rng)) != (split != "train"):
        pass
    voice = rng.choice((UNSEEN_VOICES if split == "unseen" else KNOWN_VOICES)[synthesiser])
    accent = rng.choice(ACCENTS) if espeak_speaks else ""
    train = split == "train"
    if train and espeak_speaks and rng.random() < invented:
        voice = rng.choice(INVENTED_VOICES)
    manner = {
        "speed": rng.randrange(110, 231) if train else rng.randrange(120, 211),
        "pitch": rng.randrange(10, 91) if train else rng.randrange(25, 76),
    }
    gap = rng.choice((0, 0, 0, 0, 2, 5, 10))
    manner["warp"] = rng.uniform(0.88, 1.12) if train and rng.random() < 0.7 else 1.0
    if espeak_speaks:
        samples = synthesisers.espeak(text, f"{accent}+{voice}", gap=gap, data=data, **manner)
    else:
        samples = {"flite": synthesisers.flite, "festival": synthesisers.festival}[synthesiser](text, voice, **manner)
    if train:
        samples = room_and_microphone(samples, np.random.default_rng(seed))
    samples = at_level(samples, -23)
    entry = {"text": text, "voice": voice, "accent": accent, "length": len(samples)}
    return entry, (samples * 32767).astype(np.int16)


def make_corpus(
    folder: Path, split: str, count: int, workers: int, first_seed: int, invented: float, synthesiser: str
) -> None:
    """Writes a corpus of `count` sentences, in the form described at the top of this file."""
    folder.mkdir(parents=True, exist_ok=True)
    with_invented = split == "train" and synthesiser == "espeak-ng" and invented
    data = data_with_invented_voices(folder.absolute()) if with_invented else None
    make = functools.partial(utterance, split, synthesiser, invented, data)
    start = 0
    with (
        ProcessPoolExecutor(workers) as pool,
        open(folder / "audio.i16", "wb") as audio,
        open(folder / "index.jsonl", "w") as index,
    ):
        seeds = range(first_seed, first_seed + count)
        for entry, samples in pool.map(make, seeds, chunksize=64):
            index.write(json.dumps({"start": start, **entry}) + "\n")
            audio.write(samples.tobytes())
            start += len(samples)


class Corpus:
    """Corpora on disk, one after another: `entries` (dicts) and `samples(i)` (float32 [N])."""

    def __init__(self, *folders: Path | str):
        self.entries: list[dict] = []
        self._audios = []
        for number, folder in enumerate(map(Path, folders)):
            with open(folder / "index.jsonl") as lines:
                self.entries += [{"folder": number, **json.loads(line)} for line in lines]
            self._audios.append(np.memmap(folder / "audio.i16", np.int16, mode="r"))

    def __len__(self) -> int:
        return len(self.entries)

    def samples(self, i: int) -> np.ndarray:
        entry = self.entries[i]
        piece = self._audios[entry["folder"]][entry["start"] : entry["start"] + entry["length"]]
        return piece.astype(np.float32) / 32768


def write_wavs(folder: Path) -> None:
    """Every sentence of a corpus as ``<number>.wav`` beside its index."""
    corpus = Corpus(folder)
    for i in range(len(corpus)):
        with wave.open(str(folder / f"{i:05d}.wav"), "wb") as stream:
            stream.setnchannels(1)
            stream.setsampwidth(2)
            stream.setframerate(RATE)
            stream.writeframes((corpus.samples(i) * 32768).astype("<i2").tobytes())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", choices=("train", "known", "unseen"), default="train")
    parser.add_argument("--synthesiser", choices=KNOWN_VOICES, default="espeak-ng")
    parser.add_argument("--count", type=int, default=96_000)
    parser.add_argument("--first-seed", type=int, default=0, help="corpora of other seeds have other sentences")
    parser.add_argument("--invented", type=float, default=0.25, help="share of training sentences in invented voices")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--wav", action="store_true", help="also write each sentence as a .wav file")
    options = parser.parse_args()
    if options.split == "unseen" and options.synthesiser not in UNSEEN_VOICES:
        parser.error(f"all voices of {options.synthesiser} are in the training")
    make_corpus(
        options.out, options.split, options.count, options.workers, options.first_seed, options.invented,
        options.synthesiser,
    )
    if options.wav:
        write_wavs(options.out)
