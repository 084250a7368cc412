"""What can be wrong with a model directory: one function for each kind of mistake, which yields the problems."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...bundle.description import Bundle
from ...bundle.layouts import listing, parse_numbers
from ...bundle.lifting import CannotLift, lift
from ...bundle.onnx_files.graph import Graph
from ...bundle.transducers import SplitTransducer, arithmetic
from .evidence import COMBINED, ENCODER, GRAPH_NAMES, JOINT, PREDICTOR, TOKEN_FILES, Evidence
from .model_families import argmax_inside, multi_blank
from .report import REPAIR as _REPAIR
from .report import Problem
from .streaming import streaming_encoder
from .systems import DEFAULT_MEL_BINS
from .token_forms import JSON, PAIRS, PIECES, SENTENCEPIECE, SWAPPED, SYMBOLS

GUESSED_DURATIONS = [0, 1, 2, 4, 8]
"""The table that early drafts of GenAI's support wrote for every model."""

STILL_READABLE = {"url", "predictor-size", "model-type", "durations-guessed", "int8-on-gpu", "not-finite", "spaces"}
"""Codes of problems that do not keep this package from reading a directory."""

_LARGEST_FLOAT16 = 65504.0


def no_model(evidence: Evidence) -> Iterator[Problem]:
    """Nothing that looks like a transducer."""
    if evidence.layout is None:
        yield Problem(
            "no-model", ".", "", f"no model, but {listing(evidence.root)}",
            "encoder.onnx, decoder.onnx and joiner.onnx (split), encoder-model.onnx and decoder_joint-model.onnx "
            "(combined), or genai_config.json with its graphs", "give the folder that contains the model's files",
        )  # fmt: skip


def missing_graphs(evidence: Evidence) -> Iterator[Problem]:
    """Predictor and joint that are missing, perhaps because the files of two layouts are mixed."""
    if evidence.layout is None or evidence.decision is not None:
        return
    names = {path.name for path in evidence.root.iterdir()}
    for role, expected in GRAPH_NAMES[evidence.layout].items():
        if role in evidence.files or role == ENCODER:
            continue
        others = {
            layout: name for layout, roles in GRAPH_NAMES.items() if layout != evidence.layout
            for other, name in roles.items() if name in names and (other == COMBINED) != (role == COMBINED)
        }  # fmt: skip
        wanted = expected if evidence.variant is None else f"{expected.removesuffix('.onnx')}.{evidence.variant}.onnx"
        if others:
            layout, other = next(iter(others.items()))
            yield Problem(
                "layout", other, "",
                f"{other}, but no {wanted}: files of the {layout} layout and of the {evidence.layout} layout are mixed",
                "the files of one layout: predictor and joint in two graphs (split, genai), or in one (combined)",
                f"put one layout's files into a folder and use `tdtdecode convert DIR --to {evidence.layout} -o OUT`",
            )  # fmt: skip
        else:
            yield Problem(
                "missing-graph", ".", wanted, f"no {wanted}", f"the {role} of a model in the {evidence.layout} layout",
                "download or export it, too",
            )  # fmt: skip


def misnamed_encoder(evidence: Evidence) -> Iterator[Problem]:
    """An encoder that has the name it would have in another layout."""
    if evidence.layout is None or ENCODER in evidence.files:
        return
    expected = GRAPH_NAMES[evidence.layout][ENCODER]
    for layout, roles in GRAPH_NAMES.items():
        if roles[ENCODER] != expected and (evidence.root / roles[ENCODER]).exists():
            yield Problem(
                "layout", roles[ENCODER], "", f"an encoder with its name in the {layout} layout",
                f"{expected}: the other files are in the {evidence.layout} layout", f"rename it: {_REPAIR}",
            )  # fmt: skip
            return


def ctc_head(evidence: Evidence) -> Iterator[Problem]:
    """A CTC model, or the CTC head of a hybrid model, instead of a transducer."""
    # NeMo exports a CTC model as model.onnx, a name that no layout has.
    alone = sorted(path.name for path in evidence.root.glob("model*.onnx")) if evidence.layout is None else []
    suspects = [
        graph.file.name for role, graph in evidence.graphs.items()
        if _gives_logprobs(graph) or (role != ENCODER and len(graph.inputs) == 1 and graph.inputs[0].is_float)
    ]  # fmt: skip
    for name in [*alone, *suspects]:
        yield Problem(
            "ctc-head", name, "",
            "a CTC model, which computes log-probabilities from audio or encoder frames without a predictor",
            "a transducer's predictor and joint, with V + 1 + D outputs (of a hybrid model, NeMo exports the selected "
            "head only)", "export the transducer head: `tdtdecode export MODEL.nemo`, or in NeMo "
            "model.set_export_config({'decoder_type': 'rnnt'})",
        )  # fmt: skip


def _gives_logprobs(graph: Graph) -> bool:
    names = {port.name for port in graph.outputs}
    return "logprobs" in names or (len(names) == 1 and len(graph.inputs) == 2 and _takes_audio(graph))


def _takes_audio(graph: Graph) -> bool:
    kinds = sorted((port.rank, port.is_float) for port in graph.inputs)
    return kinds == [(1, False), (3, True)]


def token_file(evidence: Evidence) -> Iterator[Problem]:
    """A token file that is missing, has a wrong form, wrong ids or a wrong length, or no blank in its place."""
    if evidence.layout is None:
        return
    table = evidence.tokens
    wanted = TOKEN_FILES[evidence.layout][0]
    if table is None:
        if not any(problem.code == "tokens-form" for problem in evidence.problems):
            yield Problem(
                "tokens-missing", ".", wanted, f"no {wanted}", "a file with the pieces by id, to turn tokens into text",
                f"{_REPAIR} writes it if there is another token file, tokenizer.json, vocab.json or tokenizer.model; "
                "`tdtdecode export` writes it from the .nemo file",
            )  # fmt: skip
        return
    name, entries = table.file.name, len(table.entries)
    accepted = {SYMBOLS, SENTENCEPIECE, JSON if name.endswith(".json") else SYMBOLS}
    if evidence.layout != "genai" and table.form not in accepted:
        yield Problem("tokens-form", name, "", *_FORMS[table.form])
    elif table.irregular:
        yield Problem(
            "tokens-form", name, f"line {table.irregular[0]}",
            f"{len(table.irregular)} lines without a symbol and an id", "'symbol id' in every line", _REPAIR,
        )  # fmt: skip
    elif not table.regular_ids:
        ids = table.ids
        what = "ids begin at 1" if sorted(ids) == list(range(1, entries + 1)) else (
            "ids repeat" if len(set(ids)) < entries else "ids have gaps")  # fmt: skip
        yield Problem(
            "tokens-ids", name, "", f"{what}: {entries} lines, ids {min(ids, default=0)} to {max(ids, default=0)}",
            f"each id from 0 to {entries - 1} once: an id is the index of a joint output",
            f"{_REPAIR} numbers the lines if there are as many as the model has tokens",
        )  # fmt: skip
    yield from _blank(evidence, name, entries)
    embedding = evidence.embedding
    without = evidence.layout == "genai" or not table.blanks
    if embedding is not None and entries != embedding.rows and not (without and entries == embedding.rows - 1):
        yield Problem(
            "tokens-count", name, "", f"{entries} entries",
            f"{embedding.rows} with the blank, as many as the embedding in {_name(evidence.decoder)} has rows",
            "use the token file of this model: this one is incomplete, or belongs to another model"
            if entries < embedding.rows else "remove what the model does not have, such as special tokens of a tool",
        )  # fmt: skip


_FORMS = {
    SWAPPED: ("'id symbol' in each line", "'symbol id', the symbol first", _REPAIR),
    PAIRS: (
        "pairs of piece and score in place of symbols: written from a tokenizer whose vocabulary is a list of pairs",
        "'symbol id', where the symbol is only the piece", _REPAIR,
    ),
    PIECES: ("pieces without ids", "'symbol id' in each line: only GenAI's vocab.txt has no ids", _REPAIR),
    JSON: ("JSON, a list or a map, in place of lines", "'symbol id' in each line", _REPAIR),
}  # fmt: skip
"""What was found, what was expected and the remedy, for each wrong form of a token file."""


def _blank(evidence: Evidence, name: str, entries: int) -> Iterator[Problem]:
    """A blank that is missing, or at another place than the graph has it, or there twice."""
    table, embedding = evidence.tokens, evidence.embedding
    assert table is not None
    blanks = table.blanks
    zero = None if embedding is None or embedding.rows != entries else embedding.zero_row
    if evidence.layout == "genai":
        stated = evidence.model.get("blank_id")
        if isinstance(stated, int) and embedding is not None and embedding.zero_row not in (None, stated):
            yield Problem(
                "blank-place", evidence.configuration_name, "model.blank_id", f"{stated}",
                f"{embedding.zero_row}, the row of zeros of the embedding in {embedding.file.name}, where NeMo's "
                "models have the blank", _REPAIR,
            )  # fmt: skip
        return
    if not blanks and table.form == SYMBOLS and (embedding is None or embedding.rows == entries + 1):
        yield Problem(
            "blank-missing", name, "", f"no <blk> among {entries} entries",
            f"<blk> with id {entries} in the last line: the joint has an output for it", f"{_REPAIR} appends it",
        )  # fmt: skip
    elif len(blanks) > 1:
        several = f"several blanks, with ids {blanks}"
        yield Problem("blank-place", name, "", several, "one blank", "remove the wrong ones")
    elif blanks and table.regular_ids and zero not in (None, blanks[0]):
        assert embedding is not None
        yield Problem(
            "blank-place", name, "", f"the blank has id {blanks[0]} of {entries} entries",
            f"id {zero}, the row of zeros of the embedding in {embedding.file.name}, which NeMo's models have for the "
            "blank: with another id the ids between are shifted by one, and the text is wrong",
            f"{_REPAIR} moves it, where the other symbols are in the right order",
        )  # fmt: skip
    elif blanks and table.regular_ids and zero is None and blanks[0] not in (0, entries - 1):
        yield Problem(
            "blank-place", name, "", f"the blank has id {blanks[0]} of {entries} entries",
            f"the last id, {entries - 1}, as in NeMo's models, or 0: otherwise sherpa-onnx stops with '<blk> is not "
            "the last token!'", "find out which of the joint's outputs is the blank: the ids are probably shifted",
        )  # fmt: skip


def spaces(evidence: Evidence) -> Iterator[Problem]:
    """A vocabulary in which no piece writes the space, or of which it is not clear how it does."""
    if evidence.tokens is None or evidence.embedding_rows not in (None, len(evidence.tokens.entries)):
        return
    if evidence.spaces is not None and evidence.spaces.problem:
        yield Problem(
            "spaces", evidence.tokens.file.name, "", evidence.spaces.problem,
            "'\u2581' where a word begins, as SentencePiece writes it",
            "write the file again from the model's tokenizer, with its own mark of the space",
        )  # fmt: skip


def vocabulary_size(evidence: Evidence) -> Iterator[Problem]:
    """A stated number of tokens that is wrong: it counts the blank where it must not, or is of another model."""
    known = evidence.entries
    if known is None:
        return
    source = "the embedding" if evidence.embedding_rows is not None else "the token file"
    if "vocab_size" in evidence.metadata:
        yield from _stated_size(
            evidence, evidence.metadata["vocab_size"], _name(evidence.graphs[ENCODER]), "vocab_size", known - 1, source,
            "not counting the blank. sherpa-onnx adds 1 for the blank: given a number that counts it, it rejects a "
            "correct token file with '<blk> is not the last token!' and assumes one duration too few",
        )  # fmt: skip
    section, counted = (evidence.model, known) if evidence.layout == "genai" else (evidence.configuration, known - 1)
    prefix = "model." if evidence.layout == "genai" else ""
    if "vocab_size" in section:
        yield from _stated_size(
            evidence, section["vocab_size"], evidence.configuration_name, f"{prefix}vocab_size", counted, source,
            "counting the blank: it tells where in a joint row the durations begin" if prefix
            else "not counting the blank",
        )  # fmt: skip


def _stated_size(
    evidence: Evidence, stated: Any, file: str, name: str, expected: int, source: str, why: str
) -> Iterator[Problem]:
    if str(stated) == str(expected):
        return
    what = {str(expected + 1): "which counts the blank", str(expected - 1): "which does not count the blank"}
    found = f"{stated}, {what.get(str(stated), 'which fits no file in the directory')}"
    code = "vocab-size" if str(stated) in what else "vocab-size-unknown"
    yield Problem(code, file, name, found, f"{expected} (from {source}), {why}", _REPAIR)


def durations(evidence: Evidence) -> Iterator[Problem]:
    """A duration table that is missing, guessed, contradicted, or does not fit the joint row."""
    count = evidence.durations
    stated: list[tuple[str, str, Any]] = []
    if evidence.layout == "genai":
        stated.append((evidence.configuration_name, "model.tdt_durations", evidence.model.get("tdt_durations")))
    elif "tdt_durations" in evidence.configuration:
        stated.append((evidence.configuration_name, "tdt_durations", evidence.configuration["tdt_durations"]))
    second = evidence.metadata.get("tdt_durations")
    if second is not None:
        stated.append((_name(evidence.graphs[ENCODER]), "tdt_durations", parse_numbers(second)))
    if count is not None and count < 0:
        yield Problem(
            "row-width", _name(evidence.joint), "", f"joint rows of {evidence.row_width} values",
            f"at least {evidence.entries} values, one for each token and the blank",
            "use the joint and the token file of the same model",
        )  # fmt: skip
        return
    for file, name, value in stated:
        if value is None and count == 0 and evidence.streaming:
            continue
        if value is None:
            yield Problem(
                "durations-missing", file, name, "no table", "the number of frames for each duration output; "
                "Parakeet models have [0, 1, 2, 3, 4]", f"{_REPAIR} --durations 0,1,2,3,4",
            )  # fmt: skip
        elif not isinstance(value, list) or (count is not None and len(value) != count):
            yield Problem(
                "durations-count", file, name, f"{value!r:.60}",
                f"{count} entries: the joint has {evidence.row_width} outputs, {evidence.entries} of them for tokens "
                "and blank", f"{_REPAIR} --durations with the model's own table",
            )  # fmt: skip
        elif value == GUESSED_DURATIONS and len(stated) == 1:  # if two places state it, it is no guess
            yield Problem(
                "durations-guessed", file, name, f"{value}, which early drafts of GenAI's support wrote for any model",
                "the table that the model was trained with, in Parakeet models [0, 1, 2, 3, 4]: a wrong one skips "
                "speech",
                f"look it up in the model's config (tdt_durations) and state it: {_REPAIR} --durations 0,1,2,3,4",
            )  # fmt: skip
        elif value != next(other for _, _, other in stated if other is not None):
            first = next(entry for entry in stated if entry[2] is not None)
            yield Problem(
                "durations-count", file, name, f"{value}", f"{first[2]}, as in {first[0]}",
                "correct the one that is wrong",
            )  # fmt: skip


def mel_bins(evidence: Evidence) -> Iterator[Problem]:
    """A stated number of mel bins that the encoder does not take, or none where one is needed."""
    port = evidence.audio_port
    if port is None:
        return
    encoder = _name(evidence.graphs[ENCODER])
    mel = evidence.mel_bins
    if evidence.fixed_time is not None and mel is None:
        yield Problem(
            "encoder-axes", encoder, port.name, str(port), "[batch, mel, time], with the mel bins on the second axis",
            "export the encoder with its axes in NeMo's order",
        )  # fmt: skip
        return
    if mel is None:
        return
    stated = [
        ("feat_dim", encoder, evidence.metadata.get("feat_dim")),
        ("features_size", evidence.configuration_name, evidence.configuration.get("features_size")),
        ("model.num_mels", evidence.configuration_name, evidence.model.get("num_mels")),
        ("audio_params.n_mels", "audio_processor_config.json", evidence.audio.get("n_mels")),
    ]
    for name, file, value in stated:
        if value is not None and str(value) != str(mel):
            yield Problem(
                "mel-bins", file, name, f"{value}", f"{mel}, {evidence.mel_place} in {encoder}: it takes features of "
                "no other width", _REPAIR,
            )  # fmt: skip
    where = {"split": ("feat_dim", encoder, evidence.metadata), "combined": (
        "features_size", evidence.configuration_name, evidence.configuration)}  # fmt: skip
    if evidence.streaming:  # what reads such models asks their encoder
        return
    if evidence.layout in where and mel != DEFAULT_MEL_BINS and "is_giga_am" not in evidence.metadata:
        name, file, section = where[evidence.layout]
        if name not in section:
            yield Problem(
                "mel-bins", file, name, "not stated, which means 80", f"{mel}, {evidence.mel_place} in {encoder}",
                _REPAIR,
            )  # fmt: skip


def predictor_sizes(evidence: Evidence) -> Iterator[Problem]:
    """Metadata that contradicts the sizes of the predictor's states."""
    if not evidence.states or evidence.states[0].rank != 3:
        return
    layers, _, hidden = evidence.states[0].shape
    for name, value in (("pred_rnn_layers", layers), ("pred_hidden", hidden)):
        stated = evidence.metadata.get(name)
        if stated is not None and isinstance(value, int) and stated != str(value):
            yield Problem(
                "predictor-size", _name(evidence.graphs[ENCODER]), name, stated,
                f"{value}, as in {evidence.states[0].name} of {_name(evidence.decoder)}: sherpa-onnx allocates the "
                "states with this size", _REPAIR,
            )  # fmt: skip


def url(evidence: Evidence) -> Iterator[Problem]:
    """A URL in the metadata by which sherpa-onnx would mistake TDT for RNN-T, or RNN-T for TDT."""
    if evidence.layout != "split" or ENCODER not in evidence.graphs or evidence.durations is None:
        return
    if evidence.streaming:  # it looks for the URL in models of whole recordings only
        return
    stated = evidence.metadata.get("url")
    if evidence.durations > 0 and "tdt" not in (stated or "") and evidence.metadata:
        yield Problem(
            "url", _name(evidence.graphs[ENCODER]), "url", "no url" if stated is None else f"{stated!r}, without 'tdt'",
            "a URL that contains 'tdt': sherpa-onnx recognises a TDT model by that alone, and otherwise stops with "
            f"'vocab_size: {evidence.entries} != output_size: {evidence.row_width}'", _REPAIR,
        )  # fmt: skip
    elif evidence.durations == 0 and "tdt" in (stated or ""):
        yield Problem(
            "url", _name(evidence.graphs[ENCODER]), "url",
            f"{stated!r}, but there are no durations among the joint's {evidence.row_width} outputs",
            "a joint with durations (V + 1 + D outputs), or a URL without 'tdt'",
            "export the TDT model again, or correct the URL: " + _REPAIR,
        )  # fmt: skip


def model_type(evidence: Evidence) -> Iterator[Problem]:
    """A model type in config.json that contradicts the number of durations in a joint row."""
    stated = evidence.configuration.get("model_type")
    if evidence.layout != "combined" or stated is None or evidence.durations is None or evidence.durations < 0:
        return
    expected = "nemo-conformer-tdt" if evidence.durations else "nemo-conformer-rnnt"
    if str(stated).startswith("nemo-conformer") and stated != expected:
        yield Problem(
            "model-type", evidence.configuration_name, "model_type", f"{stated}",
            f"{expected}: a joint row has {evidence.durations} durations", _REPAIR,
        )  # fmt: skip


def finite_weights(evidence: Evidence) -> Iterator[Problem]:
    """Weights of predictor and joint that are infinite or NaN, for example float32 weights too large for float16."""
    for role in (PREDICTOR, JOINT, COMBINED):
        graph = evidence.graphs.get(role)
        if graph is None:
            continue
        for tensor in graph.model.graph.initializer:
            if tensor.data_type in (1, 10, 16):  # float32, float16, bfloat16
                values = graph.array(tensor.name)
                if values.size and not np.isfinite(values.astype(np.float32)).all():
                    yield Problem(
                        "not-finite", graph.file.name, tensor.name, "weights that are infinite or NaN",
                        "finite weights: with these the joint gives NaN, which is decoded as blanks",
                        "convert the float32 files again with `tdtdecode optimize --to fp16`, which reports overflows",
                    )  # fmt: skip
                    break


def overflow(bundle: Bundle) -> Iterator[Problem]:
    """A float16 joint whose values are too large for float16.

    It is computed in float32 on 16 random frames, eight with a standard deviation of 1 and eight of 10.
    """
    if arithmetic(bundle.transducer) != "float16":
        return
    try:
        weights = lift(bundle.transducer)
    except CannotLift:
        return
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((16, weights.encoder.weight.shape[1])) * ([[1.0]] * 8 + [[10.0]] * 8)
    tokens = rng.uniform(-1, 1, (16, weights.prediction.weight.shape[1]))  # an LSTM's outputs lie in this range
    hidden = frames @ weights.encoder.weight.T + weights.encoder.bias
    hidden = hidden + tokens @ weights.prediction.weight.T + weights.prediction.bias
    active = np.maximum(hidden, 0) if weights.activation == "relu" else np.tanh(hidden)
    rows = active @ weights.output.weight.T + weights.output.bias
    largest = float(max(np.abs(hidden).max(), np.abs(rows).max()))
    if largest > _LARGEST_FLOAT16:
        joint = bundle.transducer.joint if isinstance(bundle.transducer, SplitTransducer) else bundle.transducer
        yield Problem(
            "float16-overflow", joint.graph.file.name, "", f"values of up to {largest:.3g} in float16",
            "at most 65504, the largest float16: otherwise joint rows are infinite or NaN, which is decoded as blanks",
            "use the joint in float32",
        )  # fmt: skip


def quantised_on_a_gpu(evidence: Evidence) -> Iterator[Problem]:
    """int8 graphs that the configuration assigns to a GPU."""
    for section in ("encoder", "decoder", "joiner"):
        role = {"encoder": ENCODER, "decoder": PREDICTOR, "joiner": JOINT}[section]
        options = evidence.model.get(section)
        options = options.get("session_options") if isinstance(options, dict) else None
        providers = options.get("provider_options") if isinstance(options, dict) else None
        names = [str(key).lower() for item in providers or [] if isinstance(item, dict) for key in item]
        graph = evidence.graphs.get(role)
        gpu = [name for name in names if name in ("cuda", "dml", "webgpu", "nvtensorrtrtx", "rocm")]
        if gpu and graph is not None and graph.quantized:
            yield Problem(
                "int8-on-gpu", evidence.configuration_name, f"model.{section}.session_options.provider_options",
                f"int8 graph {graph.file.name} on {gpu[0]}", "a float16 or float32 graph: GPUs have no kernels for "
                "dynamically quantised products, which then run on the CPU, with copies to it and back",
                "use the fp16 or fp32 files on a GPU, or remove the provider",
            )  # fmt: skip


def _name(graph: Graph | None) -> str:
    return "the graph" if graph is None else graph.file.name


CHECKS: tuple[Callable[[Evidence], Iterator[Problem]], ...] = (
    no_model, argmax_inside, missing_graphs, misnamed_encoder, multi_blank, ctc_head, token_file, spaces,
    vocabulary_size, durations, mel_bins, predictor_sizes, url, model_type, finite_weights, quantised_on_a_gpu,
    streaming_encoder,
)  # fmt: skip
"""All checks but `overflow`, in the order in which their problems are shown."""
