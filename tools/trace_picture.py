"""Draws which frames a greedy TDT decode looks at: the README's picture, from the demo model and its own recording.

    python -m tools.trace_picture

writes ``docs/images/trace-light.svg`` and ``trace-dark.svg``: the same picture for light and for dark pages.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

import numpy as np

import tdtdecode as tdt
from tdtdecode.bundle.vocabulary import SPACE
from tdtdecode.speech.audio import FeatureExtractor, read_audio
from tdtdecode.speech.hub import demo_directory
from tdtdecode.traces import Trace

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
SECONDS = 3.6
"""The first sentence of the recording, with the pause after it."""

SAMPLE_RATE = 16000
WIDTH, HEIGHT = 830, 286
LEFT, FRAME = 86.0, 16.2
"""Where the first frame begins, and the width of a frame, in pixels."""

NOTES, TOKENS, DURATIONS, HOPS, FRAMES, SOUND, AXIS = 86, 98, 149, 174, 178, 226, 272
"""Heights of the rows: notes (baseline), tokens (top), durations (baseline), the hops' arrows (tips), frames (top),
sound (middle), seconds (baseline)."""

TOKEN_HEIGHT, STACKED_HEIGHT, CELL, SOUND_HEIGHT = 26, 22, 15, 44
BARS = 5
"""Bars of sound in a frame."""


@dataclass(frozen=True)
class Theme:
    """Colours. `looked` marks what the decoder looked at, `skipped` what it did not."""

    text: str
    muted: str
    looked: str
    skipped: str
    token: str
    token_text: str


THEMES = {
    "light": Theme("#1f2328", "#59636e", "#0969da", "#8c959f", "#ddf4ff", "#0a3069"),
    "dark": Theme("#f0f6fc", "#9198a1", "#4493f8", "#656c76", "#122d4f", "#cae8ff"),
}

STYLE = Template("""
text { font: 13px -apple-system, BlinkMacSystemFont, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif }
text { fill: $muted }
.title { font-size: 18px; font-weight: 600; fill: $text }
.small { font-size: 11px }
.middle { text-anchor: middle }
.token { fill: $token }
.piece { fill: $token_text; font-weight: 500; text-anchor: middle }
.tight { font-size: 11px }
.blank { fill: none; stroke: $skipped; stroke-dasharray: 3 3 }
.hop { fill: none; stroke: $looked; stroke-width: 1.5 }
.looked { fill: $looked }
.skipped { fill: none; stroke: $skipped }
.bars { stroke-width: 1.8; stroke-linecap: round; fill: none; stroke: $skipped }
.bars.seen { stroke: $looked }
""")


@dataclass(frozen=True)
class Utterance:
    """What is drawn: samples (float32 [n]), every step of the decode, the piece of each step, and how many frames."""

    samples: np.ndarray
    trace: Trace
    pieces: list[str]
    text: str
    frames: int

    @property
    def looked(self) -> set[int]:
        return set(self.trace.frames.tolist())


def utterance() -> Utterance:
    """The beginning of the demo recording, decoded."""
    model = tdt.load_model("demo")
    samples = read_audio(demo_directory() / "speech.flac", SAMPLE_RATE)[: int(SECONDS * SAMPLE_RATE)]
    encoder_out, lengths = model.encoder(*FeatureExtractor(80)([samples]))
    trace = model.decoder.trace(encoder_out, lengths)[0]
    pieces = [model.bundle.vocabulary.pieces[token] for token in trace.tokens.tolist()]
    text = model.decoder.detokenize(trace.tokens[trace.emitted].tolist())
    return Utterance(samples, trace, pieces, text, int(lengths[0]))


def draw(said: Utterance, theme: Theme) -> str:
    """The picture as SVG."""
    title = f"The decoder looked at {len(said.looked)} of {said.frames} frames, in {len(said.trace)} steps"
    subtitle = (
        "A TDT model predicts each token together with its duration: how many frames to move on. "
        "RNN-T looks at every frame."
    )
    rows = (("tokens", TOKENS + 17), ("durations", DURATIONS), ("80 ms frames", FRAMES + 12), ("sound", SOUND + 4))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img" aria-labelledby="title desc">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="desc">Greedy decoding of “{escape(said.text)}”. {escape(subtitle)}</desc>',
        f"<style>{STYLE.substitute(vars(theme))}</style>",
        _text(0, 20, title, "title"),
        _text(0, 43, subtitle),
        *_legend(),
        *(_text(0, height, name, "small") for name, height in rows),
        *_steps(said),
        *(_cell(LEFT + frame * FRAME, FRAMES, frame in said.looked) for frame in range(said.frames)),
        *_sound(said),
        *_axis(said.frames),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _steps(said: Utterance) -> list[str]:
    """A box for each step, as wide as its duration, and a hop from its frame to the next one.

    Tokens of duration 0 stand above the one that leaves their frame, the first of them highest.
    """
    trace, parts = said.trace, []
    notes: dict[str, float] = {}
    to_come = Counter(trace.frames.tolist())
    for i, (frame, duration) in enumerate(zip(trace.frames.tolist(), trace.durations.tolist())):
        to_come[frame] -= 1
        above = to_come[frame]
        begins_word = said.pieces[i].startswith(SPACE)
        left = LEFT + frame * FRAME + (2 if begins_word else 0.5)
        right = LEFT + (frame + max(duration, 1)) * FRAME - 0.5
        top = TOKENS - STACKED_HEIGHT * above
        height = STACKED_HEIGHT - 1 if above else TOKEN_HEIGHT
        middle = (left + right) / 2
        if trace.emitted[i]:
            piece = said.pieces[i].removeprefix(SPACE)
            parts.append(_box("token", left, top, right - left, height))
            kind = "piece tight" if len(piece) * 8 > right - left else "piece"
            parts.append(_text(middle, top + height / 2 + 4.5, piece, kind))
        else:
            parts.append(_box("blank", left + 1.5, top + 0.5, right - left - 3, height - 1))
            parts.append(_text(middle, top + height / 2 + 4, "blank", "small middle"))
            notes.setdefault("blank: no token, move on", LEFT + frame * FRAME)
        if duration:
            parts += _hop(frame, frame + duration)
        else:
            notes["duration 0: the next token is on the same frame"] = right + 8
    return parts + [_text(x, NOTES, note, "small") for note, x in notes.items()]


def _hop(start: int, end: int) -> list[str]:
    a, b = (LEFT + (frame + 0.5) * FRAME for frame in (start, end))
    top = DURATIONS - 1.5 if end - start > 1 else DURATIONS + 2  # of the control points; the arc stays below
    return [
        _text((a + b) / 2, DURATIONS, str(end - start), "small middle"),
        f'<path class="hop" d="M{a:.1f} {HOPS + 2}C{a:.1f} {top} {b:.1f} {top} {b:.1f} {HOPS - 3}"/>',
        f'<path class="looked" d="M{b - 3.2:.1f} {HOPS - 4}h6.4L{b:.1f} {HOPS + 2}z"/>',
    ]


def _cell(x: float, y: float, looked: bool) -> str:
    kind, edge = ("looked", 1.0) if looked else ("skipped", 1.5)
    return _box(kind, x + edge, y + edge, FRAME - 2 * edge, CELL + 1 - 2 * edge, radius=3)


def _sound(said: Utterance) -> list[str]:
    """The loudness of the recording in bars, coloured by whether the decoder looked at their frame."""
    samples = said.samples[: len(said.samples) // (said.frames * BARS) * said.frames * BARS]
    peaks = np.abs(samples).reshape(said.frames * BARS, -1).max(1)
    paths = {"bars": "", "bars seen": ""}
    for i, peak in enumerate((peaks / peaks.max() * SOUND_HEIGHT / 2).tolist()):
        kind = "bars seen" if i // BARS in said.looked else "bars"
        paths[kind] += f"M{LEFT + (i + 0.5) * FRAME / BARS:.1f} {SOUND - peak:.1f}v{2 * peak:.1f}"
    return [f'<path class="{kind}" d="{path}"/>' for kind, path in paths.items()]


def _axis(frames: int) -> list[str]:
    half_second, foot = 0.5 / (SECONDS / frames) * FRAME, AXIS - 16
    ticks = [LEFT + i * half_second for i in range(int(frames * FRAME / half_second) + 1)]
    path = f"M{LEFT:g} {foot}H{LEFT + frames * FRAME:.1f}" + "".join(f"M{x:.1f} {foot}v4" for x in ticks)
    return [
        f'<path class="skipped" d="{path}"/>',
        *(_text(x, AXIS, f"{i / 2:g} s", "small middle") for i, x in enumerate(ticks)),
    ]


def _legend() -> list[str]:
    return [
        _cell(WIDTH - 150, 7, looked=True), _text(WIDTH - 130, 19, "looked at", "small"),
        _cell(WIDTH - 66, 7, looked=False), _text(WIDTH - 46, 19, "skipped", "small"),
    ]  # fmt: skip


def _box(kind: str, x: float, y: float, width: float, height: float, radius: int = 4) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:g}" width="{width:.1f}" height="{height:g}" rx="{radius}"/>'


def _text(x: float, y: float, text: str, kind: str = "plain") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:g}">{escape(text, quote=False)}</text>'


def main() -> None:
    said = utterance()
    for name, theme in THEMES.items():
        file = IMAGES / f"trace-{name}.svg"
        file.write_text(draw(said, theme), encoding="utf-8")
        print(f"written: {file}")


if __name__ == "__main__":
    main()
