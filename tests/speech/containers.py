"""Recordings in every container, and headers that state other lengths than they have: apart from what is tested."""

from __future__ import annotations

import io
import re
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000


@dataclass(frozen=True)
class Container:
    """A kind of file.

    Attributes
    ----------
    form, subtype:
        What soundfile calls it.
    states:
        Makes the header of a file of 16-bit samples state another number of samples.
    unknown:
        The number by which this header says that it does not know the length; None if it cannot say so.
    """

    form: str
    subtype: str | None
    states: Callable[[bytes, int], bytes]
    unknown: int | None = None

    def written(self, samples: np.ndarray, rate: int = RATE, **options) -> bytes:
        file = io.BytesIO()
        soundfile.write(file, samples, rate, format=self.form, subtype=self.subtype, **options)
        return file.getvalue()


def _field(before: bytes, form: str, extra: int = 0, unit: int = 2, skip: int = 0):
    """A number that stands after some bytes, and counts samples of ``unit`` bytes and some more."""

    def states(data: bytes, samples: int) -> bytes:
        at = data.index(before) + len(before) + skip
        size = struct.calcsize(form)
        number = (samples * unit + extra) % (1 << 8 * size)
        return data[:at] + number.to_bytes(size, "big" if form[0] == ">" else "little") + data[at + size :]

    return states


def _flac(data: bytes, samples: int) -> bytes:
    at = data.index(b"fLaC") + 8 + 13
    number = int.from_bytes(data[at : at + 5], "big") >> 36 << 36 | samples
    return data[:at] + number.to_bytes(5, "big") + data[at + 5 :]


def _sphere(data: bytes, samples: int) -> bytes:
    header = re.sub(rb"sample_count -i \d+", b"sample_count -i %d" % samples, data[:1024]).rstrip()
    return (header + b"\n").ljust(1024)[:1024] + data[1024:]


def _xing(data: bytes, samples: int) -> bytes:
    at = max(data.find(b"Xing"), data.find(b"Info")) + 8
    return data[:at] + struct.pack(">I", samples // 576) + data[at + 4 :]


def _granules(rate: int):
    def states(data: bytes, samples: int) -> bytes:
        return with_granules(data, lambda old, last: samples * rate // RATE if last else old)

    return states


def pages(data: bytes) -> list[bytes]:
    """The pages of an Ogg file."""
    starts = [match.start() for match in re.finditer(rb"OggS\0", data)] + [len(data)]
    return [data[start:stop] for start, stop in zip(starts, starts[1:])]


def with_granules(data: bytes, change: Callable[[int, bool], int]) -> bytes:
    """An Ogg file with other granules: ``change(old, whether it is the last page)``."""
    out = []
    found = pages(data)
    for page in found:
        granule = change(int.from_bytes(page[6:14], "little"), page is found[-1])
        out.append(with_checksum(page[:6] + (granule % (1 << 64)).to_bytes(8, "little") + page[14:]))
    return b"".join(out)


def with_checksum(page: bytes) -> bytes:
    """An Ogg page with the checksum that its content has."""
    page = page[:22] + bytes(4) + page[26:]
    crc = 0
    for byte in page:
        crc = (crc << 8) & 0xFFFFFFFF ^ _CRC[(crc >> 24) ^ byte]
    return page[:22] + crc.to_bytes(4, "little") + page[26:]


def _table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x04C11DB7 if crc & 0x80000000 else 0)
        table.append(crc & 0xFFFFFFFF)
    return table


_CRC = _table()

_W64 = bytes.fromhex("f3acd3118cd100c04f8edb8a")

CONTAINERS = {
    "wav": Container("WAV", "PCM_16", _field(b"data", "<I"), 0xFFFFFFFF // 2),
    "wavex": Container("WAVEX", "PCM_16", _field(b"data", "<I"), 0x7FFFFFFE // 2),
    "rf64": Container("RF64", "PCM_16", _field(b"ds64", "<Q", skip=12), (1 << 63) - 1),
    "w64": Container("W64", "PCM_16", _field(b"data" + _W64, "<q", extra=24), (1 << 62) - 13),
    "aiff": Container("AIFF", "PCM_16", _field(b"SSND", ">I", extra=8), 0x7FFFFFF0 // 2),
    "caf": Container("CAF", "PCM_16", _field(b"data", ">q", extra=4), (1 << 62) - 4),
    "svx": Container("SVX", "PCM_16", _field(b"BODY", ">I"), 0x7FFFFFFE // 2),
    "au": Container("AU", "PCM_16", _field(b".snd", ">I", skip=4), 0x7FFFFFFF),
    "sph": Container("NIST", "PCM_16", _sphere),
    "flac": Container("FLAC", "PCM_16", _flac, 0),
    "vorbis": Container("OGG", "VORBIS", _granules(RATE), -1),
    "opus": Container("OGG", "OPUS", _granules(48_000), -1),
    "mp3": Container("MP3", None, _xing),
}


def speechlike(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Noise whose loudness varies, float32 [n]: no container makes nothing of it."""
    rng = np.random.default_rng(seed)
    n, step = int(seconds * rate), rate // 4
    loudness = rng.uniform(0.05, 0.6, n // step + 2)
    envelope = np.interp(np.arange(n), step * np.arange(len(loudness)), loudness)
    return (rng.uniform(-1, 1, n) * envelope).astype(np.float32)


def encoded(container: str, codec: str, samples: np.ndarray, rate: int = RATE, video: bool = False, **options) -> bytes:
    """A recording as FFmpeg writes it; samples float32 [n]. ``video``: with a picture beside it."""
    import av

    with tempfile.NamedTemporaryFile() as file, av.open(file.name, "w", format=container, options=options) as output:
        picture = output.add_stream("mpeg4", rate=5) if video else None
        if picture is not None:
            picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
        stream = output.add_stream(codec, rate=rate, layout="mono")
        context = stream.codec_context
        if codec == "wmav2":
            context.bit_rate = 64_000
        context.open()
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(
            format=context.format.name, layout="mono", rate=rate, frame_size=context.frame_size or 1024
        )
        if picture is not None:
            for number in range(int(len(samples) / rate * 5)):
                image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                image.pts = number
                output.mux(picture.encode(image))
            output.mux(picture.encode(None))
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
        output.close()
        return Path(file.name).read_bytes()
