"""What steering a search costs: a mask of tokens, and lists of thousands of phrases, at V = 8192.

    python -m benches.steering [--save]

The model has random weights and the size of Parakeet (benches.random_weights). Each utterance has 150 frames (12 s).
A mask is measured twice. In the right script it changes no token, so the difference is what looking at it costs. In the
wrong one, every best token is banned, and the best of the others is looked for each time. Phrases are random words of
the vocabulary's pieces, in any case. They have weight 0.001, so that they change hardly a token: the difference is the
cost. All variants run in turn. What counts is the least processor time of each, which other programs disturb less.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

import tdtdecode as tdt
from tdtdecode.bundle import Vocabulary
from tdtdecode.networks.fused import FusedNetwork
from tests.decoding.fused_helpers import as_lifted

from .random_bundle import random_encoder_out
from .random_weights import random_weights
from .report import environment, save

VOCAB_SIZE, FRAMES, ENCODER_SIZE = 8192, 150, 1024
PHRASES = (1, 1000, 3000)
SEARCHES = {"greedy": tdt.Greedy, "beam of 4": lambda **options: tdt.Beam(size=4, **options)}


def letter_pieces(rng: np.random.Generator) -> list[str]:
    """Pieces of letters: the alphabet in both cases first, so that every word can be spelt; half begin a word."""
    letters = [chr(code) for first in (97, 65) for code in range(first, first + 26)]
    pieces = dict.fromkeys([*letters, *("\u2581" + letter for letter in letters), "\u2581"])
    while len(pieces) < VOCAB_SIZE:
        word = "".join(rng.choice(letters[:26], rng.integers(2, 6)))
        pieces["\u2581" * int(rng.integers(2)) + (word.capitalize() if rng.random() < 0.2 else word)] = None
    return [*pieces, "<blk>"]


def phrase_list(rng: np.random.Generator, pieces: list[str], count: int) -> list[str]:
    """Phrases of one to three words; each word is one to three pieces."""
    inner = [piece for piece in pieces[:-1] if not piece.startswith("\u2581")]
    word = lambda: "".join(rng.choice(inner, rng.integers(1, 4)))  # noqa: E731
    return [" ".join(word() for _ in range(rng.integers(1, 4))) for _ in range(count)]


def least(functions: dict[str, Callable], runs: int) -> dict[str, float]:
    """The least processor time of each function's runs, which take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(runs):
        for name, function in functions.items():
            begin = time.thread_time()
            function()
            seconds[name].append(time.thread_time() - begin)
    return {name: min(values) for name, values in seconds.items()}


def measure(decoder: tdt.Decoder, batch: int, name: str, runs: int, lists: dict[int, tdt.PhraseBoost]) -> dict:
    frames = np.stack([random_encoder_out(FRAMES, ENCODER_SIZE, seed) for seed in range(batch)])
    search = SEARCHES[name]
    plain = decoder.decode(frames, search=search())
    emitted = {token for hypothesis in plain for one in hypothesis.nbest for token in one.tokens.tolist()}
    others = [token for token in range(VOCAB_SIZE) if token not in emitted]
    searches = {
        "plain": search(),
        "right script": search(allow=tdt.ExceptTokens(others[::2])),
        "wrong script": search(allow=tdt.ExceptTokens(sorted(emitted))),
    }
    for count, boost in lists.items():
        searches[f"{count} phrases"] = search(fusion=[boost.select(range(batch))])
    tokens = {}
    for variant, one in searches.items():
        tokens[variant] = sum(map(len, decoder.decode(frames, search=one)))
    seconds = least(
        {variant: lambda one=one: decoder.decode(frames, search=one) for variant, one in searches.items()}, runs
    )
    result: dict = {"batch": batch, "search": name, "us_per_token": {}, "tokens": tokens}
    for variant, value in seconds.items():
        result["us_per_token"][variant] = value / tokens[variant] * 1e6
        each = result["us_per_token"][variant]
        print(f"batch {batch:2}, {name}, {variant}: {value * 1e3:.1f} ms, {each:.1f} us a token")
    few = f"{PHRASES[0]} phrases"
    result["mask_costs"] = seconds["right script"] / seconds["plain"] - 1
    result["phrases_cost"] = {count: seconds[f"{count} phrases"] / seconds[few] - 1 for count in PHRASES[1:]}
    print(f"    a mask {result['mask_costs']:+.2%}; phrases against one phrase: " + ", ".join(
        f"{count}: {value:+.2%}" for count, value in result["phrases_cost"].items()))  # fmt: skip
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help="keep the figures under benches/results")
    parser.add_argument("--runs", type=int, default=7, help="runs of each variant (default: 7)")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    weights = as_lifted(random_weights(VOCAB_SIZE, (0, 1, 2, 3, 4), ENCODER_SIZE, 640, 2, 640))
    spec = tdt.TransducerSpec(VOCAB_SIZE, encoder_size=ENCODER_SIZE)
    pieces = letter_pieces(rng)
    vocabulary = Vocabulary(tuple(pieces), VOCAB_SIZE)
    result: dict = {"vocab_size": VOCAB_SIZE, "frames": FRAMES, "threads": 1, "decodes": []}
    result["making_phrases_seconds"] = {}
    decoder = tdt.Decoder(FusedNetwork(weights, spec), spec, vocabulary=vocabulary)
    begin = time.perf_counter()
    tdt.Script("latin", "common").tokens(spec, vocabulary)
    result["making_a_mask_seconds"] = time.perf_counter() - begin
    lists = {}
    for count in PHRASES:
        boost = tdt.PhraseBoost.per_row(
            16 * [phrase_list(rng, pieces, count)], weight=0.001, ignore_case=True
        )
        begin = time.perf_counter()
        boost.automaton(VOCAB_SIZE, VOCAB_SIZE, tuple(pieces))
        result["making_phrases_seconds"][count] = time.perf_counter() - begin
        lists[count] = boost
        print(f"{count} phrases: {result['making_phrases_seconds'][count]:.3f} s for each list, once")
    for batch in (1, 16):
        for name in SEARCHES:
            result["decodes"].append(measure(decoder, batch, name, arguments.runs, lists))
    if arguments.save:
        save("steering", environment("regex") | result)


if __name__ == "__main__":
    main()
