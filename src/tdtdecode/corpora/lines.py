"""Files of JSON Lines: one object on each line. They are read line by line, however large they are."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import json
import lzma
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import InputError
from ..speech.audio import name_of

MAX_LINE = 1 << 28
"""The longest line that is read, in bytes: a day of speech with the times of its words has a tenth of it."""

COMPRESSED: dict[str, tuple[bytes, Callable[[Any, str], Any]]] = {
    ".gz": (b"\x1f\x8b", gzip.open),
    ".bz2": (b"BZh", bz2.open),
    ".xz": (b"\xfd7zXZ\0", lzma.open),
}
"""Suffix of a compressed file -> what it begins with, and what opens it."""

_NOT_READ = {
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "unpack it with unzstd"),
    b"PK\x03\x04": ("a zip archive", "unpack it"),
    b"\xff\xfe": ("text in UTF-16", "save it as UTF-8"),
    b"\xfe\xff": ("text in UTF-16", "save it as UTF-8"),
    b"PAR1": ("a Parquet file", "write it as JSON Lines"),
}
"""What other files begin with: what they are, and what to do."""


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file, unpacked if it is compressed.

    Raises
    ------
    InputError
        If it cannot be read, or is of a kind that is not read.
    """
    name = name_of(path)
    with contextlib.ExitStack() as stack:
        with _reading(name):
            file: Any = stack.enter_context(open(path, "rb"))
            head = file.peek(8)[:8]
            for begin, (kind, remedy) in _NOT_READ.items():
                if head.startswith(begin):
                    raise InputError(f"{name}: is {kind}; expected JSON Lines: {remedy}")
            for begin, unpacked in COMPRESSED.values():
                if head.startswith(begin):
                    file = stack.enter_context(unpacked(file, "rb"))
        yield file


def raw_lines(file: BinaryIO, name: str) -> Iterator[bytes]:
    """The lines of a file, each with its end."""
    while True:
        with _reading(name):
            line = file.readline(MAX_LINE + 1)
        if not line:
            return
        if len(line) > MAX_LINE:
            raise InputError(f"{name}: has a line of more than {MAX_LINE >> 20} MiB; expected JSON Lines")
        yield line


def parsed(line: bytes) -> dict[str, Any]:
    """The object on a line.

    Raises
    ------
    ValueError
        If there is none. The message says what is wrong.
    """
    try:
        found = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error.msg} at character {error.pos + 1})") from None
    except RecursionError:
        raise ValueError("is not JSON that can be read (nested too deeply)") from None
    if not isinstance(found, dict):
        raise ValueError(f"is JSON, but no object: {type(found).__name__}")
    return found


def written(fields: dict[str, Any]) -> bytes:
    """An object as a line."""
    try:
        return (json.dumps(fields, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # half a character, as names of files may have: only an escape can say it
        return (json.dumps(fields) + "\n").encode()


def spooled(path: str | os.PathLike[str]) -> Path | None:
    """A copy of what a pipe has to give, or standard input as ``-``; None for a file, which can be read again.

    The copy is deleted by whoever asked for it.
    """
    if os.fspath(path) != "-" and (os.path.isfile(path) or not os.path.exists(path) or os.path.isdir(path)):
        return None
    if os.fspath(path) == "-" and sys.stdin is None:
        raise InputError("standard input is closed: no manifest can be read from '-'")
    descriptor, copy = tempfile.mkstemp(suffix=".jsonl")
    try:
        with open(descriptor, "wb") as file:
            if os.fspath(path) == "-":
                shutil.copyfileobj(sys.stdin.buffer, file)
            else:
                with open(path, "rb") as pipe:
                    shutil.copyfileobj(pipe, file)
    except BaseException as error:
        os.unlink(copy)
        if isinstance(error, OSError):
            raise InputError(f"{name_of(path)}: cannot be read ({error.strerror or error})") from error
        raise
    return Path(copy)


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Surrounds what reads a file, and nothing else."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file") from error
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
