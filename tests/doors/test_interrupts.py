"""Ctrl-C at any time ends the command line with status 130 and one line, whatever a package makes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("soundfile")

import tdtdecode as tdt  # noqa: E402
from tdtdecode.cli import main  # noqa: E402
from tdtdecode.optional import needed  # noqa: E402
from tdtdecode.speech.hub import demo_directory  # noqa: E402

SPEECH = demo_directory() / "speech.flac"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

# Jobs in the background of a shell ignore interrupts, and so do their children, unless they say otherwise.
AT_IMPORT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from tdtdecode.cli import main
sys.exit(main(sys.argv[1:]))
"""

PLAIN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from tdtdecode.cli import main
sys.exit(main(sys.argv[1:]))
"""


LATER = """
import os, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
from tdtdecode.speech import recognizer
def interrupting(news, begin=recognizer.run):
    for number, one in enumerate(begin(*news)):
        if number == {number}:
            os.kill(os.getpid(), signal.SIGINT)
        yield one
recognizer.run = lambda *news: interrupting(news)
from tdtdecode.cli import main
status = main(sys.argv[1:])
print([thread.name for thread in threading.enumerate()])
sys.exit(status)
"""


def run(program, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, timeout=120, **options
    )


@pytest.mark.parametrize("module", [
    "argparse", "numpy", "tdtdecode.commands", "tdtdecode.commands.transcribe", "tdtdecode.kernels._cpu",
    "tdtdecode.speech.loading", "onnx", "onnxruntime", "onnxruntime.capi", "onnxruntime.capi._pybind_state",
    "soundfile", "tdtdecode.networks._fused",
])  # fmt: skip
def test_while_a_module_is_imported(module):
    result = run(AT_IMPORT.format(module=module), "transcribe", SPEECH)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "tdtdecode: interrupted\n")


@pytest.mark.parametrize("number", [0, 3, 20])
def test_while_recordings_are_transcribed(number):
    """What was done before is written, and no thread is left."""
    result = run(LATER.format(number=number), "transcribe", *[SPEECH] * 40)
    *texts, threads = result.stdout.splitlines()
    assert (result.returncode, result.stderr, threads) == (130, "tdtdecode: interrupted\n", "['MainThread']")
    assert set(texts) <= {SPEECH.with_suffix(".txt").read_text().strip()} and len(texts) < 40


@pytest.mark.parametrize("body", [
    "raise ImportError('initialization failed') from error",
    "raise ImportError('initialization failed')",
    "raise ImportError('initialization failed') from None",
    "raise RuntimeError('no')",
    "pass",
])  # fmt: skip
@pytest.mark.parametrize("package", ["onnxruntime", "onnx", "soundfile"])
def test_packages_that_make_something_else_of_it(tmp_path, package, body):
    """As compiled modules do that were interrupted in their initialisation; or that go on as if nothing had been."""
    (tmp_path / f"{package}.py").write_text(
        f"import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n    os.getpid()\n"
        f"except BaseException as error:\n    {body}\n"
    )
    result = run(PLAIN, "transcribe", SPEECH, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert result.returncode == 130 and result.stderr.endswith("tdtdecode: interrupted\n")
    if package != "soundfile":  # which is imported for each recording, and a recording may fail
        assert (result.stdout, result.stderr) == ("", "tdtdecode: interrupted\n")


@pytest.mark.parametrize(("content", "message"), [
    ("raise OSError('sndfile library not found')", "cannot be imported (sndfile library not found): pip install"),
    ("raise ImportError('libfoo.so.1: no')", "is installed but cannot be imported (libfoo.so.1: no): pip install"),
    ("import a_package_that_is_not_there", "cannot be imported (No module named 'a_package_that_is_not_there'): pip"),
    ("raise ModuleNotFoundError(name='onnxruntime')", "Running an ONNX graph needs the package 'onnxruntime': pip"),
])  # fmt: skip
def test_other_failures_are_told_with_their_reason(tmp_path, content, message):
    (tmp_path / "onnxruntime.py").write_text(content)
    result = run(PLAIN, "transcribe", SPEECH, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert result.returncode == 2 and message in result.stderr and "tdtdecode[cpu]" in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_interrupt_in_a_library_call():
    """A KeyboardInterrupt reaches those who use the package from Python as such."""
    for chain in ("from error", ""):
        with pytest.raises(KeyboardInterrupt), needed("package", "cpu", "this"):
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt as error:
                if chain:
                    raise ImportError("initialization failed") from error
                raise ImportError("initialization failed")  # noqa: B904
    with pytest.raises(tdt.MissingDependencyError, match="this needs the package 'a-package': pip"):
        with needed("a-package", "cpu", "this"):
            import a_package  # noqa: F401


def test_interrupts_are_handled_as_before_afterwards(capsys):
    before = signal.getsignal(signal.SIGINT)
    assert main(["inspect", str(SPEECH)]) == 2
    assert signal.getsignal(signal.SIGINT) is before


def test_those_who_ignore_interrupts_go_on():
    """A job in the background of a shell."""
    program = (
        "import os, signal, sys\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nfrom tdtdecode.cli import main\n"
        "os.kill(os.getpid(), signal.SIGINT)\nsys.exit(main(sys.argv[1:]))"
    )
    assert run(program, "transcribe", SPEECH).returncode == 0
