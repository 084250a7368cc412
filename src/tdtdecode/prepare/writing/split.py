"""Writing the split layout, for sherpa-onnx."""

from __future__ import annotations

from pathlib import Path

from ...errors import BundleError
from .content import Content, write_symbols
from .graphs import PortNames, write_encoder, write_joint, write_predictor
from .saving import save_graph

NAMES = PortNames(  # as in the official exports
    integers="int32",
    targets="targets",
    target_length="target_length",
    states_in=("states.1", "onnx::Slice_3"),
    output="outputs",
    output_length="prednet_lengths",
    states_out=("states", "162"),
    frames="encoder_outputs",
    prediction="decoder_outputs",
    rows="outputs",
)


def write(content: Content, folder: Path, suffix: str) -> None:
    """Write encoder, decoder, joiner and tokens.txt. The settings are written into the encoder's metadata.

    Raises
    ------
    BundleError
        If blank is not the last token, which sherpa-onnx requires, or if the durations are not 0, 1, 2, ... and there
        is no encoder to write them into.
    """
    spec, graph = content.spec, content.modules.joint.graph
    if spec.blank != spec.vocab_size:
        raise BundleError(
            f"has its blank at {spec.blank} of {spec.vocab_size + 1} tokens; sherpa-onnx, which the split layout is "
            "for, expects it last: convert to another layout",
            file=graph.file,
        )
    if content.encoder is None and spec.durations != tuple(range(spec.num_durations)):
        raise BundleError(
            f"has durations {list(spec.durations)}, which the split layout can only state in the encoder's metadata: "
            "add the encoder", file=graph.file,
        )  # fmt: skip
    if content.encoder is not None:
        save_graph(write_encoder(content.encoder, content.caches, content.metadata()), folder / f"encoder{suffix}.onnx")
    save_graph(write_predictor(content.modules.predictor, NAMES), folder / f"decoder{suffix}.onnx")
    save_graph(write_joint(content.modules.joint, NAMES), folder / f"joiner{suffix}.onnx")
    write_symbols(folder / "tokens.txt", content.pieces)
