"""The server under load: throughput, latency, and memory over many requests.

    python -m benches.serving [--clients 64] [--requests 1000] [--rounds 3] [--soak 10000] [--save]

A server process serves the demo model; this process is all its clients. They send the short recordings of the tests
over connections that stay open, each client one request after the other. Every answer is compared with what `recognize`
finds.

1. One client: requests come one after the other.
2. All clients, and a server that computes one recording at a time (``--batch-size 1``).
3. All clients, and a server that batches.
4. With ``--soak``: so many requests, and the server's memory after every twentieth of them.

Rounds of 1 to 3 take turns, and the best of each counts, for the machine may have other work. The server's CPU time for
a request hardly depends on that: with it, two cores serve so many requests a second at most.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import soundfile

import tdtdecode as tdt
from tests.demo import recordings

from .report import environment, save

PATH = "/v1/audio/transcriptions"
BOUNDARY = "boundary"
MODES = {"one client": (1, ()), "one at a time": (None, ("--batch-size", "1")), "batches": (None, ())}
"""Name -> number of clients (None: all of them), and the server's options."""


def request(samples: np.ndarray) -> bytes:
    """An upload of a recording, float32 [n] at 16 kHz, as a request."""
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV", subtype="PCM_16")
    field = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name='
    body = f'{field}"model"\r\n\r\ndemo\r\n{field}"file"; filename="a.wav"\r\n\r\n'.encode() + file.getvalue()
    body += f"\r\n--{BOUNDARY}--\r\n".encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def answered(reader: asyncio.StreamReader) -> bytes:
    """The body of the next response; an error unless its status is 200."""
    head = await reader.readuntil(b"\r\n\r\n")
    found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    body = await reader.readexactly(int(found[1])) if found else b""
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"{head.splitlines()[0]!r}: {body!r}")
    return body


async def client(port: int, todo: Iterator[int], requests: list[bytes], texts: list[str], delays: list[float]) -> None:
    """Send requests one after the other, and check the answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in todo:
        which = number % len(requests)
        begin = time.perf_counter()
        writer.write(requests[which])
        await writer.drain()
        text = json.loads(await answered(reader))["text"]
        delays.append(time.perf_counter() - begin)
        assert text == texts[which], f"{text!r}, expected {texts[which]!r}"
    writer.close()


async def load(port: int, clients: int, count: int, requests: list[bytes], texts: list[str]) -> list[float]:
    """Send so many requests from so many clients. Returns how long each took, in seconds."""
    todo = iter(range(count))
    delays: list[float] = []
    await asyncio.gather(*(client(port, todo, requests, texts, delays) for _ in range(clients)))
    assert len(delays) == count, f"{count - len(delays)} requests were lost"
    return delays


async def metrics(port: int) -> dict[str, float]:
    """The server's counters by name, without labels."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    lines = (await answered(reader)).decode().splitlines()
    writer.close()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


@contextmanager
def server(*options: str) -> Iterator[int]:
    """A server process; gives its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tdtdecode", "serve", "--port", "0", *options], stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        yield int(process.stderr.readline().rsplit(":", 1)[1])
    finally:
        process.terminate()
        process.wait()


def figures(delays: list[float], seconds: float, audio: float) -> dict[str, float]:
    """Requests a second, seconds of audio a second, and percentiles of the delays in milliseconds."""
    p50, p95, p99 = (1000 * np.percentile(delays, (50, 95, 99))).tolist()
    return {"requests_per_second": len(delays) / seconds, "audio_per_second": audio / seconds,
            "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}  # fmt: skip


def measured(arguments: argparse.Namespace, requests: list[bytes], texts: list[str], seconds: list[float]) -> dict:
    """The best of some rounds of each mode."""
    best: dict[str, dict[str, float]] = {}
    for _ in range(arguments.rounds):
        for name, (clients, options) in MODES.items():
            with server(*options) as port:
                number = clients or arguments.clients
                count = arguments.requests if number > 1 else max(arguments.requests // 4, 1)
                asyncio.run(load(port, number, 2 * number, requests, texts))  # warms up
                before = asyncio.run(metrics(port))
                begin = time.perf_counter()
                delays = asyncio.run(load(port, number, count, requests, texts))
                took = time.perf_counter() - begin
                after = asyncio.run(metrics(port))
            audio = sum(seconds[i % len(seconds)] for i in range(count))
            found = figures(delays, took, audio)
            spent = {name: value - before.get(name, 0.0) for name, value in after.items()}
            found["rows_per_batch"] = spent["tdtdecode_batch_rows_sum"] / spent["tdtdecode_batch_rows_count"]
            found["cpu_ms"] = 1000 * spent["process_cpu_seconds_total"] / count
            cpu = min(found["cpu_ms"], best[name]["cpu_ms"]) if name in best else found["cpu_ms"]
            if name not in best or found["requests_per_second"] > best[name]["requests_per_second"]:
                best[name] = found
            best[name]["cpu_ms"] = cpu
    return best


def soaked(arguments: argparse.Namespace, requests: list[bytes], texts: list[str]) -> dict:
    """Many requests, and the memory of the server after every twentieth of them, in MB."""
    memory = []
    delays: list[float] = []
    with server() as port:
        begin = time.perf_counter()
        for _ in range(20):
            delays += asyncio.run(load(port, arguments.clients, arguments.soak // 20, requests, texts))
            memory.append(asyncio.run(metrics(port))["process_resident_memory_bytes"] / 1e6)
        took = time.perf_counter() - begin
    return {**figures(delays, took, 0.0), "requests": len(delays), "memory_mb": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--soak", type=int, default=0, metavar="N")
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    samples = [one for one, _ in recordings().values()]
    model = tdt.load_model("demo")
    texts = [model.recognize((one, 16_000)).text for one in samples]
    seconds = [len(one) / 16_000 for one in samples]
    requests = [request(one) for one in samples]
    print(f"{len(samples)} recordings of {min(seconds):.1f} to {max(seconds):.1f} s; {arguments.clients} clients")
    found = measured(arguments, requests, texts, seconds) if arguments.rounds else {}
    for name, row in found.items():
        print(f"{name:>14}: {row['requests_per_second']:6.1f} requests/s, {row['audio_per_second']:6.0f} s of audio/s, "
              f"p50 {row['p50_ms']:.0f} ms, p95 {row['p95_ms']:.0f} ms, p99 {row['p99_ms']:.0f} ms, "
              f"{row['rows_per_batch']:.1f} recordings in a batch, {row['cpu_ms']:.1f} ms of CPU time each")
    report = {"environment": environment(), "clients": arguments.clients, "recordings_s": seconds, "modes": found}
    if arguments.soak:
        report["soak"] = soak = soaked(arguments, requests, texts)
        print(f"{soak['requests']} requests, none lost; memory after each twentieth, MB: "
              + " ".join(f"{one:.0f}" for one in soak["memory_mb"]))
    if arguments.save:
        save("serving", report)


if __name__ == "__main__":
    main()
