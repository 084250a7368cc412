"""Imports run downwards, and in no circle: the contracts in setup.cfg."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def test_the_import_contracts_are_kept():
    pytest.importorskip("importlinter", reason="import-linter is not installed")
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-cache"], cwd=Path(__file__).parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
