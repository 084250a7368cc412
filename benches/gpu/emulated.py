"""What the blocks of a fused decode do, counted in the emulation of a card (``tests/host_cuda``).

The emulated card has a real one's blocks, threads and shared memory, and the model has a Parakeet's sizes. Only the
utterances are short. Needs g++, and some minutes.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any
from unittest import mock

import numpy as np

import tdtdecode as tdt
from tests.cuda.helpers import emulated
from tests.decoding.fused_helpers import as_lifted
from tests.host_cuda import emulated_cupy

from ..random_weights import random_encoder_out, random_weights

MULTIPROCESSORS, THREADS, SHARED_MEMORY = 132, 512, 232_448
"""Those of an H100 and an H200."""
SIZE, LAYERS, ENCODER_SIZE, FRAMES = 640, 2, 64, 24
"""Sizes of predictor and joint, layers of the predictor, and encoder frames: their size and their number, which do not
change what is counted."""
FLAGS = ("-DTDT_COUNTING", "-Wp,-fsanitize=thread", "-O2")
COUNTS = (
    "global_read", "global_written", "shared_read", "shared_written", "shared_stored", "converted", "barriers",
    "shuffles", "products", "polls", "longest_products", "longest_shuffles", "longest_near", "longest_far", "end",
)  # fmt: skip
"""The fields of ``Counts`` in ``tests/host_cuda/counting.h``."""
ARRIVAL, MEANWHILE, WAIT = range(3)
"""How an interval ends: the block arrives at a barrier over the grid, leaves numbers and goes on, or waits."""


def greedy(vocab_size: int, batch: int, precision: str) -> np.ndarray:
    """What each block does in the first rounds of a greedy decode.

    The batch is a real one; only few frames and rounds of it are run. What a round costs does not depend on how many
    there are.

    Returns
    -------
    int64 [intervals, blocks, len(COUNTS)]: the launch from its beginning to its end, divided where blocks exchange
    something.
    """
    model = random_weights(vocab_size, (0, 1, 2, 3, 4), ENCODER_SIZE, SIZE, LAYERS, SIZE)
    spec = tdt.TransducerSpec(vocab_size, encoder_size=ENCODER_SIZE)
    utterances = np.stack([random_encoder_out(300, ENCODER_SIZE, seed)[:, :FRAMES] for seed in range(batch)])
    sizes = {"multiprocessors": MULTIPROCESSORS, "threads": THREADS, "shared_memory": SHARED_MEMORY}
    compiled = emulated_cupy.compiled
    with emulated(**sizes) as cupy:
        cupy.RawModule = lambda code, options=(), enable_cooperative_groups=False: _module(
            compiled(code, options, FLAGS), enable_cooperative_groups
        )
        from tdtdecode.networks.cuda import fused_greedy
        from tdtdecode.networks.cuda.fused import FusedCudaNetwork

        network = FusedCudaNetwork(as_lifted(model), spec, precision)
        library = next(one for one in emulated_cupy.LIBRARIES.values() if hasattr(one, "emulated_fused_greedy"))
        program = type(network.on_device)
        run = program.run

        def run_and_end(self: Any, file: str, name: str, *arguments: Any, **named: Any) -> None:
            library.tdt_count(name == "fused_greedy", MULTIPROCESSORS, THREADS)
            run(self, file, name, *arguments, **named)
            if name == "fused_greedy":
                raise _Ended

        # A launch ends when its log has no more room, here after a few rounds.
        with mock.patch.object(fused_greedy, "_MOST_LOGGED", batch), mock.patch.object(program, "run", run_and_end):
            with contextlib.suppress(_Ended):
                tdt.Decoder(network, spec).decode(utterances)
        library.tdt_count(0, 0, 0)
        blocks = [_counts(library, block) for block in range(MULTIPROCESSORS)]
    return np.stack(blocks, axis=1)


class _Ended(Exception):
    """The launch that is counted is done. The rest of the decode would only take time."""


def _module(library: ctypes.CDLL, cooperative: bool) -> Any:
    module = emulated_cupy.RawModule.__new__(emulated_cupy.RawModule)
    module._library, module._cooperative = library, cooperative
    return module


def _counts(library: ctypes.CDLL, block: int) -> np.ndarray:
    count = library.tdt_counted(block, 0, None)
    found = np.zeros((count, len(COUNTS)), np.int64)
    library.tdt_counted(block, count, ctypes.c_void_p(found.ctypes.data))
    return found
