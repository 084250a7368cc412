"""Text files that people give: plain or compressed, and named as what they are if they are something else."""

from __future__ import annotations

import bz2
import codecs
import gzip
import hashlib
import io
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from ..errors import InputError

MAX_LINE = 1 << 20
"""Longest line, in bytes; in UTF-16, in characters."""
MAX_EXPANSION = 100
"""A compressed file may unpack to so many times its size: text is seldom packed to less than a tenth."""
_SPARE_BYTES = 1 << 24
_HEAD = 1024

_COMPRESSED: dict[bytes, tuple[str, Callable[[BinaryIO], Any] | None]] = {
    b"\x1f\x8b": ("gzip", lambda file: gzip.GzipFile(fileobj=file)),
    b"BZh": ("bzip2", bz2.BZ2File),
    b"\xfd7zXZ\0": ("xz", lzma.LZMAFile),
    b"\x28\xb5\x2f\xfd": ("zstd", None),
    b"\x04\x22\x4d\x18": ("lz4", None),
    b"\x1f\x9d": ("compress", None),
}
"""What a compressed file begins with: the format's name, and what reads it; None where Python does not."""

_OTHERS: dict[bytes, tuple[str, str]] = {
    b"mmap lm http://kheafield.com/code": (
        "a language model in KenLM's binary format", "give the ARPA file that build_binary made it from"
    ),
    b"SRILM_BINARY_NGRAM": (
        "a language model in SRILM's binary format", "write it as ARPA: ngram -lm FILE -write-lm FILE.arpa"
    ),
    b"blmt": ("a language model in IRSTLM's binary format", "write it as ARPA: compile-lm --text=yes"),
    b"Qblmt": ("a language model in IRSTLM's binary format", "write it as ARPA: compile-lm --text=yes"),
    b"iARPA": ("a language model in IRSTLM's own format", "write it as ARPA: compile-lm --text=yes"),
    b"\xd6\xfd\xb2\x7e": ("a transducer of OpenFst", "give the ARPA file that it was made from"),
    b"version https://git-lfs": ("a pointer of Git LFS to a file that was not downloaded", "git lfs pull"),
    b"<!DOCTYPE html": ("a web page", "download the file itself"),
    b"<!doctype html": ("a web page", "download the file itself"),
    b"<html": ("a web page", "download the file itself"),
    b"PK\x03\x04": ("a zip archive or an office document", "unpack it, or save it as text"),
    b"\xd0\xcf\x11\xe0": ("an office document", "save it as text"),
    b"{\\rtf1": ("an RTF document", "save it as text"),
    b"%PDF-": ("a PDF document", "save it as text"),
}
"""What files of other kinds begin with: what they are, and what to do."""


@dataclass
class TextFile:
    """A text file, read line by line; `number` is that of the last line, for messages.

    Parameters
    ----------
    path:
        The file. It may be compressed with gzip, bzip2 or xz.
    kind:
        What is expected in it, for messages: "an ARPA file".
    limit:
        If given, the file is read into memory and may have that many bytes; then it may also be a pipe that a shell has
        opened, as in ``<(command)``.

    Raises
    ------
    InputError
        If the file is none that can be read, or obviously something else; also while it is read, with the line.
    """

    path: Path
    kind: str
    limit: int | None = None
    number: int = 0

    def __post_init__(self) -> None:
        self._unpack: Callable[[BinaryIO], Any] | None = None
        self._encoding = "utf-8"
        self._content = None if self.limit is None else self._in_memory(self.limit)
        with self._reading(), self._open() as file:
            self._recognize(file)

    def digest(self) -> str:
        """SHA-256 of the file as it is stored."""
        with self._reading(), self._open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def lines(self) -> Iterator[str]:
        """The lines, without their ends."""
        self.number = 0
        with self._reading(), self._open() as packed:
            file = self._unpacked(packed)
            if self._encoding == "utf-16":
                file = io.TextIOWrapper(file, self._encoding, newline="\n")
            length, most = 0, _SPARE_BYTES if self.limit is None else self.limit
            while line := file.readline(MAX_LINE + 1):
                self.number += 1
                length += len(line)
                if isinstance(line, bytes):
                    line = line.decode("utf-8" if self.number > 1 else "utf-8-sig")
                if len(line) > MAX_LINE:
                    self.fail(f"is longer than {MAX_LINE} bytes: this is not {self.kind}")
                if self._unpack is not None and length > most:
                    most = 0 if self.limit is not None else _SPARE_BYTES + MAX_EXPANSION * packed.tell()
                    if length > most:
                        self.fail(f"the file unpacks to far more than its size: this is not {self.kind}")
                yield line.rstrip("\r\n")

    def check_rest(self, lines: Iterator[str]) -> None:
        """Read what is left of a compressed file: its checksum comes last."""
        if self._unpack is not None:
            for _ in lines:
                pass

    def fail(self, problem: str) -> NoReturn:
        raise InputError(f"{self.path}, line {self.number}: {problem}")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except UnicodeDecodeError as error:
            self.fail(f"is not {self._encoding.upper()} text ({error.reason})")
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            after = f" after line {self.number}" if self.number else ""
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{self.path}: cannot be read{after} ({reason})") from error

    def _in_memory(self, limit: int) -> bytes:
        with self._reading():
            _require_file(self.path, self.kind, pipes=True)
            with open(self.path, "rb") as file:
                content = file.read(limit + 1)
        if len(content) > limit:
            raise InputError(f"{self.path}: has more than {limit:,} bytes: this is not {self.kind}")
        return content

    def _open(self) -> io.BytesIO | io.BufferedReader:
        if self._content is not None:
            return io.BytesIO(self._content)
        _require_file(self.path, self.kind)
        return open(self.path, "rb")

    def _unpacked(self, packed: BinaryIO) -> Any:
        return packed if self._unpack is None else self._unpack(packed)

    def _recognize(self, file: BinaryIO) -> None:
        """Find out how the file is compressed and encoded; refuse what is something else."""
        head = file.read(_HEAD)
        for magic, (name, unpack) in _COMPRESSED.items():
            if head.startswith(magic):
                if unpack is None:
                    raise InputError(f"{self.path}: is compressed with {name}: unpack it, or pack it with gzip")
                file.seek(0)
                self._unpack, head = unpack, unpack(file).read(_HEAD)
                break
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            self._encoding = "utf-16"
        for magic, (other, remedy) in _OTHERS.items():
            if head.lstrip().startswith(magic):
                raise InputError(f"{self.path}: is {other}, not {self.kind}: {remedy}")
        if head[257:262] == b"ustar":
            raise InputError(f"{self.path}: is a tar archive, as NeMo's .nemo files are, not {self.kind}: unpack it")
        if self._encoding != "utf-16" and b"\0" in head:
            raise InputError(f"{self.path}: is not text, let alone {self.kind}")


def _require_file(path: Path, kind: str, pipes: bool = False) -> None:
    """A pipe or a device could be waited for, or read, without an end."""
    mode = os.stat(path).st_mode
    opened = str(path).startswith(("/dev/fd/", "/proc/self/fd/")) or str(path) == "/dev/stdin"
    if stat.S_ISREG(mode) or (pipes and opened and stat.S_ISFIFO(mode)):
        return
    found = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
    raise InputError(f"{path}: cannot be read: it is {found}, and {kind} must be a file")
