"""A C program that uses every function, what the library exports, and what is compiled around it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tdtdecode import capi
from tdtdecode.bundle.packed import read_packed
from tdtdecode.prepare import pack_ngram

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "examples/recorded"
PROGRAM = Path(__file__).with_name("every_function.c")
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Werror"]

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not shutil.which("gcc"), reason="needs gcc and the loader of Linux"
)


def run(*command: object, **options) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=550, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def arguments(tmp_path_factory) -> list[Path]:
    """The demo model, a language model of single pieces for it, and encoder output."""
    pieces = read_packed(RECORDED / "demo.tdt").vocabulary
    rng = np.random.default_rng(0)
    words = [piece for token, piece in enumerate(pieces.pieces) if token != pieces.blank] + ["<s>", "</s>"]
    lines = ["\\data\\", f"ngram 1={len(words)}", "", "\\1-grams:"]
    lines += [f"{-rng.uniform(1, 3):.3f}\t{word}" for word in words]
    folder = tmp_path_factory.mktemp("c")
    (folder / "lm.arpa").write_text("\n".join([*lines, "", "\\end\\"]), encoding="utf-8")
    compiled = pack_ngram(RECORDED / "demo.tdt", folder / "lm.arpa", folder / "lm.tdt")
    return [RECORDED / "demo.tdt", compiled, RECORDED / "encoder_output.f32"]


def flags() -> list[str]:
    return run(sys.executable, "-m", "tdtdecode.capi", "--cflags", "--libs").split()


def test_every_function_from_eight_threads(arguments, tmp_path):
    run("gcc", *STRICT, "-pedantic", PROGRAM, "-o", tmp_path / "program", *flags(), "-lm", "-pthread")
    assert "eight threads" in run(tmp_path / "program", *arguments)


def test_failing_allocations(arguments, tmp_path):
    run("gcc", *STRICT, "-DCOUNT_ALLOCATIONS", PROGRAM, "-o", tmp_path / "program", *flags(), "-lm", "-ldl")
    assert run(tmp_path / "program", *arguments).count("nothing leaked") == 2


@pytest.mark.exhaustive
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_sanitizers(arguments, tmp_path, sanitizer):
    """The library compiled anew, for the baseline instruction set, so that it does not take long."""
    options = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-O1", "-g"]
    csrc = ROOT / "csrc"
    sources = [*csrc.glob("capi/*.cpp"), *csrc.glob("text/*.cpp"), *csrc.glob("cpu/*.cpp")]
    run(
        "g++", "-std=c++17", *options, "-fPIC", "-shared", "-fvisibility=hidden", "-DTDT_BUILDING",
        "-DTDT_HAS_baseline", "-DTDT_ISA=baseline", '-DTDT_VERSION="test"', f"-I{csrc}", f"-I{csrc / 'cpu'}", *sources,
        "-o", tmp_path / "libtdtdecode.so", "-pthread",
    )  # fmt: skip
    run(
        "gcc", *STRICT, *options, PROGRAM, "-o", tmp_path / "program", f"-I{csrc / 'capi'}", f"-L{tmp_path}",
        "-ltdtdecode", f"-Wl,-rpath,{tmp_path}", "-lm", "-pthread",
    )  # fmt: skip
    assert "eight threads" in run(tmp_path / "program", *arguments)


def test_exported_symbols():
    """The functions of the header, and nothing else."""
    text = (capi.include_directory() / "tdtdecode.h").read_text(encoding="utf-8")
    declared = set(re.findall(r"^TDT_API [^(]*?(tdt_\w+)\(", text, re.MULTILINE))
    exported = {line.split()[-1] for line in run("nm", "-D", "--defined-only", capi.library()).splitlines()}
    assert len(declared) > 25 and declared == exported


def test_header_alone(tmp_path):
    """It is C11 and C++ on its own, without warnings."""
    header = ROOT / "csrc/capi/tdtdecode.h"
    for compiler, standard in (("gcc", "c11"), ("g++", "c++11"), ("g++", "c++20")):
        language = "c" if compiler == "gcc" else "c++"
        run(compiler, f"-std={standard}", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-x", language, "-fsyntax-only",
            header)  # fmt: skip
