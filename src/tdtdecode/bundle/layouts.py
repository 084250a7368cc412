"""What the readers of all layouts share: finding the files of a variant, and reading numbers from configurations."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..arguments import MAX_DURATION, refusal
from ..errors import NOTICE, BundleError
from .description import ChosenFiles, Stated
from .files import find_file

_VARIANT = re.compile(r"\w[\w-]*(\.\w[\w-]*)*")
_PRECISION = re.compile(r"(u?int|[bn]?fp?|b?float|[wqa])\d\w*|quant\w*|q|half|static|dynamic", re.IGNORECASE)
"""What a suffix begins with that follows a hyphen or an underscore, which are parts of names as well."""

_MODELS = (".onnx", ".ort", ".nemo", ".safetensors", ".gguf", ".ggml", ".pt", ".pth", ".ckpt")
_BESIDE_MODELS = (".txt", ".json", ".model", ".data", ".vocab", ".yaml")
"""Suffixes of models of all kinds, and of what stands beside an ONNX model."""

_log = logging.getLogger(__name__)


def check_variant(variant: object) -> None:
    """Raise an `InputError` if `variant` is neither None nor a suffix of file names."""
    if variant is not None and (not isinstance(variant, str) or not _VARIANT.fullmatch(variant)):
        raise refusal("variant", "a suffix of file names such as 'int8', or None", variant)


def variants_of(directory: Path, name: str, variant: str | None) -> dict[str | None, str]:
    """The variants of a graph file that exist, by suffix; None is the key of the file called `name`, the first.

    After a dot, a suffix may be anything: ``encoder.int8.onnx``, ``encoder.w4.fp16.onnx``, ``encoder.quantized.onnx``.
    After a hyphen or an underscore it is `variant`, or begins with a precision: ``encoder-int8.onnx``. The values are
    names of files, which may still be broken links.
    """
    try:
        names = [path.name for path in (directory / name).parent.iterdir()]
    except OSError:
        return {}
    folder = name[: name.rfind("/") + 1]
    return {suffix: folder + file for suffix, file in match_variants(names, Path(name).name, variant).items()}


def match_variants(names: Iterable[str], name: str, variant: str | None) -> dict[str | None, str]:
    """The variants of a graph file among the names of files in a folder, as for `variants_of`."""
    stem, _, extension = name.rpartition(".")
    names = sorted(names)
    found: dict[str | None, str] = {}
    for separator in ("", ".", "-", "_"):
        for given in names:
            middle = given.removeprefix(stem).removesuffix(f".{extension}")
            if f"{stem}{middle}.{extension}" != given or middle[:1] != separator:
                continue
            suffix = middle[1:]
            first = re.split(r"[._-]", suffix)[0]
            fits = separator in ("", ".") or suffix == variant or _PRECISION.fullmatch(first)
            if fits and (not separator or _VARIANT.fullmatch(suffix)):
                found.setdefault(suffix or None, given)
    return found


def base_name(name: str) -> str:
    """The name of a graph's file without a variant's suffix."""
    stem = name.removesuffix(".onnx").split(".")[0]
    parts = re.split(r"(?=[-_])", stem)
    ends = next((i for i, part in enumerate(parts) if i and _PRECISION.fullmatch(part[1:])), len(parts))
    return "".join(parts[:ends]) + ".onnx"


def choose_files(directory: Path, layout: str, graphs: Iterable[str], encoder: str, variant: str | None) -> ChosenFiles:
    """Choose the graph files of a variant.

    Without a variant, each graph's file without a suffix is taken. Where there is none, its only file is taken, and the
    log says which. A variant that some graphs do not have, such as that of an encoder which alone was quantised, is
    completed by files without a suffix.

    Parameters
    ----------
    graphs, encoder:
        The names of the files without a suffix: of predictor and joint, or the combined graph; and of the encoder.
    variant:
        The suffix asked for, or None.

    Raises
    ------
    BundleError
        If a graph is missing, or it is not clear which of its files to take. The message names those that exist.
    """
    graphs = tuple(graphs)
    found = {name: variants_of(directory, name, variant) for name in (*graphs, encoder)}
    everywhere = [suffix for suffix in found[graphs[0]] if all(suffix in found[name] for name in graphs)]
    chosen: dict[str, str | None] = {}
    for name, files in found.items():
        if variant in files:
            chosen[name] = variant
        elif variant is not None and None in files and any(variant in others for others in found.values()):
            chosen[name] = None
        elif variant is None and (len(files) == 1 or (len(everywhere) == 1 and everywhere[0] in files)):
            chosen[name] = next(iter(files)) if len(files) == 1 else everywhere[0]
        elif files or name != encoder:
            wanted = name if variant is None else f"{name.removesuffix('.onnx')}.{variant}.onnx"
            why = f"which the {layout!r} layout needs for variant {variant!r}"
            raise BundleError(f"no {wanted!r}, {why}; {_advice(directory, files)}", file=directory)
    paths = {name: find_file(directory, found[name][suffix]) for name, suffix in chosen.items()}
    taken = [found[name][suffix] for name, suffix in chosen.items() if suffix != variant]
    if taken:
        why = "the only variant there is" if variant is None else f"because they have no variant {variant!r}"
        _log.log(NOTICE, "model files: %s, %s (%s)", ", ".join(taken), why, directory)
    suffixes = {chosen[name] for name in graphs}
    files_of = tuple(path for name in graphs if (path := paths[name]) is not None)
    own = variant if variant is not None else suffixes.pop() if len(suffixes) == 1 else None
    return ChosenFiles(own, files_of, paths.get(encoder))


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
        f"no token file: looked for {' and '.join(names)}; found {listing(directory)}", file=directory
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


def _advice(directory: Path, found: dict[str | None, str]) -> str:
    if found:
        listed = ", ".join(f"{name} (variant {key!r})" for key, name in found.items())
        return f"there is {listed}: choose a variant that is there (variant=, or --variant on the command line)"
    layouts = {"combined": "decoder_joint-model", "split": "joiner", "genai": "genai_config"}
    names = [path.name for path in directory.iterdir()]
    others = [layout for layout, stem in layouts.items() if any(name.startswith(stem) for name in names)]
    hint = f"; the files look like layout {others[0]!r}" if others else ""
    return f"found {listing(directory)}{hint}"


def listing(directory: Path) -> str:
    """The names of files in a directory that could belong to a model, for messages; of others, people know more."""
    names = sorted(path.name for path in directory.iterdir())
    models = [name for name in names if name.lower().endswith(_MODELS)]
    if any(name.endswith(".onnx") for name in models):
        models = [name for name in names if name.lower().endswith(_MODELS + _BESIDE_MODELS)]
    shown = ", ".join(models[:12]) + (f" and {len(models) - 12} more" if len(models) > 12 else "")
    return shown or ("no file of a model" if names else "an empty directory")
