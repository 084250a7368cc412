"""Model files, ``model.tdt``: everything that decoding needs in one file, without ONNX.

A file is in the safetensors format: eight bytes with the length of a header, the header in JSON, the tensors' data. So
any language can read it, and it can be memory-mapped. ``csrc/capi/model.cpp`` reads the same files for the C library,
and `docs/c_library.md` describes them. `tdtdecode.prepare.pack` writes them.
"""

from __future__ import annotations

import copyreg
import json
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import MAX_DURATION
from ..errors import BundleError, InputError
from ..reprs import counted, one_line
from ..transducer import TransducerSpec
from ..weights import ACTIVATIONS, Affine, LstmLayer, TransducerWeights
from .description import FEATURE_FRAME_SECONDS, FeatureSettings
from .vocabulary import Vocabulary

SUFFIX = ".tdt"
FORMAT, VERSIONS = "tdtdecode", ("1", "2")
"""The version goes up with everything that changes what a file means. Readers refuse versions that they do not know.

Version 2 has big blanks, predictors that look at several tokens, and a limit of tokens at one frame. Models without
them are written as version 1.
"""

_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2"), "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
}  # fmt: skip
_LENGTH = 8
_LONGEST_HEADER = 100_000_000
_MOST_LAYERS = 64
_MOST_AXES = 8
_MOST_BIG_BLANKS = 1 << 16
_MOST_SYMBOLS = (1 << 31) - 1


@dataclass(frozen=True, eq=False)
class PackedModel:
    """A model file, read and checked. It is pickled as where it is: whoever unpickles it reads the file.

    Attributes
    ----------
    path:
        The file.
    spec, vocabulary, features:
        As in a `Bundle`.
    weights:
        Those of predictor and joint. Weights in float32 are views of the file, which is memory-mapped.
    """

    path: Path
    spec: TransducerSpec
    vocabulary: Vocabulary
    features: FeatureSettings
    weights: TransducerWeights

    def __repr__(self) -> str:
        return one_line(
            self, str(self.path), counted(self.spec.vocab_size, "token"), f"durations {list(self.spec.durations)}",
            self.weights.sizes,
        )  # fmt: skip

    @property
    def frame_seconds(self) -> float:
        """Duration of an encoder frame in seconds."""
        return self.features.subsampling_factor * FEATURE_FRAME_SECONDS


def read_packed(path: str | os.PathLike[str]) -> PackedModel:
    """Read a model file.

    Raises
    ------
    BundleError
        If it cannot be read, or is no model file. The message names the field.
    """
    file = _File(Path(path))
    if (kind := file.text("kind")) != "transducer":
        file.fail(f"must be 'transducer', got {kind[:20]!r}", "metadata 'kind'")
    pieces = _pieces(file)
    blank = file.integer("blank", 0, len(pieces) - 1)
    durations = file.tensor("durations", (None,), ("I32",))
    if durations.size and (durations.min() < 0 or durations.max() > MAX_DURATION):
        file.fail("must hold frames, from 0 to 2^20", "tensor 'durations'")
    big_blanks, earlier, max_symbols = _later_fields(file, len(pieces), blank, durations)
    embedding = file.floats("embedding", (len(pieces), None))
    encoder = _affine(file, "encoder", None, None)
    joint = len(encoder.weight)
    prediction = _affine(file, "prediction", joint, None)
    size, width = prediction.weight.shape[1], embedding.shape[1]
    layers = []
    for i in range(file.integer("layers", 0, _MOST_LAYERS)):
        layers.append(LstmLayer(
            file.floats(f"layers.{i}.input", (4 * size, width)), file.floats(f"layers.{i}.recurrent", (4 * size, size)),
            file.floats(f"layers.{i}.bias", (4 * size,)),
        ))  # fmt: skip
        width = size
    if width != size:
        file.fail(f"takes {size} numbers, but the predictor gives {width}", "tensor 'prediction.weight'")
    if earlier and layers:
        file.fail("must be 0 in a model with layers", "metadata 'earlier'")
    tables = tuple(file.floats(f"earlier.{i}", (len(pieces), size)) for i in range(earlier))
    output = _affine(file, "output", len(pieces) + len(big_blanks) + len(durations), joint)
    if (activation := file.text("activation")) not in ACTIVATIONS:
        file.fail(f"must be one of {', '.join(ACTIVATIONS)}", "metadata 'activation'")
    spec = TransducerSpec(
        len(pieces) - 1, durations=tuple(map(int, durations)), blank=blank, encoder_size=encoder.weight.shape[1],
        max_symbols=max_symbols, big_blanks=big_blanks,
    )  # fmt: skip
    features = FeatureSettings(
        mel_bins=file.integer("mel_bins", 0, 1 << 16) or None,
        subsampling_factor=file.integer("subsampling_factor", 1, 1 << 16),
        normalize=file.text("normalize") or None,
        sample_rate=file.integer("sample_rate", 1, 1 << 20),
        max_frames=file.integer("max_frames", 0, 1 << 30) or None if "max_frames" in file.metadata else None,
        family=file.text("family"),
    )
    weights = TransducerWeights(embedding, tuple(layers), prediction, encoder, activation, output, tables)
    if problem := weights.problem():
        file.fail(problem)
    return PackedModel(file.path, spec, Vocabulary(tuple(pieces), blank), features, weights)


def _later_fields(
    file: _File, entries: int, blank: int, durations: np.ndarray
) -> tuple[tuple[int, ...], int, int | None]:
    """What version 2 has more than version 1: big blanks, the number of earlier tokens, and the limit of tokens."""
    if file.text("format_version") == "1":
        return (), 0, None
    big_blanks = file.tensor("big_blanks", (None,), ("I32",))
    field = "tensor 'big_blanks'"
    if len(big_blanks) > _MOST_BIG_BLANKS:
        file.fail("is too long", field)
    if big_blanks.size and (big_blanks.min() < 1 or big_blanks.max() > MAX_DURATION):
        file.fail("must hold frames, from 1 to 2^20", field)
    if big_blanks.size and (len(durations) or blank != entries - 1):
        file.fail("must be empty in a model with durations, or whose blank is not the last piece", field)
    earlier = file.integer("earlier", 0, _MOST_LAYERS)
    return tuple(map(int, big_blanks)), earlier, file.integer("max_symbols", 0, _MOST_SYMBOLS) or None


copyreg.pickle(PackedModel, lambda model: (read_packed, (model.path,)))


def model_file(
    weights: TransducerWeights, spec: TransducerSpec, vocabulary: Vocabulary, features: FeatureSettings
) -> Iterable[bytes]:
    """The content of a model file, in parts. Every piece of the vocabulary must be text (`is_text`)."""
    metadata = {
        "kind": "transducer",
        "vocabulary": json.dumps(vocabulary.pieces, ensure_ascii=False),
        "blank": str(spec.blank),
        "activation": weights.activation,
        "layers": str(len(weights.layers)),
        "family": features.family,
        "normalize": features.normalize or "",
        "sample_rate": str(features.sample_rate),
        "mel_bins": str(features.mel_bins or 0),
        "subsampling_factor": str(features.subsampling_factor),
    }
    if features.max_frames is not None:
        metadata["max_frames"] = str(features.max_frames)
    tensors = {"embedding": weights.embedding, "durations": spec.duration_table}
    version = VERSIONS[0]
    if spec.big_blanks or weights.earlier or spec.max_symbols is not None:
        version = VERSIONS[1]
        metadata |= {"earlier": str(len(weights.earlier)), "max_symbols": str(spec.max_symbols or 0)}
        tensors["big_blanks"] = np.array(spec.big_blanks, np.int32)
        tensors |= {f"earlier.{i}": table for i, table in enumerate(weights.earlier)}
    for i, layer in enumerate(weights.layers):
        tensors |= {f"layers.{i}.{name}": getattr(layer, name) for name in ("input", "recurrent", "bias")}
    for name in ("prediction", "encoder", "output"):
        affine = getattr(weights, name)
        tensors |= {f"{name}.weight": affine.weight, f"{name}.bias": affine.bias}
    return packed_file(metadata, tensors, version)


def packed_file(
    metadata: dict[str, str], tensors: dict[str, np.ndarray], version: str = VERSIONS[0]
) -> Iterable[bytes]:
    """The content of a file, in parts.

    Tensors are float32, int32 or int64. Data begins at a multiple of 64 bytes, and that of each tensor at a multiple of
    its item's size: larger items come first.
    """
    stored = {name: _stored(array) for name, array in tensors.items()}
    order = sorted(stored, key=lambda name: (-stored[name][1].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": FORMAT, "format_version": version, **metadata}}
    place = 0
    for name in order:
        dtype, array = stored[name]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [place, place + array.nbytes]}
        place += array.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(_LENGTH + len(text)) % 64)
    yield len(text).to_bytes(_LENGTH, "little") + text
    for name in order:
        yield stored[name][1].tobytes()


def is_text(piece: str) -> bool:
    """Whether a piece can be stored: it has no zero character, and no half of a surrogate pair."""
    return "\0" not in piece and not any("\ud800" <= char <= "\udfff" for char in piece)


def fingerprint(pieces: Iterable[str]) -> str:
    """64 bits that tell vocabularies apart, in hexadecimal: FNV-1a over the pieces, each followed by a zero byte."""
    value = 0xCBF29CE484222325
    for piece in pieces:
        for byte in piece.encode() + b"\0":
            value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return f"{value:016x}"


def _stored(array: np.ndarray) -> tuple[str, np.ndarray]:
    """The type and the array to store: 16 bits where they hold every number exactly."""
    array = np.ascontiguousarray(array)
    if array.dtype != np.float32:
        return {"int32": "I32", "int64": "I64"}[array.dtype.name], array.astype(array.dtype.newbyteorder("<"))
    bits = array.view(np.uint32)
    if not (bits & 0xFFFF).any():
        return "BF16", (bits >> 16).astype("<u2")
    with np.errstate(over="ignore"):
        half = array.astype("<f2")
    if np.array_equal(half.astype(np.float32), array):
        return "F16", half
    return "F32", array.astype("<f4")


def _pieces(file: _File) -> list[str]:
    try:
        pieces = json.loads(file.text("vocabulary"))
    except (ValueError, RecursionError) as error:
        file.fail(f"is no JSON ({error})", "metadata 'vocabulary'")
    if not isinstance(pieces, list) or len(pieces) < 2 or not all(isinstance(piece, str) for piece in pieces):
        file.fail("must be a list of 2 or more strings", "metadata 'vocabulary'")
    if not all(map(is_text, pieces)):
        file.fail("has a zero character, or half of a surrogate pair", "metadata 'vocabulary'")
    return pieces


def _affine(file: _File, name: str, outputs: int | None, inputs: int | None) -> Affine:
    weight = file.floats(f"{name}.weight", (outputs, inputs))
    if not weight.size:
        file.fail("must not be empty", f"tensor '{name}.weight'")
    return Affine(weight, file.floats(f"{name}.bias", (len(weight),)))


class _File:
    """A safetensors file, memory-mapped. Its tensors fill it exactly, without holes and without overlaps."""

    def __init__(self, path: Path):
        self.path = path
        try:
            with open(path, "rb") as opened:
                self._memory: Any = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file cannot be mapped
            self._memory = b""
        except OSError as error:
            self.fail(f"cannot be read ({error.strerror or error})")
        length = int.from_bytes(self._memory[:_LENGTH], "little")
        if not 2 <= length <= min(_LONGEST_HEADER, len(self._memory) - _LENGTH) or self._memory[_LENGTH] != ord("{"):
            self.fail("is no model file: it does not begin as safetensors files do; tdtdecode pack writes model files")
        text = self._memory[_LENGTH : _LENGTH + length]
        try:
            header = json.loads(text.decode(), object_pairs_hook=_distinct)
        except (ValueError, RecursionError) as error:
            self.fail(f"has a header that is no JSON ({error})")
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        if not isinstance(self.metadata, dict) or not all(isinstance(value, str) for value in self.metadata.values()):
            self.fail("must hold strings", "__metadata__")
        if not all(map(is_text, [*header, *self.metadata, *self.metadata.values()])):
            self.fail("has a header with a zero character, or half of a surrogate pair")
        self._start = _LENGTH + length
        self._tensors = {name: self._entry(name, entry) for name, entry in header.items()}
        end = 0
        for _, _, first, last in sorted(self._tensors.values(), key=lambda tensor: tensor[2:]):
            if first != end:
                self.fail("has tensors that overlap, or a hole between them")
            end = last
        if end != len(self._memory) - self._start:
            self.fail("has another length than its header says: it may be cut off")
        if self.text("format") != FORMAT:
            self.fail(f"must be {FORMAT!r}: tdtdecode pack writes such files", "metadata 'format'")
        if (version := self.text("format_version")) not in VERSIONS:
            known = " and ".join(VERSIONS)
            self.fail(f"is {version[:20]!r}; this version of tdtdecode reads {known}", "metadata 'format_version'")

    def _entry(self, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
        field = f"tensor {name!r}"
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            self.fail("must have exactly dtype, shape and data_offsets", field)
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            self.fail(f"has the dtype {dtype!r}; {', '.join(_DTYPES)} are known", field)
        if not _sizes(shape) or len(shape) > _MOST_AXES:
            self.fail("has a wrong shape", field)
        if not _sizes(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= len(self._memory) - self._start:
            self.fail("has data_offsets outside the file: it may be cut off", field)
        count = _DTYPES[dtype].itemsize
        for size in shape:
            count *= size
        if offsets[1] - offsets[0] != count:
            self.fail("has another size than its shape and dtype", field)
        return dtype, tuple(shape), *offsets

    def text(self, key: str) -> str:
        if key not in self.metadata:
            self.fail("is missing", f"metadata {key!r}")
        return self.metadata[key]

    def integer(self, key: str, low: int, high: int) -> int:
        text = self.text(key)
        if not (text.isascii() and text.isdigit() and len(text) <= 18 and low <= int(text) <= high):
            self.fail(f"must be an integer from {low} to {high}, got {text[:40]!r}", f"metadata {key!r}")
        return int(text)

    def tensor(self, name: str, shape: tuple[int | None, ...], dtypes: tuple[str, ...]) -> np.ndarray:
        """A tensor of a shape, in which None stands for any size."""
        field = f"tensor {name!r}"
        if name not in self._tensors:
            self.fail("is missing", field)
        dtype, found, first, last = self._tensors[name]
        if len(found) != len(shape) or any(b is not None and a != b for a, b in zip(found, shape)):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            self.fail(f"has the shape {list(found)}, expected [{wanted}]", field)
        if dtype not in dtypes:
            self.fail(f"must hold {' or '.join(dtypes)}, not {dtype}", field)
        memory = np.frombuffer(self._memory, np.uint8, last - first, self._start + first) if last > first else b""
        return np.frombuffer(memory, _DTYPES[dtype]).reshape(found)

    def floats(self, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
        array = self.tensor(name, shape, ("F32", "F16", "BF16"))
        if array.dtype == np.uint16:
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array.astype(np.float32, copy=False)

    def fail(self, problem: str, field: str | None = None) -> Any:
        raise BundleError(problem, file=self.path, field=field)


def _sizes(value: Any) -> bool:
    """Whether a value of JSON is a list of sizes."""
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 1 << 63 for size in value)


def _distinct(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        raise ValueError("a member is named twice")
    return found


def check_whole(layout: str, variant: str | None, durations: object, big_blanks: object) -> None:
    """Raise an InputError if an option is given that says how to read a directory: a model file states everything."""
    if layout != "auto" or variant is not None or durations is not None or big_blanks is not None:
        raise InputError("layout, variant, durations and big_blanks are for model directories: a model file is whole")
