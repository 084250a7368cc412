"""The weights of a transducer's predictor and joint, whatever format they were stored in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .reprs import one_line

ACTIVATIONS = ("relu", "tanh", "sigmoid")

LARGEST_WEIGHT = 1e30
LARGEST_FRAME = 65504.0
"""Largest number in an encoder frame that weights must allow for: the largest float16."""

_LARGEST_SUM = float(np.finfo(np.float32).max) / 10


@dataclass(frozen=True, eq=False)
class Affine:
    """``y = weight x + bias``.

    Attributes
    ----------
    weight:
        float32 [outputs, inputs].
    bias:
        float32 [outputs]; zeros where the model has none.
    """

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class LstmLayer:
    """An LSTM layer as ONNX defines it, with the gates in the order i, o, f, c.

    Attributes
    ----------
    input:
        float32 [4H, inputs], applied to the output of the layer below.
    recurrent:
        float32 [4H, H], applied to the layer's own previous output.
    bias:
        float32 [4H], the sum of the input bias and the recurrent bias; zeros where the model has none.
    """

    input: np.ndarray
    recurrent: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class TransducerWeights:
    """The weights of predictor and joint.

    A joint row is ``output(activation(encoder(frame) + prediction(g)))``. Here g is the predictor's output: that of the
    last LSTM layer over ``embedding[token]``, or ``embedding[token]`` itself if there are no layers (a stateless
    predictor). A predictor of k2 looks at the last C tokens and has no layers: with the tokens t_1 (the last) to t_C,
    ``g = relu(embedding[t_1] + earlier[0][t_2] + ... + earlier[C - 2][t_C])``. Before the first tokens nothing is
    added.

    Attributes
    ----------
    embedding:
        float32 [V + 1, inputs of the first layer], with a row for blank.
    layers:
        LSTM layers from the bottom up, all of the same width H.
    prediction, encoder:
        Map the predictor's output and an encoder frame to the joint's hidden width J.
    activation:
        One of `ACTIVATIONS`.
    output:
        Maps the joint's hidden width J to the V + 1 + D logits of a joint row.
    earlier:
        float32 [V + 1, H] for each token before the last that the predictor looks at, the second last first; empty if
        it looks at one token. Only for predictors without layers; the embedding is then [V + 1, H] too.
    """

    embedding: np.ndarray
    layers: tuple[LstmLayer, ...]
    prediction: Affine
    encoder: Affine
    activation: str
    output: Affine
    earlier: tuple[np.ndarray, ...] = ()

    def __repr__(self) -> str:
        return one_line(self, self.sizes)

    @property
    def cells(self) -> int:
        """The vectors of width H that the next step needs: a cell for each LSTM layer or each earlier token."""
        return len(self.layers) + len(self.earlier)

    @property
    def sizes(self) -> str:
        """The structure, for people."""
        width, joint = self.prediction.weight.shape[1], len(self.encoder.weight)
        layers = f"{len(self.layers)} LSTM layers" if self.layers else "no LSTM layers"
        if self.earlier:
            layers = f"a context of {len(self.earlier) + 1} tokens"
        return f"{layers} of {width}, joint of {joint}, {self.activation}"

    def problem(self) -> str:
        """Why no network can compute with these weights; empty if it can.

        They must be finite, at most `LARGEST_WEIGHT`, and no sum in a joint row may overflow float32. What overflows
        depends on the order of the sums, so the kernels would give different results.
        """
        parts: dict[str, tuple[np.ndarray, ...]] = {"the embedding": (self.embedding, *self.earlier)}
        for i, layer in enumerate(self.layers):
            parts[f"LSTM layer {i}"] = (layer.input, layer.recurrent, layer.bias)
        for name in ("prediction", "encoder", "output"):
            affine = getattr(self, name)
            parts[f"the {name} product"] = (affine.weight, affine.bias)
        for part, arrays in parts.items():
            if not all(np.isfinite(array).all() for array in arrays):
                return f"{part} has weights that are infinite or NaN"
            largest = max(map(_largest, arrays))
            if largest > LARGEST_WEIGHT:
                return f"{part} has weights of up to {largest:.1e}, and {LARGEST_WEIGHT:.0e} is the most there may be"
        for part, bound in self._bounds():
            if bound > _LARGEST_SUM:
                return f"{part} may give numbers of up to {bound:.1e} with these weights, and float32 would overflow"
        return ""

    def _bounds(self) -> Iterator[tuple[str, float]]:
        """What the numbers that each part gives cannot exceed."""
        below = sum(map(_largest, (self.embedding, *self.earlier)))
        for i, layer in enumerate(self.layers):
            gates = _reach(layer.input) * below + _reach(layer.recurrent) + _largest(layer.bias)
            yield f"LSTM layer {i}", gates
            below = 1.0
        prediction = _reach(self.prediction.weight) * below + _largest(self.prediction.bias)
        yield "the prediction product", prediction
        encoder = _reach(self.encoder.weight) * LARGEST_FRAME + _largest(self.encoder.bias)
        yield "the encoder product", encoder
        hidden = prediction + encoder if self.activation == "relu" else 1.0
        yield "the output product", _reach(self.output.weight) * hidden + _largest(self.output.bias)


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array).max(initial=0))


def _reach(weight: np.ndarray) -> float:
    """The most that a product with numbers of up to 1 can give."""
    return float(np.abs(weight).sum(axis=1, dtype=np.float64).max(initial=0))
