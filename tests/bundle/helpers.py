"""Small random bundles, and running their graphs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from benches.random_bundle import make_bundle
from tdtdecode.bundle import Bundle, CombinedTransducer

SMALL = {"vocab_size": 12, "encoder_size": 16, "predictor_size": 8, "joint_size": 10, "tokens_per_second": None}


def small_bundle(directory: Path, layout: str = "combined", **options) -> Path:
    return make_bundle(directory, layout, **{**SMALL, **options})


def concrete(shape, batch: int) -> list[int]:
    return [batch if dim is None else dim for dim in shape]


def step(bundle: Bundle, frames: np.ndarray, tokens: np.ndarray, states: list[np.ndarray]):
    """Rows [B, W] and new states for encoder frames [B, E], tokens [B] and states [L, B, H]."""
    transducer = bundle.transducer
    batch = len(tokens)
    whole = isinstance(transducer, CombinedTransducer)
    part = transducer if whole else transducer.predictor
    feeds = {part.targets.name: tokens[:, None].astype(part.targets.dtype)}
    if part.target_length is not None:
        feeds[part.target_length.name] = np.ones(batch, part.target_length.dtype)
    feeds.update((port.name, state.astype(port.dtype)) for port, state in zip(part.states_in, states, strict=True))
    joint = transducer if whole else transducer.joint
    frame_feed = frames.reshape(concrete(joint.encoder_shape, batch)).astype(joint.encoder.dtype)
    if whole:
        feeds[joint.encoder.name] = frame_feed
    names = [part.output.name, *(port.name for port in part.states_out)]
    output, *new = part.graph.session(None, ["CPUExecutionProvider"]).run(names, feeds)
    assert list(output.shape) == concrete(part.output_shape, batch)
    for state, (layers, size) in zip(new, part.state_shapes, strict=True):
        assert state.shape == (layers, batch, size)
    if not whole:
        prediction = output.reshape(concrete(joint.predictor_shape, batch))
        (output,) = joint.graph.session(None, ["CPUExecutionProvider"]).run(
            [joint.output.name], {joint.encoder.name: frame_feed, joint.predictor.name: prediction}
        )
        assert list(output.shape) == concrete(joint.output_shape, batch)
    return output.reshape(batch, -1), new


def random_step(bundle: Bundle, batch: int = 5, seed: int = 0):
    """Frames, tokens and states to try a bundle with."""
    rng = np.random.default_rng(seed)
    transducer = bundle.transducer
    part = transducer if isinstance(transducer, CombinedTransducer) else transducer.predictor
    frames = rng.standard_normal((batch, bundle.spec.encoder_size)).astype(np.float32)
    tokens = rng.integers(0, bundle.spec.vocab_size + 1, batch)
    states = [rng.standard_normal((layers, batch, size)).astype(np.float32) for layers, size in part.state_shapes]
    return frames, tokens, states


def edit(file: Path, change) -> None:
    """Change a graph in its file."""
    model = onnx.load(file, load_external_data=False)
    change(model)
    onnx.save(model, file)


def store_as_float16(model: onnx.ModelProto) -> None:
    """Keep the weights in float16 behind a Cast, as some exports do."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}.fp16"))
            casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def set_metadata(file: Path, **entries: str | None) -> None:
    """Change entries of an encoder's metadata; None takes one out."""

    def change(model):
        found = {entry.key: entry.value for entry in model.metadata_props}
        onnx.helper.set_model_props(model, {k: v for k, v in (found | entries).items() if v is not None})

    edit(file, change)


def rewrite(file: Path, change) -> None:
    """Change the lines of a text file."""
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("".join(f"{line}\n" for line in change(lines)), encoding="utf-8")


def configure(file: Path, change) -> None:
    """Change a JSON file."""
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


TOKEN_FORMS = {
    "swapped": (lambda lines: [" ".join(reversed(line.rsplit(" ", 1))) for line in lines], "'id symbol'"),
    "pairs": (lambda lines: [f"['{s}', -{i}.25] {i}" for s, i in (x.rsplit(" ", 1) for x in lines)], "list of pairs"),
    "tuples": (lambda lines: [f"('{s}', -{i}.25) {i}" for s, i in (x.rsplit(" ", 1) for x in lines)], "list of pairs"),
    "pieces": (lambda lines: [line.rsplit(" ", 1)[0] for line in lines], "pieces without ids"),
    "list": (lambda lines: [json.dumps([line.rsplit(" ", 1)[0] for line in lines])], "a list or a map"),
    "map": (lambda lines: [json.dumps({s: int(i) for s, i in (x.rsplit(" ", 1) for x in lines)})], "a list or a map"),
}  # fmt: skip
"""What scripts make of a token file, and what an inspection says of it."""
