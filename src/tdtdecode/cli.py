"""The command line, ``tdtdecode``.

Hardly anything is imported before `main` runs, so that it answers an interrupt from the beginning.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import NOTICE, TdtDecodeError, TdtDecodeWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType
    from typing import TextIO

# The statuses that a shell reports for programs ended by a signal: 128 + SIGINT and 128 + SIGPIPE.
_INTERRUPTED = 130
_PIPE_CLOSED = 141
_STANDARD_ERROR = 2
_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""Why standard output cannot be written. Other files that cannot be are reported by those who write them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments:
        The arguments after the program's name. Default: those of this process.

    Returns
    -------
    The exit status. 0: all is done. 1: some inputs failed, and the others were done; or a directory has problems.
    2: wrong usage, such as a model that does not exist. 130: interrupted. 141: the reader of the output has gone. If
    standard output or standard error cannot be written, because the disk is full for example, the status is 1.
    """
    _open_closed_streams()
    _use_utf8()
    sys.stderr = messages = _Messages(sys.stderr)
    status = 0
    interrupts: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    handled = _handle_interrupts(note)
    try:
        try:
            status = _command(arguments)
        except KeyboardInterrupt:
            interrupts.append(signal.SIGINT)
        # What follows an interrupt is its consequence: a package may turn it into an error of its own, or drop it.
        except (TdtDecodeError, TdtDecodeWarning) as error:
            if not interrupts:
                from .commands.status import WRONG_USAGE

                print(f"tdtdecode: {error}", file=sys.stderr)
                status = WRONG_USAGE
        except OSError as error:
            if not interrupts:
                status = _output_failed(error)
        except Exception:
            if not interrupts:
                raise
        if interrupts:
            print("tdtdecode: interrupted", file=sys.stderr)
            status = _INTERRUPTED
    finally:
        sys.stderr = messages.stream
        if handled:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if messages.lost and not status:
        from .commands.status import SOME_FAILED

        return SOME_FAILED
    return status


def _output_failed(error: OSError) -> int:
    """The status where standard output cannot be written. Any other error is raised again."""
    from .commands.status import SOME_FAILED

    if isinstance(error, BrokenPipeError):
        _discard_output()
        return _PIPE_CLOSED
    if error.errno not in _OUTPUT_ERRORS or error.filename is not None:
        raise error
    _discard_output()
    print(f"tdtdecode: standard output cannot be written ({error.strerror or error})", file=sys.stderr)
    return SOME_FAILED


def _open_closed_streams() -> None:
    """Give each standard stream that is closed a place, else the next file that is opened takes it.

    Libraries print messages to standard error by its number. They would stand in that file.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        pass
    os.close(opened)
    if sys.stdout is None:
        sys.stdout = _ClosedOutput()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")


class _Messages(io.TextIOBase):
    """Standard error. A message that cannot be written, as the disk is full, is lost, and the work goes on."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.lost = False

    def write(self, text: str, /) -> int:
        try:
            return self.stream.write(text)
        except OSError:
            self.lost = True
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError:
            self.lost = True

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()


class _ClosedOutput(io.TextIOBase):
    """Stands for standard output where it is closed, so that writing there is an error that can be reported."""

    def write(self, text: str, /) -> int:
        raise OSError(errno.EBADF, "it is closed")


def _discard_output() -> None:
    """Python flushes stdout again at exit, which would fail again and print a traceback."""
    if not isinstance(sys.stdout, _ClosedOutput):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _command(arguments: Sequence[str] | None) -> int:
    """Run a command and return its status."""
    import argparse
    import logging
    import warnings

    from .commands import COMMANDS

    parser = argparse.ArgumentParser(prog="tdtdecode", description="Speech recognition with TDT transducer models.")
    parser.add_argument("--version", action="version", version=f"tdtdecode {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        command.add_arguments(subparsers.add_parser(name, help=command.HELP, description=command.HELP))
    logging.basicConfig(format="tdtdecode: %(message)s", level=logging.WARNING)
    try:
        options = parser.parse_args(arguments)
        logging.getLogger(__package__).setLevel(logging.INFO if getattr(options, "verbose", False) else NOTICE)
        with warnings.catch_warnings():
            warnings.simplefilter("error" if getattr(options, "strict", False) else "always", TdtDecodeWarning)
            warnings.showwarning = partial(_show_warning, warnings.showwarning)
            return COMMANDS[options.command].run(options)
    finally:
        sys.stdout.flush()


def _show_warning(
    show_others: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any, **more: Any
) -> None:
    """Our own warnings in one line; those of other packages as Python shows them."""
    if issubclass(category, TdtDecodeWarning):
        print(f"tdtdecode: warning: {message}", file=sys.stderr)
    else:
        show_others(message, category, *place, **more)


def _handle_interrupts(handler: Callable[[int, FrameType | None], None]) -> bool:
    """Handle interrupts, if Python would raise a KeyboardInterrupt for them, and say whether that is so."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False
    try:
        signal.signal(signal.SIGINT, handler)
    except ValueError:  # not in the main thread, which gets all interrupts
        return False
    return True


def _use_utf8() -> None:
    """Write UTF-8, whatever the locale, so that any text can be printed. File names that are not UTF-8 are escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
