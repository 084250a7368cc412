"""The weights of a transducer's predictor and joint, whatever format they were stored in."""

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
    predictor).

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
    """

    embedding: np.ndarray
    layers: tuple[LstmLayer, ...]
    prediction: Affine
    encoder: Affine
    activation: str
    output: Affine
