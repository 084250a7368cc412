"""``python -m tdtdecode.capi``: what a compiler needs to use the C library of this package."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

from . import include_directory, library_directory


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the flags that are asked for, on one line."""
    parser = argparse.ArgumentParser(prog="python -m tdtdecode.capi", description=__doc__)
    parser.add_argument("--cflags", action="store_true", help="print the flags for the compiler")
    parser.add_argument("--libs", action="store_true", help="print the flags for the linker")
    options = parser.parse_args(arguments)
    if not (options.cflags or options.libs):
        parser.error("give --cflags, --libs or both")
    folder = str(library_directory())
    flags = [f"-I{include_directory()}"] if options.cflags else []
    if options.libs:
        flags += [f"-L{folder}", "-ltdtdecode", f"-Wl,-rpath,{folder}"]
    print(shlex.join(flags))


if __name__ == "__main__":
    main()
