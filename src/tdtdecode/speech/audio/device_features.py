"""Features computed on a card (``csrc/cuda/features.cu``), and batches made of features wherever they lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from ...cuda.device import Device, current_device, import_cupy
from ...cuda.kernels import kernels
from ...cuda.structs import FEATURES, PART, RECORDING, address, filled
from ...cuda.transfer import transfers
from .features import FeatureExtractor

Array: TypeAlias = Any
"""A NumPy array, or a CuPy array on the current card."""

_FILE = "features.cu"
_THREADS = 128
"""Threads of a block: the kernels are compiled for no more."""
_BLOCKS = 8
"""Blocks for each multiprocessor."""
_UPLOADED = 4 << 20
"""Bytes of samples that are copied to the card at a time: a minute of audio. A thread waits for each such copy."""
_PARAMETERS = 4096


class DeviceFeatureExtractor:
    """The features of a `FeatureExtractor`, computed on a card.

    They equal the host's within 1e-4, and mostly within 2e-6. There is one exception: where nearly nothing is heard in
    the whole of a recording, normalising makes a difference in the last bit of a logarithm large.

    Parameters
    ----------
    extract:
        Computes the same on the host.
    card:
        The card. It must be current in the calling thread.
    """

    def __init__(self, extract: FeatureExtractor, card: Device):
        cupy = import_cupy()
        self._extract, self._card = extract, card
        definition = extract.definition
        half = definition.fft // 2
        rows = next(n for n in range(2, half, 2) if n * n >= half and half % (2 * n) == 0)
        filters = [_filter(row) for row in definition.filters(extract.mel_bins)]
        angles = 2 * np.pi / definition.fft * np.arange(definition.fft)
        self._tables = [
            cupy.asarray(table) for table in (
                extract.window,
                np.stack([np.cos(angles), -np.sin(angles)], axis=1),
                np.array([first for first, _ in filters], np.int32),
                np.cumsum([0, *(len(weights) for _, weights in filters)], dtype=np.int32),
                np.concatenate([weights for _, weights in filters]).astype(np.float32),
            )
        ]  # fmt: skip
        self._job = filled(
            FEATURES, window=len(extract.window), points=definition.fft, rows=rows, columns=half // rows,
            margin=definition.margin, reflect=definition.edges == "reflect", emphasis=definition.emphasis,
            clamped=definition.clamped, mel_bins=extract.mel_bins, normalize=extract.normalize is not None,
            **dict(zip(("shape", "turns", "filter_first", "filter_start", "filter_weights"), self._tables)),
        )  # fmt: skip
        warp = 16 * rows * (2 * (half // rows) + 1)
        self._threads = min(_THREADS, card.threads)
        self._warps = self._threads // 32
        self._shared = 16 * definition.fft + warp * self._warps + 4 * len(extract.window)
        # Compiled here once, and not by each of the threads that read.
        kernels(card, _FILE).load(("log_mel_spectra", "finish_features", "put_together"))
        cupy.cuda.get_current_stream().synchronize()  # other streams read the tables

    def frames(self, samples: int) -> int:
        """The number of feature frames of so many samples."""
        return self._extract.frames(samples)

    def __call__(self, recordings: Sequence[np.ndarray]) -> tuple[Array, np.ndarray]:
        """Features of a batch, as `FeatureExtractor` returns them, but with the features on the card.

        They are computed on CuPy's current stream, and complete when this returns.
        """
        cupy = import_cupy()
        lengths, width = self._extract.shape_of(recordings)
        features = cupy.empty((len(recordings), self._extract.mel_bins, width), np.float32)
        if not features.size:
            return features, lengths
        counts = np.array([len(samples) for samples in recordings], np.int64)
        begins = np.cumsum(counts) - counts
        samples = cupy.empty(max(int(counts.sum()), 1), np.float32)
        size = min(4 * int(counts.sum()), _UPLOADED)
        with (
            transfers(self._card).taken(max(size, 1)) as upload,
            transfers(self._card).taken(_PARAMETERS + RECORDING.itemsize * len(recordings)) as transfer,
        ):
            upload.upload(np.concatenate([one.astype(np.float32, copy=False) for one in recordings]), address(samples))
            job, job_at = transfer.copy(self._job)
            table, job["list"] = transfer.room(RECORDING, len(recordings))
            table["samples"] = address(samples) + 4 * begins
            table["features"] = address(features) + 4 * self._extract.mel_bins * width * np.arange(len(recordings))
            table["count"], table["frames"], table["first"] = counts, lengths, np.cumsum(lengths) - lengths
            job["recordings"], job["frames"], job["width"] = len(recordings), lengths.sum(), width
            transfer.send()
            self._launch("log_mel_spectra", -(-int(lengths.sum()) // self._warps), job_at, self._shared)
            self._launch("finish_features", len(recordings) * self._extract.mel_bins, job_at, 8 * self._warps)
        return features, lengths

    def _launch(self, name: str, tasks: int, job: int, shared: int) -> None:
        blocks = max(1, min(tasks, _BLOCKS * self._card.multiprocessors))
        kernels(self._card, _FILE).launch(name, blocks, self._threads, (np.uint64(job),), shared)


def together(parts: Sequence[Array], width: int) -> Array:
    """Features of recordings as one batch, where they lie.

    Parameters
    ----------
    parts:
        float32 [mel, n] each, all in main memory or all on the current card.
    width:
        Frames of the batch. What is longer is cut.

    Returns
    -------
    float32 [B, mel, width], zero past each recording's end. On a card it is computed on CuPy's current stream.
    """
    mel_bins = len(parts[0])
    if isinstance(parts[0], np.ndarray):
        batch = np.zeros((len(parts), mel_bins, width), np.float32)
        for row, part in zip(batch, parts, strict=True):
            row[:, : part.shape[1]] = part[:, :width]
        return batch
    cupy = import_cupy()
    batch = cupy.empty((len(parts), mel_bins, width), np.float32)
    table = np.zeros(len(parts), PART)
    table["data"] = [address(part) for part in parts]
    table["row"] = [part.strides[0] // 4 for part in parts]
    table["frames"] = [min(part.shape[1], width) for part in parts]
    card, rows = current_device(), len(parts) * mel_bins
    arguments = cupy.asarray(table.view(np.uint8)), *map(np.int32, (len(parts), mel_bins, width)), batch
    blocks = min(rows, _BLOCKS * card.multiprocessors)
    kernels(card, _FILE).launch("put_together", blocks, min(_THREADS, card.threads), arguments)
    return batch


def _filter(weights: np.ndarray) -> tuple[int, np.ndarray]:
    """The first frequency of a mel filter that has a weight, and the weights from there to the last one."""
    used = np.flatnonzero(weights)
    return (int(used[0]), weights[used[0] : used[-1] + 1]) if len(used) else (0, weights[:0])
