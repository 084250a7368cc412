"""Random operations on a pool of streams, from four threads: nothing is lost, nothing is mixed up.

    python -m tests.speech.random_streams MODEL OPERATIONS SEARCH

MODEL is a folder of `tests/golden_streaming`, SEARCH greedy or beam. Prints "clean", or what went wrong. It is a
program so that ThreadSanitizer can watch it.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import tdtdecode as tdt

GOLDEN = Path(__file__).parents[1] / "golden_streaming"
THREADS = 4
HANGING = 900
SLOW = 0.5
"""Seconds that an operation may take beside that, on a machine with much else to do."""


def features_of(name: str) -> list[np.ndarray]:
    with np.load(GOLDEN / name / "features.npz") as file:
        return [file[f"features_{i}"] for i in range(len(file.files))]


def problems_of(model: tdt.Recognizer, features: list[np.ndarray], search: Any, operations: int) -> list[object]:
    """Feed, finish, drop, join and wrong input, ``operations`` of them in each thread. Returns what went wrong."""
    expected = []
    for one in features:
        stream = model.stream(search=search)
        stream.feed_features(one)
        expected.append(stream.finish().hypothesis.tokens.tolist())
    pool = model.streams(search=search)
    problems: list[object] = []

    def work(thread: int) -> None:
        try:
            rng = np.random.default_rng(thread)
            left: dict[tuple[int, int, int], np.ndarray] = {}
            begun = 0
            for _ in range(operations):
                kind = rng.random()
                if kind < 0.2 or not left:
                    i = int(rng.integers(len(expected)))
                    key = thread, begun, i
                    begun += 1
                    left[key] = features[i]
                    pool.open(key)
                    continue
                keys = [key for key in left if rng.random() < 0.5] or list(left)[:1]
                if kind < 0.6:
                    pieces = {}
                    for key in keys:
                        size = int(rng.integers(0, 120))
                        pieces[key], left[key] = left[key][:, :size], left[key][:, size:]
                    for result in pool.feed_features(pieces).values():
                        if isinstance(result, Exception):
                            problems.append(result)
                elif kind < 0.8:
                    pool.feed_features({key: left[key] for key in keys})
                    for key, found in pool.finish(keys).items():
                        if found.hypothesis.tokens.tolist() != expected[key[2]]:
                            problems.append((key, found))
                        del left[key]
                elif kind < 0.9:
                    pool.drop(keys[0])
                    del left[keys[0]]
                else:
                    wrong = pool.feed_features({keys[0]: np.zeros((3, 2), np.float32), (thread, "new"): "x"})
                    if not all(isinstance(result, tdt.InputError) for result in wrong.values()):
                        problems.append(wrong)
            for key in left:
                pool.drop(key)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + HANGING + SLOW * operations
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0))
    problems += [f"thread {i} hangs" for i, thread in enumerate(threads) if thread.is_alive()]
    return problems if problems or not len(pool) else [f"{len(pool)} streams are left"]


def main() -> None:
    name, operations, search = sys.argv[1:]
    model = tdt.load_model(GOLDEN / name, layout="split", threads=1)
    searches = {"greedy": tdt.Greedy(), "beam": tdt.Beam(size=3)}
    print(problems_of(model, features_of(name), searches[search], int(operations)) or "clean")


if __name__ == "__main__":
    main()
