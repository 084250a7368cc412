"""The family of a model, the convention that its files follow, and what this package does with it, in words.

Beside that the problems of families that are mistaken for others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ...bundle.description import FEATURE_FRAME_SECONDS, Bundle
from ...bundle.encoder import takes_time_first
from ...bundle.names import COMBINED_CONVENTIONS, SPLIT, VOSK
from .evidence import ENCODER, Evidence
from .report import Problem

BIG_BLANKS = "big_blank_durations"
"""What NeMo's configurations call the frames of a multi-blank model's blanks."""

_UNIFIED = "nemo_parakeet_unified_streaming"
_LIST = re.compile(rf"^\s*{BIG_BLANKS}:\s*(\[[\d,\s]*\]|\n(?:\s*-\s*\d+\s*\n)+)", re.MULTILINE)


def stated_big_blanks(evidence: Evidence) -> tuple[list[int], str] | None:
    """The frames of big blanks that a configuration states, and in which file; None if none does.

    NeMo's own ``model_config.yaml`` counts, too, which some exports have beside the graphs.
    """
    encoder = evidence.graphs.get(ENCODER)
    sources: list[tuple[Any, str]] = [
        (evidence.configuration.get(BIG_BLANKS), evidence.configuration_name),
        (evidence.metadata.get(BIG_BLANKS), "" if encoder is None else encoder.file.name),
    ]
    match = _LIST.search(evidence.model_configuration)
    sources.append((match[1] if match else None, evidence.MODEL_CONFIGURATION))
    for value, file in sources:
        if value:
            return [int(number) for number in re.findall(r"\d+", str(value))], file
    return None


def family(evidence: Evidence) -> str:
    """What kind of transducer the graphs are."""
    if evidence.decision is not None:
        return "a transducer with the argmax inside its joint"
    if evidence.context is not None:
        tokens = "token" if evidence.context == 1 else "tokens"
        return f"RNN-T of k2 (icefall), whose predictor looks at the last {evidence.context} {tokens}"
    blanks = stated_big_blanks(evidence)
    if blanks is not None:
        return f"multi-blank RNN-T of NeMo, with blanks of {', '.join(map(str, blanks[0]))} frames"
    if "is_giga_am" in evidence.metadata or str(evidence.configuration.get("model_type", "")).startswith("gigaam"):
        return "RNN-T of GigaAM"
    if evidence.decoder is None or evidence.durations is None or evidence.durations < 0:
        return "unknown"
    kind = "TDT" if evidence.durations else "RNN-T"
    if evidence.metadata.get("streaming_model_type") == _UNIFIED:
        return f"{kind} of NeMo, parakeet-unified: no caches, the encoder runs anew over each window"
    encoder = "" if evidence.family == "whole recordings" else f", encoder for {evidence.family}"
    return f"{kind} of NeMo{encoder}"


def convention(evidence: Evidence) -> str:
    """Whose names and shapes the files have."""
    if evidence.layout == "genai":
        return "onnxruntime-genai"
    if evidence.layout == "split":
        if evidence.names == VOSK:
            return "Vosk"
        if evidence.context is not None:
            return "icefall, sherpa-onnx"
        return "sherpa-onnx" if evidence.names == SPLIT else "sherpa-onnx, under other names"
    found = next((name for name, names in COMBINED_CONVENTIONS.items() if names == evidence.names), None)
    return {None: "NeMo, under other names", "nemo": "NeMo, onnx-asr"}.get(found, str(found))


def treatment(evidence: Evidence, bundle: Bundle | None, refused: str | None) -> str:
    """What this package does with the model."""
    if bundle is None:
        return f"refuses it: {refused}" if refused else "refuses it"
    return "; ".join(_treatment(evidence, bundle))


def _treatment(evidence: Evidence, bundle: Bundle) -> Iterator[str]:
    if bundle.encoder is None:
        yield "decodes encoder output (there is no encoder)"
    elif bundle.cache_aware:
        yield "recognises recordings and live streams, window by window"
    elif bundle.features.fixed_input_frames is not None:
        seconds = bundle.features.fixed_input_frames * FEATURE_FRAME_SECONDS
        yield f"recognises recordings, in windows of {seconds:g} s, and live streams"
    else:
        yield "recognises recordings whole, and live streams in windows"
    if bundle.spec.max_symbols is not None:
        yield f"at most {bundle.spec.max_symbols} token on a frame"
    encoder = evidence.graphs.get(ENCODER)
    if encoder is not None and takes_time_first(encoder):
        yield "one recording at a time"
    if any(graph.quantized for graph in bundle.transducer.graphs):
        yield "int8 on the CPU"


def argmax_inside(evidence: Evidence) -> Iterator[Problem]:
    """A joint that gives the best token and not the scores of all."""
    if evidence.decision is not None:
        outputs = ", ".join(port.name for port in evidence.decision.outputs)
        yield Problem(
            "argmax-inside", evidence.decision.file.name, "", f"a joint that takes the best token itself and gives "
            f"{outputs}", "joint rows, the scores of all tokens: without them there is no beam search, no bias and no "
            "log-probability", "take the model's export with joint rows (decoder_joint.onnx, or decoder.onnx with "
            "joiner.onnx), or export it: `tdtdecode export MODEL.nemo`",
        )  # fmt: skip


def multi_blank(evidence: Evidence) -> Iterator[Problem]:
    """Big blanks that would be read as durations."""
    stated = stated_big_blanks(evidence)
    if stated is not None and evidence.durations == len(stated[0]) and "tdt_durations" not in evidence.configuration:
        frames, file = stated
        yield Problem(
            "multi-blank", file, BIG_BLANKS, f"{frames}: the joint's last outputs are the blank and {len(frames)} big "
            "blanks before it, not durations", f"a joint row of {evidence.row_width} tokens, big blanks and blank",
            f"tell this package so: big_blanks={frames}, or {BIG_BLANKS} in config.json",
        )  # fmt: skip
