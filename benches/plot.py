"""Draws the results of benches.greedy, and prints them as a table for the README.

    python -m benches.plot
"""

from __future__ import annotations

import json

from .report import RESULTS

SYSTEMS = {
    "onnx-asr": "#999999", "sherpa-onnx": "#c79a3a", "NeMo": "#76b900", "ort": "#8fb8de", "fused float32": "#1f5fa8",
    "fused bfloat16": "#d1495b", "fused int8": "#6a2c70",
}  # fmt: skip


def draw(name: str) -> None:
    """Draw ``results/NAME.png``: microseconds per token by batch size, one thread, one panel for each vocabulary."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    result = json.loads((RESULTS / f"{name}.json").read_text())
    comparisons = [c for c in result["comparisons"] if c["threads"] == 1]
    sizes = sorted({c["vocab_size"] for c in comparisons})
    figure, panels = pyplot.subplots(1, len(sizes), figsize=(5.5 * len(sizes), 4.2), sharey=True, squeeze=False)
    for panel, size in zip(panels[0], sizes):
        for system, colour in SYSTEMS.items():
            points = [
                (c["batch"], c["systems"][system]["us_per_token"])
                for c in comparisons
                if c["vocab_size"] == size and system in c["systems"]
            ]
            if points:
                panel.plot(*zip(*points), "o-", color=colour, label=system)
        floors = [
            entry["bytes_per_token"] / entry["stream_bandwidth"] * 1e6
            for c in comparisons
            for system, entry in c["systems"].items()
            if c["vocab_size"] == size and c["batch"] == 1 and system == "fused float32"
        ]
        for floor in floors:
            panel.axhline(floor, color=SYSTEMS["fused float32"], linestyle=":", label="floor of float32, batch 1")
        panel.set(xscale="log", yscale="log", xlabel="utterances in a batch", title=f"V = {size}")
        panel.set_xticks([1, 4, 16, 64], ["1", "4", "16", "64"])
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("microseconds per emitted token")
    panels[0][-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(f"Greedy TDT decoding, one thread, {result['processor']}", fontsize=10)
    figure.tight_layout()
    figure.savefig(RESULTS / f"{name}.png", dpi=110)
    print(f"written: {RESULTS / f'{name}.png'}")


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


if __name__ == "__main__":
    draw("greedy")
    print(table("greedy"))
