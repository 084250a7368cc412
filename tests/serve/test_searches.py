"""The searches that the page offers."""

from __future__ import annotations

from dataclasses import fields

import pytest

pytest.importorskip("starlette", reason="starlette is not installed")

import tdtdecode as tdt  # noqa: E402
from tdtdecode.serve.pages import search_of  # noqa: E402


@pytest.mark.parametrize("kind", ["greedy", "beam"])
@pytest.mark.parametrize("own", [tdt.Greedy, tdt.Beam])
def test_what_both_kinds_of_search_have_is_kept(own, kind):
    options = {"max_symbols": 3, "blank_penalty": 0.5, "fusion": [tdt.PhraseBoost([[1, 2]])],
               "confidence": tdt.Confidence(), "allow": tdt.OnlyTokens([1, 2])}  # fmt: skip
    assert set(options) == {option.name for option in fields(tdt.Greedy)}, "a new option"
    search = own(**options)
    found = search_of(search, kind)
    assert isinstance(found, tdt.Greedy if kind == "greedy" else tdt.Beam)
    for name in options:
        assert getattr(found, name) == getattr(search, name)
