"""Fuzzes everything that reads recordings. Each must be read or refused, in bounded memory and time.

    python -m tools.fuzz_audio --seconds 3600 --seed 1

Each case damages a small recording (bytes, numbers, cuts, pages and chunks taken out, doubled or exchanged, another
container's bytes in the middle) and passes it to `audio_seconds`, `read_audio` and `is_recording`, as bytes, as a file
and as what cannot be sought, in a child process with limits on memory and time. A finding is any exception or warning
that is not this package's own, a signal, a timeout, other samples from the same bytes, samples that are not finite, or
more samples than the file can hold. A case is made from its number and the seed alone, and `--case N` runs it again.
"""

from __future__ import annotations

import importlib.util
import io
import os
import random
import re
import struct
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile

from tdtdecode.errors import TdtDecodeError, TdtDecodeWarning
from tdtdecode.speech.audio import audio_seconds, is_recording, read_audio
from tests.speech.containers import encoded, speechlike
from tools.fuzzing import Fuzzer, options

MEMORY = 2 << 30
"""Address space, in bytes, that a case may use beyond what the process has before it."""
SECONDS = 60
"""Time limit of a case."""
_CASES_PER_CHILD = 300
_RATE = 16_000
_SAMPLES_PER_BYTE = 70_000 * 16
"""The most samples at 16 kHz that a byte can hold: FLAC keeps 65535 equal ones in a dozen, at 1 kHz."""

_SOUNDFILE = [
    ("WAV", "PCM_16"), ("WAV", "PCM_U8"), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"), ("WAV", "MS_ADPCM"),
    ("WAV", "GSM610"), ("WAVEX", "PCM_24"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16"),
    ("AIFF", "IMA_ADPCM"),
    ("CAF", "PCM_16"), ("CAF", "ALAC_16"), ("AU", "ULAW"), ("SVX", "PCM_16"), ("NIST", "PCM_16"), ("VOC", "PCM_16"),
    ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None), ("AVR", "PCM_16"), ("MAT5", "PCM_16"),
    ("PAF", "PCM_16"), ("SDS", "PCM_16"), ("IRCAM", "PCM_16"), ("HTK", "PCM_16"), ("XI", "DPCM_16"),
]  # fmt: skip
_MEDIA = [
    ("ipod", "aac"), ("mov", "pcm_s16le"), ("matroska", "aac"), ("matroska", "flac"), ("adts", "aac"), ("ac3", "ac3"),
    ("amr", "libopencore_amrnb"), ("mpegts", "aac"), ("avi", "pcm_s16le"), ("ogg", "flac"), ("tta", "tta"),
    ("mp2", "mp2"), ("flv", "aac"), ("wv", "wavpack"),
]  # fmt: skip
_NUMBERS = [
    0, 1, 2, 7, 44, 255, 1_000, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1,
]  # fmt: skip

Rng = random.Random


@lru_cache(maxsize=1)
def originals() -> list[bytes]:
    """Sound recordings, one of each kind."""
    made = []
    for number, (form, subtype) in enumerate(_SOUNDFILE):
        for channels in (1, 2):
            samples = np.stack([speechlike(1.2, number + channel) for channel in range(channels)], axis=1)
            file = io.BytesIO()
            try:
                soundfile.write(file, samples, _RATE, format=form, subtype=subtype)
            except soundfile.SoundFileError:
                continue  # some hold one channel only
            made.append(file.getvalue())
    if importlib.util.find_spec("av") is not None:
        import av

        for container, codec in _MEDIA:
            rate = 8_000 if "amr" in codec else 48_000 if codec == "ac3" else 44_100 if container == "flv" else _RATE
            if codec in av.codecs_available:
                made.append(encoded(container, codec, speechlike(1.2, rate=rate), rate))
    return made


def damaged(data: bytes, rng: Rng) -> bytes:
    """A recording damaged in one to four ways."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        data = rng.choice([_bytes, _number, _number, _cut, _parts, _parts, _mixed])(data, rng)
    return data


def _place(data: bytes, rng: Rng) -> int:
    """A place in a recording, more often in its header than not."""
    return rng.randrange(min(len(data), rng.choice([64, 512, len(data) + 1])) + 1)


def _bytes(data: bytes, rng: Rng) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 8, 64])):
        if changed:
            changed[_place(data, rng) % len(changed)] = rng.choice([0, 255, rng.randrange(256)])
    return bytes(changed)


def _number(data: bytes, rng: Rng) -> bytes:
    at, size = _place(data, rng), rng.choice([2, 3, 4, 8])
    old = int.from_bytes(data[at : at + size], "little")
    new = rng.choice([*_NUMBERS, old + 1, old - 1, old * 2, len(data), len(data) - at]) % (1 << 8 * size)
    return data[:at] + new.to_bytes(size, rng.choice(["little", "big"])) + data[at + size :]


def _cut(data: bytes, rng: Rng) -> bytes:
    begin, end = sorted((_place(data, rng), rng.randrange(len(data) + 1)))
    kind = rng.randrange(5)
    if kind == 0:
        return data[:end]
    if kind == 1:
        return data[begin:]
    if kind == 2:
        return data[:begin] + data[end:]
    if kind == 3:
        return data[:end] + rng.randbytes(rng.choice([1, 44, 128, 5_000])) + data[end:]
    return data[:begin] + bytes(end - begin) + data[end:]


def _parts(data: bytes, rng: Rng) -> bytes:
    """Take out, double or exchange what begins with letters: chunks, pages, boxes; or frames."""
    marks = rb"OggS|\xff[\xf8-\xfb]|[a-zA-Z]{4}"
    starts = sorted({0, *(match.start() for match in re.finditer(marks, data)), len(data)})[:400] + [len(data)]
    parts = [data[begin:end] for begin, end in zip(starts, starts[1:])]
    at, other = rng.randrange(len(parts)), rng.randrange(len(parts))
    kind = rng.randrange(4)
    if kind == 0:
        del parts[at]
    elif kind == 1:
        parts.insert(other, parts[at])
    elif kind == 2:
        parts[at], parts[other] = parts[other], parts[at]
    else:
        return data + data
    return b"".join(parts)


def _mixed(data: bytes, rng: Rng) -> bytes:
    other = rng.choice(originals())
    kind = rng.randrange(4)
    if kind == 0:
        return data[: _place(data, rng)] + other
    if kind == 1:
        return data + other
    if kind == 2:
        return data + rng.choice([b"TAG" + bytes(125), b"LIST" + struct.pack("<I", 9) + bytes(10), bytes(700)])
    return b"ID3\x04\0\0" + struct.pack(">I", rng.choice([10, 0x0F, 0x7F7F7F7F])) + data


def make_case(number: int, seed: int) -> bytes:
    """The damaged recording of a case."""
    rng = random.Random((seed << 40) + number)
    return damaged(rng.choice(originals()), rng)


class _Pipe:
    """What can be read and not sought, a little at a time."""

    def __init__(self, data: bytes):
        self._file = io.BytesIO(data)

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, 777))


def try_everything(data: bytes, path: Path) -> str:
    """Read a recording in every way, and return in short what came of it. AssertionError if the ways do not agree."""
    path.write_bytes(data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outcomes = []
        for audio in (data, path, _Pipe(data)):
            try:
                outcomes.append(read_audio(audio))
            except TdtDecodeError as error:
                outcomes.append(re.sub("^.*?: ", "", str(error)))
        seconds = None
        try:
            seconds = audio_seconds(path)
        except TdtDecodeError:
            pass
        readable = is_recording(path)
    for warning in caught:
        assert issubclass(warning.category, TdtDecodeWarning), f"{warning.category.__name__}: {warning.message}"
    first = outcomes[0]
    for other in outcomes[1:]:
        same = other == first if isinstance(first, str) else np.array_equal(other, first)
        assert type(other) is type(first) and same, f"{first} and {other} from the same bytes"
    if isinstance(first, str):
        return "refused"
    assert seconds is not None and seconds >= 0 and readable, "read, but not measured"
    assert first.dtype == np.float32 and first.ndim == 1 and np.isfinite(first).all()
    assert len(first) <= max(1, len(data)) * _SAMPLES_PER_BYTE, f"{len(first)} samples from {len(data)} bytes"
    assert len(caught) <= 3, "more than one warning for a recording"
    return "doubtful" if caught else "read" if len(first) else "empty"


def _quiet() -> None:
    """Keep what libmpg123 says about its input off the terminal."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def main() -> None:
    chosen = options(__doc__)
    originals()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "case")
        if chosen.case is not None:
            print(try_everything(make_case(chosen.case, chosen.seed), path))
            return
        Fuzzer(
            make=lambda number: make_case(number, chosen.seed),
            attempt=lambda data: try_everything(data, path),
            described=lambda data: f"{data[:12]!r}",
            memory=MEMORY, seconds=SECONDS, cases_per_child=_CASES_PER_CHILD, begin=_quiet,
        ).run(chosen.seconds)  # fmt: skip


if __name__ == "__main__":
    main()
