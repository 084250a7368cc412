"""Every number among greedy search's options, in every engine that runs greedy search.

A new option gets values in `UNUSUAL`. An engine that ignores it then gives other results than the specification.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import fields, replace

import pytest

import tdtdecode as tdt
from tdtdecode.networks.fused import FusedNetwork
from tdtdecode.networks.packing import Arithmetic
from tests.conftest import COMPILED, RandomTransducer, random_frames
from tests.cuda.helpers import emulated
from tests.decoding.compare import check_hypotheses, traced_decode
from tests.decoding.fused_helpers import fused, random_weights

UNUSUAL = {"max_symbols": [1], "blank_penalty": [0.5, -0.5], "allow": [tdt.OnlyTokens(range(1, 40, 2))]}
"""Values for each option, on both sides of its default, and so far from it that they change the result."""

SPEC = tdt.TransducerSpec(vocab_size=40, encoder_size=6, durations=(0, 1, 2))
SEEDS = range(4)


def on_emulated_gpu(weights):
    from tdtdecode.networks.cuda.fused import FusedCudaNetwork

    return tdt.Decoder(FusedCudaNetwork(weights, SPEC), SPEC)


ENGINES = {
    **{f"fused, {name}": lambda weights, name=name: fused(weights, SPEC, name) for name in COMPILED},
    **{
        f"fused and screened, {name}": lambda weights, name=name: fused(weights, SPEC, name, Arithmetic(screen=True))
        for name in COMPILED
    },
    "fused, emulated GPU": on_emulated_gpu,
}
EACH = [pytest.param(name, value, id=f"{name}={value}") for name, values in UNUSUAL.items() for value in values]


def test_every_option_has_values_here():
    numbers = {field.name for field in fields(tdt.Greedy)} - {"fusion", "confidence"}
    assert numbers == UNUSUAL.keys()


@pytest.mark.parametrize("option, value", EACH)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_fused_network_follows(engine, option, value):
    search, changed = tdt.Greedy(**{option: value}), 0
    with emulated() if "GPU" in engine else nullcontext():
        for seed in SEEDS:
            weights = random_weights(SPEC, seed=seed)
            frames, lengths = random_frames(4, SPEC.encoder_size, 20, seed)
            specification = tdt.Decoder(FusedNetwork(weights, SPEC), SPEC, kernels="reference")
            expected, trace = traced_decode(specification, frames, lengths, search)
            found = ENGINES[engine](weights).decode(frames, lengths, search)
            check_hypotheses(expected, trace, found, SPEC, search)
            changed += emissions(expected) != emissions(specification.decode(frames, lengths))
    assert changed, f"{search} decodes as Greedy() does"


@pytest.mark.parametrize("option, value", EACH)
@pytest.mark.parametrize("beam_engine", [False, True], ids=["greedy loop", "beam engine"])
def test_kernel_sets_follow(kernels, beam_engine, option, value):
    """Confidence brings greedy search to the beam engine, and changes no token."""
    plain = tdt.Greedy(**{option: value})
    search = replace(plain, confidence=tdt.Confidence()) if beam_engine else plain
    changed = 0
    for seed in SEEDS:
        model = RandomTransducer(SPEC, seed)
        frames, lengths = random_frames(4, SPEC.encoder_size, 20, seed)
        specification = model.decoder(SPEC, kernels="reference")
        expected = emissions(specification.decode(frames, lengths, plain))
        assert emissions(model.decoder(SPEC, kernels=kernels).decode(frames, lengths, search)) == expected
        changed += expected != emissions(specification.decode(frames, lengths))
    assert changed, f"{search} decodes as Greedy() does"


def emissions(hypotheses):
    return [(h.tokens.tolist(), h.frames.tolist(), h.durations.tolist()) for h in hypotheses]
