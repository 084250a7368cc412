"""Writes ``csrc/text/unicode_tables.h``: the properties of characters that words and spellings depend on.

    python -m tools.unicode_tables

The rules are those of `tdtdecode.segmentation`, with the Unicode version of this Python.
"""

import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

from tdtdecode import segmentation

TABLES = Path(__file__).parents[1] / "csrc/text/unicode_tables.h"

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


if __name__ == "__main__":
    TABLES.write_text(header())
