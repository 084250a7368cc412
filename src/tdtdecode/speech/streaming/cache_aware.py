"""Cache-aware encoders: each window once, with what the windows before it left in the caches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...bundle import Bundle
from ...bundle.cached_encoder import read_caches
from ...bundle.caches import EncoderCaches
from ...bundle.onnx_files.dependencies import import_onnxruntime
from ...bundle.onnx_files.graph import Graph, Port
from ...cancellation import interruptible
from ...errors import BundleError, DeviceError, InputError
from ..encoder import Encoder


@dataclass(frozen=True, eq=False)
class CacheState:
    """What one stream's windows left in the caches: a row of arrays that the streams of one call share. A value."""

    arrays: tuple[np.ndarray, ...]
    row: int


class CacheAwareEncoder(Encoder):
    """Runs a cache-aware encoder: window by window over streams, or over whole recordings.

    A whole recording gets the frames that a stream gets. Every window has the same width. The last one of a recording
    is filled up with zeros beyond its length, so what is left at the end is encoded too, however short it is.

    Parameters and errors as for `Encoder`. It runs on the cpu.

    Attributes
    ----------
    caches:
        The encoder's ports and windows.
    """

    caches: EncoderCaches

    def __init__(self, bundle: Bundle, *arguments: Any, **options: Any):
        super().__init__(bundle, *arguments, **options)
        if self._card is not None:
            raise DeviceError("cache-aware encoders run on the cpu: choose device='cpu'")
        self.takes_batches = self.takes_batches and self.caches.takes_batches

    def _read_ports(self, graph: Graph, bundle: Bundle) -> tuple[Port, Port, Port, Port]:
        metadata = {entry.key: entry.value for entry in graph.model.metadata_props}
        self.caches = read_caches(graph, metadata, bundle.features.subsampling_factor)
        time = self.caches.audio.shape[2]
        if isinstance(time, int) and time != self.caches.window:
            raise BundleError(
                f"takes windows of {time} feature frames, but its metadata states {self.caches.window}",
                file=self._file, field=self.caches.audio.name,
            )  # fmt: skip
        return self.caches.audio, self.caches.length, self.caches.frames, self.caches.counts

    def language(self, name: str | None) -> int | None:
        """The number of a language; None for a model that is told none.

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
        known = ", ".join(sorted(caches.languages)) or "none"
        if name is None:
            if caches.default_language is None:
                raise InputError(f"the model needs a language: {known}")
            return caches.default_language
        if not isinstance(name, str) or name not in caches.languages:
            raise InputError(f"no language {name!r}: {known}")
        return caches.languages[name]

    def begin(self) -> CacheState:
        """The caches before the first window: zeros."""
        return CacheState(
            tuple(
                np.zeros((*cache.shape[: cache.batch_axis], 1, *cache.shape[cache.batch_axis :]), cache.into.dtype)
                for cache in self.caches.caches
            ),
            0,
        )

    def step(
        self, windows: np.ndarray, lengths: np.ndarray, states: Sequence[CacheState], languages: Sequence[int | None]
    ) -> tuple[list[np.ndarray], list[CacheState]]:
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
        For each stream its new frames, float32 [E, n], and its new state.

        Raises
        ------
        BundleError
            If ONNX Runtime cannot run the encoder, or what it returns is not what it says.
        """
        if not self.takes_batches and len(states) > 1:
            parts = [
                self.step(windows[i : i + 1], lengths[i : i + 1], states[i : i + 1], languages[i : i + 1])
                for i in range(len(states))
            ]
            return [frames for part, _ in parts for frames in part], [state for _, part in parts for state in part]
        caches = self.caches
        feeds = {
            caches.audio.name: np.ascontiguousarray(windows, caches.audio.dtype),
            caches.length.name: np.ascontiguousarray(lengths, caches.length.dtype),
        }
        for cache, array in zip(caches.caches, self._gathered(states), strict=True):
            feeds[cache.into.name] = array
        if caches.prompt is not None:
            feeds[caches.prompt.name] = np.array(languages, caches.prompt.dtype)
        outputs = [caches.frames.name, caches.counts.name, *(cache.out.name for cache in caches.caches)]
        try:
            with interruptible(import_onnxruntime().RunOptions()) as options:
                frames, counts, *arrays = self._session.current.run(outputs, feeds, options)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise BundleError(f"ONNX Runtime cannot run it: {error}", file=self._file) from error
        for cache, array, old in zip(caches.caches, arrays, (feeds[c.into.name] for c in caches.caches), strict=True):
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
        found = [row[:, : min(max(count, 0), row.shape[1])] for row, count in zip(frames, counts.tolist(), strict=True)]
        return found, [CacheState(tuple(arrays), row) for row in range(len(states))]

    def _gathered(self, states: Sequence[CacheState]) -> list[np.ndarray]:
        """The caches of streams as one batch. Streams that shared the last call, and are all here, need no copy."""
        first = states[0].arrays
        axes = [cache.batch_axis for cache in self.caches.caches]
        together = all(state.arrays is first and state.row == row for row, state in enumerate(states))
        if together and first[0].shape[axes[0]] == len(states):
            return list(first)
        return [
            np.stack([state.arrays[i].take(state.row, axis) for state in states], axis) for i, axis in enumerate(axes)
        ]

    def __call__(self, features: np.ndarray, lengths: np.ndarray) -> tuple[Any, np.ndarray]:
        """Encode whole recordings; parameters and results as for `Encoder`. The language is the model's default."""
        shift, overlap = self.caches.shift, self.caches.overlap
        language = self.language(None)
        states = [self.begin() for _ in lengths]
        parts: list[list[np.ndarray]] = [[] for _ in lengths]
        for start in range(0, int(lengths.max(initial=0)), shift):
            rows = np.flatnonzero(lengths > start).tolist()
            windows = np.zeros((len(rows), features.shape[1], self.caches.window), np.float32)
            valid = np.zeros(len(rows), np.int64)
            for place, row in enumerate(rows):
                first, stop = max(start - overlap, 0), min(start + shift, int(lengths[row]))
                zeros = overlap - (start - first)
                windows[place, :, zeros : zeros + stop - first] = features[row, :, first:stop]
                valid[place] = zeros + stop - first
            found, after = self.step(windows, valid, [states[row] for row in rows], [language] * len(rows))
            for row, frames, state in zip(rows, found, after, strict=True):
                parts[row].append(frames)
                states[row] = state
        whole = [np.concatenate(part, axis=1) for part in parts]
        counts = np.array([frames.shape[1] for frames in whole], np.int64)
        out = np.zeros((len(whole), whole[0].shape[0], int(counts.max())), np.float32)
        for row, frames in enumerate(whole):
            out[row, :, : frames.shape[1]] = frames
        return out, counts

    def utterances(self, encoder_out: Any) -> list[Any]:
        return list(encoder_out)
