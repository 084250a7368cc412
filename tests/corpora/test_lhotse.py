"""lhotse's cuts: read by lhotse, with results among their custom fields."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from tdtdecode.cli import main
from tdtdecode.corpora import read_manifest
from tdtdecode.errors import InputError
from tdtdecode.speech.audio import Segment, read_audio
from tests.corpora.helpers import SPEECH, read_lines, write_lines


def cut(name="a", start=1.0, duration=2.0, text="hello there", **more):
    return {
        "id": name, "start": start, "duration": duration, "channel": 0,
        "supervisions": [
            {"id": name, "recording_id": "r", "start": 0.0, "duration": duration, "channel": 0, "text": text}
        ],
        "recording": {
            "id": "r", "sources": [{"type": "file", "channels": [0], "source": str(SPEECH)}], "sampling_rate": 16000,
            "num_samples": 147280, "duration": 9.205, "channel_ids": [0],
        },
        "type": "MonoCut", **more,
    }  # fmt: skip


def padded(one, to=4.0):
    padding = {
        "id": "p", "duration": to - one["duration"], "sampling_rate": 16000, "feat_value": -23.0,
        "num_samples": int(16000 * (to - one["duration"])), "type": "PaddingCut",
    }  # fmt: skip
    return {
        "id": "m", "type": "MixedCut",
        "tracks": [{"cut": one, "type": "MonoCut", "offset": 0.0},
                   {"cut": padding, "type": "PaddingCut", "offset": one["duration"]}],
    }  # fmt: skip


def test_what_a_cut_says_needs_no_lhotse(tmp_path):
    two = cut("b") | {"supervisions": cut()["supervisions"] + [{"start": -0.5, "text": "first"}, {"start": 9}]}
    content = "".join(json.dumps(one) + "\n" for one in (cut(), two, padded(cut("c")), cut("d", text=None)))
    (tmp_path / "cuts.jsonl.gz").write_bytes(gzip.compress(content.encode()))
    manifest = read_manifest(tmp_path / "cuts.jsonl.gz")
    assert (manifest.kind, len(manifest), manifest.seconds) == ("lhotse", 4, 10.0)
    entries = list(manifest)
    assert [entry.name for entry in entries] == ["a", "b", "m", "d"]
    assert [entry.reference for entry in entries] == ["hello there", "first hello there", "hello there", None]
    assert entries[0].file() == (str(SPEECH), 1.0, 2.0) and entries[2].file() is None
    assert entries[0].with_results({"pred_text": "x"})["custom"] == {"pred_text": "x"}
    assert entries[2].with_results({"pred_text": "x"})["tracks"][0]["cut"]["custom"] == {"pred_text": "x"}


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"duration": 0}, "duration 0"), ({"recording": None}, "without a recording"),
        ({"type": "PaddingCut"}, "padding"),
        ({"recording": {"sources": [{"type": "shar", "channels": [0], "source": ""}]}}, "Shar"),
        ({"recording": {"sources": [{"type": "command", "channels": [0], "source": "rm -r x"}]}}, "no command is run"),
    ],
)
def test_what_is_refused(tmp_path, change, problem):
    with pytest.raises(InputError, match=f"line 2 .*{problem}"):
        read_manifest(write_lines(tmp_path / "cuts.jsonl", [cut(), cut() | change]))


@pytest.mark.parametrize("line", [{"id": "r", "sources": []}, {"id": "s", "recording_id": "r", "duration": 1}])
def test_other_manifests_of_lhotse(tmp_path, line):
    with pytest.raises(InputError, match="line 1 is a .* of lhotse, not a cut: make cuts"):
        read_manifest(write_lines(tmp_path / "recordings.jsonl", [line]))


def test_without_lhotse_it_is_named(tmp_path, monkeypatch):
    import sys

    for name in ("lhotse", "lhotse.serialization"):
        monkeypatch.setitem(sys.modules, name, None)
    entry = next(iter(read_manifest(write_lines(tmp_path / "cuts.jsonl", [cut()]))))
    with pytest.raises(ImportError, match=r"tdtdecode\[lhotse\]"):
        entry.audio()


def test_cuts_are_transcribed_and_lhotse_reads_the_results(tmp_path, capsys):
    lhotse = pytest.importorskip("lhotse")
    lines = [cut(), padded(cut("c")), cut("d", start=3.0), cut("e") | {"start": 8.0, "duration": 20.0}]
    path = write_lines(tmp_path / "cuts.jsonl", lines)
    entries = list(read_manifest(path))
    assert entries[0].audio() == Segment(str(SPEECH), 1.0, 2.0)
    samples, rate = entries[1].audio()
    assert rate == 16000 and len(samples) == 4 * rate
    assert np.array_equal(samples[: 2 * rate, 0], read_audio(entries[0].audio()))
    status = main(["transcribe", "--manifest", str(path), "-o", str(tmp_path / "out.jsonl")])
    assert status in (0, 1)
    capsys.readouterr()
    found = lhotse.CutSet.from_jsonl(tmp_path / "out.jsonl")
    texts = [one.custom.get("pred_text") for one in found][:3]
    assert texts[0] == texts[1] != texts[2] and all(texts)
    assert main(["transcribe", "--manifest", str(path), "-o", str(tmp_path / "out.jsonl")]) == status
    assert main(["evaluate", str(tmp_path / "out.jsonl"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recordings"] >= 3
    assert len(read_lines(tmp_path / "out.jsonl")) == 4
