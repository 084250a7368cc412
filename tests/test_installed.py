"""Tests notice that the installed package is not the one whose sources lie beside them."""

from __future__ import annotations

import hashlib
import shutil

import pytest

from tests.installed import stale_files


@pytest.fixture
def places(tmp_path):
    """A small repository and its package: (root, installed copy, what it was compiled from)."""
    root, package = tmp_path / "root", tmp_path / "site" / "tdtdecode"
    for name, text in {
        "src/tdtdecode/decoder.py": "decode",
        "src/tdtdecode/demo/model.onnx": "weights",
        "src/tdtdecode/kernels/_cpu.pyx": "cython",
        "csrc/tdt/row.h": "rules",
        "csrc/cuda/rows.cu": "kernels",
        "csrc/cpu/beam.cpp": "beams",
        "CMakeLists.txt": "build",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    shutil.copytree(root / "src" / "tdtdecode", package)
    for folder in ("csrc/tdt", "csrc/cuda"):
        shutil.copytree(root / folder, package / folder)
    compiled = ("csrc/cpu/beam.cpp", "csrc/tdt/row.h", "src/tdtdecode/kernels/_cpu.pyx", "CMakeLists.txt")
    lines = [f"{hashlib.sha256((root / name).read_bytes()).hexdigest()}  {name}\n" for name in compiled]
    (package / "compiled_from.txt").write_text("".join(lines))
    (package / "kernels" / "__pycache__").mkdir()
    return root, package, package / "compiled_from.txt"


def test_a_copy_of_the_same_sources(places):
    assert stale_files(*places) == []


@pytest.mark.parametrize(
    "name",
    ["src/tdtdecode/decoder.py", "src/tdtdecode/demo/model.onnx", "src/tdtdecode/kernels/_cpu.pyx", "csrc/tdt/row.h",
     "csrc/cuda/rows.cu", "csrc/cpu/beam.cpp", "CMakeLists.txt", "src/tdtdecode/new.py", "csrc/cpu/new.cpp"],
)  # fmt: skip
def test_what_was_edited_or_added(places, name):
    (places[0] / name).write_text("edited")
    assert stale_files(*places) == [name]


@pytest.mark.parametrize("name", ["src/tdtdecode/decoder.py", "csrc/cpu/beam.cpp"])
def test_what_was_removed(places, name):
    (places[0] / name).unlink()
    assert stale_files(*places) == [name]


def test_an_editable_installation_needs_compiling_alone(places):
    root, _, compiled_from = places
    (root / "src/tdtdecode/decoder.py").write_text("edited")
    (root / "csrc/cuda/rows.cu").write_text("edited")
    assert stale_files(root, root / "src" / "tdtdecode", compiled_from) == []
    (root / "csrc/cpu/beam.cpp").write_text("edited")
    assert stale_files(root, root / "src" / "tdtdecode", compiled_from) == ["csrc/cpu/beam.cpp"]


def test_a_build_that_says_nothing_of_its_sources(places):
    places[2].unlink()
    assert "csrc/cpu/beam.cpp" in stale_files(*places)
