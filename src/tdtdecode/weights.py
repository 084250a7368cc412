"""The weights of a transducer's predictor and joint, whatever they were stored in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ACTIVATIONS = ("relu", "tanh", "sigmoid")


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
    """An LSTM layer as ONNX defines it; the gates i, o, f, c follow each other.

    Attributes
    ----------
    input:
        float32 [4H, inputs], applied to what comes from below.
    recurrent:
        float32 [4H, H], applied to the layer's own last output.
    bias:
        float32 [4H], the sum of both biases; zeros where the model has none.
    """

    input: np.ndarray
    recurrent: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class TransducerWeights:
    """Predictor and joint.

    ``row = output(activation(encoder(frame) + prediction(g)))``, where g is the output of the last LSTM layer over
    ``embedding[token]``, or that itself where there are no layers (a stateless predictor).

    Attributes
    ----------
    embedding:
        float32 [V + 1, inputs of the first layer], blank's row among them.
    layers:
        LSTM layers from the bottom up, all of the same width H.
    prediction, encoder:
        From predictor output and encoder frame to the joint's hidden width J.
    activation:
        One of `ACTIVATIONS`.
    output:
        [V + 1 + D, J].
    """

    embedding: np.ndarray
    layers: tuple[LstmLayer, ...]
    prediction: Affine
    encoder: Affine
    activation: str
    output: Affine
