"""From files to text on a card: `load_model(device="cuda").recognize` on recordings with lengths like LibriSpeech's.

The model has the sizes of parakeet-tdt-0.6b-v3 and random weights, and emits about as many tokens as for speech. It is
made here of `benches.conformer_graph`, without NeMo and without a network.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tdtdecode as tdt
from tdtdecode.benchmark import summary
from tdtdecode.bundle import read_bundle
from tdtdecode.cuda.device import import_cupy
from tdtdecode.speech.encoder import Encoder

from ..conformer_graph import Sizes, write
from ..end_to_end import write_recordings
from ..full_size_model import TOKENS_PER_SECOND, speech_features
from ..random_bundle import random_pieces, write_bundle
from ..random_weights import random_weights
from .record import Record

ONE_AT_A_TIME = "one at a time"
"""A call for each recording, which waits for the one before."""
BATCHES = (ONE_AT_A_TIME, 1, 16, 64, 256)
"""Each number is the most recordings in a batch."""
SECONDS = 500.0
"""Of the recordings that lie on the disk. Larger batches read each of them several times."""
LIMIT = 170.0
"""After so many seconds no further figure is begun: the whole takes less than four minutes."""
ANCHORS = {ONE_AT_A_TIME: 594.0, 256: 12_353.0}
"""Times real time that fast-gpu-asr 0.2.0 states for an H200, by batch: Parakeet v3, a beam of 6, in 16 bits."""
ARITHMETIC: dict[str, dict[str, Any]] = {
    "float16": {"dtype": "float16", "options": {"precision": "float16"}},
    "TF32": {"dtype": "float32", "options": {"precision": "float16", "tf32": True}},
    "float32": {"dtype": "float32", "options": {}},
}
"""What encoder and decoder compute in. Only the last is exact."""


def make_model(folder: Path, dtype: str, sizes: Sizes, vocab_size: int, hidden: int) -> Path:
    """Write a model directory. The decoder is tuned to what comes out of the encoder on the card."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "encoder-model.onnx", sizes, dtype)
    frames = None
    for _ in range(2):  # a bundle needs a decoder before its encoder can be opened
        weights = random_weights(
            vocab_size, (0, 1, 2, 3, 4), sizes.width, hidden, 2, hidden, frames=frames,
            tokens_per_second=None if frames is None else TOKENS_PER_SECOND,
        )  # fmt: skip
        write_bundle(folder, "combined", weights, random_pieces(weights), mel_bins=sizes.mel_bins)
        if frames is None:
            encoder = Encoder(read_bundle(folder), device="cuda")
            encoder_out, counts = encoder(*speech_features(sizes.mel_bins))
            frames = import_cupy().asnumpy(import_cupy().from_dlpack(encoder_out))[0, :, : counts[0]]
    return folder


def measure(
    record: Record,
    folder: Path,
    runs: int,
    sizes: Sizes = Sizes(),
    vocab_size: int = 8192,
    hidden: int = 640,
    batches: Sequence[int | str] = BATCHES,
    seconds: float = SECONDS,
) -> None:
    """Measure every batch size in every arithmetic, the fastest first. Each figure is written at once.

    Parameters
    ----------
    folder:
        For the model, up to 2.5 GB for each type of weights, and the recordings.
    sizes, vocab_size, hidden:
        The sizes of the model; ``hidden`` those of predictor and joint.
    seconds:
        Of the recordings on the disk.
    """
    end = time.monotonic() + LIMIT
    files = write_recordings("librispeech", seconds, folder)
    directories: dict[str, Path] = {}

    def loaded(dtype: str, options: dict[str, Any]) -> tdt.Recognizer:
        if dtype not in directories:
            directories[dtype] = make_model(folder / dtype, dtype, sizes, vocab_size, hidden)
        return tdt.load_model(directories[dtype], device="cuda", **options)

    for name, how in ARITHMETIC.items():
        model = record.tried("files", f"{name}, loading", partial(loaded, **how))
        for batch in batches:
            label = f"{name}, {batch if batch == ONE_AT_A_TIME else f'batch {batch}'}"
            if model is None or time.monotonic() > end:
                print(f"  {label}: left out, since {'there is no model' if model is None else 'the time is over'}")
                continue
            figures = record.measured("files", label, partial(_figures, model, files, batch, runs))
            if figures is not None:
                anchor = f", published: {figures['anchor']:g}" if figures["anchor"] else ""
                print(f"  {label}: {figures['times_real_time']:9.1f} times real time{anchor}", flush=True)


def _figures(model: tdt.Recognizer, files: list[str], batch: int | str, runs: int) -> dict[str, Any]:
    """Seconds, and times real time. The first run is not counted: it compiles and warms up."""
    recordings = files * (1 if isinstance(batch, str) else max(1, 4 * batch // len(files)))
    times = []
    for run in range(runs + 1):
        begin = time.perf_counter()
        if isinstance(batch, str):
            transcripts = [model.recognize(file) for file in recordings]
        else:
            transcripts = model.recognize(recordings, batch_size=batch)
        if run:
            times.append(time.perf_counter() - begin)
    audio = sum(one.duration for one in transcripts)
    figures = summary(times)
    return figures | {
        "recordings": len(recordings), "audio_seconds": audio,
        "tokens_per_second": sum(len(one.hypothesis) for one in transcripts) / audio,
        "times_real_time": audio / figures["median"], "anchor": ANCHORS.get(batch),
    }  # fmt: skip
