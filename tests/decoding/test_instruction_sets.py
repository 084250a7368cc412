"""The kernels of every instruction set give the same results: on this processor, and on others by emulation."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.shared import made_once

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("instruction_sets.cpp")
KERNELS = [
    "stage", "multiply", "multiply_some", "lstm_cell", "hidden", "likeliest", "survivors", "read", "decide_rows",
    "rank_row",
]  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A processor to compile for."""

    name: str
    compiler: str
    options: tuple[str, ...] = ()  # of cmake


NATIVE = Target("native", "g++")
AARCH64 = Target(
    "aarch64", "aarch64-linux-gnu-g++", ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64")
)
EMULATED = [  # what is emulated: the target and its processor, and parts of the names of sets that it does not have
    pytest.param(AARCH64, "qemu-aarch64", "max", set(), id="aarch64"),
    pytest.param(AARCH64, "qemu-aarch64", "cortex-a72", {"dotprod", "bf16"}, id="aarch64-2015"),
    pytest.param(NATIVE, "qemu-x86_64", "Haswell", {"avxvnni", "avx512", "amx"}, id="x86-64-2013"),
    pytest.param(NATIVE, "qemu-x86_64", "Nehalem", {"avx", "amx"}, id="x86-64-2008"),
]


def program(target: Target) -> Path:
    """The program, compiled with the kernels by the project's own build."""
    for tool in ("cmake", target.compiler):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    csrc = ROOT / "csrc"
    texts = [path.read_bytes() for path in (PROGRAM, ROOT / "CMakeLists.txt", *sorted(csrc.glob("*/*.*")))]

    def build(file: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            compilers = [f"-DCMAKE_CXX_COMPILER={target.compiler}", f"-DCMAKE_C_COMPILER={target.compiler[:-2]}cc"]
            run("cmake", "-S", ROOT, "-B", folder, "-DTDT_C_LIBRARY=ON", *compilers, *target.options)
            run("cmake", "--build", folder, "--target", "tdt_cpu", "--parallel", "2")
            run(
                target.compiler, "-std=c++17", "-O2", "-ffp-contract=off", "-static", f"-I{csrc}", f"-I{csrc / 'cpu'}",
                PROGRAM, Path(folder) / "libtdt_cpu.a", "-pthread", "-o", file,
            )  # fmt: skip

    return made_once(f"instruction-sets-{target.name}-{hashlib.sha256(b''.join(texts)).hexdigest()[:20]}", build)


def run(*command: object, status: int = 0) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=900)
    assert done.returncode == status, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def sets(output: str) -> tuple[set[str], set[str]]:
    """The instruction sets that were compared, without any difference, and those that the processor does not have."""
    compared = set(re.findall(r"^([\w-]+): [1-9]\d{5,} comparisons, 0 differ$", output, re.MULTILINE))
    missing = set(re.findall(r"^([\w-]+): not on this processor$", output, re.MULTILINE))
    assert len(compared) + len(missing) == len(output.splitlines()), output
    return compared, missing


def test_on_this_processor():
    compared, _ = sets(run(program(NATIVE)))
    assert "baseline" in compared


@pytest.mark.exhaustive
@pytest.mark.parametrize("target, emulator, processor, absent", EMULATED)
def test_emulated(target, emulator, processor, absent):
    if not shutil.which(emulator):
        pytest.skip(f"{emulator} is not installed")
    if target is NATIVE and b"\x3e\x00" != (header := program(NATIVE).read_bytes()[18:20]):
        pytest.skip(f"this machine is no x86-64 (ELF machine {header.hex()})")
    compared, missing = sets(run(emulator, "-cpu", processor, program(target)))
    assert "baseline" in compared
    assert all(any(part in name for part in absent) for name in missing), missing
    assert not any(any(part in name for part in absent) for name in compared), compared


@pytest.mark.exhaustive
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_wrong_kernel_is_noticed(kernel):
    output = run(program(NATIVE), "--wrong", kernel, status=1)
    wrong = set(re.findall(r"^\w+: (\w+) \(", output, re.MULTILINE))
    assert wrong == {kernel}
