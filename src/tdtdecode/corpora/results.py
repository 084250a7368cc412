"""Files of results, which grow line by line while a job runs, and which a later run goes on with.

A line is whole or not there. Beside the results stand two files:

- ``NAME.run.json`` says what the results depend on, so that a run with other settings is refused;
- ``NAME.journal`` holds results that came in another order than the manifest's, each with its place, until all are
  there. Then they are put in order, and it is removed.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from .. import __version__
from ..arguments import shown
from ..errors import NOTICE, InputError, OutputError
from ..outputs import new_file, refuse_overwriting
from ..speech.audio import name_of
from .kind import ERROR
from .kinds import KINDS, Entry
from .lines import COMPRESSED, opened, parsed, raw_lines, written
from .manifests import Manifest

_SECONDS_BETWEEN_SYNCS = 1.0
_INDEX, _RESULT = "index", "result"
_FORMAT = 1

_log = logging.getLogger(__name__)


class Results:
    """The results of a manifest, in a file.

    Use it as a context manager: it holds the file for itself meanwhile. Where a run was cut off, its torn last line is
    removed.

    Parameters
    ----------
    path:
        The file. By its suffix it is compressed (gz, bz2, xz); then it is written once all results are there.
    manifest:
        The recordings.
    settings:
        What results depend on, from `settings_of`.
    names:
        The fields that results have.
    retry_errors:
        Whether recordings that failed in an earlier run count as not done.
    in_order:
        Whether results are added in the manifest's order.

    Raises
    ------
    InputError
        If the file holds results of other settings, of another manifest, or something else, or if another process
        writes to it. The message says what is different.

    Attributes
    ----------
    done:
        How many recordings are done.
    failed:
        How many of them have failed.
    pending_seconds, pending_stated:
        The length of the recordings that were not done at the beginning, as far as the manifest states it, and for how
        many of them it does.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        manifest: Manifest,
        settings: Mapping[str, Any],
        names: set[str],
        *,
        retry_errors: bool = False,
        in_order: bool = True,
    ):
        self.path = Path(path)
        self._name = name_of(path)
        self._run = self.path.with_name(self.path.name + ".run.json")
        self._journal_path = self.path.with_name(self.path.name + ".journal")
        self._manifest, self._settings, self._names = manifest, dict(settings), names
        self._retry, self._in_order = retry_errors, in_order
        self._packed = COMPRESSED.get(self.path.suffix.lower())
        self._count = 0
        self._errors: set[int] = set()
        self._journal: dict[int, tuple[int, bool]] = {}  # place -> where its line begins, and whether it failed
        self._old_failures: set[int] = set()  # of the journal, at the beginning
        self._stack = ExitStack()
        self.done = self.failed = 0
        self.pending_seconds, self.pending_stated = 0.0, 0

    def __enter__(self) -> Results:
        with ExitStack() as stack:
            self._refuse_others()
            stack.enter_context(_run_file(self._run, self._name, self._check_run, self._run_content))
            self._read()
            self._settle()
            self._old_failures = {index for index, (_, failed) in self._journal.items() if failed}
            self.done, self.failed = len(self._manifest), len(self._errors | self._old_failures)
            for entry in self.pending():
                self.done -= 1
                if entry.seconds is not None:
                    self.pending_seconds += entry.seconds
                    self.pending_stated += 1
            if self._retry:
                self.failed = 0
            again = self._retry and self._errors
            self._direct = self._in_order and not self._journal and not self._packed and not again
            self._target = stack.enter_context(_Lines(self.path if self._direct else self._journal_path))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            self._target.close()
            self._settle()
            if not self._direct and not self._journal:
                self._journal_path.unlink(missing_ok=True)

    def pending(self) -> Iterator[Entry]:
        """The recordings that are not done, in the manifest's order."""
        for entry in self._manifest:
            if not self._is_done(entry.index):
                yield entry

    def add(self, entry: Entry, results: Mapping[str, Any]) -> None:
        """Write the results of a recording.

        Raises
        ------
        OutputError
            If they cannot be written. Nothing of them is left in the file.
        """
        line = entry.with_results(results)
        failed = ERROR in results
        if self._direct:
            assert entry.index == self._count, "results come in the manifest's order"
            self._target.append(written(line))
            self._count += 1
            if failed:
                self._errors.add(entry.index)
        else:
            begin = self._target.append(written({_INDEX: entry.index, _RESULT: line}))
            self._journal[entry.index] = begin, failed
            self._old_failures.discard(entry.index)
        self.done += 1
        self.failed += failed

    def _is_done(self, index: int) -> bool:
        if index in self._journal:
            return not (self._retry and index in self._old_failures)
        return index < self._count and not (self._retry and index in self._errors)

    def _refuse_others(self) -> None:
        """Refuse what is no file of ours, before anything is changed."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self._name}: cannot be written ({error.strerror or error})") from error
        if self.path.is_dir():
            raise InputError(f"{self._name}: is a folder; with --manifest, results are one file of JSON Lines")
        if self.path.exists() and not self.path.is_file():
            raise InputError(f"{self._name}: is a pipe or a device: leave out -o, and results go to standard output")
        refuse_overwriting([self.path, self._run, self._journal_path], [self._manifest.path])
        if not self._run.exists() and self.path.exists() and self.path.stat().st_size:
            raise InputError(
                f"{self._name}: exists already, and nothing says how it was made ({self._run.name} is missing): give "
                "another file, or remove this one"
            )

    def _run_content(self) -> dict[str, Any]:
        return {"format": _FORMAT, "tdtdecode": __version__, "kind": self._manifest.kind, "settings": self._settings}

    def _check_run(self, found: Mapping[str, Any]) -> bool:
        """Raise unless the results belong to the settings; False if there are none yet."""
        if not any(path.exists() and path.stat().st_size for path in (self.path, self._journal_path)):
            return False
        made, wanted = found.get("settings"), json.loads(json.dumps(self._settings))
        if found.get("format") != _FORMAT or not isinstance(made, dict):
            raise InputError(f"{self._run}: was not made by this release; give another file for the results")
        different = [
            _difference(name, made.get(name), wanted.get(name))
            for name in {**made, **wanted} if made.get(name) != wanted.get(name)
        ]  # fmt: skip
        if different:
            raise InputError(
                f"{self._name}: holds results of a run with other settings: {'; '.join(different)}. Give the same "
                "ones to go on with it, or another file for the results"
            )
        if found.get("tdtdecode") != __version__:
            _log.log(NOTICE, "%s was begun with release %s of tdtdecode", self._name, found.get("tdtdecode"))
        return True

    def _read(self) -> None:
        """Find out what is done, and check that it belongs to the manifest."""
        if self.path.exists():
            if not self._packed:
                _cut_torn_line(self.path)
            with opened(self.path) as file:
                lines = raw_lines(file, self._name)
                entries = iter(self._manifest)
                for number, line in enumerate(lines, 1):
                    entry = next(entries, None)
                    if entry is None:
                        raise InputError(
                            f"{self._name}: has results for more recordings than the {len(self._manifest)} of "
                            f"{self._manifest.name}: give the manifest that they were made of, or another file"
                        )
                    if self._result(line, number, self._name, entry):
                        self._errors.add(entry.index)
                    self._count += 1
        if self._journal_path.exists():
            _cut_torn_line(self._journal_path)
            self._read_journal()

    def _read_journal(self) -> None:
        name = name_of(self._journal_path)
        found: dict[int, tuple[int, int]] = {}
        with opened(self._journal_path) as file:
            begin = 0
            for number, line in enumerate(raw_lines(file, name), 1):
                index = _sound(line, number, name).get(_INDEX)
                if not isinstance(index, int) or not 0 <= index < len(self._manifest):
                    raise InputError(f"{name}: line {number} belongs to no recording of {self._manifest.name}")
                found[index] = begin, number
                begin += len(line)
            for entry in self._manifest:
                if entry.index in found:
                    begin, number = found[entry.index]
                    file.seek(begin)
                    result = _sound(file.readline(), number, name)[_RESULT]
                    self._journal[entry.index] = begin, self._result(written(result), number, name, entry)

    def _result(self, line: bytes, number: int, name: str, entry: Entry) -> bool:
        """Check that a line is a result of an entry, and say whether that failed."""
        fields = _sound(line, number, name)
        if not entry.is_of(fields, self._names):
            raise InputError(
                f"{name}: line {number} is no result of line {entry.line} of {self._manifest.name}, which has changed: "
                "give the manifest that the results were made of, or another file for the results"
            )
        return KINDS[entry.kind].results(fields).get(ERROR) is not None

    def _settle(self) -> None:
        """Where the results of all recordings are there, put those of the journal in their places."""
        if not self._journal or any(
            index >= self._count and index not in self._journal for index in range(len(self._manifest))
        ):
            return
        before: Iterator[bytes] = iter(())
        with ExitStack() as stack:
            if self._count:
                before = raw_lines(stack.enter_context(opened(self.path)), self._name)
            journal = stack.enter_context(open(self._journal_path, "rb"))
            file: Any = stack.enter_context(_replacing(self.path))
            if self._packed:
                file = stack.enter_context(self._packed[1](file, "wb"))
            for index in range(len(self._manifest)):
                line = next(before, b"")
                if index in self._journal:
                    journal.seek(self._journal[index][0])
                    line = written(parsed(journal.readline())[_RESULT])
                file.write(line)
        self._errors = {index for index in self._errors if index not in self._journal}
        self._errors |= {index for index, (_, failed) in self._journal.items() if failed}
        self._count = len(self._manifest)
        self._journal.clear()
        self._journal_path.unlink()


class _Lines:
    """A file that lines are added to. Each is whole or not there, and on the disk a second later."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> _Lines:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        with _reporting(self._path):
            self._file = os.open(self._path, flags, 0o666)
            self._end = os.fstat(self._file).st_size
        self._synced = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, line: bytes) -> int:
        """Add a line, and return where it begins."""
        begin, left = self._end, memoryview(line)
        with _reporting(self._path):
            try:
                while left:
                    left = left[os.write(self._file, left) :]
            except BaseException:
                os.ftruncate(self._file, begin)
                raise
            self._end += len(line)
            if time.monotonic() - self._synced > _SECONDS_BETWEEN_SYNCS:
                os.fsync(self._file)
                self._synced = time.monotonic()
        return begin

    def close(self) -> None:
        if self._file >= 0:
            with _reporting(self._path):
                try:
                    os.fsync(self._file)
                finally:
                    os.close(self._file)
                    self._file = -1


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """`new_file`, whose errors are no fault of what was given."""
    try:
        with new_file(path) as file:
            yield file
    except InputError as error:
        raise OutputError(f"{error}; the results are in {path.name}.journal, and the same command puts them here")


class _reporting:  # noqa: N801
    """Turns errors of the disk into an `OutputError`."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise OutputError(
                f"{name_of(self._path)}: cannot be written ({reason}); what is there is whole, and the same command "
                "goes on with it"
            ) from error


class _run_file:  # noqa: N801
    """``NAME.run.json``, locked, so that no two processes write the same results. The system frees it at a crash."""

    def __init__(self, path: Path, name: str, check: Callable[[Mapping[str, Any]], bool], content: Callable[[], Any]):
        self._path, self._name, self._check, self._content = path, name, check, content

    def __enter__(self) -> None:
        try:
            self._file: BinaryIO = open(self._path, "a+b")
        except OSError as error:
            raise InputError(f"{self._name}: cannot be written ({error.strerror or error})") from error
        try:
            _lock(self._file, self._name)
            self._file.seek(0)
            text = self._file.read()
            if text.endswith(b"\n") and self._check(_sound(text, 1, name_of(self._path))):
                return
            with _reporting(self._path):
                self._file.truncate(0)
                self._file.write(written(self._content()))
                self._file.flush()
                os.fsync(self._file.fileno())
        except BaseException:
            self._file.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _lock(file: BinaryIO, name: str) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: whoever starts a job twice is not noticed there
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise InputError(f"{name}: another process writes its results there") from None


def _cut_torn_line(path: Path) -> None:
    """Remove what follows the last end of a line: a run was cut off while it wrote that."""
    with open(path, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        whole = end
        while whole:
            start = max(0, whole - (1 << 16))
            file.seek(start)
            found = file.read(whole - start).rfind(b"\n")
            if found >= 0:
                whole = start + found + 1
                break
            whole = start
        if whole < end:
            file.truncate(whole)


def _sound(line: bytes, number: int, name: str) -> dict[str, Any]:
    try:
        return parsed(line)
    except ValueError as error:
        raise InputError(f"{name}: line {number} {error}: the file is damaged; repair or remove it") from None


def _difference(name: str, made: Any, wanted: Any) -> str:
    if name in ("model", "fusion") and made and wanted:
        what = "the model" if name == "model" else "a language model or a list of phrases"
        return f"{what} has another content"
    return f"{name} was {shown(made)}, and is now {shown(wanted)}"
