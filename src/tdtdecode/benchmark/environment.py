"""What every result states: hardware and versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any

from .. import kernels


def environment(*packages: str) -> dict[str, Any]:
    """The date, the machine, the kernel sets that it can run, and the versions of those packages that are installed."""
    versions = {name: installed(name) for name in ("tdtdecode", "numpy", *packages)}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "kernels": [kernel_set.name for kernel_set in kernels.available()],
        "python": platform.python_version(),
        "versions": {name: version for name, version in versions.items() if version is not None},
    }


def installed(package: str) -> str | None:
    """The version of a package, by its name in the package index; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    return (
        f"{fields.get('model name', platform.machine())} "
        f"(family {fields.get('cpu family', '?')}, model {fields.get('model', '?')})"
    )
