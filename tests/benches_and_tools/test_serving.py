"""The load test: every answer is compared, and a wrong one ends it."""

from __future__ import annotations

import asyncio

import pytest

for package in ("onnxruntime", "soundfile", "starlette",
                "uvicorn", "httptools", "python_multipart", "prometheus_client"):  # fmt: skip
    pytest.importorskip(package, reason=f"{package} is not installed")


def test_answers_are_compared():
    from benches.serving import load, metrics, request, server
    from tests.demo import recordings

    samples, text = recordings()["known-2.flac"]
    with server() as port:
        delays = asyncio.run(load(port, 3, 7, [request(samples)], [text]))
        assert len(delays) == 7 and min(delays) > 0
        assert asyncio.run(metrics(port))["tdtdecode_batch_rows_sum"] == 7
        with pytest.raises(AssertionError, match="expected 'other'"):
            asyncio.run(load(port, 1, 1, [request(samples)], ["other"]))
