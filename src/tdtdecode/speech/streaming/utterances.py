"""Which frames of a live recording are decoded, and as which utterance, if a VAD listens.

Each segment of speech is an utterance of its own, as in `vad.skipping`. It is decoded by itself, from its beginning.
Frames between the segments are not decoded.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

from ..vad.segmenter import WINDOW, Found, Segmenter
from ..vad.silero import SAMPLE_RATE, VoiceStream


@dataclass(frozen=True, eq=False)
class Step:
    """Frames that are decoded together.

    Attributes
    ----------
    frames:
        [E, n].
    begin:
        The frame of the recording with which the utterance begins; None if it began before.
    final:
        Whether the utterance ends with them.
    found:
        The segment of speech that it was, if it ends and a VAD listens.
    """

    frames: Any
    begin: int | None = None
    final: bool = False
    found: Found | None = None


class Utterances:
    """Divides the encoder frames of one recording.

    What is decided about a frame depends on the audio up to the end of the window that it was encoded in, and on
    nothing that came later. So it does not depend on how the audio is cut into pieces.

    Parameters
    ----------
    voice:
        What the VAD hears of the recording.
    frame_samples:
        Samples of an encoder frame.

    Attributes
    ----------
    frame:
        The frames before this one are decoded, or are not speech.
    begin:
        The frame with which the last utterance begins.
    """

    def __init__(self, voice: VoiceStream, frame_samples: int):
        self.voice, self.frame, self.begin = voice, 0, 0
        self._segmenter = Segmenter(voice.rules, SAMPLE_RATE)
        self._frame_samples = frame_samples
        self._windows = 0  # of the VAD that were looked at
        self._there = 0  # the frames before this one have been encoded
        self._inside = False  # of an utterance
        self._fresh = False  # no frame of the utterance has been decoded
        self._ends: deque[Found] = deque()  # certain segments that have not been decoded to their ends
        self._held: list[tuple[int, Any]] = []  # encoded frames from `frame` on, each array with its first frame

    def add(self, frames: Any, first: int, heard: int | None) -> list[Step]:
        """Take the frames of a window.

        Parameters
        ----------
        frames:
            [E, n].
        first:
            The number of the first one.
        heard:
            The samples up to the end of the window; None if the recording has ended and this is its last window.

        Returns
        -------
        What to decode now, in order.
        """
        self._held.append((first, frames))
        self._there = first + frames.shape[1]
        self._listen(heard)
        ended = heard is None
        steps: list[Step] = []
        while self._goes_on(ended):
            found = self._ends[0] if self._ends else None
            stop = self._segmenter.spoken // self._frame_samples if found is None else self._end(found)
            final = found is not None and (stop <= self._there or ended)
            parts = self._take(min(stop, self._there)) or [frames[:, :0]] * final
            for i, part in enumerate(parts):
                last = final and i + 1 == len(parts)
                steps.append(Step(part, self.begin if self._fresh else None, last, found if last else None))
                self._fresh = False
            if not final:
                break
            self._ends.popleft()
            self._inside = False
        return steps

    def pass_over(self, frame: int, heard: int) -> bool:
        """Pass over the frames before one, if the VAD knows by so many samples that there is no speech in them.

        Returns whether it does. If not, they have to be encoded, and go to `add`.
        """
        self._listen(heard)
        silent = not self._inside and self._quiet // self._frame_samples >= frame
        if silent:
            self._there = frame
            self._drop(frame)
        return silent

    @property
    def _quiet(self) -> int:
        """Between the utterances: there is no speech before this sample."""
        begin = self._begins
        return self._segmenter.earliest if begin is None else begin

    @property
    def _begins(self) -> int | None:
        """Between the utterances: the sample with which the next one begins; None if that is not known."""
        return self._ends[0].start if self._ends else self._segmenter.begun

    def _goes_on(self, ended: bool) -> bool:
        """Whether an utterance goes on, or begins in the frames that are there. What comes before it is dropped."""
        if not self._inside:
            begin = self._begins
            nothing_left = ended and begin is None
            self._drop(self._there if nothing_left else min(self._quiet // self._frame_samples, self._there))
            if begin is not None and (self.frame < self._there or ended):
                self._inside = self._fresh = True
                self.begin = self.frame
        return self._inside

    def _end(self, found: Found) -> int:
        """The frame after the last one of a segment."""
        return -(-found.end // self._frame_samples)

    def ahead(self, frames: Any, at_least_one: bool) -> list[Step]:
        """What to decode for the text that may change: frames that are held, and of those after them, as if no silence
        followed. Nothing if no utterance goes on; else one step without frames, if ``at_least_one`` is wanted."""
        if not self._inside:
            return []
        if self._ends:
            frames = frames[:, : max(self._end(self._ends[0]) - self._there, 0)]
        parts = [array[:, max(self.frame - first, 0) :] for first, array in self._held]
        parts = [part for part in [*parts, frames] if part.shape[1]] or [frames[:, :0]] * at_least_one
        fresh = self.begin if self._fresh else None
        return [Step(part, None if i else fresh, i + 1 == len(parts)) for i, part in enumerate(parts)]

    def _listen(self, heard: int | None) -> None:
        """Look at the windows of the VAD up to a sample."""
        count = len(self.voice.probabilities)
        if heard is not None:  # features may end some samples after the recording
            count = min(heard, self.voice.length) // WINDOW - self._windows
        length = self.voice.length if heard is None else math.inf
        for probability in self.voice.probabilities[:count]:
            self._ends += self._segmenter.add(probability, length)
        del self.voice.probabilities[:count]
        self._windows += count
        if heard is None:
            self._ends += self._segmenter.finish(self.voice.length)

    def _drop(self, frame: int) -> None:
        """Forget the frames before one."""
        self.frame = max(self.frame, frame)
        self._held = [one for one in self._held if one[0] + one[1].shape[1] > self.frame]

    def _take(self, stop: int) -> list[Any]:
        """The held frames up to one, which are not held any longer."""
        parts = [array[:, max(self.frame - first, 0) : max(stop - first, 0)] for first, array in self._held]
        self._drop(stop)
        return [part for part in parts if part.shape[1]]
