"""The command line, ``tdtdecode``.

Hardly anything is imported before `main` runs, so that it answers an interrupt from the beginning.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from . import __version__
from .errors import TdtDecodeError, TdtDecodeWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

# The statuses that a shell reports for programs ended by a signal: 128 + SIGINT and 128 + SIGPIPE.
_INTERRUPTED = 130
_PIPE_CLOSED = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments:
        The arguments after the program's name. Default: those of this process.

    Returns
    -------
    The exit status. 0: all is done. 1: some inputs failed, and the others were done; or a directory has problems.
    2: wrong usage, such as a model that does not exist. 130: interrupted. 141: the reader of the output has gone.
    """
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
        except BrokenPipeError:
            if not interrupts:
                # Python flushes stdout again at exit, which would fail again and print a traceback.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                status = _PIPE_CLOSED
        except Exception:
            if not interrupts:
                raise
        if interrupts:
            print("tdtdecode: interrupted", file=sys.stderr)
            status = _INTERRUPTED
    finally:
        if handled:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    return status


def _command(arguments: Sequence[str] | None) -> int:
    """Run a command and return its status."""
    import argparse
    import logging

    from .commands import COMMANDS

    parser = argparse.ArgumentParser(prog="tdtdecode", description="Speech recognition with TDT transducer models.")
    parser.add_argument("--version", action="version", version=f"tdtdecode {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        command.add_arguments(subparsers.add_parser(name, help=command.HELP, description=command.HELP))
    options = parser.parse_args(arguments)
    _use_utf8()
    logging.basicConfig(format="tdtdecode: %(message)s", level=logging.WARNING)
    logging.getLogger(__package__).setLevel(logging.INFO)
    status = COMMANDS[options.command].run(options)
    sys.stdout.flush()
    return status


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
    import io

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
