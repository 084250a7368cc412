"""The exceptions that callers may catch, and the warnings that they may turn into exceptions."""

from __future__ import annotations

import re
from os import PathLike

_UNPRINTABLE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What names may hold and messages may not: control characters, which a terminal obeys, marks that turn the direction
of text, and surrogates, which stand for bytes that are no text."""


def printable(text: str) -> str:
    """A text with escapes for what cannot be printed, or would not be seen as it is. Lines and tabs stay."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


NOTICE = 25
"""The level of log lines that the command line prints unasked, between INFO and WARNING: what was chosen that nobody
asked for."""


class TdtDecodeError(Exception):
    """Base of all errors that this package raises on purpose. The message can be printed, whatever names are in it."""

    def __str__(self) -> str:
        return printable(super().__str__())


class InputError(TdtDecodeError, ValueError):
    """An argument has the wrong type, shape, dtype or range, or a recording cannot be used."""


class BundleError(TdtDecodeError, ValueError):
    """A model directory cannot be used.

    The message names the file, then the field, then what is wrong and what was expected.

    Attributes
    ----------
    problem:
        The message without file and field.
    file:
        The file's path, or the directory's.
    field:
        The place in the file; None if it is the file as a whole.
    """

    def __init__(self, problem: str, *, file: str | PathLike[str], field: str | None = None):
        self.problem = problem
        self.file = str(file)
        self.field = field
        super().__init__(f"{self.file}: {f'{field}: ' if field else ''}{problem}")

    def __reduce__(self):
        return _rebuild_bundle_error, (self.problem, self.file, self.field)


class DeviceError(TdtDecodeError, RuntimeError):
    """The requested device, or data on it, cannot be used."""


class OutputError(TdtDecodeError, RuntimeError):
    """Results cannot be written, as the disk is full for example. What was written before is whole."""


class MissingDependencyError(TdtDecodeError, ImportError):
    """An optional package is missing, or broken. The message names it, and how to install it: by an extra, mostly."""

    def __init__(self, package: str, extra: str, purpose: str, reason: str = "", command: str = ""):
        self._made_of = package, extra, purpose, reason, command
        broken = f", which is installed but cannot be imported ({reason})" if reason else ""
        command = command or f"pip install 'tdtdecode[{extra}]'"
        super().__init__(f"{purpose} needs the package {package!r}{broken}: {command}", name=package)

    def __reduce__(self):
        return type(self), self._made_of


class UnsupportedVersionError(TdtDecodeError, ImportError):
    """A package is installed in a release that is not supported. The message names both releases."""

    def __init__(self, package: str, found: str, supported: str):
        self._made_of = package, found, supported
        super().__init__(
            f"{package} {found} is installed; the supported release is {supported}: "
            f"pip install '{package}=={supported}'",
            name=package,
        )

    def __reduce__(self):
        return type(self), self._made_of


class TdtDecodeWarning(UserWarning):
    """Base of all warnings of this package: a result may be incomplete or doubtful, and the message says why. It can be
    printed, whatever names are in it.

    ``warnings.simplefilter("error", TdtDecodeWarning)`` turns them into exceptions, as ``--strict`` does on the command
    line.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class AudioWarning(TdtDecodeWarning):
    """A recording is shorter or longer than its header says, or some of its channels had to be chosen."""


class LanguageModelWarning(TdtDecodeWarning):
    """A language model knows few of the vocabulary's tokens, or its words are other units than these tokens."""


class PhraseWarning(TdtDecodeWarning):
    """A phrase cannot be spelt with the vocabulary and is left out."""


class SlowerWarning(TdtDecodeWarning):
    """Something slower than usual had to be chosen: the result is the same, and the message says why."""


class SkippedInputWarning(TdtDecodeWarning):
    """An input was skipped."""


def _rebuild_bundle_error(problem: str, file: str, field: str | None) -> BundleError:
    return BundleError(problem, file=file, field=field)
