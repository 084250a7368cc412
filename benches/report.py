"""Where results are kept, and what every result states: hardware and versions."""

from __future__ import annotations

import json
from pathlib import Path

from tdtdecode.benchmark.environment import environment, installed

__all__ = ["RESULTS", "environment", "installed", "save"]

RESULTS = Path(__file__).parent / "results"


def save(name: str, result: dict) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written: {path}")
