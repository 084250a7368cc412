"""Reading a model directory: `read_bundle`, the entry point for all layouts."""

from __future__ import annotations

import copyreg
import os
from collections.abc import Iterable
from pathlib import Path

from ..arguments import as_choice, as_durations
from ..errors import BundleError, InputError
from ..transducer import TransducerSpec, as_big_blanks
from . import combined, genai, split
from .big_blanks import check_big_blanks, known_big_blanks
from .blank import find_blank, named_blanks
from .context import CONTEXT_SIZE, Predictor, with_state
from .cut import CannotSplit, Cut, encoder_input
from .description import Bundle, BundleFiles, Stated
from .encoder import EncoderFacts, read_encoder
from .files import find_file, open_directory
from .layouts import check_variant, listing
from .names import COMBINED_NAMES, SPLIT, combined_names, split_names, told_by_ports
from .onnx_files.dependencies import import_onnx, import_onnxruntime
from .onnx_files.embedding import find_embedding
from .onnx_files.graph import load_graph
from .ports import bind_combined, bind_joint, bind_predictor, encoder_step_shape, row_width, token_inputs
from .roles import decision_refused, gives_decisions
from .spaces import read_spaces
from .transducers import CombinedTransducer, SplitTransducer, width
from .vocabulary import Vocabulary

LAYOUTS = {"genai": genai.read, "split": split.read, "combined": combined.read}
"""The reader of each layout: (directory, variant) -> `BundleFiles`."""


def read_bundle(
    directory: str | os.PathLike[str],
    layout: str = "auto",
    variant: str | None = None,
    durations: Iterable[int] | None = None,
    big_blanks: Iterable[int] | None = None,
) -> Bundle:
    """Read and check a model directory. The encoder's weights are not loaded.

    Parameters
    ----------
    directory:
        The model directory. It may lack an encoder.
    layout:
        ``"split"``, ``"combined"``, ``"genai"``, or ``"auto"``: GenAI if there is a genai_config.json, else split
        if there are decoder.onnx and joiner.onnx, else combined.
    variant:
        Which files to use: ``"int8"`` for ``*.int8.onnx``, and so on. None: those without a suffix, else the only ones
        there are; the log (``tdtdecode``, level INFO) says which.
    durations:
        The duration table: frames by duration index. Default: the table that the directory states, else
        ``range(D)``, where the joint has D duration outputs.
    big_blanks:
        For multi-blank RNN-T, the frames of each big blank in NeMo's order, such as ``[2, 4, 8]``. Default: the
        ``big_blank_durations`` of ``config.json``, else none.

    Returns
    -------
    The files, the settings, and the predictor and joint graphs.

    Raises
    ------
    BundleError
        If something in the directory is missing or wrong. The message names the file and the field.
    InputError
        If an argument is wrong.
    MissingDependencyError
        If onnx or onnxruntime is not installed.
    """
    durations, big_blanks = checked_reading(layout, variant, durations, big_blanks)
    import_onnx()
    import_onnxruntime()
    root = open_directory(directory)
    if layout == "auto":
        layout = _layout(root, variant)
    files = LAYOUTS[layout](root, variant)
    taking = with_state(load_graph(files.chosen.graphs[0], root))
    facts = read_encoder(files.chosen.encoder, root, files, taking.context is not None)
    embedding = find_embedding(taking.graph, token_inputs(taking.graph).targets)
    many = known_big_blanks(root, big_blanks)
    if many and durations is None:
        durations = ()
    entries = _entries(root, files, facts, durations, many) if embedding is None else embedding.rows
    blank = find_blank(files.symbols, embedding, files.token_file, _stated_blank(files, taking), entries)
    vocabulary = Vocabulary(read_spaces(files.symbols, blank).pieces, blank)
    _check_count(files, facts)
    transducer = _transducer(root, taking, files.chosen.graphs, blank, facts.size)
    joint = transducer.joint if isinstance(transducer, SplitTransducer) else transducer
    row = width(joint.output_shape)
    if many:
        check_big_blanks(root, big_blanks, many, joint.graph.file, row - len(files.symbols) - len(durations or ()))
    spec = TransducerSpec(
        vocab_size=vocabulary.size,
        durations=_durations(files, facts, joint.graph.file, row - len(many), durations),
        blank=blank,
        encoder_size=width(joint.encoder_shape),
        max_symbols=None if taking.context is None else 1,
        big_blanks=many,
    )
    chosen, features = files.chosen, facts.features
    return Bundle(
        root, layout, chosen.variant, spec, vocabulary, chosen.encoder, features, transducer, facts.cache_aware,
        files.windows,
    )


def checked_reading(
    layout: object, variant: object, durations: object, big_blanks: object
) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """The durations and the big blanks, as tables.

    An InputError unless these can say how to read a directory, whatever is in it.
    """
    as_choice("layout", layout, ("auto", *LAYOUTS))
    check_variant(variant)
    return (
        None if durations is None else as_durations("durations", durations),
        None if big_blanks is None else as_big_blanks(big_blanks),
    )


def reread(bundle: Bundle) -> tuple[Path, str, str | None, tuple[int, ...], tuple[int, ...]]:
    """The arguments with which `read_bundle` reads a bundle again."""
    spec = bundle.spec
    return bundle.directory, bundle.layout, bundle.variant, tuple(spec.durations), tuple(spec.big_blanks)


copyreg.pickle(Bundle, lambda bundle: (read_bundle, reread(bundle)))


def _layout(root: Path, variant: str | None) -> str:
    if find_file(root, genai.CONFIGURATION) is not None:
        return "genai"
    if split_names(root, variant) is not None:
        return "split"
    if combined_names(root, variant) is not None:
        return "combined"
    told = told_by_ports(root)
    if told is not None:
        return told[0]
    raise BundleError(
        f"no model in it: expected {genai.CONFIGURATION}, or {' with '.join(SPLIT.graphs)}, or "
        f"{COMBINED_NAMES[0].graphs[0]}, in any variant; found {listing(root)}",
        file=root,
    )


def _stated_blank(files: BundleFiles, taking: Predictor) -> Stated[int] | None:
    """The blank's id in a configuration. Models of k2 have it first, which no file of theirs says."""
    if files.blank is None and taking.context is not None and not named_blanks(files.symbols):
        return Stated(0, taking.graph.file, CONTEXT_SIZE)
    return files.blank


def _transducer(
    root: Path, taking: Predictor, graphs: tuple[Path, ...], blank: int, encoder_size: int | None
) -> SplitTransducer | CombinedTransducer:
    graph = taking.graph
    if gives_decisions(graph):
        raise decision_refused(graph)
    if len(graphs) == 2:
        predictor = bind_predictor(graph, blank, taking.context)
        joint = bind_joint(load_graph(graphs[1], root), predictor, encoder_size)
        return SplitTransducer(predictor, joint)
    encoder = encoder_input(graph)
    encoder_step_shape(graph, encoder, encoder_size)
    try:
        cut = Cut(graph, encoder)
        predictor = bind_predictor(cut.predictor(), blank)
        return SplitTransducer(predictor, bind_joint(cut.joint(predictor), predictor, encoder_size))
    except CannotSplit as reason:
        return bind_combined(graph, encoder, blank, encoder_size, str(reason))


def _entries(
    root: Path, files: BundleFiles, facts: EncoderFacts, asked: tuple[int, ...] | None, big_blanks: tuple[int, ...]
) -> int | None:
    """V + 1 by the joint's width, less the durations and the big blanks that are known. None if the width is open."""
    row = row_width(load_graph(files.chosen.graphs[-1], root).outputs)
    stated = files.durations or facts.durations
    known = asked if asked is not None else () if stated is None else stated.value
    return None if row is None else row - len(known) - len(big_blanks)


def _check_count(files: BundleFiles, facts: EncoderFacts) -> None:
    """Check the token file's length against the encoder's metadata."""
    entries = len(files.symbols)
    stated = facts.vocab_size
    if stated is not None and stated.value != entries - 1:
        hint = "; it must not count the blank" if stated.value == entries else ""
        raise BundleError(
            f"{stated.value} contradicts {files.token_file.name}, which has {entries - 1} tokens and a blank{hint}",
            file=stated.file,
            field=stated.field,
        )


def _durations(
    files: BundleFiles, facts: EncoderFacts, joint: Path, row: int, asked: tuple[int, ...] | None
) -> tuple[int, ...]:
    """The duration table: `asked` if given, else the stated one, else ``range(D)``.

    Parameters
    ----------
    joint:
        The joint's file, for messages.
    row:
        V + 1 + D, the width of a joint row without big blanks.
    """
    entries = len(files.symbols)
    count = row - entries
    if count < 0:
        raise BundleError(
            f"its joint rows have {row} values, fewer than the {entries} entries of {files.token_file.name} "
            "(which count the blank): the files belong to different models",
            file=joint,
        )
    outputs = f"{joint.name} has {count} duration outputs ({row} outputs - {entries} tokens with blank)"
    if asked is not None:
        if len(asked) != count:
            raise InputError(f"durations has {len(asked)} entries, but {outputs}")
        return asked
    stated = [durations for durations in (files.durations, facts.durations) if durations is not None]
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
