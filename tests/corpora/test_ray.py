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
from tests.corpora.helpers import SPEECH, TEXT, read_lines, write_lines  # noqa: E402

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="processes are found by Linux's /proc"),
    pytest.mark.xdist_group("ray"),  # one cluster for all
]

POISON = """
import os, sys
isfile = os.path.isfile
def killing(path):
    if str(path).endswith("poison.wav") and "default_worker.py" in " ".join(sys.orig_argv):
        os.kill(os.getpid(), 9)
    return isfile(path)
os.path.isfile = killing
"""
"""Kills a process of Ray that looks for such a recording: what a decoder may do that reads a damaged one."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Three machines of one core each, and one without, where the jobs are started."""
    from ray.cluster_utils import Cluster

    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(POISON)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(folder)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(3):
            cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


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
def test_a_recording_that_kills_its_workers(cluster, tmp_path):
    """It is an error in its place. The others of its block are transcribed."""
    given = lines(40)
    given[3] = given[20] = {"audio_filepath": "poison.wav", "duration": 1.2, "number": 3}
    path, out = write_lines(tmp_path / "in.jsonl", given), tmp_path / "out.jsonl"
    result = subprocess.run(command(path, out, "--ray", cluster.address), capture_output=True, text=True)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "40 of 40 recordings are done, 2 of them with an error" in result.stderr
    errors = [line.get("error") for line in read_lines(out)]
    assert [i for i, error in enumerate(errors) if error] == [3, 20] and errors[3] == "its worker died, 4 times"


@pytest.mark.exhaustive
def test_no_cluster(tmp_path):
    path = write_lines(tmp_path / "in.jsonl", lines(8))
    result = subprocess.run(command(path, tmp_path / "out", "--ray", "127.0.0.1:1"), capture_output=True, text=True)
    assert result.returncode == 2 and "no cluster of Ray at '127.0.0.1:1'" in result.stderr


@pytest.mark.exhaustive
def test_a_dataset(cluster, tmp_path):
    """Rows of a manifest, and bytes; to Parquet."""
    code = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
from tdtdecode.corpora import Fields
from tdtdecode.corpora.ray import transcribe_dataset
rows = transcribe_dataset(ray.data.read_json(sys.argv[2]), batch_seconds=5, fields=Fields(words=True))
rows.write_parquet(sys.argv[3])
files = transcribe_dataset(ray.data.read_binary_files([sys.argv[4]], include_paths=True))
print(files.take_all()[0]["pred_text"])
"""
    path = write_lines(tmp_path / "in.jsonl", lines(20))
    arguments = [sys.executable, "-c", code, cluster.address, path, tmp_path / "rows", SPEECH]
    result = subprocess.run(list(map(str, arguments)), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert TEXT in result.stdout
    assert subprocess.run(command(path, tmp_path / "straight", "--words"), stderr=subprocess.PIPE).returncode == 1
    from pyarrow.dataset import dataset

    found = sorted(dataset(tmp_path / "rows").to_table().to_pylist(), key=lambda row: row["number"])
    for row, line in zip(found, read_lines(tmp_path / "straight"), strict=True):
        assert {name: value for name, value in row.items() if value is not None} == line


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
