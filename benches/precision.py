"""How many tokens and words bfloat16 and int8 change against float32, on the demo model's recordings.

    python -m benches.precision [--corpus FOLDER] [--save]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import tdtdecode as tdt
from tdtdecode.evaluation import edit_distance
from tests import demo

from .report import environment, save

COPIES = 10
"""Each recording is decoded this many times: once clean, then with fresh white noise from 40 dB down to 5 dB."""


def recordings(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    noisy = []
    for samples, _ in demo.recordings().values():
        level = float(np.sqrt(np.mean(samples**2)))
        noisy.append(samples)
        for decibels in np.linspace(40, 5, COPIES - 1):
            noise = rng.standard_normal(len(samples)).astype(np.float32)
            noisy.append(samples + np.float32(level * 10 ** (-decibels / 20)) * noise)
    return noisy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help="keep the figures under benches/results")
    parser.add_argument("--corpus", type=Path, metavar="FOLDER",
                        help="use all .wav and .flac files in it instead of the demo's recordings")
    arguments = parser.parse_args()
    audio: list = [(samples, 16000) for samples in recordings()]
    if arguments.corpus is not None:
        audio = sorted(path for path in arguments.corpus.rglob("*") if path.suffix in (".wav", ".flac"))
        if not audio:
            parser.error(f"{arguments.corpus}: no .wav or .flac file inside")
    exact = tdt.load_model("demo").recognize(audio)
    result: dict = {"recordings": len(audio), "tokens": sum(len(t.hypothesis.tokens) for t in exact)}
    for precision in ("bfloat16", "int8"):
        found = tdt.load_model("demo", precision=precision).recognize(audio)
        tokens = sum(
            edit_distance(a.hypothesis.tokens.tolist(), b.hypothesis.tokens.tolist()) for a, b in zip(exact, found)
        )
        words = sum(edit_distance(a.text.split(), b.text.split()) for a, b in zip(exact, found))
        entry = {
            "token_error_rate": tokens / result["tokens"],
            "word_error_rate": words / sum(len(t.text.split()) for t in exact),
            "recordings_that_differ": sum(a.text != b.text for a, b in zip(exact, found)),
        }
        result[precision] = entry
        print(
            f"{precision}: {entry['token_error_rate']:.2%} of {result['tokens']} tokens and "
            f"{entry['word_error_rate']:.2%} of the words differ from float32's, in "
            f"{entry['recordings_that_differ']} of {len(audio)} recordings"
        )
    if arguments.save:
        save("precision", environment("onnxruntime") | result)


if __name__ == "__main__":
    main()
