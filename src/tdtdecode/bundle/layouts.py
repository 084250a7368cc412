"""What the readers of all layouts share: finding the files of a variant, and reading numbers from configurations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..arguments import MAX_DURATION, refusal
from ..errors import BundleError
from .description import Stated
from .files import find_file

VARIANTS = ("int8", "fp16", "fp32", "int4", "quant", "q4", "q8")
"""Known suffixes of graph files. When files of the wanted variant are missing, the error names those that exist."""

_SEPARATORS = ".-_"


def check_variant(variant: object) -> None:
    """Raise an `InputError` if `variant` is neither None nor a suffix of file names."""
    if variant is not None and (not isinstance(variant, str) or not re.fullmatch(r"[\w-]+", variant)):
        raise refusal("variant", "a suffix of file names such as 'int8', or None", variant)


def variants_of(directory: Path, name: str, variant: str | None) -> dict[str | None, Path]:
    """The variants of a graph file that exist.

    The key is None for the file called `name`, else the suffix (`VARIANTS` or `variant`) of a file such as
    ``stem.int8.onnx``, ``stem-int8.onnx`` or ``stem_int8.onnx``.
    """
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
    """The graph files of one variant, in the order of `names`.

    Raises
    ------
    BundleError
        If one is missing. The message names the missing file, the variants that exist and other files.
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
    """The first of the named token files that exists.

    Raises
    ------
    BundleError
        If none of them exists.
    """
    names = tuple(names)
    for name in names:
        file = find_file(directory, name)
        if file is not None:
            return file
    raise BundleError(
        f"no token file: looked for {' and '.join(names)}; found {_listing(directory)}", file=directory
    )


def stated_count(data: dict[str, Any], file: Path, field: str, *, low: int = 1) -> Stated[int] | None:
    """A whole number from a configuration, or from metadata, whose numbers are text; None if it is absent.

    Raises
    ------
    BundleError
        If the value is not a whole number, or not between `low` and 2**31 - 1.
    """
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
    """A duration table, checked.

    Raises
    ------
    BundleError
        If the value is not a list of frame counts.
    """
    if not isinstance(value, list) or any(
        not isinstance(d, int) or isinstance(d, bool) or not 0 <= d <= MAX_DURATION for d in value
    ):
        raise BundleError(f"expected a list of frame counts, got {value!r:.60}", file=file, field=field)
    return Stated(tuple(value), file, field)


def parse_numbers(text: str) -> list[int | str]:
    """Parse a comma-separated list of whole numbers, as metadata has it. An entry that is not a number stays text."""
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
