"""`convert`: writing a model directory in another layout, and checking the result."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..arguments import as_choice, as_path
from ..bundle import Bundle, read_bundle
from ..bundle.names import COMBINED_CONVENTIONS, combined_names
from ..bundle.reading import checked_reading, reread
from ..bundle.transducers import arithmetic
from ..errors import BundleError, InputError
from ..networks.agreement import deviation
from ..networks.ort import OrtNetwork
from ..outputs import new_directory
from .writing import check_layout, write_layout

_ROUNDING = {"float32": 1e-5, "float16": 3e-2, "bfloat16": 2e-1}
"""Largest deviation of joint rows (`networks.agreement.deviation`) after a conversion, by the graphs' arithmetic.

Rows differ by rounding, because a log-softmax is added or removed, and because ONNX Runtime computes narrow types in
float32 and decides itself where to round.
"""


def convert(
    directory: str | os.PathLike[str],
    out: str | os.PathLike[str],
    to: str,
    *,
    layout: str = "auto",
    variant: str | None = None,
    durations: Sequence[int] | None = None,
    big_blanks: Sequence[int] | None = None,
    names: str = "nemo",
) -> Bundle:
    """Write a model directory in another layout, and compare the result with the original on random input.

    Weights keep their bits. Weights in files of their own stay in files of their own. Float inputs and outputs become
    float32, which all systems use, and batch axes become dynamic. The model's settings are also written into the
    encoder's metadata. README and licence files are copied along.

    Parameters
    ----------
    directory:
        A model directory. Nothing in it is changed.
    out:
        A new folder for the result. It is complete, or, after an error, not there.
    to:
        The layout to write: ``"split"`` (for sherpa-onnx), ``"combined"`` (for onnx-asr and NeMo) or ``"genai"`` (for
        onnxruntime-genai).
    layout, variant, durations, big_blanks:
        As for `read_bundle`. The names of the new graphs keep the variant's suffix, except in the GenAI layout, which
        has only one set of files.
    names:
        What the combined layout calls its graphs: ``"nemo"``, encoder-model.onnx and decoder_joint-model.onnx;
        ``"parakeet-rs"``, encoder.onnx and decoder_joint.onnx; ``"soniqo"``, parakeet-encoder.onnx and
        parakeet-decoder-joint.onnx. Only the names differ.

    Returns
    -------
    The new directory, as `read_bundle` reads it.

    Raises
    ------
    BundleError
        If the directory cannot be used, or the layout cannot hold the model. The message says why.
    InputError
        If an argument is wrong, the directory already has that layout, or `out` exists and is not empty.
    MissingDependencyError
        If onnx or onnxruntime is not installed.
    """
    check_layout(to)
    wanted = COMBINED_CONVENTIONS[as_choice("names", names, COMBINED_CONVENTIONS)]
    if names != "nemo" and to != "combined":
        raise InputError(f"names={names!r} are names of the combined layout, and to={to!r} is another")
    durations, big_blanks = checked_reading(layout, variant, durations, big_blanks)
    as_path("out", out, "the path of a new folder")
    bundle = read_bundle(directory, layout, variant, durations, big_blanks)
    if bundle.layout == to and (to != "combined" or combined_names(bundle.directory, variant) == wanted):
        raise InputError(f"{bundle.directory} has layout {to!r} already; use `repair` to correct mistakes in it")
    # Writing changes the graphs in place, so the writer gets a bundle of its own.
    with new_directory(out) as folder:
        write_layout(read_bundle(*reread(bundle)), folder, to, wanted)
        written = read_bundle(folder, to, None if to == "genai" else bundle.variant)
        check_same(bundle, written)
    return read_bundle(out, to, written.variant)


def check_same(reference: Bundle, written: Bundle) -> None:
    """Check that a bundle has the settings of the one it was made from, and computes the same joint rows.

    Raises
    ------
    BundleError
        If the two differ by more than rounding.
    """
    for what, one, other in (
        ("vocabulary", _without_blank(reference), _without_blank(written)),
        ("joint row's layout", reference.spec, written.spec),
        ("features", reference.features, written.features),
    ):
        if one != other:
            raise BundleError(f"the conversion changed its {what}: please report this model", file=reference.directory)
    before, after = OrtNetwork(reference.transducer), OrtNetwork(written.transducer)
    assert reference.spec.encoder_size is not None
    found = deviation(before, after, reference.spec, reference.spec.encoder_size)
    if not found <= _ROUNDING[arithmetic(reference.transducer)]:
        raise BundleError(
            f"the conversion changed its joint rows (by {found:.2g}, more than rounding): please report this model",
            file=reference.directory,
        )


def _without_blank(bundle: Bundle) -> list[str]:
    """The pieces without the blank, whose name differs between systems."""
    pieces = list(bundle.vocabulary.pieces)
    del pieces[bundle.vocabulary.blank]
    return pieces
