"""What is built once: for all tests of a run, for pytest-xdist's workers, and for the next run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

BUILT = Path(__file__).parents[1] / "build" / "tests"


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """The file ``build/tests/NAME``, made by ``make(path)`` unless it is there; other processes wait for it meanwhile.

    The name tells everything that the file is made from, by a digest for example.
    """
    BUILT.mkdir(parents=True, exist_ok=True)
    file = BUILT / name
    with _locked(BUILT / f"{name}.lock"):
        if not file.exists():
            making = BUILT / f"{name}.making"
            make(making)
            making.rename(file)
    return file


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # Windows, where nothing is built
        yield
        return
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
