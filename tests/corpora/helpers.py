"""Manifests of parts of the demo model's recording, and what stands for a model."""

from __future__ import annotations

import json
from pathlib import Path

from tdtdecode.hypothesis import Transcript
from tdtdecode.speech.audio import audio_seconds, name_of
from tdtdecode.speech.hub import demo_directory

SPEECH = demo_directory() / "speech.flac"
TEXT = (demo_directory() / "speech.txt").read_text().strip()


def write_lines(path: Path, lines) -> Path:
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def read_lines(path: Path) -> list[dict]:
    text = path.read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def parts(count: int, seconds: float = 1.0) -> list[dict]:
    """Lines of NeMo's kind, each another part of the recording."""
    return [
        {"audio_filepath": str(SPEECH), "offset": round(i * 8.0 / count, 3), "duration": seconds, "text": f"part {i}"}
        for i in range(count)
    ]


class StandIn:
    """A model whose transcripts say what they were asked to transcribe; `asked` keeps that."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def recognize_each(self, recordings, search=None, *, on_error="raise", **options):
        for recording in recordings:
            self.asked.append(name_of(recording))
            try:
                seconds = audio_seconds(recording)
            except Exception as error:
                yield error
            else:
                yield Transcript(f"heard {name_of(recording)}", duration=seconds)
