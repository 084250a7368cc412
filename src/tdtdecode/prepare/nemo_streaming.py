"""`export --streaming`: the cache-aware encoder of a NeMo checkpoint, and its steps compared with NeMo's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle.onnx_files.dependencies import import_onnx
from ..errors import BundleError, InputError
from ..reprs import joined_names
from ..speech.streaming.cache_aware import CacheAwareEncoder

_STEPS = 24
"""The most windows in which an export is compared with NeMo: long enough that caches of 70 frames are full."""


def prepare_streaming(model: Any, context: Sequence[int] | None) -> None:
    """Make NeMo export a model's encoder with its caches, for one of its contexts.

    Parameters
    ----------
    context:
        Encoder frames to the left and to the right; None: the checkpoint's first.

    Raises
    ------
    InputError
        If the checkpoint was not trained for streaming, or not with that context.
    """
    encoder = model.encoder
    if not hasattr(encoder, "setup_streaming_params") or getattr(encoder, "streaming_cfg", None) is None:
        raise InputError(f"its encoder is a {type(encoder).__name__}, which NeMo does not stream")
    known = [list(map(int, size)) for size in encoder.att_context_size_all]
    if context is not None and list(context) not in known:
        listed = joined_names([f"{left},{right}" for left, right in known])
        raise InputError(f"context {context[0]},{context[1]}: the checkpoint was trained with {listed}")
    encoder.set_default_att_context_size(known[0] if context is None else list(context))
    model.set_export_config({"cache_support": "True"})
    config = encoder.streaming_cfg
    limits = []
    if min(encoder.att_context_size) < 0:
        limits.append("its attention sees the whole recording")
    elif config.cache_drop_size:
        limits.append("its attention looks ahead in every layer")
    if encoder.conv_context_size[1]:
        limits.append("its convolutions look ahead")
    if not isinstance(config.pre_encode_cache_size, (list, tuple)) or not config.drop_extra_pre_encoded:
        limits.append("its subsampling looks ahead")
    if limits:
        raise InputError(f"the checkpoint was not trained for streaming: {joined_names(limits)}. Export it whole")


def write_prompt(model: Any, file: Path) -> None:
    """Add the language prompt to an exported encoder, in place: NeMo's own export leaves it out.

    NeMo appends the language as a one-hot vector to each encoder frame, and computes two linear layers with a ReLU
    between. The part of the first layer that belongs to the languages is looked up instead.

    Raises
    ------
    InputError
        If the prompt is computed otherwise.
    """
    import torch

    layers = list(model.prompt_kernel)
    kinds = [type(layer) for layer in layers]
    if kinds != [torch.nn.Linear, torch.nn.ReLU, torch.nn.Linear]:
        raise InputError(f"its language prompt is computed by {joined_names([kind.__name__ for kind in kinds])}")
    onnx = import_onnx()
    helper = onnx.helper
    proto = onnx.load(file, load_external_data=False)
    graph = proto.graph
    width = layers[2].out_features
    for node in graph.node:
        for i, name in enumerate(node.output):
            node.output[i] = "prompt/frames" if name == "outputs" else name
    first, last = layers[0].weight.detach().numpy(), layers[2].weight.detach().numpy()
    weights = {
        "prompt/first": first[:, :width].T, "prompt/languages": first[:, width:].T,
        "prompt/first_bias": layers[0].bias.detach().numpy(), "prompt/last": last.T,
        "prompt/last_bias": layers[2].bias.detach().numpy(), "prompt/axis": np.array([1]),
    }  # fmt: skip
    graph.initializer.extend(
        onnx.numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()
    )
    steps = [
        ("Transpose", ["prompt/frames"], "prompt/by_time"),
        ("MatMul", ["prompt/by_time", "prompt/first"], "prompt/product"),
        ("Add", ["prompt/product", "prompt/first_bias"], "prompt/sum"),
        ("Gather", ["prompt/languages", "prompt_index"], "prompt/language"),
        ("Unsqueeze", ["prompt/language", "prompt/axis"], "prompt/of_all_frames"),
        ("Add", ["prompt/sum", "prompt/of_all_frames"], "prompt/hidden"),
        ("Relu", ["prompt/hidden"], "prompt/active"),
        ("MatMul", ["prompt/active", "prompt/last"], "prompt/second"),
        ("Add", ["prompt/second", "prompt/last_bias"], "prompt/result"),
        ("Transpose", ["prompt/result"], "outputs"),
    ]
    for kind, inputs, output in steps:
        options = {"perm": [0, 2, 1]} if kind == "Transpose" else {}
        graph.node.append(helper.make_node(kind, inputs, [output], name=output, **options))
    graph.input.append(helper.make_tensor_value_info("prompt_index", onnx.TensorProto.INT64, ["batch"]))
    languages = {str(name): int(i) for name, i in model.cfg.model_defaults.get("prompt_dictionary", {}).items()}
    entries = {"prompt_dictionary": json.dumps(languages, ensure_ascii=False)}
    if "auto" in languages:
        entries["auto_prompt_id"] = str(languages["auto"])
    helper.set_model_props(proto, entries)
    onnx.save(proto, file)


def has_prompt(model: Any) -> bool:
    """Whether the encoder's frames depend on a language."""
    return bool(getattr(model, "concat", False)) and hasattr(model, "prompt_kernel")


def compare_steps(model: Any, encoder: CacheAwareEncoder, features: np.ndarray) -> tuple[np.ndarray, float]:
    """Encode a recording window by window with NeMo and with the exported file.

    Parameters
    ----------
    features:
        float32 [mel, T].

    Returns
    -------
    NeMo's encoder frames, float32 [1, E, T'], and the largest difference of a step's frames or caches, relative to
    their largest value.

    Raises
    ------
    BundleError
        If a step gives another number of frames than NeMo's.
    """
    import torch

    caches = encoder.caches
    languages: list[int | None] = [None] if caches.prompt is None else [*sorted(set(caches.languages.values()))] or [0]
    theirs = model.encoder.get_initial_cache_state(batch_size=1)
    state = encoder.begin()
    found, worst = [], 0.0
    for step, start in enumerate(range(0, min(features.shape[1], _STEPS * caches.shift), caches.shift)):
        window = np.zeros((1, len(features), caches.window), np.float32)
        first, stop = max(start - caches.overlap, 0), min(start + caches.shift, features.shape[1])
        zeros = caches.overlap - (start - first)
        window[0, :, zeros : zeros + stop - first] = features[:, first:stop]
        length = np.array([zeros + stop - first])
        number = languages[step % len(languages)]
        (ours,), (state,) = encoder.step(window, length, [state], [number])
        with torch.inference_mode():
            frames, counts, *theirs = model.encoder.cache_aware_stream_step(
                processed_signal=torch.from_numpy(window), processed_signal_length=torch.from_numpy(length),
                cache_last_channel=theirs[0], cache_last_time=theirs[1], cache_last_channel_len=theirs[2],
                keep_all_outputs=False, drop_extra_pre_encoded=model.encoder.streaming_cfg.drop_extra_pre_encoded,
            )  # fmt: skip
            if number is not None:
                model._inference_prompt_index = number
                frames = model._apply_prompt_to_encoded(frames)
        expected = frames.numpy()[0, :, : int(counts[0])]
        if ours.shape != expected.shape:
            raise BundleError(
                f"step {step} gives frames {list(ours.shape)}, NeMo's {list(expected.shape)}", file=encoder._file
            )
        their_caches = [theirs[0].numpy().swapaxes(0, 1), theirs[1].numpy().swapaxes(0, 1), theirs[2].numpy()]
        for one, other in zip((ours, *state.arrays), (expected, *their_caches), strict=True):
            largest = max(float(np.abs(other).max(initial=0)), 1e-6)
            worst = max(worst, float(np.abs(one - other).max(initial=0)) / largest)
        found.append(expected)
    return np.concatenate(found, axis=1)[None], worst
