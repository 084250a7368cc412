"""The AMX kernels on any processor: the same source, with emulated tile registers."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tdtdecode.networks.packing import Format, pack
from tdtdecode.weights import Affine
from tests.shared import made_once

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("g++") or shutil.which("clang++")

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler to build the emulation with")


@pytest.fixture(scope="module")
def libraries():
    """The kernels with emulated tiles, and the portable ones."""
    source = ROOT / "tests" / "host_amx" / "kernels.cpp"
    texts = [path.read_bytes() for path in (source, *sorted(ROOT.glob("csrc/*/*.*")))]
    digest = hashlib.sha256(b"".join(texts)).hexdigest()[:20]
    built = {}
    for name, options in {"tiles": ["-DTDT_EMULATE_TILES"], "portable": []}.items():
        command = [COMPILER, "-std=c++17", "-O2", "-ffp-contract=off", "-shared", "-fPIC", f"-DTDT_ISA={name}"]
        command += [*options, "-I", ROOT / "csrc", "-I", ROOT / "csrc/cpu", source, "-o"]
        file = made_once(
            f"amx-{name}-{digest}.so",
            lambda file, command=command: subprocess.run([*command, file], check=True, capture_output=True),
        )
        built[name] = ctypes.CDLL(str(file))
    return built


def product(library, packed, rows):
    def address(array):
        return None if array is None else ctypes.c_void_p(array.ctypes.data)

    out = np.full((len(rows), packed.outputs), np.nan, np.float32)
    library.multiply(
        int(packed.format), packed.outputs, packed.inputs, address(packed.panels), address(packed.bias),
        address(packed.scales), address(packed.sums), address(rows), len(rows), address(out),
    )  # fmt: skip
    return out


def example(outputs, inputs, rows, seed):
    rng = np.random.default_rng(seed)
    affine = Affine(
        rng.standard_normal((outputs, inputs)).astype(np.float32), rng.standard_normal(outputs).astype(np.float32)
    )
    return affine, rng.standard_normal((rows, inputs)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 5, 16, 17, 40])
@pytest.mark.parametrize("outputs, inputs", [(64, 64), (130, 100), (40, 7), (200, 640)])
def test_8_bit_products_are_those_of_the_portable_kernels(libraries, outputs, inputs, count):
    affine, rows = example(outputs, inputs, count, seed=count)
    for signed in (rows, np.abs(rows)):
        packed = pack(affine, Format.INT8)
        results = [product(library, packed, signed) for library in libraries.values()]
        np.testing.assert_array_equal(*results)
        exact = signed @ affine.weight.T + affine.bias
        np.testing.assert_allclose(results[0][:, :outputs], exact, atol=0.1 * inputs**0.5)


@pytest.mark.parametrize("count", [1, 5, 16, 17, 40])
@pytest.mark.parametrize("outputs, inputs", [(64, 64), (130, 100), (40, 7), (200, 640)])
def test_bfloat16_products_differ_by_the_order_of_sums_alone(libraries, outputs, inputs, count):
    affine, rows = example(outputs, inputs, count, seed=count)
    packed = pack(affine, Format.BFLOAT16_PAIRS)
    tiles, portable = (product(libraries[name], packed, rows) for name in ("tiles", "portable"))
    np.testing.assert_allclose(tiles, portable, atol=1e-4)
    np.testing.assert_array_equal(tiles[:1], product(libraries["tiles"], packed, rows[:1]))
