"""Every option of the searches, and of what they hold, is on the command line, with the same default."""

from __future__ import annotations

import argparse
import inspect
from dataclasses import fields

import pytest

import tdtdecode as tdt
from tdtdecode.commands.search_options import OPTIONS, add_search, search_of

HELD_APART = {"fusion", "confidence"}
"""Fields that are made of options of their own."""


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    add_search(parser)
    return search_of(parser.parse_args(list(map(str, arguments))))


@pytest.mark.parametrize("owner", [
    tdt.Greedy, tdt.Beam, tdt.Confidence, tdt.NgramLM.from_arpa, tdt.PhraseBoost.from_file,
], ids=lambda owner: owner.__qualname__)  # fmt: skip
def test_no_option_is_missing(owner):
    names = {option.name for option in fields(owner)} if isinstance(owner, type) else set(
        inspect.signature(owner).parameters
    )
    assert {option.field for option in OPTIONS if owner in option.owner} == names - HELD_APART


def test_defaults_are_the_classes_own(tmp_path):
    lm, phrases = tmp_path / "lm.arpa", tmp_path / "phrases.txt"
    lm.write_text("\\data\\\nngram 1=1\n\n\\1-grams:\n-1\ta\n\n\\end\\\n")
    phrases.write_text("new york\n")
    assert parsed() == tdt.Greedy() and parsed("--search", "beam") == tdt.Beam()
    assert parsed("--confidence", "tsallis").confidence == tdt.Confidence()
    assert parsed("--lm", lm, "--phrases", phrases) == tdt.Greedy(
        fusion=[tdt.NgramLM.from_arpa(lm), tdt.PhraseBoost.from_file(phrases)]
    )


VALUES = {
    "--max-symbols": 3, "--blank-penalty": -0.5, "--strategy": "malsd", "--beam-size": 6, "--nbest": 2,
    "--threshold": 3.5, "--temperature": 1.3, "--blank-mode": "lm_weighted_full", "--pruning-mode": "late",
    "--confidence": "gibbs", "--confidence-alpha": 0.5, "--confidence-normalization": "lin",
    "--confidence-aggregation": "mean", "--lm-weight": 0.3, "--lm-units": "nemo", "--phrases-weight": 0.2,
    "--phrases-context-score": 2.0, "--phrases-depth-scaling": 3.0, "--phrases-ignore-case": True,
    "--script": "latin,common",
}  # fmt: skip


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.type is not str], ids=lambda o: o.flag)
def test_each_option_arrives(option, tmp_path):
    lm, phrases = tmp_path / "lm.arpa", tmp_path / "phrases.txt"
    lm.write_text("\\data\\\nngram 1=1\n\n\\1-grams:\n-1\ta\n\n\\end\\\n")
    phrases.write_text("new york\n")
    value = VALUES[option.flag]
    given = [option.flag] if value is True else [f"{option.flag}={value}"]
    needed = {
        "--lm": ["--lm", lm], "--phrases": ["--phrases", phrases], "--confidence": ["--confidence", "tsallis"],
    }.get("-".join(option.flag.split("-")[:3]), [])  # fmt: skip
    beam = [] if tdt.Greedy in option.owner else ["--search", "beam"]
    if option.field.endswith("_mode"):
        beam += ["--strategy", "malsd"]
    search = parsed(*beam, *needed, *given)
    holder = search
    if option.owner == (tdt.Confidence,):
        holder = search.confidence
    elif option.owner[0] in (tdt.NgramLM.from_arpa, tdt.PhraseBoost.from_file):
        (holder,) = search.fusion
    expected = tdt.Script("latin", "common") if option.field == "allow" else value
    assert getattr(holder, option.field) == expected


def test_a_list_is_as_long_as_was_asked_for(tmp_path, capsys):
    """Without a number, the threshold of 6 nats leaves few; with one, the threshold gives way."""
    from tests import demo

    model = tdt.load_model("demo")
    recordings = [(samples, 16000) for samples, _ in demo.recordings().values()]
    all_kept = model.recognize(recordings, tdt.Beam(size=8))
    assert any(len(out.alternatives) == 0 for out in all_kept)
    asked_for = model.recognize(recordings, tdt.Beam(size=8, nbest=4))
    assert [len(out.alternatives) for out in asked_for] == [3] * len(recordings)
    assert [out.text for out in asked_for] == [out.text for out in all_kept]
    both = model.recognize(recordings, tdt.Beam(size=8, nbest=4, threshold=6.0))
    assert [len(out.alternatives) for out in both] == [min(len(out.alternatives), 3) for out in all_kept]


def test_thresholds():
    assert tdt.Beam().threshold == tdt.Beam(nbest=1).threshold == 6.0
    assert tdt.Beam(nbest=2).threshold == float("inf") and tdt.Beam(nbest=2, threshold=3).threshold == 3.0
