"""Spellings of phrases, and their automata, are those of the package, for random vocabularies and phrases."""

from __future__ import annotations

import shutil
import subprocess
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.errors import PhraseWarning
from tdtdecode.fusion.automaton import DTYPES
from tdtdecode.fusion.spelling import CannotSpell, Speller

CSRC = Path(__file__).parents[2] / "csrc"
SPACE = "\u2581"
BYTES = [f"<0x{value:02X}>" for value in range(256)]

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    found = tmp_path_factory.mktemp("internals") / "program"
    sources = [Path(__file__).with_name("internals.cpp"), *CSRC.glob("text/*.cpp")]
    subprocess.run(
        ["g++", "-std=c++17", "-O1", f"-I{CSRC}", f"-I{CSRC / 'cpu'}", *map(str, sources), "-o", str(found)], check=True
    )
    return found


def random_pieces(rng, alphabet: str, spaces: str) -> list[str]:
    """Pieces of letters; ``spaces``: "mark" where words begin, a "lone" piece, or "none"."""
    found: dict[str, None] = {}
    for _ in range(int(rng.integers(3, 60))):
        piece = "".join(rng.choice(list(alphabet), rng.integers(1, 4)))
        found[SPACE + piece if spaces == "mark" and rng.random() < 0.5 else piece] = None
    pieces = [*found, *([SPACE] if spaces != "none" and rng.random() < 0.7 else [])]
    if rng.random() < 0.3:
        pieces += [str(piece) for piece in rng.choice(pieces, 4)]  # as in vocabularies that were joined
    if rng.random() < 0.3:
        pieces += BYTES[: int(rng.choice([128, 256]))]
    return [str(piece) for piece in rng.permutation(pieces)]


def random_phrases(rng, alphabet: str) -> list[tuple[str, float]]:
    found = []
    for _ in range(int(rng.integers(1, 8))):
        words = ["".join(rng.choice(list(alphabet), rng.integers(1, 9))) for _ in range(rng.integers(1, 4))]
        found.append((" ".join(words), float(np.float32(rng.choice([0.5, 1, 3])))))
    return found


def lines(pieces: list[str], blank: int, phrases: list[tuple[str, float]]) -> str:
    text = [f"{len(pieces)} {blank}", *pieces, str(len(phrases))]
    for phrase, weight in phrases:
        text += [repr(weight), phrase]
    return "\n".join(text) + "\n"


def expected(pieces: list[str], blank: int, phrases: list[tuple[str, float]]) -> list[str]:
    speller = Speller(pieces, blank)
    found, any_spelt = [], False
    for phrase, _ in phrases:
        try:
            spellings = speller.spellings(phrase)
        except CannotSpell as error:
            found.append(f"place {error.place}")
        else:
            any_spelt = True
            found += ["spelling" + "".join(f" {token}" for token in tokens) for tokens in spellings]
    if not any_spelt:
        return found
    boost = tdt.PhraseBoost(phrases, context_score=0.9, depth_scaling=1.7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhraseWarning)
        automaton = boost.automaton(len(pieces) - 1, blank, tuple(pieces))
    return [*found, *(f"{name} {getattr(automaton, name).tolist()}" for name in DTYPES)]


@pytest.mark.parametrize("alphabet", ["ab", "abcdé'", "天気ab\u30fc", "a-\u2019\u2013b"])
@pytest.mark.parametrize("spaces", ["mark", "lone", "none"])
def test_random_vocabularies(program, alphabet, spaces):
    rng = np.random.default_rng(len(alphabet) + len(spaces))
    cases = []
    for _ in range(60):
        pieces = random_pieces(rng, alphabet, spaces)
        blank = int(rng.integers(len(pieces) + 1))
        pieces.insert(blank, "<blk>")
        phrases = [(unicodedata.normalize("NFKC", phrase), w) for phrase, w in random_phrases(rng, alphabet)]
        cases.append((pieces, blank, phrases))
    output = subprocess.run(
        [str(program)], input="".join(lines(*case) for case in cases), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    at = spelt = 0
    for pieces, blank, phrases in cases:
        wanted = expected(pieces, blank, phrases)
        tables = [line for line in wanted if line.split(" ")[0] in DTYPES]
        plain = wanted[: len(wanted) - len(tables)]
        assert output[at : at + len(plain)] == plain
        at += len(plain)
        for name in DTYPES:
            label, *values = output[at].split(" ")
            at += 1
            assert label == name
            if tables:
                numbers = tables[list(DTYPES).index(name)].removeprefix(f"{name} ").strip("[]").split(",")
                np.testing.assert_allclose(
                    [float(value) for value in values], [float(n) for n in numbers if n.strip()], rtol=1e-6, atol=1e-6
                )
        spelt += bool(tables)
    assert at == len(output) and spelt > 20
