"""Random transducers as weights, and decoders made of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import tdtdecode as tdt
from benches.random_weights import Weights
from tdtdecode.networks.fused import FusedNetwork
from tdtdecode.networks.packing import Arithmetic
from tdtdecode.weights import Affine, LstmLayer, TransducerWeights


def random_weights(
    spec: tdt.TransducerSpec,
    hidden: int = 20,
    joint: int = 24,
    layers: int = 2,
    activation: str = "relu",
    seed: int = 0,
    context: int = 1,
) -> TransducerWeights:
    """Weights for a spec with an encoder size. Blanks have a bias, so that both blanks and tokens are common.

    ``context`` is how many tokens a predictor without layers looks at.
    """
    rng = np.random.default_rng(seed)

    def normal(*shape, scale=1.0):
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    def affine(outputs, inputs):
        return Affine(normal(outputs, inputs, scale=inputs**-0.5), normal(outputs, scale=0.1))

    output = affine(spec.joint_width, joint)
    output.bias[spec.blank : spec.blank + len(spec.layout.blank_frames)] += rng.uniform(0, 2)
    stack = tuple(
        LstmLayer(normal(4 * hidden, hidden, scale=0.5), normal(4 * hidden, hidden, scale=0.5), normal(4 * hidden))
        for _ in range(layers)
    )
    embedding, *earlier = (normal(spec.vocab_size + 1, hidden) for _ in range(context))
    return TransducerWeights(
        embedding, stack, affine(joint, hidden), affine(joint, spec.encoder_size), activation, output, tuple(earlier)
    )


def as_lifted(w: Weights) -> TransducerWeights:
    """The weights of a bundle, in the form that `tdtdecode.bundle.lifting.tracing.lift` returns."""

    def affine(matrix, bias):
        bias = np.zeros(matrix.shape[1], np.float32) if bias is None else bias
        return Affine(np.ascontiguousarray(matrix.T), bias)

    def layer(lstm):
        zero = np.zeros(len(lstm.w), np.float32)
        return LstmLayer(lstm.w, lstm.r, zero if lstm.w_bias is None else lstm.w_bias + lstm.r_bias)

    return TransducerWeights(
        w.embedding, tuple(map(layer, w.layers)), affine(w.pred, w.pred_bias), affine(w.enc, w.enc_bias), w.activation,
        affine(w.out, w.out_bias),
    )  # fmt: skip


def mapped(weights: TransducerWeights, function) -> TransducerWeights:
    """The weights with a function applied to every matrix."""

    def affine(a):
        return Affine(function(a.weight), a.bias)

    return replace(
        weights,
        layers=tuple(LstmLayer(function(x.input), function(x.recurrent), x.bias) for x in weights.layers),
        prediction=affine(weights.prediction),
        encoder=affine(weights.encoder),
        output=affine(weights.output),
    )


def fused(
    weights: TransducerWeights,
    spec: tdt.TransducerSpec,
    kernels: str = "auto",
    arithmetic: Arithmetic | None = None,
    precision: str = "float32",
    threads: int = 1,
) -> tdt.Decoder:
    """A decoder with the fused network. ``arithmetic`` says how to pack the weights."""
    network = FusedNetwork(weights, spec, precision, threads)
    decoder = tdt.Decoder(network, spec, kernels=kernels)
    if arithmetic is not None:
        decoder.program = network.program(decoder.kernels, arithmetic)
    return decoder


def check_same_bits(a: list[tdt.Hypothesis], b: list[tdt.Hypothesis]) -> None:
    """Assert that hypotheses are identical, with log-probs that are equal to the last bit."""
    assert len(a) == len(b)
    for i, (x, y) in enumerate(zip(a, b)):
        for name in ("tokens", "frames", "durations", "token_logprobs", "duration_logprobs"):
            np.testing.assert_array_equal(getattr(x, name), getattr(y, name), err_msg=f"{name} of utterance {i}")
