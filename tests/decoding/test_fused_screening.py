"""Screening must never change a bit: inputs that try to break its bound, and the bound itself, in exact arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.networks.fused import SCREENED_OUTPUTS, FusedNetwork
from tdtdecode.networks.packing import Arithmetic, pack_screen, quantized
from tdtdecode.weights import Affine
from tests.conftest import COMPILED, random_frames
from tests.decoding.fused_helpers import check_same_bits, fused, random_weights
from tests.decoding.test_kernels import random_allow

SPEC = tdt.TransducerSpec(500, encoder_size=12)


def check_screening(weights, spec, frames, lengths=None, search=tdt.Greedy(), kernels="auto"):
    whole, screened = (
        fused(weights, spec, kernels, Arithmetic(screen=screen)).decode(frames, lengths, search)
        for screen in (False, True)
    )
    check_same_bits(whole, screened)
    return sum(map(len, whole))


def random_phrases(rng, spec, weight):
    """Phrases of any tokens; every fourth begins with the same one, so that many tokens can go on."""
    tokens = np.delete(np.arange(spec.vocab_size + 1), spec.blank)
    phrases = [rng.choice(tokens, rng.integers(1, 4)).tolist() for _ in range(40)]
    return tdt.PhraseBoost([*phrases, *([int(tokens[0]), *phrase] for phrase in phrases[::4])], weight)


def with_output(weights, weight=None, bias=None):
    output = weights.output
    return replace(weights, output=Affine(
        output.weight if weight is None else np.ascontiguousarray(weight, np.float32),
        output.bias if bias is None else np.ascontiguousarray(bias, np.float32),
    ))  # fmt: skip


def equal_outputs(weights, rng):
    """All tokens have the same weights, so all are tied, and the first must win."""
    weight, bias = weights.output.weight.copy(), weights.output.bias.copy()
    weight[: SPEC.vocab_size], bias[: SPEC.vocab_size] = weight[7], bias[7]
    return with_output(weights, weight, bias)


def one_unit_apart(weights, rng):
    """All tokens have the same weights, except for the last bit of one weight of each."""
    weight, bias = weights.output.weight.copy(), weights.output.bias.copy()
    weight[: SPEC.vocab_size], bias[: SPEC.vocab_size] = weight[7], bias[7]
    for i in range(SPEC.vocab_size):
        column = rng.integers(weight.shape[1])
        weight[i, column] = np.nextafter(weight[i, column], np.float32(rng.choice([-9, 9])))
    return with_output(weights, weight, bias)


def heavy_tails(weights, rng):
    """One large weight of each output leaves hardly any of the 8-bit steps for the others."""
    weight = weights.output.weight.copy()
    weight[np.arange(len(weight)), rng.integers(weight.shape[1], size=len(weight))] *= 1000
    return with_output(weights, weight)


def large_biases(weights, rng):
    return with_output(weights, bias=weights.output.bias + np.float32(1e6))


def scales_far_apart(weights, rng):
    factors = 10.0 ** rng.uniform(-9, 2, (len(weights.output.weight), 1))
    return with_output(weights, weights.output.weight * factors)


def tiny_weights(weights, rng):
    return with_output(weights, weights.output.weight * np.float32(1e-36), weights.output.bias * np.float32(1e-36))


def no_weights(weights, rng):
    return with_output(weights, np.zeros_like(weights.output.weight), np.zeros_like(weights.output.bias))


def huge_weights(weights, rng):
    return with_output(weights, weights.output.weight * np.float32(1e25))


TRANSFORMS = [
    equal_outputs, one_unit_apart, heavy_tails, large_biases, scales_far_apart, tiny_weights, no_weights, huge_weights,
]  # fmt: skip


@pytest.mark.parametrize("kernels", COMPILED)
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda f: f.__name__)
def test_hostile_weights(kernels, activation, transform):
    tokens = 0
    for seed in range(3 if kernels == COMPILED[-1] else 1):
        rng = np.random.default_rng(seed)
        weights = transform(random_weights(SPEC, joint=31, activation=activation, seed=seed), rng)
        frames, lengths = random_frames(12, 12, 20, seed)
        third = tdt.Greedy(max_symbols=3, allow=tdt.OnlyTokens(range(1, SPEC.vocab_size, 3)))
        steered = tdt.Greedy(fusion=[random_phrases(rng, SPEC, 3.0)], allow=third.allow, max_symbols=3)
        for search in (tdt.Greedy(), tdt.Greedy(blank_penalty=4.0, max_symbols=2), third, steered):
            tokens += check_screening(weights, SPEC, frames, lengths, search, kernels)
    assert tokens > 0


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e-3, 1e3, 1e12, 1e20, 1e38])
def test_frames_of_any_size(scale):
    weights = random_weights(SPEC, seed=3)
    frames, lengths = random_frames(12, 12, 20, 4)
    with np.errstate(over="ignore"):
        frames = frames * np.float32(scale)
    steered = tdt.Greedy(fusion=[random_phrases(np.random.default_rng(0), SPEC, 1.0)])
    for search in (tdt.Greedy(), steered):
        assert check_screening(weights, SPEC, frames, lengths, search) >= 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_frames_that_are_no_numbers(value):
    weights = random_weights(SPEC, seed=3)
    frames, lengths = random_frames(12, 12, 20, 4)
    frames[::2, 0, ::3] = value
    steered = tdt.Greedy(fusion=[random_phrases(np.random.default_rng(0), SPEC, 1.0)])
    for search in (tdt.Greedy(), steered):
        assert check_screening(weights, SPEC, frames, lengths, search) > 0


def test_random_models():
    from hypothesis import given, settings
    from hypothesis import strategies as st

    @settings(max_examples=100)
    @given(
        st.integers(0, 1 << 30), st.sampled_from(["relu", "tanh", "sigmoid"]), st.sampled_from([1, 2, 30, 70, 1100]),
        st.integers(1, 80), st.floats(-8, 8), st.floats(-8, 8), st.floats(-6, 6), st.sampled_from(["", "first", "big"]),
        st.none() | st.floats(-6, 6),
    )  # fmt: skip
    def any_model(seed, activation, vocab_size, joint, weight_scale, frame_scale, penalty, blank, phrases):
        spec = tdt.TransducerSpec(vocab_size, blank=0 if blank == "first" else vocab_size, encoder_size=5)
        if blank == "big":
            spec = tdt.TransducerSpec(vocab_size, (), encoder_size=5, big_blanks=(2, 5))
        weights = random_weights(spec, hidden=6, joint=joint, layers=1, activation=activation, seed=seed)
        weights = with_output(weights, weights.output.weight * np.float32(10**weight_scale))
        frames, lengths = random_frames(6, 5, 12, seed)
        rng = np.random.default_rng(seed)
        allow = random_allow(rng, spec) if seed % 2 else None
        fusion = [] if phrases is None else [random_phrases(rng, spec, 10**phrases)]
        search = tdt.Greedy(max_symbols=10, blank_penalty=penalty, allow=allow, fusion=fusion)
        assert check_screening(weights, spec, frames * np.float32(10**frame_scale), lengths, search) >= 0

    any_model()


def test_a_large_vocabulary_is_screened_by_default():
    spec = tdt.TransducerSpec(SCREENED_OUTPUTS, encoder_size=12)
    weights = random_weights(spec, joint=64, seed=1)
    decoder = tdt.Decoder(FusedNetwork(weights, spec), spec)
    assert decoder.program.packed.screen is not None
    frames, lengths = random_frames(80, 12, 30, 4)
    whole = fused(weights, spec, arithmetic=Arithmetic(screen=False)).decode(frames, lengths)
    check_same_bits(whole, decoder.decode(frames, lengths))


def eight_bits(row):
    """The numbers that the 8 bits of a row stand for as the kernels store it, in exact arithmetic."""
    signed = row.min() < 0
    scale = np.float32(np.abs(row).max() / (127 if signed else 255))
    if not scale > 1e-30:
        return np.zeros_like(row, np.float64)
    return np.rint(row.astype(np.float64) / scale).clip(-127 if signed else 0, 127 if signed else 255) * float(scale)


@pytest.mark.parametrize("seed", range(40))
def test_the_bound_holds(seed):
    """The inequality of the proof holds for rows and weights of many kinds, with sums in double precision."""
    rng = np.random.default_rng(seed)
    inputs = int(rng.integers(1, 700))
    weight = (rng.standard_normal((200, inputs)) * 10.0 ** rng.uniform(-6, 6, (200, 1))).astype(np.float32)
    weight[rng.random(weight.shape) < 0.02] *= 300
    bias = (rng.standard_normal(200) * 10.0 ** rng.uniform(-6, 6, 200)).astype(np.float32)
    row = (rng.standard_normal(inputs) * 10.0 ** rng.uniform(-6, 6)).astype(np.float32)
    if seed % 2:
        row = np.maximum(row, 0)
    screen = pack_screen(Affine(weight, bias))
    values, scale = quantized(weight)
    stored, near = values * scale.astype(np.float64)[:, None], eight_bits(row)
    approximate = (stored @ near + bias).astype(np.float32)
    exact = np.array([bias], np.float32).reshape(-1)
    for k in range(inputs):  # the kernels' order, each step rounded
        exact = exact + weight[:, k] * row[k]
    norm = np.sqrt((row.astype(np.float64) ** 2).sum() + 1)
    error_norm = np.sqrt(((row - near) ** 2).sum())
    bound = norm * screen.errors[:200] + error_norm * screen.norms[:200]
    assert (np.abs(exact.astype(np.float64) - approximate) <= bound).all()


def test_the_bound_tells_outputs_apart():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((500, 640)).astype(np.float32)
    row = np.maximum(rng.standard_normal(640).astype(np.float32), 0)
    screen = pack_screen(Affine(weight, np.zeros(500, np.float32)))
    bound = np.linalg.norm(row) * screen.errors + np.linalg.norm(row - eight_bits(row)) * screen.norms
    assert 0 < bound.max() < 0.5 * (weight @ row).std()
