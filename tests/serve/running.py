"""A server in this process, for tests."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tdtdecode.serve.record import Log
from tdtdecode.serve.running import server
from tdtdecode.serve.settings import Settings
from tdtdecode.serve.state import ServerState

HANGING = 120
"""Seconds after which a test stops waiting: far more than it needs on a busy machine."""


@dataclass
class Running:
    """A server that runs.

    Attributes
    ----------
    log:
        What it has logged so far.
    """

    state: ServerState
    port: int
    log: io.StringIO

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
        return self.request("GET", path, None, headers)

    def request(self, method, path, body=None, headers=None) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANGING)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def connected(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=HANGING)


@contextlib.contextmanager
def running(model, names=("demo",), with_text=False, limits=None, **options) -> Iterator[Running]:
    """A server of a model; ``limits`` are those of `Settings`."""
    log = io.StringIO()
    state = ServerState(model, names, Settings(**(limits or {})), log=Log(with_text, log), **options)
    listening = socket.create_server(("127.0.0.1", 0))
    ready = threading.Event()
    made = server(state, ready.set)
    thread = threading.Thread(target=made.run, args=([listening],), daemon=True)
    thread.start()
    try:
        assert ready.wait(HANGING)
        yield Running(state, listening.getsockname()[1], log)
    finally:
        made.should_exit = True
        thread.join(HANGING)
        assert not thread.is_alive()
        state.close()
        listening.close()


def wav(samples: np.ndarray, rate: int = 16_000) -> bytes:
    """A WAV file of samples, float32 [n]."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def form(fields: dict[str, str], file: bytes | None = None, name: str = "speech.wav") -> tuple[bytes, dict[str, str]]:
    """A body of multipart/form-data, and its headers."""
    boundary = "boundary-of-the-tests"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    if file is not None:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        parts.append(head.encode() + file + b"\r\n")
    parts.append(f"--{boundary}--\r\n".encode())
    return b"".join(parts), {"Content-Type": f"multipart/form-data; boundary={boundary}"}
