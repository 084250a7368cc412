"""What can be mended, one step for each kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...bundle.description import Bundle, FeatureSettings
from ...bundle.encoder import encoder_ports
from ...bundle.files import is_file
from ...bundle.onnx_files.dependencies import import_onnx
from ...bundle.onnx_files.external import external_tensors
from ...bundle.onnx_files.graph import Graph, load_graph
from ...bundle.onnx_files.parsing import parse_graph
from ...bundle.onnx_files.tensors import tensor_bytes
from ...bundle.probe import BATCH_AXIS
from ...bundle.reading import read_bundle
from ...bundle.tokens import BLANK_NAMES
from ...bundle.transducers import SplitTransducer
from ...errors import BundleError
from ..inspection.evidence import COMBINED, ENCODER, GRAPH_NAMES, JOINT, PREDICTOR, TOKEN_FILES, Evidence, collect
from ..writing.content import TDT, write_json, write_symbols
from ..writing.genai import configuration, write_tokenizer
from .tokens import best_pieces, is_right

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Change:
    """One thing that was changed.

    Attributes
    ----------
    file, field:
        Where; the field is "" for a file as a whole.
    before, after:
        As texts.
    why:
        What it was taken from.
    """

    file: str
    field: str
    before: str
    after: str
    why: str


@dataclass
class Repairs:
    """A working copy of a directory, and what has been done to it.

    `written` and `removed` are names of files in it.
    """

    folder: Path
    layout: str
    variant: str | None
    durations: list[int] | None
    changes: list[Change] = field(default_factory=list)
    written: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)

    def evidence(self) -> Evidence:
        """What the copy tells now."""
        return collect(self.folder, self.layout, self.variant)

    def bundle(self) -> Bundle | None:
        """The copy as it can be read now; None if it cannot."""
        try:
            return read_bundle(self.folder, self.layout, self.variant)
        except BundleError:
            return None

    def target(self, name: str) -> Path:
        """Where to write a file: it takes the place of a link in the copy, never of what the link leads to."""
        self.written.add(name)
        path = self.folder / name
        path.unlink(missing_ok=True)
        return path

    def change(self, file: str, field: str, before: Any, after: Any, why: str) -> None:
        """Note a change."""
        self.changes.append(Change(file, field, "nothing" if before is None else str(before)[:200], str(after), why))


def renamed_encoder(repairs: Repairs) -> None:
    """An encoder by the name that another layout gives it."""
    expected = GRAPH_NAMES[repairs.layout][ENCODER]
    if repairs.layout == "genai" or (repairs.folder / expected).exists() or repairs.variant is not None:
        return
    for roles in GRAPH_NAMES.values():
        found = repairs.folder / roles[ENCODER]
        if found.is_file():
            found.rename(repairs.folder / expected)
            repairs.written.add(expected)
            repairs.removed.add(found.name)
            repairs.change(found.name, "", found.name, expected, f"its name in the {repairs.layout} layout")
            return


def renamed_weights(repairs: Repairs) -> None:
    """External weights under another name: a file that no graph asks for and that has just the size."""
    models: dict[Path, Any] = {}
    for file in sorted(repairs.folder.glob("*.onnx")):
        try:
            models[file] = parse_graph(file)
        except BundleError:  # what is no graph has no weights
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
        repairs.change(
            file.name, "external data", absent[0], fitting[0],
            f"{absent[0]} is missing, and {fitting[0]} has the size of its {extents[absent[0]]} bytes",
        )  # fmt: skip


def _extents(model: onnx.ModelProto) -> dict[str, int]:
    """How many bytes of each file the external weights need."""
    found: dict[str, int] = {}
    for tensor in external_tensors(model):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        try:
            end = int(entries.get("offset", "0")) + tensor_bytes(tensor)
        except (KeyError, ValueError):
            continue
        found[entries.get("location", "")] = max(found.get(entries.get("location", ""), 0), end)
    return found


def token_file(repairs: Repairs) -> None:
    """The token file in its layout's form."""
    evidence = repairs.evidence()
    table, name = evidence.tokens, TOKEN_FILES[repairs.layout][0]
    named = table is not None and (table.file.name == name or repairs.layout == "genai")
    if table is not None and named and is_right(table, repairs.layout, evidence.embedding_rows):
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
    repairs.change(name, "", before, f"{len(pieces)} entries, blank among them", f"the pieces in {source}")


def metadata(repairs: Repairs) -> None:
    """The encoder's metadata: all of them for sherpa-onnx, in other layouts those that are there and wrong."""
    evidence = repairs.evidence()
    encoder = evidence.graphs.get(ENCODER)
    if encoder is None:
        return
    right = _right_metadata(evidence, repairs.durations)
    changed = {}
    for name, (value, why) in right.items():
        before = evidence.metadata.get(name)
        if before != value and (before is not None or repairs.layout == "split"):
            changed[name] = value
            repairs.change(encoder.file.name, f"metadata {name}", before, value, why)
    if changed:
        _rewrite(repairs, encoder.file.name, lambda model: import_onnx().helper.set_model_props(
            model, evidence.metadata | changed))  # fmt: skip


def _right_metadata(evidence: Evidence, durations: list[int] | None) -> dict[str, tuple[str, str]]:
    """What the metadata should have: names, values, and what the values are taken from."""
    right: dict[str, tuple[str, str]] = {}
    defaults = FeatureSettings()
    if evidence.entries is not None:
        right["vocab_size"] = str(evidence.entries - 1), "the tokens without the blank"
    port = evidence.audio_port
    if port is not None and isinstance(port.shape[1], int):
        right["feat_dim"] = str(port.shape[1]), f"the second axis of {port.name}"
    if evidence.states and evidence.states[0].rank == 3:
        layers, _, hidden = evidence.states[0].shape
        right["pred_rnn_layers"] = str(layers), f"the first axis of {evidence.states[0].name}"
        right["pred_hidden"] = str(hidden), f"the last axis of {evidence.states[0].name}"
    if evidence.durations is not None and evidence.layout == "split":
        url, tdt = evidence.metadata.get("url", ""), evidence.durations > 0
        if (TDT in url) != tdt:
            word = TDT if tdt else "rnnt"
            kept = f"{url} ({word})" if url and tdt else word
            right["url"] = kept, f"the joint has {evidence.durations} durations; sherpa-onnx looks for '{TDT}' here"
    for name, value, why in (
        ("subsampling_factor", str(defaults.subsampling_factor), "not stated; that of all Parakeet models"),
        ("normalize_type", str(defaults.normalize), "not stated; that of all Parakeet models"),
        ("model_type", "EncDecRNNTBPEModel", "not stated; what sherpa-onnx calls NeMo's transducers"),
    ):
        right[name] = evidence.metadata.get(name, value), why
    if durations is not None and len(durations) == evidence.durations:
        right["tdt_durations"] = ",".join(map(str, durations)), "as given"
    return right


def configurations(repairs: Repairs) -> None:
    """config.json, or genai_config.json and audio_processor_config.json."""
    evidence = repairs.evidence()
    if repairs.layout == "combined":
        _mend(repairs, evidence.configuration_name, "", evidence.configuration, _right_config(evidence))
    elif repairs.layout == "genai" and evidence.model:
        right = _right_genai(evidence, repairs.durations)
        if _mend(repairs, evidence.configuration_name, "model.", evidence.model, right, evidence.configuration):
            evidence = repairs.evidence()
        port = evidence.audio_port
        if port is not None and isinstance(port.shape[1], int) and evidence.audio:
            name = "audio_processor_config.json"
            values = {"n_mels": (port.shape[1], f"the second axis of {port.name}")}
            _mend(repairs, name, "audio_params.", evidence.audio, values, evidence.audio_configuration)


def _mend(
    repairs: Repairs, name: str, prefix: str, section: dict[str, Any], right: dict[str, tuple[Any, str]],
    whole: dict[str, Any] | None = None,
) -> bool:
    """Correct fields of a section, in place, and write the whole; whether there was any to correct."""
    wrong = {key: (value, why) for key, (value, why) in right.items() if section.get(key) != value}
    for key, (value, why) in wrong.items():
        repairs.change(name, f"{prefix}{key}", section.get(key), value, why)
        section[key] = value
    if wrong:
        write_json(repairs.target(name), section if whole is None else whole)
    return bool(wrong)


def _right_config(evidence: Evidence) -> dict[str, tuple[Any, str]]:
    right: dict[str, tuple[Any, str]] = {}
    port = evidence.audio_port
    if port is not None and isinstance(port.shape[1], int):
        right["features_size"] = port.shape[1], f"the second axis of {port.name}"
    if evidence.durations is not None and evidence.durations >= 0:
        stated = str(evidence.configuration.get("model_type", "nemo-conformer"))
        if stated.startswith("nemo-conformer"):
            kind = "tdt" if evidence.durations else "rnnt"
            right["model_type"] = f"nemo-conformer-{kind}", f"the joint has {evidence.durations} durations"
    if "vocab_size" in evidence.configuration and evidence.entries is not None:
        right["vocab_size"] = evidence.entries - 1, "the tokens without the blank"
    return right


def _right_genai(evidence: Evidence, durations: list[int] | None) -> dict[str, tuple[Any, str]]:
    right: dict[str, tuple[Any, str]] = {}
    port, count = evidence.audio_port, evidence.durations
    if port is not None and isinstance(port.shape[1], int):
        right["num_mels"] = port.shape[1], f"the second axis of {port.name}"
    if evidence.entries is not None:
        right["vocab_size"] = evidence.entries, "the tokens with the blank"
        blank = evidence.model.get("blank_id")
        if not isinstance(blank, int) or not 0 <= blank < evidence.entries:
            right["blank_id"] = evidence.entries - 1, "the last token, as in all of NeMo's models"
    if count is not None and count > 0:
        stated = evidence.model.get("tdt_durations")
        if durations is not None and len(durations) == count:
            right["tdt_durations"] = durations, "as given"
        elif stated is None:
            right["tdt_durations"] = list(range(count)), f"not stated; the joint has {count}, in Parakeet models these"
    return right


def genai_fields(repairs: Repairs) -> None:
    """What onnxruntime-genai needs besides: features, windows, names of ports, the token that ends a transcript."""
    bundle = repairs.bundle() if repairs.layout == "genai" else None
    if bundle is None or bundle.encoder is None or not isinstance(bundle.transducer, SplitTransducer):
        return
    if not bundle.spec.durations or bundle.features.mel_bins is None:
        return
    evidence = repairs.evidence()
    try:
        model = _with_port_names(bundle, configuration(bundle.spec, bundle.features, bundle.transducer)["model"])
    except BundleError:
        return
    right: dict[str, tuple[Any, str]] = {}
    for key, value in model.items():
        stated = evidence.model.get(key)
        if isinstance(value, dict):
            merged = _merged(stated if isinstance(stated, dict) else {}, value)
            if merged != stated:
                right[key] = merged, "the graphs' ports and sizes"
        elif stated is None:
            right[key] = value, "not stated, and onnxruntime-genai needs it"
    ends = evidence.model.get("eos_token_id")
    if ends is not None and bundle.spec.blank not in (ends if isinstance(ends, list) else [ends]):
        right["eos_token_id"] = [bundle.spec.blank], "the blank, with which onnxruntime-genai ends a transcript"
    _mend(repairs, evidence.configuration_name, "model.", evidence.model, right, evidence.configuration)


def _merged(stated: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """The stated section with what is right in it: names of ports as they are, files as they are stated."""
    merged = dict(stated)
    for key, value in right.items():
        if isinstance(value, dict):
            inner = stated.get(key)
            merged[key] = _merged(inner if isinstance(inner, dict) else {}, value)
        elif key not in ("filename", "config_filename") or key not in stated:
            merged[key] = value
    return merged


def _with_port_names(bundle: Bundle, model: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the ports' names as they are in the graphs."""
    assert isinstance(bundle.transducer, SplitTransducer) and bundle.encoder is not None
    predictor, joint = bundle.transducer.predictor, bundle.transducer.joint
    audio, length, frames, counts = encoder_ports(load_graph(bundle.encoder, bundle.directory))
    if predictor.target_length is None or len(predictor.states_in) != 2:
        raise BundleError("is no predictor that onnxruntime-genai can use", file=predictor.graph.file)
    lengths = [port.name for port in predictor.graph.outputs if not port.is_float]
    if len(lengths) != 1:
        raise BundleError("gives no length beside its output", file=predictor.graph.file)
    model["encoder"] |= {
        "inputs": {"audio_features": audio.name, "input_lengths": length.name},
        "outputs": {"encoder_outputs": frames.name, "output_lengths": counts.name},
    }
    model["decoder"] |= {
        "inputs": {
            "targets": predictor.targets.name, "targets_length": predictor.target_length.name,
            "lstm_hidden_state": predictor.states_in[0].name, "lstm_cell_state": predictor.states_in[1].name,
        },
        "outputs": {
            "outputs": predictor.output.name, "outputs_length": lengths[0],
            "lstm_hidden_state": predictor.states_out[0].name, "lstm_cell_state": predictor.states_out[1].name,
        },
    }  # fmt: skip
    model["joiner"] |= {
        "inputs": {"encoder_outputs": joint.encoder.name, "decoder_outputs": joint.predictor.name},
        "outputs": {"logits": joint.output.name},
    }
    return model


def static_batch(repairs: Repairs) -> None:
    """Batch axes fixed at one, in predictor and joint: reading the bundle has shown that they can be any size."""
    if repairs.bundle() is None:
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
        repairs.change(
            graph.file.name, ", ".join(fixed), "a batch of 1", "any batch", "rows of a batch were tried: they do not "
            "depend on each other",
        )  # fmt: skip
        _rewrite(repairs, graph.file.name, partial(_free, graph=graph, states=states))


def _free(model: onnx.ModelProto, graph: Graph, states: set[str]) -> None:
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


def _rewrite(repairs: Repairs, name: str, change: Callable[[Any], None]) -> None:
    """Change a graph in its file; its external weights stay where they are."""
    model = parse_graph(repairs.folder / name)
    change(model)
    repairs.target(name).write_bytes(model.SerializeToString())


STEPS: tuple[Callable[[Repairs], None], ...] = (
    renamed_encoder, renamed_weights, token_file, metadata, configurations, static_batch, genai_fields,
)  # fmt: skip
"""In the order they are taken: later ones build on what earlier ones mended."""
