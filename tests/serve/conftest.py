"""Models and servers that the tests of the server share."""

from __future__ import annotations

import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("soundfile", reason="soundfile is not installed")
for package in ("starlette", "uvicorn", "httptools", "websockets", "python_multipart", "prometheus_client"):
    pytest.importorskip(package, reason=f"{package} is not installed")


@pytest.fixture(scope="package")
def model():
    import tdtdecode

    return tdtdecode.load_model("demo")


@pytest.fixture(scope="package")
def served(model):
    """A server of the demo model with the usual limits."""
    from tests.serve.running import running

    with running(model, ("demo", "whisper-1")) as server:
        yield server


@pytest.fixture(scope="package")
def speech() -> bytes:
    """The demo model's recording, FLAC."""
    from tdtdecode.speech.hub import demo_directory

    return (demo_directory() / "speech.flac").read_bytes()
