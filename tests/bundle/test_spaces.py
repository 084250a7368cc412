"""Other ways of writing the space than SentencePiece's mark: recognised and decoded, or reported."""

from __future__ import annotations

import pytest

from tdtdecode.bundle import read_bundle
from tdtdecode.bundle.spaces import read_spaces
from tdtdecode.bundle.vocabulary import Vocabulary
from tdtdecode.prepare import convert, inspect, repair
from tests.bundle.helpers import small_bundle
from tests.bundle.test_blank import TOKENS

USUAL = ["\u2581set", "\u2581an", "\u2581al", "arm", "\u2581for", "\u2581se", "ven", "\u2581", "s", "<unk>", "e", "t"]
SENTENCE = [0, 1, 2, 3, 4, 5, 6]
TEXT = "set an alarm for seven"

FORMS = {
    "spaces": lambda pieces: [piece.replace("\u2581", " ") for piece in pieces],
    "byte-level": lambda pieces: [piece.replace("\u2581", "\u0120") for piece in pieces],
    "wordpiece": lambda pieces: [
        piece if piece[0] in "<\u2581" else f"##{piece}" for piece in pieces
    ],
    "bars": lambda pieces: [piece.replace("\u2581", "|") for piece in pieces],
    "underscores": lambda pieces: [piece.replace("\u2581", "_") for piece in pieces],
}  # fmt: skip
FORMS["wordpiece"] = lambda pieces, form=FORMS["wordpiece"]: [
    piece.removeprefix("\u2581") or "a" for piece in form(pieces)
]
ENDINGS = {
    "word ends": ["set</w>", "an</w>", "al", "arm</w>", "for</w>", "se", "ven</w>", "a</w>", "s", "<unk>", "e", "t"],
    "continued": ["set", "an", "al@@", "arm", "for", "se@@", "ven", "a", "s@@", "<unk>", "e@@", "t"],
}


def detokenized(symbols, tokens=SENTENCE):
    return Vocabulary(read_spaces([*symbols, "<blk>"], len(symbols)).pieces, len(symbols)).detokenize(tokens)


@pytest.mark.parametrize("form", FORMS)
def test_forms_that_mark_where_a_word_begins(form):
    symbols = FORMS[form](USUAL)
    spaces = read_spaces([*symbols, "<blk>"], 12)
    assert spaces.form and not spaces.problem and not spaces.is_usual
    assert detokenized(symbols) == TEXT
    assert list(spaces.pieces[:7]) == USUAL[:7]  # language models and phrases need no other form


def test_no_space_before_punctuation():
    assert detokenized(["hello", "##s", ",", "how", "?", "'"], [0, 1, 2, 3, 4]) == "hellos, how?"
    assert detokenized(["hel", "lo</w>", ",</w>", "how</w>", "?</w>"], [0, 1, 2, 3, 4]) == "hello, how?"


@pytest.mark.parametrize("form", ENDINGS)
def test_forms_that_mark_where_a_word_ends_or_goes_on(form):
    assert detokenized(ENDINGS[form]) == TEXT
    assert detokenized(ENDINGS[form], [2, 3, 2, 3]) == "alarm alarm"


@pytest.mark.parametrize("space", ["<space>", "|", "[SPACE]", "<SPACE>", " ", "<sp>"])
def test_characters_with_a_piece_for_the_space(space):
    symbols = [space, *"abcdefgh'", "<unk>", "<s>"]
    assert detokenized(symbols, [1, 2, 0, 3, 4]) == "ab cd"


def test_a_character_in_parts_of_bytes():
    """U+20AC is E2 82 AC: byte-level BPE splits it where it likes."""
    symbols = ["\u0120a", "\u0120\u00e2", "\u0124\u00ac", "b"]
    assert detokenized(symbols, [0, 1, 2, 3]) == "a \u20acb"
    assert detokenized(symbols, [0, 1]) == "a \ufffd"


@pytest.mark.parametrize("symbols", [
    USUAL, ["\u2581a", "b|", "##c", "\u0120d", "_e", "f</w>"], ["\u2581", *"abc|#_"], [" ", *"abc"],
    list("\u4f60\u597d\u4e16\u754c"), ["\u3053\u3093", "\u306b\u3061\u306f"],
], ids=["mark", "marks of others too", "characters", "plain spaces", "Chinese", "Japanese"])  # fmt: skip
def test_what_stays_as_it_is(symbols):
    spaces = read_spaces([*symbols, "<blk>"], len(symbols))
    assert spaces.pieces == (*symbols, "<blk>") and not spaces.problem


@pytest.mark.parametrize(("symbols", "found"), [
    (["set", "an", "al", "arm"], "no piece writes a space"),
    (["\u0434\u0430", "\u043d\u0435\u0442"], "no piece writes a space"),
    (["set", "##s", "an</w>"], "in several ways"),
    ([" set", "##s", "an"], "in several ways"),
])  # fmt: skip
def test_what_is_not_clear_is_reported(symbols, found):
    spaces = read_spaces([*symbols, "<blk>"], len(symbols))
    assert found in spaces.problem and spaces.pieces[:-1] == tuple(symbols)


def test_lines_that_are_all_indented():
    spaces = read_spaces([" \u2581a", " b", " <blk>"], 2)
    assert spaces.pieces == ("\u2581a", "b", "<blk>")
    assert read_spaces([" a", " b", "<blk>"], 2).pieces[:2] == ("a", "b")


@pytest.mark.parametrize("form", [*FORMS, *ENDINGS])
@pytest.mark.parametrize("layout", TOKENS)
def test_a_model_with_such_a_file(tmp_path, layout, form):
    directory = small_bundle(tmp_path / "a", layout, mel_bins=80)
    symbols = FORMS[form](USUAL) if form in FORMS else ENDINGS[form]
    lines = [f"{symbol} {i}\n" for i, symbol in enumerate([*symbols, "<blk>"])]
    (directory / TOKENS[layout]).write_text("".join(lines), encoding="utf-8")
    assert read_bundle(directory).vocabulary.detokenize(SENTENCE) == TEXT
    inspection = inspect(directory)
    assert inspection.ok and any(fact.name == "spaces" for fact in inspection.facts)
    assert not any(use.usable for use in inspection.uses if use.system != "tdtdecode")
    repaired = repair(directory, tmp_path / "b").directory
    converted = convert(directory, tmp_path / "c", "split" if layout == "combined" else "combined").directory
    for made in (repaired, converted):
        assert read_bundle(made).vocabulary.detokenize(SENTENCE) == TEXT


def test_a_file_that_lost_its_spaces(tmp_path):
    directory = small_bundle(tmp_path, "split", mel_bins=80)
    symbols = [piece.replace("\u2581", "") or "a" for piece in USUAL]
    (directory / "tokens.txt").write_text("".join(f"{s}{i} {i}\n" for i, s in enumerate(symbols)) + "<blk> 12\n")
    (problem,) = inspect(directory).problems
    assert problem.code == "spaces" and "run together" in problem.found and problem.file == "tokens.txt"
    assert next(use for use in inspect(directory).uses if use.system == "tdtdecode").usable
