"""Writing the GenAI layout, for onnxruntime-genai."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...bundle.blank import BLANK_NAMES
from ...bundle.description import FeatureSettings
from ...bundle.transducers import SplitTransducer
from ...bundle.vocabulary import SPACE, UNKNOWN
from ...errors import BundleError
from ...speech.audio.features import HOP, SAMPLE_RATE
from ...speech.windows import Windows
from ...transducer import TransducerSpec
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

_MAX_TOKENS = 1 << 20
"""Most tokens of a transcript. onnxruntime-genai stops there, and allocates four bytes per token in advance."""


def write(content: Content, folder: Path, suffix: str) -> None:
    """Write encoder, decoder and joint, the configurations, and the tokenizer's files.

    `suffix` is not used, because genai_config.json names one set of files.

    Raises
    ------
    BundleError
        If the model has no durations or no encoder, or takes other features than onnxruntime-genai computes.
    """
    joint = content.modules.joint.graph.file
    if not content.spec.durations:
        raise BundleError("has no durations (RNN-T); onnxruntime-genai's parakeet_tdt needs them", file=joint)
    if content.encoder is None or content.features.mel_bins is None:
        missing = "encoder" if content.encoder is None else "known number of mel bins"
        raise BundleError(f"has no {missing}, which a GenAI directory needs", file=joint)
    if content.features.normalize != "per_feature":
        raise BundleError(
            "its model takes features that are not normalised; onnxruntime-genai always normalises them", file=joint
        )
    write_json(folder / "genai_config.json", configuration(content.spec, content.features, content.modules))
    write_json(folder / "audio_processor_config.json", _audio(content))
    write_tokenizer(content.pieces, content.vocabulary.blank, folder)
    save_graph(write_encoder(content.encoder, content.metadata()), folder / "encoder.onnx")
    save_graph(write_predictor(content.modules.predictor, NAMES), folder / "decoder.onnx")
    save_graph(write_joint(content.modules.joint, NAMES), folder / "joint.onnx")


def configuration(spec: TransducerSpec, features: FeatureSettings, modules: SplitTransducer) -> dict[str, Any]:
    """The content of genai_config.json for graphs whose ports have the names in `NAMES`.

    It has no fields of our own, because onnxruntime-genai refuses fields that it does not know.
    """
    layers, hidden = modules.predictor.state_shapes[0]
    windows = Windows.of(features)
    samples = features.subsampling_factor * HOP
    model = {
        "type": "parakeet_tdt",
        "vocab_size": spec.vocab_size + 1,
        "context_length": _MAX_TOKENS,
        "blank_id": spec.blank,
        "bos_token_id": spec.blank,
        "eos_token_id": [spec.blank],
        "pad_token_id": spec.blank,
        "tdt_durations": list(spec.durations),
        "max_symbols_per_step": 10,
        "sample_rate": SAMPLE_RATE,
        "num_mels": features.mel_bins,
        "fft_size": 512,
        "hop_length": HOP,
        "win_length": 400,
        "preemph": 0.97,
        "log_eps": 2.0**-24,
        "norm_eps": 1e-5,
        "subsampling_factor": features.subsampling_factor,
        "chunk_samples": windows.chunk * samples,
        "left_context_samples": windows.left * samples,
        "right_context_samples": windows.right * samples,
        "encoder": {
            "filename": "encoder.onnx",
            "hidden_size": spec.encoder_size,
            "inputs": {"audio_features": "audio_signal", "input_lengths": "length"},
            "outputs": {"encoder_outputs": "outputs", "output_lengths": "encoded_lengths"},
        },
        "decoder": {
            "filename": "decoder.onnx",
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "inputs": {
                "targets": NAMES.targets,
                "targets_length": NAMES.target_length,
                "lstm_hidden_state": NAMES.states_in[0],
                "lstm_cell_state": NAMES.states_in[1],
            },
            "outputs": {
                "outputs": NAMES.output,
                "outputs_length": NAMES.output_length,
                "lstm_hidden_state": NAMES.states_out[0],
                "lstm_cell_state": NAMES.states_out[1],
            },
        },
        "joiner": {
            "filename": "joint.onnx",
            "inputs": {"encoder_outputs": NAMES.frames, "decoder_outputs": NAMES.prediction},
            "outputs": {"logits": NAMES.rows},
        },
        "speech": {"config_filename": "audio_processor_config.json"},
    }
    return {"model": model, "search": {"do_sample": False}}


def _audio(content: Content) -> dict[str, Any]:
    features = content.features
    settings = {"sample_rate": SAMPLE_RATE, "n_mels": features.mel_bins, "normalize": features.normalize}
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
