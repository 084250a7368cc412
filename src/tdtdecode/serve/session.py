"""What a live session is set to, as the Realtime protocol writes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..search import Beam, Greedy
from .job import Wish
from .refusals import wrong
from .state import ServerState
from .transcriptions import wish_of

PCM, MULAW, ALAW = "audio/pcm", "audio/pcmu", "audio/pcma"
_RATES = (8_000, 192_000)
_TELEPHONE = 8_000
TENTATIVE = "item.input_audio_transcription.tentative"
"""Asks for the text that may still change, in events of its own. Not OpenAI's."""
WORDS = "item.input_audio_transcription.words"
"""Asks for the words with their times and confidence, beside the text of deltas. Not OpenAI's."""
_INCLUDES = (TENTATIVE, WORDS)


@dataclass(frozen=True)
class SessionSettings:
    """The settings of a session. A value.

    Attributes
    ----------
    format, rate:
        Of the audio that comes.
    pause:
        Seconds without a word after which an item is committed; ``inf``: the client commits; None: as the server does.
    language, prompt, keywords:
        As the client wrote them.
    wish, search:
        What they mean.
    include:
        What events also tell.
    """

    model: str
    search: Greedy | Beam
    format: str = PCM
    rate: int = 24_000
    pause: float | None = None
    language: str | None = None
    prompt: str = ""
    keywords: tuple[str, ...] = ()
    wish: Wish = Wish()
    include: tuple[str, ...] = ()

    @property
    def commits(self) -> bool:
        """Whether the server commits items."""
        return self.pause is None or not math.isinf(self.pause)

    def document(self, id: str) -> dict[str, Any]:
        """The settings as the protocol writes them."""
        form: dict[str, Any] = {"type": self.format}
        if self.format == PCM:
            form["rate"] = self.rate
        detection: dict[str, Any] | None = None
        if self.commits:
            detection = {"type": "server_vad"}
            if self.pause is not None:
                detection["silence_duration_ms"] = round(self.pause * 1000)
        transcription: dict[str, Any] = {"model": self.model, "language": self.language, "prompt": self.prompt}
        if self.keywords:
            transcription["keywords"] = list(self.keywords)
        audio = {"format": form, "transcription": transcription, "turn_detection": detection, "noise_reduction": None}
        return {
            "type": "transcription", "object": "realtime.transcription_session", "id": id, "audio": {"input": audio},
            "include": list(self.include),
        }  # fmt: skip


def updated(settings: SessionSettings, session: Any, state: ServerState) -> SessionSettings:
    """The settings after a ``session.update``. What it does not name stays.

    Raises
    ------
    Refusal
        If something in it is wrong, or not offered.
    """
    session = _object("session", session)
    if session.get("type", "transcription") != "transcription":
        raise wrong("session.type", "must be 'transcription': this server does not speak")
    given = _object("session.audio.input", _object("session.audio", session.get("audio", {})).get("input", {}))
    changes: dict[str, Any] = {}
    if "format" in given:
        changes |= _format(given["format"])
    if "turn_detection" in given:
        changes["pause"] = _pause(given["turn_detection"])
    if given.get("noise_reduction") is not None:
        raise wrong("session.audio.input.noise_reduction", "is not offered here")
    if "include" in session:
        changes["include"] = _included(session["include"])
    if given.get("transcription") is not None:
        changes |= _transcription(_object("session.audio.input.transcription", given["transcription"]), settings, state)
    return replace(settings, **changes)


def _transcription(given: Mapping[str, Any], settings: SessionSettings, state: ServerState) -> dict[str, Any]:
    place = "session.audio.input.transcription"
    for name in given:
        if name not in ("model", "language", "prompt", "keywords"):
            raise wrong(f"{place}.{name}", "is not offered here", "unknown_parameter")
    model = state.check_model(given.get("model") or settings.model)
    language = given.get("language", settings.language) or None
    prompt, keywords = given.get("prompt", settings.prompt) or "", given.get("keywords", settings.keywords) or ()
    if not isinstance(prompt, str) or not all(isinstance(one, str) for one in keywords):
        raise wrong(place, "prompt must be text, and keywords a list of texts")
    if language is not None and not isinstance(language, str):
        raise wrong(f"{place}.language", "must be text")
    language, wish = wish_of(state.model, language, prompt, list(keywords))
    try:
        search = state.live.search(wish.phrases)
    except InputError as error:
        raise wrong(f"{place}.prompt", str(error)) from error
    return {"model": model, "language": language, "prompt": prompt, "keywords": tuple(keywords), "wish": wish,
            "search": search}  # fmt: skip


def _format(given: Any) -> dict[str, Any]:
    place = "session.audio.input.format"
    form = _object(place, given)
    kind = form.get("type", PCM)
    if kind not in (PCM, MULAW, ALAW):
        raise wrong(f"{place}.type", f"must be {PCM}, {MULAW} or {ALAW}, got {kind!r}")
    rate = form.get("rate", 24_000 if kind == PCM else _TELEPHONE)
    least, most = _RATES
    if not isinstance(rate, int) or isinstance(rate, bool) or not least <= rate <= most:
        raise wrong(f"{place}.rate", f"must be a number of Hz from {least} to {most}, got {rate!r}")
    if kind != PCM and rate != _TELEPHONE:
        raise wrong(f"{place}.rate", f"G.711 has {_TELEPHONE} Hz, got {rate}")
    return {"format": kind, "rate": rate}


def _pause(given: Any) -> float | None:
    """What ends an item: the pause. Silero's threshold and padding, which clients may name, are the server's own."""
    place = "session.audio.input.turn_detection"
    if given is None:
        return math.inf
    detection = _object(place, given)
    if detection.get("type", "server_vad") != "server_vad":
        raise wrong(f"{place}.type", f"must be 'server_vad', got {detection['type']!r}")
    pause = detection.get("silence_duration_ms")
    if pause is None:
        return None
    if not isinstance(pause, (int, float)) or isinstance(pause, bool) or not 1 <= pause <= 60_000:
        raise wrong(f"{place}.silence_duration_ms", f"must be a number from 1 to 60000, got {pause!r}")
    return pause / 1000


def _included(given: Any) -> tuple[str, ...]:
    for one in given if isinstance(given, list) else [given]:
        if given is not None and one not in _INCLUDES:
            raise wrong("session.include", f"{one!r} is not offered here, but {' and '.join(_INCLUDES)}")
    return tuple(given or ())


def _object(place: str, given: Any) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise wrong(place, "must be an object")
    return given


def decoded(data: bytes, format: str) -> np.ndarray:
    """The samples of audio as it comes, int16 [n].

    Raises
    ------
    Refusal
        If it ends within a sample.
    """
    if format == PCM:
        if len(data) % 2:
            raise wrong("audio", "ends within a sample: PCM has 16 bits")
        return np.frombuffer(data, "<i2").astype(np.int16)
    return (_MULAW if format == MULAW else _ALAW)[np.frombuffer(data, np.uint8)]


def _mulaw() -> np.ndarray:
    """The 16-bit samples of G.711's mu-law codes, by ITU-T G.711, table 2."""
    codes = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (codes >> 4 & 7).astype(np.int32), (codes & 15).astype(np.int32)
    magnitude = ((mantissa << 3) + 132 << exponent) - 132
    return np.where(codes & 128, -magnitude, magnitude).astype(np.int16)


def _alaw() -> np.ndarray:
    """The 16-bit samples of G.711's A-law codes, by ITU-T G.711, table 1."""
    codes = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = (codes >> 4 & 7).astype(np.int32), (codes & 15).astype(np.int32)
    magnitude = np.where(exponent, (mantissa << 4) + 264 << np.maximum(exponent - 1, 0), (mantissa << 4) + 8)
    return np.where(codes & 128, magnitude, -magnitude).astype(np.int16)


_MULAW, _ALAW = _mulaw(), _alaw()
