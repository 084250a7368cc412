"""``POST /v1/audio/transcriptions``."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from ..confidence import Confidence
from ..errors import InputError, printable
from ..hypothesis import Transcript
from ..speech.audio.sources import Source
from ..speech.recognizer import Recognizer
from ..speech.streaming.cache_aware import CacheAwareEncoder
from .answers import GRANULARITIES, RESPONSES, Asked, Deltas, usage
from .job import Job, Wish
from .record import Record
from .refusals import Refusal, refusal_of, too_slow, wrong
from .state import ServerState

_FIELDS = {
    "file", "model", "language", "prompt", "keywords[]", "keywords", "response_format", "temperature",
    "timestamp_granularities[]", "timestamp_granularities", "stream",
}  # fmt: skip
_MOST_FIELDS = 300
_MOST_FIELD_BYTES = 64 << 10
_MOST_PHRASES = 200
_MOST_PHRASE = 200
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*|[0-9]{1,5}")
_GONE = 499
"""The status that is logged of a client that did not wait for its answer."""


class Gone(Exception):
    """The client has gone."""


@dataclass(frozen=True)
class Options:
    """What a client asks for beside the recording."""

    model: str
    wish: Wish
    said_language: str | None
    format: str
    granularities: tuple[str, ...]
    stream: bool


async def transcribe(request: Request) -> Response:
    """Transcribe an upload. The job closes it; here only one that no job was made of."""
    state: ServerState = request.app.state.server
    record: Record = request.scope["record"]
    record.endpoint = "transcriptions"
    state.check_open()
    leave = state.requests.enter()
    form = FormData()
    try:
        form = await received(request, state.settings.upload_timeout)
        options = options_of(form, state)
        upload = upload_of(form)
        record.details |= {"model": options.model, "format": options.format, "bytes": upload.size or 0}
        texts: asyncio.Queue[str] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        told = (lambda text: loop.call_soon_threadsafe(texts.put_nowait, text)) if options.stream else None
        source = Source(named(upload), upload.file)
        job = state.engine.job(source, upload.size or 0, options.wish, told)
    except BaseException:
        leave()
        await form.close()
        raise
    job.future.add_done_callback(lambda _: leave())
    state.engine.begin(job)
    asked = Asked(
        state.model.bundle, state.model.decoder.search.confidence or Confidence(), options.granularities,
        options.said_language,
    )  # fmt: skip
    if options.stream:
        return await _streamed(request, job, texts, state)
    transcript = await finished(request, job, state.settings.request_timeout)
    noted(state, record, job, transcript)
    render, media_type = RESPONSES[options.format]
    return Response(await asyncio.to_thread(render, transcript, asked), media_type=media_type)


async def received(request: Request, patience: float) -> FormData:
    """The form, once all of it is there."""
    if "multipart/form-data" not in request.headers.get("content-type", ""):
        raise wrong(None, "the body must be multipart/form-data, with the recording as the field 'file'")
    try:
        async with asyncio.timeout(patience):
            return await request.form(max_files=1, max_fields=_MOST_FIELDS, max_part_size=_MOST_FIELD_BYTES)
    except TimeoutError:
        raise too_slow(f"the request did not arrive within {patience:g} s", 408) from None
    except HTTPException as error:  # Starlette's, of a form that cannot be read
        raise wrong(None, f"the form cannot be read: {error.detail}") from error
    except ClientDisconnect:
        raise Gone from None


def options_of(form: FormData, state: ServerState) -> Options:
    """The options of a form, checked."""
    for name in form:
        if name not in _FIELDS:
            raise wrong(name, f"the field {name!r} is not offered here", "unknown_parameter")
    texts = {name: value for name, value in form.items() if isinstance(value, str)}
    model = state.check_model(texts.get("model"))
    chosen = texts.get("response_format", "json")
    if chosen not in RESPONSES:
        raise wrong("response_format", f"must be one of {', '.join(RESPONSES)}, got {chosen!r}")
    granularities = _list(form, "timestamp_granularities")
    for name in granularities:
        if name not in GRANULARITIES:
            raise wrong("timestamp_granularities", f"must be word or segment, got {name!r}")
    if granularities and chosen != "verbose_json":
        raise wrong("timestamp_granularities", "needs response_format=verbose_json")
    _check_temperature(texts.get("temperature", "0"))
    stream = texts.get("stream", "false").lower()
    if stream not in ("true", "false", "1", "0"):
        raise wrong("stream", f"must be true or false, got {stream!r}")
    if stream in ("true", "1") and chosen not in ("json", "text"):
        raise wrong("stream", f"needs response_format=json: events have text, and no {chosen}")
    said, wish = wish_of(
        state.model, texts.get("language") or None, texts.get("prompt", ""), _list(form, "keywords")
    )  # fmt: skip
    return Options(model, wish, said, chosen, tuple(granularities or ["segment"]), stream in ("true", "1"))


def wish_of(model: Recognizer, language: str | None, prompt: str, keywords: list[str]) -> tuple[str | None, Wish]:
    """What the client said is spoken, and what it wishes from the model.

    A model that is told no language hears by itself what is spoken. Then the client's word does not matter.
    """
    if language is not None and not _LANGUAGE.fullmatch(language):
        raise wrong("language", f"must be a language such as 'en' or 'en-US', got {language!r}")
    told = None
    if isinstance(model.encoder, CacheAwareEncoder) and model.encoder.caches.prompt is not None:
        try:
            model.encoder.language(language)
        except InputError as error:
            raise wrong("language", str(error)) from error
        told = language
    return language, Wish(told, phrases_of(prompt, keywords))


def phrases_of(prompt: str, keywords: list[str]) -> tuple[str, ...]:
    """The phrases to expect: the keywords, and the parts of the prompt between commas, semicolons, stops and lines."""
    parts = [*keywords, *re.split(r"[,;\n]|[.?!](?:\s|$)", prompt)]
    phrases = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
    if len(phrases) > _MOST_PHRASES:
        raise wrong("prompt", f"has {len(phrases)} phrases; {_MOST_PHRASES} are the most that are taken here")
    for phrase in phrases:
        if len(phrase) > _MOST_PHRASE:
            raise wrong("prompt", f"has a phrase of {len(phrase)} characters; phrases are words and names")
    return phrases


def upload_of(form: FormData) -> UploadFile:
    """The recording of a form."""
    upload = form.get("file")
    if upload is None:
        raise wrong("file", "the field 'file' is missing", "missing_required_parameter")
    if not isinstance(upload, UploadFile):
        raise wrong("file", "must be an upload: nothing is opened or downloaded by its name here")
    return upload


def named(upload: UploadFile) -> str:
    """What messages call an upload. It is not opened by that name."""
    return printable(upload.filename or "file")[:100].replace("\n", " ").replace("\t", " ")


async def finished(request: Request, job: Job, patience: float) -> Transcript:
    """The transcript. A client that goes, or too long a time, ends the job."""
    return await waited_for(request, asyncio.wrap_future(job.future), job.cancel, patience)


async def waited_for(
    request: Request, result: asyncio.Future[Any], cancel: Callable[[], object], patience: float
) -> Any:
    """A result, unless the client goes before, or it takes too long: then it is cancelled."""
    gone = asyncio.ensure_future(_gone(request))
    try:
        done, _ = await asyncio.wait({gone, result}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if result in done:
            return result.result()
        if gone in done:
            raise Gone
        raise too_slow(f"the recording was not transcribed within {patience:g} s", 504)
    except (Refusal, Gone):
        raise
    except asyncio.CancelledError:
        raise
    except Exception as error:
        raise refusal_of(error) from error
    finally:
        gone.cancel()
        if not result.done():
            cancel()


async def _gone(request: Request) -> None:
    """Wait until the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def noted(state: ServerState, record: Record, job: Job, transcript: Transcript) -> None:
    """Count a transcription, and note it for the log."""
    now = time.perf_counter()
    seconds = now - record.begin
    state.metrics.latency.observe(seconds)
    state.metrics.audio.labels("upload").inc(transcript.duration)
    if transcript.duration:
        state.metrics.factor.observe(seconds / transcript.duration)
    record.text = transcript.text
    record.details |= {
        "audio_seconds": round(transcript.duration, 3),
        "queue_seconds": round((job.began or now) - job.arrived, 4),
    }


async def _streamed(request: Request, job: Job, texts: asyncio.Queue[str], state: ServerState) -> Response:
    """The text as server-sent events, as it comes. An error before the first of them is an ordinary response."""
    record: Record = request.scope["record"]
    deltas = Deltas()
    patience = state.settings.request_timeout
    deadline = time.perf_counter() + patience
    slow = too_slow(f"the recording was not transcribed within {patience:g} s", 504)
    result: asyncio.Future[Any] = asyncio.wrap_future(job.future)
    first: asyncio.Future[Any] = asyncio.ensure_future(texts.get())
    gone: asyncio.Future[Any] = asyncio.ensure_future(_gone(request))
    await asyncio.wait({result, first, gone}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
    has_gone = gone.done()
    gone.cancel()
    failure: Exception | None = None
    if result.done():
        if (error := result.exception()) is not None:
            failure = refusal_of(error)
    elif not first.done():
        failure = Gone() if has_gone else slow
    if failure is not None:
        first.cancel()
        job.cancel()
        raise failure

    async def events() -> AsyncIterator[str]:
        waiting = first
        try:
            while not result.done():
                left = deadline - time.perf_counter()
                if left <= 0:
                    yield _event({"error": slow.error})
                    return
                await asyncio.wait({result, waiting}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    if delta := deltas.more(waiting.result()):
                        yield _event({"type": "transcript.text.delta", "delta": delta})
                    waiting = asyncio.ensure_future(texts.get())
            try:
                transcript = result.result()
            except Exception as error:
                yield _event({"error": refusal_of(error).error})
                return
            noted(state, record, job, transcript)
            if delta := deltas.rest(transcript.text):
                yield _event({"type": "transcript.text.delta", "delta": delta})
            done = {"type": "transcript.text.done", "text": transcript.text, "usage": usage(transcript.duration)}
            yield _event(done)
        finally:
            waiting.cancel()
            job.cancel()  # does nothing to a job that is done

    return StreamingResponse(events(), media_type="text/event-stream")


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _list(form: FormData, name: str) -> list[str]:
    """A field that may come several times, with or without the brackets with which OpenAI's client writes it."""
    return [value for key in (name, f"{name}[]") for value in form.getlist(key) if isinstance(value, str)]


def _check_temperature(text: str) -> None:
    """Decoding is no sampling, so any temperature that the interface knows gives the same text."""
    try:
        good = 0 <= float(text) <= 1
    except ValueError:
        good = False
    if not good:
        raise wrong("temperature", f"must be a number from 0 to 1, got {text!r}")
