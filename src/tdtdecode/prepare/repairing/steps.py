"""The steps of a repair: one function for each kind of mistake that can be corrected."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...bundle.big_blanks import CONFIGURATION, FIELD
from ...bundle.blank import BLANK_NAMES
from ...bundle.caches import ATTENTION, CONVOLUTION, EncoderCaches
from ...bundle.description import Bundle, FeatureSettings
from ...bundle.encoder import encoder_ports
from ...bundle.files import is_file
from ...bundle.onnx_files.dependencies import import_onnx
from ...bundle.onnx_files.external import external_tensors
from ...bundle.onnx_files.graph import Graph, load_graph
from ...bundle.onnx_files.parsing import parse_graph
from ...bundle.onnx_files.tensors import tensor_bytes
from ...bundle.probe import BATCH_AXIS
from ...bundle.transducers import SplitTransducer
from ...errors import BundleError
from ..inspection.evidence import COMBINED, ENCODER, GRAPH_NAMES, JOINT, PREDICTOR, TOKEN_FILES, Evidence
from ..writing.content import TDT, state_big_blanks, write_json, write_symbols
from ..writing.genai import configuration, write_tokenizer
from ..writing.genai import streaming_configuration as streaming_genai
from .streaming import state_windows, streaming_configuration, streaming_metadata, unfix_streams
from .tokens import best_pieces, is_correct
from .working import Repairs, rewrite

if TYPE_CHECKING:
    import onnx


def rename_encoder(repairs: Repairs) -> None:
    """Rename an encoder that has the name of another layout."""
    expected = GRAPH_NAMES[repairs.layout][ENCODER]
    if repairs.layout == "genai" or ENCODER in repairs.evidence().files or repairs.variant is not None:
        return
    for roles in GRAPH_NAMES.values():
        found = repairs.folder / roles[ENCODER]
        if found.is_file():
            found.rename(repairs.folder / expected)
            repairs.written.add(expected)
            repairs.removed.add(found.name)
            repairs.changed()
            repairs.record(found.name, "", found.name, expected, f"its name in the {repairs.layout} layout")
            return


def find_weights(repairs: Repairs) -> None:
    """Point a graph to its external weights if they were renamed: the only unused file that has their size."""
    models: dict[Path, Any] = {}
    for file in sorted(repairs.folder.glob("*.onnx")):
        try:
            models[file] = parse_graph(file)
        except BundleError:  # not a graph, so it has no weights
            continue
    needed = {file: _extents(model) for file, model in models.items()}
    asked_for = {name for extents in needed.values() for name in extents}
    spare = {
        path.name: path.stat().st_size for path in sorted(repairs.folder.iterdir())
        if path.is_file() and path.name not in asked_for and path.suffix not in (".onnx", ".txt", ".json", ".md")
    }  # fmt: skip
    for file, extents in needed.items():
        absent = [name for name in extents if not is_file(repairs.folder / name)]
        fitting = [name for name, size in spare.items() if absent and 0 <= size - extents[absent[0]] < 65536]
        if len(absent) != 1 or len(fitting) != 1:
            continue
        for tensor in external_tensors(models[file]):
            for entry in tensor.external_data:
                if entry.key == "location" and entry.value == absent[0]:
                    entry.value = fitting[0]
        repairs.target(file.name).write_bytes(models[file].SerializeToString())
        repairs.record(
            file.name, "external data", absent[0], fitting[0],
            f"{absent[0]} is missing, and {fitting[0]} has its size, {extents[absent[0]]} bytes",
        )  # fmt: skip


def _extents(model: onnx.ModelProto) -> dict[str, int]:
    """How many bytes each file of external weights must have, by the file's name."""
    found: dict[str, int] = {}
    for tensor in external_tensors(model):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        try:
            end = int(entries.get("offset", "0")) + tensor_bytes(tensor)
        except (KeyError, ValueError):
            continue
        found[entries.get("location", "")] = max(found.get(entries.get("location", ""), 0), end)
    return found


def write_token_file(repairs: Repairs) -> None:
    """Write the token file in the layout's form, if it is wrong or missing and some file has the pieces."""
    evidence = repairs.evidence()
    table, name = evidence.tokens, TOKEN_FILES[repairs.layout][0]
    named = table is not None and (table.file.name == name or repairs.layout == "genai")
    whole = repairs.layout != "genai" or not evidence.lacks_unknown
    if table is not None and named and whole and is_correct(table, repairs.layout, evidence.embedding):
        return
    found = best_pieces(evidence)
    if found is None:
        return
    pieces, source = found
    before = "nothing" if table is None else f"{table.file.name}, {len(table.entries)} entries, {table.form}"
    if repairs.layout == "genai":
        for made in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
            repairs.target(made)
        blank = next(i for i, piece in enumerate(pieces) if piece in BLANK_NAMES)
        write_tokenizer(pieces, blank, repairs.folder)
    else:
        write_symbols(repairs.target(name), pieces)
    repairs.record(name, "", before, f"{len(pieces)} entries with the blank", f"the pieces in {source}")


def correct_metadata(repairs: Repairs) -> None:
    """Correct the encoder's metadata. In the split layout, missing fields are added, since sherpa-onnx needs them.

    Nothing is added to models of k2: these fields are those of NeMo's models, and other values hold there.
    """
    evidence = repairs.evidence()
    encoder = evidence.graphs.get(ENCODER)
    if encoder is None or evidence.context is not None:
        return
    changed = {}
    for name, (value, why) in _correct_metadata(evidence, repairs.durations).items():
        before = evidence.metadata.get(name)
        if before != value and (before is not None or repairs.layout == "split"):
            changed[name] = value
            repairs.record(encoder.file.name, f"metadata {name}", before, value, why)
    if changed:
        rewrite(repairs, encoder.file.name, lambda model: import_onnx().helper.set_model_props(
            model, evidence.metadata | changed))  # fmt: skip


def _correct_metadata(evidence: Evidence, durations: list[int] | None) -> dict[str, tuple[str, str]]:
    """What the metadata should contain: name -> (value, where the value comes from)."""
    correct: dict[str, tuple[str, str]] = {}
    defaults = FeatureSettings()
    if evidence.entries is not None:
        correct["vocab_size"] = str(evidence.entries - 1), "the tokens without the blank"
    if evidence.mel_bins is not None:
        correct["feat_dim"] = str(evidence.mel_bins), evidence.mel_place
    if evidence.states and evidence.states[0].rank == 3:
        layers, _, hidden = evidence.states[0].shape
        correct["pred_rnn_layers"] = str(layers), f"the first axis of {evidence.states[0].name}"
        correct["pred_hidden"] = str(hidden), f"the last axis of {evidence.states[0].name}"
    if evidence.durations is not None and evidence.layout == "split":
        url, tdt = evidence.metadata.get("url", ""), evidence.durations > 0
        if (TDT in url) != tdt:
            word = TDT if tdt else "rnnt"
            kept = f"{url} ({word})" if url and tdt else word
            correct["url"] = kept, f"the joint has {evidence.durations} durations; sherpa-onnx looks for '{TDT}' here"
    for name, value, why in (
        ("subsampling_factor", str(defaults.subsampling_factor), "not stated; all Parakeet models have this value"),
        ("normalize_type", str(defaults.normalize), "not stated; all Parakeet models have this value"),
        ("model_type", "EncDecRNNTBPEModel", "not stated; what sherpa-onnx calls NeMo's transducers"),
    ):
        correct[name] = evidence.metadata.get(name, value), why
    correct |= streaming_metadata(evidence)
    if durations is not None and len(durations) == evidence.durations:
        correct["tdt_durations"] = ",".join(map(str, durations)), "as given"
    return correct


def correct_configurations(repairs: Repairs) -> None:
    """Correct config.json, or genai_config.json and audio_processor_config.json."""
    if repairs.big_blanks:
        state_big_blanks(repairs.folder, repairs.big_blanks, repairs.target)
        repairs.record(CONFIGURATION, FIELD, "", list(repairs.big_blanks), "as given")
    evidence = repairs.evidence()
    for section, prefix, values in streaming_configuration(evidence):
        _correct(repairs, evidence.configuration_name, prefix, section, values, evidence.configuration)
    if repairs.layout == "combined":
        _correct(repairs, evidence.configuration_name, "", evidence.configuration, _correct_config(evidence))
    elif repairs.layout == "genai" and evidence.model:
        correct = _correct_genai(evidence, repairs.durations)
        if _correct(repairs, evidence.configuration_name, "model.", evidence.model, correct, evidence.configuration):
            evidence = repairs.evidence()
        if evidence.mel_bins is not None and evidence.audio:
            name = "audio_processor_config.json"
            values = {"n_mels": (evidence.mel_bins, evidence.mel_place)}
            _correct(repairs, name, "audio_params.", evidence.audio, values, evidence.audio_configuration)


def _correct(
    repairs: Repairs, name: str, prefix: str, section: dict[str, Any], correct: dict[str, tuple[Any, str]],
    whole: dict[str, Any] | None = None,
) -> bool:
    """Correct the fields of a section of a JSON file, in place, and write the file if a field was wrong.

    Parameters
    ----------
    name:
        The file's name.
    prefix:
        What comes before a field's name in the record of changes.
    correct:
        name -> (value, where the value comes from).
    whole:
        The content of the file, which contains the section. Default: the section.

    Returns
    -------
    Whether a field was wrong.
    """
    wrong = {key: (value, why) for key, (value, why) in correct.items() if section.get(key) != value}
    for key, (value, why) in wrong.items():
        repairs.record(name, f"{prefix}{key}", section.get(key), value, why)
        section[key] = value
    if wrong:
        write_json(repairs.target(name), section if whole is None else whole)
    return bool(wrong)


def _correct_config(evidence: Evidence) -> dict[str, tuple[Any, str]]:
    """What config.json should contain: name -> (value, where the value comes from)."""
    correct: dict[str, tuple[Any, str]] = {}
    if evidence.mel_bins is not None:
        correct["features_size"] = evidence.mel_bins, evidence.mel_place
    if evidence.durations is not None and evidence.durations >= 0:
        stated = str(evidence.configuration.get("model_type", "nemo-conformer"))
        if stated.startswith("nemo-conformer"):
            kind = "tdt" if evidence.durations else "rnnt"
            correct["model_type"] = f"nemo-conformer-{kind}", f"the joint has {evidence.durations} durations"
    if "vocab_size" in evidence.configuration and evidence.entries is not None:
        correct["vocab_size"] = evidence.entries - 1, "the tokens without the blank"
    return correct


def _correct_genai(evidence: Evidence, durations: list[int] | None) -> dict[str, tuple[Any, str]]:
    """What the ``model`` section of genai_config.json should contain: name -> (value, where the value comes from)."""
    correct: dict[str, tuple[Any, str]] = {}
    count = evidence.durations
    if evidence.mel_bins is not None:
        correct["num_mels"] = evidence.mel_bins, evidence.mel_place
    if evidence.entries is not None:
        correct["vocab_size"] = evidence.entries, "the tokens with the blank"
        blank = evidence.model.get("blank_id")
        zero = None if evidence.embedding is None else evidence.embedding.zero_row
        if zero is not None:
            correct["blank_id"] = zero, "the row of zeros of the embedding, which NeMo's models have for the blank"
        elif not isinstance(blank, int) or not 0 <= blank < evidence.entries:
            correct["blank_id"] = evidence.entries - 1, "the last token, as in all of NeMo's models"
    if count is not None and count > 0:
        stated = evidence.model.get("tdt_durations")
        if durations is not None and len(durations) == count:
            correct["tdt_durations"] = durations, "as given"
        elif stated is None:
            why = f"not stated; the joint has {count} durations, and Parakeet models count from 0"
            correct["tdt_durations"] = list(range(count)), why
    return correct


def complete_genai_config(repairs: Repairs) -> None:
    """Add what onnxruntime-genai also needs: features, windows, port names, the token that ends a transcript."""
    bundle = repairs.bundle() if repairs.layout == "genai" else None
    if bundle is None or bundle.encoder is None or not isinstance(bundle.transducer, SplitTransducer):
        return
    evidence = repairs.evidence()
    caches = evidence.caches
    if bundle.features.mel_bins is None or bool(bundle.spec.durations) == bundle.cache_aware:
        return
    try:
        if caches is None:
            made = configuration(bundle.spec, bundle.features, bundle.transducer)
        else:
            made = streaming_genai(bundle.spec, bundle.features, bundle.transducer, caches)
        model = _with_port_names(bundle, made["model"], caches)
    except BundleError:
        return
    correct: dict[str, tuple[Any, str]] = {}
    for key, value in model.items():
        stated = evidence.model.get(key)
        if isinstance(value, dict):
            merged = _merged(stated if isinstance(stated, dict) else {}, value)
            if merged != stated:
                correct[key] = merged, "the graphs' inputs, outputs and sizes"
        elif stated is None:
            correct[key] = value, "not stated, and onnxruntime-genai needs it"
    ends = evidence.model.get("eos_token_id")
    listed = ends if isinstance(ends, list) else [ends]
    if not bundle.cache_aware and ends is not None and bundle.spec.blank not in listed:
        correct["eos_token_id"] = [bundle.spec.blank], "the blank, with which onnxruntime-genai ends a transcript"
    _correct(repairs, evidence.configuration_name, "model.", evidence.model, correct, evidence.configuration)


def _merged(stated: dict[str, Any], correct: dict[str, Any]) -> dict[str, Any]:
    """The stated section with the correct values. Stated names of files, and fields not in `correct`, are kept."""
    merged = dict(stated)
    for key, value in correct.items():
        if isinstance(value, dict):
            inner = stated.get(key)
            merged[key] = _merged(inner if isinstance(inner, dict) else {}, value)
        elif key not in ("filename", "config_filename") or key not in stated:
            merged[key] = value
    return merged


def _with_port_names(bundle: Bundle, model: dict[str, Any], caches: EncoderCaches | None) -> dict[str, Any]:
    """The ``model`` section with the names that the inputs and outputs have in the graphs."""
    assert isinstance(bundle.transducer, SplitTransducer) and bundle.encoder is not None
    predictor, joint = bundle.transducer.predictor, bundle.transducer.joint
    if len(predictor.states_in) != 2 or (predictor.target_length is None) == (caches is None):
        raise BundleError("onnxruntime-genai cannot use this predictor", file=predictor.graph.file)
    more_in, more_out = {}, {}
    if caches is None:
        audio, length, frames, counts = encoder_ports(load_graph(bundle.encoder, bundle.directory))
    else:
        audio, length, frames, counts = caches.audio, caches.length, caches.frames, caches.counts
        names = (ATTENTION, CONVOLUTION, f"{ATTENTION}_len")
        more_in = {name: cache.into.name for name, cache in zip(names, caches.caches, strict=True)}
        more_out = {f"{name}_next": cache.out.name for name, cache in zip(names, caches.caches, strict=True)}
        if caches.prompt is not None:
            more_in["lang_id"] = caches.prompt.name
    model["encoder"] |= {
        "inputs": {"audio_features": audio.name, "input_lengths": length.name, **more_in},
        "outputs": {"encoder_outputs": frames.name, "output_lengths": counts.name, **more_out},
    }
    model["decoder"] |= {
        "inputs": {
            "targets": predictor.targets.name,
            "lstm_hidden_state": predictor.states_in[0].name, "lstm_cell_state": predictor.states_in[1].name,
        },
        "outputs": {
            "outputs": predictor.output.name,
            "lstm_hidden_state": predictor.states_out[0].name, "lstm_cell_state": predictor.states_out[1].name,
        },
    }  # fmt: skip
    if predictor.target_length is not None:
        lengths = [port.name for port in predictor.graph.outputs if not port.is_float]
        if len(lengths) != 1:
            raise BundleError("expected one integer output, the length of the targets", file=predictor.graph.file)
        model["decoder"]["inputs"]["targets_length"] = predictor.target_length.name
        model["decoder"]["outputs"]["outputs_length"] = lengths[0]
    model["joiner"] |= {
        "inputs": {"encoder_outputs": joint.encoder.name, "decoder_outputs": joint.predictor.name},
        "outputs": {"logits": joint.output.name},
    }
    return model


def unfix_batch(repairs: Repairs) -> None:
    """Make the batch axes of predictor and joint dynamic if they are fixed at one."""
    if repairs.bundle() is None:  # reading the bundle checks that the graphs compute a batch correctly
        return
    evidence = repairs.evidence()
    states = {port.name for port in evidence.states}
    for role in (PREDICTOR, JOINT, COMBINED):
        graph = evidence.graphs.get(role)
        if graph is None:
            continue
        fixed = [
            port.name for port in graph.inputs
            if port.rank > (axis := int(port.name in states)) and port.shape[axis] == 1
        ]  # fmt: skip
        if not fixed:
            continue
        repairs.record(
            graph.file.name, ", ".join(fixed), "a batch of 1", "any batch", "the graph was run on a batch, and "
            "utterances did not affect each other",
        )  # fmt: skip
        rewrite(repairs, graph.file.name, partial(_make_batch_dynamic, graph=graph, states=states))


def _make_batch_dynamic(model: onnx.ModelProto, graph: Graph, states: set[str]) -> None:
    """Make batch axes of size 1 dynamic: the second axis of states, the first of all others."""
    sizes = {port.shape for port in graph.inputs if port.name in states}
    del model.graph.value_info[:]
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        axis = int(value.name in states)
        if len(dims) > axis and dims[axis].dim_value == 1:
            dims[axis].dim_param = BATCH_AXIS
    for value in model.graph.output:
        dims = value.type.tensor_type.shape.dim
        given = tuple(dim.dim_value for dim in dims)
        like_state = any(len(given) == 3 and given[0] == size[0] and given[2] == size[2] for size in sizes)
        axis = int(like_state)
        if len(dims) > axis and dims[axis].dim_value == 1:
            dims[axis].dim_param = BATCH_AXIS


STEPS: tuple[Callable[[Repairs], None], ...] = (
    rename_encoder, find_weights, state_windows, write_token_file, correct_metadata, correct_configurations,
    unfix_batch, unfix_streams, complete_genai_config,
)  # fmt: skip
"""The steps in order: later steps need what earlier ones corrected."""
