"""Decoding on a GPU against what the card can do, and against peers on the same card, weights and encoder output.

    python -m benches.gpu [--save]              # every size, batch 1, 8, 32 and 128, greedy and beam 4
    python -m benches.gpu --micro               # the card alone: barriers, exchanges, shared memory, cache
    python -m benches.gpu --end-to-end          # from files to text, with a model of Parakeet's sizes
    python -m benches.gpu --host                # the host's share of a decode; needs no card
    python -m benches.gpu --part decoding --output FILE

Needs a card and CuPy. onnxruntime-gpu, onnx-asr, PyTorch with transformers, and NeMo take part if they are installed.
Times run from encoder output on the device to hypotheses on the host. The floor, the least time that a token can
take, is computed from what `--micro` measures. The sizes are those of published models: TDT with V = 1024 and 8192,
and an RNN-T with V = 13,087, in which the peers take no part. Each figure is written as soon as it is there. A second
run with the same file goes on where the first one ended.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
from pathlib import Path

import tdtdecode as tdt

from ..random_weights import PUBLISHED
from ..report import RESULTS, environment, installed, save
from . import bars, decoding, end_to_end, files, host, micro
from .record import Record

_PACKAGES = ("cupy-cuda13x", "onnxruntime-gpu", "onnx-asr", "torch", "transformers", "nemo_toolkit")
_PARTS = ("decoding", "peers", "end-to-end")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benches.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocab-size", type=int, nargs="+", default=list(PUBLISHED))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--micro", action="store_true", help="measure only the card")
    parser.add_argument("--end-to-end", action="store_true", help="measure only from files to text")
    parser.add_argument("--host", action="store_true", help="measure only the host's share; needs no card")
    parser.add_argument("--part", choices=_PARTS, nargs="+", default=list(_PARTS), help="what to measure; default: all")
    parser.add_argument("--quick", action="store_true", help="V = 1024, batch 1 and 128, three runs, no peers")
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="measure only this package")
    parser.add_argument("--output", type=Path, metavar="FILE", help="keep the figures in this JSON file")
    parser.add_argument("--save", action="store_true", help="keep the figures under benches/results")
    options = parser.parse_args()
    if options.host:
        _measure_host(options.save)
        return
    if options.quick:
        options.vocab_size, options.batch, options.runs, options.peers = [1024], [1, 128], 3, False
    output = options.output or (RESULTS / "gpu.json" if options.save else None)
    try:
        card = micro.measure()
    except (tdt.DeviceError, tdt.MissingDependencyError) as error:
        if options.save and not _measured():
            save("gpu", {"status": f"open: {error}", "bars": bars.reached([], {})})
        parser.exit(1, f"no figures: {error}\n")
    for name, value in card.items():
        print(f"{name}: {value}")
    versions = [name for name in _PACKAGES if installed(name)]
    about = environment(*versions) | {"status": "measured", "card": card["card"], "micro": card}
    record = Record(output, about)
    record.write()
    if options.micro:
        return
    parts = [part for part in options.part if options.peers or part == "decoding"]
    if options.end_to_end:
        parts = []
        with tempfile.TemporaryDirectory() as folder:
            files.measure(record, Path(folder), min(options.runs, 3))
    searches = {"greedy": tdt.Greedy(), "beam 4": tdt.Beam(size=4)}
    for part in parts:
        for vocab_size in options.vocab_size:
            with tempfile.TemporaryDirectory() as folder:
                model = decoding.Model(vocab_size, Path(folder))
                if part != "decoding" and not model.weights.durations:
                    continue
                for batch in options.batch:
                    name = f"V = {vocab_size}, batch {batch}"
                    if part == "decoding":
                        record.measured(
                            part, name,
                            lambda model=model, batch=batch: decoding.measure(
                                model, batch, options.runs, searches, card
                            ),
                        )  # fmt: skip
                    elif part == "peers" and batch <= decoding.PEER_BATCH:
                        record.measured(
                            part, name,
                            lambda model=model, batch=batch: decoding.measure_peers(model, batch, options.runs),
                        )  # fmt: skip
                    elif part == "end-to-end" and importlib.util.find_spec("transformers") is not None:
                        record.measured(
                            part, name, lambda model=model, batch=batch: end_to_end.measure(model, batch, options.runs)
                        )
    cells = [*_cells(record, "decoding"), *_cells(record, "peers")]
    record.values["bars"] = bars.reached(cells, record.values.get("files", {}))
    record.write()
    for bar in record.values["bars"]:
        print(f"{bar['bar']}: {bar['measured']} ({bar['limit']})")


def _cells(record: Record, part: str) -> list[dict]:
    return [cell for cell in record.values.get(part, {}).values() if "error" not in cell]


def _measure_host(keep: bool) -> None:
    found = host.measure()
    for batch, figures in found.items():
        print(f"batch {batch:>3}: {figures['us']:7.1f} us a decode; {figures}")
    if keep:
        save("gpu_host", environment() | {"frames": host.FRAMES, "tokens": host.TOKENS, "batches": found})


def _measured() -> bool:
    """Whether there are measured figures, which "no figures" must not overwrite."""
    file = RESULTS / "gpu.json"
    return file.exists() and json.loads(file.read_text())["status"] == "measured"


if __name__ == "__main__":
    main()
