"""What the page shows of a recording is what `recognize` and `trace` find."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("soundfile", reason="soundfile is not installed")

import tdtdecode as tdt  # noqa: E402
from tdtdecode.cli import main  # noqa: E402
from tdtdecode.page.explanation import MOST_SECONDS, explained  # noqa: E402
from tdtdecode.page.files import LIVE_SCRIPTS, STYLE, WORKLET, page_of, read, served_page  # noqa: E402
from tdtdecode.speech.windows import Windows  # noqa: E402
from tests.demo import recordings  # noqa: E402


@pytest.fixture(scope="module")
def model():
    return tdt.load_model("demo")


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return recordings()["known-2.flac"][0]


def document_of(model, samples, search=None):
    steps = explained(model, samples, search)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return json.loads(json.dumps(end.value, allow_nan=False))


def test_words_tokens_and_steps(model, samples):
    found, shown = model.recognize((samples, 16_000)), document_of(model, samples)
    assert (shown["text"], [word["text"] for word in shown["words"]]) == (found.text, [w.text for w in found.words])
    tokens = [(one["id"], one["frame"], one["duration"]) for one in shown["tokens"]]
    columns = (found.hypothesis.tokens, found.hypothesis.frames, found.hypothesis.durations)
    assert tokens == list(zip(*(column.tolist() for column in columns)))
    emitted = [(one["piece"], one["frame"]) for one in shown["steps"] if one["piece"] is not None]
    assert emitted == [(one["piece"], one["frame"]) for one in shown["tokens"]]
    assert any(one["piece"] is None for one in shown["steps"]) and shown["tree"] is None
    assert shown["looked"] == sorted({one["frame"] for one in shown["steps"]})
    sound = shown["sound"]
    assert len(base64.b64decode(sound["data"])) == sound["bins"] * sound["frames"] and sound["frames"] == 365


def test_a_recording_in_windows_is_explained_as_it_is_recognised(samples):
    model = tdt.load_model("demo")
    model._max_input_frames, model._windows = 300, Windows(12, 20, 12)
    long = np.tile(samples, 3)
    found, shown = model.recognize((long, 16_000)), document_of(model, long)
    assert [one["id"] for one in shown["tokens"]] == found.hypothesis.tokens.tolist()
    assert [one["frame"] for one in shown["tokens"]] == found.hypothesis.frames.tolist()


def test_the_nbest_list_as_a_tree(model, samples):
    found = model.recognize((samples, 16_000), tdt.Beam(size=8, nbest=8))
    shown = document_of(model, samples, tdt.Beam(size=8, nbest=8))
    texts = {}

    def walk(node, before):
        text = before + node["text"]
        firsts = [one["text"][:1] or one["ends"] for one in node["next"]]
        assert len(node["next"]) + len(node["ends"]) != 1 or not firsts, "a node with one branch is no branch"
        for end in node["ends"]:
            texts[end["rank"]] = (text.strip(), end["score"], end["share"])
        for one in node["next"]:
            walk(one, text)

    walk(shown["tree"], "")
    every = [found, *found.alternatives]
    assert [texts[i + 1][0] for i in range(8)] == [one.text for one in every]
    assert [texts[i + 1][1] for i in range(8)] == pytest.approx([one.hypothesis.score for one in every], abs=1e-3)
    assert sum(share for _, _, share in texts.values()) == pytest.approx(1, abs=1e-3)
    emitted = [(one["piece"], one["frame"], one["duration"]) for one in shown["steps"] if one["piece"] is not None]
    assert emitted == [(one["piece"], one["frame"], one["duration"]) for one in shown["tokens"]]
    assert set(shown["looked"]) > {one["frame"] for one in shown["steps"]}


def test_a_beam_too_wide_to_be_traced(model, samples, monkeypatch):
    monkeypatch.setattr("tdtdecode.page.explanation._MOST_TRACE_BYTES", 1000)
    shown = document_of(model, samples, tdt.Beam(size=4))
    assert shown["steps"] is None and shown["looked"] is None and shown["tokens"]


def test_nothing_to_hear(model):
    shown = document_of(model, np.zeros(0, np.float32))
    assert (shown["text"], shown["frames"], shown["steps"]) == ("", 0, None)
    assert document_of(model, np.zeros(8000, np.float32))["text"] == ""


def test_too_long_a_recording(model):
    with pytest.raises(tdt.InputError, match="longer than 600 s"):
        next(explained(model, np.zeros(int(MOST_SECONDS * 16_000) + 1, np.float32)))


def test_a_page_holds_all_that_it_needs(model, samples):
    page = page_of(document_of(model, samples), samples, "</script><b>")
    assert "</script><b>" not in page
    (inside,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert json.loads(inside)["name"] == "</script><b>"
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#|data:)""", page)


def test_no_file_of_the_page_names_another_place():
    for name in (*LIVE_SCRIPTS, STYLE, WORKLET, "page.html", "input.html"):
        found = [url for url in re.findall(r"https?://[^\s\"']+", read(name)) if url != "http://www.w3.org/2000/svg"]
        assert found == []
    assert served_page().count("<link rel=\"stylesheet\"") == 1


def test_explain_writes_over_nothing_that_was_given(tmp_path, capsys, samples):
    import soundfile

    soundfile.write(tmp_path / "a.wav", samples, 16_000)
    assert main(["explain", str(tmp_path / "a.wav"), "-o", str(tmp_path / "a.wav")]) == 2
    assert "would be written over" in capsys.readouterr().err
    assert main(["explain", str(tmp_path / "a.wav"), "-o", str(tmp_path / "a.html"), "--search", "beam"]) == 0
    assert "10 words" in capsys.readouterr().err
