"""What a call of the C library costs: above the search that it runs, and beside the same call from Python.

    python -m benches.c_library --build FOLDER [--save]

FOLDER is one in which ``cmake -DTDT_C_LIBRARY=ON`` has built the library. The demo model decodes recorded encoder
output.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

import tdtdecode as tdt

from .report import environment, save

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "examples/recorded"
CALLS = 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, required=True, help="where the static library was built")
    parser.add_argument("--save", action="store_true", help="keep the figures under benches/results")
    arguments = parser.parse_args()
    csrc = ROOT / "csrc"
    decoder = tdt.Decoder.from_bundle(RECORDED / "demo.tdt")
    frames = np.frombuffer((RECORDED / "encoder_output.f32").read_bytes(), "<f4").reshape(128, -1)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program"
        subprocess.run([
            "g++", "-O2", "-std=c++17", "-DTDT_STATIC", f"-I{csrc}", f"-I{csrc / 'cpu'}",
            str(Path(__file__).with_suffix(".cpp")), str(arguments.build / "csrc/capi/libtdtdecode.a"), "-pthread",
            "-o", str(program),
        ], check=True)  # fmt: skip
        for length in (1, 10, frames.shape[1]):
            output = subprocess.run(
                [
                    str(program), str(RECORDED / "demo.tdt"), str(RECORDED / "encoder_output.f32"), str(length),
                    str(CALLS),
                ],
                capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
            search, call = map(float, output.split())
            given = np.ascontiguousarray(frames[None, :, :length])
            python = min(_seconds(decoder, given) for _ in range(CALLS)) * 1e6
            results.append({
                "frames": length, "tokens": len(decoder.decode(given)[0]), "search": search, "tdt_decode": call,
                "Decoder.decode": python,
            })  # fmt: skip
            print(f"{length} frames: search {search:.2f} us, tdt_decode {call:.2f} us, "
                  f"Decoder.decode {python:.2f} us")  # fmt: skip
    if arguments.save:
        save("c_library", {
            **environment(), "threads": 1, "unit": f"microseconds, the least of {CALLS} calls", "results": results,
        })  # fmt: skip


def _seconds(decoder: tdt.Decoder, frames: np.ndarray) -> float:
    start = time.perf_counter()
    decoder.decode(frames)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
