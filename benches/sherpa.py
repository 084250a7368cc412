"""sherpa-onnx on given encoder output: its encoder is a graph that holds it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .random_bundle import random_pieces, write_bundle
from .random_weights import Weights

MEL_BINS, RATE, FEATURE_FRAME = 80, 16000, 160


def sherpa_greedy(directory: Path, weights: Weights, encoder_out: np.ndarray, threads: int):
    """``decode()``: one utterance [E, T] through sherpa-onnx's greedy search; its token strings.

    It computes features of a moment of silence, which the encoder leaves unread: decoding one frame of encoder output
    takes that time and little else, to be subtracted.
    """
    import sherpa_onnx

    write_bundle(directory, "split", weights, random_pieces(weights), constant_encoder(encoder_out))
    recognizer = sherpa_onnx.OfflineRecognizer.from_transducer(
        **{part: str(directory / f"{part}.onnx") for part in ("encoder", "decoder", "joiner")},
        tokens=str(directory / "tokens.txt"),
        model_type="nemo_transducer",
        num_threads=threads,
    )
    silence = np.zeros(8 * FEATURE_FRAME, np.float32)

    def decode() -> list[str]:
        stream = recognizer.create_stream()
        stream.accept_waveform(RATE, silence)
        recognizer.decode_stream(stream)
        return stream.result.tokens

    return decode


def constant_encoder(encoder_out: np.ndarray) -> onnx.ModelProto:
    """Whatever features come, the given encoder output [E, T]."""
    size, frames = encoder_out.shape
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["held"], ["outputs"]),
            helper.make_node("Identity", ["held_length"], ["encoded_lengths"]),
        ],
        "main_graph",
        [
            helper.make_tensor_value_info("audio_signal", onnx.TensorProto.FLOAT, ["B", MEL_BINS, "T"]),
            helper.make_tensor_value_info("length", onnx.TensorProto.INT64, ["B"]),
        ],
        [
            helper.make_tensor_value_info("outputs", onnx.TensorProto.FLOAT, [1, size, frames]),
            helper.make_tensor_value_info("encoded_lengths", onnx.TensorProto.INT64, [1]),
        ],
        [
            numpy_helper.from_array(np.ascontiguousarray(encoder_out[None]), "held"),
            numpy_helper.from_array(np.array([frames], np.int64), "held_length"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
