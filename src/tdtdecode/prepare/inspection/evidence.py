"""Collecting everything that can be read from a model directory, whatever is wrong with the rest of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ...bundle import combined, genai, split
from ...bundle.big_blanks import known_big_blanks
from ...bundle.cached_encoder import read_caches
from ...bundle.caches import EncoderCaches
from ...bundle.context import context_size, with_state
from ...bundle.cut import encoder_input
from ...bundle.encoder import takes_time_first
from ...bundle.families import OFFLINE, encoder_family, is_cache_aware
from ...bundle.files import find_file, read_json, read_text
from ...bundle.layouts import check_variant, variants_of
from ...bundle.names import (
    COMBINED_NAMES,
    SPLIT,
    GraphNames,
    combined_names,
    names_of,
    split_names,
    told_by_ports,
)
from ...bundle.onnx_files.embedding import Embedding, find_embedding
from ...bundle.onnx_files.graph import Graph, Port, load_graph
from ...bundle.ports import row_width, token_inputs
from ...bundle.roles import COMBINED, ENCODER, JOINT, PREDICTOR, find_decision, gives_decisions
from ...bundle.spaces import Spaces, read_spaces
from ...errors import BundleError, InputError
from ...forks import cached_property
from .report import Problem
from .token_forms import TokenTable, read_token_table

Value = TypeVar("Value")


def _by_role(names: GraphNames) -> dict[str, str]:
    roles = (COMBINED,) if len(names.graphs) == 1 else (PREDICTOR, JOINT)
    return {ENCODER: names.encoder, **dict(zip(roles, names.graphs, strict=True))}


GRAPH_NAMES: dict[str, dict[str, str]] = {
    "split": _by_role(SPLIT),
    "combined": _by_role(COMBINED_NAMES[0]),
    "genai": {ENCODER: "encoder.onnx", PREDICTOR: "decoder.onnx", JOINT: "joint.onnx"},
}
TOKEN_FILES = {
    "split": (*split.TOKEN_FILES, split.VOSK_TOKENS),
    "combined": tuple(combined.TOKEN_FILES),
    "genai": ("vocab.txt", "tokenizer.json"),
}
"""The token files that are accepted in each layout. The first is the layout's own."""

_SECTIONS = {ENCODER: "encoder", PREDICTOR: "decoder", JOINT: "joiner"}


@dataclass
class Evidence:
    """What was read from a directory.

    Attributes
    ----------
    root:
        The directory.
    layout:
        The layout that the files look like; None if there is no model.
    variant:
        Which files were read; None for files without a suffix.
    files, graphs:
        The graphs' files by role, and those graphs that could be read.
    tokens:
        The token file; None if there is none, or it cannot be read.
    configuration:
        The content of config.json or genai_config.json.
    audio_configuration:
        The content of audio_processor_config.json.
    variants:
        All variants in which a graph exists.
    names:
        What the directory calls its graphs in the split or the combined layout.
    problems:
        What could not be read.
    """

    root: Path
    layout: str | None
    variant: str | None
    files: dict[str, Path] = field(default_factory=dict)
    graphs: dict[str, Graph] = field(default_factory=dict)
    tokens: TokenTable | None = None
    configuration: dict[str, Any] = field(default_factory=dict)
    audio_configuration: dict[str, Any] = field(default_factory=dict)
    variants: tuple[str | None, ...] = ()
    names: GraphNames | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def decoder(self) -> Graph | None:
        """The graph that takes tokens."""
        return self.graphs.get(PREDICTOR) or self.graphs.get(COMBINED)

    @property
    def joint(self) -> Graph | None:
        """The graph that computes joint rows."""
        return self.graphs.get(JOINT) or self.graphs.get(COMBINED)

    @property
    def configuration_name(self) -> str:
        """The name of the layout's configuration file."""
        return genai.CONFIGURATION if self.layout == "genai" else combined.CONFIGURATION

    @property
    def model(self) -> dict[str, Any]:
        """The ``model`` section of genai_config.json."""
        model = self.configuration.get("model") if self.layout == "genai" else None
        return model if isinstance(model, dict) else {}

    @property
    def audio(self) -> dict[str, Any]:
        """The ``audio_params`` section of audio_processor_config.json."""
        audio = self.audio_configuration.get("audio_params")
        return audio if isinstance(audio, dict) else {}

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The encoder's metadata; empty if there is no encoder."""
        encoder = self.graphs.get(ENCODER)
        return {} if encoder is None else {entry.key: entry.value for entry in encoder.model.metadata_props}

    MODEL_CONFIGURATION = "model_config.yaml"
    """The configuration in NeMo's own archive, which some exports have beside the graphs."""

    @cached_property
    def model_configuration(self) -> str:
        """The text of model_config.yaml; empty if there is none that can be read."""
        try:
            file = find_file(self.root, self.MODEL_CONFIGURATION)
            return "" if file is None else read_text(file)
        except BundleError:
            return ""

    @cached_property
    def context(self) -> int | None:
        """How many tokens the predictor looks at, if it is one of k2; None for others."""
        return self._attempt(context_size, self.graphs.get(PREDICTOR))

    @cached_property
    def decision(self) -> Graph | None:
        """A joint with the argmax inside, in whatever file it is; None if there is none."""
        loaded = [graph for graph in (self.joint, self.decoder) if graph is not None]
        found = next((graph for graph in loaded if gives_decisions(graph)), None)
        return find_decision(self.root) if found is None and self.joint is None else found

    @property
    def family(self) -> str:
        """What the encoder is for; whole recordings if there is none."""
        return encoder_family(self.graphs[ENCODER]) if ENCODER in self.graphs else OFFLINE

    @property
    def streaming(self) -> bool:
        """Whether the encoder has caches."""
        return ENCODER in self.graphs and is_cache_aware(self.graphs[ENCODER])

    @cached_property
    def tokenizer(self) -> dict[str, Any]:
        """The content of tokenizer.json; empty if there is none that can be read."""
        try:
            file = find_file(self.root, "tokenizer.json")
            return {} if file is None else read_json(file)
        except BundleError:
            return {}

    @property
    def lacks_unknown(self) -> bool:
        """Whether tokenizer.json is a Unigram model that names no unknown piece, which onnxruntime-genai demands."""
        model = self.tokenizer.get("model")
        return isinstance(model, dict) and model.get("type") == "Unigram" and model.get("unk_id") is None

    @cached_property
    def row_width(self) -> int | None:
        """Width of a joint row; None if it is unknown."""
        if self.joint is None:
            return None
        return row_width(self._shaped_outputs(self.joint))

    @cached_property
    def embedding(self) -> Embedding | None:
        """The predictor's embedding; None if it is not found."""

        def embedding(graph: Graph) -> Embedding | None:
            graph = with_state(graph).graph
            return find_embedding(graph, token_inputs(graph).targets)

        return self._attempt(embedding, self.decoder)

    @property
    def embedding_rows(self) -> int | None:
        """V + 1, the number of rows of the predictor's embedding; None if it is not found."""
        return None if self.embedding is None else self.embedding.rows

    @cached_property
    def states(self) -> tuple[Port, ...]:
        """The predictor's inputs for states."""

        def states(graph: Graph) -> tuple[Port, ...]:
            frames = encoder_input(graph).name if COMBINED in self.graphs else None
            return tuple(port for port in token_inputs(graph).floats if port.name != frames)

        return self._attempt(states, self.decoder) or ()

    @cached_property
    def audio_port(self) -> Port | None:
        """The encoder's input for features."""
        return self._attempt(
            lambda graph: next((port for port in graph.inputs if port.is_float and port.rank == 3), None),
            self.graphs.get(ENCODER),
        )

    @property
    def mel_bins(self) -> int | None:
        """The mel bins of the features that the encoder takes; None if it leaves them open."""
        return self._size_of_audio(self.mel_axis)

    @property
    def fixed_time(self) -> int | None:
        """The feature frames that the encoder takes; None if it takes any number."""
        return self._size_of_audio(3 - self.mel_axis)

    @property
    def mel_place(self) -> str:
        """Where the number of mel bins stands in the encoder."""
        assert self.audio_port is not None
        return f"the {self.axis_names[0]} axis of {self.audio_port.name}"

    @property
    def axis_names(self) -> tuple[str, str]:
        """Which axes of the features are those of the mel bins and of time, in words."""
        return ("second", "third") if self.mel_axis == 1 else ("third", "second")

    @property
    def mel_axis(self) -> int:
        """The axis of the mel bins in the features."""
        if self.caches is not None:
            return 3 - self.caches.time_axis
        return 2 if ENCODER in self.graphs and takes_time_first(self.graphs[ENCODER]) else 1

    def _size_of_audio(self, axis: int) -> int | None:
        size = None if self.audio_port is None else self.audio_port.shape[axis]
        return size if isinstance(size, int) else None

    @cached_property
    def caches(self) -> EncoderCaches | None:
        """The ports and windows of a cache-aware encoder, as its graph says them; None if they cannot be read."""
        return self._attempt(self.read_caches, self.graphs.get(ENCODER)) if self.streaming else None

    def read_caches(self, graph: Graph) -> EncoderCaches:
        """As `caches`; a `BundleError` if they cannot be read."""
        file = self.root / self.configuration_name
        stated = genai.stated_windows(self.model, file) if self.layout == "genai" else (
            combined.stated_windows(self.configuration, file))  # fmt: skip
        mel_bins = str(self.model.get("num_mels", self.metadata.get("feat_dim")))
        return read_caches(graph, stated, int(mel_bins) if mel_bins.isdecimal() else None, check=False)

    @cached_property
    def spaces(self) -> Spaces | None:
        """How the token file writes the space; None if it cannot be read."""
        table = self.tokens
        if table is None or table.irregular or not table.regular_ids:
            return None
        blanks = table.blanks or ([len(table.entries) - 1] if len(table.entries) == self.embedding_rows else [-1])
        return read_spaces(table.pieces(), blanks[0])

    @property
    def entries(self) -> int | None:
        """V + 1, the number of tokens with blank: from the embedding, else from the token file; None if unknown."""
        if self.embedding_rows is not None:
            return self.embedding_rows
        return None if self.tokens is None or not self.tokens.blanks else len(self.tokens.entries)

    @property
    def durations(self) -> int | None:
        """D, the number of durations in a joint row; None if it is unknown."""
        if self.row_width is None or self.entries is None:
            return None
        behind = self.row_width - self.entries
        try:
            big_blanks = known_big_blanks(self.root, None)
        except BundleError:  # reading the whole bundle reports it
            big_blanks = ()
        return behind - len(big_blanks) if len(big_blanks) == behind else behind

    def add_problem(self, code: str, error: BundleError, expected: str, remedy: str) -> None:
        """Record an error in reading as a problem."""
        self.problems.append(Problem(code, Path(error.file).name, error.field or "", error.problem, expected, remedy))

    @staticmethod
    def _attempt(read: Callable[[Graph], Value], graph: Graph | None) -> Value | None:
        if graph is None:
            return None
        try:
            return read(graph)
        except BundleError:  # reading the whole bundle reports it
            return None

    @staticmethod
    def _shaped_outputs(graph: Graph) -> tuple[Port, ...]:
        """The outputs, with shapes that ONNX Runtime infers if the graph does not state them."""
        outputs = graph.outputs
        if all(port.rank and isinstance(port.shape[-1], int) for port in outputs if port.is_float):
            return outputs
        try:
            inferred = {value.name: value.shape for value in graph.plain_session().get_outputs()}
        except Exception:  # ONNX Runtime's exceptions share no other base; reading the whole bundle reports them
            return outputs
        return tuple(Port(port.name, port.dtype, tuple(inferred[port.name])) for port in outputs)


def collect(root: Path, layout: str, variant: str | None) -> Evidence:
    """Read everything in a directory that can be read.

    Parameters
    ----------
    root:
        The directory.
    layout, variant:
        As for `inspect`.

    Raises
    ------
    InputError
        If `layout` or `variant` is wrong.
    """
    if layout != "auto" and layout not in GRAPH_NAMES:
        raise InputError(f"layout must be 'auto' or one of {', '.join(map(repr, GRAPH_NAMES))}, got {layout!r}")
    check_variant(variant)
    chosen = _layout(root, variant) if layout == "auto" else layout
    evidence = Evidence(root, chosen, variant)
    if chosen is None:
        return evidence
    if chosen in ("genai", "combined"):
        evidence.configuration = _json(evidence, evidence.configuration_name)
    if chosen == "genai":
        evidence.audio_configuration = _json(evidence, "audio_processor_config.json")
    names = {role: _graph_name(evidence, role, name) for role, name in GRAPH_NAMES[chosen].items()}
    if chosen != "genai":
        try:
            evidence.names = names_of(chosen, root, variant)
            names = _by_role(evidence.names)
        except BundleError:  # reading the whole bundle reports it
            pass
    found = {role: variants_of(root, name, variant) for role, name in names.items()}
    if variant is None and not any(None in files for files in found.values()):
        evidence.variant = next((key for files in found.values() for key in files), None)
    evidence.variants = tuple(key for files in found.values() for key in files)
    for role, files in found.items():
        chosen = next((key for key in (evidence.variant, None) if key in files), None)
        if chosen not in files and variant is None and len(files) == 1:
            chosen = next(iter(files))
        if chosen in files:
            _load(evidence, role, files[chosen])
    _read_tokens(evidence)
    return evidence


def _layout(root: Path, variant: str | None) -> str | None:
    """The layout that `read_bundle` would take, or the one that incomplete files suggest; None if there is no model."""
    names = [path.name for path in root.iterdir()]
    if genai.CONFIGURATION in names:
        return "genai"
    try:
        if split_names(root, variant) is not None:
            return "split"
    except BundleError:  # reading the whole bundle reports it
        return "split"
    if combined_names(root, variant) is not None:
        return "combined"
    for layout, stems in (("split", ("joiner",)), ("combined", ("decoder_joint",)), ("split", ("decoder",))):
        if any(name.startswith(stem) and name.endswith(".onnx") for name in names for stem in stems):
            return layout
    for layout, stem in (("combined", "encoder-model"), ("split", "encoder")):
        if any(name.startswith(stem) and name.endswith(".onnx") for name in names):
            return layout
    try:
        told = told_by_ports(root)
    except BundleError:  # reading the whole bundle reports it
        return "split"
    return None if told is None else told[0]


def _graph_name(evidence: Evidence, role: str, default: str) -> str:
    section = evidence.model.get(_SECTIONS.get(role, ""))
    name = section.get("filename", default) if isinstance(section, dict) else default
    plain = isinstance(name, str) and name and "\0" not in name
    return name if plain and not Path(name).is_absolute() and ".." not in Path(name).parts else default


def _load(evidence: Evidence, role: str, name: str) -> None:
    try:
        file = find_file(evidence.root, name)
    except BundleError as error:
        evidence.add_problem("file", error, "a regular file in the directory", "put the file itself there")
        return
    assert file is not None
    evidence.files[role] = file
    try:
        graph = load_graph(evidence.files[role], evidence.root)
        _ = graph.inputs, graph.outputs  # raises an error if they are not tensors
        evidence.graphs[role] = graph
    except BundleError as error:
        external = (error.field or "").startswith("external data")
        evidence.add_problem(
            "external-weights" if external else "graph",
            error,
            "weights in files beside the graph, with the names that the graph states" if external else "an ONNX graph",
            "put the file with the weights beside the graph, with that name, or download both again"
            if external
            else "download the file again, or export it again",
        )


def _read_tokens(evidence: Evidence) -> None:
    assert evidence.layout is not None
    for name in TOKEN_FILES[evidence.layout]:
        try:
            file = find_file(evidence.root, name)
            if file is not None:
                evidence.tokens = read_token_table(file)
                return
        except BundleError as error:
            evidence.add_problem(
                "tokens-form", error, "UTF-8 text of at most 32 MB", "write it again: `tdtdecode repair DIR -o OUT`"
            )
            return


def _json(evidence: Evidence, name: str) -> dict[str, Any]:
    try:
        file = find_file(evidence.root, name)
        return {} if file is None else read_json(file)
    except BundleError as error:
        evidence.add_problem(
            "configuration", error, "a JSON object", "correct it, or write it again: `tdtdecode repair DIR -o OUT`"
        )
        return {}
