"""Writing files and folders: each is there whole or not at all, and no file that was given is written over."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from .errors import InputError

_BINARY = getattr(os, "O_BINARY", 0)

_NOTHING_TO_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}
"""What `fsync` says where a file system knows no such thing; EBADF: Windows, of a file that is open for reading."""


@contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to fill, which becomes `path` in one step once its content is on the disk.

    Until then, and where anything fails, what was at `path` stays. A link is followed: the file that it leads to is
    replaced, the link stays. A replaced file keeps its permissions.

    Raises
    ------
    InputError
        If `path` is no regular file, is write-protected, or cannot be written.
    """
    path = Path(path)
    try:
        real = Path(os.path.realpath(path))
        old = _status(real)
        if old is not None:
            _require_replaceable(real, old)
        fresh, opened = _beside(real, lambda name: os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    try:
        with open(opened, "wb") as file:
            yield file
            file.flush()
            _flush(file.fileno())
        if old is not None:
            os.chmod(fresh, stat.S_IMODE(old.st_mode))
        os.replace(fresh, real)
        _flush_folder(real.parent)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


@contextmanager
def new_directory(out: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to fill, links resolved, which becomes `out` once all is on the disk; where anything fails, nothing is
    left.

    Raises
    ------
    InputError
        If `out` exists and is not an empty folder, or cannot be made.
    """
    out = Path(out)
    try:
        if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
            raise InputError(f"{out} exists already: give a new folder for the result")
        out.parent.mkdir(parents=True, exist_ok=True)
        folder, _ = _beside(out.parent.resolve() / out.name, os.mkdir)
    except OSError as error:
        raise InputError(f"{out}: cannot be made ({error})") from None
    try:
        yield folder
        for place, _, names in os.walk(folder):
            for name in names:
                flush_file(os.path.join(place, name))
            _flush_folder(Path(place))
        os.replace(folder, out)
        _flush_folder(folder.parent)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise InputError(f"{out}: cannot be written ({error})") from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def replace_file(fresh: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Move a finished file of the same disk to `path`, in one step, once it is on the disk."""
    flush_file(fresh)
    os.replace(fresh, path)
    _flush_folder(Path(path).parent)


def flush_file(path: str | os.PathLike[str]) -> None:
    """Wait until a file's content is on the disk."""
    with open(path, "rb") as file:
        _flush(file.fileno())


def refuse_overwriting(outputs: Iterable[Path], given: Iterable[Path]) -> None:
    """Check that no file to be written is one that was given, by whatever name: a link, another spelling of the path.

    Parameters
    ----------
    outputs:
        The files to be written.
    given:
        Files, and folders whose files all count.

    Raises
    ------
    InputError
        If one is; it names both.
    """
    written = {name: path for path in outputs if os.path.lexists(path) for name in identities(path)}
    if not written:
        return
    for path in given:
        for file in _files_in(path):
            for name in identities(file):
                if name in written:
                    output = written[name]
                    known_as = "" if os.path.abspath(file) == os.path.abspath(output) else f" as {file}"
                    raise InputError(
                        f"{output} was given{known_as}, and would be written over: give another folder for the results"
                    )


def identities(path: Path) -> list[Any]:
    """What tells a file from all others: its path with links resolved and, if it exists, its place on the disk."""
    real = os.path.realpath(path)
    found: list[Any] = [real]
    try:
        status = os.stat(real)
    except (OSError, ValueError):
        return found
    if status.st_ino:
        found.append((status.st_dev, status.st_ino))
    return found


def same_name(name: str) -> str:
    """A form that is equal for names that some file system takes for the same: in case, or in the form of accents."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _files_in(path: Path) -> Iterator[Path]:
    if not os.path.isdir(path):
        yield path
        return
    for place, _, names in os.walk(path):
        for name in names:
            yield Path(place, name)


def _status(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _require_replaceable(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        raise OSError(errno.EINVAL, f"there is {kind} of this name")
    if not os.access(path, os.W_OK):
        raise OSError(errno.EACCES, "the file that is there is write-protected")


def _beside(path: Path, make: Callable[[Path], Any]) -> tuple[Path, Any]:
    """Make something of a new name in the same folder, with the permissions that new files and folders get."""
    while True:
        fresh = path.parent / f".{secrets.token_hex(8)}.part"  # short: the name itself may be as long as names can be
        try:
            return fresh, make(fresh)
        except FileExistsError:
            pass


def _flush(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOTHING_TO_FLUSH:
            raise


def _flush_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if os.name != "posix":
        return
    try:
        opened = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return  # files may be made in a folder that may not be read
    try:
        _flush(opened)
    finally:
        os.close(opened)
