"""Writing the GenAI layout, for onnxruntime-genai."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ...bundle.blank import BLANK_NAMES
from ...bundle.caches import EncoderCaches
from ...bundle.description import FeatureSettings
from ...bundle.genai import STREAMING_TYPE
from ...bundle.transducers import SplitTransducer
from ...bundle.vocabulary import SPACE, UNKNOWN
from ...errors import BundleError
from ...speech.audio.features import HOP, SAMPLE_RATE
from ...speech.windows import Windows
from ...transducer import TransducerSpec
from .cached import GENAI
from .content import Content, write_json
from .graphs import PortNames, write_encoder, write_joint, write_predictor
from .saving import save_graph

NAMES = PortNames(
    integers="int64",
    targets="targets",
    target_length="target_length_orig",
    states_in=("h_in", "c_in"),
    output="decoder_output",
    output_length="target_length",
    states_out=("h_out", "c_out"),
    frames="encoder_output",
    prediction="decoder_output",
    rows="joint_output",
    frames_axes="BTE",
    prediction_axes="BUH",
    log_softmax=True,
)

STREAMING_NAMES = replace(NAMES, target_length=None, output_axes="BHU", log_softmax=False)

_MAX_TOKENS = 1 << 20
"""Most tokens of a transcript. onnxruntime-genai stops there, and allocates four bytes per token in advance."""


def write(content: Content, folder: Path, suffix: str) -> None:
    """Write encoder, decoder and joint, the configurations, and the tokenizer's files.

    A model with a cache-aware encoder becomes one of the type ``nemotron_speech``, others of ``parakeet_tdt``. `suffix`
    is not used, because genai_config.json names one set of files.

    Raises
    ------
    BundleError
        If the model has no encoder, durations where its type has none or none where it needs them, or takes other
        features than onnxruntime-genai computes.
    """
    joint = content.modules.joint.graph.file
    if content.encoder is None or content.features.mel_bins is None:
        missing = "encoder" if content.encoder is None else "known number of mel bins"
        raise BundleError(f"has no {missing}, which a GenAI directory needs", file=joint)
    streaming = content.caches is not None
    if streaming and content.spec.durations:
        raise BundleError(
            "has durations (TDT); onnxruntime-genai's streaming models (nemotron_speech) are RNN-T", file=joint
        )
    if not streaming and not content.spec.durations:
        raise BundleError("has no durations (RNN-T); onnxruntime-genai's parakeet_tdt needs them", file=joint)
    if (content.features.normalize is None) != streaming:
        taken, always = ("normalised", "never") if streaming else ("not normalised", "always")
        raise BundleError(
            f"its model takes features that are {taken}; onnxruntime-genai {always} normalises them", file=joint
        )
    names = STREAMING_NAMES if streaming else NAMES
    if content.caches is None:
        settings = configuration(content.spec, content.features, content.modules)
    else:
        settings = streaming_configuration(content.spec, content.features, content.modules, content.caches)
    write_json(folder / "genai_config.json", settings)
    write_json(folder / "audio_processor_config.json", _audio(content))
    write_tokenizer(content.pieces, content.vocabulary.blank, folder)
    encoder = write_encoder(content.encoder, content.caches, content.metadata(), GENAI)
    save_graph(encoder, folder / "encoder.onnx")
    save_graph(write_predictor(content.modules.predictor, names), folder / "decoder.onnx")
    save_graph(write_joint(content.modules.joint, names), folder / "joint.onnx")


def configuration(spec: TransducerSpec, features: FeatureSettings, modules: SplitTransducer) -> dict[str, Any]:
    """The content of genai_config.json for graphs whose ports have the names in `NAMES`.

    It has no fields of our own, because onnxruntime-genai refuses fields that it does not know.
    """
    windows = Windows.of(features)
    samples = features.subsampling_factor * HOP
    model = {
        "type": "parakeet_tdt",
        **_common(spec, features),
        "tdt_durations": list(spec.durations),
        "norm_eps": 1e-5,
        "chunk_samples": windows.chunk * samples,
        "left_context_samples": windows.left * samples,
        "right_context_samples": windows.right * samples,
        "encoder": {
            "filename": "encoder.onnx",
            "hidden_size": spec.encoder_size,
            "inputs": {"audio_features": "audio_signal", "input_lengths": "length"},
            "outputs": {"encoder_outputs": "outputs", "output_lengths": "encoded_lengths"},
        },
        **_predictor_and_joint(modules, NAMES),
        "speech": {"config_filename": "audio_processor_config.json"},
    }
    return {"model": model, "search": {"do_sample": False}}


def streaming_configuration(
    spec: TransducerSpec, features: FeatureSettings, modules: SplitTransducer, caches: EncoderCaches
) -> dict[str, Any]:
    """As `configuration`, for a cache-aware encoder, and graphs whose ports have the names in `STREAMING_NAMES`.

    Raises
    ------
    BundleError
        If its frames are not as wide as its caches, which onnxruntime-genai takes for granted.
    """
    attention, convolution, _ = caches.caches
    layers, context, width = attention.shape
    if width != spec.encoder_size:
        raise BundleError(
            f"its encoder frames are {spec.encoder_size} wide and its caches {width}; onnxruntime-genai has one size "
            "for both", file=modules.joint.graph.file,
        )  # fmt: skip
    inputs = {
        "audio_features": "audio_signal", "input_lengths": "length",
        **{name: name for name in ("cache_last_channel", "cache_last_time", "cache_last_channel_len")},
    }  # fmt: skip
    if caches.prompt is not None:
        inputs["lang_id"] = GENAI.prompt
    outputs = {
        "encoder_outputs": "outputs", "output_lengths": "encoded_lengths",
        "cache_last_channel_next": "cache_last_channel_next", "cache_last_time_next": "cache_last_time_next",
        "cache_last_channel_len_next": GENAI.cache_length_next,
    }  # fmt: skip
    model = {
        "type": STREAMING_TYPE,
        **_common(spec, features),
        "left_context": context,
        "conv_context": convolution.shape[2],
        "pre_encode_cache_size": caches.overlap,
        "chunk_samples": caches.shift * HOP,
        "encoder": {
            "filename": "encoder.onnx",
            "hidden_size": width,
            "num_hidden_layers": layers,
            "inputs": inputs,
            "outputs": outputs,
        },
        **_predictor_and_joint(modules, STREAMING_NAMES),
        "speech": {"config_filename": "audio_processor_config.json"},
    }
    return {"model": model, "search": {"do_sample": False}}


def _common(spec: TransducerSpec, features: FeatureSettings) -> dict[str, Any]:
    """What both types of models have: the vocabulary, and the features."""
    return {
        "vocab_size": spec.vocab_size + 1,
        "context_length": _MAX_TOKENS,
        "blank_id": spec.blank,
        "bos_token_id": spec.blank,
        "eos_token_id": [spec.blank],
        "pad_token_id": spec.blank,
        "max_symbols_per_step": 10,
        "sample_rate": SAMPLE_RATE,
        "num_mels": features.mel_bins,
        "fft_size": 512,
        "hop_length": HOP,
        "win_length": 400,
        "preemph": 0.97,
        "log_eps": 2.0**-24,
        "subsampling_factor": features.subsampling_factor,
    }


def _predictor_and_joint(modules: SplitTransducer, names: PortNames) -> dict[str, Any]:
    layers, hidden = modules.predictor.state_shapes[0]
    of_length = ({}, {}) if names.target_length is None else (
        {"targets_length": names.target_length}, {"outputs_length": names.output_length}
    )  # fmt: skip
    return {
        "decoder": {
            "filename": "decoder.onnx",
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "inputs": {
                "targets": names.targets,
                "lstm_hidden_state": names.states_in[0],
                "lstm_cell_state": names.states_in[1],
                **of_length[0],
            },
            "outputs": {
                "outputs": names.output,
                "lstm_hidden_state": names.states_out[0],
                "lstm_cell_state": names.states_out[1],
                **of_length[1],
            },
        },
        "joiner": {
            "filename": "joint.onnx",
            "inputs": {"encoder_outputs": names.frames, "decoder_outputs": names.prediction},
            "outputs": {"logits": names.rows},
        },
    }


def _audio(content: Content) -> dict[str, Any]:
    features = content.features
    normalize = features.normalize or "none"
    settings = {"sample_rate": SAMPLE_RATE, "n_mels": features.mel_bins, "normalize": normalize}
    return {"model_type": "speech_features", "audio_params": settings}


def write_tokenizer(pieces: list[str], blank: int, folder: Path) -> None:
    """Write vocab.txt, one piece per line, tokenizer.json and tokenizer_config.json.

    tokenizer.json is a Unigram model. All its scores are 0, since only encoding text would need them. So would the
    unknown piece; onnxruntime-genai demands one, and where there is none the blank stands for it.
    """
    pieces = [*pieces[:blank], BLANK_NAMES[1], *pieces[blank + 1 :]]
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8", newline="\n")
    spaces = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}
    unknown = pieces.index(UNKNOWN) if UNKNOWN in pieces else blank
    added = {
        "id": blank, "content": BLANK_NAMES[1], "single_word": False, "lstrip": False,
        "rstrip": False, "normalized": False, "special": True,
    }  # fmt: skip
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added],
        "normalizer": None,
        "pre_tokenizer": spaces,
        "post_processor": None,
        "decoder": spaces,
        "model": {"type": "Unigram", "unk_id": unknown, "vocab": [[piece, 0.0] for piece in pieces]},
    }
    write_json(folder / "tokenizer.json", tokenizer)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer", "pad_token": BLANK_NAMES[1]})
