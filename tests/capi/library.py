"""The C library from Python by ctypes: what the tests compare with the package. It declares what tdtdecode.h does."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import tdtdecode as tdt
from tdtdecode import capi

STRATEGIES = {"tsd": 1, "malsd": 2}
MEASURES = (None, "max_prob", "gibbs", "tsallis", "renyi")


class Sized(Structure):
    """A structure that begins with its size."""

    def __init__(self, **values: Any):
        super().__init__(ctypes.sizeof(type(self)), **values)


class ModelOptions(Sized):
    _fields_ = [("size", c_size_t), ("precision", c_int32), ("reserved", c_int32), ("instruction_set", c_char_p)]


class ModelInfo(Sized):
    _fields_ = [
        ("size", c_size_t), ("vocab_size", c_int32), ("blank", c_int32), ("encoder_size", c_int32),
        ("duration_count", c_int32), ("durations", POINTER(c_int32)), ("frame_seconds", c_double),
        ("sample_rate", c_int32), ("mel_bins", c_int32), ("subsampling_factor", c_int32), ("reserved", c_int32),
        ("features", c_char_p), ("normalize", c_char_p), ("instruction_set", c_char_p),
        ("max_symbols", c_int32), ("big_blank_count", c_int32), ("big_blanks", POINTER(c_int32)),
    ]  # fmt: skip


class PhrasesOptions(Sized):
    _fields_ = [
        ("size", c_size_t), ("weight", c_float), ("context_score", c_float), ("depth_scaling", c_float),
        ("reserved", c_float),
    ]  # fmt: skip


class Input(Sized):
    _fields_ = [
        ("size", c_size_t), ("data", c_void_p), ("type", c_int32), ("rows", c_int32), ("elements", c_int32),
        ("frames", c_int32), ("lengths", POINTER(c_int32)), ("row_stride", c_int64), ("element_stride", c_int64),
        ("frame_stride", c_int64),
    ]  # fmt: skip


class Search(Sized):
    _fields_ = [
        ("size", c_size_t), ("strategy", c_int32), ("threads", c_int32), ("max_symbols", c_int32),
        ("blank_penalty", c_float), ("beam_size", c_int32), ("nbest", c_int32), ("threshold", c_double),
        ("temperature", c_float), ("blank_mode", c_int32), ("pruning_mode", c_int32), ("confidence", c_int32),
        ("confidence_alpha", c_double), ("confidence_normalization", c_int32), ("ngram_weight", c_float),
        ("ngram", c_void_p), ("phrases", c_void_p), ("row_phrases", POINTER(c_void_p)),
        ("allow", c_void_p), ("row_allow", POINTER(c_void_p)),
    ]  # fmt: skip


class Hypothesis(Sized):
    _fields_ = [
        ("size", c_size_t), ("count", c_size_t), ("tokens", POINTER(c_int32)), ("frames", POINTER(c_int32)),
        ("durations", POINTER(c_int32)), ("token_logprobs", POINTER(c_float)), ("duration_logprobs", POINTER(c_float)),
        ("confidence", POINTER(c_float)), ("score", c_double),
    ]  # fmt: skip


class TextOptions(Sized):
    _fields_ = [("size", c_size_t), ("aggregation", c_int32), ("continues", c_int32), ("previous_end", c_double)]


class Word(Sized):
    _fields_ = [
        ("size", c_size_t), ("text", c_char_p), ("start", c_double), ("end", c_double), ("confidence", c_float),
        ("space_before", c_int32), ("first", c_size_t), ("last", c_size_t),
    ]  # fmt: skip


class CError(Exception):
    """A call that failed: its status and message."""


@lru_cache(maxsize=1)
def library() -> Any:
    loaded = ctypes.CDLL(str(capi.library()))
    for name in ("error_message", "version", "instruction_set", "model_piece", "text_string"):
        getattr(loaded, f"tdt_{name}").restype = c_char_p
    loaded.tdt_text_words.restype = c_size_t
    for name in ("model", "phrases", "ngram", "allow", "state", "result", "text"):
        getattr(loaded, f"tdt_{name}_free").argtypes = [c_void_p]
        getattr(loaded, f"tdt_{name}_free").restype = None
    return loaded


def call(name: str, *arguments: Any) -> None:
    """Call a function that returns a status."""
    function = getattr(library(), f"tdt_{name}")
    if status := function(*arguments):
        raise CError(status, library().tdt_error_message().decode())


class Handle:
    """An object of the library, freed with this one."""

    def __init__(self, kind: str, function: str, *arguments: Any):
        self.kind = kind
        self.pointer = c_void_p()
        call(function, *arguments, byref(self.pointer))

    @classmethod
    def of(cls, kind: str, pointer: c_void_p | int) -> Handle:
        made = cls.__new__(cls)
        made.kind, made.pointer = kind, c_void_p(pointer) if isinstance(pointer, int) else pointer
        return made

    def __del__(self) -> None:
        if getattr(self, "pointer", None):
            getattr(library(), f"tdt_{self.kind}_free")(self.pointer)


class Model(Handle):
    """A model, and decoding with it in the forms of the package."""

    def __init__(self, source: Path | bytes, precision: str = "float32", isa: str | None = None):
        options = ModelOptions(
            precision=("float32", "bfloat16", "int8").index(precision),
            instruction_set=None if isa is None else isa.encode(),
        )
        if isinstance(source, bytes):
            super().__init__("model", "model_open_memory", source, c_size_t(len(source)), byref(options))
        else:
            super().__init__("model", "model_open", str(source).encode(), byref(options))

    @property
    def info(self) -> ModelInfo:
        info = ModelInfo()
        call("model_get_info", self.pointer, byref(info))
        return info

    def phrases(self, texts: Sequence[str], weights: Sequence[float] | None = None, leave_out: bool = False, **options):
        array = (c_char_p * len(texts))(*(text.encode() for text in texts))
        factors = None if weights is None else (c_float * len(weights))(*weights)
        left_out = c_size_t()
        made = Handle(
            "phrases", "phrases_new", self.pointer, array, factors, c_size_t(len(texts)),
            byref(PhrasesOptions(**options)), byref(left_out) if leave_out else None,
        )  # fmt: skip
        made.left_out = left_out.value
        return made

    def phrases_of_tokens(self, phrases: Sequence[Sequence[int]], **options):
        tokens = [token for phrase in phrases for token in phrase]
        ends = np.cumsum([len(phrase) for phrase in phrases]).tolist()
        return Handle(
            "phrases", "phrases_new_from_tokens", self.pointer, (c_int32 * len(tokens))(*tokens),
            (c_size_t * len(ends))(*ends), None, c_size_t(len(ends)), byref(PhrasesOptions(**options)),
        )  # fmt: skip

    def ngram(self, source: Path | bytes) -> Handle:
        if isinstance(source, bytes):
            return Handle("ngram", "ngram_open_memory", self.pointer, source, c_size_t(len(source)))
        return Handle("ngram", "ngram_open", self.pointer, str(source).encode())

    def allow(self, allow: tdt.Script | tdt.OnlyTokens | tdt.ExceptTokens) -> Handle:
        """The same for the library."""
        if isinstance(allow, tdt.Script):
            names = (c_char_p * len(allow.names))(*(name.encode() for name in allow.names))
            return Handle("allow", "allow_scripts", self.pointer, names, c_size_t(len(names)))
        tokens = (c_int32 * len(allow.ids))(*allow.ids)
        kind = "only" if isinstance(allow, tdt.OnlyTokens) else "except"
        return Handle("allow", f"allow_{kind}", self.pointer, tokens, c_size_t(len(tokens)))

    def decode_chunk(
        self, frames: np.ndarray, lengths: Any = None, states: Sequence[Handle | None] | None = None,
        final: bool = False, search: Search | None = None,
    ) -> tuple[list[tdt.Hypothesis], list[Handle | None]]:
        """As `Decoder.decode_chunk`, for frames [B, E, T] of any strides."""
        given, kept = _input(frames, lengths)
        rows = len(frames)
        before = (c_void_p * rows)(*(None if state is None else state.pointer for state in states or [None] * rows))
        after = (c_void_p * rows)()
        result = c_void_p()
        call(
            "decode_chunk", self.pointer, byref(given), None if search is None else byref(search), before,
            c_int32(final), byref(result), after,
        )  # fmt: skip
        hypotheses = _hypotheses(Handle.of("result", result), rows)
        return hypotheses, [None if pointer is None else Handle.of("state", pointer) for pointer in after]

    def decode(self, frames: np.ndarray, lengths: Any = None, search: Search | None = None) -> list[tdt.Hypothesis]:
        given, kept = _input(frames, lengths)
        result = Handle("result", "decode", self.pointer, byref(given), None if search is None else byref(search))
        return _hypotheses(result, len(frames))

    def text(self, hypothesis: tdt.Hypothesis, aggregation: int = 0, previous_end: float | None = None):
        """The text and the words of a hypothesis."""
        given = Hypothesis(count=len(hypothesis))
        kept = []
        for name, kind in (
            ("tokens", c_int32), ("frames", c_int32), ("durations", c_int32), ("token_logprobs", c_float),
            ("duration_logprobs", c_float), ("token_confidence", c_float),
        ):  # fmt: skip
            values = getattr(hypothesis, name)
            if values is not None:
                kept.append(np.ascontiguousarray(values))
                setattr(given, name.removeprefix("token_") if name == "token_confidence" else name,
                        kept[-1].ctypes.data_as(POINTER(kind)))  # fmt: skip
        options = TextOptions(
            aggregation=aggregation, continues=previous_end is not None, previous_end=previous_end or 0.0
        )
        made = Handle("text", "text_new", self.pointer, byref(given), byref(options))
        words = []
        for i in range(library().tdt_text_words(made.pointer)):
            word = Word()
            call("text_word", made.pointer, c_size_t(i), byref(word))
            found = tdt.hypothesis.Word(
                word.text.decode(), word.start, word.end, word.confidence, bool(word.space_before)
            )
            words.append((found, slice(word.first, word.last + 1)))
        return library().tdt_text_string(made.pointer).decode(), words


def as_search(search: tdt.Greedy | tdt.Beam, threads: int = 1, **handles: Any) -> Search:
    """The library's structure for a search of the package without fusions; these are given as handles."""
    made = Search(max_symbols=search.max_symbols, blank_penalty=search.blank_penalty, threads=threads, **handles)
    if isinstance(search, tdt.Beam):
        made.strategy = STRATEGIES[search.strategy]
        made.beam_size, made.nbest, made.threshold = search.size, search.nbest, search.threshold
        made.temperature = search.temperature
        made.blank_mode = int(search.blank_mode == "lm_weighted_full")
        made.pruning_mode = int(search.pruning_mode == "late" and search.strategy == "malsd")
    if search.confidence is not None:
        made.confidence = MEASURES.index(search.confidence.measure)
        made.confidence_alpha = search.confidence.alpha
        made.confidence_normalization = int(search.confidence.normalization == "lin")
    return made


def _input(frames: np.ndarray, lengths: Any) -> tuple[Input, list[Any]]:
    kept: list[Any] = [frames]
    given = Input(
        data=frames.ctypes.data, type={"float32": 0, "float16": 1}[frames.dtype.name], rows=frames.shape[0],
        elements=frames.shape[1], frames=frames.shape[2], row_stride=frames.strides[0] // frames.itemsize,
        element_stride=frames.strides[1] // frames.itemsize, frame_stride=frames.strides[2] // frames.itemsize,
    )  # fmt: skip
    if lengths is not None:
        kept.append(np.ascontiguousarray(lengths, np.int32))
        given.lengths = kept[-1].ctypes.data_as(POINTER(c_int32))
    return given, kept


def _hypotheses(result: Handle, rows: int) -> list[tdt.Hypothesis]:
    assert library().tdt_result_rows(result.pointer) == rows
    found = []
    for row in range(rows):
        best, *others = [
            _hypothesis(result, row, rank) for rank in range(library().tdt_result_hypotheses(result.pointer, row))
        ]
        vars(best)["alternatives"] = tuple(others)
        found.append(best)
    return found


def _hypothesis(result: Handle, row: int, rank: int) -> tdt.Hypothesis:
    view = Hypothesis()
    call("result_hypothesis", result.pointer, c_int32(row), c_int32(rank), byref(view))

    def array(pointer: Any, kind: type) -> np.ndarray:
        return np.array(pointer[: view.count], kind) if view.count else np.empty(0, kind)

    confidence = array(view.confidence, np.float32) if view.confidence else None
    return tdt.Hypothesis(
        array(view.tokens, np.int32), array(view.frames, np.int32), array(view.durations, np.int32),
        array(view.token_logprobs, np.float32), array(view.duration_logprobs, np.float32), view.score, confidence,
    )  # fmt: skip
