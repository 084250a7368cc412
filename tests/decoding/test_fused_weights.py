"""Weights that are not finite, or that might overflow, make no network: what they give depends on the order of sums."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.networks.fused import FusedNetwork
from tdtdecode.networks.packing import Arithmetic, pack_screen
from tdtdecode.weights import Affine, LstmLayer
from tests.conftest import COMPILED, random_frames
from tests.cuda.helpers import on
from tests.decoding.fused_helpers import check_same_bits, fused, random_weights

SPEC = tdt.TransducerSpec(40, encoder_size=6)
PARTS = ["embedding", "layers.0.input", "layers.0.recurrent", "layers.0.bias", "layers.1.input", "prediction.weight",
         "prediction.bias", "encoder.weight", "encoder.bias", "output.weight", "output.bias"]  # fmt: skip


def with_value(part, value, **options):
    """Random weights with one value of a part replaced."""
    weights = random_weights(SPEC, **options)
    if part == "embedding":
        array = weights.embedding.copy()
        array[3, 1] = value
        return replace(weights, embedding=array)
    name, *rest = part.split(".")
    owner = weights.layers[int(rest[0])] if name == "layers" else getattr(weights, name)
    arrays = {field.name: getattr(owner, field.name).copy() for field in fields(owner)}
    arrays[rest[-1]].reshape(-1)[5] = value
    if name == "layers":
        layers = list(weights.layers)
        layers[int(rest[0])] = LstmLayer(**arrays)
        return replace(weights, layers=tuple(layers))
    return replace(weights, **{name: Affine(**arrays)})


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(("value", "message"), [
    (np.nan, "infinite or NaN"), (np.inf, "infinite or NaN"), (-np.inf, "infinite or NaN"),
    (1e37, "weights of up to 1.0e.37, and 1e.30 is the most there may be"), (-2e30, "weights of up to 2.0e.30"),
])  # fmt: skip
def test_weights_that_are_refused(part, value, message):
    for precision in ("float32", "bfloat16", "int8"):
        with pytest.raises(tdt.InputError, match=message) as error:
            FusedNetwork(with_value(part, value), SPEC, precision)
    names = {"embedding": "the embedding", "layers": "LSTM layer"}
    assert str(error.value).startswith(names.get(part.split(".")[0], f"the {part.split('.')[0]} product"))


def test_weights_that_are_refused_on_a_gpu():
    from tdtdecode.networks.cuda.fused import FusedCudaNetwork

    with on("emulated"):
        for value in (np.nan, 1e37):
            with pytest.raises(tdt.InputError, match="the output product has weights"):
                FusedCudaNetwork(with_value("output.weight", value), SPEC, "float16")


@pytest.mark.parametrize(("parts", "message"), [
    (("embedding", "layers.0.input"), "LSTM layer 0 may give numbers of up to"),
    (("encoder.weight", "output.weight"), "the output product may give numbers of up to"),
    (("prediction.weight", "output.weight"), "the output product may give numbers of up to"),
])  # fmt: skip
def test_weights_whose_products_overflow(parts, message):
    """Each is as large as may be, and together they are too large."""
    weights, other = (with_value(part, 1e22) for part in parts)
    FusedNetwork(weights, SPEC), FusedNetwork(other, SPEC)
    name = parts[1].split(".")[0]
    both = replace(weights, **{name: getattr(other, name)})
    with pytest.raises(tdt.InputError, match=message):
        FusedNetwork(both, SPEC)
    if name == "output":  # what goes into the output is bounded by other activations than relu
        FusedNetwork(replace(both, activation="tanh"), SPEC)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("value", [1e9, -1e22, 1e25])
def test_large_weights_decode_as_by_the_specification(part, layers, value):
    """On every kernel set, alone and among more utterances than a block holds, with screening and without."""
    if part.startswith("layers") and not layers:
        return
    weights = with_value(part, value, layers=layers)
    frames, lengths = random_frames(70, 6, 8, seed=1)
    expected = [h.tokens.tolist() for h in fused(weights, SPEC, "reference").decode(frames, lengths)]
    for kernels in COMPILED:
        plain, screened = (
            fused(weights, SPEC, kernels, Arithmetic(screen=screen)).decode(frames, lengths)
            for screen in (False, True)
        )
        check_same_bits(plain, screened)
        assert [h.tokens.tolist() for h in plain] == expected
        alone = fused(weights, SPEC, kernels).decode(frames[69:], lengths[69:])
        check_same_bits(plain[69:], alone)


def test_the_bound_of_screening_is_checked():
    """A matrix whose bound might overflow is not screened, and gives the same."""
    weights = random_weights(SPEC)
    assert pack_screen(weights.output) is not None
    assert pack_screen(with_value("output.weight", 1e21).output) is not None
    for part in ("output.weight", "output.bias"):
        assert pack_screen(with_value(part, 1e30).output) is None
