"""When the words of a stream are settled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...bundle import Bundle
from ...confidence import Confidence
from ...hypothesis import Hypothesis, Word, joined
from ...segmentation import DICTIONARY_WORDS, needs_dictionary


class Wording:
    """The words of one stream, of the tokens decoded so far.

    A word is settled when the next one has begun, and at the end of an utterance. In Thai, Lao, Khmer and Burmese it
    takes some more words, as later text may change how the text before it is divided. A settled word never changes:
    what continues it after the end of an utterance is a word of its own.

    Attributes
    ----------
    words:
        The settled words.
    language:
        The last language that the model named, such as "en-US"; None if it named none.
    """

    def __init__(self, bundle: Bundle, confidence: Confidence):
        self.words: list[Word] = []
        self.language: str | None = None
        self._vocabulary, self._frame_seconds, self._confidence = bundle.vocabulary, bundle.frame_seconds, confidence
        self._open: list[Hypothesis] = []
        self._previous_end: float | None = None
        self._last_frame: int | None = None

    def add(self, part: Hypothesis) -> bool:
        """Add decoded tokens. Returns whether the model itself says among them that an utterance ended."""
        if not len(part):
            return False
        events = [self._vocabulary.events.get(token) for token in part.tokens.tolist()]
        self.language = self._vocabulary.language(part.tokens.tolist()) or self.language
        spoken = part.select(np.array([event is None for event in events]))
        if len(spoken):
            self._open.append(spoken)
            self._last_frame = int(spoken.frames[-1]) + max(int(spoken.durations[-1]), 1)
        return any(event is not None and event.startswith("EO") for event in events)

    def settle(self, ended: bool, seconds: float) -> list[Word]:
        """The words that are settled now and were not before.

        Parameters
        ----------
        ended:
            Whether an utterance ended.
        seconds:
            Where the recording ends, if that is known: no word ends later.
        """
        if ended:
            self._last_frame = None
        if not self._open:
            return []
        tokens = joined(self._open)
        found = self._vocabulary.words_and_tokens(tokens, self._frame_seconds, self._confidence, self._previous_end)
        settled = len(found) if ended else len(found) - 1
        while 0 < settled < len(found) and not self._separate(found, settled):
            settled -= 1
        if ended:
            self._open = []
        elif settled > 0:
            self._open = [tokens.select(slice(found[settled][1].start, None))]
        words = [replace(word, end=max(word.start, min(word.end, seconds))) for word, _ in found[: max(settled, 0)]]
        if words:
            self._previous_end = words[-1].end
        self.words += words
        return words

    @staticmethod
    def _separate(found: list[tuple[Word, slice]], i: int) -> bool:
        """Whether the words before index ``i`` stay as they are, whatever follows, and share no token with it."""
        (before, tokens), (word, following) = found[i - 1], found[i]
        open_ended = not word.space_before and needs_dictionary(before.text + word.text)
        return tokens.stop <= following.start and not (open_ended and len(found) - i < DICTIONARY_WORDS)

    def pause(self, frame: int) -> int:
        """Frames from the end of the last token of this utterance to a frame; 0 if it has none yet."""
        return 0 if self._last_frame is None else frame - self._last_frame

    def tentative(self, ahead: Hypothesis | None) -> str:
        """The text that is not settled; ``ahead`` are tokens that are not decoded for good."""
        parts = self._open if ahead is None else [*self._open, ahead]
        tokens = [token for part in parts for token in part.tokens.tolist() if token not in self._vocabulary.events]
        return self._vocabulary.detokenize(tokens)
