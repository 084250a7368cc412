"""What a worker of Ray does with a block, without a cluster."""

from __future__ import annotations

import json
import math

import pytest

pa = pytest.importorskip("pyarrow", reason="pyarrow, which comes with Ray Data, is not installed")
pytest.importorskip("soundfile")

from tdtdecode.corpora import Fields, read_manifest  # noqa: E402
from tdtdecode.corpora import ray as on_ray  # noqa: E402
from tdtdecode.corpora.settings import model_digest  # noqa: E402
from tdtdecode.errors import DeviceError, InputError  # noqa: E402
from tdtdecode.search import Greedy  # noqa: E402
from tdtdecode.speech.loading import load_model  # noqa: E402
from tests.corpora.helpers import SPEECH, TEXT, parts, write_lines  # noqa: E402


def model(name="demo", digest=None, fields=Fields(), language=None, vad=None, **options):
    return on_ray._Model(name, {"threads": 1, **options}, digest, Greedy(), fields, 16, language, vad, ".")


def worked(run, rows, whole=False, seconds=1e9):
    worker = on_ray._Worker(run, whole)
    return [row for pack in on_ray._packed(rows, seconds) for table in worker(pack) for row in table.to_pylist()]


@pytest.mark.parametrize("seconds", [0.0, 3.0, 7.0, 1e9])
def test_packs(seconds):
    """All rows once, the longest first, as much as fits; one alone may be longer."""
    durations = [1.0, 5.0, None, 2.0, 3.0, math.nan, 0.5, 9.0]
    rows = pa.table({"duration": durations, "n": range(8), "nested": [{"a": [i]} for i in range(8)]})
    packs = [on_ray._unpacked(pack["pack"][0].as_py()).to_pylist() for pack in on_ray._packed(rows, seconds)]
    lengths = [[row["duration"] if row["duration"] and row["duration"] > 0 else 10.0 for row in pack] for pack in packs]
    found = sum(lengths, [])
    assert sorted(row["n"] for pack in packs for row in pack) == list(range(8)) and found == sorted(found)[::-1]
    assert all(len(one) == 1 or sum(one) <= seconds for one in lengths)
    assert len(packs) == {0.0: 8, 3.0: 7, 7.0: 5, 1e9: 1}[seconds]
    assert list(on_ray._packed(rows.slice(0, 0), seconds)) == []


def test_rows_of_a_manifest():
    given = [*parts(2), {"audio_filepath": str(SPEECH), "pred_text": "old", "text": "x"}, {"audio_filepath": "none"}]
    found = worked(model(fields=Fields(words=True)), pa.Table.from_pylist([{"other": 1, **row} for row in given]))
    found.sort(key=lambda row: (row["text"] is None, row["text"]))
    assert [row["pred_text"] is None for row in found] == [False, False, False, True]
    assert found[2]["pred_text"] == TEXT and all(row["other"] == 1 for row in found)
    assert "no such file" in found[3]["error"] and found[0]["words"][0]["confidence"] > 0


def test_rows_with_bytes():
    content = SPEECH.read_bytes()
    none = {"bytes": None, "offset": None, "duration": None}
    rows = [{"bytes": content}, {"bytes": content, "offset": 2.0, "duration": 1.0}, {"bytes": b"x"}, {}]
    found = worked(model(), pa.Table.from_pylist([none | row for row in rows]))
    texts = {len(row["pred_text"] or ""): row for row in found}
    assert texts[len(TEXT)]["pred_text"] == TEXT and len(found) == 4
    errors = sorted(row["error"] for row in found if row["error"])
    assert len(errors) == 2 and "not a recording" in errors[0] and "neither audio_filepath nor bytes" in errors[1]


def test_damaged_rows_are_errors_in_their_places():
    rows = pa.table({"audio_filepath": [str(SPEECH)] * 2, "offset": [0.0, -1.0], "duration": [1.0, 1.0]})
    found = worked(model(), rows)
    assert found[0]["error"] is None and "offset -1.0" in found[1]["error"]


def test_lines_of_a_manifest(tmp_path):
    entries = list(read_manifest(write_lines(tmp_path / "in.jsonl", [*parts(2), {"audio_filepath": "none.wav"}])))
    rows = pa.table({"entry": [on_ray._stored(entry) for entry in entries], "duration": [1.0, 1.0, None]})
    found = worked(model(digest=model_digest(load_model("demo").bundle)), rows, whole=True)
    assert [json.loads(row["entry"])["index"] for row in found] == [2, 0, 1]
    assert [row["seconds"] for row in found] == [0.0, 1.0, 1.0] and "no such file" in found[0]["error"]


def test_a_worker_that_cannot_work_says_why(tmp_path):
    (entry,) = read_manifest(write_lines(tmp_path / "in.jsonl", parts(1)))
    rows = pa.table({"entry": [on_ray._stored(entry)]})
    for run, why in ((model(str(tmp_path)), str(tmp_path)), (model(digest="0" * 64), "another model"),
                     (model(variant="none"), "none"), (model(language="xx"), "language")):  # fmt: skip
        (row,) = worked(run, rows, whole=True)
        assert why in row["failure"]
    with pytest.raises(InputError):
        worked(model("no/such//model"), rows)


def test_without_ray_it_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"tdtdecode\[ray\]"):
        on_ray.transcribe_dataset(None)


def test_a_dataset_is_asked_for():
    pytest.importorskip("ray.data", reason="Ray Data is not installed")
    with pytest.raises(InputError, match="dataset must be a ray.data.Dataset"):
        on_ray.transcribe_dataset([{"audio_filepath": "a"}])


class Cluster:
    """What stands for Ray: machines with so many cores and GPUs."""

    def __init__(self, *machines):
        self._machines = [
            {"Alive": True, "Resources": {"CPU": float(cores), "GPU": float(gpus)}} for cores, gpus in machines
        ]
        self._machines.append({"Alive": False, "Resources": {"CPU": 999.0, "GPU": 9.0}})

    def is_initialized(self):
        return True

    def nodes(self):
        return self._machines


@pytest.mark.parametrize(
    "machines, options, spare, expected",
    [
        ([(0, 0), (64, 0), (16, 0)], {}, 0, ("cpu", 4, 20)), ([(2, 0), (2, 0)], {}, 0, ("cpu", 2, 2)),
        ([(2, 0), (2, 0)], {}, 2, ("cpu", 1, 4)), ([(5, 0)], {}, 2, ("cpu", 3, 1)),
        ([(8, 0)], {"threads": 3}, 0, ("cpu", 3, 2)), ([(8, 2), (8, 1)], {"device": "auto"}, 0, ("cuda", 1, 3)),
        ([(8, 0)], {"device": "auto"}, 0, ("cpu", 4, 2)), ([(8, 4)], {"device": "cuda"}, 2, ("cuda", 1, 4)),
    ],
)
def test_workers_fit_the_machines(machines, options, spare, expected):
    options = {"device": "cpu", "threads": None} | options
    run = on_ray._sized(Cluster(*machines), model(**options), spare)
    assert (run.options["device"], run.options["threads"], on_ray._room(Cluster(*machines), run)) == expected


@pytest.mark.parametrize(
    "machines, options, problem",
    [
        ([(8, 0)], {"device": "cuda"}, "no machine of the cluster has a GPU"),
        ([(8, 0)], {"threads": 9}, "9 cores"), ([(1, 0)], {"threads": 1}, "reading needs one more"),
        ([(8, 0)], {"device": "both"}, "device must be"),
    ],
)
def test_clusters_without_room(machines, options, problem):
    with pytest.raises((DeviceError, InputError), match=problem):
        on_ray._sized(Cluster(*machines), model(**{"device": "cpu"} | options), 2)
