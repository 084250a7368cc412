"""OpenAI's Realtime protocol for transcription, over WebSocket: audio is appended, and text comes as it is settled."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from ..hypothesis import Transcript, Word
from ..speech.streaming import News
from .answers import spoken, usage
from .front import refused
from .live import LiveStream
from .record import Record
from .refusals import Refusal, refusal_of, wrong
from .session import TENTATIVE, WORDS, SessionSettings, decoded, updated
from .state import ServerState

_TRANSCRIPTION = "conversation.item.input_audio_transcription"
_MOST_PENDING = 30.0
"""Seconds of audio that may wait to be worked off. Then nothing more is received until there are fewer."""
_SEND_SECONDS = 30.0
"""So long a client may take to receive an event."""
_GOING_AWAY, _TOO_LONG = 1001, 1008


async def realtime(websocket: WebSocket) -> None:
    """A live session."""
    state: ServerState = websocket.app.state.server
    record: Record = websocket.scope["record"]
    record.endpoint = "realtime"
    try:
        state.check_open()
        name = state.check_model(websocket.query_params.get("model", state.names[0]))
        leave = state.sessions.enter()
    except Refusal as refusal:
        await refused(refusal, websocket.scope, websocket.receive, websocket.send)
        return
    try:
        offered = websocket.scope.get("subprotocols", [])
        await websocket.accept("realtime" if "realtime" in offered else None)
        session = Session(websocket, state, name)
        state.open_sessions.add(session)
        try:
            await session.run()
        finally:
            state.open_sessions.discard(session)
            record.details |= {"model": name, "audio_seconds": round(session.seconds, 3), "items": session.items}
    finally:
        leave()


@dataclass(eq=False)
class _Item:
    """What is said between two commits: its name, that of the item before it, and what of it was told."""

    before: str | None
    id: str = field(default_factory=lambda: f"item_{secrets.token_hex(8)}")
    text: str = ""
    end: float | None = None


@dataclass(eq=False)
class _Course:
    """A stream, from the first audio after a commit of the client's until its next one.

    Attributes
    ----------
    begin:
        Where the stream begins in the session's audio, in seconds.
    item:
        What is said now.
    words:
        How many words of the stream were told.
    cut:
        The second of the stream at which the item begins; 0 unless the server has committed items before.
    committed:
        Whether the client has committed it.
    """

    begin: float
    item: _Item
    words: int = 0
    cut: float = 0.0
    committed: bool = False


class Session:
    """A session from its beginning to its end.

    Attributes
    ----------
    seconds:
        How much audio came.
    items:
        How many items were committed.
    """

    def __init__(self, websocket: WebSocket, state: ServerState, model: str):
        self._websocket, self._state = websocket, state
        self._id = f"sess_{secrets.token_hex(8)}"
        self._settings = SessionSettings(model, state.model.decoder.search)
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[tuple[LiveStream, Any]] = asyncio.Queue()
        self._stream: LiveStream | None = None
        self._courses: dict[LiveStream, _Course] = {}  # of the streams whose news are still to come
        self._last: str | None = None  # the item that was begun last
        self._tentative = ""
        self._sending = asyncio.Lock()
        self._ended = asyncio.Event()
        self.seconds, self.items = 0.0, 0

    async def run(self) -> None:
        """Answer the client until it goes, or the server ends."""
        await self._send("session.created", session=self._settings.document(self._id))
        tasks = [asyncio.ensure_future(work) for work in (self._listen(), self._tell(), self._ended.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[2].done():
                tasks[0].cancel()
                await self._finish()
            for task in tasks:
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error
        except (WebSocketDisconnect, RuntimeError, TimeoutError):  # RuntimeError: it was closed while we sent
            pass
        finally:
            for task in tasks:
                task.cancel()
            for stream in self._courses:
                stream.drop()

    def end(self) -> None:
        """Commit what there is, tell what is found in it, and close the connection."""
        self._ended.set()

    async def _finish(self) -> None:
        with contextlib.suppress(Refusal):
            await self._commit()
        while self._courses:
            await asyncio.sleep(0.01)
        await self._websocket.close(_GOING_AWAY)

    async def _listen(self) -> None:
        """Take the client's events."""
        while True:
            text = await self._websocket.receive_text()
            id = None
            try:
                event = _parsed(text)
                id = event.get("event_id")
                await self._take(event)
            except Refusal as refusal:
                await self._send("error", error={**refusal.error, "event_id": id})
                if refusal.code == "session_too_long":
                    await self._websocket.close(_TOO_LONG)
                    return

    async def _take(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "input_audio_buffer.append":
            await self._append(event.get("audio"))
        elif kind == "input_audio_buffer.commit":
            await self._commit()
        elif kind == "input_audio_buffer.clear":
            if self._stream is not None:
                self._stream.drop()
                del self._courses[self._stream]
                self._stream = None
            await self._send("input_audio_buffer.cleared")
        elif kind == "session.update":
            if self._stream is not None:
                raise wrong("session", "there is audio in the buffer: commit or clear it first", "buffer_not_empty")
            self._settings = await asyncio.to_thread(updated, self._settings, event.get("session"), self._state)
            await self._send("session.updated", session=self._settings.document(self._id))
        else:
            raise wrong("type", f"the event {kind!r} is not offered here", "unknown_event")

    async def _append(self, audio: Any) -> None:
        if not isinstance(audio, str):
            raise wrong("audio", "must be base64")
        try:
            data = base64.b64decode(audio, validate=True)
        except (binascii.Error, ValueError) as error:
            raise wrong("audio", f"is no base64 ({error})") from error
        samples, rate = decoded(data, self._settings.format), self._settings.rate
        most = self._state.settings.max_seconds
        if self.seconds + len(samples) / rate > most:
            raise Refusal(400, f"a session has {most:g} s of audio at most", code="session_too_long", param="audio")
        if self._stream is None:
            self._begin()
        assert self._stream is not None
        self.seconds += len(samples) / rate
        self._stream.push(samples, rate)
        while self._stream is not None and self._stream.pending > _MOST_PENDING:
            await asyncio.sleep(0.02)

    def _begin(self) -> None:
        """Begin a stream, with its first item."""
        settings = self._settings

        def told(news: News | Exception) -> None:
            self._loop.call_soon_threadsafe(self._told.put_nowait, (stream, news))

        stream = self._state.live.open(told, settings.wish, settings.search, settings.pause)
        self._stream = stream
        self._courses[stream] = _Course(self.seconds, self._new_item())

    def _new_item(self) -> _Item:
        item = _Item(self._last)
        self._last = item.id
        return item

    async def _commit(self) -> None:
        """Commit what is in the buffer, as the client asks for it."""
        stream, self._stream = self._stream, None
        if stream is None:
            raise wrong(None, "there is no audio in the buffer", "input_audio_buffer_commit_empty")
        course = self._courses[stream]
        course.committed = True
        await self._committed(course.item)
        future = stream.finish()

        def done(_: Any) -> None:
            result = future.exception() or future.result()
            self._loop.call_soon_threadsafe(self._told.put_nowait, (stream, result))

        future.add_done_callback(done)

    async def _tell(self) -> None:
        """Tell the client what is found."""
        while True:
            stream, what = await self._told.get()
            course = self._courses.get(stream)
            if course is None:
                continue  # it was cleared, or has failed
            if isinstance(what, News):
                await self._news(course, what)
                continue
            del self._courses[stream]
            if self._stream is stream:
                self._stream = None
            if isinstance(what, Transcript):
                await self._words(course, what.words[course.words :])
                text = course.item.text if course.cut else what.text
                await self._completed(course.item, text, what.duration - course.cut)
            else:
                stream.drop()
                error = refusal_of(what).error
                await self._send(f"{_TRANSCRIPTION}.failed", item_id=course.item.id, content_index=0, error=error)

    async def _news(self, course: _Course, news: News) -> None:
        await self._words(course, news.words)
        item = course.item
        if TENTATIVE in self._settings.include and news.tentative != self._tentative:
            self._tentative = news.tentative
            await self._send(f"{_TRANSCRIPTION}.tentative", item_id=item.id, content_index=0, text=news.tentative)
        if news.ended and item.end is not None and self._settings.commits and not course.committed:
            end = round((course.begin + item.end) * 1000)
            await self._send("input_audio_buffer.speech_stopped", audio_end_ms=end, item_id=item.id)
            await self._committed(item)
            await self._completed(item, item.text, news.decoded - course.cut)
            course.item, course.cut = self._new_item(), news.decoded

    async def _words(self, course: _Course, words: Sequence[Word]) -> None:
        """Tell the words that are settled now."""
        item = course.item
        course.words += len(words)
        if not words:
            return
        if item.end is None and self._settings.commits:
            start = round((course.begin + words[0].start) * 1000)
            await self._send("input_audio_buffer.speech_started", audio_start_ms=start, item_id=item.id)
        delta = "".join(" " * word.space_before + word.text for word in words)
        delta = delta if item.text else delta.lstrip(" ")
        item.text += delta
        item.end = words[-1].end
        more: dict[str, Any] = {}
        if WORDS in self._settings.include:
            moved = [replace(word, start=word.start + course.begin, end=word.end + course.begin) for word in words]
            more["words"] = [spoken(word) for word in moved]
        await self._send(f"{_TRANSCRIPTION}.delta", item_id=item.id, content_index=0, delta=delta, **more)

    async def _committed(self, item: _Item) -> None:
        self.items += 1
        await self._send("input_audio_buffer.committed", item_id=item.id, previous_item_id=item.before)
        content = [{"type": "input_audio", "transcript": None}]
        message = {"id": item.id, "object": "realtime.item", "type": "message", "role": "user", "status": "completed",
                   "content": content}  # fmt: skip
        await self._send("conversation.item.added", previous_item_id=item.before, item=message)

    async def _completed(self, item: _Item, text: str, seconds: float) -> None:
        await self._send(
            f"{_TRANSCRIPTION}.completed", item_id=item.id, content_index=0, transcript=text, usage=usage(seconds)
        )

    async def _send(self, kind: str, **content: Any) -> None:
        event = {"type": kind, "event_id": f"event_{secrets.token_hex(8)}", **content}
        async with self._sending, asyncio.timeout(_SEND_SECONDS):
            await self._websocket.send_text(json.dumps(event, ensure_ascii=False))


def _parsed(text: str) -> dict[str, Any]:
    try:
        event = json.loads(text)
    except ValueError as error:
        raise wrong(None, f"the event is no JSON ({error})", "invalid_json") from error
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise wrong("type", "the event must be an object with a 'type'", "missing_required_parameter")
    return event
