"""The structures that kernels take as parameters: the same fields in the same order as in ``csrc/cuda``."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..allowed import Masks
from ..options import BEAM_OPTIONS, GREEDY_OPTIONS
from ..transducer import RowLayout
from .device import import_cupy
from .transfer import Transfer

MAX_LAYERS = 8
"""``kMaxLayers`` in ``network.cuh``."""
MAX_SLOTS = 128
"""``kMaxSlots`` in ``fused_greedy.cu``: the most utterances in flight in a fused greedy decode."""
EXCHANGED_ROUNDS = 3
"""``kExchangedRounds`` in ``fused_greedy.cu``: rounds after which exchanged numbers are overwritten."""


def _struct(*fields: Any) -> np.dtype:
    """A structure with C's alignment; fields are (name, type) or (name, type, shape)."""
    return np.dtype(list(fields), align=True)


POINTER, LONG, INT, FLOAT, DOUBLE = "u8", "i8", "i4", "f4", "f8"

MATRIX = _struct(("tiles", POINTER), ("bias", POINTER), ("count", INT), ("inputs", INT), ("owner", INT))
ROW_LAYOUT = _struct(
    *((name, INT) for name in ("vocab_size", "blank", "num_blanks", "num_durations")),
    *((name, POINTER) for name in ("blank_frames", "durations")),
)
MASKS = _struct(("table", POINTER), ("numbers", POINTER), ("entries", INT), ("padding", INT))
NETWORK = _struct(
    ("layout", ROW_LAYOUT),
    *((name, INT) for name in ("activation", "layers", "hidden", "joint", "cells")),
    ("table", POINTER),
    ("recurrent", MATRIX, MAX_LAYERS),
    ("input", MATRIX, MAX_LAYERS),
    *((name, MATRIX) for name in ("prediction", "output", "encoder")),
    ("staged", INT),
    ("resident_bytes", INT),
)
STATES = _struct(
    ("slots", INT),
    *((name, POINTER) for name in ("hidden", "cell", "recurrent", "prediction")),
    ("most", INT),
    *((name, POINTER) for name in ("columns", "words")),
)
STEP = _struct(("parent", INT), ("token", INT), ("slot", INT))
SOURCE = _struct(
    ("data", POINTER), ("element", LONG), ("frame", LONG), *((n, INT) for n in ("type", "length", "first", "padding"))
)
PROJECTION = _struct(
    ("net", NETWORK), ("sources", INT), ("frames", INT), ("list", POINTER), ("projected", POINTER)
)
RESTORATION = _struct(
    ("net", NETWORK),
    ("states", STATES),
    *((name, POINTER) for name in ("prediction", "hidden", "cell", "steps")),
    ("rows", INT),
    ("count", INT),
)
SLOT = _struct(
    *((n, INT) for n in ("utterance", "frame", "symbols", "state", "length", "first_frame", "column", "window"))
)
CONTROL = _struct(
    *((name, INT) for name in ("round", "cursor", "next", "active", "step_count")),
    ("slots", SLOT, MAX_SLOTS),
    ("steps", STEP, MAX_SLOTS),
)
GREEDY = _struct(
    ("net", NETWORK),
    ("states", STATES),
    *((name, INT) for name in ("slots", "window", "columns")),
    ("options", GREEDY_OPTIONS),
    ("batch", INT),
    ("waiting", INT),
    *((name, POINTER) for name in ("order", "lengths", "first_frames", "starts", "ends", "projected")),
    *((name, POINTER) for name in ("best", "specials", "sums")),
    ("capacity", INT),
    *((name, POINTER) for name in ("log", "logprobs", "summary", "control", "barrier")),
    ("masks", MASKS),
)

RECORD = _struct(
    *((name, INT) for name in ("previous", "token", "frame", "duration")),
    *((name, FLOAT) for name in ("token_logprob", "duration_logprob", "statistic")),
)
HYPOTHESIS = _struct(
    *((name, DOUBLE) for name in ("score", "best")),
    ("prefix", POINTER),
    *((name, INT) for name in ("frame", "symbols", "length", "record", "slot", "parent", "token", "place")),
)
ENTRY_BYTES, PAIR_BYTES, RANKED_BYTES, ASKING_BYTES = 56, 24, 40, 20
"""Bytes of structures that only kernels read and write."""
AUTOMATON = _struct(
    *((n, POINTER) for n in ("first_arc", "arc_token", "arc_weight", "arc_target", "backoff_state", "backoff_weight")),
    ("weight", FLOAT),
    ("padding", INT),
)
BEAM_SEARCH = _struct(
    ("options", BEAM_OPTIONS),
    ("layout", ROW_LAYOUT),
    *((name, INT) for name in ("utterances", "hypotheses", "slots", "ranks", "max_entries", "capacity", "rows")),
    *((name, POINTER) for name in ("lengths", "first_frames", "offsets", "counts", "beams", "records", "entries")),
    *((name, POINTER) for name in ("marks", "pairs", "asking", "ranked", "tokens", "token_logprobs")),
    *((name, POINTER) for name in ("duration_logprobs", "blank_logprobs")),
    ("masks", MASKS),
    ("fusions", INT),
    *((name, POINTER) for name in ("automata", "fusion_states", "bonus")),
)
WANTED = _struct(*((name, INT) for name in ("slot", "frame", "place", "utterance")))
REQUESTS = _struct(("step_count", INT), ("wanted_count", INT), ("steps", POINTER), ("wanted", POINTER))
FUSED_BEAM = _struct(
    ("net", NETWORK),
    ("states", STATES),
    ("search", BEAM_SEARCH),
    *((name, POINTER) for name in ("projected", "requests", "rows", "scratch", "barrier")),
)

GREEDY_STEPS = _struct(
    ("options", GREEDY_OPTIONS),
    *((name, INT) for name in ("blank", "rows")),
    *((n, POINTER) for n in ("decisions", "logprobs", "lengths", "first_frames", "frames", "symbols")),
    ("capacity", INT),
    *((name, POINTER) for name in ("log", "log_logprobs", "logged")),
)
RECORDING = _struct(
    *((name, POINTER) for name in ("samples", "features")), *((n, INT) for n in ("count", "frames", "first", "padding"))
)
FEATURES = _struct(
    ("list", POINTER),
    *((n, INT) for n in ("recordings", "frames", "window", "points", "rows", "columns", "margin", "reflect")),
    ("emphasis", FLOAT),
    *((name, INT) for name in ("clamped", "mel_bins", "width", "normalize")),
    *((n, POINTER) for n in ("shape", "turns", "filter_first", "filter_start", "filter_weights")),
)
PART = _struct(("data", POINTER), ("row", LONG), ("frames", INT), ("padding", INT))
COPY = _struct(
    *((name, POINTER) for name in ("source", "target", "from", "to")),
    *((name, LONG) for name in ("source_row", "source_outer", "target_row", "target_outer")),
    *((name, INT) for name in ("from_stride", "to_stride", "outer", "bytes")),
)

IN_FILES: dict[str, dict[str, np.dtype | int]] = {
    "frames.cu": {"Projection": PROJECTION, "Restoration": RESTORATION, "Source": SOURCE},
    "fused_greedy.cu": {
        "Matrix": MATRIX, "RowLayout": ROW_LAYOUT, "Network": NETWORK, "States": STATES, "Step": STEP, "Slot": SLOT,
        "Control": CONTROL, "GreedyOptions": GREEDY_OPTIONS, "Greedy": GREEDY, "kMaxLayers": MAX_LAYERS,
        "kMaxSlots": MAX_SLOTS, "kExchangedRounds": EXCHANGED_ROUNDS,
    },
    "fused_beam.cu": {
        "Record": RECORD, "Hypothesis": HYPOTHESIS, "Entry": ENTRY_BYTES, "Pair": PAIR_BYTES, "Ranked": RANKED_BYTES,
        "Asking": ASKING_BYTES, "Automaton": AUTOMATON, "Masks": MASKS, "BeamOptions": BEAM_OPTIONS,
        "BeamSearch": BEAM_SEARCH,
        "Wanted": WANTED, "Requests": REQUESTS, "FusedBeam": FUSED_BEAM,
    },
    "fusion.cu": {"Automaton": AUTOMATON, "BeamSearch": BEAM_SEARCH},
    "greedy.cu": {"GreedySteps": GREEDY_STEPS},
    "rows.cu": {"Masks": MASKS},
    "gather.cu": {"Copy": COPY},
    "features.cu": {"Recording": RECORDING, "Features": FEATURES, "Part": PART},
}  # fmt: skip
"""What each file must agree on: structures with their fields, bytes of structures, and constants."""


def agreement(file: str) -> str:
    """C++ that compiles behind a file's source if the file agrees with this module."""
    asserts = []
    for name, expected in IN_FILES.get(file, {}).items():
        if isinstance(expected, int):
            asserts.append(f"static_assert({name if name.startswith('k') else f'sizeof({name})'} == {expected});")
            continue
        asserts.append(f"static_assert(sizeof({name}) == {expected.itemsize});")
        for field in expected.names or ():
            asserts.append(f"static_assert(__builtin_offsetof({name}, {field}) == {offset_of(expected, field)});")
    return "namespace tdt::cuda {\n" + "\n".join(asserts) + "\n}\n"


def filled(dtype: np.dtype, **values: Any) -> np.ndarray:
    """A structure [1] with those fields. An array on the device stands for its address."""
    record = np.zeros(1, dtype)
    for name, value in values.items():
        record[name] = address(value) if hasattr(value, "data") and hasattr(value.data, "ptr") else value
    return record


def copied(structure: np.ndarray) -> np.ndarray:
    """A copy [1] of a structure, made as bytes: NumPy would copy it field by field, which takes ten times as long."""
    return np.frombuffer(bytearray(structure.view(np.uint8)), structure.dtype)


def offset_of(dtype: np.dtype, name: str) -> int:
    """Where a field of a structure begins, in bytes."""
    assert dtype.fields is not None
    return int(dtype.fields[name][1])


def address(array: Any) -> int:
    """The address of a device array's first byte."""
    return int(array.data.ptr)


def row_layout(layout: RowLayout) -> tuple[np.ndarray, Any]:
    """`ROW_LAYOUT` [1], and the array of frames on the device that it points to: keep it alive."""
    blanks, durations = len(layout.blank_frames), len(layout.durations)
    frames = import_cupy().asarray(np.concatenate([layout.blank_frames, layout.durations]).astype(np.int32))
    struct = filled(
        ROW_LAYOUT, vocab_size=layout.vocab_size, blank=layout.blank, num_blanks=blanks, num_durations=durations,
        blank_frames=frames, durations=address(frames) + 4 * blanks,
    )  # fmt: skip
    return struct, frames


def mask_bytes(masks: Masks) -> int:
    """At least what `put_masks` adds to a transfer."""
    return masks.table.nbytes + masks.numbers.nbytes + 64 if masks else 0


def put_masks(masks: Masks, transfer: Transfer) -> np.ndarray:
    """`MASKS` [1]; the arrays that it points to are added to a transfer."""
    if not masks:
        return filled(MASKS)
    table, numbers = transfer.put(masks.table), transfer.put(masks.numbers)
    return filled(MASKS, table=table, numbers=numbers, entries=masks.table.shape[1])
