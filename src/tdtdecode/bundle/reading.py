"""Reading a model directory: one entry point for all layouts."""

from __future__ import annotations

import copyreg
import os
import re
from collections.abc import Iterable
from pathlib import Path

from ..errors import BundleError, InputError
from ..transducer import TransducerSpec
from . import combined, genai, split
from .cut import CannotSplit, Cut, encoder_input
from .description import Bundle, Found
from .encoder import EncoderFacts, read_encoder
from .files import find_file, open_directory
from .layouts import variants_of
from .onnx_files.dependencies import import_onnx, import_onnxruntime
from .onnx_files.embedding import embedding_rows
from .onnx_files.graph import load_graph
from .ports import bind_combined, bind_joint, bind_predictor, encoder_step_shape
from .transducers import CombinedTransducer, SplitTransducer, width
from .vocabulary import Vocabulary

LAYOUTS = {"genai": genai.read, "split": split.read, "combined": combined.read}
"""Readers by layout."""


def read_bundle(
    directory: str | os.PathLike[str],
    layout: str = "auto",
    variant: str | None = None,
    durations: Iterable[int] | None = None,
) -> Bundle:
    """Read and check a model directory; no weights of the encoder are loaded.

    Parameters
    ----------
    directory:
        Where the files are. An encoder may be missing.
    layout:
        ``"split"``, ``"combined"``, ``"genai"``, or ``"auto"``: GenAI if there is a genai_config.json, else split
        if there are a decoder and a joiner, else combined.
    variant:
        Which files to use: None for those without a suffix, ``"int8"`` for ``*.int8.onnx``, and so on.
    durations:
        The frame counts by index. Default: what the bundle states, else 0, 1, 2 ... as many as the joint has.

    Raises
    ------
    BundleError
        If something is missing or wrong, naming the file and the field.
    InputError
        If an argument is wrong.
    MissingDependencyError
        If onnx or onnxruntime is not installed.
    """
    import_onnx()
    import_onnxruntime()
    root = open_directory(directory)
    if variant is not None and (not isinstance(variant, str) or not re.fullmatch(r"[\w-]+", variant)):
        raise InputError(f"variant must be a suffix of file names such as 'int8', or None, got {variant!r}")
    if layout == "auto":
        layout = _layout(root, variant)
    if layout not in LAYOUTS:
        raise InputError(f"layout must be 'auto' or one of {', '.join(map(repr, LAYOUTS))}, got {layout!r}")
    found = LAYOUTS[layout](root, variant)
    encoder = found.encoders.get(variant)
    facts = read_encoder(encoder, root, found)
    transducer = _transducer(root, found, facts.size)
    _check_vocabulary(found, facts, transducer)
    output = transducer.joint if isinstance(transducer, SplitTransducer) else transducer
    spec = TransducerSpec(
        vocab_size=found.vocabulary.size,
        durations=_durations(found, facts, output.graph.file, width(output.output_shape), durations),
        blank=found.vocabulary.blank,
        encoder_size=width(output.encoder_shape),
    )
    return Bundle(root, layout, variant, spec, found.vocabulary, encoder, facts.features, transducer)


copyreg.pickle(
    Bundle, lambda bundle: (read_bundle, (bundle.directory, bundle.layout, bundle.variant, bundle.spec.durations))
)


def _layout(root: Path, variant: str | None) -> str:
    if find_file(root, genai.CONFIGURATION) is not None:
        return "genai"
    if all(variants_of(root, name, variant) for name in (split.PREDICTOR, split.JOINT)):
        return "split"
    if variants_of(root, combined.GRAPH, variant):
        return "combined"
    listed = ", ".join(sorted(path.name for path in root.iterdir())[:12]) or "nothing"
    raise BundleError(
        f"no model in it: looked for {genai.CONFIGURATION}, for {split.PREDICTOR} with {split.JOINT}, and for "
        f"{combined.GRAPH}, in any variant; found {listed}",
        file=root,
    )


def _transducer(root: Path, found: Found, encoder_size: int | None) -> SplitTransducer | CombinedTransducer:
    blank = found.vocabulary.blank
    graph = load_graph(found.graphs[0], root)
    if len(found.graphs) == 2:
        predictor = bind_predictor(graph, blank)
        joint = bind_joint(load_graph(found.graphs[1], root), predictor, encoder_size)
        return SplitTransducer(predictor, joint)
    encoder = encoder_input(graph)
    encoder_step_shape(graph, encoder, encoder_size)
    try:
        cut = Cut(graph, encoder)
        predictor = bind_predictor(cut.predictor(), blank)
        return SplitTransducer(predictor, bind_joint(cut.joint(predictor), predictor, encoder_size))
    except CannotSplit as reason:
        return bind_combined(graph, encoder, blank, encoder_size, str(reason))


def _check_vocabulary(found: Found, facts: EncoderFacts, transducer: SplitTransducer | CombinedTransducer) -> None:
    """The token file against the two other places that tell its length."""
    graph = transducer.predictor if isinstance(transducer, SplitTransducer) else transducer
    entries = len(found.vocabulary)
    rows = embedding_rows(graph.graph, graph.targets)
    if rows is not None and rows != entries:
        raise BundleError(
            f"has {entries} entries, but the embedding in {graph.graph.file.name} has {rows} rows: the file is "
            "incomplete or belongs to another model",
            file=found.token_file,
        )
    stated = facts.vocab_size
    if stated is not None and stated.value != entries - 1:
        hint = "; it must not count the blank" if stated.value == entries else ""
        raise BundleError(
            f"{stated.value} contradicts {found.token_file.name}, which has {entries - 1} tokens and a blank{hint}",
            file=stated.file,
            field=stated.field,
        )


def _durations(
    found: Found, facts: EncoderFacts, joint: Path, row: int, asked: Iterable[int] | None
) -> tuple[int, ...]:
    vocabulary: Vocabulary = found.vocabulary
    count = row - len(vocabulary)
    if count < 0:
        raise BundleError(
            f"its rows are {row} wide, fewer than the {len(vocabulary)} entries of {found.token_file.name} (blank "
            "counted): the files belong to different models",
            file=joint,
        )
    outputs = f"{joint.name} has {count} duration outputs ({row} - {len(vocabulary)} tokens with blank)"
    if asked is not None:
        try:
            asked = tuple(asked)
        except TypeError:
            raise InputError(f"durations must be a sequence of frame counts, got {asked!r}") from None
        if len(asked) != count:
            raise InputError(f"durations has {len(asked)} entries, but {outputs}")
        return asked
    stated = [durations for durations in (found.durations, facts.durations) if durations is not None]
    for durations in stated:
        if len(durations.value) != count:
            raise BundleError(
                f"has {len(durations.value)} entries, but {outputs}", file=durations.file, field=durations.field
            )
        if durations.value != stated[0].value:
            raise BundleError(
                f"{list(durations.value)} contradicts {stated[0]}; correct the one that is wrong", file=durations.file,
                field=durations.field,
            )
    return stated[0].value if stated else tuple(range(count))
