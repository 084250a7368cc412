"""The examples in C, Rust and Go print the words of the recording with times, as the package finds them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tdtdecode import capi

EXAMPLES = Path(__file__).parents[2] / "examples"
RECORDED = EXAMPLES / "recorded"
ARGUMENTS = [RECORDED / "demo.tdt", RECORDED / "encoder_output.f32"]

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the flags are those of Linux")


def run(*command: object, cwd: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=500, cwd=cwd, env={**os.environ, **environment}
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def words() -> str:
    return (RECORDED / "words.txt").read_text(encoding="utf-8")


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_c(tmp_path):
    flags = run(sys.executable, "-m", "tdtdecode.capi", "--cflags", "--libs").split()
    run("gcc", "-std=c11", "-Wall", "-Werror", EXAMPLES / "c/decode.c", "-o", tmp_path / "decode", *flags)
    assert run(tmp_path / "decode", *ARGUMENTS) == words()


@pytest.mark.skipif(not shutil.which("cargo"), reason="needs cargo")
def test_rust(tmp_path):
    cargo = {"TDTDECODE_LIB": str(capi.library_directory()), "CARGO_TARGET_DIR": str(tmp_path)}
    assert "5 passed" in run("cargo", "test", "--offline", cwd=EXAMPLES / "rust", **cargo)
    assert run("cargo", "run", "--quiet", "--offline", "--", *ARGUMENTS, cwd=EXAMPLES / "rust", **cargo) == words()


@pytest.mark.skipif(not shutil.which("go") or not shutil.which("gcc"), reason="needs go and gcc")
def test_go(tmp_path):
    folder = capi.library_directory()
    go = {
        "CGO_CFLAGS": f"-I{capi.include_directory()}", "CGO_LDFLAGS": f"-L{folder} -Wl,-rpath,{folder}",
        "GOCACHE": str(tmp_path / "cache"), "GOFLAGS": "-mod=mod", "GOPROXY": "off",
    }  # fmt: skip
    assert run("go", "test", ".", cwd=EXAMPLES / "go", **go).startswith("ok")
    run("go", "build", "-o", tmp_path / "decode", ".", cwd=EXAMPLES / "go", **go)
    assert run(tmp_path / "decode", *ARGUMENTS) == words()
