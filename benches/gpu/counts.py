"""How long the kernels of a fused decode should take, from what is counted without a card.

    python -m benches.gpu.counts [--batch 1 128] [--save]

What blocks do is counted in an emulation (bytes, barriers, products, rounds), and instructions in the machine code
for sm_90. Times follow from these counts and from the constants of `Assumptions`, so they are arithmetic and no
measurement: they serve to compare one form of the kernels with another. Needs g++ and the wheels nvidia-cuda-nvrtc and
nvidia-cuda-nvdisasm. A batch of 128 takes many minutes.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tdtdecode.cuda.kernels import source_folder
from tdtdecode.cuda.structs import agreement

from ..report import RESULTS, environment, save
from . import emulated, rounds, sass
from .build import compiled

VOCAB_SIZE, FRAMES = 1024, {1: 9, 128: 3}
"""The model's size; frames of an utterance by batch."""
LAYERS = 2


@dataclass(frozen=True)
class Assumptions:
    """What a card is taken to do. The first five are published for an H200, the others are guesses. Instructions of
    branches that are not taken count too, so the sums are rather too high: 9.0 us for a token where a hand count of the
    same kernels gave 6.0 to 7.2. So compare only sums with each other."""

    clock_ghz: float = 1.98
    multiprocessors: int = emulated.MULTIPROCESSORS
    lanes: int = 128
    """Lanes of a multiprocessor that execute an instruction in one cycle."""
    shared_bytes: int = 128
    """Bytes that a multiprocessor reads from shared memory in one cycle."""
    cache_bytes_us: float = 5.5e6
    """Bytes that all multiprocessors together read from the L2 cache in a microsecond."""
    grid_barrier_us: float = 0.8
    exchange_us: float = 0.25
    """From a store to the moment at which other blocks can read it, beyond the load itself."""
    block_barrier_cycles: int = 40
    fetch_cycles: int = 80
    """A load of global memory that waits for what came before: between one from the L1 cache (40) and L2 (280)."""
    trip_cycles: int = 75
    """Two products of a warp: their loads and the tensor cores, one after the other."""
    shuffle_cycles: int = 25
    copy_instructions: int = 4
    """For 16 bytes that are copied to shared memory."""


_PROBE = """
#include "weights.cuh"
using namespace tdt::cuda;
__device__ __forceinline__ float relu(float x) { return x < 0.0f ? 0.0f : x; }
struct Both { float4 a, b; };
struct Source {
  const float *frame, *prediction;
  int size;
  __device__ Both load(int i) const { return Both{load_four(frame, i, size), load_four(prediction, i, size)}; }
  __device__ float4 make(const Both& x, int) const {
    return float4{relu(x.a.x + x.b.x), relu(x.a.y + x.b.y), relu(x.a.z + x.b.z), relu(x.a.w + x.b.w)};
  }
};
extern "C" __global__ void __launch_bounds__(512, 1) probe(const float* frames, const float* predictions,
                                                           const int* which, int columns, int size) {
  stage(reinterpret_cast<Weight::Input*>(shared_memory()), columns, size, [&](int i) {
    return Source{frames + which[i] * size, predictions + which[columns + i] * size, size};
  });
}
"""
"""Stages columns of the joint, by the function that the kernels use."""
_NUMBERS_A_TRIP = 8
"""Numbers that a lane stages in one trip of that function's loop."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benches.gpu.counts", description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=list(FRAMES), choices=list(FRAMES))
    parser.add_argument("--save", action="store_true", help="keep the figures under benches/results")
    options = parser.parse_args()
    assumed = Assumptions()
    code = machine_code()
    found: dict[str, Any] = {"code": code, "beam rounds": [rounds.beam_rounds(4, batch, 60) for batch in (1, 4, 12)]}
    for batch in options.batch:
        decode = emulated.greedy(VOCAB_SIZE, batch, FRAMES[batch], "float16")
        found[f"batch {batch}"] = modelled(
            decode["intervals"], decode["tokens"], assumed, code["instructions to stage a number"],
            1 if batch == 1 else 4, LAYERS if batch == 1 else 0,
        )  # fmt: skip
    print(json.dumps(found, indent=2))
    if options.save:
        file = RESULTS / "gpu_counts.json"
        kept = json.loads(file.read_text()) if file.exists() else {}
        save("gpu_counts", kept | environment() | {"assumptions": asdict(assumed), "now": found})


def machine_code() -> dict[str, Any]:
    """What the machine code of the persistent kernels consists of."""
    found: dict[str, Any] = {}
    for kernel in ("fused_greedy", "fused_beam"):
        cubin = _cubin((source_folder() / "cuda" / f"{kernel}.cu").read_text("utf-8") + agreement(f"{kernel}.cu"))
        lines = sass.disassembled(cubin)[kernel]
        inside = [line for loop in sass.loops(lines) for line in loop]
        found[kernel] = {
            "code bytes": sass.code_bytes(cubin)[kernel],
            "all": sass.counted(lines),
            "in innermost loops": sass.counted(inside),
        }
    staging = [sass.counted(loop) for loop in sass.loops(sass.disassembled(_cubin(_PROBE))["probe"])]
    longest = max(staging, key=lambda loop: loop["instructions"])
    found["instructions to stage a number"] = longest["instructions"] / _NUMBERS_A_TRIP
    return found


def modelled(
    intervals: np.ndarray, tokens: int, assumed: Assumptions, staging: float, groups: int, exchanges: int
) -> dict[str, Any]:
    """The time of each interval between two barriers over the grid, in microseconds.

    Parameters
    ----------
    intervals:
        Counts [intervals, blocks, `emulated.COUNTS`].
    tokens:
        Tokens of the whole decode.
    staging:
        Instructions to stage a number that a block computes itself.
    groups:
        Groups of columns that are multiplied while a tile's weights are in registers.
    exchanges:
        Times that a block waits for tagged words in an interval.
    """
    rows = []
    for counts in intervals:
        each = {name: counts[:, i].astype(float) for i, name in enumerate(emulated.COUNTS)}
        copied = np.maximum(each["shared_written"] - 2 * each["converted"], 0) / 16
        issued = (staging * each["converted"] + assumed.copy_instructions * copied) / assumed.lanes
        trips = each["longest_products"] / (2 * groups) * assumed.trip_cycles
        cycles = (
            assumed.block_barrier_cycles * each["barriers"]
            + assumed.fetch_cycles * each["longest_fetches"]
            + assumed.shuffle_cycles * each["longest_shuffles"]
            + np.maximum(trips, each["shared_read"] / assumed.shared_bytes)
            + issued
        )
        busiest = int(cycles.argmax())
        block_us = cycles[busiest] / assumed.clock_ghz / 1e3
        cache_us = each["global_read"].sum() / assumed.cache_bytes_us
        rows.append(
            {
                "us": max(block_us, cache_us) + assumed.grid_barrier_us + exchanges * assumed.exchange_us,
                "block us": block_us,
                "cache us": cache_us,
                "cache MB": each["global_read"].sum() / 1e6,
                **{name: int(each[name][busiest]) for name in emulated.COUNTS if name != "polls"},
            }
        )
    return {"tokens": tokens, "us in all": sum(row["us"] for row in rows), "intervals": rows}


def _cubin(source: str) -> bytes:
    folder = source_folder()
    options = ["-std=c++17", "-arch=sm_90", "-ftz=true", f"-I{folder}", f"-I{folder / 'cuda'}", "-DTDT_WEIGHT=Float16"]
    return compiled(source, "counted.cu", [*options, "-DTDT_PHASES=0"])[0]


if __name__ == "__main__":
    main()
