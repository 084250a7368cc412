"""Row -> decision on every kernel set: microseconds per joint row, log-probs included.

    python -m benches.kernels [--save]
"""

from __future__ import annotations

import argparse

import numpy as np

import tdtdecode as tdt

from tdtdecode.benchmark import alternate, summary

from .report import environment, save

ROWS, REPEATS = 16, 50


def measure(vocab_size: int, tokens: bool) -> dict:
    spec = tdt.TransducerSpec(vocab_size)
    rows = np.random.default_rng(0).normal(scale=3, size=(ROWS, spec.joint_width)).astype(np.float32)
    rows[:, spec.blank] = -20 if tokens else 20
    decisions, logprobs = np.empty((2, ROWS), np.int32), np.empty((2, ROWS), np.float32)
    arguments = (rows, spec.vocab_size, spec.blank, spec.duration_table, 0.0, decisions, logprobs)

    def repeat(decide):
        return lambda: [decide(*arguments) for _ in range(REPEATS)]

    seconds = alternate(9, {kernels.name: repeat(kernels.decide) for kernels in tdt.kernels.available()})
    result = {name: summary(values)["median"] / ROWS / REPEATS * 1e6 for name, values in seconds.items()}
    what = "tokens" if tokens else "blanks"
    figures = ", ".join(f"{name} {us:.2f}" for name, us in result.items())
    print(f"V = {vocab_size}, {what}: us per row: {figures}", flush=True)
    return {"vocab_size": vocab_size, "rows": ROWS, "decided": what, "us_per_row": result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help="keep the figures under benches/results")
    arguments = parser.parse_args()
    results = [measure(size, tokens) for size in (1024, 8192) for tokens in (True, False)]
    if arguments.save:
        save("kernels", environment("numba") | {"threads": 1, "results": results})


if __name__ == "__main__":
    main()
