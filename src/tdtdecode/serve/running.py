"""Running a server, until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from asyncio import TimerHandle
from collections.abc import Callable, Iterator

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .app import application
from .state import ServerState

_HEADER_SECONDS = 10.0
"""So long a client may take to say what it wants."""
_HEADER_BYTES = 64 << 10
"""The most that it may say before the body."""
_IDLE_SECONDS = 20.0
"""So long a connection is kept for the next request."""
_MESSAGE_BYTES = 4 << 20
"""The largest event of a live session: more than a minute of audio."""
_PING_SECONDS = 20.0
_OF_CLIENTS = (
    "ASGI callable returned without completing handshake.", "Invalid HTTP request received.",
    "Unsupported upgrade request.",
)  # fmt: skip
"""What uvicorn logs where a handshake was refused, and of what is no request: nothing that the server's owner could
correct. Refusals stand in our own log."""


def run(state: ServerState, listening: socket.socket, ready: Callable[[], object]) -> None:
    """Serve until a signal comes. Then nothing new is taken, and what is under way is finished.

    Parameters
    ----------
    listening:
        The socket, bound to its address.
    ready:
        Called once requests are taken.
    """
    try:
        server(state, ready).run([listening])
    finally:
        state.close()


def server(state: ServerState, ready: Callable[[], object]) -> uvicorn.Server:
    """The server, which ends when its ``should_exit`` is set, or a signal comes."""
    config = uvicorn.Config(
        application(state), http=_PatientProtocol, ws="websockets-sansio", lifespan="off", access_log=False,
        log_config=None, server_header=False, timeout_keep_alive=round(_IDLE_SECONDS),
        timeout_graceful_shutdown=round(state.settings.shutdown_timeout) or 1, ws_max_size=_MESSAGE_BYTES,
        ws_ping_interval=_PING_SECONDS, ws_ping_timeout=_PING_SECONDS, ws_per_message_deflate=False,
    )  # fmt: skip
    logging.getLogger("uvicorn.error").addFilter(_concerns_us)
    return _Server(config, state, ready)


def _concerns_us(record: logging.LogRecord) -> bool:
    return record.msg not in _OF_CLIENTS


class _Server(uvicorn.Server):
    """As uvicorn's, but live sessions end with what they have heard; uvicorn would cut them off."""

    def __init__(self, config: uvicorn.Config, state: ServerState, ready: Callable[[], object]):
        super().__init__(config)
        self._state, self._ready = state, ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals, where Python lets us. uvicorn would raise them again at the end, before our own work is
        done."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        self._state.end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._state.settings.shutdown_timeout):
                while self._state.open_sessions:
                    await asyncio.sleep(0.02)
        await super().shutdown(sockets)


class _PatientProtocol(HttpToolsProtocol):
    """As uvicorn's, but a client that does not say what it wants, or says too much, is cut off."""

    _deadline: TimerHandle | None = None
    _head = 0  # bytes that came since the clock was started

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait()
        if self._deadline is not None:
            self._head += len(data)
            if self._head > _HEADER_BYTES:
                self.transport.close()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        """Start the clock, unless it runs, or a request is being answered."""
        ours = self.transport.get_protocol() is self  # and not that of a WebSocket, which it has become
        answered = self.cycle is None or self.cycle.response_complete
        if ours and answered and self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(_HEADER_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline, self._head = None, 0
