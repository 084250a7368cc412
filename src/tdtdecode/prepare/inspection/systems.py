"""What each system requires of a directory. Each function yields the reasons why a system cannot use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ...bundle.blank import BLANK_NAMES
from ...bundle.caches import ATTENTION, CONVOLUTION, EncoderCaches
from ...bundle.context import CONTEXT_SIZE
from ...bundle.genai import STREAMING_TYPE
from ...bundle.names import COMBINED_NAMES, VOSK
from ...bundle.split import VOSK_TOKENS
from ..writing.cached import NEMO
from .evidence import COMBINED, ENCODER, JOINT, PREDICTOR, Evidence
from .model_families import stated_big_blanks
from .report import Use

_SHERPA_FIELDS = ("vocab_size", "subsampling_factor", "pred_rnn_layers", "pred_hidden")
_SHERPA_OFFLINE_FIELDS = ("normalize_type",)
_SHERPA_ONLINE_FIELDS = (
    "window_size", "chunk_shift", *(f"{cache}_dim{i}" for cache in (ATTENTION, CONVOLUTION) for i in (1, 2, 3)),
)  # fmt: skip

DEFAULT_MEL_BINS = 80
"""What sherpa-onnx and onnx-asr assume if the number of mel bins is not stated."""

_CONVERT = "`tdtdecode convert` writes it so"
_OTHER_SPACES = "it knows no mark of the space but '\u2581': `tdtdecode repair DIR -o OUT` writes it"


def _all_files(evidence: Evidence) -> Iterator[str]:
    if ENCODER not in evidence.graphs:
        yield "there is no encoder that can be read"
    if evidence.decoder is None or evidence.joint is None:
        yield "the predictor or the joint is missing, or cannot be read"
    if evidence.tokens is None:
        yield "there is no token file that can be read"


def _float32(evidence: Evidence) -> Iterator[str]:
    for graph in evidence.graphs.values():
        floats = [port for port in (*graph.inputs, *graph.outputs) if port.is_float]
        narrow = [port.name for port in floats if port.dtype.name != "float32"]
        if narrow:
            yield f"{graph.file.name} has inputs or outputs that are not float32: {', '.join(narrow)}"


def _durations_in_order(evidence: Evidence) -> Iterator[str]:
    stated = evidence.configuration.get("tdt_durations") or evidence.metadata.get("tdt_durations")
    table = stated.split(",") if isinstance(stated, str) else stated
    if isinstance(table, list) and [str(d).strip() for d in table] != [str(i) for i in range(len(table))]:
        yield f"it assumes that the durations are 0, 1, 2, ..., not {', '.join(map(str, table))}"


def _common(evidence: Evidence) -> Iterator[str]:
    """What all systems require: all files, float32 inputs and outputs, and audio of any length."""
    yield from _all_files(evidence)
    if stated_big_blanks(evidence) is not None:
        yield "it knows no big blanks, and takes them for tokens or durations"
    if not _all_float16(evidence):
        yield from _float32(evidence)
    yield from _any_length(evidence)
    if evidence.streaming and evidence.layout == "combined":
        yield f"it takes no encoder for {evidence.family}"


def _all_float16(evidence: Evidence) -> bool:
    """Whether a streaming model has float16 ports only, which onnxruntime-genai takes."""
    if not evidence.streaming or evidence.layout != "genai":
        return False
    ports = [port for graph in evidence.graphs.values() for port in (*graph.inputs, *graph.outputs) if port.is_float]
    return all(port.dtype.name == "float16" for port in ports)


def _any_length(evidence: Evidence) -> Iterator[str]:
    if evidence.fixed_time is not None and evidence.mel_bins is not None and not evidence.streaming:
        yield f"the encoder takes exactly {evidence.fixed_time} feature frames, so it cannot take audio of any length"


def sherpa_onnx(evidence: Evidence) -> Iterator[str]:
    """Reasons why sherpa-onnx cannot use a split directory."""
    yield from _durations_in_order(evidence)
    more = _SHERPA_ONLINE_FIELDS if evidence.streaming else _SHERPA_OFFLINE_FIELDS
    missing = [name for name in (*_SHERPA_FIELDS, *more) if name not in evidence.metadata]
    if ENCODER in evidence.graphs and missing:
        yield f"the encoder's metadata has no {', '.join(missing)}: `tdtdecode repair DIR -o OUT` adds them"
    table = evidence.tokens
    if table is not None and (len(table.entries) - 1, BLANK_NAMES[0]) not in table.entries:
        yield f"{BLANK_NAMES[0]} is not the last token"
    if evidence.streaming and evidence.durations:
        yield "it has no streaming TDT: it reads a streaming encoder's model as RNN-T, and durations as tokens"
    caches = evidence.caches
    if caches is not None:
        yield from _order_of_axes(caches, time_first=False)
        if caches.prompt is not None and caches.prompt.name != NEMO.prompt:
            yield f"it calls the number of the language {NEMO.prompt}, not {caches.prompt.name}: {_CONVERT}"
        if caches.prompt is not None and not {"prompt_dictionary", "auto_prompt_id"} & set(evidence.metadata):
            yield "the encoder's metadata has neither prompt_dictionary nor auto_prompt_id, so it tells no language"
    if evidence.spaces is not None and evidence.tokens is not None:
        if list(evidence.spaces.pieces) != evidence.tokens.pieces():
            yield _OTHER_SPACES
    if len(evidence.states) not in (0, 2):
        yield f"the predictor has {len(evidence.states)} states; expected two or none"


def _order_of_axes(caches: EncoderCaches, time_first: bool) -> Iterator[str]:
    """Whether features, frames and caches have their axes in the order that a system expects."""
    if caches.layers_first:
        yield f"the layers come before the streams in the caches: {_CONVERT}"
    if (caches.time_axis == 1) != time_first:
        wanted = "[batch, time, mel]" if time_first else "[batch, mel, time]"
        yield f"it takes features {wanted}, and the encoder {caches.audio}: {_CONVERT}"


def onnx_asr(evidence: Evidence) -> Iterator[str]:
    """Reasons why onnx-asr cannot use a combined directory."""
    yield from _durations_in_order(evidence)
    named = {ENCODER: {"audio_signal", "length", "outputs", "encoded_lengths"}, COMBINED: {
        "encoder_outputs", "targets", "target_length", "input_states_1", "input_states_2", "outputs", "output_states_1",
        "output_states_2"}}  # fmt: skip
    for role, names in named.items():
        graph = evidence.graphs.get(role)
        absent = names - {port.name for port in (*graph.inputs, *graph.outputs)} if graph is not None else set()
        if absent and graph is not None:
            yield f"{graph.file.name} has no inputs or outputs with the names {', '.join(sorted(absent))}"
    encoder = evidence.graphs.get(ENCODER)
    usual = COMBINED_NAMES[0]
    if encoder is not None and not encoder.file.name.startswith(usual.encoder.removesuffix(".onnx")):
        yield f"it looks for {usual.encoder} and {usual.graphs[0]}, not for {encoder.file.name}"
    narrow = [port.name for port in encoder.outputs if port.dtype.name == "int32"] if encoder is not None else []
    if narrow:
        yield f"it wants int64 lengths from the encoder, and {', '.join(narrow)} is int32"
    if evidence.tokens is not None and BLANK_NAMES[0] not in evidence.tokens.pieces():
        yield f"no token is called {BLANK_NAMES[0]}, as it looks for the blank: `tdtdecode repair DIR -o OUT` writes it"
    if evidence.tokens is not None and evidence.tokens.file.name != "vocab.txt":
        yield f"the token file is called {evidence.tokens.file.name}, not vocab.txt"
    if evidence.spaces is not None and not evidence.spaces.is_usual:
        yield _OTHER_SPACES
    mel = evidence.mel_bins
    if mel is not None and mel not in (80, 128):
        yield f"it computes features of 80 or 128 mel bins, not {mel}"
    if (evidence.configuration.get("normalize_type") or evidence.metadata.get("normalize_type")) == "NA":
        yield "it normalises features, but this model takes features that are not normalised"


def _sherpa_onnx_k2(evidence: Evidence) -> Iterator[str]:
    """Reasons why sherpa-onnx cannot use a model of k2."""
    decoder = evidence.graphs.get(PREDICTOR)
    if decoder is not None:
        stated = {entry.key: entry.value for entry in decoder.model.metadata_props}
        missing = [name for name in ("vocab_size", CONTEXT_SIZE) if name not in stated]
        if missing:
            yield f"the metadata of {decoder.file.name} has no {', '.join(missing)}"
        elif evidence.entries is not None and stated["vocab_size"] != str(evidence.entries):
            yield f"the metadata of {decoder.file.name} has vocab_size {stated['vocab_size']}, not {evidence.entries}"
    if ENCODER in evidence.graphs and "model_type" not in evidence.metadata:
        yield "the encoder's metadata has no model_type"
    yield from _blank_first(evidence)


def _onnx_asr_k2(evidence: Evidence) -> Iterator[str]:
    """Reasons why onnx-asr cannot use a model of k2."""
    if evidence.names != VOSK:
        yield f"it looks for {' and '.join((VOSK.encoder, *VOSK.graphs))} in Vosk's folders, and for {VOSK_TOKENS}"
    if evidence.context != 2:
        yield f"it gives the predictor 2 tokens, and this one takes {evidence.context}"
    if evidence.mel_bins not in (None, DEFAULT_MEL_BINS):
        yield f"it computes features of {DEFAULT_MEL_BINS} mel bins, not {evidence.mel_bins}"
    yield from _blank_first(evidence)


def _blank_first(evidence: Evidence) -> Iterator[str]:
    table = evidence.tokens
    if table is not None and (0, BLANK_NAMES[0]) not in table.entries:
        yield f"{BLANK_NAMES[0]} is not the first token"


_K2 = {"sherpa-onnx": _sherpa_onnx_k2, "onnx-asr": _onnx_asr_k2}
"""The systems that use models of k2."""


def onnxruntime_genai(evidence: Evidence) -> Iterator[str]:
    """Reasons why onnxruntime-genai cannot use a GenAI directory."""
    model, streaming = evidence.model, evidence.streaming
    expected = STREAMING_TYPE if streaming else "parakeet_tdt"
    if model.get("type") != expected:
        yield f"model.type is {model.get('type')!r}, not {expected!r}"
    missing = [name for name in (_GENAI_STREAMING_FIELDS if streaming else _GENAI_FIELDS) if name not in model]
    if missing:
        yield f"genai_config.json has no model.{', model.'.join(missing)}"
    if streaming:
        yield from _genai_streaming(evidence)
    ends = model.get("eos_token_id")
    listed = ends if isinstance(ends, list) else [ends]
    if not streaming and "eos_token_id" in model and model.get("blank_id") not in listed:
        yield "model.eos_token_id does not contain the blank, so a transcript would never end"
    unknown = sorted(set(model) - _GENAI_KNOWN)
    if unknown:
        yield f"it refuses some fields in genai_config.json: model.{', model.'.join(unknown)}"
    yield from _genai_names(evidence)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if not (evidence.root / name).exists():
            yield f"there is no {name}"
    if evidence.lacks_unknown:
        yield "tokenizer.json names no unknown piece (model.unk_id): `tdtdecode repair DIR -o OUT` writes it"


def _genai_streaming(evidence: Evidence) -> Iterator[str]:
    """What a streaming model must have besides."""
    if evidence.durations:
        yield f"its streaming models are RNN-T, and the joint has {evidence.durations} durations"
    if evidence.caches is not None:
        yield from _order_of_axes(evidence.caches, time_first=True)
    sizes = {"encoder": ("hidden_size", "num_hidden_layers"), "decoder": ("hidden_size", "num_hidden_layers")}
    for section, names in sizes.items():
        stated = evidence.model.get(section)
        absent = [f"model.{section}.{name}" for name in names if isinstance(stated, dict) and name not in stated]
        if absent:
            yield f"genai_config.json has no {', '.join(absent)}"
    graph = evidence.graphs.get(PREDICTOR)
    if graph is not None and any(port.rank == 1 for port in graph.inputs):
        yield f"{graph.file.name} wants the number of the targets, which it does not tell: {_CONVERT}"


def _genai_names(evidence: Evidence) -> Iterator[str]:
    """Check that the configuration names the graphs' inputs and outputs as they are named in the graphs."""
    unnamed = []
    for section, role in (("encoder", ENCODER), ("decoder", PREDICTOR), ("joiner", JOINT)):
        graph, stated = evidence.graphs.get(role), evidence.model.get(section)
        if graph is None or not isinstance(stated, dict):
            continue
        known = _GENAI_STREAMING_PORTS if evidence.streaming else _GENAI_PORTS
        for side, ports in (("inputs", graph.inputs), ("outputs", graph.outputs)):
            names = stated.get(side, {})
            for key, default in known[section][side].items():
                name = names.get(key, default) if isinstance(names, dict) else default
                if name is None:
                    unnamed.append(f"model.{section}.{side}.{key}")
                elif name not in {port.name for port in ports}:
                    yield f"{graph.file.name} has no {name!r}, but model.{section}.{side}.{key} names it"
    if unnamed:
        yield f"genai_config.json does not name some inputs or outputs: {', '.join(unnamed)}"


_GENAI_FIELDS = (
    "vocab_size", "blank_id", "context_length", "eos_token_id", "tdt_durations", "max_symbols_per_step", "sample_rate",
    "num_mels", "fft_size", "hop_length", "win_length", "preemph", "log_eps", "norm_eps", "subsampling_factor",
    "chunk_samples", "left_context_samples", "right_context_samples", "encoder", "decoder", "joiner",
)  # fmt: skip
_GENAI_STREAMING_FIELDS = (
    "blank_id", "max_symbols_per_step", "sample_rate", "num_mels", "fft_size", "hop_length", "win_length", "preemph",
    "log_eps", "left_context", "conv_context", "pre_encode_cache_size", "chunk_samples", "encoder", "decoder", "joiner",
)  # fmt: skip
_GENAI_KNOWN = {*_GENAI_FIELDS, "type", "bos_token_id", "pad_token_id", "speech", "tokenizer_dir", "left_context",
                "conv_context", "pre_encode_cache_size", "vad", "sep_token_id", "decoder_start_token_id"}
# The names that onnxruntime-genai assumes if the configuration states none; None if it assumes no name.
_GENAI_PORTS: dict[str, dict[str, dict[str, str | None]]] = {
    "encoder": {
        "inputs": {"audio_features": "audio_features", "input_lengths": "length"},
        "outputs": {"encoder_outputs": "encoder_outputs", "output_lengths": "encoded_lengths"},
    },
    "decoder": {
        "inputs": {"targets": None, "targets_length": None, "lstm_hidden_state": None, "lstm_cell_state": None},
        "outputs": {"outputs": None, "outputs_length": None, "lstm_hidden_state": None, "lstm_cell_state": None},
    },
    "joiner": {
        "inputs": {"encoder_outputs": "encoder_outputs", "decoder_outputs": "decoder_outputs"},
        "outputs": {"logits": "outputs"},
    },
}  # fmt: skip

_CACHES = ("cache_last_channel", "cache_last_time", "cache_last_channel_len")
_GENAI_STREAMING_PORTS: dict[str, dict[str, dict[str, str | None]]] = {
    "encoder": {
        "inputs": _GENAI_PORTS["encoder"]["inputs"] | {name: name for name in _CACHES},
        "outputs": _GENAI_PORTS["encoder"]["outputs"] | {f"{name}_next": f"{name}_next" for name in _CACHES},
    },
    "decoder": {
        "inputs": {"targets": None, "lstm_hidden_state": None, "lstm_cell_state": None},
        "outputs": {"outputs": None, "lstm_hidden_state": None, "lstm_cell_state": None},
    },
    "joiner": _GENAI_PORTS["joiner"],
}  # fmt: skip

SYSTEMS: dict[str, tuple[str, Callable[[Evidence], Iterator[str]]]] = {
    "sherpa-onnx": ("split", sherpa_onnx),
    "onnx-asr": ("combined", onnx_asr),
    "onnxruntime-genai": ("genai", onnxruntime_genai),
}
"""Systems other than this package, each with the layout it reads and its own requirements."""


def reasons_against(evidence: Evidence, system: str) -> Iterator[str]:
    """The reasons why a system cannot use a directory; nothing if it can."""
    layout, requirements = SYSTEMS[system]
    if evidence.context is not None:
        if system not in _K2:
            yield f"{system} uses no models of k2"
            return
        yield from _all_files(evidence)
        yield from _any_length(evidence)
        yield from _K2[system](evidence)
        return
    if evidence.layout != layout:
        yield f"{system} reads the {layout} layout: `tdtdecode convert DIR --to {layout} -o OUT`"
        return
    yield from _common(evidence)
    yield from requirements(evidence)


_OVERLOOKED = {
    "sherpa-onnx": {"mel-bins", "subsampling"},
    "onnxruntime-genai": {"vocab-size", "vocab-size-unknown", "durations-missing", "durations-count", "subsampling"},
}
"""Codes of problems that a system does not notice in streaming models: it does not read what is wrong."""


def uses(evidence: Evidence, ours: str | None, problems: dict[str, str]) -> tuple[Use, ...]:
    """Which systems can use the directory, this package first.

    Parameters
    ----------
    ours:
        Why this package cannot read the directory; None if it can.
    problems:
        The directory's problems as reasons, by code.
    """
    found = [Use("tdtdecode", ours is None, () if ours is None else (ours,))]
    for system, (layout, _) in SYSTEMS.items():
        overlooked = _OVERLOOKED.get(system, set()) if evidence.streaming else set()
        reads = evidence.layout == layout if evidence.context is None else system in _K2
        counted = [reason for code, reason in problems.items() if reads and code not in overlooked]
        against = [*reasons_against(evidence, system), *counted]
        found.append(Use(system, not against, tuple(dict.fromkeys(against))))
    return tuple(found)
