"""Mending model directories: what can be known from the rest of a directory is written where it is wrong."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...bundle.files import TEXT_LIMIT, find_file, open_directory
from ...bundle.onnx_files.dependencies import import_onnx, import_onnxruntime
from ...bundle.onnx_files.parsing import GRAPH_LIMIT
from ...errors import BundleError, InputError
from ..inspection import Problem, inspect
from ..inspection.evidence import collect
from ...outputs import new_directory, replace_file
from ..writing.saving import require_space
from .steps import STEPS, Change, Repairs

__all__ = ["Change", "Repair", "repair"]

_LIMITS = {".onnx": GRAPH_LIMIT} | dict.fromkeys((".txt", ".json", ".md", ".vocab"), TEXT_LIMIT)


@dataclass(frozen=True)
class Repair:
    """What was changed, and what is still wrong.

    Attributes
    ----------
    directory:
        The mended directory.
    changes:
        In the order they were made; none, if there was nothing to mend.
    problems:
        What an inspection of the result finds.
    """

    directory: Path
    changes: tuple[Change, ...]
    problems: tuple[Problem, ...]


def repair(
    directory: str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
    layout: str = "auto",
    variant: str | None = None,
    durations: Sequence[int] | None = None,
) -> Repair:
    """Write a copy of a model directory in which all is right that can be known.

    Mended are the encoder's metadata and the configurations, where the graphs tell otherwise; token files in the wrong
    form, without a blank, with wrong ids, or missing where another file has the pieces; external weights that were
    renamed; encoders by the name of another layout; batch axes fixed at one. What cannot be known is left, and listed.

    Parameters
    ----------
    directory:
        The directory.
    out:
        A new folder for the result. None mends the directory itself: changed files are replaced, each at once.
    layout, variant:
        As for `inspect`.
    durations:
        The frames by duration index, where they are wrong or missing in a GenAI directory. Default: 0, 1, 2, ..., where
        none are stated.

    Raises
    ------
    BundleError
        If there is no model in the directory.
    InputError
        If an argument is wrong, or `out` exists and is not empty.
    MissingDependencyError
        If onnx or onnxruntime is not installed.
    """
    import_onnx()
    import_onnxruntime()
    root = open_directory(directory)
    evidence = collect(root, layout, variant)
    if evidence.layout is None:
        raise BundleError("no model in it that could be mended", file=root)
    with _working_copy(root, out) as (folder, left_out):
        repairs = Repairs(folder, evidence.layout, evidence.variant, None if durations is None else list(durations))
        if out is not None:
            repairs.changes += [Change(name, "", "a file", "left out", why) for name, why in left_out]
        for step in STEPS:
            step(repairs)
        problems = inspect(folder, evidence.layout, evidence.variant).problems
        if out is None:
            _put_back(folder, root, repairs)
    return Repair(open_directory(root if out is None else out), tuple(repairs.changes), problems)


@contextmanager
def _working_copy(
    root: Path, out: str | os.PathLike[str] | None
) -> Iterator[tuple[Path, list[tuple[str, str]]]]:
    """A copy of the directory to work in, which becomes `out`; and the files that are not in it, with the reason."""
    if out is not None:
        with new_directory(out) as folder:
            yield folder, _copy(root, folder, shutil.copyfile)
        return
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    except OSError as error:
        raise InputError(f"{root.parent}: no place for what is being mended ({error})") from None
    try:
        yield folder, _copy(root, folder, _link)
    except OSError as error:
        raise InputError(f"{root}: cannot be mended in place ({error})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy(root: Path, folder: Path, copy: Callable[[Path, Path], object]) -> list[tuple[str, str]]:
    """Copy the regular files of a directory, those of its folders too; the others are returned, with the reason."""
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
                    raise BundleError(f"larger than the {limit} bytes that such a file may have", file=path)
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
    """A second name of a file, so that gigabytes are not copied; a copy where the disk has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _put_back(folder: Path, root: Path, repairs: Repairs) -> None:
    """Move changed files to where they belong; each replaces the old one in one step."""
    for name in sorted(repairs.written):
        replace_file(folder / name, root / name)
    for name in sorted(repairs.removed):
        (root / name).unlink(missing_ok=True)
