"""The package as it is installed: versions, what is shipped, and how little an import loads."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

import tdtdecode as tdt
from tests.conftest import HANGING

ROOT = Path(__file__).parents[1]

HEAVY = ("onnx", "onnxruntime", "soundfile", "soxr", "numba", "huggingface_hub", "torch", "scipy")


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANGING)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_clone_names_one_version():
    """The release workflow compares the tag with the package and the changelog; a citation and the examples follow."""
    changes = re.findall(r"^## (\S+) \((20\d\d-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    citation = (ROOT / "CITATION.cff").read_text()
    assert changes[0][0] == tdt.__version__
    assert re.findall(r"^version: (.*)$", citation, re.M) == [tdt.__version__]
    assert re.findall(r'^date-released: "(.*)"$', citation, re.M) == [changes[0][1]]
    assert tomllib.loads((ROOT / "examples/rust/Cargo.toml").read_text())["package"]["version"] == tdt.__version__
    assert tomllib.loads((ROOT / "examples/rust/Cargo.lock").read_text())["package"][0]["version"] == tdt.__version__


def test_versions_agree():
    assert tdt.__version__ == importlib.metadata.version("tdtdecode")
    assert run("import runpy, sys; sys.argv = ['tdtdecode', '--version']\n"
               "try: runpy.run_module('tdtdecode', run_name='__main__')\n"
               "except SystemExit: pass").split() == ["tdtdecode", tdt.__version__]  # fmt: skip


def test_the_c_library_is_one_file():
    """A library with a version in its name would be there once more for each of its links."""
    names = [path.name for path in files("tdtdecode.capi").joinpath("lib").iterdir()]
    wanted = {"win32": ["tdtdecode.dll", "tdtdecode.lib"], "darwin": ["libtdtdecode.dylib"]}
    assert sorted(names) == wanted.get(sys.platform, ["libtdtdecode.so"])


@pytest.mark.parametrize("statement", ["import tdtdecode", "from tdtdecode import load_model, Recognizer"])
def test_imports_are_light(statement):
    loaded = run(f"import sys; {statement}; print(*(name for name in {HEAVY} if name in sys.modules))")
    assert loaded.split() == []


def test_all_names_exist():
    assert len(tdt.__all__) == len(set(tdt.__all__))
    for name in tdt.__all__:
        assert getattr(tdt, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Lattice'"):
        tdt.Lattice  # noqa: B018


def test_what_is_shipped():
    package = files("tdtdecode")
    for name in ("py.typed", "kernels/_cpu.pyi", "demo/README.md", "demo/speech.flac", "demo/encoder-model.onnx"):
        assert package.joinpath(name).is_file(), name
    assert sum(file.stat().st_size for file in package.joinpath("demo").iterdir()) < 4_000_000


def test_numpy_alone_decodes_and_says_what_a_bundle_needs(tmp_path):
    blocked = "; ".join(f"sys.modules[{name!r}] = None" for name in HEAVY)
    printed = run(f"""
import sys; {blocked}
import numpy as np, tdtdecode as tdt
network = tdt.CallableNetwork(
    lambda tokens, state: (np.zeros((len(tokens), 1), np.float32), np.zeros(len(tokens))),
    lambda frames, g: np.tile(np.float32([1, 0, 0, 1]), (len(frames), 1)),
    lambda state, index: state[index],
)
decoder = tdt.Decoder(network, spec=tdt.TransducerSpec(1, (1, 2)))
print(decoder.decode(np.zeros((1, 3, 5), np.float32))[0].frames.tolist())
print([kernels.name for kernels in tdt.kernels.available()][:2])
try:
    tdt.Decoder.from_bundle({str(tmp_path)!r})
except tdt.MissingDependencyError as error:
    print(error)
""").splitlines()
    assert printed[0] == "[0, 2, 4]" and printed[1] == "['reference', 'cpu-baseline']"
    assert "tdtdecode[cpu]" in printed[2]
