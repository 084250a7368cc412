"""The files of the page, and the page as one file."""

from __future__ import annotations

import base64
import io
import json
import wave
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from ..speech.audio.features import SAMPLE_RATE

SCRIPTS = ("picture.js", "result.js")
"""Those of a page that shows what is in it."""
LIVE_SCRIPTS = (*SCRIPTS, "live.js", "input.js")
"""Those of a page of a server, which takes recordings."""
STYLE = "page.css"
WORKLET = "worklet.js"
MEDIA_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}

SERVED = frozenset((STYLE, WORKLET, *LIVE_SCRIPTS))
"""What a server sends beside the page itself."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src blob:; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a browser lets the page of a server do: nothing that leads elsewhere."""
_POLICY_OF_A_FILE = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; media-src data:; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)


def read(name: str) -> str:
    """The text of one of the page's files."""
    return (files(__package__) / name).read_text(encoding="utf-8")


def served_page() -> str:
    """The page of a server."""
    return Template(read("page.html")).substitute(
        title="tdtdecode",
        head=f'<link rel="stylesheet" href="page/{STYLE}">',
        input=read("input.html"),
        data="",
        scripts="\n".join(f'<script src="page/{name}" defer></script>' for name in LIVE_SCRIPTS),
    )


def page_of(document: dict[str, Any], samples: np.ndarray, name: str) -> str:
    """The page that shows one recording, with all that it needs in it.

    Parameters
    ----------
    document:
        What `explained` returned.
    samples:
        The recording, float32 [n] at 16 kHz: it can be heard on the page.
    name:
        What the page calls the recording.
    """
    content = json.dumps({**document, "name": name, "audio": _audio(samples)}, ensure_ascii=False, allow_nan=False)
    inside = content.replace("<", "\\u003c")  # so that nothing in it ends the element
    return Template(read("page.html")).substitute(
        title=escape(f"{name} · tdtdecode"),
        head="\n".join((
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY_OF_A_FILE}">',
            f"<style>\n{read(STYLE)}</style>",
        )),  # fmt: skip
        input="",
        data=f'<script type="application/json" id="data">{inside}</script>',
        scripts="\n".join(f"<script>\n{read(script)}</script>" for script in SCRIPTS),
    )


def _audio(samples: np.ndarray) -> str:
    """A recording as a WAV file in a data URL."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return "data:audio/wav;base64," + base64.b64encode(file.getvalue()).decode()
