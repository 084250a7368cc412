"""The page, its files, and what it shows of a recording."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..page.explanation import MOST_SECONDS, explained
from ..page.files import MEDIA_TYPES, POLICY, SERVED, read, served_page
from ..search import Beam, Greedy
from ..speech.audio import read_audio
from ..speech.audio.features import SAMPLE_RATE
from ..speech.audio.sources import Source
from .record import Record
from .refusals import Refusal, wrong
from .state import ServerState
from .transcriptions import named, received, upload_of, waited_for

_SEARCHES = ("greedy", "beam")
_NBEST = 4


async def _page(request: Request) -> Response:
    request.scope["record"].endpoint = "page"
    return Response(served_page(), media_type="text/html; charset=utf-8", headers={"content-security-policy": POLICY})


async def _file(request: Request) -> Response:
    request.scope["record"].endpoint = "page"
    name = request.path_params["name"]
    if name not in SERVED:
        raise Refusal(404, f"the page has no file {name!r}", code="unknown_url")
    return Response(read(name), media_type=MEDIA_TYPES[name.rpartition(".")[2]])


async def _explain(request: Request) -> Response:
    """What the page shows of an upload."""
    state: ServerState = request.app.state.server
    record: Record = request.scope["record"]
    record.endpoint = "explanations"
    state.check_open()
    leave = state.requests.enter()
    try:
        form = await received(request, state.settings.upload_timeout)
        chosen = form.get("search", "greedy")
        if chosen not in _SEARCHES:
            raise wrong("search", f"must be {' or '.join(_SEARCHES)}, got {chosen!r}")
        upload = upload_of(form)
        record.details |= {"bytes": upload.size or 0, "search": chosen}
        source, search = Source(named(upload), upload.file), search_of(state.model.decoder.search, chosen)
        most = min(MOST_SECONDS, state.settings.max_seconds)

        def steps() -> Generator[None, None, dict[str, Any]]:
            samples = read_audio(source, SAMPLE_RATE, most)
            yield
            return (yield from explained(state.model, samples, search))

        future = state.engine.run(steps)
        future.add_done_callback(lambda _: leave())
    except BaseException:
        leave()
        raise
    document = await waited_for(
        request, asyncio.wrap_future(future), future.cancel, state.settings.request_timeout
    )  # fmt: skip
    record.details["audio_seconds"] = document["duration"]
    record.text = document["text"]
    return JSONResponse(document)


def search_of(own: Greedy | Beam, kind: str) -> Greedy | Beam:
    """A search of a kind with what the server's own search has beside it."""
    shared: dict[str, Any] = {"max_symbols": own.max_symbols, "blank_penalty": own.blank_penalty, "fusion": own.fusion,
                              "confidence": own.confidence, "allow": own.allow}  # fmt: skip
    if kind == "greedy":
        return own if isinstance(own, Greedy) else Greedy(**shared)
    if isinstance(own, Beam):
        return own if (own.nbest or 1) > 1 else replace(own, nbest=own.size)
    return Beam(size=_NBEST, nbest=_NBEST, **shared)


ROUTES = [
    Route("/", _page),
    Route("/page/{name}", _file),
    Route("/explanations", _explain, methods=["POST"]),
]
