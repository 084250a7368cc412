"""What the blocks of a fused decode do, counted in the emulation of a card (``tests/host_cuda``).

The emulated card has a real one's blocks, threads and shared memory, and the model has a Parakeet's sizes. Only the
utterances are short. Needs g++, and some minutes.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

import tdtdecode as tdt
from tests.cuda.helpers import emulated
from tests.decoding.fused_helpers import as_lifted
from tests.host_cuda import emulated_cupy

from ..random_weights import random_encoder_out, random_weights

MULTIPROCESSORS, THREADS, SHARED_MEMORY = 132, 512, 232_448
"""Those of an H100 and an H200."""
SIZE, ENCODER_SIZE = 640, 64
"""Sizes of predictor and joint, and of encoder frames. The latter does not change what is counted."""
FLAGS = ("-DTDT_COUNTING", "-Wp,-fsanitize=thread")
COUNTS = (
    "global_read", "global_written", "shared_read", "shared_written", "converted", "barriers", "shuffles", "products",
    "polls", "longest_products", "longest_shuffles", "longest_fetches",
)  # fmt: skip
"""The fields of ``Counts`` in ``tests/host_cuda/counting.h``."""


def greedy(vocab_size: int, batch: int, frames: int, precision: str) -> dict[str, Any]:
    """Decode a batch greedily, and count.

    Returns
    -------
    ``tokens``; ``intervals``: int64 [intervals, blocks, len(COUNTS)], between barriers over the grid, without what
    comes before the first of them and after the last.
    """
    model = random_weights(vocab_size, (0, 1, 2, 3, 4), ENCODER_SIZE, SIZE, 2, SIZE)
    spec = tdt.TransducerSpec(vocab_size, encoder_size=ENCODER_SIZE)
    utterances = np.stack([random_encoder_out(300, ENCODER_SIZE, seed)[:, :frames] for seed in range(batch)])
    sizes = {"multiprocessors": MULTIPROCESSORS, "threads": THREADS, "shared_memory": SHARED_MEMORY}
    compiled = emulated_cupy.compiled
    with emulated(**sizes) as cupy:
        cupy.RawModule = lambda code, options=(), enable_cooperative_groups=False: _module(
            compiled(code, options, FLAGS), enable_cooperative_groups
        )
        from tdtdecode.networks.cuda.fused import FusedCudaNetwork

        decoder = tdt.Decoder(FusedCudaNetwork(as_lifted(model), spec, precision), spec)
        library = next(one for one in emulated_cupy.LIBRARIES.values() if hasattr(one, "emulated_fused_greedy"))
        library.tdt_count(1, MULTIPROCESSORS, THREADS)
        hypotheses = decoder.decode(utterances)
        library.tdt_count(0, 0, 0)
        blocks = [_counts(library, block) for block in range(MULTIPROCESSORS)]
    intervals = np.stack(blocks, axis=1)[1:-1]
    return {"tokens": sum(map(len, hypotheses)), "intervals": intervals}


def _module(library: ctypes.CDLL, cooperative: bool) -> Any:
    module = emulated_cupy.RawModule.__new__(emulated_cupy.RawModule)
    module._library, module._cooperative = library, cooperative
    return module


def _counts(library: ctypes.CDLL, block: int) -> np.ndarray:
    count = library.tdt_counted(block, 0, None)
    found = np.zeros((count, len(COUNTS)), np.int64)
    library.tdt_counted(block, count, ctypes.c_void_p(found.ctypes.data))
    return found
