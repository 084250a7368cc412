"""The library compiles for every target that its documentation lists, and gives the same words where it can be run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
RECORDED = EXAMPLES / "recorded"
ARGUMENTS = [RECORDED / "demo.tdt", RECORDED / "encoder_output.f32"]


@dataclass(frozen=True)
class Target:
    """What to compile with, and what runs the programs."""

    tools: tuple[str, ...]  # the C compiler first, then the C++ compiler
    system: dict[str, str] = field(default_factory=dict)  # cmake's variables
    emulator: tuple[str, ...] | None = ()  # None: nothing here runs its programs
    suffix: str = ""


TARGETS = {
    "Linux, x86-64": Target(("gcc", "g++")),
    "Linux, aarch64": Target(
        ("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++"),
        {"CMAKE_SYSTEM_NAME": "Linux", "CMAKE_SYSTEM_PROCESSOR": "aarch64"},
        ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"),
    ),
    "Windows, x86-64": Target(
        ("x86_64-w64-mingw32-gcc-posix", "x86_64-w64-mingw32-g++-posix"),
        {"CMAKE_SYSTEM_NAME": "Windows", "CMAKE_SYSTEM_PROCESSOR": "AMD64", "CMAKE_EXE_LINKER_FLAGS": "-static"},
        ("wine",),
        ".exe",
    ),
    "macOS, aarch64": Target(
        ("zig cc -target aarch64-macos", "zig c++ -target aarch64-macos"),
        {"CMAKE_SYSTEM_NAME": "Darwin", "CMAKE_SYSTEM_PROCESSOR": "arm64"},
        None,
    ),
}
WEB = "WebAssembly"

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the cross compilers are those of Linux")


def run(*command: object, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=900, env={**os.environ, **environment}
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def needs(*tools: str) -> None:
    for tool in tools:
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")


def zig(tool: str, folder: Path) -> Path:
    """A program that calls Zig, which the package ziglang brings: cmake wants a path."""
    pytest.importorskip("ziglang")
    file = folder / re.sub(r"\W+", "-", tool)
    file.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ziglang {tool.removeprefix("zig ")} "$@"\n')
    file.chmod(0o755)
    return file


def words() -> str:
    return (RECORDED / "words.txt").read_text(encoding="utf-8")


@linux
@pytest.mark.exhaustive
@pytest.mark.parametrize("name", TARGETS)
def test_compiled_library_and_example(name, tmp_path):
    """The library, and the example in C with the shared and the static one, which cmake finds where it is installed."""
    target = TARGETS[name]
    variables = dict(target.system)
    if target.tools[0].startswith("zig "):
        variables |= {
            variable: str(zig(tool, tmp_path))
            for variable, tool in zip(("CMAKE_C_COMPILER", "CMAKE_CXX_COMPILER"), target.tools, strict=True)
        }
        variables |= {"CMAKE_AR": str(zig("zig ar", tmp_path)), "CMAKE_RANLIB": str(zig("zig ranlib", tmp_path))}
    else:
        needs("cmake", *target.tools)
        variables |= dict(zip(("CMAKE_C_COMPILER", "CMAKE_CXX_COMPILER"), target.tools, strict=True))
    options = [f"-D{variable}={value}" for variable, value in variables.items()]
    library, installed, example = tmp_path / "library", tmp_path / "installed", tmp_path / "example"
    run("cmake", "-S", ROOT, "-B", library, "-DTDT_C_LIBRARY=ON", *options)
    run("cmake", "--build", library, "--parallel", "2")
    run("cmake", "--install", library, "--prefix", installed)
    run("cmake", "-S", EXAMPLES / "c", "-B", example, f"-DCMAKE_PREFIX_PATH={installed}", *options)
    run("cmake", "--build", example)
    programs = [example / f"{program}{target.suffix}" for program in ("decode", "decode_static")]
    assert all(program.stat().st_size > 0 for program in programs)
    if target.emulator is None:
        return
    needs(*target.emulator[:1])
    libraries = {"WINEPATH": str(installed / "bin"), "WINEDEBUG": "-all", "WINEPREFIX": str(tmp_path / "wine")}
    for program in programs:
        assert run(*target.emulator, program, *ARGUMENTS, **libraries) == words()


@linux
@pytest.mark.exhaustive
def test_web_assembly(tmp_path):
    """The module, and the example in JavaScript."""
    needs("emcmake", "cmake", "node")
    run("emcmake", "cmake", "-S", ROOT, "-B", tmp_path, "-DTDT_C_LIBRARY=ON")
    run("cmake", "--build", tmp_path, "--parallel", "2")
    module = tmp_path / "csrc/capi/tdtdecode.wasm"
    assert run("node", EXAMPLES / "javascript/decode.mjs", module, *ARGUMENTS) == words()
    report = run("node", "--test", EXAMPLES / "javascript/", TDTDECODE_WASM=str(module))
    assert re.search(r"^# pass 6$", report, re.MULTILINE), report
    # It exports the functions of the header and memory; what else there is, is Emscripten's.
    script = "for (const {name} of WebAssembly.Module.exports(new WebAssembly.Module(require('fs').readFileSync("
    exported = set(run("node", "-e", f"{script}process.argv[1])))) console.log(name)", module).split())
    header = (ROOT / "csrc/capi/tdtdecode.h").read_text(encoding="utf-8")
    declared = set(re.findall(r"^TDT_API [^(]*?(tdt_\w+)\(", header, re.MULTILINE))
    assert declared == {name for name in exported if name.startswith("tdt_")}
    assert {"memory", "malloc", "free", "_initialize"} <= exported


def test_documentation_lists_the_targets():
    table = (ROOT / "docs/c_library.md").read_text(encoding="utf-8").split("| target |")[1].split("\n\n")[0]
    assert re.findall(r"^\| (\w[^|]+?) \|", table, re.MULTILINE) == [*TARGETS, WEB]
