"""Random models as model files, and decoders of the package with the same weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

import tdtdecode as tdt
from tdtdecode.bundle.description import FeatureSettings
from tdtdecode.bundle.packed import model_file
from tdtdecode.bundle.vocabulary import Vocabulary
from tdtdecode.networks.fused import FusedNetwork
from tdtdecode.weights import TransducerWeights
from tests.capi.library import Model
from tests.decoding.fused_helpers import mapped, random_weights

ENCODER = 16


@dataclass(frozen=True)
class Kind:
    """What a random model is like."""

    vocab_size: int = 30
    durations: tuple[int, ...] = (0, 1, 2, 3, 4)
    blank: int | None = None
    layers: int = 1
    hidden: int = 20
    joint: int = 24
    activation: str = "relu"
    bits: int = 32
    context: int = 1
    max_symbols: int | None = None
    big_blanks: tuple[int, ...] = ()


KINDS = [
    Kind(),
    Kind(vocab_size=129, layers=2, hidden=32, joint=64, activation="tanh"),
    Kind(durations=(), blank=0, layers=1, hidden=17, activation="sigmoid"),
    Kind(durations=(0, 1, 2, 4, 8), layers=0, hidden=24, joint=70),
    Kind(durations=(3, 1, 2), blank=4, layers=3, hidden=48, joint=33),
    Kind(vocab_size=5000, layers=2, hidden=40, joint=48),  # screened
    Kind(bits=16),  # weights that fit in bfloat16
    Kind(bits=11),  # weights that fit in float16
]
NEWER = [  # in files of version 2
    Kind(durations=(), big_blanks=(2, 4, 8)),
    Kind(durations=(), big_blanks=(3,), layers=2, vocab_size=77),
    Kind(durations=(), blank=0, layers=0, context=2, max_symbols=1, joint=70, activation="tanh"),
    Kind(durations=(0, 1, 2), blank=0, layers=0, context=4, hidden=17),
    Kind(durations=(), blank=0, layers=0, context=2, max_symbols=1, vocab_size=5000, hidden=48, activation="tanh"),
    Kind(max_symbols=3),
    Kind(durations=(), layers=0, context=3, big_blanks=(2, 5), max_symbols=2, bits=16),
]


def fits(kind: Kind, search: tdt.Greedy | tdt.Beam) -> bool:
    """Whether a search is for such a model."""
    return not (kind.big_blanks and isinstance(search, tdt.Beam) and search.strategy == "malsd")


def random_vocabulary(size: int, blank: int, seed: int = 0) -> Vocabulary:
    """Pieces of one to four letters, half of them with the mark of a space; single letters first."""
    rng = np.random.default_rng(seed)
    pieces: dict[str, None] = dict.fromkeys(["\u2581", *"abcde", *".,'"])
    while len(pieces) < size:
        letters = "".join(rng.choice(list("abcde"), rng.integers(1, 5 if size < 100 else 8)))
        pieces[letters if rng.random() < 0.5 else f"\u2581{letters}"] = None
    found = list(pieces)[:size]
    found.insert(blank, "<blk>")
    return Vocabulary(tuple(found), blank)


def weights_of(kind: Kind, seed: int) -> tuple[TransducerWeights, tdt.TransducerSpec]:
    spec = tdt.TransducerSpec(
        kind.vocab_size, durations=kind.durations, blank=kind.blank, encoder_size=ENCODER, max_symbols=kind.max_symbols,
        big_blanks=kind.big_blanks,
    )  # fmt: skip
    weights = random_weights(spec, kind.hidden, kind.joint, kind.layers, kind.activation, seed, kind.context)
    if kind.bits == 16:
        return mapped(weights, lambda w: (w.view(np.uint32) & 0xFFFF0000).view(np.float32)), spec
    if kind.bits == 11:
        return mapped(weights, lambda w: w.astype(np.float16).astype(np.float32)), spec
    return weights, spec


@lru_cache(maxsize=None)
def pair(kind: Kind, seed: int = 0, precision: str = "float32", isa: str | None = None) -> tuple[tdt.Decoder, Model]:
    """A decoder of the package and a model of the C library with the same weights."""
    weights, spec = weights_of(kind, seed)
    assert spec.blank is not None
    vocabulary = random_vocabulary(spec.vocab_size, spec.blank, seed)
    network = FusedNetwork(weights, spec, precision)
    kernels = "auto" if isa is None else f"cpu-{isa}"
    decoder = tdt.Decoder(network, spec, kernels=kernels, vocabulary=vocabulary)
    content = b"".join(model_file(weights, spec, vocabulary, FeatureSettings()))
    return decoder, Model(content, precision, isa)


def model_of(pieces: tuple[str, ...], blank: int) -> Model:
    """A model with a vocabulary and hardly any weights."""
    spec = tdt.TransducerSpec(len(pieces) - 1, blank=blank, encoder_size=1)
    weights = random_weights(spec, hidden=1, joint=1, layers=0)
    return Model(b"".join(model_file(weights, spec, Vocabulary(pieces, blank), FeatureSettings())))


def random_frames(batch: int, frames: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Encoder output [B, E, T] and lengths; the first is T, the last 0."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, frames + 1, batch)
    lengths[0], lengths[-1] = frames, 0
    return rng.standard_normal((batch, ENCODER, frames)).astype(np.float32), lengths
