"""Measures what the floor of decoding is made of (``csrc/cuda/microbench.cu``). Run this first on a new card."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tdtdecode.cuda.device import current_device, import_cupy
from tdtdecode.cuda.kernels import kernels
from tdtdecode.networks.cuda.program import BARRIERS

WORD = 16
_REPETITIONS = 2000
_SCRATCH = 256


def measure(repetitions: int = _REPETITIONS, trials: int = 5) -> dict:
    """Measure the card.

    The results are microseconds of a barrier over the grid, of each kind, alone and after stores, and of a tagged
    exchange; and bytes per second from shared memory and from the L2 cache, of all multiprocessors together.
    """
    cupy, card = import_cupy(), current_device()
    blocks, threads = card.multiprocessors, card.threads
    results: dict = {"card": card.name, "capability": card.capability, "multiprocessors": blocks}
    results |= {"barrier_us": {}, "barrier_after_stores_us": {}}
    for kind, name in enumerate(BARRIERS):
        module = kernels(card, "microbench.cu", (("TDT_BARRIER", kind),), cooperative=True)
        stored = cupy.empty(blocks * threads * WORD, np.uint8)
        for label, data in (("barrier_us", np.uint64(0)), ("barrier_after_stores_us", stored)):

            def barriers(module=module, data=data) -> None:
                words = cupy.zeros(blocks, np.uint32)
                module.launch("grid_barrier", blocks, threads, (words, np.int32(repetitions), data))

            results[label][name] = median_seconds(barriers, trials) / repetitions * 1e6

    def exchanges() -> None:
        words, out = cupy.zeros(2 * blocks, np.uint64), cupy.empty(blocks, np.float32)
        module.launch("tagged_exchange", blocks, threads, (words, np.int32(repetitions), out), _SCRATCH)

    results["tagged_exchange_us"] = median_seconds(exchanges, trials) / repetitions * 1e6

    # Read half of what fits into shared memory. For the cache, what all blocks read together is only a few megabytes.
    shared_words = 1 << ((card.shared_memory // 2 // WORD).bit_length() - 1)
    cached_words = 1 << 12
    source = cupy.asarray(np.random.default_rng(0).integers(0, 1 << 32, 4 * cached_words * blocks, dtype=np.uint32))
    out = cupy.empty(blocks * threads, np.uint32)
    for name, words, shared in (("read_shared", shared_words, shared_words * WORD), ("read_cached", cached_words, 0)):

        def read(name=name, words=words, shared=shared) -> None:
            arguments = (source, np.int32(words), np.int32(repetitions // 10), out)
            module.launch(name, blocks, threads, arguments, shared)

        moved = blocks * words * WORD * (repetitions // 10)
        results[f"{name}_bytes_per_second"] = moved / median_seconds(read, trials)
    return results


def median_seconds(function: Callable[[], None], trials: int) -> float:
    """The median time of a launch by the device's own clock, after one launch to warm up."""
    cupy = import_cupy()
    function()
    seconds = []
    for _ in range(trials):
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record()
        function()
        end.record()
        end.synchronize()
        seconds.append(cupy.cuda.get_elapsed_time(begin, end) / 1e3)
    return sorted(seconds)[trials // 2]
