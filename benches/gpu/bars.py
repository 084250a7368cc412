"""The limits that decoding on a GPU is held to (an H200, in float16), and what was measured."""

from __future__ import annotations

from typing import Any

OURS = "fused float16"


def reached(comparisons: list[dict], files: dict[str, dict]) -> list[dict[str, Any]]:
    """Each bar with its limit and the figure measured, which is None if it was not measured.

    Parameters
    ----------
    comparisons:
        What `decoding` measured.
    files:
        What `files` measured, by label.
    """

    def system(vocab_size: int, batch: int, name: str) -> dict:
        for comparison in comparisons:
            if (comparison["vocab_size"], comparison["batch"]) == (vocab_size, batch):
                if name in comparison["systems"]:
                    return comparison["systems"][name]
        return {}

    def ratio(vocab_size: int, batch: int, slower: str, faster: str) -> float | None:
        above, below = (system(vocab_size, batch, name).get("median") for name in (slower, faster))
        return None if above is None or below is None else above / below

    bars: list[dict[str, Any]] = [
        {
            "bar": f"greedy, batch 1, V = {vocab_size}, microseconds a token",
            "limit": f"at most {limit}",
            "measured": system(vocab_size, 1, OURS).get("us_per_token"),
        }
        for vocab_size, limit in ((1024, 5), (8192, 7))
    ]
    for vocab_size in (1024, 8192):
        bars += [
            {
                "bar": f"batch 1, V = {vocab_size}, times as fast as an ONNX Runtime call per step",
                "limit": "at least 20",
                "measured": ratio(vocab_size, 1, "onnx-asr, a call per step", OURS),
            },
            {
                "bar": f"batch 128, V = {vocab_size}, times real time",
                "limit": "at least 400,000",
                "measured": system(vocab_size, 128, OURS).get("times_real_time"),
            },
            {
                "bar": f"batch 1, V = {vocab_size}, beam 4 in units of greedy",
                "limit": "at most 3",
                "measured": ratio(vocab_size, 1, f"{OURS}, beam 4", OURS),
            },
        ]
    speeds = {label: figures["times_real_time"] for label, figures in files.items() if "times_real_time" in figures}
    return bars + [
        {
            "bar": "from files to text, the best batch, times real time",
            "limit": "at least 12,500",
            "measured": max(speeds.values(), default=None),
        },
        {
            "bar": "from files to text, one recording at a time, times real time",
            "limit": "at least 1,000",
            "measured": speeds.get("float16, one at a time"),
        },
    ]
