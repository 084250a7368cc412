"""What the fused decode loops on the device share: how they are launched, and what is computed before them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...arrays import first_frames
from ...cuda.arrays import DeviceArray, source_table
from ...cuda.device import Device, Kernels, import_cupy, kernels
from ...cuda.state import DeviceState
from ...cuda.structs import (
    CONTROL,
    EXCHANGED_ROUNDS,
    FUSED_BEAM,
    GREEDY,
    MAX_SLOTS,
    PROJECTION,
    RECORD,
    RESTORATION,
    STATES,
    STEP,
    filled,
)
from ...cuda.upload import Upload
from ...errors import DeviceError
from .packing import WEIGHT_TYPES, DeviceNetwork

Launches = list[tuple[str, tuple[int, ...]]]
"""Names of kernels, each with the numbers that it is launched with."""

LATENCY_COLUMNS, THROUGHPUT_COLUMNS = 8, 32
"""Columns that a product stages in shared memory at once: where there are few columns, and where there are many. Shared
memory that is used for staging cannot hold weights."""

BARRIERS = ("counter", "flags")
"""``BarrierKind`` in ``grid.cuh``, by value."""

_AGREED: dict[str, tuple[np.dtype, tuple[int, ...]]] = {
    "fused_greedy.cu": (GREEDY, (CONTROL.itemsize, MAX_SLOTS, EXCHANGED_ROUNDS)),
    "fused_beam.cu": (FUSED_BEAM, (RECORD.itemsize,)),
    "frames.cu": (RESTORATION, (PROJECTION.itemsize,)),
}
"""For each file, the structure that its kernels take, and other numbers that the file and `structs` must agree on."""

ROUNDS_PER_GRAPH = 16
"""Where a search is launched phase by phase, the host checks after so many rounds whether it is done. The number is
even, since rounds use two buffers in turn."""


@dataclass(frozen=True)
class Launch:
    """How a decode loop is launched on a card.

    Attributes
    ----------
    blocks:
        Number of blocks, one for each multiprocessor.
    threads:
        Threads of a block.
    persistent:
        True: the whole loop is one cooperative launch. False: each phase is a launch of its own, and rounds of launches
        are captured in a CUDA graph. This is for cards without cooperative launch.
    barrier:
        Kind of the barrier over the grid, one of `BARRIERS`.
    slots:
        Most utterances that are decoded at the same time, at most `MAX_SLOTS` and ``threads``. In a greedy decode, when
        an utterance ends, another one takes its slot.
    """

    blocks: int
    threads: int
    persistent: bool
    barrier: str = "counter"
    slots: int = MAX_SLOTS

    @staticmethod
    def of(device: Device) -> Launch:
        """What suits a card."""
        return Launch(device.multiprocessors, device.threads, device.cooperative, slots=min(MAX_SLOTS, device.threads))


class FusedNetworkOnDevice:
    """A network's weights on the device, and the kernels that are compiled for them."""

    def __init__(self, net: DeviceNetwork, device: Device, launch: Launch):
        self.net = net
        self.device = device
        self.launch = launch
        self._defines = (("TDT_WEIGHT", WEIGHT_TYPES[net.precision]), ("TDT_BARRIER", BARRIERS.index(launch.barrier)))
        self._needed: dict[tuple[Any, ...], int] = {}
        self._graphs: dict[tuple[str, int], tuple[Any, Any, Any]] = {}
        self._lock = threading.Lock()

    def kernels(self, file: str, cooperative: bool = False) -> Kernels:
        """A source file's kernels for the network's precision."""
        return kernels(file, self._defines, cooperative)

    def run(self, file: str, name: str, parameters: int, shared: int, *numbers: int, cooperative: bool = False) -> None:
        """Launch a kernel on all blocks, with the address of its structure and with further int32 arguments."""
        arguments = (np.uint64(parameters), *map(np.int32, numbers))
        self.kernels(file, cooperative).launch(name, self.launch.blocks, self.launch.threads, arguments, shared)

    def replay(
        self, file: str, launches_of_round: Callable[[int], Launches], parameters: np.ndarray, shared: int
    ) -> None:
        """Run `ROUNDS_PER_GRAPH` rounds as one CUDA graph, which is captured on first use.

        ``launches_of_round`` lists the kernels of a round. It is called with 0 and 1 in turn: which of two buffers the
        round reads.

        A graph always reads its parameters at the address that it has captured. They are copied there before each
        launch, so that one graph serves every call.
        """
        cupy = import_cupy()
        caller = cupy.cuda.get_current_stream()
        with self._lock:
            captured = self._graphs.get((file, shared))
            if captured is None:
                launches = [one for i in range(ROUNDS_PER_GRAPH) for one in launches_of_round(i % 2)]
                captured = self._graphs[file, shared] = self._captured(file, launches, parameters.nbytes, shared)
            stream, place, graph = captured
            stream.wait_event(caller.record())
            with stream:
                place.set(np.ascontiguousarray(parameters).view(np.uint8))
                graph.launch(stream)
            stream.synchronize()  # then another call may overwrite the parameters

    def _captured(
        self, file: str, launches: Launches, size: int, shared: int
    ) -> tuple[Any, Any, Any]:
        cupy = import_cupy()
        self.kernels(file).load({name for name, _ in launches}, shared)  # not possible while capturing
        place = cupy.empty(size, np.uint8)
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture(cupy.cuda.runtime.streamCaptureModeThreadLocal)  # does not disturb other threads
            for name, numbers in launches:
                self.run(file, name, int(place.data.ptr), shared, *numbers)
            return stream, place, stream.end_capture()

    def spread(self, file: str, staged: int, **fields: Any) -> tuple[np.ndarray, int]:
        """Divide a block's shared memory between what a file's kernels need and weights that stay there.

        Parameters
        ----------
        file:
            A key of `_AGREED`.
        staged:
            Columns staged at once.
        fields:
            The fields of the file's structure that the need depends on. A kernel, ``<file>_sizes``, computes the need.

        Returns
        -------
        `structs.NETWORK` [1] with all fields set, and the bytes of shared memory to launch a block with.

        Raises
        ------
        DeviceError
            If a block cannot have as much shared memory as the kernels need.
        """
        net = self.net.struct.copy()
        net["staged"] = staged
        key = file, staged, *fields.values()
        if key not in self._needed:
            cupy = import_cupy()
            struct, agreed = _AGREED[file]
            expected = [struct.itemsize, *agreed]
            sizes = cupy.zeros(1 + len(expected), np.int32)
            parameters = cupy.asarray(filled(struct, net=net[0], **fields).view(np.uint8))
            probe = file.removesuffix(".cu") + "_sizes"
            arguments = (np.uint64(parameters.data.ptr), np.uint64(sizes.data.ptr))
            self.kernels(file).launch(probe, 1, self.launch.threads, arguments)
            self._needed[key], *found = cupy.asnumpy(sizes).tolist()
            assert found == expected, f"structs.py and {file} do not agree: {expected}, {found}"
        needed = self._needed[key]
        if needed > self.device.shared_memory:
            raise DeviceError(
                f"the fused network needs {needed} bytes of shared memory in a block, {self.device.name} has "
                f"{self.device.shared_memory}: use network='ort' or device='cpu'"
            )
        net["resident_bytes"] = self.device.shared_memory - needed
        return net, self.device.shared_memory if self.launch.persistent else needed

    def prepare(
        self,
        upload: Upload,
        utterances: Sequence[DeviceArray],
        lengths: np.ndarray,
        start: DeviceState,
        slots: int,
        places: np.ndarray,
    ) -> Preparation:
        """Make memory for a decode's projected frames and predictor states, and the parameters of the kernels that fill
        it.

        Parameters
        ----------
        upload:
            The parameters are added to it. The caller sends it.
        utterances, lengths:
            Encoder output [E, T] of B utterances, and int32 [B] their frames.
        start:
            N states to begin with.
        slots:
            Slots for predictor states.
        places:
            int [N]: the slots that the states of ``start`` are put in.
        """
        cupy = import_cupy()
        net, shared = self.spread("frames.cu", THROUGHPUT_COLUMNS)
        encoder_size = int(self.net.struct[0]["encoder"]["inputs"])
        sources, frames = source_table(utterances, lengths, encoder_size)
        projected = cupy.empty((max(frames, 1), self.net.joint), np.float32)
        layers, hidden = self.net.layers, self.net.hidden
        arrays = {
            "prediction": cupy.empty((slots, self.net.joint), np.float32),
            "hidden": cupy.empty((layers, slots, hidden), np.float32),
            "cell": cupy.empty((layers, slots, hidden), np.float32),
            "recurrent": cupy.empty((layers, slots, 4 * hidden), np.float32),
        }
        states = filled(STATES, slots=slots, **arrays)
        projection = restoration = 0
        if frames:
            table = upload.put(sources)
            projection = upload.put(
                filled(PROJECTION, net=net[0], sources=len(sources), frames=frames, list=table, projected=projected)
            )
        if len(places):
            steps = np.zeros(len(places), STEP)
            steps["parent"], steps["slot"] = start.index, places
            prediction, outputs, cells = start.arrays
            restoration = upload.put(
                filled(
                    RESTORATION, net=net[0], states=states[0], prediction=prediction, hidden=outputs, cell=cells,
                    steps=upload.put(steps), rows=len(prediction), count=len(steps),
                )  # fmt: skip
            )
        kept = tuple(arrays.values())
        first = first_frames(lengths).astype(np.int32)
        return Preparation(self, projected, first, states, kept, projection, restoration, shared)


@dataclass(frozen=True, eq=False)
class Preparation:
    """A decode's projected frames and predictor states; `run` computes them.

    Attributes
    ----------
    projected:
        float32 [all frames, J] on the device: the encoder's part of the joint.
    first_frames:
        int32 [B]: where each utterance's frames begin in ``projected``.
    states:
        `structs.STATES` [1].
    arrays:
        The device arrays that it points to: predictions, layers' outputs, cells, recurrent products.
    projection, restoration:
        Addresses of `structs.PROJECTION` and `structs.RESTORATION`; 0 where there are no frames or no states.
    shared:
        Bytes of shared memory to launch a block with.
    """

    network: FusedNetworkOnDevice
    projected: Any
    first_frames: np.ndarray
    states: np.ndarray
    arrays: tuple[Any, ...]
    projection: int
    restoration: int
    shared: int

    def run(self) -> None:
        """Launch the kernels that project frames and restore states. The upload must have been sent."""
        for name, parameters in (("project_frames", self.projection), ("restore_states", self.restoration)):
            if parameters:
                self.network.run("frames.cu", name, parameters, self.shared)

    def state(self, slots: np.ndarray) -> DeviceState:
        """The states in those slots when the decode is done."""
        return DeviceState(self.arrays[:3], (0, 1, 1), slots)
