"""A page that shows recordings with their errors: one HTML file that needs nothing else but the recordings."""

from __future__ import annotations

import json
import math
import os
import re
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .scoring import Evaluation, Scored

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_KINDS = {"equal": 0, "substitute": 1, "insert": 2, "delete": 3}


def page(found: Evaluation, path: str | os.PathLike[str]) -> str:
    """The page, which is to be written to a path: links to recordings are relative to that.

    Texts and names may hold anything. They reach the page as data, and are shown as text alone.
    """
    folder = Path(os.path.abspath(path)).parent
    data = {
        "summary": _summary(found),
        "frequent": found.frequent(),
        "recordings": [_row(one, folder) for one in found.scored],
    }
    # In a script, "<" could begin a tag that ends it.
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
    template = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    title = escape(found.name.encode("utf-8", "replace").decode())
    filled = {"{{title}}": title, "{{data}}": text}
    return re.sub(r"\{\{\w+\}\}", lambda mark: filled[mark[0]], template)


def _summary(found: Evaluation) -> list[list[str]]:
    """Names and values."""
    rows = [["recordings", str(len(found.scored))], ["without an error", str(found.without_errors)]]
    if found.seconds:
        rows.append(["audio", f"{found.seconds / 3600:.2f} h"])
    for name, errors in (("word error rate", found.words), ("character error rate", found.characters)):
        rate = f"{100 * errors.rate:.2f} %" if errors.length else "-"
        rows.append([name, f"{rate} ({errors.substitutions} substituted, {errors.insertions} inserted, "
                     f"{errors.deletions} deleted, of {errors.length})"])  # fmt: skip
    rows += [["left out", f"{len(lines)} {why}"] for why, lines in found.left_out.items()]
    if found.normalizer != "none":
        rows.append(["normalised by", found.normalizer])
    return rows


def _row(one: Scored, folder: Path) -> list[Any]:
    """Line, name, link, seconds, edits, words, rates in words and characters, and the alignment."""
    rate = one.words.rate
    return [
        one.entry.line, one.entry.name, _link(one, folder), one.entry.seconds, one.words.edits, one.words.length,
        rate if math.isfinite(rate) else None, _finite(one.characters.rate),
        [[_KINDS[part.kind], " ".join(part.reference), " ".join(part.hypothesis)] for part in one.parts],
    ]  # fmt: skip


def _finite(rate: float) -> float | None:
    return round(rate, 4) if math.isfinite(rate) else None


def _link(one: Scored, folder: Path) -> str | None:
    """Where the recording lies, from the page's folder, with the part to be played; None if that is not known."""
    found = one.entry.file()
    if found is None or _URL.match(found[0]):
        return None
    path, start, seconds = found
    path = os.path.abspath(path)
    try:
        name = os.fsencode(path)
    except UnicodeEncodeError:  # no file can have this name
        return None
    try:
        link = quote(os.fsencode(os.path.relpath(path, folder).replace(os.sep, "/")))
    except ValueError:  # on another drive of Windows
        link = f"file:///{quote(name.replace(os.sep.encode(), b'/'))}"
    if not start and seconds is None:
        return link
    return f"{link}#t={start:g}" + ("" if seconds is None else f",{start + seconds:g}")
