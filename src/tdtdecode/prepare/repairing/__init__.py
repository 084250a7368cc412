"""`repair`: correcting what is wrong in a model directory, as far as the rest of the directory says what is right."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...arguments import as_integer, as_path, refusal
from ...bundle.files import TEXT_LIMIT, find_file, open_directory
from ...bundle.onnx_files.dependencies import import_onnx, import_onnxruntime
from ...bundle.onnx_files.parsing import GRAPH_LIMIT
from ...bundle.reading import checked_reading
from ...errors import BundleError, InputError
from ...outputs import new_directory, replace_file
from ...reprs import counted, one_line
from ..inspection import Problem, inspect
from ..inspection.evidence import collect
from ..writing.saving import require_space
from .steps import STEPS
from .working import Change, Repairs

__all__ = ["Change", "Repair", "repair"]

_WINDOWS = "the feature frames of a window and how many it moves on by, such as (65, 56)"
_LONGEST = 1 << 16

_LIMITS = {".onnx": GRAPH_LIMIT} | dict.fromkeys((".txt", ".json", ".md", ".vocab"), TEXT_LIMIT)
"""Most bytes that a file may have to be copied, by suffix."""


@dataclass(frozen=True)
class Repair:
    """What was changed, and what is still wrong.

    Attributes
    ----------
    directory:
        The repaired directory.
    changes:
        The changes, in the order in which they were made; empty if nothing had to be changed.
    problems:
        The problems that an inspection of the result finds.
    """

    directory: Path
    changes: tuple[Change, ...]
    problems: tuple[Problem, ...]

    def __repr__(self) -> str:
        left = f"{counted(len(self.problems), 'problem')} left"
        return one_line(self, str(self.directory), counted(len(self.changes), "change"), left)


def repair(
    directory: str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
    *,
    layout: str = "auto",
    variant: str | None = None,
    durations: Sequence[int] | None = None,
    big_blanks: Sequence[int] | None = None,
    windows: Sequence[int] | None = None,
) -> Repair:
    """Write a copy of a model directory in which every mistake is corrected that can be.

    These are corrected:

    - metadata and configurations that contradict the graphs,
    - token files in a wrong form, without a blank, with wrong ids, or missing if another file has the pieces,
    - external weights that were renamed,
    - encoders that have the name of another layout,
    - what is stated about the windows and caches of a cache-aware encoder,
    - batch axes that are fixed at one.

    Whatever else is wrong is left as it is, and reported in the result.

    Parameters
    ----------
    directory:
        The model directory.
    out:
        A new folder for the result. It is complete, or, after an error, not there. None repairs the directory itself:
        each file that changes is replaced in one step.
    layout, variant:
        As for `inspect`.
    durations:
        The model's duration table, frames by duration index. It is written into genai_config.json, into the encoder's
        metadata in the split layout, and over a table in other metadata. It is ignored if the joint does not have as
        many durations. Default: a stated table is kept; if genai_config.json states none, it gets ``range(D)``.
    big_blanks:
        The frames of the big blanks of a multi-blank RNN-T. They are written into config.json.
    windows:
        For a cache-aware encoder that does not say it itself: how many feature frames a window has, and how many it
        moves on by, such as (65, 56). Nothing is guessed.

    Returns
    -------
    The changes, and the problems that are left.

    Raises
    ------
    BundleError
        If there is no model in the directory.
    InputError
        If an argument is wrong, `out` exists and is not empty, or something cannot be written.
    MissingDependencyError
        If onnx or onnxruntime is not installed.
    """
    durations, big_blanks = checked_reading(layout, variant, durations, big_blanks)
    windows = None if windows is None else _checked_windows(windows)
    if out is not None:
        as_path("out", out, "the path of a new folder")
    import_onnx()
    import_onnxruntime()
    root = open_directory(directory)
    evidence = collect(root, layout, variant)
    if windows is not None and not evidence.streaming:
        raise InputError("windows: only a cache-aware encoder has some, and this model has none")
    if evidence.layout is None:
        raise BundleError("no model in it that could be repaired", file=root)
    with _working_copy(root, out) as (folder, left_out):
        table = None if durations is None else list(durations)
        repairs = Repairs(folder, evidence.layout, evidence.variant, table, big_blanks, windows)
        if out is not None:
            repairs.changes += [Change(name, "", "a file", "left out", why) for name, why in left_out]
        for step in STEPS:
            step(repairs)
        problems = inspect(folder, layout=evidence.layout, variant=evidence.variant).problems
        if out is None:
            _put_back(folder, root, repairs)
    return Repair(open_directory(root if out is None else out), tuple(repairs.changes), problems)


def _checked_windows(windows: Any) -> tuple[int, int]:
    if not isinstance(windows, (list, tuple)) or len(windows) != 2:
        raise refusal("windows", _WINDOWS, windows)
    window, shift = (as_integer(f"windows[{i}]", size, low=1, high=_LONGEST) for i, size in enumerate(windows))
    if shift > window:
        raise InputError(f"windows={window},{shift}: a window that moves on by more than its size skips some frames")
    return window, shift


@contextmanager
def _working_copy(
    root: Path, out: str | os.PathLike[str] | None
) -> Iterator[tuple[Path, list[tuple[str, str]]]]:
    """A copy of the directory to work in, and the files that were not copied, each with the reason.

    The copy becomes `out`. If `out` is None, it is a temporary folder beside the directory.
    """
    if out is not None:
        with new_directory(out) as folder:
            yield folder, _copy(root, folder, shutil.copyfile)
        return
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    except OSError as error:
        raise InputError(f"{root.parent}: cannot make a folder for a working copy there ({error})") from None
    try:
        yield folder, _copy(root, folder, _link)
    except OSError as error:
        raise InputError(f"{root}: cannot be repaired in place ({error})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy(root: Path, folder: Path, copy: Callable[[Path, Path], object]) -> list[tuple[str, str]]:
    """Copy the regular files of a directory and its folders. Returns the other files, each with the reason."""
    left_out, found = [], {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_dir() and not path.is_symlink():
            continue
        try:
            if find_file(root, name) is not None:
                found[name] = path.resolve()
                limit = _LIMITS.get(path.suffix.lower(), sys.maxsize)
                if found[name].stat().st_size > limit:
                    raise BundleError(f"larger than {limit} bytes, the most that such a file may have", file=path)
        except BundleError as error:
            found.pop(name, None)
            left_out.append((name, error.problem))
    if copy is not _link:
        require_space(folder, sum(real.stat().st_size for real in found.values()))
    for name, real in found.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy(real, folder / name)
    return left_out


def _link(source: Path, target: Path) -> None:
    """Make a hard link, which saves copying gigabytes of weights; or a copy, if the disk does not support links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _put_back(folder: Path, root: Path, repairs: Repairs) -> None:
    """Move the changed files from the working copy into the directory. Each replaces the old file in one step."""
    for name in sorted(repairs.written):
        replace_file(folder / name, root / name)
    for name in sorted(repairs.removed):
        (root / name).unlink(missing_ok=True)
