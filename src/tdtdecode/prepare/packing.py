"""`pack`: a model, or a language model compiled for it, in one file that needs no ONNX and no Python to be read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..arguments import as_path
from ..bundle import read_bundle
from ..bundle.lifting import CannotLift
from ..bundle.packed import PackedModel, fingerprint, is_text, model_file, packed_file, read_packed
from ..bundle.reading import checked_reading
from ..errors import BundleError
from ..fusion.ngram import NgramLM
from ..networks.choice import lifted_weights
from ..outputs import new_file, refuse_overwriting


def pack(
    directory: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    layout: str = "auto",
    variant: str | None = None,
    durations: Sequence[int] | None = None,
    big_blanks: Sequence[int] | None = None,
) -> PackedModel:
    """Write predictor, joint, vocabulary, durations and the facts about the features to one file.

    The file is what `Decoder.from_bundle` and the C library (``tdtdecode.h``) open. It has no encoder. Weights are
    exact: they are stored in 16 bits only where these hold every number. Weights of quantised graphs are stored
    dequantised.

    Parameters
    ----------
    directory:
        A model directory. It may lack an encoder.
    out:
        The file to write, such as ``model.tdt``.
    layout, variant, durations, big_blanks:
        As for `tdtdecode.bundle.read_bundle`.

    Returns
    -------
    The file, as `tdtdecode.bundle.packed.read_packed` reads it.

    Raises
    ------
    BundleError
        If the directory cannot be used, or its weights cannot be taken out of the graphs.
    InputError
        If an argument is wrong, or the file cannot be written.
    """
    durations, big_blanks = checked_reading(layout, variant, durations, big_blanks)
    path = as_path("out", out, "the path of a file to write")
    bundle = read_bundle(directory, layout, variant, durations, big_blanks)
    for token, piece in enumerate(bundle.vocabulary.pieces):
        if not is_text(piece):
            raise BundleError(f"cannot be packed: token {token} is {piece!r}, which is no text", file=bundle.directory)
    try:
        weights = lifted_weights(bundle)
    except CannotLift as error:
        raise BundleError(f"cannot be packed: {error}", file=bundle.directory) from None
    refuse_overwriting([path], [bundle.directory])
    with new_file(path) as file:
        for part in model_file(weights, bundle.spec, bundle.vocabulary, bundle.features):
            file.write(part)
    return read_packed(path)


def pack_ngram(
    model: str | os.PathLike[str],
    arpa: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    units: str = "pieces",
    layout: str = "auto",
    variant: str | None = None,
    durations: Sequence[int] | None = None,
    big_blanks: Sequence[int] | None = None,
) -> Path:
    """Compile an n-gram language model for a model's vocabulary, and write it to a file for the C library.

    Parameters
    ----------
    model:
        A model directory, or a file that `pack` wrote.
    arpa, units:
        As for `NgramLM.from_arpa`.
    out:
        The file to write, such as ``lm.tdt``.
    layout, variant, durations, big_blanks:
        As for `pack`.

    Raises
    ------
    BundleError, InputError
        If the model or the language model cannot be used, they do not fit each other, or the file cannot be written.
    """
    as_path("model", model, "the path of a model directory, or of a file that `pack` wrote")
    as_path("arpa", arpa, "the path of an ARPA file")
    path = as_path("out", out, "the path of a file to write")
    language_model = NgramLM.from_arpa(arpa, units=units)
    if os.path.isfile(model):
        vocabulary = read_packed(model).vocabulary
    else:
        durations, big_blanks = checked_reading(layout, variant, durations, big_blanks)
        vocabulary = read_bundle(model, layout, variant, durations, big_blanks).vocabulary
    automaton = language_model.automaton(vocabulary.size, vocabulary.blank, vocabulary.pieces)
    tensors = {name: array for name, array in vars(automaton).items() if name != "start"}
    metadata = {"kind": "ngram", "vocabulary": fingerprint(vocabulary.pieces), "start": str(int(automaton.start[0]))}
    refuse_overwriting([path], [Path(model), language_model.path])
    with new_file(path) as file:
        for part in packed_file(metadata, tensors):
            file.write(part)
    return path
