"""What every result states: hardware and versions."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path

import tdtdecode as tdt

RESULTS = Path(__file__).parent / "results"


def environment(*packages: str) -> dict:
    """The machine, the kernel sets that it can run, and the versions of the packages measured."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "kernels": [kernels.name for kernels in tdt.kernels.available()],
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("tdtdecode", "numpy", *packages)},
    }


def installed(package: str) -> bool:
    """Whether a package is installed, by its name in the package index."""
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


def save(name: str, result: dict) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written: {path}")


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
