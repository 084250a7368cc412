"""What a server refuses, and what broken clients cost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.serve.running import HANGING, form, running, wav

PATH = "/v1/audio/transcriptions"
SHORT = wav(np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32))


def asked(server, file=SHORT, headers=None, **fields):
    body, own = form({"model": "demo", **fields}, file)
    status, answered, content = server.request("POST", PATH, body, {**own, **(headers or {})})
    return status, answered, json.loads(content)


def code_of(server, **options):
    status, _, content = asked(server, **options)
    return status, content.get("error", {}).get("code")


def eventually(condition):
    for _ in range(100 * HANGING):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come true")


def test_a_key_is_needed_where_one_is_set(model):
    with running(model, key="sesame") as server:
        for path in ("/v1/models", "/metrics", "/nothing"):
            status, _, body = server.get(path)
            assert (status, json.loads(body)["error"]["code"]) == (401, "invalid_api_key")
            assert server.get(path, {"Authorization": "Bearer sesamE"})[0] == 401
            assert server.get(path, {"Authorization": "Bearer sesame"})[0] == (404 if path == "/nothing" else 200)
        assert server.get("/healthz")[0] == server.get("/readyz")[0] == 200
        assert code_of(server) == (401, "invalid_api_key")
        assert asked(server, headers={"Authorization": "Bearer sesame"})[0] == 200


def test_other_names_and_other_pages_may_not_ask(served):
    """A page on the web can make its own name stand for this machine, and can post to it."""
    status, _, body = served.get("/v1/models", {"Host": "evil.example:80"})
    assert (status, json.loads(body)["error"]["code"]) == (403, "wrong_host")
    assert code_of(served, headers={"Origin": "https://evil.example"}) == (403, "wrong_origin")
    assert code_of(served, headers={"Origin": "null"}) == (403, "wrong_origin")
    assert asked(served, headers={"Origin": served.url})[0] == 200
    for name in ("localhost", "127.0.0.1", "[::1]"):
        assert served.get("/v1/models", {"Host": f"{name}:{served.port}"})[0] == 200


def test_bodies_that_are_too_large(model):
    with running(model, limits={"max_upload": 100_000}) as server:
        body, headers = form({"model": "demo"}, SHORT + bytes(200_000))
        status, answered, content = server.request("POST", PATH, body, headers)
        assert (status, json.loads(content)["error"]["code"]) == (413, "request_too_large")

        def chunks():  # without a length in the header
            for start in range(0, len(body), 8192):
                yield body[start : start + 8192]

        status, _, content = server.request("POST", PATH, chunks(), headers)
        assert (status, json.loads(content)["error"]["code"]) == (413, "request_too_large")
        assert asked(server)[0] == 200


def test_recordings_that_are_too_long(model):
    with running(model, limits={"max_seconds": 1.5}) as server:
        assert asked(server)[0] == 200
        status, _, content = asked(server, wav(np.zeros(32_000, np.float32)))
        assert status == 400 and "longer than 1.5 s" in content["error"]["message"]


def test_a_full_queue_says_when_to_come_again(model):
    with running(model, limits={"max_requests": 2}) as server:
        halves = [half_a_request(server) for _ in range(2)]
        eventually(lambda: server.state.requests.count == 2)
        status, headers, content = asked(server)
        assert (status, content["error"]["code"]) == (429, "too_many_requests")
        assert 1 <= int(headers["retry-after"]) <= 60
        for half in halves:
            half.close()
        eventually(lambda: server.state.requests.count == 0)
        assert asked(server)[0] == 200


def half_a_request(server) -> socket.socket:
    """A connection on which only the first half of an upload has come."""
    body, headers = form({"model": "demo"}, SHORT)
    connection = server.connected()
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    connection.sendall(head.encode() + b"\r\n" + body[: len(body) // 2])
    return connection


def test_slow_clients_are_told_so(model):
    with running(model, limits={"upload_timeout": 0.2}) as server, half_a_request(server) as connection:
        answer = b""
        while part := connection.recv(65536):
            answer += part
        assert answer.startswith(b"HTTP/1.1 408") and b'"timeout"' in answer and b"connection: close" in answer.lower()
        assert server.state.requests.count == 0


def test_connections_on_which_nothing_comes_are_closed(served, monkeypatch):
    monkeypatch.setattr("tdtdecode.serve.running._HEADER_SECONDS", 0.2)
    for sent in (b"", b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: 127.0"):
        with served.connected() as connection:
            connection.sendall(sent)
            assert connection.recv(1000) == b""
    assert served.get("/healthz")[0] == 200
    with served.connected() as connection:  # also after an answer
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        answer = b""
        while not answer.endswith(b"ok\n"):
            answer += connection.recv(1000)
        connection.sendall(b"GET /")
        assert connection.recv(1000) == b""


def test_endless_headers_are_cut_off(served):
    with served.connected() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(OSError):  # the server has closed the connection
            for _ in range(100_000):
                connection.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")
    assert served.get("/healthz")[0] == 200


def test_what_takes_too_long(model, monkeypatch):
    with running(model, limits={"request_timeout": 0.05}) as server:
        monkeypatch.setattr(server.state.engine, "begin", lambda job: jobs.append(job))
        jobs: list = []
        assert code_of(server) == (504, "timeout")
        assert code_of(server, stream="true") == (504, "timeout")
        assert [job.cancelled for job in jobs] == [True, True] and server.state.requests.count == 0


@pytest.mark.parametrize("stream", ["false", "true"])
def test_a_client_that_goes_takes_its_job_along(model, monkeypatch, stream):
    with running(model) as server:
        jobs: list = []
        monkeypatch.setattr(server.state.engine, "begin", lambda job: jobs.append(job))
        body, headers = form({"model": "demo", "stream": stream}, SHORT)
        connection = server.connected()
        head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        connection.sendall(head.encode() + b"\r\n" + body)
        eventually(lambda: jobs)
        connection.close()
        eventually(lambda: jobs[0].cancelled)
        eventually(lambda: '"status": 499' in server.log.getvalue())


def test_mistakes_of_ours_are_not_told_to_clients(model, monkeypatch, caplog):
    with running(model) as server:
        monkeypatch.setattr(server.state.engine, "job", lambda *options: 1 / 0)
        status, _, content = asked(server)
        assert (status, content["error"]["type"], content["error"]["code"]) == (500, "server_error", "internal_error")
        assert "division" not in content["error"]["message"] and server.state.requests.count == 0


def test_the_log_has_a_line_for_each_request_without_what_was_said(model, speech):
    for with_text in (False, True):
        with running(model, with_text=with_text) as server:
            answer = asked(server, speech)[2]
            server.get("/nothing?secret=1")
        lines = [json.loads(line) for line in server.log.getvalue().splitlines()]
        assert [(line["endpoint"], line["status"]) for line in lines] == [("transcriptions", 200), ("unknown", 404)]
        assert lines[0]["audio_seconds"] == pytest.approx(9.2, abs=0.1) and lines[0]["bytes"] == len(speech)
        assert (lines[0].get("text") == answer["text"]) is with_text
        assert with_text or "alarm" not in server.log.getvalue()
        assert "secret" not in server.log.getvalue()


def test_metrics(model):
    with running(model) as server:
        asked(server)
        asked(server, b"nothing")
        eventually(lambda: server.log.getvalue().count("\n") == 2)  # a line is the last that is done for a request
        status, headers, body = server.get("/metrics")
        text = body.decode()
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    for line in (
        'tdtdecode_requests_total{endpoint="transcriptions",status="200"} 1.0',
        'tdtdecode_requests_total{endpoint="transcriptions",status="400"} 1.0',
        "tdtdecode_request_seconds_count 1.0", "tdtdecode_batch_rows_sum 1.0", "tdtdecode_requests_under_way 0.0",
        'tdtdecode_audio_seconds_total{kind="upload"} 1.0', "tdtdecode_batch_fill_sum 1.0",
        "tdtdecode_real_time_factor_count 1.0", "tdtdecode_queue_recordings 0.0",
    ):  # fmt: skip
        assert line in text.splitlines()


def test_a_server_that_ends_is_not_ready(model):
    with running(model) as server:
        server.state._ending.set()
        assert server.get("/readyz")[0] == 503 and server.get("/healthz")[0] == 200
        assert code_of(server) == (503, "shutting_down")


def test_wrong_limits_are_refused():
    result = subprocess.run(
        [sys.executable, "-m", "tdtdecode", "serve", "--max-requests", "0"], capture_output=True, text=True,
        timeout=HANGING,
    )  # fmt: skip
    assert result.returncode == 2 and "max_requests must be at least 1, got 0" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_sigterm_finishes_what_is_under_way(speech):
    """The whole command: it serves, gets a SIGTERM while an upload is half there, answers it, and ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tdtdecode", "serve", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "TDTDECODE_API_KEY": ""},
    )  # fmt: skip
    try:
        line = process.stderr.readline()
        assert line.startswith("tdtdecode: serving at http://127.0.0.1:"), line
        port = int(line.rsplit(":", 1)[1])
        body, headers = form({"model": "demo"}, speech, "speech.flac")
        head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        with socket.create_connection(("127.0.0.1", port), timeout=HANGING) as connection:
            connection.sendall(head.encode() + b"\r\n" + body[:-1000])
            time.sleep(0.5)  # for the server to begin with it
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            connection.sendall(body[-1000:])
            answer = b""
            while part := connection.recv(65536):
                answer += part
        assert b"200 OK" in answer and b"set an alarm" in answer
        out, error = process.communicate(timeout=HANGING)
        assert (process.returncode, error) == (0, "")
        assert json.loads(out)["status"] == 200
    finally:
        process.kill()
        process.wait()
