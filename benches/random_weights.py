"""Weights of a random transducer that behaves like a trained one: few tokens, many blanks, durations of 2-3 frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

FRAME_SECONDS = 0.08
TUNING_FRAMES = 300
MAX_SYMBOLS = 10
MEAN_DURATION = 2.5

PUBLISHED = {1024: (0, 1, 2, 3, 4), 8192: (0, 1, 2, 3, 4), 13_087: ()}
"""Sizes of vocabularies of published models, with their durations. The last one is an RNN-T, which has none."""


def published_durations(vocab_size: int) -> tuple[int, ...]:
    """The durations of the published models with a vocabulary of that size; of other sizes those of most TDT models."""
    return PUBLISHED.get(vocab_size, (0, 1, 2, 3, 4))


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


@dataclass(frozen=True, eq=False)
class LstmLayer:
    """An LSTM layer's weights in ONNX's layout, gates in the order i, o, f, c: `w` [4H, in], `r` [4H, H], biases [4H]
    or None."""

    w: np.ndarray
    r: np.ndarray
    w_bias: np.ndarray | None
    r_bias: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Weights:
    """A transducer's weights, float32, with a small NumPy reference of the networks.

    A joint row is `out(activation(enc(frame) + pred(g)))`, with `enc` [E, J], `pred` [H, J] and `out` [J, V + 1 + D].
    Each has a bias or None. `embedding` is [V + 1, H], and zero for blank.
    """

    embedding: np.ndarray
    layers: tuple[LstmLayer, ...]
    enc: np.ndarray
    enc_bias: np.ndarray | None
    pred: np.ndarray
    pred_bias: np.ndarray | None
    out: np.ndarray
    out_bias: np.ndarray | None
    durations: tuple[int, ...]
    blank: int
    activation: str

    @cached_property
    def vocab_size(self) -> int:
        return len(self.embedding) - 1

    def start(self) -> tuple[np.ndarray, np.ndarray]:
        """Zero states, h and c [L, H]."""
        shape = (len(self.layers), self.embedding.shape[1])
        return np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def predict(self, token: int, states: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, tuple]:
        """One predictor step: output [H] and the new states."""
        x = self.embedding[token]
        h_in, c_in = states
        h_out, c_out = np.empty_like(h_in), np.empty_like(c_in)
        for i, layer in enumerate(self.layers):
            gates = layer.w @ x + layer.r @ h_in[i]
            if layer.w_bias is not None:
                gates = gates + layer.w_bias + layer.r_bias
            gate_i, gate_o, gate_f, cell = np.split(gates, 4)
            sigmoid = ACTIVATIONS["sigmoid"]
            c_out[i] = sigmoid(gate_f) * c_in[i] + sigmoid(gate_i) * np.tanh(cell)
            h_out[i] = sigmoid(gate_o) * np.tanh(c_out[i])
            x = h_out[i]
        return x, (h_out, c_out)

    def project_frames(self, frames: np.ndarray) -> np.ndarray:
        """The encoder's side of the joint, [T, E] -> [T, J]."""
        return _affine(frames, self.enc, self.enc_bias)

    def project_prediction(self, output: np.ndarray) -> np.ndarray:
        """The predictor's side of the joint, [H] -> [J]."""
        return _affine(output, self.pred, self.pred_bias)

    def rows(self, frames: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """Joint rows [..., V + 1 + D] from both projections."""
        return _affine(ACTIVATIONS[self.activation](frames + prediction), self.out, self.out_bias)

    def count_tokens(self, frames: np.ndarray, limit: float = np.inf) -> int:
        """The number of tokens that greedy search emits on projected frames [T, J]. It stops counting at `limit`."""
        output, states = self.predict(self.blank, self.start())
        prediction = self.project_prediction(output)
        t = emitted = here = 0
        while t < len(frames) and emitted < limit:
            row = self.rows(frames[t], prediction)
            token = int(np.argmax(row[: self.vocab_size + 1]))
            durations = row[self.vocab_size + 1:]
            step = self.durations[int(np.argmax(durations))] if self.durations else int(token == self.blank)
            if token == self.blank:
                step = max(step, 1)
            else:
                emitted += 1
                here += 1
                output, states = self.predict(token, states)
                prediction = self.project_prediction(output)
                if step == 0 and here == MAX_SYMBOLS:
                    step = 1
            if step:
                here = 0
            t += step
        return emitted


def random_encoder_out(frames: int, encoder_size: int, seed: int = 0, correlation: float = 0.6) -> np.ndarray:
    """Random encoder frames, float32 [E, T], of unit variance. Neighbours are correlated, as in speech."""
    rng = np.random.default_rng([seed, 1])
    noise = rng.standard_normal((frames, encoder_size), dtype=np.float32)
    out = np.empty_like(noise)
    last = noise[0] if frames else None
    for t in range(frames):
        last = out[t] = noise[t] if t == 0 else correlation * last + np.sqrt(1 - correlation**2) * noise[t]
    return np.ascontiguousarray(out.T)


def random_weights(
    vocab_size: int,
    durations: Sequence[int],
    encoder_size: int,
    predictor_size: int,
    predictor_layers: int,
    joint_size: int,
    *,
    blank: str = "last",
    activation: str = "relu",
    biases: bool = True,
    tokens_per_second: float | None = 3.3,
    frames: np.ndarray | None = None,
    seed: int = 0,
) -> Weights:
    """Random weights, tuned so that greedy search emits `tokens_per_second` on `random_encoder_out`.

    Tuning moves the biases of blank and of the durations. Without biases, or with `tokens_per_second=None`, the rate of
    tokens and the durations are left to chance.

    Parameters
    ----------
    frames:
        Encoder output [E, T] to tune to instead, of an encoder that is random itself. Its frames may differ little from
        each other, so the projection of the joint brings each channel to mean 0 and deviation 1.
    """
    rng = np.random.default_rng([seed, 0])

    def normal(*shape: int, scale: float) -> np.ndarray:
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    def bias(*shape: int) -> np.ndarray | None:
        values = normal(*shape, scale=0.1)
        return values if biases else None

    h = predictor_size
    embedding = normal(vocab_size + 1, h, scale=1.0)
    layers = tuple(
        LstmLayer(normal(4 * h, h, scale=2 / h**0.5), normal(4 * h, h, scale=1 / h**0.5), bias(4 * h), bias(4 * h))
        for _ in range(predictor_layers)
    )
    blank_id = vocab_size if blank == "last" else 0
    embedding[blank_id] = 0
    weights = Weights(
        embedding=embedding,
        layers=layers,
        enc=normal(encoder_size, joint_size, scale=encoder_size**-0.5),
        enc_bias=bias(joint_size),
        pred=normal(h, joint_size, scale=2 / h**0.5),
        pred_bias=bias(joint_size),
        out=normal(joint_size, vocab_size + 1 + len(durations), scale=2 / joint_size**0.5),
        out_bias=bias(vocab_size + 1 + len(durations)),
        durations=tuple(durations),
        blank=blank_id,
        activation=activation,
    )
    if not biases or tokens_per_second is None:
        return weights
    if frames is None:
        frames = random_encoder_out(TUNING_FRAMES, encoder_size, seed)
    else:
        weights = _standardized(weights, frames)
    projected = weights.project_frames(frames.T)
    return _tune_blank(_tune_durations(weights, projected), projected, tokens_per_second)


def _standardized(weights: Weights, frames: np.ndarray) -> Weights:
    """The weights for encoder output whose channels have mean and deviation of these frames [E, T]."""
    assert weights.enc_bias is not None
    enc = weights.enc / frames.std(axis=1, keepdims=True)
    return replace(weights, enc=enc, enc_bias=weights.enc_bias - frames.mean(axis=1) @ enc)


def _tune_durations(weights: Weights, frames: np.ndarray) -> Weights:
    """Tilt the duration biases until the mean duration is `MEAN_DURATION` frames, or as near as the table allows."""
    if len(set(weights.durations)) < 2:
        return weights
    output, _ = weights.predict(weights.blank, weights.start())
    logits = weights.rows(frames, weights.project_prediction(output))[:, weights.vocab_size + 1:]
    table = np.asarray(weights.durations, np.float32)

    def mean(tilt: float) -> float:
        return float(np.mean(table[np.argmax(logits + tilt * table, axis=1)]))

    tilt = _bisect(mean, MEAN_DURATION, -20.0, 20.0)
    return _with_bias(weights, np.arange(weights.vocab_size + 1, weights.out.shape[1]), tilt * table)


def _tune_blank(weights: Weights, frames: np.ndarray, tokens_per_second: float) -> Weights:
    wanted = tokens_per_second * len(frames) * FRAME_SECONDS

    def missing(shift: float) -> float:
        return -float(_with_bias(weights, weights.blank, shift).count_tokens(frames, limit=wanted + 1))

    return _with_bias(weights, weights.blank, _bisect(missing, -wanted, -20.0, 40.0))


def _with_bias(weights: Weights, columns: int | np.ndarray, shift: float | np.ndarray) -> Weights:
    assert weights.out_bias is not None
    out_bias = weights.out_bias.copy()
    out_bias[columns] += np.float32(shift)
    return replace(weights, out_bias=out_bias)


def _bisect(rising, target: float, low: float, high: float, steps: int = 14) -> float:
    """Where a rising function passes `target`."""
    for _ in range(steps):
        middle = (low + high) / 2
        if rising(middle) < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _affine(x: np.ndarray, matrix: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    return x @ matrix if bias is None else x @ matrix + bias
