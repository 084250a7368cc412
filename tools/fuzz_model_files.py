"""Changes model files at random: both readers refuse the same ones, and neither crashes.

    python -m tools.fuzz_model_files --minutes 30 [--seed 0]

A finding is printed, and its file is kept in ``fuzz-findings/``. Turn it into a test of tests/capi/test_files.py.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np

from tdtdecode.bundle.packed import read_packed
from tdtdecode.errors import BundleError
from tests.capi.library import CError, Model

SEED_FILE = Path(__file__).parents[1] / "examples/recorded/demo.tdt"
FINDINGS = Path("fuzz-findings")
WORDS = ['"', "[", "]", "{", "}", ",", ":", "-1", "0", "1e999", "null", "18446744073709551616", "\\u0000", "\\ud800",
         '"F64"', "9" * 30, "[" * 40, "\x00", "\xff", "1.5", "true", "--", '"I32"', '"F16"', "256", "257"]  # fmt: skip


def small_files() -> list[bytes]:
    """Model files of both versions that read fast: with layers, with big blanks, with a predictor of several tokens."""
    from tdtdecode.bundle.description import FeatureSettings
    from tdtdecode.bundle.packed import model_file
    from tests.capi.models import KINDS, NEWER, random_vocabulary, weights_of

    files = []
    for kind in (KINDS[0], NEWER[0], NEWER[3]):
        weights, spec = weights_of(kind, 0)
        assert spec.blank is not None
        vocabulary = random_vocabulary(spec.vocab_size, spec.blank)
        files.append(b"".join(model_file(weights, spec, vocabulary, FeatureSettings())))
    return files


def changed(data: bytes, rng: random.Random) -> bytes:
    """The file with one to four changes, most of them in the header."""
    length = int.from_bytes(data[:8], "little")
    head, rest = bytearray(data[8 : 8 + length]), bytearray(data[8 + length :])
    keeps_length = rng.random() < 0.1
    for _ in range(rng.randint(1, 4)):
        kind = rng.random()
        at = rng.randrange(len(head))
        if kind < 0.25:
            head[at] = rng.randrange(256)
        elif kind < 0.5:
            word = rng.choice(WORDS).encode("latin-1")
            head[at : at + rng.choice([0, len(word)])] = word
        elif kind < 0.6:
            del head[at : at + rng.randint(1, 30)]
        elif kind < 0.8:
            head = bytearray(restated(bytes(head), rng))
        elif kind < 0.9:
            for _ in range(4):
                rest[rng.randrange(len(rest))] = rng.choice([0, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        else:
            rest = rest[: rng.randrange(len(rest))] if rng.random() < 0.5 else rest + b"\0" * rng.randint(1, 9)
        if not head or not rest:
            break
    stated = length if keeps_length else len(head)
    return stated.to_bytes(8, "little") + bytes(head) + bytes(rest)


def restated(head: bytes, rng: random.Random) -> bytes:
    """A header with one value changed, if it is JSON."""
    try:
        header = json.loads(head)
        name = rng.choice(list(header))
        entry = header[name]
        field = rng.choice(list(entry))
        if rng.random() < 0.1:
            header[name + "x"] = header.pop(name)
        elif isinstance(entry[field], list):
            i = rng.randrange(len(entry[field]))
            entry[field][i] = rng.choice([0, 1, -1, 2**31, 2**40, 2**63, entry[field][i] + 1, entry[field][i] * 2])
        else:
            entry[field] = rng.choice(["", "0", "1", "-1", "99999999999", "F32", "I64", "BF16", "ngram", "relu", "[]"])
        return json.dumps(header).encode()
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError):
        return head


def verdicts(data: bytes, path: Path) -> tuple[str, str]:
    """What each reader says: "" or its refusal."""
    path.write_bytes(data)
    try:
        read_packed(path)
        package = ""
    except BundleError as error:
        package = str(error)
    try:
        Model(data)
        library = ""
    except CError as error:
        status, library = error.args
        assert status == 2, f"status {status}: {library}"
    return package, library


def main() -> None:
    """Fuzz for a while."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    np.random.seed(options.seed)
    files, path = small_files(), Path(f"fuzzed-{options.seed}.tdt")
    end = time.monotonic() + 60 * options.minutes
    tried = accepted = findings = 0
    try:
        while time.monotonic() < end:
            case = changed(rng.choice(files), rng)
            package, library = verdicts(case, path)
            tried += 1
            accepted += not package and not library
            if bool(package) != bool(library):
                findings += 1
                FINDINGS.mkdir(exist_ok=True)
                kept = FINDINGS / f"{options.seed}-{tried}.tdt"
                kept.write_bytes(case)
                print(f"{kept}: the package says {package!r}, the C library {library!r}", flush=True)
    finally:
        path.unlink(missing_ok=True)
    print(f"{tried} files, {accepted} accepted by both, {findings} findings")


if __name__ == "__main__":
    main()
