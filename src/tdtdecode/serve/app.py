"""The application: which request goes where."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute

from ..errors import TdtDecodeError
from .front import Front
from .pages import ROUTES
from .realtime import realtime
from .refusals import Refusal, ending, refusal_of
from .state import ServerState
from .transcriptions import Gone, transcribe

_CLIENT_GONE = 499


def application(state: ServerState) -> Starlette:
    """The ASGI application of a server."""
    app = Starlette(
        routes=[
            Route("/v1/audio/transcriptions", transcribe, methods=["POST"]),
            WebSocketRoute("/v1/realtime", realtime),
            Route("/v1/models", _models),
            Route("/v1/models/{name:path}", _model),
            Route("/healthz", _healthy),
            Route("/readyz", _ready),
            Route("/metrics", _metrics),
            *ROUTES,
        ],
        middleware=[Middleware(Front, state=state)],
        exception_handlers={
            Refusal: _refused, TdtDecodeError: _refused, HTTPException: _not_there, Gone: _gone, Exception: _refused,
        },  # fmt: skip
    )
    app.state.server = state
    return app


async def _models(request: Request) -> Response:
    state = _noted(request, "models")
    return JSONResponse({"object": "list", "data": [_described(state, name) for name in state.names]})


async def _model(request: Request) -> Response:
    state = _noted(request, "models")
    return JSONResponse(_described(state, state.check_model(request.path_params["name"])))


def _described(state: ServerState, name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": state.created, "owned_by": "tdtdecode"}


async def _healthy(request: Request) -> Response:
    """Whether the server answers at all."""
    _noted(request, "healthz")
    return PlainTextResponse("ok\n")


async def _ready(request: Request) -> Response:
    """Whether it takes requests. The model is loaded before the first of them can come."""
    if _noted(request, "readyz").ending:
        raise ending()
    return PlainTextResponse("ready\n")


async def _metrics(request: Request) -> Response:
    state = _noted(request, "metrics")
    return Response(state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _noted(request: Request, endpoint: str) -> ServerState:
    """Note in the log what was asked for."""
    request.scope["record"].endpoint = endpoint
    return request.app.state.server


async def _refused(request: Request, error: Exception) -> Response:
    refusal = refusal_of(error)
    return JSONResponse({"error": refusal.error}, refusal.status, refusal.headers)


async def _not_there(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refusal = Refusal(error.status_code, f"{request.method} {request.url.path}: {error.detail}", code="unknown_url")
    return JSONResponse({"error": refusal.error}, refusal.status, dict(error.headers or {}))


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_GONE)
