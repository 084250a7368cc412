"""What decoding returns: hypotheses (tokens), words and transcripts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from .reprs import counted, excerpt, one_line


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """One decoded token sequence.

    Attributes
    ----------
    tokens:
        int32 [n], ids in the model's own vocabulary.
    frames:
        int32 [n], the encoder frame at which each token starts, counted from the start of the stream.
    durations:
        int32 [n], the predicted duration of each token in frames. It may reach past the end of the utterance. 0 for
        RNN-T.
    token_logprobs, duration_logprobs:
        float32 [n], natural logarithms. The first come from a log-softmax over the V + 1 token entries of the joint
        row, the second from one over its D duration entries; they are 0 for RNN-T.
    score:
        Greedy search: the sum of both log-probs over the emitted tokens. Beam search: the objective of its strategy
        (see `Beam`) over the whole stream, which includes blanks and fusion.
    token_confidence:
        float32 [n], from 0 to 1, by the measure that the search was given (`Confidence`); None without one.
    alternatives:
        The next best hypotheses of a beam search, best first.
    """

    tokens: np.ndarray
    frames: np.ndarray
    durations: np.ndarray
    token_logprobs: np.ndarray
    duration_logprobs: np.ndarray
    score: float
    token_confidence: np.ndarray | None = None
    alternatives: tuple[Hypothesis, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        frames = f"frames {self.frames[0]} to {self.frames[-1]}" if len(self) else ""
        others = counted(len(self.alternatives), "alternative") if self.alternatives else ""
        return one_line(self, counted(len(self), "token"), frames, f"score {self.score:.2f}", others)

    def select(self, index: np.ndarray | slice) -> Hypothesis:
        """The tokens at ``index`` alone, with this hypothesis's score and without alternatives."""
        confidence = None if self.token_confidence is None else self.token_confidence[index]
        return Hypothesis(
            self.tokens[index], self.frames[index], self.durations[index], self.token_logprobs[index],
            self.duration_logprobs[index], self.score, confidence,
        )  # fmt: skip

    @property
    def nbest(self) -> list[Hypothesis]:
        """All hypotheses kept, best first. Greedy search keeps one."""
        return [self, *self.alternatives]


def joined(parts: Sequence[Hypothesis]) -> Hypothesis:
    """Join the hypotheses of a stream's chunks, in order, into one hypothesis with its alternatives.

    The score is that of the last part. A beam search's score covers the whole stream; a greedy search's covers only the
    tokens of its own chunk.
    """
    *before, end = parts

    def with_beginning(last: Hypothesis) -> Hypothesis:
        every = [*before, last]

        def column(name: str) -> np.ndarray:
            return np.concatenate([getattr(part, name) for part in every])

        confidence = None if last.token_confidence is None else column("token_confidence")
        return Hypothesis(
            column("tokens"), column("frames"), column("durations"), column("token_logprobs"),
            column("duration_logprobs"), last.score, confidence, tuple(map(with_beginning, last.alternatives)),
        )  # fmt: skip

    return with_beginning(end)


@dataclass(frozen=True)
class Word:
    """A word, with its start and end in seconds and its confidence from 0 to 1.

    The confidence is made of the tokens' confidences if the search computed them (`Confidence`). Otherwise it is the
    least probability among the word's tokens.

    Attributes
    ----------
    space_before:
        Whether a space stands before the word in the text. Between the words of Japanese, for example, there is none.
    """

    text: str
    start: float
    end: float
    confidence: float
    space_before: bool = True


@dataclass(frozen=True)
class SpeechSegment:
    """Where someone speaks: start and end in seconds."""

    start: float
    end: float


_MAKERS = "_makers"


@dataclass(frozen=True, eq=False)
class Transcript:
    """What was said in one recording.

    Attributes
    ----------
    text:
        The whole text.
    words:
        Its words in order.
    duration:
        Length of the recording in seconds.
    hypothesis:
        The decoded tokens behind the text.
    alternatives:
        The transcripts of a beam search's next best hypotheses, best first.
    segments:
        Where a VAD heard someone speak, in order; None if none listened.
    language:
        The last language that the model named, such as "en-US"; None if it named none.
    """

    text: str
    words: list[Word] = field(default_factory=list)
    duration: float = 0.0
    hypothesis: Hypothesis | None = None
    alternatives: list[Transcript] = field(default_factory=list)
    segments: list[SpeechSegment] | None = None
    language: str | None = None

    @staticmethod
    def lazy(
        text: str,
        duration: float,
        hypothesis: Hypothesis,
        language: str | None,
        *,
        words: Callable[[], list[Word]],
        alternatives: Callable[[], list[Transcript]],
    ) -> Transcript:
        """A transcript whose words and alternatives are made when they are looked at first."""
        made = Transcript.__new__(Transcript)
        vars(made).update(text=text, duration=duration, hypothesis=hypothesis, language=language)
        vars(made)[_MAKERS] = {"words": words, "alternatives": alternatives}
        return made

    if not TYPE_CHECKING:  # else every attribute would exist to type checkers

        def __getattr__(self, name: str) -> Any:
            """Make the words or the alternatives; called where they are not there yet."""
            make = vars(self).get(_MAKERS, {}).get(name)
            if make is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
            return vars(self).setdefault(name, make())  # of two threads that come at once, both get the first one's

    def __getstate__(self) -> dict[str, Any]:
        """All that there is to see. What makes it refers to the model, which stays here."""
        return {option.name: getattr(self, option.name) for option in fields(self)}

    def __repr__(self) -> str:
        others = counted(len(self.alternatives), "alternative") if self.alternatives else ""
        words = counted(len(self.words), "word")
        return one_line(self, excerpt(self.text), words, f"{self.duration:.2f} s of audio", others)
