"""Cache-aware encoders: each window once, with what the windows before it left in the caches."""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...bundle import Bundle, load_graph
from ...bundle.cached_encoder import read_caches
from ...bundle.caches import EncoderCaches
from ...bundle.onnx_files.dependencies import import_onnxruntime
from ...bundle.onnx_files.graph import Graph, Port, first_line
from ...bundle.probe import BATCH_AXIS, make_batch_dynamic
from ...cuda.device import import_cupy, shared_stream
from ...errors import BundleError, InputError
from ..encoder import Encoder

if TYPE_CHECKING:
    import onnxruntime as ort

_log = logging.getLogger(__name__)

_TOLERANCE = {"float16": 2e-2}
"""Largest accepted difference of a stream encoded beside others and alone, relative to the largest value; else 1e-3."""

_QUIET = 4
"""ONNX Runtime's level of messages that leaves out errors, which are raised anyway."""


class CacheState:
    """What one stream's windows left in the caches: a row of arrays that the streams of one call share. A value.

    Where the other streams of that call go on without it, it gets a copy of its row, so that no stream holds the memory
    of others for long.

    Attributes
    ----------
    held:
        For each cache an array on the encoder's device, NumPy's or CuPy's, in ONNX Runtime's memory; and the row.
    """

    def __init__(self, arrays: tuple[Any, ...], row: int, together: weakref.WeakSet[CacheState]):
        self.held = arrays, row
        self.together = together
        together.add(self)

    @property
    def arrays(self) -> tuple[Any, ...]:
        """The arrays, with the other rows that they have."""
        return self.held[0]


class CacheAwareEncoder(Encoder):
    """Runs a cache-aware encoder: window by window over streams, or over whole recordings.

    A whole recording gets the frames that a stream gets. Every window has the same width. The last one of a recording
    is filled up with zeros beyond its length, so what is left at the end is encoded too, however short it is.

    The caches stay on the encoder's device from window to window. A graph that was exported for a batch of one takes
    several streams at a time all the same, if it computes the same then.

    Parameters and errors as for `Encoder`.

    Attributes
    ----------
    caches:
        The encoder's ports and windows.
    """

    caches: EncoderCaches
    _unfixed: bool
    """Whether the batch of one that the file states is opened."""

    def __init__(self, bundle: Bundle, *arguments: Any, **options: Any):
        self._directory = bundle.directory
        super().__init__(bundle, *arguments, **options)
        self.takes_batches = self.takes_batches and (self._unfixed or self.caches.takes_batches)
        if self._unfixed and (reason := self._difference_in_batches()):
            self._unfixed = self.takes_batches = False
            _log.info("encoder: %s takes %s, as it was exported (%s)", self._file.name, self.batches, reason)
            self._session = self._opened()

    @property
    def opened_batch(self) -> bool:
        """Whether the file states a batch of one, and the graph computes more streams all the same."""
        return self._unfixed

    def _read_ports(self, graph: Graph, bundle: Bundle) -> tuple[Port, Port, Port, Port]:
        caches = self.caches = read_caches(graph, bundle.windows, bundle.features.mel_bins)
        sizes = {port.shape[caches.batch_axes[port.name]] for port in graph.inputs if port.name in caches.batch_axes}
        fixed = {size for size in sizes if isinstance(size, int)}
        if fixed - {1}:
            raise BundleError(
                f"the number of streams is fixed at {max(fixed)}; export it with a dynamic batch axis, or a batch of "
                "one", file=graph.file, field=caches.caches[0].into.name,
            )  # fmt: skip
        self._unfixed = fixed == {1} and not graph.quantized
        self._mel_axis = 3 - caches.time_axis
        audio = caches.audio
        if self._unfixed:
            audio = replace(audio, shape=(BATCH_AXIS, *audio.shape[1:]))
        return audio, caches.length, caches.frames, caches.counts

    def _open(self, providers: list[Any]) -> ort.InferenceSession:
        if not self._unfixed:
            return super()._open(providers)
        graph = load_graph(self._file, self._directory)
        make_batch_dynamic(graph, self.caches.batch_axes)
        return graph.session(self._options, providers)

    @contextlib.contextmanager
    def _in_order(self) -> Iterator[None]:
        """Within it, arrays are computed in the order of the sessions' runs. They are complete when it ends."""
        if self._card is None:
            yield
            return
        with self._card.current(), shared_stream(self._card.index) as stream:
            yield
            stream.synchronize()

    @property
    def _array_module(self) -> Any:
        """The library of arrays on the encoder's device: NumPy or CuPy."""
        return np if self._card is None else import_cupy()

    def _run_on_silence(self, mel_bins: int) -> None:
        language = None if self.caches.prompt is None else self.caches.default_language or 0
        window = np.zeros((1, mel_bins, self.caches.window), np.float32)
        self._step(window, np.array([self.caches.window]), [self.begin()], [language])

    def _difference_in_batches(self) -> str:
        """Why several streams cannot share a call; "" if each gets what it gets alone."""
        caches, rng = self.caches, np.random.default_rng(0)
        mel = caches.audio.shape[3 - caches.time_axis]
        windows = rng.standard_normal((2, mel if isinstance(mel, int) else 80, caches.window)).astype(np.float32)
        lengths = np.array([caches.overlap + 1, caches.window])
        states = [self.begin()] * 2
        languages = [None if caches.prompt is None else caches.default_language or 0] * 2
        options = import_onnxruntime().RunOptions()
        options.log_severity_level = _QUIET
        try:
            for _ in range(2):
                found, after = self._step(windows, lengths, states, languages, options)
                (alone,), (left,) = self._step(windows[1:], lengths[1:], states[1:], languages[1:], options)
                pairs = zip((found[1], *self._row(after[1])), (alone, *self._row(left)), strict=True)
                if not all(self._equal(one, other) for one, other in pairs):
                    return "streams of a batch affect each other"
                states = after
        except BundleError as error:
            return first_line(error)
        return ""

    def _row(self, state: CacheState) -> list[Any]:
        """The arrays of one stream: views."""
        arrays, row = state.held
        return [
            array[(slice(None),) * cache.batch_axis + (slice(row, row + 1),)]
            for cache, array in zip(self.caches.caches, arrays, strict=True)
        ]

    def _equal(self, one: Any, other: Any) -> bool:
        """Whether two arrays of the encoder's device are equal but for rounding."""
        if self._card is not None:
            one, other = self._array_module.asnumpy(one), self._array_module.asnumpy(other)
        if one.shape != other.shape:
            return False
        scale = max(1.0, float(np.abs(other.astype(np.float64)).max(initial=0)))
        tolerance = _TOLERANCE.get(one.dtype.name, 1e-3)
        return np.allclose(one.astype(np.float64), other.astype(np.float64), rtol=0, atol=scale * tolerance)

    def language(self, name: str | None) -> int | None:
        """The number of a language; None for a model that is told none.

        Parameters
        ----------
        name:
            As the model calls it. Where the model's files do not name its languages, its number as text.

        Raises
        ------
        InputError
            If the model has no such language, is told none at all, or needs one and ``name`` is None.
        """
        caches = self.caches
        if caches.prompt is None:
            if name is not None:
                raise InputError(f"language={name!r}: the model is not told a language")
            return None
        known = ", ".join(sorted(caches.languages)) or "its files name none, so give its number, such as '0'"
        if name is None:
            if caches.default_language is None:
                raise InputError(f"the model needs a language: {known}")
            return caches.default_language
        if not caches.languages and isinstance(name, str) and name.isdecimal() and len(name) < 6:
            return int(name)
        if not isinstance(name, str) or name not in caches.languages:
            raise InputError(f"no language {name!r}: {known}")
        return caches.languages[name]

    def begin(self) -> CacheState:
        """The caches before the first window: zeros."""
        return CacheState(
            tuple(
                self._array_module.zeros(
                    (*cache.shape[: cache.batch_axis], 1, *cache.shape[cache.batch_axis :]), cache.into.dtype
                )
                for cache in self.caches.caches
            ),
            0,
            weakref.WeakSet(),
        )

    def step(
        self, windows: np.ndarray, lengths: np.ndarray, states: Sequence[CacheState], languages: Sequence[int | None]
    ) -> tuple[list[Any], list[CacheState]]:
        """Encode the next window of each of B streams.

        Parameters
        ----------
        windows:
            float32 [B, mel, window].
        lengths:
            int64 [B], the feature frames in them that count: all but those beyond a recording's end.
        states, languages:
            Of each stream.

        Returns
        -------
        For each stream its new frames [E, n], on the encoder's device in the graph's type, and its new state.

        Raises
        ------
        BundleError
            If ONNX Runtime cannot run the encoder, or what it returns is not what it says.
        """
        if not self.takes_batches and len(states) > 1:
            parts = [
                self._step(windows[i : i + 1], lengths[i : i + 1], states[i : i + 1], languages[i : i + 1])
                for i in range(len(states))
            ]
            return [frames for part, _ in parts for frames in part], [state for _, part in parts for state in part]
        return self._step(windows, lengths, states, languages)

    def _step(
        self,
        windows: np.ndarray,
        lengths: np.ndarray,
        states: Sequence[CacheState],
        languages: Sequence[int | None],
        run_options: ort.RunOptions | None = None,
    ) -> tuple[list[Any], list[CacheState]]:
        """`step` in one call."""
        caches = self.caches
        if caches.time_axis == 1:
            windows = windows.transpose(0, 2, 1)
        told = [(caches.audio, windows), (caches.length, lengths)]
        if caches.prompt is not None:
            told.append((caches.prompt, np.array(languages)))
        names = [caches.frames.name, *(cache.out.name for cache in caches.caches)]
        with self._in_order():
            given = self._gathered(states)
            kept = [(cache.into, array) for cache, array in zip(caches.caches, given, strict=True)]
            try:
                values, counts = self._bound_run(told, kept, names, run_options)
            except Exception as error:  # ONNX Runtime's exceptions have no common base
                raise BundleError(f"ONNX Runtime cannot run it: {first_line(error)}", file=self._file) from error
            frames, *arrays = (self._array_module.from_dlpack(value) for value in values)
        for cache, array, old in zip(caches.caches, arrays, given, strict=True):
            if array.shape != old.shape or array.dtype != old.dtype:
                raise BundleError(
                    f"gives a cache {list(array.shape)} for one of {list(old.shape)}", file=self._file,
                    field=cache.out.name,
                )  # fmt: skip
        if frames.ndim != 3 or len(frames) != len(states) or counts.shape != (len(states),):
            raise BundleError(
                f"gives frames {list(frames.shape)} and lengths {list(counts.shape)} for {len(states)} streams",
                file=self._file, field=caches.frames.name,
            )  # fmt: skip
        if caches.frames_time_axis == 1:
            frames = frames.transpose(0, 2, 1)
        last = frames.shape[2]
        found = [frames[row][:, : min(max(count, 0), last)] for row, count in enumerate(counts.tolist())]
        together: weakref.WeakSet[CacheState] = weakref.WeakSet()
        return found, [CacheState(tuple(arrays), row, together) for row in range(len(states))]

    def _gathered(self, states: Sequence[CacheState]) -> list[Any]:
        """The caches of streams as one batch. Streams that shared the last call, and are all here, need no copy."""
        first = states[0].arrays
        axes = [cache.batch_axis for cache in self.caches.caches]
        together = all(state.arrays is first and state.held[1] == row for row, state in enumerate(states))
        if together and first[0].shape[axes[0]] == len(states):
            return list(first)
        here = set(states)
        for state in states:
            for other in list(state.together):
                if other not in here:
                    other.held = tuple(array.copy() for array in self._row(other)), 0
            state.together.clear()
        rows = [self._row(state) for state in states]
        return [self._array_module.concatenate([row[i] for row in rows], axis) for i, axis in enumerate(axes)]

    @property
    def features_card(self) -> None:
        """None: windows are put together in main memory."""
        return None

    def __call__(
        self, features: np.ndarray, lengths: np.ndarray, language: str | None = None
    ) -> tuple[Any, np.ndarray]:
        """Encode whole recordings; parameters as for `Encoder`, and a language for models that are told one.

        Returns
        -------
        encoder_out:
            A list of [E, T'], on the encoder's device.
        lengths:
            int64 [B], their encoder frames.
        """
        return self.launched(features, lengths, language)()

    def launched(
        self, features: np.ndarray, lengths: np.ndarray, language: str | None = None
    ) -> Callable[[], tuple[Any, np.ndarray]]:
        """A function that returns what `__call__` does. All the work is done before."""
        features, lengths = self._checked(features, lengths)
        shift, overlap = self.caches.shift, self.caches.overlap
        number = self.language(language)
        states = [self.begin() for _ in lengths]
        parts: list[list[Any]] = [[] for _ in lengths]
        for start in range(0, int(lengths.max(initial=0)), shift):
            rows = np.flatnonzero(lengths > start).tolist()
            windows = np.zeros((len(rows), features.shape[1], self.caches.window), np.float32)
            valid = np.zeros(len(rows), np.int64)
            for place, row in enumerate(rows):
                first, stop = max(start - overlap, 0), min(start + shift, int(lengths[row]))
                zeros = overlap - (start - first)
                windows[place, :, zeros : zeros + stop - first] = features[row, :, first:stop]
                valid[place] = zeros + stop - first
            found, after = self.step(windows, valid, [states[row] for row in rows], [number] * len(rows))
            for row, frames, state in zip(rows, found, after, strict=True):
                parts[row].append(frames)
                states[row] = state
        with self._in_order():
            whole = [self._array_module.concatenate(part, 1) for part in parts]
        counts = np.array([frames.shape[1] for frames in whole], np.int64)
        return lambda: (whole, counts)

    def utterances(self, encoder_out: Any) -> list[Any]:
        return list(encoder_out)
