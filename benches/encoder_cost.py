"""What a call of an encoder costs, by the number and the length of the recordings in it.

    python -m benches.encoder_cost DIRECTORY [--runs 3]

Fits the rule of `tdtdecode.speech.batching`: a call costs as much as ``a`` seconds of audio, and then as much as the
audio in it. Prints ``a``, and each time beside the rule's.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from tdtdecode.bundle import read_bundle
from tdtdecode.speech.encoder import Encoder

LENGTHS = (1, 2, 5, 10, 20)
ROWS = (1, 2, 4, 8)
MOST_SECONDS = 20


def measure(encoder: Encoder, mel_bins: int, runs: int) -> list[tuple[int, int, float]]:
    """Rows, seconds of each, and the median time of a call."""
    rng = np.random.default_rng(0)
    cases = [(rows, seconds) for seconds in LENGTHS for rows in ROWS if rows * seconds <= MOST_SECONDS]
    times: dict[tuple[int, int], list[float]] = {case: [] for case in cases}
    for run in range(runs + 1):  # the first is a warm-up
        for rows, seconds in cases:
            features = rng.standard_normal((rows, mel_bins, 100 * seconds)).astype(np.float32)
            begin = time.perf_counter()
            encoder(features, np.full(rows, 100 * seconds))
            if run:
                times[rows, seconds].append(time.perf_counter() - begin)
    return [(*case, statistics.median(found)) for case, found in times.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    bundle = read_bundle(options.directory)
    assert bundle.features.mel_bins is not None
    found = np.array(measure(Encoder(bundle, threads=options.threads), bundle.features.mel_bins, options.runs))
    rows, seconds, times = found.T
    terms = np.stack([np.ones(len(found)), rows * seconds], axis=1) / times[:, None]  # errors count as shares
    (call, audio), *_ = np.linalg.lstsq(terms, np.ones(len(found)), rcond=None)
    for row, length, measured in found:
        rule = call + audio * row * length
        print(f"{row:2.0f} of {length:2.0f} s: {measured * 1e3:8.1f} ms, by the rule {rule * 1e3:8.1f} ms")
    print(f"a call costs {call * 1e3:.1f} ms and {audio * 1e3:.2f} ms for each second: a = {call / audio:.1f} s")


if __name__ == "__main__":
    main()
