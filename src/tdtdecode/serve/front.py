"""What every request passes first: who may ask, how large a body may be, the log and the counters."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import secrets
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .record import Record
from .refusals import Refusal, too_large
from .state import ServerState

_OPEN = ("/", "/healthz", "/readyz")
"""Paths that need no key, beside the files of the page: it asks for the key itself."""
_PAGE = "/page/"
_KEY_PROTOCOL = "openai-insecure-api-key."
"""How a browser says the key when it opens a WebSocket: as the name of a protocol. OpenAI's interface has it so."""
_DRAINED = 16
"""So many times the largest body is received, and thrown away, before a request is refused. Otherwise most clients
would see a broken connection instead of the reason."""
_SECURITY = {
    "x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
}  # fmt: skip


class Front:
    """Around the application.

    Each request has its record at ``scope["record"]``.
    """

    def __init__(self, app: ASGIApp, state: ServerState):
        self._app, self._state = app, state
        self._key = None if state.key is None else _digest(state.key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        client = scope.get("client") or ("", 0)
        record = Record(f"req_{secrets.token_hex(8)}", scope.get("method", "WEBSOCKET"), client[0])
        scope["record"] = record
        body = _Body(receive, self._state.settings.max_upload)
        answered = _Answer(send, record, body, self._state.settings.upload_timeout, scope)
        taken = body.receive if scope["type"] == "http" else receive
        try:
            try:
                self._check(scope)
            except Refusal as refusal:
                await refused(refusal, scope, taken, answered.send)
            else:
                await self._app(scope, taken, answered.send)
        finally:
            self._state.metrics.requests.labels(record.endpoint, str(record.status)).inc()
            self._state.log.write(record)

    def _check(self, scope: Scope) -> None:
        """Raise a `Refusal` for a request that this client, or this page of a browser, may not make."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._state.local and self._key is None and not _is_local(host):
            # A web page can make its own name stand for this machine's address, and then ask as if it were ours.
            raise Refusal(403, f"this server is for this machine alone, not for {host!r}", code="wrong_host")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise Refusal(403, f"pages of {origin} may not use this server", code="wrong_origin")
        path = scope["path"]
        if self._key is None or path in _OPEN or path.startswith(_PAGE):
            return
        given = _given_key(headers, scope["type"] == "websocket")
        if given is None or not hmac.compare_digest(_digest(given), self._key):
            why = "an API key is needed: Authorization: Bearer KEY" if given is None else "the API key is wrong"
            raise Refusal(401, why, code="invalid_api_key")


def _digest(key: str) -> bytes:
    """Of one length, whatever the key's: comparing takes the same time."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _given_key(headers: Headers, websocket: bool) -> str | None:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key:
        return key.strip()
    if websocket:
        for name in headers.get("sec-websocket-protocol", "").split(","):
            if name.strip().startswith(_KEY_PROTOCOL):
                return name.strip().removeprefix(_KEY_PROTOCOL)
    return None


def _is_local(host: str) -> bool:
    """Whether a Host header names this machine by one of its own names."""
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class _Body:
    """The body of a request as it comes in."""

    def __init__(self, receive: Receive, most: int):
        self._receive, self.most = receive, most
        self.size = 0
        self.complete = False

    async def receive(self) -> Message:
        message = await self.any()
        if self.size > self.most:
            raise too_large(self.most)
        return message

    async def any(self) -> Message:
        """What comes next, however large the body has become."""
        message = await self._receive()
        if message["type"] == "http.request":
            self.size += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        elif message["type"] == "http.disconnect":
            self.complete = True
        return message


class _Answer:
    """What is sent: its status is noted, and headers are added."""

    def __init__(self, send: Send, record: Record, body: _Body, patience: float, scope: Scope):
        self._send, self._record, self._body, self._patience, self._scope = send, record, body, patience, scope

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            self._record.status = message["status"]
            added = {**_SECURITY, "x-request-id": self._record.id}
            if kind == "http.response.start" and message["status"] >= 400 and not await self._drained():
                added["connection"] = "close"
            given = {name.lower() for name, _ in message.get("headers", ())}
            message["headers"] = [
                *message.get("headers", ()),
                *((name.encode(), value.encode()) for name, value in added.items() if name.encode() not in given),
            ]
        elif kind == "websocket.accept":
            self._record.status = 101
        elif kind == "websocket.close" and not self._record.status:
            self._record.status = 403
        await self._send(message)

    async def _drained(self) -> bool:
        """Receive the rest of a body that is not wanted. Returns whether all of it came."""
        if not self._body.size and "expect" in Headers(scope=self._scope):
            return False  # the client waits for a sign to send it, and gets the refusal instead
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                while not self._body.complete and self._body.size <= _DRAINED * self._body.most:
                    await self._body.any()
        return self._body.complete


async def refused(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a refusal, also to who wants a WebSocket."""
    response: Any = JSONResponse({"error": refusal.error}, refusal.status, refusal.headers)
    if scope["type"] == "websocket":
        await _denied(response, send)
    else:
        await response(scope, receive, send)


async def _denied(response: Response, send: Send) -> None:
    """Answer a handshake by an ordinary response."""
    await send(
        {"type": "websocket.http.response.start", "status": response.status_code, "headers": response.raw_headers}
    )
    await send({"type": "websocket.http.response.body", "body": response.body})
