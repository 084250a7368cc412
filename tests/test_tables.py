"""What is added in several places is in all of them. `docs/architecture.md` lists the places."""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path

import pytest

from tests.conftest import CELLS

CMAKE = Path(__file__).parents[1] / "CMakeLists.txt"


def test_layouts():
    from benches import random_bundle
    from tdtdecode.bundle import LAYOUTS
    from tdtdecode.prepare.inspection import evidence
    from tdtdecode.prepare.writing import WRITERS

    for table in (WRITERS, evidence.GRAPH_NAMES, evidence.TOKEN_FILES, random_bundle.LAYOUTS):
        assert set(table) == set(LAYOUTS)


def test_networks():
    from tdtdecode.networks.choice import NETWORKS

    assert {network for network, _ in CELLS} == set(NETWORKS) - {"auto"}


@pytest.mark.skipif(
    sys.platform == "win32" or platform.machine() not in ("x86_64", "AMD64"), reason="fewer sets are compiled here"
)
def test_instruction_sets():
    from tdtdecode.kernels import _cpu

    text = CMAKE.read_text(encoding="utf-8")
    compiled = [names.split() for names in re.findall(r"list\(APPEND TDT_ISAS ([\w ]+)\)", text)]  # by processor
    names = [name for name, _ in _cpu.instruction_sets()]
    assert names[0] == "baseline" and names[1:] in [*compiled, []]
    for name in sum(compiled, []):
        assert f"set(TDT_FLAGS_{name} " in text
