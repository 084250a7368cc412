"""N-gram models: ARPA files compared with a dictionary of their n-grams and with KenLM, damaged files, the cache."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import os
import pickle
import resource
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.bundle.vocabulary import Vocabulary
from tdtdecode.fusion import cache, text
from tests.conftest import RandomTransducer, random_frames

pytestmark = [
    pytest.mark.filterwarnings("ignore::tdtdecode.LanguageModelWarning"),
    pytest.mark.filterwarnings("ignore::tdtdecode.errors.SlowerWarning"),
]

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
    return tdt.NgramLM.from_arpa(path, weight, units=units).automaton(len(pieces) - 1, blank, pieces)


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
    for value in (3, None, b"lm.arpa", ["lm.arpa"]):
        for read in (tdt.NgramLM.from_arpa, tdt.PhraseBoost.from_file):
            with pytest.raises(tdt.InputError, match="path must be the path of a"):
                read(value, 1.0)


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

    path.write_bytes(path.read_bytes() + b"\n")
    assert automaton(path).arc_target.tolist() == targets.tolist()
    assert len(list((tmp_path / "cache").iterdir())) == 2 and entry.is_file()


@pytest.fixture
def entry(tmp_path):
    """A language model, its tables, and the file in the cache that has them."""
    path = write_arpa(tmp_path / "lm.arpa", random_arpa(np.random.default_rng(3), 3))
    tables = {name: np.array(table) for name, table in vars(automaton(path)).items()}
    (entry,) = (tmp_path / "cache").iterdir()
    return path, tables, entry


def check_compiled_anew(path, tables, entry):
    for name, table in vars(automaton(path)).items():
        np.testing.assert_array_equal(table, tables[name])
    if entry.is_file():
        assert cache._opened(entry, len(PIECES)) is not None
    if entry.is_file() and not entry.is_symlink():
        assert [file.name for file in entry.parent.iterdir()] == [entry.name]


@pytest.mark.parametrize("damage", [
    lambda content: b"",
    lambda content: content[:10],
    lambda content: content[:100],
    lambda content: content[:-1],
    lambda content: content + b"\0",
    lambda content: b"\0" * len(content),
    lambda content: b"PK\x03\x04" + content[4:],
    lambda content: b"\x93NUMPY" + content[6:],
    lambda content: content[::-1],
])  # fmt: skip
def test_a_damaged_entry_is_compiled_anew(entry, damage):
    path, tables, file = entry
    file.write_bytes(damage(file.read_bytes()))
    check_compiled_anew(path, tables, file)


def test_a_flipped_bit_is_noticed(entry):
    """Wherever it is: in what is only read, and in what would change tokens."""
    path, tables, file = entry
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    for place in [*range(0, 200, 7), *rng.integers(0, len(content), 60).tolist(), len(content) - 1]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(flipped)
        check_compiled_anew(path, tables, file)


@pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")
@pytest.mark.parametrize("kind", ["folder", "pipe", "broken link", "loop"])
def test_something_else_in_the_entrys_place(entry, kind):
    path, tables, file = entry
    file.unlink()
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to(file.name if kind == "loop" else "nowhere")
    check_compiled_anew(path, tables, file)


def test_an_entry_of_another_file_or_version(entry, tmp_path, monkeypatch):
    path, tables, file = entry
    other = write_arpa(tmp_path / "other.arpa", random_arpa(np.random.default_rng(4), 3))
    expected = np.array(automaton(other).arc_weight)
    (of_other,) = set((tmp_path / "cache").iterdir()) - {file}
    assert not np.array_equal(expected, tables["arc_weight"])
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    file.rename(of_other)
    np.testing.assert_array_equal(automaton(other).arc_weight, expected)


def test_a_language_model_that_has_changed_since(entry, tmp_path):
    path, *_ = entry
    model = tdt.NgramLM.from_arpa(path, 1.0)
    path.write_bytes(path.read_bytes().replace(b"-99.0", b"-98.0"))
    assert len(model.automaton(6, 6, PIECES)) > 1  # still in the cache
    with pytest.raises(tdt.InputError, match="has changed since it was opened"):
        model.automaton(6, 6, ("b", "a", *PIECES[2:]))


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("TDTDECODE_CACHE", str(blocked / "cache"))
    path = write_arpa(tmp_path / "lm.arpa", random_arpa(np.random.default_rng(4), 2))
    assert not isinstance(automaton(path).arc_weight, np.memmap)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, lambda data: gzip.compress(data[:50])
                                  + gzip.compress(data[50:])], ids=["gzip", "bzip2", "xz", "members"])  # fmt: skip
def test_compressed_files(tmp_path, pack):
    plain = write_arpa(tmp_path / "lm.arpa", random_arpa(np.random.default_rng(2), 3))
    packed = tmp_path / "lm.packed"  # what is in a file counts, not its name
    packed.write_bytes(pack(plain.read_bytes()))
    np.testing.assert_array_equal(automaton(packed).arc_weight, automaton(plain).arc_weight)
    content = packed.read_bytes()
    for damaged in (content[:-9], content[: len(content) // 2], content[:40] + b"\xff\0\xff" + content[43:]):
        packed.write_bytes(damaged)
        with pytest.raises(tdt.InputError, match="lm.packed"):
            automaton(packed)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_file_that_unpacks_to_far_more(tmp_path, pack, monkeypatch):
    monkeypatch.setattr(text, "_SPARE_BYTES", 1 << 16)
    for head, filler in ((GOOD.encode().replace(b"\n\\end\\", b""), b"\n"), (b"", b"x" * 1000 + b"\n"), (b"", b"\0"),
                         (b"", b" ")):  # fmt: skip
        (tmp_path / "bomb.gz").write_bytes(pack(head + filler * ((8 << 20) // len(filler))))
        with pytest.raises(tdt.InputError, match="unpacks to far more|longer than 1048576 bytes|is not text"):
            automaton(tmp_path / "bomb.gz")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_other_encodings(tmp_path, encoding):
    path = tmp_path / "lm.arpa"
    pieces = ("\u00e4", "\u2581b", "<blk>")
    path.write_bytes(GOOD.replace("a", pieces[0]).replace("\tb", f"\t{pieces[1]}").replace(" b", f" {pieces[1]}")
                     .replace(f"d{pieces[0]}t{pieces[0]}", "data").replace("ngr\u00e4m", "ngram")
                     .replace("gr\u00e4ms", "grams").encode(encoding))  # fmt: skip
    assert automaton(path, pieces=pieces, blank=2).scores(0, 3)[:2] == pytest.approx(-LN10, rel=1e-6)


@pytest.mark.parametrize(("content", "message"), [
    (b"mmap lm http://kheafield.com/code format version 5\n\0" + b"\0" * 100, "KenLM's binary format.*the ARPA file"),
    (b"\xd6\xfd\xb2\x7e\x06\0\0\0vector", "a transducer of OpenFst"),
    (b"blmt 3 10\n", "IRSTLM's binary format.*--text=yes"),
    (b"<!DOCTYPE html>\n<html><body>404", "a web page.*download the file itself"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS.*git lfs pull"),
    (b"PK\x03\x04" + b"\0" * 100, "a zip archive"),
    (b"\0" * 257 + b"ustar\0", "a tar archive, as NeMo's"),
    (b"RIFF\x24\0\0\0WAVEfmt ", "is not text"),
    (b"", r"has no .data. section"),
])  # fmt: skip
def test_files_that_are_something_else(tmp_path, content, message):
    for name, packed in (("lm.arpa", content), ("lm.arpa.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(packed)
        with pytest.raises(tdt.InputError, match=message) as error:
            automaton(tmp_path / name)
        assert name in str(error.value)


@pytest.mark.parametrize(("magic", "name"), [(b"\x28\xb5\x2f\xfd", "zstd"), (b"\x04\x22\x4d\x18", "lz4")])
def test_compression_that_python_does_not_know(tmp_path, magic, name):
    (tmp_path / "lm").write_bytes(magic + b"\0" * 100)
    with pytest.raises(tdt.InputError, match=f"lm: is compressed with {name}: unpack it, or pack it with gzip"):
        automaton(tmp_path / "lm")


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices of POSIX")
def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    program = (
        "import sys, tdtdecode\n"
        "for path in sys.argv[1:]:\n"
        "    try: tdtdecode.NgramLM.from_arpa(path, 1.0)\n"
        "    except tdtdecode.InputError as error: print(error)"
    )
    paths = [str(tmp_path / "pipe"), str(tmp_path / "link"), "/dev/zero", "/dev/null", str(tmp_path)]
    found = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True, timeout=60)
    assert [line.split(":")[0] for line in found.stdout.splitlines()] == paths
    assert found.stdout.count("a pipe or a device, and an ARPA file must be a file") == 4 and found.stderr == ""


@pytest.mark.parametrize("line", ["x" * (text.MAX_LINE + 1), "ngram 1=" + "9" * 5000])
def test_lines_and_numbers_without_an_end(tmp_path, line):
    (tmp_path / "lm.arpa").write_text(f"\\data\\\n{line}\n")
    with pytest.raises(tdt.InputError, match="line 2"):
        automaton(tmp_path / "lm.arpa")


VOCABULARY = (
    "<unk>", "\u2581the", "\u2581a", "an", "on", "is", "\u2581c", "at", "s", "\u2581w", "e", "th", "r", "\u2581n", "i",
    "c", "h", "\u2581m", "o", "u", "\u2581", "t", "a", "<blk>",
)  # fmt: skip


def unigrams(path, words, unknown=-2.0, logprob=-1.0):
    lines = [f"{logprob}\t{word}" for word in words] + ([] if unknown is None else [f"{unknown}\t<unk>"])
    path.write_text("\n".join(["\\data\\", f"ngram 1={len(lines)}", "", "\\1-grams:", *lines, "", "\\end\\", ""]))
    return path


def fitted(path, words, units="pieces", unknown=-2.0, pieces=VOCABULARY):
    """The automaton, and the texts of the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = automaton(unigrams(path, words, unknown), pieces, len(pieces) - 1, units=units)
    assert all(warning.category is tdt.LanguageModelWarning for warning in caught)
    return found, [str(warning.message) for warning in caught]


SPELT = [piece for piece in VOCABULARY if piece not in ("<unk>", "<blk>")]


@pytest.mark.parametrize("words", [
    SPELT, SPELT[:12], [*SPELT, "\u2581x"], [*SPELT, "<s>", "</s>"],
])  # fmt: skip
def test_language_models_that_fit(tmp_path, words):
    assert fitted(tmp_path / "lm.arpa", words)[1] == []


def test_language_models_that_hardly_fit(tmp_path):
    path = tmp_path / "lm.arpa"
    (message,) = fitted(path, SPELT[:3])[1]
    assert "3 of its 3 words (100.0%) are tokens, and it knows 3 of the model's 22 tokens (13.6%)" in message
    assert str(path) in message and "share the probability of <unk>" in message
    (message,) = fitted(path, SPELT[:15], unknown=None)[1]
    assert "are impossible: it gives <unk> no probability" in message
    (message,) = fitted(path, [*SPELT, *(f"x{i}" for i in range(100))])[1]
    assert "22 of its 122 words (18.0%) are tokens, and it knows 22 of the model's 22 tokens" in message
    with pytest.warns(tdt.LanguageModelWarning):  # also from the cache
        automaton(path, VOCABULARY, 23)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(tdt.LanguageModelWarning):
            automaton(path, VOCABULARY, 23)


@pytest.mark.parametrize("never", [-99.0, -100, float("-inf")])
def test_words_that_a_language_model_holds_for_impossible(tmp_path, never):
    """They are in the file, and it does not know them: what they leave is <unk>, again and again."""
    path = tmp_path / "lm.arpa"
    with pytest.raises(tdt.InputError, match="none of its words is a token"):
        automaton(unigrams(path, SPELT, logprob=never), VOCABULARY, 23)
    assert "it gives <unk> no probability" in fitted(path, SPELT[:15], unknown=never)[1][0]
    assert fitted(path, SPELT, unknown=never)[1] == []


def test_names_that_cannot_be_printed(tmp_path):
    """An error's text can be written to a log, whatever the file is called."""
    for name, shown in ("caf\udce9.arpa", r"caf\udce9.arpa"), ("\x1b[31m.arpa", r"\x1b[31m.arpa"):
        with pytest.raises(tdt.InputError) as caught:
            tdt.NgramLM.from_arpa(tmp_path / name, 0.3)
        assert shown in str(caught.value)
        str(caught.value).encode()


@pytest.mark.parametrize(("words", "units", "message"), [
    (["the", "cat", "is", "on", "an", "main", "watch", "r", "west"], "pieces", "read as whole words"),
    (["is", "an", "the", "main", "cat"], "pieces", "2 of its 5 words .40.0%.*22 tokens .9.1%.*read as whole words"),
    ([word.upper() for word in SPELT], "pieces", "pieces in lower case"),
    ([word.replace("\u2581", "\u0120") for word in SPELT], "pieces", "pieces with '\u0120' for"),
    ([word.replace("\u2581", "_") for word in SPELT], "pieces", "pieces with '_' for"),
    ([word[1:] if word[0] == "\u2581" else f"##{word}" for word in SPELT[:19]], "pieces", "'##' where no word"),
    ([chr(100 + i) for i in range(20)], "pieces", "units='nemo'"),
    ([str(i) for i in range(20)], "pieces", "ids of tokens"),
    (SPELT, "nemo", "units='pieces'"),
    (["\u043c\u0438\u0440", "\u0434\u0430", "an"], "pieces", "1 of its 3 words .33.3%"),
    (["\u043c\u0438\u0440"], "pieces", "none of its words is a token"),
])  # fmt: skip
def test_language_models_of_other_units(tmp_path, words, units, message):
    path = unigrams(tmp_path / "lm.arpa", words)
    for _ in range(2):
        with pytest.raises(tdt.InputError, match=message):
            automaton(path, VOCABULARY, 23, units=units)


@pytest.mark.parametrize("name", ["<unk>", "<UNK>"])
def test_unk_that_is_also_a_piece(tmp_path, name):
    """Tokens that the file lacks, the piece <unk> among them, share the probability of <unk>."""
    path = unigrams(tmp_path / "lm.arpa", SPELT[:16], unknown=None)
    content = path.read_text().replace("ngram 1=16", "ngram 1=17")
    path.write_text(content.replace("\n\\end", f"-2\t{name}\n\n\\end"))
    scores = automaton(path, VOCABULARY, 23).scores(0, 24)
    lacking = [0, *range(17, 23)]
    assert scores[lacking] == pytest.approx(-2 * LN10 - math.log(7))
    assert scores[1:17] == pytest.approx(-LN10)
    assert np.isfinite(automaton(path, VOCABULARY, 23, weight=-0.5).arc_weight).all()
    # As in a vocabulary in which that piece has another name.
    other = ("[unknown]", *VOCABULARY[1:])
    np.testing.assert_array_equal(automaton(path, other, 23).scores(0, 24), scores)


def test_other_special_pieces(tmp_path):
    """Pieces called <s> and </s> are tokens like those that the file lacks; n-grams with <unk> are not used."""
    pieces = ("<s>", "</s>", "<unk>", "a", "b", "<blk>")
    path = tmp_path / "lm.arpa"
    path.write_text(
        "\\data\\\nngram 1=5\nngram 2=3\n\n\\1-grams:\n-99\t<s>\t-0.5\n-1\t</s>\n-2\t<unk>\t-0.25\n-1\ta\t-0.5\n"
        "-1\tb\t-0.5\n\n\\2-grams:\n-0.25\t<s> a\n-0.125\t<unk> b\n-0.75\ta <unk>\n\n\\end\\\n"
    )
    model = automaton(path, pieces, 5)
    share = -2 * LN10 - math.log(3)
    assert model.scores(0, 6)[:5] == pytest.approx([share] * 3 + [-LN10] * 2)
    assert model.scores(int(model.start[0]), 6)[3:5] == pytest.approx([-0.25 * LN10, -1.5 * LN10])
    assert model.step(0, 2) == (pytest.approx(share), 0)
    after_a = model.step(0, 3)[1]
    assert model.scores(after_a, 6)[2] == pytest.approx(share - 0.5 * LN10)


def test_pieces_that_stand_twice(tmp_path):
    """All tokens of a piece get its score, and lead to the same state."""
    pieces = ("<unk>", "a", "b", "c", "<unk>", "a", "c", "d", "<blk>")
    n_grams = [{("<unk>",): (-2, 0), ("<s>",): (-99, -0.25), ("a",): (-1, -0.5), ("b",): (-0.75, 0), ("c",): (-1.5, 0)},
               {("a", "c"): (-0.125, 0), ("b", "a"): (-0.25, 0)}]  # fmt: skip
    model = automaton(write_arpa(tmp_path / "lm.arpa", n_grams), pieces, 8)
    share = -2 * LN10 - math.log(3)
    expected = [share, -LN10, -0.75 * LN10, -1.5 * LN10, share, -LN10, -1.5 * LN10, share]
    assert model.scores(0, 9)[:8] == pytest.approx(expected)
    assert model.step(0, 1)[1] == model.step(0, 5)[1]
    for first in (1, 5):
        after = model.step(0, first)[1]
        for second in (3, 6):
            assert model.step(after, second)[0] == pytest.approx(-0.125 * LN10)
    for second in (1, 5):
        assert model.step(model.step(0, 2)[1], second)[0] == pytest.approx(-0.25 * LN10)
    model.check(9)


def test_words_that_only_longer_n_grams_have_and_stand_twice(tmp_path):
    """A pruned context of a piece that stands twice: one arc for each token."""
    path = tmp_path / "lm.arpa"
    path.write_text(
        "\\data\\\nngram 1=2\nngram 2=1\n\n\\1-grams:\n-2\t<unk>\n-1\tb\t-0.5\n\n"
        "\\2-grams:\n-0.25\ta b\n\n\\end\\\n"
    )
    model = automaton(path, ("a", "b", "a", "c", "<blk>"), 4)
    model.check(5)
    assert model.scores(0, 5)[:4] == pytest.approx([-2 * LN10 - math.log(3), -LN10] + [-2 * LN10 - math.log(3)] * 2)
    for token in (0, 2):
        assert model.step(model.step(0, token)[1], 1)[0] == pytest.approx(-0.25 * LN10)


@pytest.mark.parametrize("weight", [1e308, -1e308, 1e7, math.inf, -math.inf, math.nan, "1", None])
def test_weights_are_bounded(tmp_path, weight):
    path = unigrams(tmp_path / "lm.arpa", SPELT)
    for make in (lambda: tdt.NgramLM.from_arpa(path, weight), lambda: tdt.PhraseBoost([[1]], weight),
                 lambda: tdt.ScoringFunction(print, print, weight=weight), lambda: tdt.Greedy(blank_penalty=weight),
                 lambda: tdt.Beam(blank_penalty=weight)):  # fmt: skip
        with pytest.raises(tdt.InputError, match="weight|blank_penalty"):
            make()


@pytest.mark.parametrize("kernels", ["reference", "cpu"])
@pytest.mark.parametrize("weight", [1e6, -1e6, 1e-300])
def test_the_largest_weights_do_not_overflow(tmp_path, kernels, weight):
    path = tmp_path / "lm.arpa"
    path.write_text(GOOD.replace("ngram 1=2", "ngram 1=3").replace("\\1-grams:\n", "\\1-grams:\n-1e20\t<unk>\n"))
    spec = tdt.TransducerSpec(vocab_size=2)
    model = RandomTransducer(spec, 3)
    frames, lengths = random_frames(4, model.encoder_size, 20, 3)
    decoder = tdt.Decoder(
        tdt.CallableNetwork(model.predict, model.joint, model.select), spec=spec, kernels=kernels,
        vocabulary=Vocabulary(("a", "b", "<blk>"), 2),
    )
    for search in (tdt.Greedy(fusion=[tdt.NgramLM.from_arpa(path, weight)]),
                   tdt.Beam(fusion=[tdt.NgramLM.from_arpa(path, weight)]),
                   tdt.Beam(strategy="malsd", fusion=[tdt.NgramLM.from_arpa(path, weight)])):  # fmt: skip
        for hypothesis in decoder.decode(frames, lengths, search=search):
            assert not math.isnan(hypothesis.score)


@pytest.mark.parametrize(("old", "new"), [("-1\ta\t-0.5", "-1\ta\t1e308"), ("-1\ta\t-0.5", "-1\ta\t-1e40"),
                                          ("-1\tb", "1e400\tb")])  # fmt: skip
def test_numbers_beyond_float32(tmp_path, old, new):
    (tmp_path / "lm.arpa").write_text(GOOD.replace(old, new))
    with pytest.raises(tdt.InputError, match="line [67]: expected a log10 probability"):
        automaton(tmp_path / "lm.arpa")
    (tmp_path / "lm.arpa").write_text(GOOD.replace("-1\tb", "-1e300\tb"))
    assert np.isneginf(automaton(tmp_path / "lm.arpa").scores(0, 7)[1])


def test_language_models_can_be_pickled(tmp_path, monkeypatch):
    path = write_arpa(tmp_path / "lm.arpa", random_arpa(np.random.default_rng(3), 3))
    monkeypatch.chdir(tmp_path)
    model = tdt.NgramLM.from_arpa("lm.arpa", 0.5)
    expected = model.automaton(6, 6, PIECES)
    pickled = pickle.dumps(tdt.Beam(fusion=[model]))
    assert len(pickled) < 2000  # its settings, not its tables
    monkeypatch.chdir("/")
    (copy,) = pickle.loads(pickled).fusion
    assert (copy.path, copy.weight, copy.units) == (path, 0.5, "pieces")
    np.testing.assert_array_equal(copy.automaton(6, 6, PIECES).arc_weight, expected.arc_weight)


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
