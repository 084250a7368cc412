"""``tdtdecode serve``: a server with OpenAI's audio interface, and a page to see decoding on."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import socket
import sys
import warnings
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, TdtDecodeWarning
from ..optional import needed
from ..serve.settings import Settings
from .options import add_model, add_vad, add_verbose, model_options, vad
from .search_options import add_search, search_of
from .status import DONE

if TYPE_CHECKING:
    from ..serve.metrics import Metrics

HELP = "Serve a model: OpenAI's audio interface over HTTP and WebSocket, and a page to try it on. SIGTERM ends it."

KEY = "TDTDECODE_API_KEY"
"""The environment variable with the key that clients must know. On a command line everybody could read it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--model", default="demo",
                        help="'demo', a model directory, or a Hugging Face hub id (default: demo)")
    parser.add_argument("--name", action="append", metavar="NAME",
                        help="the name under which clients ask for the model; may be given several times, also as the "
                        "name that a program insists on, such as whisper-1 (default: the model's own)")
    parser.add_argument("--host", default="127.0.0.1",
                        help="the address to listen at (default: 127.0.0.1, which this machine alone reaches; 0.0.0.0: "
                        f"all of them). Clients need the key that the environment variable {KEY} states, if it does")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0: any that is free")
    add_model(parser)
    add_search(parser)
    parser.add_argument("--pause", type=float, metavar="S",
                        help="live: an utterance ends after so many seconds without a word (default: 0.8; with --vad "
                        "the VAD alone says so)")
    parser.add_argument("--log-text", action="store_true", help="write into the log what was said, too")
    limits = parser.add_argument_group("limits")
    for option in fields(Settings):
        default = "" if option.default is None else f" (default: {option.default:g})"
        limits.add_argument(f"--{option.name.replace('_', '-')}", type=option.metadata["type"],
                            metavar=option.metadata["unit"], help=option.metadata["help"] + default)
    add_vad(parser, "skip silence; live, each segment of speech is an utterance")
    add_verbose(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    given = {option.name: getattr(arguments, option.name) for option in fields(Settings)}
    settings = Settings(**{name: value for name, value in given.items() if value is not None})
    search, listener = search_of(arguments), vad(arguments)
    with needed("starlette", "serve", "a server"):
        import starlette  # noqa: F401
    with needed("uvicorn", "serve", "a server"):
        import httptools  # noqa: F401
        import uvicorn  # noqa: F401
        import websockets  # noqa: F401
    with needed("python-multipart", "serve", "a server"):
        import python_multipart  # noqa: F401
    with needed("prometheus_client", "serve", "a server"):
        import prometheus_client  # noqa: F401
    from ..serve.record import Log
    from ..serve.running import run as serve
    from ..serve.state import ServerState
    from ..speech.loading import load_model

    key, local = os.environ.get(KEY) or None, _is_loopback(arguments.host)
    listening = _bound(arguments.host, arguments.port)
    with listening:
        model = load_model(arguments.model, search=search, **model_options(arguments))
        state = ServerState(
            model, arguments.name or [_own_name(arguments.model)], settings, log=Log(arguments.log_text),
            pause=arguments.pause, vad=listener, key=key, local=local,
        )  # fmt: skip
        if not local and key is None:
            print(f"tdtdecode: anyone who reaches this machine may use the server: {KEY} states no key",
                  file=sys.stderr)
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        _count_doubts(state.metrics)
        address = _address(arguments.host, listening)
        serve(state, listening, lambda: print(f"tdtdecode: serving at {address}", file=sys.stderr, flush=True))
    return DONE


def _own_name(model: str) -> str:
    """The last part of a directory's or a repository's name."""
    return Path(model).resolve().name if Path(model).is_dir() else model.rsplit("/", 1)[-1]


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bound(host: str, port: int) -> socket.socket:
    """A socket at an address. It listens once the model is loaded."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            if os.name == "posix":
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
        except BaseException:
            opened.close()
            raise
    except (OSError, OverflowError) as error:
        raise InputError(f"--host {host} --port {port}: cannot listen there ({error})") from error
    return opened


def _address(host: str, listening: socket.socket) -> str:
    port = listening.getsockname()[1]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _count_doubts(metrics: Metrics) -> None:
    """Count warnings about clients' recordings and phrases: their messages may hold what was said."""
    show_others = warnings.showwarning

    def counted(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, TdtDecodeWarning):
            metrics.doubts.labels(category.__name__).inc()
        else:
            show_others(message, category, *place, **more)

    warnings.showwarning = counted
