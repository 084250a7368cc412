"""Runs sherpa-onnx on given encoder output. Its encoder is a graph that returns this output, whatever it gets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .random_bundle import random_pieces, write_bundle
from .random_weights import Weights

MEL_BINS, RATE, FEATURE_FRAME = 80, 16000, 160


def sherpa_decoder(
    directory: Path, weights: Weights, encoder_out: np.ndarray, threads: int, beam: int | None = None, batch: int = 1
):
    """A function ``decode()`` that runs sherpa-onnx on one utterance's encoder output [E, T], ``batch`` times.

    It returns the token strings of each. The search is greedy, or sherpa-onnx's modified beam search with ``beam``
    paths. Each call also computes features, of a moment of silence that the encoder ignores. Decoding a single frame of
    encoder output takes that time and little else, so it can be measured and subtracted.
    """
    import sherpa_onnx

    write_bundle(directory, "split", weights, random_pieces(weights), constant_encoder(encoder_out))
    recognizer = sherpa_onnx.OfflineRecognizer.from_transducer(
        **{part: str(directory / f"{part}.onnx") for part in ("encoder", "decoder", "joiner")},
        tokens=str(directory / "tokens.txt"),
        model_type="nemo_transducer",
        num_threads=threads,
        decoding_method="greedy_search" if beam is None else "modified_beam_search",
        max_active_paths=beam or 1,
    )
    silence = np.zeros(8 * FEATURE_FRAME, np.float32)

    def decode() -> list[list[str]]:
        streams = [recognizer.create_stream() for _ in range(batch)]
        for stream in streams:
            stream.accept_waveform(RATE, silence)
        recognizer.decode_streams(streams)
        return [stream.result.tokens for stream in streams]

    return decode


def constant_encoder(encoder_out: np.ndarray) -> onnx.ModelProto:
    """A graph that returns the given encoder output [E, T] for each utterance of the batch, whatever its features."""
    size, frames = encoder_out.shape
    graph = helper.make_graph(
        [
            helper.make_node("Shape", ["length"], ["batch"]),
            helper.make_node("Concat", ["batch", "one", "one"], ["repeats"], axis=0),
            helper.make_node("Tile", ["held", "repeats"], ["outputs"]),
            helper.make_node("Tile", ["held_length", "batch"], ["encoded_lengths"]),
        ],
        "main_graph",
        [
            helper.make_tensor_value_info("audio_signal", onnx.TensorProto.FLOAT, ["B", MEL_BINS, "T"]),
            helper.make_tensor_value_info("length", onnx.TensorProto.INT64, ["B"]),
        ],
        [
            helper.make_tensor_value_info("outputs", onnx.TensorProto.FLOAT, ["B", size, frames]),
            helper.make_tensor_value_info("encoded_lengths", onnx.TensorProto.INT64, ["B"]),
        ],
        [
            numpy_helper.from_array(np.ascontiguousarray(encoder_out[None]), "held"),
            numpy_helper.from_array(np.array([frames], np.int64), "held_length"),
            numpy_helper.from_array(np.ones(1, np.int64), "one"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
