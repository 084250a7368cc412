"""Synthetic speech by Debian's espeak-ng, with the effects of rooms and microphones.

    python speech.py OUT --split train --count 96000      a corpus of single sentences, cut tight at both ends
    python speech.py OUT --split known --count 400 --wav  held-out sentences, also as one file each

A corpus is a folder with ``audio.i16`` (the samples of all sentences, one after another, 16 kHz mono) and
``index.jsonl`` (one line per sentence: start and length in samples, text, voice, accent).

There are three splits: `train`; `known`, held-out sentences in espeak-ng's voices of the training set; and `unseen`,
held-out sentences in held-out voices. Training also uses invented voices, which are espeak-ng variants with random
settings (`invent_voice`). Whether a sentence is held out depends on its text alone, so no sentence is both trained on
and tested.
"""

import argparse
import functools
import io
import json
import random
import re
import shutil
import subprocess
import wave
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import grammar
import numpy as np
import soxr
from scipy.signal import fftconvolve, lfilter

RATE = 16_000
ACCENTS = (
    "en-us en-us-nyc en-gb en-gb-x-rp en-gb-scotland en-gb-x-gbclan en-gb-x-gbcwmd en-029"
).split()
UNSEEN_VOICES = "f4 m6 Alicia belinda Gene Gene2 Hugo linda norbert steph steph2 steph3 victor klatt5".split()
KNOWN_VOICES = (
    "m1 m2 m3 m4 m5 m7 m8 f1 f2 f3 f5 adam Alex Andrea Andy Annie antonio aunty benjamin boris caleb david Denis "
    "Diogo ed edward edward2 grandma grandpa gustave Henrique iven iven2 iven3 iven4 Jacky john kaukovalta klatt "
    "klatt2 klatt3 klatt4 klatt6 Lee marcelo Marco Mario max Michael michel miguel Mike Nguyen pablo paul pedro "
    "quincy RicishayMax RicishayMax2 RicishayMax3 rob robert sandro shelby Storm travis zac anika"
).split()
INVENTED_VOICES = [f"invented{k}" for k in range(200)]


def invent_voice(rng: random.Random) -> str:
    """An espeak-ng variant file with random settings, about within the range of espeak-ng's own variants."""

    def some(count: int, low: float, high: float) -> str:
        return " ".join(str(round(rng.uniform(low, high))) for _ in range(count))

    lines = ["language variant", f"name invented{rng.randrange(10**6)}"]
    size = rng.uniform(88, 130)
    for formant in range(9):
        place = 100 if formant == 0 else size * rng.uniform(0.92, 1.09)
        lines.append(f"formant {formant} {place:.0f} {some(1, 60, 140)} {some(1, 90, 165)}")
    base = rng.uniform(70, 220)
    lines.append(f"pitch {base:.0f} {base * rng.uniform(1.05, 1.6):.0f}")
    optional = {
        "voicing": (0.5, some(1, 40, 200)),
        "consonants": (0.6, some(2, 20, 140)),
        "flutter": (0.5, some(1, 0, 8)),
        "roughness": (0.4, some(1, 0, 3)),
        "breath": (0.3, "0 " + some(7, 0, 10)),
        "echo": (0.25, f"{some(1, 10, 150)} {some(1, 5, 50)}"),
        "intonation": (0.5, some(1, 1, 4)),
        "stressAmp": (0.4, some(8, 12, 26)),
        "stressAdd": (0.3, some(8, -30, 60)),
        "tone": (0.3, f"{some(1, 100, 600)} 255 1000 {some(1, 60, 255)} {some(1, 2000, 5000)} {some(1, 30, 255)}"),
    }
    lines += [f"{setting} {values}" for setting, (chance, values) in optional.items() if rng.random() < chance]
    return "\n".join(lines) + "\n"


def data_with_invented_voices(folder: Path) -> Path:
    """Copies espeak-ng's data into `folder`, adds the INVENTED_VOICES, and returns it for ``espeak-ng --path``."""
    about = subprocess.run(["espeak-ng", "--version"], check=True, capture_output=True, text=True).stdout
    copy = folder / "espeak-ng-data"

    def others(directory: str, names: list[str]) -> list[str]:
        """Files of other languages. espeak-ng reads at most 350 voices, and speaks the rest with a default voice."""
        if Path(directory).name == "lang":
            return [name for name in names if name != "gmw"]
        return [name for name in names if name == "mb" or name.endswith("_dict") and name != "en_dict"]

    shutil.copytree(re.search(r"Data at: (.*)", about)[1].strip(), copy, ignore=others, dirs_exist_ok=True)
    for name in INVENTED_VOICES:
        (copy / "voices" / "!v" / name).write_text(invent_voice(random.Random(name)))
    return folder


def espeak(
    text: str, voice: str, *, speed: int = 160, pitch: int = 50, gap: int = 0, warp: float = 1.0,
    data: Path | None = None,
) -> np.ndarray:
    """Speech as float32 [N] at 16 kHz, without the silence around it.

    speed: in words per minute. pitch: 0 to 99. gap: pause between words, in units of 10 ms. warp: playback rate; above
    1 it raises formants, pitch and speed together, and the formants move as with a shorter vocal tract. data: see
    data_with_invented_voices.
    """
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "-g", str(gap), "--stdout"]
    command += [f"--path={data}", text] if data else [text]
    done = subprocess.run(command, check=True, capture_output=True)
    if done.stderr:
        raise RuntimeError(f"espeak-ng, voice {voice}: {done.stderr.decode().strip()}")
    raw = done.stdout
    with wave.open(io.BytesIO(raw)) as stream:
        rate = stream.getframerate()
        samples = np.frombuffer(raw[44:], np.int16).astype(np.float32) / 32768
    return trim(soxr.resample(samples, rate * warp, RATE))


def trim(samples: np.ndarray, floor_db: float = -50.0, hop: int = 80) -> np.ndarray:
    """Cuts both ends where they are quieter than `floor_db` relative to the loudest 5 ms, leaving 10 ms."""
    power = np.square(samples[: len(samples) // hop * hop].reshape(-1, hop)).mean(1)
    loud = np.flatnonzero(power > power.max() * 10 ** (floor_db / 10))
    return samples[max(loud[0] - 2, 0) * hop : (loud[-1] + 3) * hop]


def coloured_noise(count: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Noise, float32 [count] of unit power. Its power spectrum is 1 / f**exponent: 0 is white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequency = np.maximum(np.arange(len(spectrum)), 20 * count / RATE)
    noise = np.fft.irfft(spectrum / frequency ** (exponent / 2), count)
    return (noise / noise.std()).astype(np.float32)


def room_and_microphone(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Adds a mild room in a quarter of the cases. In about a third it tilts the spectrum or cuts a telephone's band."""
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


def utterance(split: str, invented: float, data: Path | None, seed: int) -> tuple[dict, np.ndarray]:
    """One sentence of a split, as (index entry, int16 samples). Training speech also gets a warp and a room.

    invented: share of the training sentences that an invented voice speaks.
    """
    rng = random.Random(f"{split}/{seed}")
    while grammar.is_held_out(text := grammar.sentence(rng)) != (split != "train"):
        pass
    voice, accent = rng.choice(UNSEEN_VOICES if split == "unseen" else KNOWN_VOICES), rng.choice(ACCENTS)
    train = split == "train"
    if train and rng.random() < invented:
        voice = rng.choice(INVENTED_VOICES)
    samples = espeak(
        text,
        f"{accent}+{voice}",
        speed=rng.randrange(110, 231) if train else rng.randrange(120, 211),
        pitch=rng.randrange(10, 91) if train else rng.randrange(25, 76),
        gap=rng.choice((0, 0, 0, 0, 2, 5, 10)),
        warp=rng.uniform(0.88, 1.12) if train and rng.random() < 0.7 else 1.0,
        data=data,
    )
    if train:
        samples = room_and_microphone(samples, np.random.default_rng(seed))
    samples = at_level(samples, -23)
    entry = {"text": text, "voice": voice, "accent": accent, "length": len(samples)}
    return entry, (samples * 32767).astype(np.int16)


def make_corpus(folder: Path, split: str, count: int, workers: int, first_seed: int, invented: float) -> None:
    """Writes a corpus of `count` sentences, in the form described at the top of this file."""
    folder.mkdir(parents=True, exist_ok=True)
    data = data_with_invented_voices(folder.absolute()) if split == "train" and invented else None
    make = functools.partial(utterance, split, invented, data)
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
    """A corpus on disk: `entries` (dicts) and `samples(i)` (float32 [N])."""

    def __init__(self, folder: Path | str):
        folder = Path(folder)
        self.entries = [json.loads(line) for line in open(folder / "index.jsonl")]
        self._audio = np.memmap(folder / "audio.i16", np.int16, mode="r")

    def __len__(self) -> int:
        return len(self.entries)

    def samples(self, i: int) -> np.ndarray:
        entry = self.entries[i]
        piece = self._audio[entry["start"] : entry["start"] + entry["length"]]
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
    parser.add_argument("--count", type=int, default=96_000)
    parser.add_argument("--first-seed", type=int, default=0, help="corpora of other seeds have other sentences")
    parser.add_argument("--invented", type=float, default=0.25, help="share of training sentences in invented voices")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--wav", action="store_true", help="also write each sentence as a .wav file")
    options = parser.parse_args()
    make_corpus(options.out, options.split, options.count, options.workers, options.first_seed, options.invented)
    if options.wav:
        write_wavs(options.out)
