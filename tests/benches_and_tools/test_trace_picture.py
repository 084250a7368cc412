"""The README's picture shows what the decoder does today."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from tools import trace_picture


@pytest.fixture(scope="module")
def said() -> trace_picture.Utterance:
    return trace_picture.utterance()


@pytest.mark.parametrize("name", trace_picture.THEMES)
def test_the_picture_is_current(said, name):
    stored = (trace_picture.IMAGES / f"trace-{name}.svg").read_text(encoding="utf-8")
    assert trace_picture.draw(said, trace_picture.THEMES[name]) == stored, "run `python -m tools.trace_picture`"
    ElementTree.fromstring(stored)


def test_a_step_begins_where_the_one_before_leads(said):
    frames, durations = said.trace.frames.tolist(), said.trace.durations.tolist()
    assert [*frames[1:], said.frames] == [frame + duration for frame, duration in zip(frames, durations)]
    assert said.text == "set an alarm for seven o'clock on friday"
