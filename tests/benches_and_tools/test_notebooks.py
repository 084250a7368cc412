"""The notebooks in examples/ run from their first cell to their last, and are kept with what they printed and drew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "examples/notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
SLOW = {"beam_size", "precision", "scoring_function"}
LARGEST_OUTPUT = 150_000
"""Bytes of an output, as it stands in the file."""


def code_cells(name: str) -> list[dict[str, Any]]:
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_there_is_one_for_each_experiment():
    listed = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert NOTEBOOKS and all(f"]({name}.ipynb)" in listed for name in NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_is_kept_comes_from_one_run(name):
    """All cells were run, in order and without an error, and what they gave is small."""
    cells = code_cells(name)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs), "a picture"
    for output in outputs:
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr", "warnings are no result"
        assert len(json.dumps(output)) < LARGEST_OUTPUT


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.exhaustive if name in SLOW else ()) for name in NOTEBOOKS]
)
def test_it_runs(name):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (extra notebooks)")
    for package in ("ipykernel", "matplotlib", "numba", "jiwer"):
        pytest.importorskip(package, reason=f"{package} is not installed (extra notebooks)")
    import nbformat

    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
