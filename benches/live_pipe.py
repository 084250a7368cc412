"""A recording played into `tdtdecode listen` through a pipe, in real time: when each event comes.

    python -m benches.live_pipe [RECORDING] [--rate 16000] [--piece 0.02] [--save] [-- OPTIONS OF LISTEN]

The recording (default: the demo's) is sent as a WAV of unknown length, a piece at a time, each when its last sample is
due, as a recorder sends it. For every line of `--format json` are printed: when the line came, in seconds after the
first sample was due; how much audio the event is about (`heard`), and how long after that audio was sent it came; how
much is decoded; the words that were settled, with the end of the last one; and the text that may still change.
"""

from __future__ import annotations

import argparse
import array
import fcntl
import json
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import numpy as np

import tdtdecode as tdt
from tdtdecode.speech.audio import read_audio

from .report import environment, save

DEMO = Path(tdt.__file__).parent / "demo" / "speech.flac"
UNKNOWN = 0xFFFFFFFF


def header(rate: int) -> bytes:
    """The header of a WAV of 16 bits, one channel and unknown length."""
    return struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", UNKNOWN, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16,
                       b"data", UNKNOWN)  # fmt: skip


def play(pipe, samples: np.ndarray, rate: int, piece: int, begin: float) -> None:
    """Send each piece when its last sample is due."""
    for start in range(0, len(samples), piece):
        part = samples[start : start + piece]
        time.sleep(max(begin + (start + len(part)) / rate - time.perf_counter(), 0))
        pipe.write(part.tobytes())
        pipe.flush()
    pipe.close()


def unread(pipe) -> int:
    """Bytes in a pipe that nobody has read."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


def events(samples: np.ndarray, rate: int, piece: int, options: list[str]) -> list[dict]:
    """Every event that `listen` prints, with the moment when it came, in seconds after the first sample was due."""
    command = [sys.executable, "-m", "tdtdecode", "listen", "-", "--format", "json", *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(header(rate))
    process.stdin.flush()
    while unread(process.stdin):  # the model is loaded before anyone speaks
        time.sleep(0.05)
    begin = time.perf_counter()
    player = threading.Thread(target=play, args=(process.stdin, samples, rate, piece, begin))
    player.start()
    found = []
    for line in process.stdout:
        came = time.perf_counter() - begin
        found.append({"came": came, **json.loads(line)})
    player.join()
    if process.wait():
        raise SystemExit(f"listen ended with status {process.returncode}")
    return found


def main() -> None:
    arguments = sys.argv[1:]
    own, options = arguments, []
    if "--" in arguments:
        own, options = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", nargs="?", type=Path, default=DEMO)
    parser.add_argument("--rate", type=int, default=16_000, help="of the samples that are sent (default: 16000)")
    parser.add_argument("--piece", type=float, default=0.02, help="seconds that are sent at once (default: 0.02)")
    parser.add_argument("--save", action="store_true", help="keep the events under benches/results")
    chosen = parser.parse_args(own)
    samples = (read_audio(chosen.recording, chosen.rate) * 32767).astype(np.int16)
    found = events(samples, chosen.rate, max(int(chosen.piece * chosen.rate), 1), options)
    print("   came  heard  after  decoded")
    for event in found:
        event["after"] = event["came"] - event["heard"]
        words = " ".join(word["word"] for word in event["words"])
        end = f" ({event['words'][-1]['end']:.2f})" if words else ""
        marks = " END" * event["ended"] + " FINISHED" * event["finished"]
        print(f"{event['came']:7.3f} {event['heard']:6.2f} {event['after']:6.3f} {event['decoded']:8.2f}  "
              f"{words}{end} | {event['tentative']}{marks}")  # fmt: skip
    after = np.array([event["after"] for event in found])
    print(f"{len(found)} events, {np.median(after):.3f} s after their audio (most: {after.max():.3f})")
    if chosen.save:
        name = f"{chosen.recording.parent.name}/{chosen.recording.name}"
        save("live_pipe", {
            "environment": environment("onnxruntime"), "recording": name, "rate": chosen.rate, "piece": chosen.piece,
            "options": options, "median_s": float(np.median(after)), "most_s": float(after.max()), "events": found,
        })  # fmt: skip


if __name__ == "__main__":
    main()
