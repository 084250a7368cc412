"""Beam search with a fused network on the device: the whole loop in one launch (``csrc/cuda/fused_beam.cu``)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ...arrays import first_frames
from ...cuda.arrays import DeviceArray
from ...cuda.device import import_cupy
from ...cuda.kernels import kernels
from ...cuda.state import DeviceState
from ...cuda.structs import FUSED_BEAM, REQUESTS, STEP, WANTED, filled, mask_bytes
from ...cuda.transfer import Transfer
from .beams import DeviceBeams, check_beam, decode_in_parts
from .program import ROUNDS_AT_ONCE, FusedNetworkOnDevice

if TYPE_CHECKING:
    from ...kernels import BeamSearch

FILE = "fused_beam.cu"

_ROWS = 512
"""Joint rows of a round that beams may ask for together beyond those that they need at once. A round has costs that do
not depend on its rows, so a row that is asked for early is cheaper than a round more."""
_STATE_BYTES = 1 << 30
"""Most memory for predictor states and fusions' scores. It bounds how many utterances are decoded together."""


def run_beam(
    network: FusedNetworkOnDevice,
    search: BeamSearch,
    utterances: Sequence[DeviceArray],
    start: DeviceState,
    places: np.ndarray,
    final: bool,
) -> DeviceState:
    """Run a beam search to its end; parameters and result are those of `Program.beam`."""
    check_beam(search)
    net = network.net
    numbers = 5 * net.hidden * (net.outputs + net.cells) + net.joint + (net.entries if search.fusions else 0)
    together = max(1, min(network.launch.slots, _STATE_BYTES // (4 * numbers * search.slots_per_utterance)))

    def decode(some: list[DeviceArray], places: np.ndarray, start: DeviceState) -> tuple[DeviceState, np.ndarray]:
        room = 64 * 1024 + 1024 * len(some) + 64 * len(start) + mask_bytes(search.masks)
        with network.transfers.taken(room) as transfer:
            return _run(network, transfer, search, some, places, start)

    return decode_in_parts(decode, search, utterances, start, places, final, together)


def _run(
    network: FusedNetworkOnDevice,
    transfer: Transfer,
    search: BeamSearch,
    utterances: list[DeviceArray],
    some: np.ndarray,
    start: DeviceState,
) -> tuple[DeviceState, np.ndarray]:
    """Decode some utterances of the batch; the others are as for ``decode`` in `decode_in_parts`."""
    cupy = import_cupy()
    lengths = search.lengths[some]
    net = network.net
    beams = DeviceBeams(search, some, net.struct["layout"], first_frames(lengths), _ROWS)
    wanted = len(utterances) * beams.rows
    spread = network.spread(FILE, wanted, beams.defines)
    run = partial(network.run, FILE, shared=spread.shared, defines=beams.defines)
    slot_count = len(utterances) * beams.slots
    preparation = network.prepare(transfer, utterances, lengths, start, slot_count, beams.start_slots, wanted)
    beams.put(transfer)
    lists = cupy.empty(2 * wanted * STEP.itemsize, np.uint8), cupy.empty(2 * wanted * WANTED.itemsize, np.uint8)
    empty = np.zeros(2, REQUESTS)
    for i in range(2):
        empty[i]["steps"] = lists[0].data.ptr + i * wanted * STEP.itemsize
        empty[i]["wanted"] = lists[1].data.ptr + i * wanted * WANTED.itemsize
    requests = cupy.asarray(empty.view(np.uint8))
    blocks = network.launch.blocks
    memory: dict[str, Any] = {
        "projected": preparation.projected,
        "requests": requests,
        "rows": cupy.empty((wanted, search.spec.joint_width), np.float32),
        "scratch": cupy.empty((blocks if search.fusions else 0, net.entries), np.float32),
        "barrier": cupy.zeros(blocks, np.uint32),
    }
    parameters = filled(FUSED_BEAM, states=preparation.states[0], search=beams.struct[0], **memory)
    parameters["net"] = spread.parameters["net"]
    search_at = transfer.put(beams.struct) if search.fusions else 0
    slots = transfer.put(beams.start_slots)
    transfer.send()
    preparation.run()
    if search.fusions:
        arguments = (np.uint64(search_at), np.uint64(slots), np.int32(len(beams.start_slots)), memory["scratch"])
        kernels(network.device, "fusion.cu").launch("score_slots", blocks, network.launch.threads, arguments)

    def launch_round(which: int) -> None:
        run("beam_advance", parameters, numbers=(which,))
        for layer in range(net.layers + 1):
            run("beam_layer", parameters, numbers=(which, layer))
        run("beam_joint", parameters, numbers=(which,))
        run("beam_rank", parameters, numbers=(which,))

    while True:
        if network.launch.persistent:
            with network.alone.held:
                run("fused_beam", parameters)
                cupy.cuda.get_current_stream().synchronize()
        else:
            pending = 1
            while pending:
                for i in range(ROUNDS_AT_ONCE):
                    launch_round(i % 2)
                pending = cupy.asnumpy(requests).view(REQUESTS)[1]["wanted_count"]
        if not beams.make_room():
            break
        parameters["search"] = beams.struct[0]
        requests.set(empty.view(np.uint8))
        memory["barrier"].fill(0)
        preparation.clear_words()
    used = beams.finish()
    counts = np.bincount(used // beams.slots, minlength=len(utterances))
    return preparation.state(used), counts
