"""What the fused decode loops on the device share: how they are launched, and what is computed before them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cuda.arrays import DeviceArray, source_table
from ...cuda.device import Device, import_cupy
from ...cuda.kernels import Defines, Kernels, cooperative_launches, kernels
from ...cuda.state import DeviceState
from ...cuda.structs import (
    FUSED_BEAM,
    GREEDY,
    MAX_SLOTS,
    PROJECTION,
    RESTORATION,
    STATES,
    STEP,
    address,
    copied,
    filled,
)
from ...cuda.transfer import Transfer, transfers
from ...errors import DeviceError, InputError
from .packing import DEPTH, WEIGHT_TYPES, DeviceNetwork

FEW_COLUMNS = 8
"""Up to so many columns count as few. Products stage so many at once then, since shared memory that is used for staging
cannot hold weights."""
MANY_COLUMNS = 128
"""The most columns of a round."""
_STAGED = (32, 16, 8)
"""Columns that a product stages at once where there are many: the first number for which a block has enough shared
memory. The results do not depend on it."""

LAUNCH_VARIABLE = "TDTDECODE_CUDA_LAUNCH"
"""Environment variable that chooses how decodes are launched, one of `LAUNCHES`."""

BARRIERS = ("counter", "flags")
"""``BarrierKind`` in ``grid.cuh``, by value."""
LAUNCHES = (*BARRIERS, "phases")
"""One cooperative launch with a barrier of either kind, or a launch for each phase."""

FRAMES = "frames.cu"
"""The file whose kernels do the work before a decode."""

_PARAMETERS = {"fused_greedy.cu": GREEDY, "fused_beam.cu": FUSED_BEAM, FRAMES: RESTORATION}
"""For each file, the structure that its kernels take."""

ROUNDS_AT_ONCE = 16
"""Where a search is launched phase by phase, the host checks after so many rounds whether it is done. The number is
even, since rounds use two buffers in turn."""


@dataclass(frozen=True)
class Launch:
    """How a decode loop is launched on a card.

    Attributes
    ----------
    blocks:
        Number of blocks. Each fills a multiprocessor.
    threads:
        Threads of a block.
    persistent:
        True: the whole loop is one cooperative launch. False: each phase is a launch of its own. This is slower, but
        needs no card that can launch cooperatively, and no block ever waits for another.
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
    def of(device: Device, share: float = 1.0) -> Launch:
        """What suits a card, or what the environment variable `LAUNCH_VARIABLE` asks for.

        Parameters
        ----------
        share:
            The share of the card's multiprocessors that are used.

        Raises
        ------
        InputError
            If the variable is none of `LAUNCHES`.
        DeviceError
            If it asks for a cooperative launch, which the card cannot do.
        """
        how = os.environ.get(LAUNCH_VARIABLE) or ("counter" if device.cooperative else "phases")
        if how not in LAUNCHES:
            raise InputError(f"{LAUNCH_VARIABLE} must be one of {', '.join(LAUNCHES)}, got {how!r}")
        persistent = how in BARRIERS
        if persistent and not device.cooperative:
            raise DeviceError(
                f"{LAUNCH_VARIABLE}={how}: {device.name} cannot launch cooperatively; use phases, or leave it unset"
            )
        slots = min(MAX_SLOTS, device.threads)
        blocks = max(1, round(share * device.multiprocessors))
        return Launch(blocks, device.threads, persistent, how if persistent else BARRIERS[0], slots)

    def __post_init__(self) -> None:
        most = min(MAX_SLOTS, self.threads)
        if not 1 <= self.slots <= most:
            raise InputError(f"slots must be from 1 to {most}, got {self.slots}")


@dataclass(frozen=True, eq=False)
class Spread:
    """How a block divides its shared memory.

    Attributes
    ----------
    parameters:
        The structure that the file's kernels take [1], with its network filled in.
    columns:
        The most columns of a product.
    shared:
        The bytes of shared memory to launch a block with.
    """

    parameters: np.ndarray
    columns: int
    shared: int


class FusedNetworkOnDevice:
    """A network's weights on the device, and the kernels that are compiled for them."""

    def __init__(self, net: DeviceNetwork, device: Device, launch: Launch):
        self.net = net
        self.device = device
        self.launch = launch
        self._defines = (
            ("TDT_WEIGHT", WEIGHT_TYPES[net.precision]), ("TDT_BARRIER", BARRIERS.index(launch.barrier)),
            ("TDT_PHASES", int(not launch.persistent)), ("TDT_CONTEXT", int(net.context)),
        )  # fmt: skip
        self._spreads: dict[tuple[str, int, Defines], Spread] = {}
        # What this card cannot run is refused now, before anything is decoded. The kernels of beam search are compiled
        # only for those who search with a beam.
        for file in (FRAMES, "fused_greedy.cu"):
            for columns in (FEW_COLUMNS, MANY_COLUMNS):
                self.spread(file, columns)
        # What is the same in every decode is filled in once.
        self._encoder_size = int(net.struct[0]["encoder"]["inputs"])
        self._restoration = self.spread(FRAMES, MANY_COLUMNS).parameters
        self._projection = filled(PROJECTION, net=self._restoration["net"][0])
        self.transfers = transfers(device)
        self.alone = cooperative_launches(device)

    def kernels(self, file: str, defines: Defines = ()) -> Kernels:
        """A source file's kernels for the network's precision and for the kind of launch.

        ``defines`` are macros of the file, beside those of the network.
        """
        return kernels(self.device, file, self._defines + defines, self.launch.persistent and file != FRAMES)

    def run(
        self,
        file: str,
        name: str,
        parameters: np.ndarray,
        shared: int,
        numbers: tuple[int, ...] = (),
        defines: Defines = (),
    ) -> None:
        """Launch a kernel on all blocks, with its structure [1], by value, and with further int32 arguments."""
        arguments = (parameters, *map(np.int32, numbers))
        self.kernels(file, defines).launch(name, self.launch.blocks, self.launch.threads, arguments, shared)

    def spread(self, file: str, columns: int, defines: Defines = ()) -> Spread:
        """How a block divides its shared memory between what a file's kernels need and weights that stay there.

        Parameters
        ----------
        file:
            A key of `_PARAMETERS`.
        columns:
            The most columns of a product.
        defines:
            As for `kernels`.

        Raises
        ------
        DeviceError
            If a block cannot have as much shared memory as the kernels need.
        """
        few = columns <= FEW_COLUMNS
        columns = FEW_COLUMNS if few else MANY_COLUMNS
        if (file, columns, defines) not in self._spreads:
            for staged in (FEW_COLUMNS,) if few else _STAGED:
                net = self.net.struct.copy()
                net["staged"] = staged
                needed = self._needed(file, net, columns, defines)
                if needed <= self.device.shared_memory:
                    break
            else:
                smaller = "precision='float16', " if self.net.precision == "float32" else ""
                raise DeviceError(
                    f"the fused network needs {needed} bytes of shared memory in a block, {self.device.name} has "
                    f"{self.device.shared_memory}: use {smaller}network='ort' or device='cpu'"
                )
            net["resident_bytes"] = left = self.device.shared_memory - needed
            # What is launched phase by phase keeps no weights, and neither do the kernels of frames.
            keeps = self.launch.persistent and file != FRAMES
            parameters = filled(_PARAMETERS[file], net=net[0])
            self._spreads[file, columns, defines] = Spread(parameters, columns, needed + left if keeps else needed)
        return self._spreads[file, columns, defines]

    def _needed(self, file: str, net: np.ndarray, columns: int, defines: Defines) -> int:
        """The bytes of shared memory that a block needs beside weights. A kernel, ``<file>_room``, computes it."""
        cupy = import_cupy()
        struct = _PARAMETERS[file]
        values = {"net": net[0]} | ({"columns": columns} if struct is GREEDY else {})
        bytes_needed = cupy.zeros(1, np.int32)
        arguments = (filled(struct, **values), np.uint64(bytes_needed.data.ptr))
        self.kernels(file, defines).launch(file.removesuffix(".cu") + "_room", 1, self.launch.threads, arguments)
        return int(cupy.asnumpy(bytes_needed)[0])

    def prepare(
        self,
        transfer: Transfer,
        utterances: Sequence[DeviceArray],
        lengths: np.ndarray,
        start: DeviceState,
        slots: int,
        places: np.ndarray,
        columns: int,
        room: int = 0,
    ) -> Preparation:
        """Make memory for a decode's projected frames and predictor states, and the parameters of the kernels that fill
        it.

        Parameters
        ----------
        transfer:
            The parameters are put in it. The caller sends it.
        utterances, lengths:
            Encoder output [E, T] of B utterances, and int32 [B] their frames.
        start:
            N states to begin with.
        slots:
            Slots for predictor states.
        places:
            int [N]: the slots that the states of ``start`` are put in.
        columns:
            Most predictor steps or joint rows of a round.
        room:
            Bytes that the caller needs beside.
        """
        cupy = import_cupy()
        sources, frames = source_table(utterances, lengths, self._encoder_size)
        joint, width = self.net.joint, slots * self.net.hidden
        outputs, cells = self.net.outputs * width, self.net.cells * width
        # What a state keeps when the decode is done, and what only the decode needs.
        kept = cupy.empty(slots * joint + outputs + cells, np.float32)
        room, projected = -(-room // 16) * 16, 4 * max(frames, 1) * joint
        words, column_bytes = self._exchange_bytes(columns)
        block = cupy.empty(room + 16 * outputs + words + column_bytes + projected, np.uint8)
        own, first = address(block), address(kept)
        slot_states = np.zeros(1, STATES)
        slot_states["slots"], slot_states["prediction"] = slots, first
        slot_states["hidden"], slot_states["cell"] = first + 4 * slots * joint, first + 4 * (slots * joint + outputs)
        slot_states["recurrent"] = own + room
        words_at = own + room + 16 * outputs
        slot_states["words"], slot_states["columns"], slot_states["most"] = words_at, words_at + words, columns
        frames_at = words_at + words + column_bytes
        projection = restoration = None
        if frames:
            projection = copied(self._projection)
            projection["sources"], projection["frames"] = len(sources), frames
            projection["list"], projection["projected"] = transfer.put(sources), frames_at
        if len(places):
            steps, steps_at = transfer.room(STEP, len(places))
            steps["parent"], steps["slot"] = start.index, places
            restoration = copied(self._restoration)
            restoration["states"], restoration["steps"] = slot_states, steps_at
            restoration["prediction"], restoration["hidden"], restoration["cell"] = map(address, start.arrays)
            restoration["rows"], restoration["count"] = len(start.arrays[0]), len(places)
        return Preparation(self, own, frames_at, slot_states, words, kept, block, projection, restoration)

    def _exchange_bytes(self, columns: int) -> tuple[int, int]:
        """Bytes of what blocks leave for each other: of tagged words and of columns (``States`` in ``network.cuh``)."""
        net = self.net
        levels, widest = net.layers + 1, max(net.hidden if net.layers else 0, net.joint)
        numbers, size = (4, 4) if net.precision == "float32" else (8, 2)  # `kPadding` in weights.cuh; bytes of a number
        stride = -(-widest // DEPTH) * DEPTH + numbers
        return 8 * levels * FEW_COLUMNS * (-(-widest // 4) * 4), size * levels * columns * stride


@dataclass(frozen=True, eq=False)
class Preparation:
    """A decode's projected frames and predictor states; `run` computes them.

    Attributes
    ----------
    room:
        Address of the bytes that the caller needs beside.
    projected:
        Address of float32 [all frames, J]: the encoder's part of the joint.
    states:
        `structs.STATES` [1].
    word_bytes:
        Bytes of its tagged words.
    kept, block:
        Device arrays that hold all of these: predictions, layers' outputs and cells of all slots; everything else.
    projection, restoration:
        `structs.PROJECTION` and `structs.RESTORATION` [1]; None where there are no frames or no states.
    """

    network: FusedNetworkOnDevice
    room: int
    projected: int
    states: np.ndarray
    word_bytes: int
    kept: Any
    block: Any
    projection: np.ndarray | None
    restoration: np.ndarray | None

    def run(self) -> None:
        """Launch the kernels that project frames and restore states. The transfer must have been sent."""
        shared = self.network.spread(FRAMES, MANY_COLUMNS).shared
        for name, parameters in (("project_frames", self.projection), ("restore_states", self.restoration)):
            if parameters is not None:
                self.network.run(FRAMES, name, parameters, shared)

    def clear_words(self) -> None:
        """Make the tagged words zero, as they must be before each launch of a search."""
        cuda = import_cupy().cuda
        cuda.runtime.memsetAsync(int(self.states["words"][0]), 0, self.word_bytes, cuda.get_current_stream().ptr)

    def state(self, slots: np.ndarray) -> DeviceState:
        """The states in those slots when the decode is done."""
        count, net = int(self.states["slots"][0]), self.network.net
        shapes = (count, net.joint), (net.outputs, count, net.hidden), (net.cells, count, net.hidden)
        ends = np.cumsum([np.prod(shape) for shape in shapes])
        prediction, hidden, cell = (
            self.kept[begin:end].reshape(shape)
            for begin, end, shape in zip([0, *ends[:-1].tolist()], ends.tolist(), shapes)
        )
        return DeviceState((prediction, hidden, cell), (0, 1, 1), slots)
