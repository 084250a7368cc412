"""Files to text: tdtdecode, onnx-asr and sherpa-onnx on the same model, the same files and as many threads.

    python -m benches.end_to_end MODELS [--runs 3] [--seconds 100] [--quick] [--save]

MODELS is a folder that `benches.full_size_model` made. The recordings are speech of the demo, cut to lengths like those
of LibriSpeech's test set and like those of dictation. Each system runs in a process of its own, whose peak memory is
reported, and the systems take turns. Wall time and processor time are given; on a machine that is busy with other
things, processor time is the better measure.

The shares of reading, features, encoder, decoder and words come from runs of each stage alone, one after the other; of
several runs the least time of each stage counts. In `recognize` the stages overlap, so that it takes less than their
sum. sherpa-onnx cannot be taken apart.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tdtdecode.speech.audio import read_audio
from tdtdecode.speech.hub import demo_directory

from .report import RESULTS, environment, save

RATE = 16_000
SYSTEMS = ("tdtdecode", "onnx-asr", "sherpa-onnx")
STAGES = ("reading", "features", "encoder", "decoder", "words")
NAME = "end_to_end"


def lengths(kind: str, seconds: float) -> list[float]:
    """Lengths of recordings, in seconds, about as many seconds in all."""
    rng = np.random.default_rng(0)
    found: list[float] = []
    while sum(found) < seconds:
        if kind == "librispeech":  # the mean is 7.4 s, the longest 35 s
            found.append(float(np.clip(rng.lognormal(1.8, 0.6), 1.3, 35)))
        else:
            found.append(float(np.clip(rng.lognormal(0.8, 0.5), 0.7, 8)))
    return found


def write_recordings(kind: str, seconds: float, folder: Path) -> list[str]:
    """16-bit WAV files, which all systems read."""
    import soundfile

    speech = read_audio(demo_directory() / "speech.flac")
    rng = np.random.default_rng(1)
    files = []
    for number, length in enumerate(lengths(kind, seconds)):
        samples = np.resize(np.roll(speech, -int(rng.integers(len(speech)))), int(length * RATE))
        files.append(str(folder / f"{kind}-{number:03}.wav"))
        soundfile.write(files[-1], samples + 0.003 * rng.standard_normal(len(samples)), RATE, subtype="PCM_16")
    return files


# In the process of a system: functions by name, each from files to something whose texts are counted.


def tdtdecode_functions(models: Path, precision: str, threads: int) -> dict[str, Callable]:
    import tdtdecode as tdt
    from tdtdecode.speech.pipeline import Encoded
    from tdtdecode.speech.stages import ModelStages

    variant = None if precision == "fp32" else precision
    model = tdt.load_model(models / "combined", variant=variant, threads=threads)
    stages = ModelStages(
        model.bundle, model.encoder, model.decoder, model._extract, search=tdt.Greedy(), utterances=None,
        batch_size=16, device="cpu", limit=model._max_input_frames, windows=model._windows,
        encode=model.encoder.launched, vad=None,
    )  # fmt: skip
    heard: dict[tuple[str, ...], list] = {}

    def recognize(files: list[str]) -> list[str]:
        return [out.text for out in model.recognize(files)]

    def encoder_alone(files: list[str]) -> list[str]:
        """The encoder's work alone, in the same batches: what `recognize` is held to."""
        if tuple(files) not in heard:
            heard[tuple(files)] = [stages.read(place, file) for place, file in enumerate(files)]
        pieces = [piece for one in heard[tuple(files)] for piece in one.pieces]
        for batch in stages.batches(pieces):
            list(stages.encode(batch))
        return []

    def encoder_one_by_one(files: list[str]) -> list[str]:
        for one in heard[tuple(files)]:
            list(stages.encode(one.pieces))
        return []

    def shares(files: list[str]) -> dict[str, float]:
        clock = Clock()
        samples = [read_audio(file) for file in files]
        clock.lap("reading")
        for one in samples:
            model._extract([one])
        clock.lap("features")
        encoder_alone(files)
        clock.times["encoder"] = clock.since()
        pieces = [piece for one in heard[tuple(files)] for piece in one.pieces]
        encoded: list[Encoded] = [out for batch in stages.batches(pieces) for out in stages.encode(batch)]
        clock.since()
        found = {out.pieces[i].place: h for out in encoded for i, h in enumerate(stages.decode(out, lambda *_: None))}
        clock.lap("decoder")
        for place, hypothesis in found.items():
            assert heard[tuple(files)][place].transcript([hypothesis]).words is not None
        clock.lap("words")
        return clock.times

    return {
        "recognize": recognize, "encoder alone": encoder_alone, "encoder one by one": encoder_one_by_one,
        "shares": shares,
    }  # fmt: skip


def onnx_asr_functions(models: Path, precision: str, threads: int) -> dict[str, Callable]:
    import onnx_asr
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    model = onnx_asr.load_model(
        "nemo-conformer-tdt", models / "combined", quantization=None if precision == "fp32" else precision,
        sess_options=options, providers=["CPUExecutionProvider"],
    )  # fmt: skip

    def batch(files: list[str]) -> list[str]:
        return list(model.recognize(files))

    def one_by_one(files: list[str]) -> list[str]:
        return [model.recognize(file) for file in files]

    def shares(files: list[str]) -> dict[str, float]:
        """Of the batch call, with each part of it timed."""
        from onnx_asr.utils import read_wav_files

        clock, asr = Clock(), model.asr
        waves = model.resampler(*read_wav_files(files, RATE, None))
        clock.lap("reading")
        features = asr._preprocessor(*waves)
        clock.lap("features")
        encoded = asr._encode(*features)
        clock.lap("encoder")
        decoded = list(zip(*asr._decoding(*encoded), strict=False))
        clock.lap("decoder")
        list(map(asr._decode_tokens, *decoded))
        clock.lap("words")
        return clock.times

    return {"batch": batch, "one by one": one_by_one, "shares": shares}


def sherpa_functions(models: Path, precision: str, threads: int) -> dict[str, Callable]:
    import sherpa_onnx
    import soundfile

    suffix = "" if precision == "fp32" else f".{precision}"
    recognizer = sherpa_onnx.OfflineRecognizer.from_transducer(
        **{part: str(models / "split" / f"{part}{suffix}.onnx") for part in ("encoder", "decoder", "joiner")},
        tokens=str(models / "split" / "tokens.txt"), model_type="nemo_transducer", num_threads=threads,
    )  # fmt: skip

    def streams(files: list[str]) -> list:
        made = []
        for file in files:
            made.append(recognizer.create_stream())
            made[-1].accept_waveform(RATE, soundfile.read(file, dtype="float32")[0])
        return made

    def batch(files: list[str]) -> list[str]:
        made = streams(files)
        recognizer.decode_streams(made)
        return [stream.result.text for stream in made]

    def one_by_one(files: list[str]) -> list[str]:
        texts = []
        for file in files:
            (stream,) = streams([file])
            recognizer.decode_stream(stream)
            texts.append(stream.result.text)
        return texts

    return {"batch": batch, "one by one": one_by_one}


FUNCTIONS = {
    "tdtdecode": tdtdecode_functions, "onnx-asr": onnx_asr_functions, "sherpa-onnx": sherpa_functions,
}  # fmt: skip


class Clock:
    """Seconds by name."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}
        self._at = time.perf_counter()

    def since(self) -> float:
        before, self._at = self._at, time.perf_counter()
        return self._at - before

    def lap(self, name: str) -> None:
        self.times[name] = self.since()


def serve(system: str, models: Path, precision: str, threads: int) -> None:
    """Answer requests, one in a line: the name of a function and files."""
    functions = FUNCTIONS[system](models, precision, threads)
    print(json.dumps({"functions": list(functions)}), flush=True)
    for line in sys.stdin:
        name, files = json.loads(line)
        wall, cpu = time.perf_counter(), time.process_time()
        found = functions[name](files)
        answer = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        answer["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        answer |= {"shares": found} if isinstance(found, dict) else {"texts": found}
        print(json.dumps(answer), flush=True)


class Process:
    """A system in a process of its own."""

    def __init__(self, system: str, models: Path, precision: str, threads: int):
        command = [sys.executable, "-m", "benches.end_to_end", str(models), "--serve", system, precision]
        self._process = subprocess.Popen(
            [*command, "--threads", str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.functions = self._answer()["functions"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a system has failed with status {self._process.wait()}")
        return json.loads(line)

    def call(self, function: str, files: list[str]) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(json.dumps([function, files]), file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def measure(models: Path, precision: str, kind: str, files: list[str], runs: int, threads: int, quick: bool) -> dict:
    """The figures of all systems on some files. Each function has a process of its own, for its memory's sake."""
    wanted = [("tdtdecode", "recognize"), ("tdtdecode", "encoder alone"), ("onnx-asr", "batch"),
              ("onnx-asr", "one by one"), ("sherpa-onnx", "one by one")]  # fmt: skip
    if not quick:
        wanted += [("sherpa-onnx", "batch"), ("tdtdecode", "encoder one by one")]
    processes: dict[str, Process] = {}
    times: dict[tuple[str, str], list[dict]] = {one: [] for one in wanted}
    result: dict[str, Any] = {}
    texts: dict[str, list[str]] = {}
    seconds = sum(os.path.getsize(file) - 44 for file in files) / 2 / RATE
    alone = Process("tdtdecode", models, precision, threads)
    longest_alone = alone.call("recognize", [max(files, key=os.path.getsize)])["peak"]
    alone.close()
    for run in range(runs):
        for system, function in wanted:
            # Peak memory belongs to a process: the first function of a system has one before the others are called.
            if system not in processes:
                processes[system] = Process(system, models, precision, threads)
                processes[system].call(function, files[:1])
            answer = processes[system].call(function, files)
            answer["load"] = os.getloadavg()[0]
            times[system, function].append(answer)
            if answer["texts"]:
                texts[f"{system}, {function}"] = answer["texts"]
    for (system, function), answers in times.items():
        entry = {
            "wall": [round(one["wall"], 3) for one in answers], "cpu": [round(one["cpu"], 3) for one in answers],
            "times_real_time": round(seconds / statistics.median(one["wall"] for one in answers), 2),
        }  # fmt: skip
        if (system, function) in wanted[:1] + wanted[2:3] + [("sherpa-onnx", "one by one")]:
            entry["peak_memory"] = answers[0]["peak"]  # in the first run nothing else was called before
        result[f"{system}, {function}"] = entry
    for system in ("tdtdecode", "onnx-asr"):
        found = [processes[system].call("shares", files)["shares"] for _ in range(runs)]
        name = next(f"{one}, {function}" for one, function in wanted if one == system)
        result[name]["shares"] = {stage: round(min(shares[stage] for shares in found), 4) for stage in STAGES}
    for process in processes.values():
        process.close()
    ours, theirs = texts["tdtdecode, recognize"], texts["onnx-asr, one by one"]
    loads = [answer["load"] for answers in times.values() for answer in answers]
    summary = {
        "precision": precision, "recordings": kind, "number": len(files), "seconds": round(seconds, 1),
        "characters": {name: sum(map(len, found)) for name, found in texts.items()},
        "texts_as_onnx_asr_one_by_one": sum(a == b for a, b in zip(ours, theirs, strict=True)),
        "peak_memory_of_the_longest_alone": longest_alone, "load": [round(min(loads), 1), round(max(loads), 1)],
        "systems": result,
    }  # fmt: skip
    show(summary)
    return summary


def ratio(one: dict, other: dict, kind: str) -> float:
    """The median of the ratios of runs that were made one after the other."""
    return statistics.median(a / b for a, b in zip(one[kind], other[kind], strict=True))


def show(summary: dict) -> None:
    systems = summary["systems"]
    print(
        f"\n{summary['precision']}, {summary['recordings']}: {summary['number']} recordings, {summary['seconds']} s; "
        f"load {summary['load'][0]} to {summary['load'][1]}"
    )
    ours = systems["tdtdecode, recognize"]
    for name, entry in systems.items():
        memory = f", peak {entry['peak_memory'] / 2**30:.2f} GiB" if "peak_memory" in entry else ""
        print(
            f"  {name:<32} {statistics.median(entry['wall']):6.2f} s, CPU {statistics.median(entry['cpu']):6.2f} s"
            f" ({ratio(entry, ours, 'wall'):.2f} and {ratio(entry, ours, 'cpu'):.2f} times ours){memory}"
        )
        if "shares" in entry:
            print("      " + ", ".join(f"{stage} {value:.2f} s" for stage, value in entry["shares"].items()))
    print(f"  the longest alone: peak {summary['peak_memory_of_the_longest_alone'] / 2**30:.2f} GiB")
    print(f"  characters: {summary['characters']}", flush=True)


def draw() -> None:
    """Draw ``results/end_to_end.png``: a stacked bar of stages for each system, and a line where `recognize` ends."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    result = json.loads((RESULTS / f"{NAME}.json").read_text())
    comparisons = result["comparisons"]
    colours = dict(zip(STAGES, ("#8fb8de", "#c79a3a", "#1f5fa8", "#d1495b", "#6a2c70")))
    figure, panels = pyplot.subplots(1, len(comparisons), figsize=(4.2 * len(comparisons), 4.4), squeeze=False)
    for panel, comparison in zip(panels[0], comparisons):
        for place, (name, entry) in enumerate(comparison["systems"].items()):
            wall = statistics.median(entry["wall"])
            if "shares" not in entry:
                panel.bar(place, wall, color="#bbbbbb")
                continue
            bottom = 0.0
            for stage, value in entry["shares"].items():
                panel.bar(place, value, bottom=bottom, color=colours[stage])
                bottom += value
            panel.hlines(wall, place - 0.45, place + 0.45, color="black")
        names = [name.replace(", ", "\n") for name in comparison["systems"]]
        panel.set_xticks(range(len(names)), names, fontsize=6, rotation=90)
        panel.set_title(
            f"{comparison['precision']}, {comparison['recordings']},\n{comparison['number']} recordings, "
            f"{comparison['seconds']:.0f} s", fontsize=9,
        )  # fmt: skip
        panel.grid(axis="y", alpha=0.3)
    panels[0][0].set_ylabel("seconds")
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colour) for colour in colours.values()]
    handles.append(pyplot.Line2D([0], [0], color="black"))
    panels[0][-1].legend(
        handles, [*colours, "the whole call"], fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    figure.suptitle(f"Files to text, {result['threads']} threads, {result['processor']}", fontsize=9)
    figure.tight_layout()
    figure.savefig(RESULTS / f"{NAME}.png", dpi=90)
    print(f"written: {RESULTS / f'{NAME}.png'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=100.0, help="of audio, for each kind of lengths")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--precision", choices=("fp32", "int8"), action="append")
    parser.add_argument("--quick", action="store_true", help="without the calls that are only there to explain others")
    parser.add_argument("--save", action="store_true", help="keep the figures under benches/results, and draw them")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], options.models, options.serve[1], options.threads)
        return
    comparisons = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("librispeech", "dictation"):
            files = write_recordings(kind, options.seconds, Path(folder))
            for precision in options.precision or ("fp32", "int8"):
                comparisons.append(
                    measure(options.models, precision, kind, files, options.runs, options.threads, options.quick)
                )
                if options.save:  # also what there is so far: all of it takes long
                    result = environment("onnxruntime", "onnx-asr", "sherpa-onnx")
                    save(NAME, result | {"threads": options.threads, "comparisons": comparisons})
    if options.save:
        draw()


if __name__ == "__main__":
    main()
