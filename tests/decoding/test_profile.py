"""A profiled decode is the same decode, and its profile has all of the loop's work."""

from __future__ import annotations

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.networks.packing import Arithmetic
from tdtdecode.traces import COUNTS, PHASES
from tests.conftest import COMPILED, RandomTransducer, random_frames
from tests.decoding.fused_helpers import check_same_bits, fused, random_weights

SPEC = tdt.TransducerSpec(30, encoder_size=6)


@pytest.mark.parametrize("kernels", COMPILED)
@pytest.mark.parametrize("search", [tdt.Greedy(), tdt.Beam(size=3), tdt.Greedy(confidence=tdt.Confidence())], ids=str)
def test_the_decode_is_the_same(kernels, search):
    frames, lengths = random_frames(9, 6, 25, seed=1)
    decoder = fused(random_weights(SPEC), SPEC, kernels, threads=2)
    expected = decoder.decode(frames, lengths, search)
    found, profile = decoder.profile(frames, lengths, search)
    check_same_bits(found, expected)
    assert [hypothesis.score for hypothesis in found] == [hypothesis.score for hypothesis in expected]
    assert profile.nanoseconds.shape == (2, len(PHASES)) and (profile.nanoseconds >= 0).all()
    counts = dict(zip(COUNTS, profile.counts.tolist()))
    if isinstance(search, tdt.Greedy) and search.confidence is None:
        assert counts["predictor_steps"] == sum(map(len, found))
    assert counts["joint_rows"] >= counts["passes"] > 0 and counts["predictor_steps"] > 0
    assert 0 < counts["projected_frames"] <= lengths.sum() and counts["late_rows"] == 0
    spent = dict(zip(PHASES, profile.nanoseconds.sum(0)))
    assert all(spent[phase] > 0 for phase in PHASES if phase != "log-probs") and spent["log-probs"] == 0
    assert sum(profile.shares.values()) == pytest.approx(1) and profile.seconds > 0
    assert f"{counts['passes']} passes, " in repr(profile)


def test_log_probs_of_screened_rows_are_counted():
    frames, lengths = random_frames(2, 6, 25, seed=2)
    decoder = fused(random_weights(SPEC), SPEC, "cpu", Arithmetic("float32", screen=True))
    found, profile = decoder.profile(frames, lengths)
    counts = dict(zip(COUNTS, profile.counts.tolist()))
    assert counts["late_rows"] == sum(map(len, found)) > 0 and profile.shares["log-probs"] > 0


def test_of_no_utterance():
    found, profile = fused(random_weights(SPEC), SPEC).profile(np.zeros((0, 6, 4), np.float32))
    assert found == [] and profile.seconds == 0 and set(profile.shares.values()) == {0}


@pytest.mark.parametrize("kernels", ["reference", "cpu"])
def test_decoders_without_a_compiled_loop_are_refused(kernels):
    model = RandomTransducer(SPEC, seed=3)
    network = tdt.CallableNetwork(model.predict, model.joint, model.select)
    with pytest.raises(tdt.InputError, match="profile needs the compiled loop of network 'fused'.*network callable"):
        tdt.Decoder(network, SPEC, kernels=kernels).profile(np.zeros((1, 6, 4), np.float32))
