"""Model directories from one layout to another, checked."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..bundle import Bundle, read_bundle
from ..bundle.transducers import arithmetic
from ..errors import BundleError, InputError
from ..networks.agreement import deviation
from ..networks.ort import OrtNetwork
from ..outputs import new_directory
from .writing import WRITERS, write_layout

_ROUNDING = {"float32": 1e-5, "float16": 3e-2, "bfloat16": 2e-1}
"""Largest deviation of a conversion's rows, by its arithmetic: a log-softmax comes or goes, and ONNX Runtime computes
narrow types in float32, rounded where it sees fit."""


def convert(
    directory: str | os.PathLike[str],
    out: str | os.PathLike[str],
    to: str,
    layout: str = "auto",
    variant: str | None = None,
    durations: Sequence[int] | None = None,
) -> Bundle:
    """Write a model directory in another layout, and check the result against it on random input.

    Weights keep their bits, and lie in files of their own where they did. Float ports become float32, which all systems
    hand in, and batch axes dynamic. What is known of the model is written into the encoder's metadata, too. README and
    licence files go along.

    Parameters
    ----------
    directory:
        A model directory. Nothing in it is changed.
    out:
        A new folder; it is there when all is done, or not at all.
    to:
        ``"split"`` (sherpa-onnx), ``"combined"`` (onnx-asr, NeMo) or ``"genai"`` (onnxruntime-genai).
    layout, variant, durations:
        As for `read_bundle`. The variant's suffix stays in the names, but for GenAI directories: they have one set of
        files.

    Returns
    -------
    What was written, as `read_bundle` reads it.

    Raises
    ------
    BundleError
        If the directory cannot be used, or the model does not go into that layout; the message says why.
    InputError
        If an argument is wrong, the directory has that layout already, or `out` exists and is not empty.
    """
    if to not in WRITERS:
        raise InputError(f"to must be one of {', '.join(map(repr, WRITERS))}, got {to!r}")
    bundle = read_bundle(directory, layout, variant, durations)
    if bundle.layout == to:
        raise InputError(f"{bundle.directory} has layout {to!r} already; what is wrong in it, `repair` mends")
    # What is written is taken from graphs that are changed on the way: the reference is read on its own.
    with new_directory(out) as folder:
        write_layout(read_bundle(directory, layout, variant, durations), folder, to)
        written = read_bundle(folder, to, None if to == "genai" else variant)
        check_same(bundle, written)
    return read_bundle(out, to, written.variant)


def check_same(reference: Bundle, written: Bundle) -> None:
    """Compare a bundle with what it was made from: the same model, and the same rows on random input.

    Raises
    ------
    BundleError
        If they differ.
    """
    for what, one, other in (
        ("vocabulary", _named(reference), _named(written)),
        ("row", reference.spec, written.spec),
        ("features", reference.features, written.features),
    ):
        if one != other:
            raise BundleError(f"its {what} became another: please report this model", file=reference.directory)
    before, after = OrtNetwork(reference.transducer), OrtNetwork(written.transducer)
    assert reference.spec.encoder_size is not None
    found = deviation(before, after, reference.spec, reference.spec.encoder_size)
    if not found <= _ROUNDING[arithmetic(reference.transducer)]:
        raise BundleError(
            f"gives other rows once converted (deviation {found:.2g}): please report this model",
            file=reference.directory,
        )


def _named(bundle: Bundle) -> list[str]:
    """The pieces; systems differ in what they call the blank."""
    pieces = list(bundle.vocabulary.pieces)
    del pieces[bundle.vocabulary.blank]
    return pieces
