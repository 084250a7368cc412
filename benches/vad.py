"""A VAD in front of the demo model: words kept, words made up in noise, time saved, and what the VAD itself costs.

    python -m benches.vad [--corpus FOLDER] [--save]

Sentences are joined to recordings with pauses, in noise. `recognize` with and without a VAD is compared by word errors
and by CPU time, on one thread; then the same recordings as live streams. Last, the VAD alone: CPU time for a second of
audio, of one stream, and of 64 that share its calls. FOLDER is a corpus made by `tools/demo_model/speech.py`. Without
one, the recordings of the tests are used.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import tdtdecode as tdt
from tdtdecode.evaluation import edit_distance

from .beam_quality import recordings_of
from .report import environment, save

RATE = 16_000
PIECE = RATE // 10
SCENES = {
    "pauses of 0.3 to 1 s, quiet": ((0.3, 1.0), 1e-4),
    "pauses of 2 to 6 s, quiet": ((2.0, 6.0), 1e-4),
    "pauses of 2 to 6 s, noise of -50 dB": ((2.0, 6.0), 3e-3),
    "pauses of 2 to 6 s, noise of -40 dB": ((2.0, 6.0), 1e-2),
    "pauses of 10 to 30 s, noise of -50 dB": ((10.0, 30.0), 3e-3),
}
"""Bounds of the pauses in seconds, and the deviation of the white noise over the whole recording."""
SENTENCES = 4
"""Sentences of a recording."""
SETTINGS = {
    "Silero's defaults": {"min_silence": 0.1, "speech_pad": 0.03},
    "min_silence=0.3, speech_pad=0.15": {"min_silence": 0.3, "speech_pad": 0.15},
    "the defaults here": {},
    "min_silence=0.6, speech_pad=0.3": {"min_silence": 0.6, "speech_pad": 0.3},
}


def scene(sentences: list[tuple[np.ndarray, str]], pauses: tuple[float, float], noise: float) -> list:
    """Recordings with pauses before, between and after the sentences, and their texts."""
    rng = np.random.default_rng(0)
    made = []
    for first in range(0, len(sentences) - SENTENCES + 1, SENTENCES):
        parts = [np.zeros(int(rng.uniform(*pauses) * RATE), np.float32)]
        for samples, _ in sentences[first : first + SENTENCES]:
            parts += [samples, np.zeros(int(rng.uniform(*pauses) * RATE), np.float32)]
        whole = np.concatenate(parts)
        whole = whole + np.float32(noise) * rng.standard_normal(len(whole), dtype=np.float32)
        made.append((whole, " ".join(text for _, text in sentences[first : first + SENTENCES])))
    return made


def errors(recordings: list[tuple[np.ndarray, str]], texts: list[str]) -> float:
    wrong = sum(edit_distance(text.split(), found.split()) for (_, text), found in zip(recordings, texts, strict=True))
    return wrong / sum(len(text.split()) for _, text in recordings)


def recognised(model: tdt.Recognizer, recordings: list, vad: tdt.SileroVad | None) -> dict:
    begin = time.process_time()
    found = [model.recognize((samples, RATE), vad=vad) for samples, _ in recordings]
    cpu = time.process_time() - begin
    return {"word_errors": errors(recordings, [one.text for one in found]), "cpu": cpu}


def streamed(model: tdt.Recognizer, recordings: list, vad: tdt.SileroVad | None) -> dict:
    begin = time.process_time()
    texts = []
    for samples, _ in recordings:
        stream = model.stream(vad=vad)
        for start in range(0, len(samples), PIECE):
            stream.feed(samples[start : start + PIECE])
        texts.append(stream.finish().text)
    return {"word_errors": errors(recordings, texts), "cpu": time.process_time() - begin}


def cost(vad: tdt.SileroVad, streams: int, seconds: int) -> float:
    """CPU time for a second of audio of each stream, fed in pieces of 100 ms."""
    rng = np.random.default_rng(0)
    noise = (0.1 * rng.standard_normal((streams, PIECE))).astype(np.float32)
    heard = [vad.stream() for _ in range(streams)]
    begin = time.process_time()
    for _ in range(10 * seconds):
        for stream, samples in zip(heard, noise, strict=True):
            stream.add(samples)
        while vad.hear(heard):
            pass
    return (time.process_time() - begin) / seconds / streams


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, metavar="FOLDER", help="default: the recordings of the tests")
    parser.add_argument("--limit", type=int, default=120, help="most sentences of the corpus (default: 120)")
    parser.add_argument("--save", action="store_true", help="keep the figures under benches/results")
    options = parser.parse_args()
    model = tdt.load_model("demo", threads=1)
    sentences = recordings_of(options.corpus, options.limit)
    result: dict = {"environment": environment("onnxruntime"), "sentences": len(sentences), "scenes": {}}
    for name, (pauses, noise) in SCENES.items():
        recordings = scene(sentences, pauses, noise)
        seconds = sum(len(samples) for samples, _ in recordings) / RATE
        rows = {"without": recognised(model, recordings, None)}
        for setting, given in SETTINGS.items():
            vad = tdt.SileroVad(**given)
            spoken = sum(one.end - one.start for samples, _ in recordings for one in vad.segments((samples, RATE)))
            rows[setting] = recognised(model, recordings, vad) | {"speech": spoken / seconds}
        rows["a stream without"] = streamed(model, recordings, None)
        rows["a stream, the defaults here"] = streamed(model, recordings, tdt.SileroVad())
        print(f"{name}: {seconds:.0f} s", flush=True)
        for setting, row in rows.items():
            row["cpu"] /= seconds
            speech = f", {row['speech']:.0%} of the audio is speech" if "speech" in row else ""
            print(f"  {setting:<34} {row['word_errors']:6.2%} word errors, {1e3 * row['cpu']:.2f} ms of CPU time for "
                  f"a second of audio{speech}", flush=True)  # fmt: skip
        result["scenes"][name] = {"seconds": seconds} | rows
    result["cost_ms"] = {str(streams): 1e3 * cost(tdt.SileroVad(), streams, 20) for streams in (1, 64)}
    for streams, milliseconds in result["cost_ms"].items():
        print(f"the VAD alone, {streams} streams: {milliseconds:.2f} ms of CPU time for a second of audio")
    if options.save:
        save("vad", result)


if __name__ == "__main__":
    main()
