"""Live streams of the demo model: what latency costs in words and in time, and how many streams one core follows.

    python -m benches.streaming [--corpus FOLDER] [--streams 64] [--seconds 60] [--save]

1. Latency: sentences are joined with pauses to recordings of 30 s, which are fed in pieces of 100 ms, all at once, for
   several windows. Word errors against the text; how long after a word's end it is first shown, and settled; and the
   CPU time for a second of audio of a single stream.
2. Load: streams that begin at different moments are fed in real time. An update is late by the time from the moment
   when its window was complete until its words were there. CPU time is that of the whole process.
3. Overhead: what a chunk costs beside encoder and decoder, on a cache-aware model of the tests.

FOLDER is a corpus made by `tools/demo_model/speech.py`. Without one, the recordings of the tests are used.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import tdtdecode as tdt
from tdtdecode.evaluation import edit_distance
from tdtdecode.speech.audio import FeatureExtractor
from tdtdecode.speech.streaming import Latency
from tdtdecode.speech.streaming.latency import windows_for
from tdtdecode.speech.windows import decode_in_windows

from .beam_quality import recordings_of
from .report import environment, save
from .windows import long_recordings

RATE = 16_000
PIECE = RATE // 10
CHUNKS = (0.24, 0.4, 0.8, 1.2, 2.0)
RIGHTS = (0.08, 0.24, 0.4, 0.6, 0.8, 1.2, 1.6)
LEFTS = (0.8, 1.6, 5.6, 11.2)
GOLDEN = Path(__file__).parents[1] / "tests" / "golden_streaming" / "rnnt-70-6"


def pieces_of(samples: np.ndarray) -> list[np.ndarray]:
    return [samples[start : start + PIECE] for start in range(0, len(samples), PIECE)]


def word_errors(model, recordings: list[tuple[np.ndarray, str]], latency: Latency) -> dict:
    """Word errors, and the delays of the words, over all recordings as streams of one pool."""
    pool = model.streams(latency=latency)
    pieces = [pieces_of(samples) for samples, _ in recordings]
    shown: list[list[float]] = [[] for _ in recordings]
    settled: list[list[float]] = [[] for _ in recordings]
    for number in range(max(map(len, pieces))):
        due = {i: parts[number] for i, parts in enumerate(pieces) if number < len(parts)}
        for i, news in pool.feed(due).items():
            settled[i] += [news.heard] * len(news.words)
            visible = len(settled[i]) + len(news.tentative.split())
            shown[i] += [news.heard] * (visible - len(shown[i]))
    errors = words = 0
    delays: dict[str, list[float]] = {"shown": [], "settled": []}
    for i, transcript in pool.finish().items():
        reference = recordings[i][1].split()
        errors += edit_distance(reference, transcript.text.split())
        words += len(reference)
        ends = [word.end for word in transcript.words]
        for name, times in (("shown", shown[i]), ("settled", settled[i])):
            delays[name] += [max(moment - end, 0.0) for moment, end in zip(times, ends)]
    return {"word_errors": errors / words} | {
        f"{name}_after": {"median": float(np.median(found)), "p95": float(np.percentile(found, 95))}
        for name, found in delays.items()
    }


def cpu_seconds(model, samples: np.ndarray, latency: Latency) -> float:
    """CPU time for a second of audio of one stream."""
    begin = time.process_time()
    stream = model.stream(latency=latency)
    for piece in pieces_of(samples):
        stream.feed(piece)
    stream.finish()
    return (time.process_time() - begin) / (len(samples) / RATE)


def latencies(model, recordings: list[tuple[np.ndarray, str]]) -> dict:
    whole = [transcript.text for transcript in model.recognize([(samples, RATE) for samples, _ in recordings])]
    words = sum(len(text.split()) for _, text in recordings)
    errors = sum(
        edit_distance(text.split(), found.split()) for (_, text), found in zip(recordings, whole, strict=True)
    )
    print(f"{len(recordings)} recordings, {words} words; recognised whole: {errors / words:.2%} word errors")
    known = statistics_of_the_whole(model, recordings)
    print(f"the default windows, features normalised over the whole recording: {known:.2%} word errors")
    print("chunk right  left   errors   shown after       settled after     CPU")
    default = Latency()
    plan = [Latency(chunk, default.right, default.left) for chunk in CHUNKS]
    plan += [Latency(default.chunk, right, default.left) for right in RIGHTS if right != default.right]
    plan += [Latency(default.chunk, default.right, left) for left in LEFTS if left != default.left]
    table = []
    for latency in plan:
        found = word_errors(model, recordings, latency) | {"cpu": cpu_seconds(model, recordings[0][0], latency)}
        shown, settled = found["shown_after"], found["settled_after"]
        print(f"{latency.chunk:5} {latency.right:5} {latency.left:5}  {found['word_errors']:6.2%}   "
              f"{shown['median']:4.2f} (95 %: {shown['p95']:4.2f})  {settled['median']:4.2f} "
              f"(95 %: {settled['p95']:4.2f})  {found['cpu']:6.2%}", flush=True)  # fmt: skip
        table.append({"chunk": latency.chunk, "right": latency.right, "left": latency.left} | found)
    return {"words": words, "whole": errors / words, "whole_statistics": known, "windows": table}


def statistics_of_the_whole(model, recordings: list[tuple[np.ndarray, str]]) -> float:
    """Word errors of the default windows if the features could be normalised over the whole recording."""
    settings = model.bundle.features
    windows = windows_for(None, model.bundle.frame_seconds, settings.max_frames)
    errors = words = 0
    for samples, text in recordings:
        features, lengths = FeatureExtractor(settings.mel_bins, settings.normalize)([samples])
        found = decode_in_windows(
            features[0, :, : lengths[0]], model.encoder, model.decoder, model.decoder.search, windows,
            settings.subsampling_factor, 16,
        )  # fmt: skip
        errors += edit_distance(text.split(), model.decoder.detokenize(found.tokens).split())
        words += len(text.split())
    return errors / words


def load(model, recordings: list[tuple[np.ndarray, str]], count: int, seconds: float) -> dict:
    """Feed streams in real time from one thread, and measure how late their updates are."""
    rng = np.random.default_rng(0)
    audio = np.concatenate([samples for samples, _ in recordings])
    begins = rng.integers(0, max(len(audio) - int(seconds * RATE), 1), count)
    offsets = rng.uniform(0, 2.0, count)  # streams begin at different moments
    pool = model.streams()
    late, updates = [], 0
    cpu, start = time.process_time(), time.perf_counter()
    schedule = sorted(
        (offsets[i] + (number + 1) * PIECE / RATE, i, number)
        for i in range(count)
        for number in range(int(seconds * RATE) // PIECE)
    )
    decoded = dict.fromkeys(range(count), 0.0)
    position = 0
    while position < len(schedule):
        now = time.perf_counter() - start
        if schedule[position][0] > now:
            time.sleep(schedule[position][0] - now)
            continue
        due: dict[int, list[np.ndarray]] = {}
        came: dict[int, float] = {}
        while position < len(schedule) and schedule[position][0] <= now:
            moment, i, number = schedule[position]
            due.setdefault(i, []).append(audio[begins[i] + number * PIECE :][:PIECE])
            came[i] = moment
            position += 1
        news = pool.feed({i: np.concatenate(parts) for i, parts in due.items()})
        after = time.perf_counter() - start
        for i, one in news.items():
            if one.decoded > decoded[i]:
                decoded[i] = one.decoded
                late.append(after - came[i])
                updates += 1
    wall = time.perf_counter() - start
    cpu = time.process_time() - cpu
    pool.finish()
    found = {
        "streams": count, "seconds": seconds, "updates": updates, "median_ms": 1e3 * float(np.median(late)),
        "p95_ms": 1e3 * float(np.percentile(late, 95)), "most_ms": 1e3 * max(late), "cores": cpu / wall,
    }  # fmt: skip
    print(f"{count} streams for {seconds:g} s: {updates} updates, after {found['median_ms']:.1f} ms "
          f"(95 %: {found['p95_ms']:.1f}, at most {found['most_ms']:.1f}); {found['cores']:.2f} cores")  # fmt: skip
    return found


class Timed:
    """Calls a function and adds up the time that it takes."""

    def __init__(self, function):
        self.function, self.seconds, self.calls = function, 0.0, 0

    def __call__(self, *arguments, **options):
        begin = time.perf_counter()
        try:
            return self.function(*arguments, **options)
        finally:
            self.seconds += time.perf_counter() - begin
            self.calls += 1


def overhead(count: int) -> dict:
    """The time of a chunk beside encoder and decoder: samples to features, caches, states, words."""
    model = tdt.load_model(GOLDEN, layout="split", threads=1)
    step = model.encoder.step = Timed(model.encoder.step)
    decode = model.decoder.decode_chunk = Timed(model.decoder.decode_chunk)
    pool = model.streams()
    rng = np.random.default_rng(0)
    chunk = model.encoder.caches.shift * RATE // 100
    noise = (0.1 * rng.standard_normal((count, chunk))).astype(np.float32)
    rounds = 200
    begin = time.perf_counter()
    for _ in range(rounds):
        pool.feed(dict(enumerate(noise)))
    seconds = time.perf_counter() - begin
    rest = (seconds - step.seconds - decode.seconds) / rounds / count
    found = {
        "streams": count, "chunk_ms": 1e3 * chunk / RATE, "encoder_ms": 1e3 * step.seconds / rounds / count,
        "decoder_ms": 1e3 * decode.seconds / rounds / count, "rest_ms": 1e3 * rest,
    }  # fmt: skip
    print(f"a chunk of {found['chunk_ms']:.0f} ms, {count} streams at once: encoder {found['encoder_ms']:.3f} ms, "
          f"decoder {found['decoder_ms']:.3f} ms, the rest {found['rest_ms']:.3f} ms")  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, metavar="FOLDER", help="default: the recordings of the tests")
    parser.add_argument("--streams", type=int, default=64, help="streams of the load test (default: 64)")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the load test (default: 60)")
    parser.add_argument("--save", action="store_true", help="keep the figures under benches/results")
    options = parser.parse_args()
    model = tdt.load_model("demo", threads=1)
    sentences = recordings_of(options.corpus, 500)
    result = {
        "environment": environment("onnxruntime", "soxr"),
        "overhead": [overhead(count) for count in (1, 64)],
        "load": load(model, sentences, options.streams, options.seconds),
        "latency": latencies(model, long_recordings(sentences, 30.0)),
    }
    if options.save:
        save("streaming", result)


if __name__ == "__main__":
    main()
