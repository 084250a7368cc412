"""The command line, ``tdtdecode``."""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import sys
from collections.abc import Sequence

from . import __version__
from .commands import COMMANDS
from .commands.status import SOME_FAILED, WRONG_USAGE
from .errors import TdtDecodeError, TdtDecodeWarning

# The statuses that a shell reports for programs ended by a signal: 128 + SIGINT and 128 + SIGPIPE.
_INTERRUPTED = 130
_PIPE_CLOSED = 141
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
    standard output cannot be written, because the disk is full for example, the status is 1.
    """
    if sys.stdout is None:
        sys.stdout = _ClosedOutput()
    _use_utf8()
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return _PIPE_CLOSED
    except OSError as error:
        if error.errno not in _OUTPUT_ERRORS or error.filename is not None:
            raise
        _discard_output()
        print(f"tdtdecode: standard output cannot be written ({error.strerror or error})", file=sys.stderr)
        return SOME_FAILED


def _run(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="tdtdecode: %(message)s", level=logging.WARNING)
    logging.getLogger(__package__).setLevel(logging.INFO)
    try:
        return COMMANDS[options.command].run(options)
    except (TdtDecodeError, TdtDecodeWarning) as error:
        print(f"tdtdecode: {error}", file=sys.stderr)
        return WRONG_USAGE
    except KeyboardInterrupt:
        print("tdtdecode: interrupted", file=sys.stderr)
        return _INTERRUPTED


class _ClosedOutput(io.TextIOBase):
    """Stands for standard output where it is closed, so that writing there is an error that can be reported."""

    def write(self, text: str, /) -> int:
        raise OSError(errno.EBADF, "it is closed")


def _discard_output() -> None:
    """Python flushes stdout again at exit, which would fail again and print a traceback."""
    if not isinstance(sys.stdout, _ClosedOutput):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tdtdecode", description="Speech recognition with TDT transducer models.")
    parser.add_argument("--version", action="version", version=f"tdtdecode {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        command.add_arguments(subparsers.add_parser(name, help=command.HELP, description=command.HELP))
    return parser


def _use_utf8() -> None:
    """Write UTF-8, whatever the locale, so that any text can be printed. File names that are not UTF-8 are escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
