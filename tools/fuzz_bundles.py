"""Fuzzes everything that reads model directories. Each must be accepted or refused, in bounded memory and time.

    python -m tools.fuzz_bundles --seconds 3600 --seed 1

Each case damages a small random model directory (bytes, protobuf fields, JSON, token lines, links, strange files) and
passes it to `read_bundle`, `inspect`, `repair` and `convert`, in a child process with limits on memory and time. A
finding is any exception that is not this package's own, a signal, a timeout, or a file opened outside the directory.
A case is made from its number and the seed alone, and `--case N` runs it again.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import onnx

from benches.random_bundle import make_bundle
from tdtdecode.bundle import read_bundle
from tdtdecode.errors import TdtDecodeError
from tdtdecode.prepare.conversion import convert
from tdtdecode.prepare.inspection import inspect
from tdtdecode.prepare.repairing import repair
from tools.fuzzing import Fuzzer, options

MEMORY = 3 << 30
"""Address space, in bytes, that a case may use beyond what the process has before it."""
SECONDS = 300
"""Time limit of a case: far more than it needs on the busiest machine."""
_CASES_PER_CHILD = 500

_SIZES = {"vocab_size": 12, "encoder_size": 16, "predictor_size": 8, "joint_size": 10, "tokens_per_second": None}
_KINDS = [
    {"layout": layout, "mel_bins": 80, **options}
    for layout in ("split", "combined", "genai")
    for options in (
        {}, {"external_weights": True}, {"precision": "int8"}, {"precision": "fp16", "position_frames": 100},
    )
]
_NUMBERS = [0, 1, -1, 2, 7, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 62), -(1 << 62), (1 << 63) - 1]
_TEXTS = ["", "..", "/etc/passwd", "../../x", "a\0b", "\u2028", "x" * 70000, "encoder.onnx", "tdt", "1025", "nan", "[]"]

Rng = random.Random


def damage(directory: Path, rng: Rng) -> list[str]:
    """Damage a directory in one to three ways, and return what was done."""
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        files = [path for path in sorted(directory.iterdir()) if path.is_file() and not path.is_symlink()]
        files = [path for path in files if path.stat().st_size < 1 << 20]
        if not files:
            break
        file = rng.choice(files)
        ways: list[Callable[[Path, Rng], None]] = [_bytes, _strange]
        if file.suffix == ".onnx":
            ways += [_protobuf] * 8
        elif file.suffix == ".json":
            ways += [_json] * 4
        elif file.suffix == ".txt":
            ways += [_lines] * 4
        way = rng.choice(ways)
        way(file, rng)
        done.append(f"{way.__name__[1:]} {file.name}")
    return done


def _bytes(file: Path, rng: Rng) -> None:
    data = bytearray(file.read_bytes())
    kind = rng.randrange(5)
    if kind == 0:
        data = data[: rng.randrange(len(data) + 1)]
    elif kind == 1:
        for _ in range(rng.choice([1, 4, 64])):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == 2:
        at = rng.randrange(len(data) + 1)
        data[at:at] = rng.randbytes(rng.choice([1, 8, 4096]))
    elif kind == 3:
        a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        del data[a:b]
    else:
        data = bytearray(rng.randbytes(rng.choice([0, 1, 100, 100000])))
    file.write_bytes(data)


def _strange(file: Path, rng: Rng) -> None:
    kind = rng.randrange(9)
    if kind == 7:
        others = sorted(other for other in file.parent.iterdir() if other.is_file())
        shutil.copyfile(rng.choice(others), f"{file}.tmp")
        os.replace(f"{file}.tmp", file)
        return
    file.unlink()
    if kind == 0:
        file.symlink_to("/etc/passwd")
    elif kind == 1:
        file.symlink_to(file.name)
    elif kind == 2:
        file.mkdir()
    elif kind == 3:
        os.mkfifo(file)
    elif kind == 4:
        with open(file, "wb") as huge:
            huge.truncate(rng.choice([1 << 26, 1 << 31, 1 << 40]))
    elif kind == 5:
        file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    elif kind == 6:
        file.symlink_to(rng.choice(["../nowhere", "/dev/zero", "/dev/stdin", ".", ".."]))


def _lines(file: Path, rng: Rng) -> None:
    lines = file.read_text("utf-8", "surrogateescape").split("\n")
    kind = rng.randrange(9)
    at = rng.randrange(len(lines))
    if kind == 0:
        rng.shuffle(lines)
    elif kind == 1:
        del lines[at]
    elif kind == 2:
        lines[at] = rng.choice(_TEXTS)
    elif kind == 3:
        lines = [" ".join(reversed(line.rsplit(" ", 1))) for line in lines]
    elif kind == 4:
        lines[at] = f"{lines[at].rsplit(' ', 1)[0]} {rng.choice(_NUMBERS)}"
    elif kind == 5:
        lines = lines * rng.choice([2, 300])
    elif kind == 6:
        lines = [f"['{line.rsplit(' ', 1)[0]}', -1.5] {i}" for i, line in enumerate(lines)]
    elif kind == 7:
        lines = [json.dumps(lines) if rng.random() < 0.5 else "[" * rng.choice([10, 100000])]
    else:
        lines[at] = "(" * 5000 + "'" * rng.randrange(9) + " 3"
    file.write_text("\n".join(lines), "utf-8", "surrogateescape")


def _json(file: Path, rng: Rng) -> None:
    try:
        value = json.loads(file.read_text())
    except (ValueError, RecursionError):
        return _bytes(file, rng)
    places = []

    def walk(node):
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            walk(node[key])

    walk(value)
    for _ in range(rng.choice([1, 1, 3])):
        if places:
            node, key = rng.choice(places)
            strange = [None, True, {}, [], [[]], {"a": 1}, 1.5, 1e308, list(range(5)), [0, 1, 2, 4, 8]]
            node[key] = rng.choice([*strange, *_NUMBERS, *_TEXTS])
    file.write_text(json.dumps(value))


def _protobuf(file: Path, rng: Rng) -> None:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(file.read_bytes())
    except Exception:
        return _bytes(file, rng)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        _field(model, rng)
    file.write_bytes(model.SerializeToString())


def _field(model: onnx.ModelProto, rng: Rng) -> None:
    """Change one field anywhere in the model, found by a random walk from message to message."""
    message = model
    for _ in range(12):
        fields = message.DESCRIPTOR.fields
        here = [field for field in fields if _set(message, field)]
        if not here:
            return
        field = rng.choice(here)
        value = getattr(message, field.name)
        repeated = _repeated(field)
        if repeated and rng.random() < 0.15:
            _list(value, field, rng)
            return
        if field.message_type is not None:
            message = rng.choice(list(value)) if repeated else value
            continue
        other = _other(field, value[0] if repeated else value, rng)
        with suppress(ValueError):  # the number does not fit the field
            if repeated:
                value[rng.randrange(len(value))] = other
            else:
                setattr(message, field.name, other)
        return
    _nest(model, rng)


def _repeated(field) -> bool:
    return field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED


def _set(message, field) -> bool:
    value = getattr(message, field.name)
    return len(value) > 0 if _repeated(field) else message.HasField(field.name)


def _list(value, field, rng: Rng) -> None:
    at = rng.randrange(len(value))
    kind = rng.randrange(4)
    if kind == 0:
        del value[at]
    elif kind == 1 and field.message_type is not None:
        value.add().CopyFrom(value[at])
    elif kind == 1:
        value.append(value[at])
    elif kind == 2:
        items = list(value)
        rng.shuffle(items)
        if field.message_type is not None:
            items = [item.__class__.FromString(item.SerializeToString()) for item in items]
        del value[:]
        value.extend(items)
    else:
        del value[:]


def _other(field, value, rng: Rng):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        if field.enum_type is not None:
            return rng.choice([item.number for item in field.enum_type.values])
        return rng.choice([*_NUMBERS, value + 1, value - 1, rng.randrange(32)])
    if isinstance(value, float):
        return rng.choice([0.0, -1.0, 1e38, float("nan"), float("inf")])
    if isinstance(value, bytes):
        return rng.choice([b"", value[:-1], value + b"\0", rng.randbytes(len(value)), b"\xff" * len(value)])
    names = ["outputs", "encoder_outputs", "If", "Loop", "LSTM", "Constant"]
    return rng.choice([*_TEXTS, value + "x", value[:-1], *names])


def _nest(model: onnx.ModelProto, rng: Rng) -> None:
    """Add nodes with deeply nested subgraphs."""
    inner = onnx.helper.make_graph([], "deep", [], [])
    for depth in range(rng.choice([3, 60, 95])):
        node = onnx.helper.make_node("If", ["c"], [f"o{depth}"], then_branch=inner, else_branch=onnx.GraphProto())
        inner = onnx.helper.make_graph([node], "deep", [], [])
    model.graph.node.extend(inner.node)


def make_case(number: int, seed: int, folder: Path, originals: list[Path]) -> list[str]:
    """Make the damaged directory of a case in `folder`, and return what was done to it."""
    rng = random.Random((seed << 40) + number)
    shutil.copytree(rng.choice(originals), folder)
    return damage(folder, rng)


def try_everything(directory: Path) -> str:
    """Read, inspect, repair and convert a directory, and return in short what came of it."""
    names = " ".join(os.listdir(directory))
    variant = next((suffix for suffix in ("int8", "fp16") if f".{suffix}.onnx" in names), None)
    inspection = inspect(directory, variant=variant)
    json.dumps(inspection.as_dict())
    outcome = "ok" if inspection.ok else "problems"
    try:
        bundle = read_bundle(directory, variant=variant)
    except TdtDecodeError:
        bundle = None
    other = "split" if bundle is not None and bundle.layout != "split" else "combined"
    for out, act in (
        ("repaired", lambda out: repair(directory, out, variant=variant)),
        ("converted", lambda out: convert(directory, out, other, variant=variant)),
    ):
        with tempfile.TemporaryDirectory() as scratch:
            try:
                act(Path(scratch, out))
                outcome += f", {out}"
            except TdtDecodeError:
                pass
    return outcome


class _Opened:
    """The files that are opened while a directory is read."""

    def __init__(self) -> None:
        self._paths: list[str] = []
        self._watched = False

    def begin(self) -> None:
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple) -> None:
        if self._watched and event == "open" and isinstance(arguments[0], str):
            self._paths.append(arguments[0])

    def attempt(self, folder: Path) -> str:
        """Read a directory in every way. AssertionError if a file outside it is opened."""
        self._paths.clear()
        self._watched = True
        try:
            outcome = try_everything(folder)
        except TdtDecodeError:
            outcome = "refused"
        finally:
            self._watched = False
        outside = [path for path in self._paths if _outside(path, folder)]
        assert not outside, f"opened {outside[:3]}"
        return outcome


def main() -> None:
    chosen = options(__doc__)
    with tempfile.TemporaryDirectory() as scratch:
        originals = [make_bundle(Path(scratch, str(i)), **_SIZES, **kind) for i, kind in enumerate(_KINDS)]
        folder, opened, done = Path(scratch, "case"), _Opened(), [""]

        def make(number: int) -> Path:
            shutil.rmtree(folder, ignore_errors=True)
            done[:] = make_case(number, chosen.seed, folder, originals)
            return folder

        if chosen.case is not None:
            make(chosen.case)
            print(done)
            print(try_everything(folder))
            return
        Fuzzer(
            make, opened.attempt, described=lambda folder: str(done), memory=MEMORY, seconds=SECONDS,
            cases_per_child=_CASES_PER_CHILD, begin=opened.begin,
        ).run(chosen.seconds)  # fmt: skip


def _outside(path: str, folder: Path) -> bool:
    """Whether a file lies outside the case's directory and is not one that Python or this package needs itself."""
    real = os.path.realpath(path)
    packages = (sys.prefix, sys.base_prefix, *filter(None, sys.path))
    allowed = (str(folder), *packages, tempfile.gettempdir(), "/dev/null", "/proc/", os.getcwd())
    return not real.startswith(allowed)


if __name__ == "__main__":
    main()
