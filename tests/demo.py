"""The demo model for tests: its weights lifted out of the shipped layout, and written again in the others."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx

from benches.random_bundle import write_bundle
from benches.random_weights import LstmLayer, Weights
from tdtdecode.speech.hub import demo_directory

DIRECTORY = demo_directory()
RECORDINGS = Path(__file__).parent / "recordings"


@lru_cache(maxsize=1)
def recordings() -> dict[str, tuple[np.ndarray, str]]:
    """Held-out synthetic speech by file name: float32 samples at 16 kHz, and what is said."""
    import soundfile

    texts = json.loads((RECORDINGS / "texts.json").read_text())
    return {name: (soundfile.read(RECORDINGS / name, dtype="float32")[0], text) for name, text in texts.items()}


def pieces() -> list[str]:
    """The vocabulary by id, blank last."""
    lines = (DIRECTORY / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return [line.rsplit(" ", 1)[0] for line in lines]


@lru_cache(maxsize=1)
def weights() -> Weights:
    """Predictor and joint as float32 arrays."""
    model = onnx.load(DIRECTORY / "decoder_joint-model.onnx")
    arrays = {t.name: onnx.numpy_helper.to_array(t).astype(np.float32) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in arrays:  # stored as float16
            arrays[node.output[0]] = arrays[node.input[0]]

    def linear(name: str) -> tuple[np.ndarray, np.ndarray]:
        add = next(n for n in model.graph.node if n.op_type == "Add" and f"{name}.bias" in n.input)
        product = next(n for n in model.graph.node if n.op_type == "MatMul" and n.output[0] in add.input)
        return arrays[product.input[1]], arrays[f"{name}.bias"]

    layers = []
    for node in model.graph.node:
        if node.op_type == "LSTM":
            w, r, bias = (arrays[name][0] for name in node.input[1:4])
            layers.append(LstmLayer(w, r, *np.split(bias, 2)))
    enc, pred, out = linear("joint.enc"), linear("joint.pred"), linear("joint.joint_net.1")
    return Weights(
        embedding=arrays["decoder.prediction.embed.weight"],
        layers=tuple(layers),
        enc=enc[0], enc_bias=enc[1],
        pred=pred[0], pred_bias=pred[1],
        out=out[0], out_bias=out[1],
        durations=(0, 1, 2, 3, 4),
        blank=len(pieces()) - 1,
        activation="relu",
    )  # fmt: skip


def write_demo(directory: Path, layout: str) -> Path:
    """The demo model as a whole bundle in that layout."""
    return write_bundle(directory, layout, weights(), pieces(), onnx.load(DIRECTORY / "encoder-model.onnx"))
