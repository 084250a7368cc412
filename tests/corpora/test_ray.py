"""A cluster of Ray: the same results as on one machine, also where workers and machines die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("ray.data", reason="Ray Data is not installed")
pytest.importorskip("soundfile")

from tests.conftest import HANGING  # noqa: E402
from tests.corpora.helpers import SPEECH, read_lines, write_lines  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found by Linux's /proc")


@pytest.fixture(scope="module")
def cluster():
    """Three machines of one core each, and one without, where the jobs are started."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(3):
            cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def lines(count: int, seconds: float = 1.0) -> list[dict]:
    """Parts of the recording, of different lengths, and two that are not there."""
    given = [
        {"audio_filepath": str(SPEECH), "offset": round(i * 7.5 / count, 4), "duration": round(seconds + i % 7 / 10, 1),
         "number": i}
        for i in range(count)
    ]  # fmt: skip
    given[3]["audio_filepath"] = given[count // 2]["audio_filepath"] = "none.wav"
    return given


def command(path: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "tdtdecode", "transcribe", "--manifest", str(path), "-o", str(out), *more]


def workers(cluster) -> list[int]:
    """The processes of the cluster's machines that have a model."""
    machines = {process.process.pid for node in cluster.worker_nodes for name, many in node.all_processes.items()
                for process in many if name == "raylet"}  # fmt: skip
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                title = (place / "cmdline").read_bytes()
                parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent in machines and b"MapWorker" in title:
                found.append(int(place.name))
    return found


def done(out: Path) -> int:
    journal = out.with_name(out.name + ".journal")
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def check(cluster, folder: Path, count: int, kill_after: int) -> list[dict]:
    """Transcribe on the cluster, kill a worker in the middle, and compare with one machine."""
    path = write_lines(folder / "in.jsonl", lines(count))
    out, straight = folder / "out.jsonl", folder / "straight.jsonl"
    assert subprocess.run(command(path, straight), stderr=subprocess.PIPE).returncode == 1
    process = subprocess.Popen(command(path, out, "--ray", cluster.address), stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + HANGING
    while done(out) < kill_after and time.monotonic() < end and process.poll() is None:
        time.sleep(0.005)
    victims = workers(cluster)
    assert victims and process.poll() is None, process.communicate()[1]
    os.kill(victims[0], signal.SIGKILL)
    _, err = process.communicate(timeout=HANGING)
    assert process.returncode == 1 and f"{count} of {count} recordings are done, 2 of them with an error" in err, err
    assert out.read_bytes() == straight.read_bytes()
    found = read_lines(out)
    assert [line["number"] for line in found] == list(range(count)), "nothing lost, nothing twice"
    return found


def test_a_worker_is_killed(cluster, tmp_path):
    check(cluster, tmp_path, 40, kill_after=5)


@pytest.mark.exhaustive
def test_2000_recordings_and_a_machine_that_is_lost(cluster, tmp_path):
    """Also the job itself is killed, and goes on."""
    count = 2000
    check(cluster, tmp_path, count, kill_after=300)
    path, out = tmp_path / "in.jsonl", tmp_path / "again.jsonl"
    process = subprocess.Popen(command(path, out, "--ray", cluster.address), stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + HANGING
    while done(out) < 300 and time.monotonic() < end and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    before = done(out)
    assert 300 <= before < count
    process = subprocess.Popen(command(path, out, "--ray", cluster.address), stderr=subprocess.PIPE, text=True)
    while done(out) < before + 300 and time.monotonic() < end and process.poll() is None:
        time.sleep(0.005)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    _, err = process.communicate(timeout=HANGING)
    assert f"{before} of {count} recordings are done already" in err
    assert f"{count} of {count} recordings are done" in err
    assert out.read_bytes() == (tmp_path / "straight.jsonl").read_bytes()
