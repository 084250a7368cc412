"""Writing the combined layout, for NeMo and onnx-asr."""

from __future__ import annotations

from pathlib import Path

from ...bundle.names import COMBINED_NAMES, GraphNames
from .content import Content, write_json, write_symbols
from .graphs import PortNames, merge, write_encoder, write_joint, write_predictor
from .saving import save_graph

NAMES = PortNames(
    integers="int32",
    targets="targets",
    target_length="target_length",
    states_in=("input_states_1", "input_states_2"),
    output="/decoder/outputs",
    output_length="prednet_lengths",
    states_out=("output_states_1", "output_states_2"),
    frames="encoder_outputs",
    prediction="/joint/decoder_outputs",
    rows="outputs",
    output_axes="BUH",
    prediction_axes="BUH",
)


def write(content: Content, folder: Path, suffix: str, names: GraphNames = COMBINED_NAMES[0]) -> None:
    """Write the encoder, one graph of predictor and joint, vocab.txt and config.json."""
    features, spec = content.features, content.spec
    predictor = write_predictor(content.modules.predictor, NAMES)
    combined = merge(predictor, write_joint(content.modules.joint, NAMES), NAMES)
    save_graph(combined, folder / with_suffix(names.graphs[0], suffix))
    if content.encoder is not None:
        encoder = write_encoder(content.encoder, content.caches, content.metadata())
        save_graph(encoder, folder / with_suffix(names.encoder, suffix))
    write_symbols(folder / "vocab.txt", content.pieces)
    configuration = {
        "model_type": "nemo-conformer-tdt" if spec.durations else "nemo-conformer-rnnt",
        "features_size": features.mel_bins,
        "subsampling_factor": features.subsampling_factor,
        "normalize_type": features.normalize or "NA",
        "tdt_durations": list(spec.durations),
    }
    write_json(folder / "config.json", {name: value for name, value in configuration.items() if value is not None})


def with_suffix(name: str, suffix: str) -> str:
    """The name of a graph's file with a variant's suffix."""
    return f"{name.removesuffix('.onnx')}{suffix}.onnx"
