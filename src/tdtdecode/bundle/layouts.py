"""What the readers of all layouts share: variants of files, and numbers stated in configurations."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import BundleError
from ..transducer import MAX_DURATION
from .description import Stated
from .files import find_file

VARIANTS = ("int8", "fp16", "fp32", "int4", "quant", "q4", "q8")
"""Suffixes looked for when files of a variant are missing, to name those that exist."""

_SEPARATORS = ".-_"


def variants_of(directory: Path, name: str, variant: str | None) -> dict[str | None, Path]:
    """The files of `name` by variant: unsuffixed (None), and ``stem.variant.onnx`` for known suffixes and `variant`."""
    stem, _, extension = name.rpartition(".")
    found: dict[str | None, Path] = {}
    plain = find_file(directory, name)
    if plain is not None:
        found[None] = plain
    for suffix in dict.fromkeys((*VARIANTS, *([variant] if variant else []))):
        for separator in _SEPARATORS:
            file = find_file(directory, f"{stem}{separator}{suffix}.{extension}")
            if file is not None:
                found.setdefault(suffix, file)
    return found


def require(directory: Path, layout: str, names: Iterable[str], variant: str | None) -> tuple[Path, ...]:
    """The graph files of a layout in one variant.

    Raises
    ------
    BundleError
        If one is missing: it names what was looked for, the variants that exist and what else is there.
    """
    files = []
    for name in names:
        found = variants_of(directory, name, variant)
        if variant not in found:
            wanted = name if variant is None else f"{name.removesuffix('.onnx')}.{variant}.onnx"
            raise BundleError(
                f"no {wanted!r}, which the {layout!r} layout needs for variant {variant!r}; "
                + _advice(directory, found),
                file=directory,
            )
        files.append(found[variant])
    return tuple(files)


def find_token_file(directory: Path, names: Iterable[str]) -> Path:
    """The first of the named token files that exists."""
    names = tuple(names)
    for name in names:
        file = find_file(directory, name)
        if file is not None:
            return file
    raise BundleError(
        f"no token file: looked for {' and '.join(names)}; found {_listing(directory)}", file=directory
    )


def stated_count(data: dict[str, Any], file: Path, field: str, *, low: int = 1) -> Stated[int] | None:
    """A whole number of a configuration or of metadata (where numbers are text); None if it is not there."""
    value = data.get(field)
    if value is None or value == "":
        return None
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if not isinstance(number, int) or isinstance(number, bool) or not low <= number < 1 << 31:
        raise BundleError(f"expected a whole number of at least {low}, got {value!r:.60}", file=file, field=field)
    return Stated(number, file, field)


def stated_durations(value: Any, file: Path, field: str) -> Stated[tuple[int, ...]]:
    """A list of durations."""
    if not isinstance(value, list) or any(
        not isinstance(d, int) or isinstance(d, bool) or not 0 <= d <= MAX_DURATION for d in value
    ):
        raise BundleError(f"expected a list of frame counts, got {value!r:.60}", file=file, field=field)
    return Stated(tuple(value), file, field)


def numbers_listed(text: str) -> list[int | str]:
    """Numbers with commas between them, as metadata have them; what is no number stays text."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return [int(part) if part.isdecimal() and len(part) < 10 else part for part in parts]


def _advice(directory: Path, found: dict[str | None, Path]) -> str:
    if found:
        listed = ", ".join(f"{path.name} (variant {key!r})" for key, path in found.items())
        return f"there is {listed}: choose that variant"
    layouts = {"combined": "decoder_joint-model", "split": "joiner", "genai": "genai_config"}
    names = [path.name for path in directory.iterdir()]
    others = [layout for layout, stem in layouts.items() if any(name.startswith(stem) for name in names)]
    hint = f"; the files look like layout {others[0]!r}" if others else ""
    return f"found {_listing(directory)}{hint}"


def _listing(directory: Path) -> str:
    names = sorted(path.name for path in directory.iterdir())
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return shown or "an empty directory"
