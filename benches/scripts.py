"""Two rules for tokens that may not be emitted, on the demo model with a made-up second script.

    python -m benches.scripts [--save]

Every token with letters gets a twin in a second script: Cyrillic letters in place of the Latin ones. The twin has the
same embedding, and both share the token's probability, as in a model that is not sure of its language. Shares differ
from token to token; their mean is the "share" of the table. Then the model is asked for Latin text by two rules:

- "take the best": the whole row decides whether a token is emitted, and the best Latin token is (`tdtdecode.allowed`);
- "drop": tokens of the other script are taken out of the row, as if they had no probability.

Both keep the script. The figures are word error rates, with recordings clean and in noise; without a rule, words in the
wrong script count as errors. The first figures are those of the original model, without the second script.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

import tdtdecode as tdt
from tdtdecode.bundle import Vocabulary
from tdtdecode.evaluation import edit_distance
from tdtdecode.networks.fused import FusedNetwork
from tdtdecode.weights import Affine, TransducerWeights
from tests import demo
from tests.decoding.fused_helpers import as_lifted

from .precision import COPIES, recordings
from .report import environment, save

SHARES = (0.5, 0.97, 0.999, 0.9999)
SPREAD = 1.0
"""Standard deviation of the shares' log-odds."""
LATIN = tdt.Script("latin", "common")
SEARCHES = {"greedy": tdt.Greedy, "beam of 4": lambda **options: tdt.Beam(size=4, **options)}


def other_script(piece: str) -> str:
    return "".join(chr(ord("\u0430") + ord(c) - ord("a")) if "a" <= c <= "z" else c for c in piece)


class Confused:
    """The demo model with twins of its tokens, which have a share of their probability."""

    def __init__(self, share: float, seed: int = 0):
        rng = np.random.default_rng(seed)
        base, pieces = as_lifted(demo.weights()), demo.pieces()
        size = len(pieces) - 1
        odds = np.log(share / (1 - share)) + SPREAD * rng.standard_normal(size)
        shares = (1 / (1 + np.exp(-odds))).astype(np.float32)
        twins = np.array([token for token in range(size) if other_script(pieces[token]) != pieces[token]])
        weight, bias = base.output.weight, base.output.bias.copy()
        twin_bias = bias[twins] + np.log(shares[twins])
        bias[twins] += np.log1p(-shares[twins])
        self.without_twins = replace(base, output=Affine(weight, bias))
        self.weights: TransducerWeights = replace(
            base,
            embedding=np.concatenate([base.embedding[:size], base.embedding[twins], base.embedding[size:]]),
            output=Affine(
                np.concatenate([weight[:size], weight[twins], weight[size:]]),
                np.concatenate([bias[:size], twin_bias, bias[size:]]),
            ),
        )
        self.pieces = [*pieces[:size], *(other_script(pieces[token]) for token in twins), pieces[size]]


def recognizer(model: tdt.Recognizer, weights: TransducerWeights, pieces: list[str]) -> tdt.Recognizer:
    """The demo's encoder with other weights behind it."""
    blank = len(pieces) - 1
    spec = replace(model.bundle.spec, vocab_size=blank, blank=blank)
    vocabulary = Vocabulary(tuple(pieces), blank)
    decoder = tdt.Decoder(FusedNetwork(weights, spec), spec, vocabulary=vocabulary)
    return tdt.Recognizer(replace(model.bundle, spec=spec, vocabulary=vocabulary), model.encoder, decoder)


def error_rate(model: tdt.Recognizer, search: tdt.Greedy | tdt.Beam, audio: list, texts: list[str]) -> float:
    found = model.recognize(audio, search, batch_size=32)
    errors = sum(edit_distance(text.split(), out.text.split()) for text, out in zip(texts, found))
    return errors / sum(len(text.split()) for text in texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help="keep the figures under benches/results")
    arguments = parser.parse_args()
    audio = [(samples, 16000) for samples in recordings()]
    texts = [text for _, text in demo.recordings().values() for _ in range(COPIES)]
    model = tdt.load_model("demo")
    result: dict = {"recordings": len(audio), "original": {}, "confused": []}
    for name, search in SEARCHES.items():
        result["original"][name] = error_rate(model, search(), audio, texts)
        print(f"original, {name}: {result['original'][name]:.2%}")
    for share in SHARES:
        confused = Confused(share)
        both = recognizer(model, confused.weights, confused.pieces)
        dropped = recognizer(model, confused.without_twins, demo.pieces())
        for name, search in SEARCHES.items():
            rates = {
                "no rule": error_rate(both, search(), audio, texts),
                "take the best": error_rate(both, search(allow=LATIN), audio, texts),
                "drop": error_rate(dropped, search(), audio, texts),
            }
            result["confused"].append({"share": share, "search": name, **rates})
            print(f"share {share}, {name}: " + ", ".join(f"{rule} {rate:.2%}" for rule, rate in rates.items()))
    if arguments.save:
        save("scripts", environment("onnxruntime", "regex") | result)


if __name__ == "__main__":
    main()
