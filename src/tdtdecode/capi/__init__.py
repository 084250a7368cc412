"""Where the C library of this package is: its header ``tdtdecode.h`` and the shared library.

``python -m tdtdecode.capi --cflags --libs`` prints what a compiler needs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..kernels import _cpu

_NAMES = {"win32": "tdtdecode.dll", "darwin": "libtdtdecode.dylib"}


def include_directory() -> Path:
    """The folder of ``tdtdecode.h``."""
    return _installed() / "include"


def library_directory() -> Path:
    """The folder of the shared library."""
    return _installed() / "lib"


def library() -> Path:
    """The shared library."""
    return library_directory() / _NAMES.get(sys.platform, "libtdtdecode.so")


def _installed() -> Path:
    # The compiled files are where the extension modules are, which in an editable installation is not here.
    return Path(_cpu.__file__).parents[1] / "capi"
