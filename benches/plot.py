"""Draws the results of benches.greedy, and prints them as tables for the README and the pages.

    python -m benches.plot
"""

from __future__ import annotations

import json

from tdtdecode.benchmark.charts import Chart, Line, Panel
from tdtdecode.benchmark.png import png

from .report import RESULTS

SYSTEMS = {
    "onnx-asr": "#777777", "sherpa-onnx": "#a67c1f", "NeMo": "#5d9100", "ort": "#3d8c8c", "fused float32": "#1f5fa8",
    "fused bfloat16": "#d1495b", "fused int8": "#6a2c70",
}  # fmt: skip
PEERS = ("onnx-asr", "sherpa-onnx", "NeMo")


def chart(result: dict) -> Chart:
    """Microseconds per token by batch size, one thread, one panel for each model; the floor is that of float32."""
    comparisons = [c for c in result["comparisons"] if c["threads"] == 1]
    panels = []
    for size in sorted({c["vocab_size"] for c in comparisons}):
        mine = [c for c in comparisons if c["vocab_size"] == size]
        lines = []
        for system, colour in SYSTEMS.items():
            entries = [(c["batch"], c["systems"][system]) for c in mine if system in c["systems"]]
            if not entries:
                continue
            first = entries[0][1]
            floor = None
            if system == "fused float32" and "floor_fraction" in first:
                floor = first["us_per_token"] * first["floor_fraction"]
            name = system if system in PEERS else f"tdtdecode, {system.removeprefix('fused ')}"
            lines.append(Line(name, colour, tuple((batch, entry["us_per_token"]) for batch, entry in entries), floor))
        kind = "TDT" if mine[0].get("durations", True) else "RNN-T"
        panels.append(Panel(f"{kind} with {size} tokens", tuple(lines)))
    about = (
        "Greedy decoding of the same encoder output by all systems, one thread each, random weights of Parakeet's "
        f"size, {result['frames']} frames an utterance. {result['processor']}, {result['date']}. Medians."
    )
    return Chart("How long a token takes, by system", about, tuple(panels))


def draw(name: str) -> None:
    """Draw ``results/NAME.png``."""
    file = RESULTS / f"{name}.png"
    file.write_bytes(png(chart(json.loads((RESULTS / f"{name}.json").read_text()))))
    print(f"written: {file}")


def table(name: str) -> str:
    """The figures of one thread as a Markdown table: microseconds per token, and the speed relative to onnx-asr's."""
    result = json.loads((RESULTS / f"{name}.json").read_text())
    comparisons = [c for c in result["comparisons"] if c["threads"] == 1]
    lines = ["| | " + " | ".join(f"V = {c['vocab_size']}, {c['batch']}" for c in comparisons) + " |"]
    lines.append("|---" * (len(comparisons) + 1) + "|")
    for system in SYSTEMS:
        cells = []
        for c in comparisons:
            entry, peer = c["systems"].get(system), c["systems"].get("onnx-asr")
            ratio = f" ({peer['us_per_token'] / entry['us_per_token']:.1f}x)" if entry and peer else ""
            cells.append(f"{entry['us_per_token']:.0f}{ratio}" if entry else "")
        lines.append(f"| {system} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table_of_sets(name: str) -> str:
    """The instruction sets on one thread as a Markdown table: microseconds per token, and for one utterance the share
    of the speed at which the weights can be read."""
    result = json.loads((RESULTS / f"{name}.json").read_text())
    comparisons = result["comparisons"]
    lines = ["| | " + " | ".join(f"V = {c['vocab_size']}, {c['batch']}" for c in comparisons) + " |"]
    lines.append("|---" * (len(comparisons) + 1) + "|")
    systems = [system for system in comparisons[0]["systems"] if system.startswith("fused")]
    for system in sorted(systems, key=lambda system: system.split(", ")[1:]):
        entries = [c["systems"][system] for c in comparisons]
        precision, *_ = system.removeprefix("fused ").split(", ")
        cells = [
            f"{entry['us_per_token']:.0f}" + (f" ({entry['floor_fraction']:.0%})" if "floor_fraction" in entry else "")
            for entry in entries
        ]
        lines.append(f"| {entries[0]['isa']}, {precision} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    draw("greedy")
    print(table("greedy"), table_of_sets("greedy_sets"), sep="\n\n")
