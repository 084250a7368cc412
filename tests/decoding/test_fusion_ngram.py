"""N-gram models: ARPA files compared with a dictionary of their n-grams and with KenLM, damaged files, the cache."""

from __future__ import annotations

import math
import resource
import time

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.fusion import cache

WORDS = tuple("abcdef")
PIECES = (*WORDS, "<blk>")
LN10 = math.log(10)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TDTDECODE_CACHE", str(tmp_path / "cache"))


def write_arpa(path, n_grams):
    """Write an ARPA file. ``n_grams`` has for each order a dictionary {words: (log10 probability, log10 back-off)}."""
    lines = ["\\data\\", *(f"ngram {n}={len(some)}" for n, some in enumerate(n_grams, 1)), ""]
    for n, some in enumerate(n_grams, 1):
        lines.append(f"\\{n}-grams:")
        for words, (logprob, backoff) in some.items():
            last = [] if n == len(n_grams) else [f"{backoff:.5f}"]
            lines.append("\t".join([f"{logprob:.5f}", " ".join(words), *last]))
        lines.append("")
    path.write_text("\n".join([*lines, "\\end\\", ""]))
    return path


def random_arpa(rng, order, words=WORDS, keep=0.5, pruned=False, suffixes=False):
    """The n-grams of a random model.

    ``pruned`` leaves out some contexts of longer n-grams. ``suffixes`` leaves out n-grams without an n-gram of all
    their words but the first, as KenLM requires.
    """
    n_grams = [{("<unk>",): (-2.5, 0.0), ("<s>",): (-99.0, -0.3), ("</s>",): (-1.5, 0.0)}]
    n_grams[0] |= {(word,): tuple(-rng.uniform(0.1, 2, 2).round(4)) for word in words}
    for n in range(2, order + 1):
        contexts = [words_before for words_before in n_grams[-1] if words_before[-1] not in ("</s>", "<unk>")]
        some = {}
        for context in contexts:
            for word in (*words, "</s>"):
                if rng.random() < keep and (not suffixes or n == 2 or (*context[1:], word) in n_grams[-1]):
                    some[(*context, word)] = tuple(-rng.uniform(0.1, 2, 2).round(4))
        n_grams.append(some)
    if pruned:
        for n in range(1, order - 1):
            for gone in [words_ for words_ in n_grams[n] if rng.random() < 0.3]:
                del n_grams[n][gone]
    return n_grams


def by_definition(n_grams, history, word):
    """The log10 probability of a word, by back-off from as much of the history as the order allows."""
    history = tuple(history)[max(0, len(history) - len(n_grams) + 1):]
    n_gram = (*history, word)
    if n_gram in n_grams[len(history)]:
        return n_grams[len(history)][n_gram][0]
    assert history, word
    backoff = n_grams[len(history) - 1].get(history, (0, 0))[1]
    return backoff + by_definition(n_grams, history[1:], word)


def automaton(path, pieces=PIECES, blank=6, weight=1.0, units="pieces"):
    return tdt.NgramLM.from_arpa(path, weight, units).automaton(len(pieces) - 1, blank, pieces)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("pruned", [False, True])
def test_scores_are_the_definitions(tmp_path, order, pruned):
    for seed in range(20):
        rng = np.random.default_rng([order, seed])
        n_grams = random_arpa(rng, order, pruned=pruned)
        model = automaton(write_arpa(tmp_path / "lm.arpa", n_grams))
        for _ in range(5):
            state, history = int(model.start[0]), ["<s>"]
            for word in rng.choice(WORDS, 12):
                everything = model.scores(state, len(PIECES))
                for token, piece in enumerate(WORDS):
                    expected = by_definition(n_grams, history, piece) * LN10
                    assert everything[token] == pytest.approx(expected, abs=1e-4)
                score, state = model.step(state, WORDS.index(word))
                assert score == pytest.approx(by_definition(n_grams, history, word) * LN10, abs=1e-4)
                history.append(str(word))


@pytest.mark.parametrize("order", [2, 4])
def test_scores_are_kenlms(tmp_path, order):
    kenlm = pytest.importorskip("kenlm", reason="KenLM is not installed (pip install kenlm)")
    for seed in range(10):
        rng = np.random.default_rng([order, seed])
        path = write_arpa(tmp_path / f"lm{seed}.arpa", random_arpa(rng, order, suffixes=True))
        model, oracle = automaton(path), kenlm.Model(str(path))
        for _ in range(10):
            words = rng.choice(WORDS, 15)
            state = int(model.start[0])
            scores = [score * LN10 for score, _, _ in oracle.full_scores(" ".join(words), bos=True, eos=False)]
            for word, expected in zip(words, scores, strict=True):
                score, state = model.step(state, WORDS.index(word))
                assert score == pytest.approx(expected, abs=1e-4)


def test_unknown_tokens_share_the_probability_of_unk(tmp_path):
    n_grams = random_arpa(np.random.default_rng(0), 2, words=("a", "b"))
    model = automaton(write_arpa(tmp_path / "lm.arpa", n_grams))
    everything = model.scores(0, len(PIECES))
    np.testing.assert_allclose(everything[2:6], -2.5 * LN10 - math.log(4), rtol=1e-5)
    score, state = model.step(int(model.start[0]), 3)
    assert (score, state) == (pytest.approx(-0.3 * LN10 - 2.5 * LN10 - math.log(4)), 0)
    del n_grams[0][("<unk>",)]
    assert np.isneginf(automaton(write_arpa(tmp_path / "other.arpa", n_grams)).scores(0, len(PIECES))[2:6]).all()
    with pytest.raises(tdt.InputError, match="a negative weight needs a model that makes every token possible"):
        automaton(tmp_path / "other.arpa", weight=-0.2)


def test_nemos_characters(tmp_path):
    """Token i is chr(i + 100), which can be white space of another script. Blank may come first."""
    words = tuple(chr(i + 100) for i in range(70))
    assert any(word.isspace() for word in words)
    n_grams = random_arpa(np.random.default_rng(1), 2, words=words, keep=0.1)
    path = write_arpa(tmp_path / "lm.arpa", n_grams)
    for blank in (0, 70):
        tokens = [token for token in range(71) if token != blank]
        model = tdt.NgramLM.from_arpa(path, 1.0, units="nemo").automaton(70, blank, None)
        everything = model.scores(int(model.start[0]), 71)
        for token, word in zip(tokens, words):
            assert everything[token] == pytest.approx(by_definition(n_grams, ["<s>"], word) * LN10, abs=1e-4)


def test_windows_lines_and_spaces(tmp_path):
    n_grams = random_arpa(np.random.default_rng(2), 3)
    path = write_arpa(tmp_path / "lm.arpa", n_grams)
    other = tmp_path / "dos.arpa"
    other.write_bytes(path.read_bytes().replace(b"\t", b" ").replace(b"\n", b"\r\n"))
    a, b = automaton(path), automaton(other)
    np.testing.assert_array_equal(a.arc_weight, b.arc_weight)


GOOD = "\\data\\\nngram 1=2\nngram 2=1\n\n\\1-grams:\n-1\ta\t-0.5\n-1\tb\t-0.5\n\n\\2-grams:\n-1\ta b\n\n\\end\\\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (GOOD, "", r"has no \\data\\ section"),
        (GOOD, "hello\n" * 10, r"has no \\data\\ section"),
        ("ngram 1=2", "ngram 2=2", "line 2: expected the count of 1-grams"),
        ("ngram 1=2", "ngram one=2", "line 2: expected 'ngram 1=...'"),
        ("ngram 1=2", "ngram 1=3", "line 9: expected 3 1-grams, got 2 before"),
        ("ngram 1=2", "ngram 1=1", r"line 7: expected \\2-grams:, got '-1.*there are more n-grams"),
        ("ngram 1=2", "ngram 1=99999999999", "expected 99999999999 1-grams, got 2"),
        ("ngram 2=1", "ngram 2=2", r"expected 2 2-grams, got 1 before '.*end"),
        ("\\2-grams:", "\\3-grams:", r"expected \\2-grams:, got '\\\\3-grams:'"),
        ("-1\ta b", "-1\ta b\t-1", "line 10: expected a log-probability and 2 words, without a back-off weight"),
        ("-1\ta b", "-1\ta", "line 10: expected a log-probability and 2 words.* got 2 fields"),
        ("-1\ta b", "0.5\ta b", "line 10: expected a log10 probability of at most 0"),
        ("-1\ta b", "nan\ta b", "line 10: expected a log10 probability of at most 0"),
        ("-1\ta b", "one\ta b", "line 10: expected numbers before and after the words"),
        ("-1\ta\t-0.5", "-1\ta\tinf", "line 6: .*a finite back-off weight"),
        ("-1\tb", "-1\ta", "the same 1-gram is listed twice"),
        ("\\end\\\n", "", r"expected \\end\\ after the last n-gram"),
        ("-1\ta b\n\n\\end\\\n", "", "the file ends after 0 of 1 2-grams"),
        ("-1\tb", "-1\t\udcff", "line [0-9]+: is not UTF-8 text"),
    ],
)
def test_damaged_files(tmp_path, old, new, message):
    path = tmp_path / "lm.arpa"
    path.write_bytes(GOOD.encode())
    automaton(path)
    path.write_bytes(GOOD.replace(old, new).encode(errors="surrogateescape"))
    with pytest.raises(tdt.InputError, match=message) as error:
        automaton(path)
    assert str(path) in str(error.value)


def test_words_of_another_model(tmp_path):
    path = tmp_path / "lm.arpa"
    path.write_text(GOOD)
    with pytest.raises(tdt.InputError, match="none of its words is a token of this model. units='pieces' expects"):
        automaton(path, pieces=("x", "y", "<blk>"), blank=2)
    with pytest.raises(tdt.InputError, match="needs a decoder with a vocabulary"):
        tdt.NgramLM.from_arpa(path, 1.0).automaton(2, 2, None)
    with pytest.raises(tdt.InputError, match="cannot be read"):
        tdt.NgramLM.from_arpa(tmp_path / "absent.arpa", 1.0)
    with pytest.raises(tdt.InputError, match="weight must be a finite number"):
        tdt.NgramLM.from_arpa(path, math.nan)
    with pytest.raises(tdt.InputError, match="units must be 'pieces' or 'nemo'"):
        tdt.NgramLM.from_arpa(path, 1.0, units="words")


def test_the_cache(tmp_path, monkeypatch):
    path = write_arpa(tmp_path / "lm.arpa", random_arpa(np.random.default_rng(3), 3))
    compiled = automaton(path)
    targets = np.array(compiled.arc_target)
    (entry,) = (tmp_path / "cache").iterdir()
    assert isinstance(compiled.arc_weight, np.memmap)

    def never(*_):
        raise AssertionError("compiled again")

    monkeypatch.setattr("tdtdecode.fusion.ngram.read_arpa", never)
    np.testing.assert_array_equal(automaton(path).arc_weight, compiled.arc_weight)
    copy = tmp_path / "copy.arpa"
    copy.write_bytes(path.read_bytes())
    automaton(copy)  # the content counts, not the name
    with pytest.raises(AssertionError, match="compiled again"):
        automaton(path, pieces=("b", "a", *PIECES[2:]))
    monkeypatch.undo()
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "cache"))

    for damage in (lambda file: file.write_bytes(file.read_bytes()[:100]), lambda file: file.unlink(),
                   lambda file: np.save(file, np.full(len(targets), 10**6, np.int32))):  # fmt: skip
        damage(entry / "arc_target.npy")
        np.testing.assert_array_equal(automaton(path).arc_target, targets)
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [entry.name]


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("TDTDECODE_CACHE", str(blocked / "cache"))
    path = write_arpa(tmp_path / "lm.arpa", random_arpa(np.random.default_rng(4), 2))
    assert not isinstance(automaton(path).arc_weight, np.memmap)


def test_a_million_n_grams(tmp_path):
    rng = np.random.default_rng(5)
    words = [f"w{i}" for i in range(1000)]
    path = tmp_path / "large.arpa"
    bigrams = np.unique(rng.integers(0, 10**6, 400_000))
    trigrams = np.unique(np.stack([rng.choice(bigrams, 700_000), rng.integers(0, 1000, 700_000)]), axis=1)
    with open(path, "w") as file:
        file.write(f"\\data\\\nngram 1=1002\nngram 2={len(bigrams)}\nngram 3={trigrams.shape[1]}\n\n\\1-grams:\n")
        file.writelines(f"-2.5\t{word}\t-0.3\n" for word in ("<s>", "<unk>", *words))
        file.write("\n\\2-grams:\n")
        file.writelines(f"-1.5\t{words[b // 1000]} {words[b % 1000]}\t-0.2\n" for b in bigrams)
        file.write("\n\\3-grams:\n")
        file.writelines(f"-0.5\t{words[b // 1000]} {words[b % 1000]} {words[c]}\n" for b, c in trigrams.T)
        file.write("\n\\end\\\n")
    started = time.perf_counter()
    model = automaton(path, pieces=(*words, "<blk>"), blank=1000)
    print(f"{time.perf_counter() - started:.1f} s, "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most")  # fmt: skip
    assert len(model.arc_token) == 1000 + len(bigrams) + trigrams.shape[1]
    b, c = trigrams.T[12345]
    state = model.step(model.step(0, int(b) // 1000)[1], int(b) % 1000)[1]
    assert model.step(state, int(c))[0] == pytest.approx(-0.5 * LN10, rel=1e-6)
