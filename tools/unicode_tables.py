"""Writes ``csrc/text/unicode_tables.h`` and ``script_tables.h``: the properties of characters, and their scripts.

    python -m tools.unicode_tables

Words and spellings depend on the properties. The rules are those of `tdtdecode.segmentation`, with the Unicode version
of this Python. Scripts are those of the package ``regex``, which `tdtdecode.allowed` uses.
"""

import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import regex
from regex import _regex

from tdtdecode import segmentation

FOLDER = Path(__file__).parents[1] / "csrc/text"
TABLES, SCRIPTS = FOLDER / "unicode_tables.h", FOLDER / "script_tables.h"

PROPERTIES: dict[str, Callable[[str], bool]] = {
    "kPunctuation": lambda char: unicodedata.category(char).startswith("P"),
    "kContinuing": lambda char: unicodedata.category(char).startswith("M") or char == "\u200d",
    "kInvisible": lambda char: unicodedata.category(char) == "Cf",
    "kWide": lambda char: unicodedata.east_asian_width(char) in "WF",
    "kUnspaced": segmentation.is_unspaced,
    "kSpace": str.isspace,
}


def ranges(has: Callable[[str], bool]) -> Iterator[tuple[int, int]]:
    """The ranges of code points that have a property, ends counted in. Surrogates have none."""
    first = None
    for code in [*range(sys.maxunicode + 1), -1]:
        there = code >= 0 and not 0xD800 <= code < 0xE000 and has(chr(code))
        if there and first is None:
            first = code
        elif not there and first is not None:
            yield first, (code if code >= 0 else sys.maxunicode + 1) - 1
            first = None


def header() -> str:
    """The file's text."""
    parts = [
        "// Made by tools/unicode_tables.py: ranges of code points, ends counted in.",
        f"// Unicode {unicodedata.unidata_version}.",
        "#pragma once",
        "",
        "namespace tdt::text {",
        "",
        "struct Range {",
        "  char32_t first, last;",
        "};",
    ]
    for name, has in PROPERTIES.items():
        parts += ["", f"constexpr Range {name}[] = {{"]
        line = "   "
        for first, last in ranges(has):
            item = f" {{{first:#x}, {last:#x}}},"
            if len(line) + len(item) > 120:
                parts.append(line)
                line = "   "
            line += item
        parts += [line, "};"]
    return "\n".join([*parts, "", "}  // namespace tdt::text", ""])


def wrapped(items: Iterator[str]) -> Iterator[str]:
    """Items of a list in lines of at most 120 characters."""
    line = "   "
    for item in items:
        if len(line) + len(item) + 2 > 120:
            yield line
            line = "   "
        line += f" {item},"
    yield line


def scripts() -> tuple[dict[str, int], list[tuple[int, int, int]]]:
    """The numbers of all scripts by name or code, and ranges of code points with the number of their script.

    Names are in capitals, without spaces, hyphens and underscores. Code points without a script have the number 0.
    """
    names: dict[str, int] = _regex.get_properties()["SCRIPT"][1]
    assert names["UNKNOWN"] == 0
    everything = "".join(chr(code) for code in range(sys.maxunicode + 1))
    found = []
    for number in sorted(set(names.values()) - {0}):
        name = next(name for name in names if names[name] == number)
        for match in regex.finditer(rf"\p{{Script={name}}}+", everything):
            found.append((match.start(), match.end() - 1, number))
    return names, sorted(found)


def script_header() -> str:
    """The text of the file of scripts."""
    names, found = scripts()
    return "\n".join([
        "// Made by tools/unicode_tables.py: the scripts of code points, as ranges with both ends counted in.",
        f"// From the package regex {regex.__version__}.",
        "#pragma once",
        "",
        "namespace tdt::text {",
        "",
        "constexpr int kCommon = {}, kInherited = {};".format(names["COMMON"], names["INHERITED"]),
        "",
        "struct ScriptName {",
        "  const char* name;  // in capitals, without spaces, hyphens and underscores",
        "  unsigned char script;",
        "};",
        "",
        "constexpr ScriptName kScriptNames[] = {",
        *wrapped(f'{{"{name}", {number}}}' for name, number in sorted(names.items())),
        "};",
        "",
        "struct ScriptRange {",
        "  char32_t first, last;",
        "  unsigned char script;",
        "};",
        "",
        "constexpr ScriptRange kScripts[] = {",
        *wrapped(f"{{{first:#x}, {last:#x}, {number}}}" for first, last, number in found),
        "};",
        "",
        "}  // namespace tdt::text",
        "",
    ])  # fmt: skip


if __name__ == "__main__":
    TABLES.write_text(header())
    SCRIPTS.write_text(script_header())
