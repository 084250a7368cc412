"""What the fuzzers share: cases are tried in child processes, with limits on memory and time."""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import resource
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO


@dataclass(frozen=True)
class Fuzzer:
    """How cases are made and tried.

    Attributes
    ----------
    make:
        Makes the case with a number. It is called without limits.
    attempt:
        Tries a case, and returns in a few words what came of it. Any exception is a finding.
    described:
        What a finding says of the case.
    memory:
        Address space, in bytes, that a case may use beyond what the process has before it.
    seconds:
        Time limit of a case.
    cases_per_child:
        How many cases one process tries.
    begin:
        Called in each child process before its first case.
    """

    make: Callable[[int], Any]
    attempt: Callable[[Any], str]
    described: Callable[[Any], str]
    memory: int
    seconds: int
    cases_per_child: int
    begin: Callable[[], object] = lambda: None

    def run(self, seconds: float) -> None:
        """Try cases for that long, and print the findings and the counts."""
        end = time.monotonic() + seconds
        number, findings = 0, 0
        outcomes: Counter[str] = Counter()
        while time.monotonic() < end:
            read_end, write_end = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(read_end)
                try:
                    self._child(number, os.fdopen(write_end, "w", buffering=1), end)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(1)
            os.close(write_end)
            current, finished = number, False
            with os.fdopen(read_end) as report:
                for line in report:
                    kind, _, text = line.rstrip("\n").partition(" ")
                    if kind == "begin":
                        current = int(text)
                    elif kind == "end":
                        outcomes[text] += 1
                    elif kind == "finding":
                        findings += 1
                        print(f"case {current}: {json.loads(text)}", flush=True)
                    elif kind == "done":
                        finished = True
            _, status = os.waitpid(child, 0)
            if not finished:
                findings += 1
                how = signal.Signals(status & 127).name if status & 127 else f"exit {status >> 8}"
                print(f"case {current}: the process ended with {how}", flush=True)
            number = current + 1
            print(f"{number} cases, {findings} findings, {dict(outcomes)}", flush=True)

    def _child(self, number: int, report: TextIO, end: float) -> None:
        faulthandler.enable()
        parent = os.getppid()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        self.begin()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for current in range(number, number + self.cases_per_child):
            if time.monotonic() > end or os.getppid() != parent:
                break
            case = self.make(current)
            report.write(f"begin {current}\n")
            signal.alarm(self.seconds)
            faulthandler.dump_traceback_later(self.seconds - 5)  # shows where it hangs
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + self.memory, resource.RLIM_INFINITY))
            try:
                outcome = self.attempt(case)
            except BaseException as error:
                outcome = "finding"
                last = traceback.extract_tb(error.__traceback__)[-1]
                what = f"{type(error).__name__}: {str(error)[:200]} at {last.filename}:{last.lineno}"
                report.write(f"finding {json.dumps(f'{self.described(case)}: {what}')}\n")
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            signal.alarm(0)
            faulthandler.cancel_dump_traceback_later()
            report.write(f"end {outcome}\n")
        report.write("done \n")
        report.flush()
        os._exit(0)


def options(description: str | None) -> argparse.Namespace:
    """The options of a fuzzer's command line: how long, which seed, or which case alone."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="run only this case, in this process")
    return parser.parse_args()
