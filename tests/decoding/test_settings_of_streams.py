"""In the middle of a stream, options that the state depends on are refused by name, and all others may change.

Every field of every search has a changed value here, so a new option has to be put on one side.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.search import changeable_settings
from tests.conftest import RandomTransducer, random_frames

SPEC = tdt.TransducerSpec(12, (0, 1, 2), encoder_size=6)
FEW = tdt.OnlyTokens([2, 5, 6])
BOOST = tdt.PhraseBoost([[1, 2]], 0.5)
TSD = tdt.Beam(size=3, nbest=2, threshold=8.0, fusion=[BOOST], confidence=tdt.Confidence())
MALSD = tdt.Beam("malsd", size=3)
BOOSTED = tdt.Greedy(fusion=[BOOST], confidence=tdt.Confidence())

FREE = {
    "Greedy": (tdt.Greedy(), {"max_symbols": 2, "blank_penalty": 0.7, "allow": FEW}),
    "Greedy with fusion": (BOOSTED, {"max_symbols": 2, "blank_penalty": 0.7, "allow": FEW}),
    "tsd": (TSD, {"nbest": 1, "max_symbols": 2, "threshold": 0.5, "allow": FEW}),
    "malsd": (MALSD, {"nbest": 1, "max_symbols": 2, "threshold": 0.5, "pruning_mode": "late", "allow": FEW}),
}
OTHERS = {"fusion": [tdt.PhraseBoost([[1, 2]], 0.6)], "confidence": tdt.Confidence("gibbs")}
HELD = {
    "Greedy": (tdt.Greedy(), OTHERS),
    "Greedy with fusion": (BOOSTED, {"fusion": [], "confidence": None}),
    "tsd": (TSD, {**OTHERS, "strategy": "malsd", "size": 4, "blank_penalty": 0.7, "temperature": 1.5}),
    "malsd": (MALSD, {**OTHERS, "strategy": "tsd", "size": 4, "blank_penalty": 0.7, "blank_mode": "lm_weighted_full"}),
}


def cases(table):
    return [pytest.param(search, name, value, id=f"{kind}, {name}")
            for kind, (search, changes) in table.items() for name, value in changes.items()]  # fmt: skip


@pytest.fixture(scope="module")
def stream():
    frames, _ = random_frames(2, SPEC.encoder_size, 16, 3)
    return RandomTransducer(SPEC, 3).decoder(SPEC), frames


def test_every_option_is_on_one_side():
    for kind in (tdt.Greedy, tdt.Beam):
        names = {option.name for option in fields(kind)}
        free = set(changeable_settings(kind()))
        tried = {name for search, changes in FREE.values() if isinstance(search, kind) for name in changes}
        refused = {name for search, changes in HELD.values() if isinstance(search, kind) for name in changes}
        assert tried == free and refused == names - free
        text = kind.__doc__.split("In the middle of a stream")[1].split(" may change")[0]
        assert {name for name in names if f"``{name}``" in text} == free


@pytest.mark.parametrize(("search", "name", "value"), cases(FREE))
def test_what_the_state_does_not_depend_on_may_change(stream, search, name, value):
    decoder, frames = stream
    first, state = decoder.decode_chunk(frames[:, :, :8], search=search)
    rest, _ = decoder.decode_chunk(frames[:, :, 8:], state=state, search=replace(search, **{name: value}), final=True)
    assert all(hypothesis.frames.min(initial=99) >= 0 for hypothesis in rest)
    if name == "nbest":
        assert all(len(hypothesis.nbest) == 1 for hypothesis in rest)
        whole = decoder.decode(frames, search=search)
        assert [np.concatenate([a.tokens, b.tokens]).tolist() for a, b in zip(first, rest)] == [
            hypothesis.tokens.tolist() for hypothesis in whole
        ] or search.strategy == "malsd"


@pytest.mark.parametrize(("search", "name", "value"), cases(HELD))
def test_what_the_state_depends_on_is_refused_by_name(stream, search, name, value):
    decoder, frames = stream
    _, state = decoder.decode_chunk(frames[:, :, :8], search=search)
    more = {} if name != "strategy" or value == "tsd" else {"temperature": 1.0}
    other = replace(search, **{name: value}, **more)
    with pytest.raises(tdt.InputError, match=rf"state comes from another search: it depends on .*{name}=.*may change"):
        decoder.decode_chunk(frames[:, :, 8:], state=state, search=other)
    _, state = decoder.decode_chunk(frames[:, :, 8:], state=state, search=search, final=True)
    decoder.decode_chunk(frames[:, :, :8], state=state, search=other)  # a new stream


def test_another_search_is_refused(stream):
    decoder, frames = stream
    for one, other in ((tdt.Greedy(), tdt.Beam()), (tdt.Beam(), tdt.Greedy())):
        _, state = decoder.decode_chunk(frames, search=one)
        with pytest.raises(tdt.InputError, match=rf"{type(one).__name__} \(now {type(other).__name__}\)"):
            decoder.decode_chunk(frames, state=state, search=other)


def test_only_what_confidence_needs_is_held(stream):
    """Beams hold a sum for each token. How the measure is made of it may change."""
    decoder, frames = stream
    _, state = decoder.decode_chunk(frames, search=TSD)
    linear = replace(TSD, confidence=tdt.Confidence(normalization="lin", aggregation="mean"))
    found, _ = decoder.decode_chunk(frames, state=state, final=True, search=linear)
    assert any(map(len, found))
    assert [len(one.token_confidence) for one in found] == list(map(len, found))


def test_streams_are_joined_by_the_same_rule(stream):
    decoder, frames = stream
    states = {
        name: decoder.decode_chunk(frames, search=search)[1]
        for name, search in {"nbest 2": TSD, "nbest 1": replace(TSD, nbest=1), "size 4": replace(TSD, size=4)}.items()
    }
    assert len(tdt.DecoderState.join([states["nbest 2"], states["nbest 1"]])) == 4
    with pytest.raises(tdt.InputError, match=r"states of different searches .*size=3 \(now 4\)"):
        tdt.DecoderState.join([states["nbest 2"], states["size 4"]])
