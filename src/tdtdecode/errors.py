"""The exceptions that callers may catch, and the warnings that they may turn into exceptions."""

from __future__ import annotations

from os import PathLike


class TdtDecodeError(Exception):
    """Base of every error raised on purpose by this package."""


class InputError(TdtDecodeError, ValueError):
    """An argument has the wrong type, shape, dtype or range, or a recording cannot be used."""


class BundleError(TdtDecodeError, ValueError):
    """A model directory cannot be used.

    The message names the file, then the field, then what was wrong and what was expected.
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


class MissingDependencyError(TdtDecodeError, ImportError):
    """An optional package is needed; the message names it and the extra that installs it."""

    def __init__(self, package: str, extra: str, purpose: str):
        self._made_of = package, extra, purpose
        super().__init__(f"{purpose} needs the package {package!r}: pip install 'tdtdecode[{extra}]'", name=package)

    def __reduce__(self):
        return type(self), self._made_of


class UnsupportedVersionError(TdtDecodeError, ImportError):
    """A package is installed in a release that is not supported; the message names both."""

    def __init__(self, package: str, found: str, supported: str):
        self._made_of = package, found, supported
        super().__init__(
            f"{package} {found} is installed; supported is {supported}: pip install '{package}=={supported}'",
            name=package,
        )

    def __reduce__(self):
        return type(self), self._made_of


class TdtDecodeWarning(UserWarning):
    """Base of every warning of this package: a result may be incomplete or doubtful, and the message says why.

    ``warnings.simplefilter("error", TdtDecodeWarning)`` makes each an exception, as ``--strict`` does on the command
    line.
    """


class AudioWarning(TdtDecodeWarning):
    """A recording is shorter or longer than its header says, or its channels had to be chosen from."""


class LanguageModelWarning(TdtDecodeWarning):
    """A language model knows few of the vocabulary's tokens, or its words are other units."""


class PhraseWarning(TdtDecodeWarning):
    """A phrase cannot be spelt with the vocabulary and is left out."""


class SkippedInputWarning(TdtDecodeWarning):
    """An input was passed over."""


def _rebuild_bundle_error(problem: str, file: str, field: str | None) -> BundleError:
    return BundleError(problem, file=file, field=field)
