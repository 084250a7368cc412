"""Opening files of a model directory. It is untrusted, so sizes are limited and nothing outside it is opened."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from ..arguments import refusal
from ..errors import BundleError

TEXT_LIMIT = 32 << 20
"""Largest text file that is read, in bytes."""


def open_directory(directory: str | os.PathLike[str]) -> Path:
    """The path of a model directory, with links resolved.

    Raises
    ------
    InputError
        If `directory` is not a path.
    BundleError
        If there is no such directory.
    """
    try:
        path = Path(directory)
        mode = path.stat().st_mode
        path = path.resolve()
    except TypeError:
        raise refusal("directory", "the path of a model directory", directory) from None
    except (OSError, ValueError, RuntimeError) as error:
        raise BundleError(f"no such model directory ({error})", file=os.fspath(directory)) from None
    if not stat.S_ISDIR(mode):
        raise BundleError("expected a model directory, but this is a file; give the folder it lies in", file=path)
    return path


def contained(path: Path, directory: Path, *, file: Path, field: str | None = None) -> Path:
    """Resolve `path`, and check that it lies inside the model directory.

    In a snapshot of a model hub (``models--*/snapshots/<revision>/``) every file is a link into the repository's
    own ``blobs`` folder. That folder therefore counts as inside.

    Parameters
    ----------
    path:
        The file to open.
    directory:
        The model directory, as `open_directory` returned it.
    file, field:
        The file and field that name `path`, for the error message.

    Raises
    ------
    BundleError
        If the path lies outside, or its links cannot be followed.
    """
    try:
        real = path.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise BundleError(f"cannot follow {str(path)!r} ({error})", file=file, field=field) from None
    allowed = [directory]
    blobs = _hub_blobs(directory)
    if blobs is not None:
        allowed.append(blobs)
    if not any(real.is_relative_to(folder) for folder in allowed):
        raise BundleError(
            f"{str(path)!r} leads to {str(real)!r}, outside the model directory; copy that file into the directory",
            file=file,
            field=field,
        )
    return real


def find_file(directory: Path, name: str) -> Path | None:
    """The path of a regular file of the directory; None if there is no file of that name.

    Raises
    ------
    BundleError
        If it is a broken link, leads outside the directory, or is not a regular file.
    """
    path = directory / name
    if not os.path.lexists(path):
        return None
    real = contained(path, directory, file=path)
    try:
        mode = real.stat().st_mode
    except FileNotFoundError:
        raise BundleError("a broken link: the file it points to is missing (download it again)", file=path) from None
    if not stat.S_ISREG(mode):
        raise BundleError("expected a regular file", file=path)
    return path


def is_file(path: Path) -> bool:
    """Whether the file exists. False for names that the file system rejects, such as too long ones."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_bytes(file: Path, limit: int) -> bytes:
    """The content of a file.

    Raises
    ------
    BundleError
        If it is empty, larger than `limit` bytes (checked before it is read), or cannot be read.
    """
    try:
        size = file.stat().st_size
        if size == 0:
            raise BundleError("the file is empty (an interrupted download?)", file=file)
        if size > limit:
            raise BundleError(f"the file has {size} bytes, more than the {limit} accepted here", file=file)
        return file.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot be read ({error})", file=file) from None


def read_text(file: Path) -> str:
    """The text of a UTF-8 file, without its byte order mark, if any."""
    try:
        return read_bytes(file, TEXT_LIMIT).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BundleError(f"not UTF-8 text (byte {error.start}: {error.reason}); save it as UTF-8", file=file) from None


def read_any_json(file: Path) -> Any:
    """The content of a JSON file."""
    text = read_text(file)
    try:
        return parse_json(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"not valid JSON ({error})", file=file) from None


def read_json(file: Path) -> dict[str, Any]:
    """The content of a JSON file whose top level is an object."""
    value = read_any_json(file)
    if not isinstance(value, dict):
        raise BundleError(f"expected a JSON object at the top, got {type(value).__name__}", file=file)
    return value


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises
    ------
    ValueError
        If it is not JSON, or a string in it is not valid Unicode.
    RecursionError
        If it is nested too deeply.
    """
    value = json.loads(text)
    if "\\u" in text:
        # An escape such as \ud800 may be half of a surrogate pair, which UTF-8 cannot encode.
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _hub_blobs(directory: Path) -> Path | None:
    for snapshot in (directory, *directory.parents):
        repository = snapshot.parent.parent
        if snapshot.parent.name == "snapshots" and repository.name.startswith("models--"):
            blobs = repository / "blobs"
            return blobs if blobs.is_dir() and not blobs.is_symlink() else None
    return None
