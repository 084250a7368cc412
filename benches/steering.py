"""What steering a search costs: a mask of tokens, and lists of thousands of phrases.

    python -m benches.steering [--save]
    python -m benches.steering --vocab-size 1024 --search greedy --save      # a part of it; the other figures are kept

The models have random weights and the size of Parakeet (benches.random_weights). All comparisons are between decodes
that take the same steps, which is checked, so the difference is what steering costs:

- right script: a mask that forbids none of the tokens that the search looks at, against no mask;
- wrong script: half of the tokens are twins of the other half, whose logits are 0.5 lower. A mask that forbids the
  higher half, so that every best token is forbidden, against one that forbids the lower half;
- phrases: random words of the vocabulary's pieces, in any case, a list for each row; against none, and against a single
  phrase. Their weight is so small that they change no token.

Both sides of a comparison take turns. What counts is the median of the ratios of neighbouring runs, in processor time,
with a 95 % confidence interval by bootstrap.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

import tdtdecode as tdt
from tdtdecode.bundle import Vocabulary
from tdtdecode.networks.fused import FusedNetwork
from tdtdecode.networks.packing import Arithmetic
from tdtdecode.weights import Affine, TransducerWeights
from tests.decoding.fused_helpers import as_lifted

from .random_bundle import random_encoder_out
from .random_weights import random_weights
from .report import RESULTS, environment, save

ENCODER_SIZE = 1024
PHRASES = 3000
TINY_WEIGHT = 1e-6
SEARCHES: dict[str, Callable] = {"greedy": tdt.Greedy, "beam": lambda **options: tdt.Beam(size=4, **options)}
FRAMES = {("greedy", 1): 150, ("greedy", 16): 40, ("beam", 1): 40, ("beam", 16): 16}
"""Frames of an utterance by search and batch: enough for a decode of about 0.1 s."""


def letter_pieces(rng: np.random.Generator, vocab_size: int) -> list[str]:
    """Pieces of letters: the alphabet in both cases first, so that every word can be spelt; half begin a word."""
    letters = [chr(code) for first in (97, 65) for code in range(first, first + 26)]
    pieces = dict.fromkeys([*letters, *("\u2581" + letter for letter in letters), "\u2581"])
    while len(pieces) < vocab_size:
        word = "".join(rng.choice(letters[:26], rng.integers(2, 6)))
        pieces["\u2581" * int(rng.integers(2)) + (word.capitalize() if rng.random() < 0.2 else word)] = None
    return [*pieces, "<blk>"]


def phrase_list(rng: np.random.Generator, pieces: list[str], count: int) -> list[str]:
    """Phrases of one to three words; each word is one to three pieces."""
    inner = [piece for piece in pieces[:-1] if not piece.startswith("\u2581")]
    word = lambda: "".join(rng.choice(inner, rng.integers(1, 4)))  # noqa: E731
    return [" ".join(word() for _ in range(rng.integers(1, 4))) for _ in range(count)]


def with_twins(weights: TransducerWeights, vocab_size: int) -> TransducerWeights:
    """Weights whose tokens [V / 2, V) are those of [0, V / 2) of a model of half the size, and those have lower logits.
    """
    half = vocab_size // 2
    order = np.r_[:half, :half, half : len(weights.output.bias)]
    output = Affine(weights.output.weight[order], weights.output.bias[order])
    output.bias[:half] -= 0.5
    return replace(weights, embedding=weights.embedding[np.r_[:half, :half, half]], output=output)


def ratio(function: Callable, base: Callable, seconds: float) -> dict:
    """By how much more processor time a function takes than another, which takes the same steps."""
    ratios: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(ratios) < 10:
        taken = []
        for each in (function, base) if len(ratios) % 2 else (base, function):
            begin = time.thread_time()
            each()
            taken.append(time.thread_time() - begin)
        ratios.append(taken[0] / taken[1] if len(ratios) % 2 else taken[1] / taken[0])
    resampled = np.random.default_rng(0).choice(ratios, (4000, len(ratios)))
    low, high = np.percentile(np.median(resampled, axis=1), (2.5, 97.5)) - 1
    return {"cost": float(np.median(ratios)) - 1, "low": low, "high": high, "pairs": len(ratios)}


class Model:
    """Two decoders of random weights, the second one with twins; and lists of phrases."""

    def __init__(self, vocab_size: int):
        rng = np.random.default_rng(0)
        self.vocab_size = vocab_size
        self.spec = tdt.TransducerSpec(vocab_size, encoder_size=ENCODER_SIZE)
        pieces = letter_pieces(rng, vocab_size)
        self.vocabulary = Vocabulary(tuple(pieces), vocab_size)
        sizes = (0, 1, 2, 3, 4), ENCODER_SIZE, 640, 2, 640
        self.weights = as_lifted(random_weights(vocab_size, *sizes))
        self.twins = with_twins(as_lifted(random_weights(vocab_size // 2, *sizes)), vocab_size)
        self.lists, self.making = {}, {}
        for count in (1, PHRASES):
            self.lists[count] = tdt.PhraseBoost.per_row(
                16 * [phrase_list(rng, pieces, count)], weight=TINY_WEIGHT, ignore_case=True
            )
            begin = time.perf_counter()
            self.lists[count].automaton(vocab_size, vocab_size, tuple(pieces))
            self.making[count] = time.perf_counter() - begin
        begin = time.perf_counter()
        tdt.Script("latin", "common").tokens(self.spec, self.vocabulary)
        self.making["mask"] = time.perf_counter() - begin

    def decoder(self, weights: TransducerWeights, screened: bool) -> tdt.Decoder:
        network = FusedNetwork(weights, self.spec)
        decoder = tdt.Decoder(network, self.spec, vocabulary=self.vocabulary)
        assert decoder.program is not None
        if (decoder.program.packed.screen is not None) != screened:
            decoder.program = network.program(decoder.kernels, Arithmetic("float32"))
        return decoder


def measure(model: Model, screened: bool, name: str, batch: int, seconds: float) -> dict:
    frames = np.stack([random_encoder_out(FRAMES[name, batch], ENCODER_SIZE, seed) for seed in range(batch)])
    search = SEARCHES[name]
    decoder, twins = (model.decoder(weights, screened) for weights in (model.weights, model.twins))
    seen = {int(token) for trace in decoder.trace(frames, search=search()) for token in trace.tokens}
    others = [token for token in range(model.vocab_size) if token not in seen]
    half = model.vocab_size // 2
    lower, higher = (search(allow=tdt.OnlyTokens(range(first, first + half))) for first in (0, half))
    boosts = {count: search(fusion=[boost.select(range(batch))]) for count, boost in model.lists.items()}
    comparisons = {
        "right script": (decoder, search(allow=tdt.ExceptTokens(others[::2])), search()),
        "wrong script": (twins, lower, higher),
        f"{PHRASES} phrases, against none": (decoder, boosts[PHRASES], search()),
        f"{PHRASES} phrases, against one": (decoder, boosts[PHRASES], boosts[1]),
    }
    result: dict = {"us_per_token": 0.0, "costs": {}}
    for title, (run, one, other) in comparisons.items():
        found, expected = (run.decode(frames, search=steered) for steered in (one, other))
        for a, b in zip(found, expected, strict=True):
            same = a.tokens + half == b.tokens if title == "wrong script" else a.tokens == b.tokens
            assert np.all(same) and np.array_equal(a.frames, b.frames)
        cost = ratio(lambda: run.decode(frames, search=one), lambda: run.decode(frames, search=other), seconds)
        result["costs"][title] = cost
        print(f"  {title}: {cost['cost']:+.2%} ({cost['low']:+.2%} to {cost['high']:+.2%}, {cost['pairs']} pairs)",
              flush=True)  # fmt: skip
    begin = time.thread_time()
    result["tokens"] = sum(map(len, decoder.decode(frames)))
    result["us_per_token"] = (time.thread_time() - begin) / result["tokens"] * 1e6
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help="keep the figures under benches/results")
    parser.add_argument("--vocab-size", type=int, nargs="+", default=[1024, 8192])
    parser.add_argument("--search", nargs="+", default=list(SEARCHES), choices=SEARCHES)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--seconds", type=float, default=5.0, help="for each comparison (default: 5)")
    arguments = parser.parse_args()
    path = RESULTS / "steering.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    decodes, making = known.get("decodes", {}), known.get("making_seconds", {})
    for vocab_size in arguments.vocab_size:
        model = Model(vocab_size)
        making[str(vocab_size)] = {str(what): value for what, value in model.making.items()}
        for name in arguments.search:
            for batch in arguments.batch:
                for screened in (False, True) if name == "greedy" and vocab_size > 4096 else (False,):
                    case = f"V = {vocab_size}, {name}, batch {batch}{', screened' if screened else ''}"
                    print(case, flush=True)
                    decodes[case] = measure(model, screened, name, batch, arguments.seconds)
                    if arguments.save:
                        result = {"threads": 1, "decodes": decodes, "making_seconds": making}
                        save("steering", environment("regex") | result)


if __name__ == "__main__":
    main()
