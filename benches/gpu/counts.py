"""How long the kernel of a greedy decode should take, from what is counted without a card.

    python -m benches.gpu.counts [--batch 1 128] [--save]

A token at batch 1 and a round at batch 128 are run in an emulation of an H100, with a Parakeet's sizes in float16. What
each block does there is counted: bytes, loads that wait, barriers, products. Instructions are counted in the machine
code for sm_90. Each count is multiplied by what one of it costs (`Assumptions`). So the times are arithmetic and no
measurement: they show what dominates, and serve to compare one form of the kernels with another. Needs g++ and the
wheels nvidia-cuda-nvrtc and nvidia-cuda-nvdisasm.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tdtdecode.cuda.kernels import source_folder
from tdtdecode.cuda.structs import agreement
from tdtdecode.options import Strategy

from ..report import environment, save
from . import emulated, rounds, sass
from .build import compiled

VOCAB_SIZE = 1024
LIMITS_US = {1: 3.5, 128: 25.0}
"""Batch -> the most microseconds that its round may take. At batch 1 a round gives one token."""


@dataclass(frozen=True)
class Assumptions:
    """What a card is taken to do. Units are in the names: cycles of the clock, microseconds, bytes in a cycle."""

    clock_ghz: float = 1.98
    """Published: an H200's highest clock."""
    lanes: int = 128
    """Published: instructions that a multiprocessor starts in a cycle, counted by thread."""
    cache_bytes_us: float = 5.5e6
    """Bytes that all multiprocessors together read from the L2 cache in a microsecond. Others have measured 5.5 to 5.7
    TB/s on an H100."""
    far_cycles: int = 280
    """A load that the L2 cache answers. Others have measured 222 to 339 on an L40, 279 in the mean."""
    near_cycles: int = 40
    """A load that the multiprocessor's own cache answers: a guess, somewhat above shared memory's 30."""
    grid_barrier_us: float = 0.8
    """A guess: a fence, an atomic addition and a load that sees it are about five trips to the L2 cache."""
    exchange_us: float = 0.25
    """A guess: from a store to the moment at which another block's load sees it, about two trips. The second is the
    load's."""
    block_barrier_cycles: int = 40
    """A guess, with the time in which the last of 16 warps comes."""
    trip_cycles: int = 75
    """A guess: two products of a warp with one group of columns, their loads from shared memory (30) before the tensor
    cores (33)."""
    shuffle_cycles: int = 25
    """A guess. Shuffles that do not depend on each other cost less."""
    copy_instructions: int = 4
    """A guess: for 16 bytes that are copied to shared memory."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benches.gpu.counts", description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=list(LIMITS_US), choices=list(LIMITS_US))
    parser.add_argument("--save", action="store_true", help="keep the figures under benches/results")
    options = parser.parse_args()
    assumed = Assumptions()
    code = machine_code()
    for kernel, figures in code["kernels"].items():
        print(f"{kernel:<20} {figures['code bytes']:>7} bytes of machine code")
    found: dict[str, Any] = {}
    for batch in options.batch:
        intervals = one_round(emulated.greedy(VOCAB_SIZE, batch, "float16"), batch)
        found[str(batch)] = timed(intervals, batch, assumed, code["instructions to stage a number"])
        print(described(found[str(batch)], batch))
    beam = [rounds.beam_rounds(4, batch, 60) for batch in (1, 4, 12)]
    print(json.dumps({"rounds of a beam": beam}))
    if options.save:
        model = f"V = {VOCAB_SIZE}, float16, sizes of a Parakeet; {emulated.MULTIPROCESSORS} blocks of 512 threads"
        results = {"model": model, "assumptions": asdict(assumed), "machine code": code, "rounds": found}
        versions = environment("nvidia-cuda-nvrtc", "nvidia-cuda-nvdisasm")
        save("gpu_counts", versions | results | {"rounds of a beam, small model, 60 frames": beam})


def machine_code() -> dict[str, Any]:
    """What the machine code of the persistent kernels consists of."""
    kernels: dict[str, Any] = {}
    searches = {"fused_greedy": ("fused_greedy", "tsd")}
    searches |= {f"fused_beam {one.name.lower()}": ("fused_beam", one.name.lower()) for one in Strategy}
    staging: list[list[str]] = []
    for label, (kernel, strategy) in searches.items():
        cubin = _cubin(kernel, strategy)
        lines = sass.disassembled(cubin)[kernel]
        kernels[label] = {"code bytes": sass.code_bytes(cubin)[kernel], **sass.counted(lines)}
        if kernel == "fused_greedy":
            staging = [sass.without_calls(loop) for loop in sass.loops(lines, innermost=False)]
    joint = max(staging, key=pairs_staged)
    return {"kernels": kernels, "instructions to stage a number": len(joint) / (2 * pairs_staged(joint))}


def pairs_staged(loop: list[str]) -> int:
    """How many pairs of numbers a loop makes 16 bits, if it does little else: the joint's inputs, most of all.

    Calls do not count: they fetch a prediction once for several columns, or compute another activation than relu.
    """
    operations = [sass.operation(line) for line in loop]
    stages = any(name.startswith("STS") for name in operations)
    more = any(name.startswith(("BAR", "HMMA")) for name in operations)
    return sum(name.startswith("F2FP") for name in operations) if stages and not more else 0


def one_round(intervals: np.ndarray, batch: int) -> np.ndarray:
    """The intervals of the first round that does not hold the launch's beginning, or of the rest of it.

    A round of few utterances arrives at one barrier over the grid, the joint's. One of many also arrives when the
    joint's inputs are made, after each layer, and after the prediction. The cut is after the first arrival: then the
    weights are in shared memory.
    """
    arrivals = np.flatnonzero(intervals[:, 0, emulated.COUNTS.index("end")] == emulated.ARRIVAL)
    period = 1 if batch == 1 else 3 + emulated.LAYERS
    return intervals[arrivals[0] + 1 : arrivals[period] + 1]


def timed(intervals: np.ndarray, batch: int, assumed: Assumptions, staging: float) -> dict[str, Any]:
    """The time of a round, in microseconds, and the counts that it consists of.

    Each block has a clock. Where it waits, its clock goes on to the moment at which the last block has left its
    numbers, and these have come. A block works while its numbers are on the way, and while the cache sends it what it
    has fetched ahead.

    Parameters
    ----------
    intervals:
        Counts [intervals, blocks, `emulated.COUNTS`].
    staging:
        Instructions to stage a number that a block computes itself.

    Returns
    -------
    ``us``; ``us by part`` of the block that is last, which add up to ``us``; its ``counts``.
    """
    cycles_us = assumed.clock_ghz * 1e3
    groups = 1 if batch == 1 else 4  # of columns that are multiplied while a tile's weights are in registers
    now = np.zeros(intervals.shape[1])
    seen = assumed.grid_barrier_us  # when every block has the numbers of the others
    served = 0.0  # when the cache has given what was asked of it so far
    spent: dict[str, np.ndarray] = {}

    def spend(name: str, us: np.ndarray) -> None:
        nonlocal now
        now = now + us
        spent[name] = spent.get(name, np.zeros_like(us)) + us

    for counts in intervals:
        each = {name: counts[:, i].astype(float) for i, name in enumerate(emulated.COUNTS)}
        copied = np.maximum(each["shared_stored"] - 2 * each["converted"], 0) / 16
        products = assumed.trip_cycles * each["longest_products"] / (2 * groups)
        before = now
        spend("barriers of the block", assumed.block_barrier_cycles * each["barriers"] / cycles_us)
        spend("far loads", assumed.far_cycles * each["longest_far"] / cycles_us)
        spend("near loads", assumed.near_cycles * each["longest_near"] / cycles_us)
        spend("shuffles", assumed.shuffle_cycles * each["longest_shuffles"] / cycles_us)
        # Shared memory serves one access of a warp in a cycle, or a part of it where banks are wanted twice.
        spend("products", np.maximum(products, each["shared_read"] + each["shared_written"]) / cycles_us)
        spend("staging", staging * each["converted"] / assumed.lanes / cycles_us)
        spend("copies", assumed.copy_instructions * copied / assumed.lanes / cycles_us)
        end = int(each["end"][0])
        # The cache serves everything in turn. A block waits for it where it uses what it reads; what it reads before it
        # waits for others, it uses later.
        served = max(served, before.mean()) + each["global_read"].sum() / assumed.cache_bytes_us
        uses = (each["longest_far"] > 0) & (end != emulated.WAIT)
        spend("waiting for the cache", np.where(uses, np.maximum(served - now, 0.0), 0.0))
        if end == emulated.WAIT:
            spend("waiting for other blocks", np.maximum(seen - now, 0.0))
        elif end == emulated.MEANWHILE:
            leaves = each["global_written"] > 0
            # The load that sees the last number is counted with the next interval, as a far one.
            seen = now[leaves].max() + assumed.exchange_us - assumed.far_cycles / cycles_us
        else:
            seen = now.max() + assumed.grid_barrier_us
    last = int(now.argmax())
    totals = dict(zip(emulated.COUNTS, intervals[:, last].sum(axis=0).tolist()))
    for name in ("polls", "end"):
        del totals[name]
    return {
        "us": float(now[last]),
        "us by part": {name: float(us[last]) for name, us in spent.items()},
        "counts": totals | {"bytes of all blocks": int(intervals[..., emulated.COUNTS.index("global_read")].sum())},
    }


def described(found: dict[str, Any], batch: int) -> str:
    """The time beside its limit, and what it consists of."""
    what, limit = ("a token" if batch == 1 else "a round"), LIMITS_US[batch]
    verdict = "met" if found["us"] <= limit else "not met"
    lines = [f"batch {batch}: {found['us']:.2f} us {what} by count; the limit is {limit}: {verdict}"]
    lines += [f"  {us:6.2f} us  {name}" for name, us in sorted(found["us by part"].items(), key=lambda item: -item[1])]
    lines.append("  counts of the last block: " + ", ".join(f"{n} {c}" for n, c in found["counts"].items()))
    return "\n".join(lines)


def _cubin(kernel: str, strategy: str) -> bytes:
    folder = source_folder()
    source = (folder / "cuda" / f"{kernel}.cu").read_text("utf-8") + agreement(f"{kernel}.cu")
    options = ["-std=c++17", "-arch=sm_90", "-ftz=true", f"-I{folder}", f"-I{folder / 'cuda'}", "-DTDT_WEIGHT=Float16"]
    return compiled(source, f"{kernel}.cu", [*options, "-DTDT_PHASES=0", f"-DTDT_STRATEGY={strategy}"])[0]


if __name__ == "__main__":
    main()
