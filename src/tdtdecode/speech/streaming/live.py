"""One live recording: what a stream holds, and what it tells."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, replace

import numpy as np

from ...arguments import as_instance, refusal
from ...bundle import Bundle
from ...confidence import Confidence
from ...decoder import DecoderState
from ...errors import InputError
from ...hypothesis import Hypothesis, SpeechSegment, Transcript, Word, joined
from ...search import Beam, Greedy, runs_in_the_beam_engine
from ..audio.extractors import Extractor
from ..audio.features import HOP, SAMPLE_RATE
from ..audio.reading import Assembly
from ..audio.sources import is_file
from ..transcripts import transcript
from ..vad import SileroVad
from ..vad.silero import as_segment
from ..vad.skipping import later, of_utterances
from ..windows import joined_stream
from .utterances import Step, Utterances
from .walks import Encoded, Heard, Walk
from .wording import Wording


@dataclass(frozen=True)
class News:
    """What a stream has learnt since the last time it was fed.

    Attributes
    ----------
    words:
        The words that are settled now: they never change. Their times count from the beginning of the stream.
    tentative:
        The text after them, which may still change.
    ended:
        Whether an utterance has ended among this.
    segments:
        The segments of speech that ended the utterances, if a VAD listens.
    speaking:
        Whether someone speaks, as the VAD hears it at the end of what was fed; None without a VAD.
    language:
        The last language that the model named, such as "en-US"; None if it named none.
    heard:
        Seconds of audio that the stream has been fed.
    decoded:
        Seconds of audio that have been decoded. The rest waits for the audio that the encoder must hear after it.
    """

    words: tuple[Word, ...]
    tentative: str
    ended: bool
    segments: tuple[SpeechSegment, ...]
    speaking: bool | None
    language: str | None
    heard: float
    decoded: float


class Live:
    """What a stream holds.

    Parameters
    ----------
    name:
        Of the stream.
    language:
        For models that are told one, such as ``"en-US"``.
    pause:
        An utterance ends after so many encoder frames without a token.

    Raises
    ------
    InputError
        If the model does not have the language.
    """

    def __init__(
        self,
        name: Hashable,
        language: str | None,
        search: Greedy | Beam,
        pause: float,
        bundle: Bundle,
        walk: Walk,
        extract: Extractor,
        vad: SileroVad | None,
    ):
        if language is not None:
            as_instance("language", language, str, "a language such as 'en-US', or None")
        self.name = name
        self.search, self.pause = search, pause
        self.position = walk.begin(language)
        self.error: Exception | None = None
        self.ended = False
        self.heard = Heard(extract.mel_bins, bool(extract.normalize))
        self.wording = Wording(bundle, search.confidence or Confidence())
        self.state: DecoderState | None = None
        self.parts: list[list[Hypothesis]] = [[]]  # of each utterance; without a VAD all is decoded as one
        self._begin = 0  # the frame with which the last utterance begins
        self._steps: list[Step] | None = None
        self.ahead: Hypothesis | None = None
        self.news: list[Word] = []
        self.utterance_ended = False
        self.voice = None if vad is None else vad.stream()
        samples = round(bundle.frame_seconds * SAMPLE_RATE)
        self.utterances = None
        if self.voice is not None:
            self.utterances, self.parts = Utterances(self.voice, samples), []
        self.segments: list[SpeechSegment] = []
        self.segments_told = 0
        # Samples are mixed and resampled, and become features. Features may be fed instead.
        self.audio: Assembly | None = None
        self.features = extract.stream()
        self._frame_seconds = bundle.frame_seconds

    @property
    def seconds(self) -> float:
        """Seconds of audio that have come."""
        return self.heard.frames * HOP / SAMPLE_RATE if self.audio is None else self.audio.seconds

    def add_samples(self, samples: object, rate: object) -> None:
        if is_file(samples) or isinstance(samples, tuple):
            raise refusal("samples", "an array, [n] or [n, channels]", samples, "Recognizer.recognize reads files")
        if self.audio is None:
            if self.heard.frames:
                raise InputError("the stream has been fed features: go on with feed_features")
            audio = Assembly("audio", SAMPLE_RATE, live=True)
            audio.add_array((samples, rate))
            self.audio = audio
        else:
            self.audio.add_array((samples, rate))
        self._hear(self.audio.taken())

    def _hear(self, samples: np.ndarray) -> None:
        self.heard.add(self.features.add(samples))
        if self.voice is not None:
            self.voice.add(samples)

    def add_features(self, features: np.ndarray) -> None:
        if self.audio is not None:
            raise InputError("the stream has been fed samples: go on with feed")
        if self.voice is not None:
            raise InputError("a VAD hears samples: feed samples, or begin the stream without a VAD")
        self.heard.add(features)

    def end(self) -> None:
        """No more will come."""
        if not self.ended:
            self.ended = True
            if self.audio is not None:
                self._hear(self.audio.samples())
                self.heard.add(self.features.end())
                self.audio.warn([])
            if self.voice is not None:
                self.voice.end()

    @property
    def frame(self) -> int:
        """The encoder frames before this one are decoded, or are not speech."""
        return self.position.frame if self.utterances is None else self.utterances.frame

    def steps(self, encoded: Encoded) -> list[Step]:
        """What to decode of a window, and how; the same until `take` goes on to the next one."""
        if self._steps is None:
            done = encoded.position.done
            if self.utterances is None:
                self._steps = [Step(encoded.frames, final=done)]
            else:
                heard = None if done else encoded.heard * HOP
                self._steps = self.utterances.add(encoded.frames, self.position.frame, heard)
        return self._steps

    def ahead_of(self, encoded: Encoded) -> list[Step]:
        """What to decode for the text that may change. A beam's best hypothesis needs no more frames."""
        if encoded.position.done:
            return []
        frames, beam = encoded.ahead, runs_in_the_beam_engine(self.search)
        if self.utterances is not None:
            return self.utterances.ahead(frames, beam)
        return [Step(frames, final=True)] if frames.shape[1] or beam else []

    def pass_over(self, window: Encoded) -> bool:
        """Go on to the next window without encoding this one, if the VAD hears no speech in it. Returns whether."""
        if self.utterances is None or not self.utterances.pass_over(window.position.frame, window.heard * HOP):
            return False
        self.position = window.position
        self.heard.count(window.heard)
        self.heard.drop(window.needed)
        return True

    def take(
        self, encoded: Encoded, parts: list[Hypothesis], state: DecoderState | None, ahead: list[Hypothesis]
    ) -> None:
        """Go on to the next window, with what was decoded of this one in `steps`, and in `ahead_of`."""
        steps, self._steps = self.steps(encoded), None
        self.position, self.state = encoded.position, state
        self.heard.drop(encoded.needed)
        for step, part in zip(steps, parts, strict=True):
            if step.begin is not None:
                self._begin = step.begin
                self.parts.append([])
            part = later(part, self._begin)
            self.parts[-1].append(part)
            if self.wording.add(part) or step.final:
                self._settle(True)
            if step.found is not None:
                self.segments.append(as_segment(step.found))
        begin = 0 if self.utterances is None else self.utterances.begin
        self.ahead = later(joined(ahead), begin) if ahead else None
        # The hypotheses of a beam may still disagree on tokens that were decoded. Then no pause is certain.
        certain = self.ahead is None or not (self.ahead.frames < self.frame).any()
        self._settle(certain and self.wording.pause(self.frame) >= self.pause)

    def _settle(self, ended: bool) -> None:
        """Settle words; all of them, if an utterance has ended."""
        # Only the end of the recording bounds words: how much has come depends on how it is cut into pieces.
        end = self.seconds if self.position.done else math.inf
        self.utterance_ended |= ended
        self.news += self.wording.settle(ended, end)

    def transcript(self, bundle: Bundle) -> Transcript:
        """The transcript of a stream of which all is decoded."""
        wholes = [joined_stream(parts, self.search) for parts in self.parts]
        if self.utterances is not None:
            made = of_utterances(wholes, bundle, self.seconds, self.search)
            return replace(made, words=self.wording.words, segments=self.segments)
        made = transcript(bundle, wholes[0], self.seconds, self.search.confidence or Confidence())
        return replace(made, words=self.wording.words)

    def told(self) -> News:
        """The news since the last time."""
        words, self.news = tuple(self.news), []
        ended, self.utterance_ended = self.utterance_ended, False
        segments, self.segments_told = tuple(self.segments[self.segments_told :]), len(self.segments)
        speaking = None if self.voice is None else self.voice.speaking
        decoded = min(self.frame * self._frame_seconds, self.seconds)
        tentative = self.wording.tentative(self.ahead)
        return News(words, tentative, ended, segments, speaking, self.wording.language, self.seconds, decoded)
