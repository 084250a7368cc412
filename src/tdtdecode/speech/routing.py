"""A model on two devices: each call goes to the device that is faster for it."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any

import numpy as np

from ..errors import TdtDecodeError
from ..reprs import one_line
from .audio import audio_seconds, held
from .audio.features import SAMPLE_RATE
from .recognizer import Recognizer

_TRIAL_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_TRIALS = 3

_log = logging.getLogger(__name__)


class RoutedRecognizer(Recognizer):
    """A model on the CPU and on a GPU. Each call goes to the device that is faster for that much audio.

    `recognize_each`, for as many recordings as come, always goes to the GPU.

    Parameters
    ----------
    cpu, cuda:
        The same model on each device.
    crossover:
        Up to this many seconds of audio the CPU is used; None: measured now, and logged.

    Attributes
    ----------
    crossover:
        Up to this many seconds of audio the CPU is faster; 0 if the GPU always is.
    """

    def __init__(self, cpu: Recognizer, cuda: Recognizer, crossover: float | None = None):
        super().__init__(cuda.bundle, cuda.encoder, cuda.decoder)
        self.cpu, self.cuda = cpu, cuda
        self.crossover = measured_crossover(cpu, cuda) if crossover is None else crossover
        _log.info("devices: cpu for up to %g s of audio, cuda beyond", self.crossover)

    def __repr__(self) -> str:
        return one_line(
            self, str(self.bundle.directory), f"on the cpu for up to {self.crossover:g} s of audio, on cuda beyond"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.cpu, self.cuda, self.crossover)

    def recognize(self, audio: Any, *arguments: Any, **options: Any) -> Any:
        """As `Recognizer.recognize`; on the CPU if all recordings together are no longer than the crossover."""
        recordings = list(audio) if isinstance(audio, list) else [audio]
        seconds = 0.0
        for i, recording in enumerate(recordings):
            with contextlib.suppress(TdtDecodeError):  # `recognize` below raises or returns the error
                recordings[i] = held(recording)
                seconds += audio_seconds(recordings[i])
        chosen = self.cpu if seconds <= self.crossover else self.cuda
        return chosen.recognize(recordings if isinstance(audio, list) else recordings[0], *arguments, **options)


def measured_crossover(cpu: Recognizer, cuda: Recognizer) -> float:
    """Seconds of audio up to which the CPU is faster: the longest trial on noise that it won, or 0."""
    rng = np.random.default_rng(0)
    crossover = 0.0
    for seconds in _TRIAL_SECONDS:
        if cpu.max_seconds is not None and seconds > cpu.max_seconds:
            break
        noise = rng.normal(0, 0.1, int(seconds * SAMPLE_RATE)).astype(np.float32)
        if _median_time(cpu, noise) <= _median_time(cuda, noise):
            crossover = seconds
    return crossover


def _median_time(model: Recognizer, samples: np.ndarray) -> float:
    model.recognize((samples, SAMPLE_RATE))  # the first call compiles, allocates and warms up
    times = []
    for _ in range(_TRIALS):
        begin = time.perf_counter()
        model.recognize((samples, SAMPLE_RATE))
        times.append(time.perf_counter() - begin)
    return sorted(times)[_TRIALS // 2]
