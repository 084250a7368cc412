"""The plots of stored results name every system, and the floor."""

from __future__ import annotations

import json

import pytest

from benches import plot
from benches.random_weights import PUBLISHED, published_durations
from benches.report import RESULTS


def test_every_system_has_a_line_of_its_own():
    result = json.loads((RESULTS / "greedy.json").read_text())
    chart = plot.chart(result)
    for panel in chart.panels:
        names = [label.text for label in panel.labels]
        assert {"onnx-asr", "tdtdecode, float32", "tdtdecode, int8", "floor of tdtdecode, float32"} <= set(names)
        assert len(set(names)) == len(names) and all(line.points for line in panel.lines)
    assert "lower is better" in chart.y_label and result["processor"] in chart.about and chart.has_floor


def test_models_without_durations_are_called_rnn_t():
    systems = {"fused float32": {"us_per_token": 2.0, "floor_fraction": 0.5}}
    comparison = {"vocab_size": 13_087, "durations": [], "threads": 1, "batch": 1, "systems": systems}
    about = {"frames": 1, "processor": "none", "date": "never"}
    (panel,) = plot.chart(about | {"comparisons": [comparison]}).panels
    assert panel.title == "RNN-T with 13087 tokens" and panel.lines[0].floor == 1.0


def test_the_picture_can_be_drawn():
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    chart = plot.chart(json.loads((RESULTS / "greedy.json").read_text()))
    assert plot.png(chart).startswith(b"\x89PNG")


def test_published_sizes():
    assert published_durations(1024) == published_durations(500) == (0, 1, 2, 3, 4)
    assert published_durations(13_087) == ()
    assert set(PUBLISHED) == {1024, 8192, 13_087}
