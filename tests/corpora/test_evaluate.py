"""Error rates: counts, Unicode, what is left out; and the page."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import subprocess

import pytest

pytest.importorskip("jiwer")

from tdtdecode.cli import main  # noqa: E402
from tdtdecode.corpora import read_manifest  # noqa: E402
from tdtdecode.corpora.page import page  # noqa: E402
from tdtdecode.corpora.scoring import evaluate  # noqa: E402
from tdtdecode.errors import InputError  # noqa: E402
from tdtdecode.evaluation import Errors, aligned, characters_of, edit_distance, words_of  # noqa: E402
from tests.corpora.helpers import write_lines  # noqa: E402


def line(text, found, **more):
    return {"audio_filepath": "a.wav", "duration": 2.0, "text": text, "pred_text": found, **more}


def evaluated(tmp_path, *lines, normalizer="none"):
    return evaluate(read_manifest(write_lines(tmp_path / "out.jsonl", lines)), normalizer)


def run(capsys, *arguments):
    status = main(["evaluate", *map(str, arguments)])
    return status, *capsys.readouterr()


def test_counts_are_the_edit_distance():
    """Against this package's own distance, on random words with many ties."""
    rng = random.Random(0)
    for _ in range(300):
        a, b = ([rng.choice("abcd") for _ in range(rng.randrange(12))] for _ in range(2))
        errors, parts = aligned(a, b)
        assert errors.edits == edit_distance(a, b) and errors.length == len(a)
        assert sum((part.reference for part in parts), []) == a and sum((part.hypothesis for part in parts), []) == b
        count = {kind: sum(max(len(part.reference), len(part.hypothesis)) for part in parts if part.kind == kind)
                 for kind in ("substitute", "insert", "delete")}  # fmt: skip
        assert count == {
            "substitute": errors.substitutions, "insert": errors.insertions, "delete": errors.deletions
        }


def test_rates_over_all_recordings(tmp_path):
    found = evaluated(
        tmp_path, line("one two three four", "one too three"), line("five", "five"),
        line("six seven", "six  new seven "),
    )
    assert found.words == Errors(substitutions=1, insertions=1, deletions=1, length=7)
    assert found.words.rate == 3 / 7 and found.without_errors == 1
    assert found.characters.length == len("one two three four") + len("five") + len("six seven")
    assert [one.entry.line for one in found.worst(5)] == [1, 3]
    assert found.frequent()["substitute"] == [("two", "too", 1)]


@pytest.mark.parametrize(
    "reference, hypothesis, edits, length",
    [
        ("caf\u00e9", "cafe\u0301", 0, 4),  # composed and decomposed
        ("\u0915\u093f\u0924\u093e\u092c", "\u0915\u093e\u0924\u093e\u092c", 1, 3),  # one vowel sign
        ("\U0001f469\u200d\U0001f4bb a", "\U0001f469\u200d\U0001f4bb b", 1, 3),  # an emoji of three code points
        ("\u4eca\u65e5\u306f", "\u4eca\u65e5", 1, 3),
        ("a  b\tc\u00a0d", "a b c d", 0, 7),
        ("", "ab", 2, 0),
    ],
)
def test_characters_are_what_people_see(reference, hypothesis, edits, length):
    errors, _ = aligned(characters_of(reference), characters_of(hypothesis))
    assert (errors.edits, errors.length) == (edits, length)


def test_words_of_other_scripts():
    assert words_of("cafe\u0301 no\u00ebl") == ["caf\u00e9", "no\u00ebl"]
    assert aligned(words_of("\u0430 \u0431"), words_of("\u0430 \u0432"))[0] == Errors(substitutions=1, length=2)


def test_nothing_said(tmp_path):
    """Insertions count where the reference is empty; the rate of such a recording alone is infinite."""
    found = evaluated(tmp_path, line("one two", "one two"), line("", "noise heard"), line("", ""))
    assert found.words == Errors(insertions=2, length=2) and found.words.rate == 1
    assert [one.words.rate for one in found.scored] == [0, math.inf, 0]
    assert found.worst(5)[0].entry.line == 2 and found.without_errors == 2
    json.dumps(found.as_json(5), allow_nan=False)


def test_what_is_left_out_is_counted_and_said(tmp_path, capsys):
    path = write_lines(tmp_path / "out.jsonl", [
        line("a", "a"), {"audio_filepath": "b", "text": "b", "error": "b: no such file"},
        {"audio_filepath": "c", "pred_text": "c"}, {"audio_filepath": "d", "text": "d"}, line(None, "e"),
    ])  # fmt: skip
    status, out, err = run(capsys, path)
    assert (status, err) == (0, "")
    assert "1 recording (0:02 of audio) compared" in out
    assert ("left out: 1 not transcribed (line 2); 1 without pred_text (line 4); "
            "2 without a text to compare with (line 3, 5)") in out  # fmt: skip
    write_lines(path, [line("a", "a"), {"audio_filepath": "b", "text": "b", "pred_text": "b"}])
    assert "2 recordings compared" in run(capsys, path)[1], "one of them does not state its length"
    write_lines(path, [line(None, "e")])
    status, out, err = run(capsys, path)
    assert (status, out) == (2, "") and "nothing can be compared: 1 without a text" in err


def test_normalizers(tmp_path, capsys):
    pytest.importorskip("whisper_normalizer")
    lines = [line("Mr. Smith won't pay $20, um, for colours.", "mister smith will not pay $20 for colors")]
    assert evaluated(tmp_path, *lines).words.edits > 3
    assert evaluated(tmp_path, *lines, normalizer="whisper").words.edits == 0
    other = [line("Gr\u00fc\u00dfe, Welt!", "gr\u00fc\u00dfe welt")]
    assert evaluated(tmp_path, *other, normalizer="whisper-basic").words.edits == 0
    found = evaluated(tmp_path, *lines, line("9" * 5000, "nine"), normalizer="whisper")
    assert found.not_normalized == [2] and len(found.scored) == 1
    status, _, err = run(capsys, tmp_path / "out.jsonl", "--normalizer", "whisper")
    assert status == 0


def test_the_command(tmp_path, capsys):
    path = write_lines(tmp_path / "out.jsonl", [
        *[line("one two three four", "one two three four")] * 3, line("alpha beta", "alpha gamma delta\u001b[31m"),
    ])  # fmt: skip
    status, out, err = run(capsys, path)
    assert (status, err) == (0, "")
    assert "word error rate        14.29 %   2 errors in 14 words (1 substituted, 1 inserted, 0 deleted)" in out
    assert "3 of 4 recordings" in out and "line 4: a.wav" in out and "\u001b" not in out
    status, out, _ = run(capsys, path, "--json", "--worst", 1)
    found = json.loads(out)
    assert found["words"] == {
        "rate": 2 / 14, "edits": 2, "length": 14, "substitutions": 1, "insertions": 1, "deletions": 0
    }
    assert [one["line"] for one in found["worst"]] == [4] and found["recordings"] == 4
    status, _, err = run(capsys, tmp_path / "none.jsonl")
    assert status == 2 and "no such file" in err


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \u2028 {{title}} {{data}} & \" ' \ud800"


def parsed_page(text):
    """The title, and the data that the page's script reads."""
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1]
    return re.search(r"<title>(.*?)</title>", text, re.DOTALL)[1], json.loads(data)


def test_the_page_escapes_what_is_in_it(tmp_path):
    found = evaluated(tmp_path, line(HOSTILE, HOSTILE + " more", audio_filepath=HOSTILE))
    found.name = HOSTILE
    text = page(found, tmp_path / "page.html")
    text.encode()
    assert text.count("<script") == 2 and "<img" not in text
    title, data = parsed_page(text)
    assert title.startswith("&lt;/script&gt;")
    row = data["recordings"][0]
    assert row[1].startswith("</script>") and row[8][-1] == [2, "", "more"] and row[2] is None
    found = evaluated(tmp_path, line("a", "b", audio_filepath=HOSTILE.replace("\ud800", "")))
    link = parsed_page(page(found, tmp_path / "page.html"))[1]["recordings"][0][2]
    assert link and all(char not in link for char in "<>\"' ")


def test_links_of_the_page(tmp_path):
    """Relative to the page, with the part that belongs to the line."""
    (tmp_path / "sounds").mkdir()
    name = "sounds/a b#c?%20\u00e9.wav"
    (tmp_path / name).write_bytes(b"")
    lines = [
        line("a", "b", audio_filepath=name), line("a", "b", audio_filepath=name, offset=1.5, duration=2.25),
        line("a", "b", audio_filepath=name, offset=3, duration=None),
        line("a", "b", audio_filepath="s3://bucket/a.wav"),
        line("a", "b", audio_filepath="javascript:alert(1)"),
    ]  # fmt: skip
    found = evaluated(tmp_path, *lines)
    (tmp_path / "pages").mkdir()
    _, data = parsed_page(page(found, tmp_path / "pages" / "page.html"))
    quoted = "../sounds/a%20b%23c%3F%2520%C3%A9.wav"
    links = [row[2] for row in data["recordings"]]
    assert links[:4] == [quoted + "#t=0,2", quoted + "#t=1.5,3.75", quoted + "#t=3", None]
    assert links[4].endswith("javascript%3Aalert%281%29#t=0,2")
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page(found, tmp_path / "page.html")), "one file, no others"


def test_the_page_is_written_beside_what_was_given(tmp_path, capsys):
    path = write_lines(tmp_path / "out.jsonl", [line("a", "b")])
    status, _, err = run(capsys, path, "--html", path)
    assert status == 2 and "would be written over" in err
    assert run(capsys, path, "--html", tmp_path / "page.html")[0] == 0
    assert ["word error rate", "100.00 % (1 substituted, 0 inserted, 0 deleted, of 1)"] in parsed_page(
        (tmp_path / "page.html").read_text()
    )[1]["summary"]


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_script_of_the_page(tmp_path):
    """Sorting, searching and marks, in an imitation of a browser's document."""
    lines = [line("one two", "one two", audio_filepath="good.wav"), line("one two", "one too", audio_filepath="b.wav"),
             line("York", "new", audio_filepath="a.wav"), line("", "<b>noise</b>", audio_filepath="c.wav")]  # fmt: skip
    for one in lines:
        (tmp_path / one["audio_filepath"]).write_bytes(b"")
    text = page(evaluated(tmp_path, *lines), tmp_path / "page.html")
    (tmp_path / "page.html").write_text(text)
    code = (tmp_path / "run.js")
    code.write_text(DOCUMENT)
    result = subprocess.run(["node", code, tmp_path / "page.html"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["rate"] == ["c.wav", "a.wav", "b.wav"] and found["name"] == ["a.wav", "b.wav", "c.wav"]
    assert found["all"] == ["good.wav", "b.wav", "a.wav", "c.wav"] and found["search"] == ["a.wav"]
    assert found["marks"] == [["ins", "<b>noise</b>"], ["del", "York"], ["ins", "new"], ["del", "two"], ["ins", "too"]]
    assert found["audio"] == ["c.wav#t=0,2", "a.wav#t=0,2", "b.wav#t=0,2"]
    assert found["count"] == "3 of 4 recordings"


DOCUMENT = r"""
const html = require("fs").readFileSync(process.argv[2], "utf8");
class Element {
  constructor(tag) { this.tag = tag; this.children = []; this.on = {}; this.value = ""; this.checked = true; }
  append(...more) { this.children.push(...more); }
  replaceChildren() { this.children = []; }
  addEventListener(name, action) { this.on[name] = action; }
  get textContent() {
    return this.text ?? this.children.map(one => typeof one === "string" ? one : one.textContent).join("");
  }
  set textContent(text) { this.text = text; }
  all(test) {
    return this.children.flatMap(one => typeof one === "string" ? [] : [...(test(one) ? [one] : []), ...one.all(test)]);
  }
}
const known = {};
const get = id => known[id] ??= new Element(id);
globalThis.document = { getElementById: get, createElement: tag => new Element(tag) };
get("data").textContent = /id="data">([\s\S]*?)<\/script>/.exec(html)[1];
get("order").value = "rate";
(0, eval)(/<script>\n("use strict";[\s\S]*?)<\/script>/.exec(html)[1]);
const names = () => get("list").all(one => one.className === "name").map(one => one.textContent);
const out = { rate: names(), count: get("count").textContent };
out.marks = get("list").all(one => one.tag === "ins" || one.tag === "del").map(one => [one.tag, one.textContent]);
out.audio = get("list").all(one => one.tag === "audio").map(one => one.src);
get("order").value = "name";
get("order").on.change();
out.name = names();
get("wrong").checked = false;
get("order").value = "line";
get("wrong").on.change();
out.all = names();
get("query").value = "yoRK";
get("query").on.input();
out.search = names();
console.log(JSON.stringify(out));
"""


def test_no_such_normalizer_package(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "whisper_normalizer", None)
    monkeypatch.setitem(sys.modules, "whisper_normalizer.english", None)
    with pytest.raises(ImportError, match=r"tdtdecode\[evaluate\]"):
        evaluated(tmp_path, line("a", "a"), normalizer="whisper")


def test_other_lines_than_results_are_refused(tmp_path):
    with pytest.raises(InputError, match="line 1 has neither"):
        read_manifest(write_lines(tmp_path / "m.jsonl", [{"text": "a", "pred_text": "b"}]))
