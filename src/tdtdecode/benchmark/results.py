"""What was measured, in the forms that people and programs read: tables, CSV, and charts in files."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..outputs import new_file
from ..traces import PHASES
from .charts import speed_chart
from .html import page
from .png import figure_class, png

PLOTS = (".png", ".html")
"""The endings of files that charts are written to."""

_FIGURES = (
    "tokens", "us_per_token", "times_real_time", "median", "min", "p10", "p90", "max", "bytes_per_token",
    "stream_bandwidth", "floor_us_per_token", "floor_fraction", "differing_tokens", "compared_tokens",
)  # fmt: skip
_ABOUT = ("date", "processor", "cores", "python", "model", "encoder_out", "frames")


def as_csv(result: dict[str, Any]) -> str:
    """The measurements of `tdtdecode bench` as CSV, one in a row, each with all that is known about the machine.

    Columns without a value are empty. The columns ``share_...`` have the profile.
    """
    versions = {f"version_{name}": version for name, version in result["versions"].items()}
    shares = [f"share_{phase}" for phase in PHASES]
    columns = ["decoder", "search", "batch", "threads", "kernels", *_FIGURES, *shares, *_ABOUT, *versions]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for entry in result["measurements"]:
        phases = entry.get("profile", {}).get("phases", {})
        own = {f"share_{phase}": figures["share"] for phase, figures in phases.items()}
        writer.writerow({name: result[name] for name in _ABOUT} | versions | entry | own)
    return text.getvalue()


def check_plot(file: Path) -> None:
    """Raise an InputError or a MissingDependencyError if charts cannot be written to such a file."""
    if file.suffix.lower() not in PLOTS:
        raise InputError(f"--plot {file}: the name must end in {' or '.join(PLOTS)}")
    if file.suffix.lower() == ".png":
        figure_class()


def write_plot(result: dict[str, Any], file: Path) -> None:
    """Write the chart of what `tdtdecode bench` measured, to a PNG or to a page that also has all figures.

    Raises
    ------
    InputError
        If no decoder emitted tokens, so that there is nothing to draw, or the file cannot be written.
    """
    if not any("us_per_token" in entry for entry in result["measurements"]):
        raise InputError(f"--plot {file}: no decoder emitted a token, so there is nothing to draw")
    chart = speed_chart(result)
    if file.suffix.lower() == ".png":
        drawn = png(chart)
    else:
        facts = {name: result[name] for name in ("model", "date", "processor", "cores", "python")}
        drawn = page(chart, [_figures(result), *_profiles(result)], facts | result["versions"]).encode()
    with new_file(file) as out:
        out.write(drawn)


def profile_rows(entry: dict[str, Any]) -> list[list[str]]:
    """A profile in words: for each phase its name, share, microseconds per token and microseconds per pass."""
    return [
        [name, f"{figures['share']:.1%}", f"{figures['us_per_token']:.2f}", f"{figures['us_per_pass']:.2f}"]
        for name, figures in entry["profile"]["phases"].items()
    ]


PROFILE_COLUMNS = ["phase", "share", "us per token", "us per pass"]


def _figures(result: dict[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    columns = [
        "decoder", "search", "batch", "threads", "kernels", "tokens", "us per token", "10th to 90th percentile",
        "times real time", "share of what memory allows", "tokens that differ on speech",
    ]  # fmt: skip
    rows = []
    for entry in result["measurements"]:
        tokens, speech = entry["tokens"], ""
        if "compared_tokens" in entry:
            speech = f"{entry['differing_tokens']} of {entry['compared_tokens']}"
        per_token = [f"{entry[name] / tokens * 1e6:.1f}" if tokens else "" for name in ("median", "p10", "p90")]
        rows.append([
            entry["decoder"], entry["search"], str(entry["batch"]), str(entry["threads"]), entry["kernels"],
            str(tokens), per_token[0], " to ".join(per_token[1:]), f"{entry['times_real_time']:.0f}",
            f"{entry['floor_fraction']:.0%}" if "floor_fraction" in entry else "", speech,
        ])  # fmt: skip
    return "All figures", columns, rows


def _profiles(result: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    return [
        (
            f"Where the time goes: {entry['decoder']}, {entry['search']}, batch {entry['batch']}, "
            f"{entry['threads']} threads",
            PROFILE_COLUMNS, profile_rows(entry),
        )
        for entry in result["measurements"]
        if "profile" in entry
    ]  # fmt: skip
