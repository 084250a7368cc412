"""The recordings that a command is given: files, pipes, folders, standard input."""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, SkippedInputWarning
from ..speech.audio import is_recording, name_of

_RECORDINGS = frozenset(
    "wav wave bwf rf64 w64 aif aiff aifc au snd caf flac ogg oga ogv opus spx mp3 mp2 mpga sph nist voc gsm vox m4a "
    "m4b m4r m4v mp4 mov qt 3gp 3gpp 3g2 aac adts loas latm amr awb ac3 eac3 ec3 dts thd mlp ts m2ts mts trp mpg mpeg "
    "vob mkv mka webm weba wma wmv asf avi divx flv f4v f4a rm ra rmvb ape wv tta tak mpc dsf dss mxf gxf nut qcp oma "
    "ogm".split()
)
"""Suffixes of recordings, and of videos."""

_OTHERS = frozenset(
    "txt json jsonl srt vtt tsv ctm csv md rst pdf doc docx odt rtf html htm xml yaml yml toml ini cfg conf log lab "
    "trn stm textgrid eaf rttm ass lrc sub jpg jpeg png gif bmp webp svg tif tiff ico py sh bat ps1 js css ipynb c h "
    "cpp zip gz bz2 xz 7z tar tgz rar npy npz pt pth onnx data safetensors pkl h5 parquet db sqlite arpa cue m3u m3u8 "
    "pls nfo sfv md5 sha256 torrent url lnk".split()
)
"""Suffixes of what stands beside recordings and is none."""

_MOST_NAMES = 5
"""The most names in a warning."""


@dataclass(frozen=True)
class Given:
    """A recording to transcribe.

    Attributes
    ----------
    path:
        Names its result.
    audio:
        What is read.
    """

    path: Path
    audio: Any

    @property
    def name(self) -> str:
        """What messages call it."""
        return name_of(self.audio)


@dataclass
class _Folder:
    """What was found in a folder, and below it."""

    files: list[Path] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    subfolders: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)


def recordings(inputs: list[str], recursive: bool) -> tuple[list[Given], list[tuple[str, str]]]:
    """The recordings among the inputs, in order, and the folders that could not be used, each with what was wrong.

    In a folder, files are taken by their suffixes, and those of unknown suffixes by what is in them. What could have
    been meant and is passed over is named by a `SkippedInputWarning`.

    Raises
    ------
    InputError
        If standard input is asked for, and is a terminal or closed.
    """
    found: list[Given] = []
    problems: list[tuple[str, str]] = []
    for text in inputs:
        path = Path(text)
        if text == "-":
            found.append(Given(Path("stdin"), _standard_input()))
        elif not path.is_dir():
            found.append(Given(path, text))
        else:
            folder = _Folder()
            _search(path, "", folder, recursive, set())
            found += [Given(file, file) for file in folder.files]
            problems += folder.problems
            if not folder.files and not folder.problems:
                problems.append((name_of(text), "no recordings in this folder"))
            _warn(name_of(text), folder)
    return found, problems


def _standard_input() -> Any:
    if sys.stdin is None:
        raise InputError("standard input is closed: no recording can be read from '-'")
    if sys.stdin.isatty():
        raise InputError("standard input is a terminal: pipe a recording into '-', or name a file")
    return sys.stdin.buffer


def _search(path: Path, prefix: str, folder: _Folder, recursive: bool, seen: set[tuple[int, int]]) -> None:
    """Add what lies in a folder, whose names begin with ``prefix`` in messages. ``seen``: links may lead in circles."""
    try:
        status = path.stat()
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError as error:
        folder.problems.append((name_of(path), error.strerror or str(error)))
        return
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    for entry in entries:
        if entry.is_dir():
            if entry.name.startswith("."):
                continue
            if recursive:
                _search(path / entry.name, f"{prefix}{entry.name}/", folder, recursive, seen)
            else:
                folder.subfolders.append(entry.name)
        elif (taken := _is_taken(entry)) is not None:
            if taken:
                folder.files.append(path / entry.name)
            else:
                folder.passed_over.append(prefix + entry.name)


def _is_taken(entry: os.DirEntry[str]) -> bool | None:
    """Whether a file in a folder is read; None if nobody will miss it."""
    suffix = Path(entry.name).suffix.lower().removeprefix(".")
    if entry.name.startswith("._"):
        return None  # what macOS keeps of a file beside it
    if entry.name.startswith("."):
        return False if suffix in _RECORDINGS else None
    if suffix in _OTHERS:
        return None
    if os.path.exists(entry.path) and not entry.is_file():
        return False  # a pipe would be waited for
    return suffix in _RECORDINGS or is_recording(entry.path)


def _warn(name: str, folder: _Folder) -> None:
    """Name what was passed over."""
    if folder.passed_over:
        text = f"{name}: passed over what is not known to be a recording: {_listed(folder.passed_over)}"
        warnings.warn(text, SkippedInputWarning, stacklevel=2)
    if folder.subfolders:
        text = f"{name}: subfolders are passed over without --recursive: {_listed(folder.subfolders)}"
        warnings.warn(text, SkippedInputWarning, stacklevel=2)


def _listed(names: list[str]) -> str:
    shown = [name_of(name) for name in names[:_MOST_NAMES]]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
