"""Model directories as they are found in public: one of each convention, and what each system does with them.

    python -m tests.bundles_in_the_wild OUT.md

writes the table. The models are random, and small.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from tdtdecode.prepare import convert, inspect
from tests import systems
from tests.bundle.helpers import configure, edit, set_metadata, small_bundle
from tests.conventions import GOLDEN, LAYERS_FIRST, edited, fixed, metadata
from tests.k2_models import write_model


@dataclass(frozen=True)
class Wild:
    """A convention.

    Attributes
    ----------
    make:
        Writes a directory of it.
    family, files, here:
        What `inspect` must say of it, in part: the family; whose names the files have; what this package does.
    kind:
        How other systems are told to read it, see `tests.systems`.
    misread_by:
        The systems that give a text which has nothing to do with the model.
    """

    make: Callable[[Path], object]
    family: str
    files: str
    here: str
    kind: str = "tdt"
    misread_by: tuple[str, ...] = ()


def _renamed(names: dict[str, str], layout: str = "combined", **options: Any) -> Callable[[Path], None]:
    def make(directory: Path) -> None:
        small_bundle(directory, layout, **{"mel_bins": 80, **options})
        for old, new in names.items():
            (directory / old).rename(directory / new)

    return make


def _soniqo(directory: Path) -> None:
    _renamed({
        "encoder-model.onnx": "parakeet-encoder-int8.onnx",
        "decoder_joint-model.onnx": "parakeet-decoder-joint-int8.onnx",
    })(directory)  # fmt: skip
    lines = (directory / "vocab.txt").read_text(encoding="utf-8").splitlines()
    pieces = {line.rsplit(" ", 1)[1]: line.rsplit(" ", 1)[0] for line in lines[:-1]}
    (directory / "vocab.json").write_text(json.dumps(pieces), encoding="utf-8")
    (directory / "vocab.txt").unlink()


def _sentencepiece(directory: Path) -> None:
    """parakeet-rs's names, with SentencePiece's model."""
    import sentencepiece

    _renamed({"encoder-model.onnx": "encoder.onnx", "decoder_joint-model.onnx": "decoder_joint.onnx"})(directory)
    (directory / "vocab.txt").unlink()
    sentences = ["abc acb bca", "cab bac cba"] * 20
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(sentences), model_prefix=str(directory / "tokenizer"), vocab_size=12, minloglevel=3,
        bos_id=-1, eos_id=-1, hard_vocab_limit=False,
    )  # fmt: skip
    (directory / "tokenizer.vocab").unlink()


def _outputs(model: onnx.ModelProto, kept: list[str], **numbers: str) -> None:
    """Joint rows give way to the best token, and what else is made of the rows, by name."""
    (rows,) = [value for value in model.graph.output if value.name == "outputs"]
    made = []
    for name, how in numbers.items():
        if how == "largest":
            model.graph.node.append(helper.make_node("ReduceMax", [rows.name], [name], axes=[-1], keepdims=1))
            made.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1, 1, 1]))
            continue
        model.graph.node.append(helper.make_node("ArgMax", [rows.name], [f"{name}/long"], axis=-1, keepdims=0))
        model.graph.node.append(helper.make_node("Cast", [f"{name}/long"], [name], to=TensorProto.INT32))
        made.append(helper.make_tensor_value_info(name, TensorProto.INT32, ["batch", 1, 1]))
    others = [value for value in model.graph.output if value.name in kept]
    del model.graph.output[:]
    model.graph.output.extend([*made, *others])


def _joint_decision(directory: Path) -> None:
    """As talatapp's: a joint that gives token, probability and duration."""
    small_bundle(directory, "split", mel_bins=80)
    edit(directory / "joiner.onnx", lambda model: _outputs(
        model, [], token_id="best", token_prob="largest", duration="best"))  # fmt: skip
    (directory / "joiner.onnx").rename(directory / "joint_decision.onnx")


def _decoder_decision(directory: Path) -> None:
    """As DakeQQ's: predictor and joint that give token, duration and states."""
    small_bundle(directory, "combined", mel_bins=80)
    edit(directory / "decoder_joint-model.onnx", lambda model: _outputs(
        model, ["output_states_1", "output_states_2"], token="best", duration="best"))  # fmt: skip
    (directory / "decoder_joint-model.onnx").rename(directory / "decoder.onnx")
    (directory / "encoder-model.onnx").rename(directory / "encoder.onnx")


def _fixed(directory: Path) -> None:
    small_bundle(directory, "split", mel_bins=128)
    edit(directory / "encoder.onnx", fixed({"audio_signal": {0: 1, 2: 601}}))


def _vosk(directory: Path) -> None:
    graphs = write_model(directory / "am-onnx")
    (directory / "lang").mkdir()
    (graphs / "tokens.txt").rename(directory / "lang" / "tokens.txt")


def _gigaam(directory: Path) -> None:
    small_bundle(directory, "split", durations=(), mel_bins=64)
    set_metadata(directory / "encoder.onnx", is_giga_am="1", normalize_type="", feat_dim=None, url=None)


def _multi_blank(directory: Path) -> None:
    small_bundle(directory, "combined", durations=(2, 4, 8), mel_bins=80)

    def change(data: dict[str, Any]) -> None:
        data.pop("tdt_durations", None)
        data["big_blank_durations"] = [2, 4, 8]

    configure(directory / "config.json", change)


def _multi_blank_of_nemo(directory: Path) -> None:
    """NeMo's own configuration beside the graphs says it."""
    _multi_blank(directory)
    configure(directory / "config.json", lambda data: data.pop("big_blank_durations"))
    (directory / "model_config.yaml").write_text(
        "loss:\n  loss_name: multiblank_rnnt\n  multiblank_rnnt_kwargs:\n    big_blank_durations:\n    - 2\n    - 4\n"
        "    - 8\n", encoding="utf-8",
    )  # fmt: skip


def _streaming(name: str, *edits: Any) -> Callable[[Path], object]:
    return lambda directory: edited(directory, name, *edits)


def _with_speakers(model: onnx.ModelProto) -> None:
    (frames,) = [node for node in model.graph.node if "outputs" in node.output]
    for name in ("spk_targets", "bg_spk_targets"):
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "time"]))
    frames.output[0] = "outputs/alone"
    model.graph.node.extend([
        helper.make_node("Add", ["spk_targets", "bg_spk_targets"], ["speakers"]),
        helper.make_node("ReduceSum", ["speakers"], ["spoken"], keepdims=0),
        helper.make_node("Add", ["outputs/alone", "spoken"], ["outputs"]),
    ])  # fmt: skip


def _genai_streaming(directory: Path) -> None:
    convert(GOLDEN / "rnnt-8-1", directory, "genai", layout="split")


def _ctc(directory: Path) -> None:
    small_bundle(directory, "combined", mel_bins=80)
    (directory / "decoder_joint-model.onnx").unlink()
    edit(directory / "encoder-model.onnx", lambda model: model.graph.output.pop())
    (directory / "encoder-model.onnx").rename(directory / "model.onnx")


WILD = {
    "sherpa-onnx, TDT": Wild(lambda d: small_bundle(d, "split", mel_bins=80), "TDT of NeMo", "sherpa-onnx", "whole"),
    "NeMo and onnx-asr, TDT": Wild(
        lambda d: small_bundle(d, "combined", mel_bins=80), "TDT of NeMo", "NeMo, onnx-asr", "whole"),
    "onnxruntime-genai, TDT": Wild(
        lambda d: small_bundle(d, "genai", mel_bins=80), "TDT of NeMo", "onnxruntime-genai", "whole"),
    "parakeet-rs, vocab.txt": Wild(
        _renamed({"encoder-model.onnx": "encoder.onnx", "decoder_joint-model.onnx": "decoder_joint.onnx"}),
        "TDT of NeMo", "parakeet-rs", "whole"),
    "parakeet-rs, tokenizer.model": Wild(_sentencepiece, "TDT of NeMo", "parakeet-rs", "whole"),
    "soniqo": Wild(_soniqo, "TDT of NeMo", "soniqo", "whole"),
    "quantised again, .w4.fp16": Wild(
        _renamed({"encoder-model.onnx": "encoder-model.w4.fp16.onnx",
                  "decoder_joint-model.onnx": "decoder_joint-model.w4.fp16.onnx"}),
        "TDT of NeMo", "NeMo, onnx-asr", "whole"),
    "quantised again, .quantized": Wild(
        _renamed({f"{name}.onnx": f"{name}.quantized.onnx" for name in ("encoder", "decoder", "joiner")}, "split"),
        "TDT of NeMo", "sherpa-onnx", "whole"),
    "names of their own": Wild(
        _renamed({"encoder-model.onnx": "acoustic.onnx", "decoder_joint-model.onnx": "transducer.onnx"}),
        "TDT of NeMo", "under other names", "whole"),
    "talatapp, joint_decision": Wild(
        _joint_decision, "argmax inside", "sherpa-onnx", "refuses it: a joint with the argmax"),
    "DakeQQ, decoder with decisions": Wild(
        _decoder_decision, "argmax inside", "", "refuses it: a joint with the argmax"),
    "Qualcomm, 601 frames": Wild(_fixed, "TDT of NeMo", "sherpa-onnx", "in windows of 6.01 s"),
    "k2, zipformer": Wild(write_model, "RNN-T of k2", "icefall, sherpa-onnx", "at most 1 token on a frame", "k2"),
    "k2, names of a training": Wild(
        lambda d: write_model(d, suffix="-epoch-99-avg-1.int8"), "RNN-T of k2", "icefall", "at most 1 token", "k2"),
    "Vosk": Wild(_vosk, "RNN-T of k2", "Vosk", "at most 1 token", "k2"),
    "GigaAM": Wild(_gigaam, "RNN-T of GigaAM", "sherpa-onnx", "whole", "rnnt"),
    "multi-blank": Wild(_multi_blank, "multi-blank RNN-T of NeMo, with blanks of 2, 4, 8", "NeMo", "", "rnnt",
                        misread_by=("onnx-asr",)),
    "multi-blank, model_config.yaml": Wild(
        _multi_blank_of_nemo, "multi-blank RNN-T", "NeMo", "", "rnnt", misread_by=("onnx-asr",)),
    "multitalker": Wild(
        _streaming("rnnt-8-1", _with_speakers), "speakers to follow", "sherpa-onnx", "refuses it", "online"),
    "streaming, sherpa-onnx": Wild(
        _streaming("rnnt-8-1"), "cache-aware streaming", "sherpa-onnx", "window by window", "online"),
    "streaming, parakeet-rs's axes": Wild(
        _streaming("rnnt-8-1", LAYERS_FIRST), "cache-aware streaming", "sherpa-onnx", "window by window", "online"),
    "streaming, onnxruntime-genai": Wild(
        _genai_streaming, "cache-aware streaming", "onnxruntime-genai", "window by window", "online"),
    "streaming with a language": Wild(
        _streaming("prompt-70-13"), "cache-aware streaming, with language prompt", "sherpa-onnx", "window by window",
        "online"),
    "parakeet-unified": Wild(
        lambda d: (small_bundle(d, "split", durations=(), mel_bins=80),
                   edit(d / "encoder.onnx", metadata(streaming_model_type="nemo_parakeet_unified_streaming"))),
        "parakeet-unified", "sherpa-onnx", "live streams in windows", "rnnt"),
}  # fmt: skip
"""The conventions by name."""


@dataclass(frozen=True)
class Outcome:
    """What inspect says of a directory, and what each system did: ``{"text": ...}`` or ``{"error": ...}``."""

    facts: dict[str, Any]
    usable: dict[str, bool]
    did: dict[str, dict[str, str]]


def outcomes(root: Path, names: list[str], asked: tuple[str, ...]) -> dict[str, Outcome]:
    """Make the directories, inspect them, and let this package and other systems recognise with them."""
    made = {}
    for i, name in enumerate(names):
        made[name] = root / f"{i}"
        WILD[name].make(made[name])
    answers = {"tdtdecode": [_ours(directory) for directory in made.values()]}
    for system in asked:
        answers[system] = systems.ask(system, [(made[name], WILD[name].kind) for name in names])
    found = {}
    for i, name in enumerate(names):
        inspection = inspect(made[name])
        found[name] = Outcome(
            {fact.name: fact.value for fact in inspection.facts},
            {use.system: use.usable for use in inspection.uses},
            {system: _without(made[name], texts[i]) for system, texts in answers.items()},
        )
    return found


def _without(directory: Path, answer: dict[str, str]) -> dict[str, str]:
    """An answer without the directory's path."""
    return {kind: text.replace(f"{directory}/", "").replace(str(directory), "") for kind, text in answer.items()}


def _ours(directory: Path) -> dict[str, str]:
    from tdtdecode.speech.loading import load_model

    try:
        return {"text": load_model(directory).recognize((systems.audio(), systems.RATE)).text}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def did_use(name: str, system: str, answer: dict[str, str]) -> bool:
    """Whether a system used a directory, and did not misread it."""
    return "text" in answer and system not in WILD[name].misread_by


def as_markdown(found: dict[str, Outcome], asked: tuple[str, ...]) -> str:
    """The table."""
    columns = ("tdtdecode", *asked)
    versions = ", ".join(f"{system} {version(system)}" for system in asked)
    lines = [
        "# Bundles of every convention, and what each system does with them", "",
        "The models are small and random. `python -m tests.bundles_in_the_wild` makes them, and writes this table.",
        "Three seconds of noise were recognised with each. A cell has the beginning of the text, or why there is none.",
        "\"as said\" means that `tdtdecode inspect` foretold whether the system can use the directory.",
        "sherpa-onnx computes other features for NeMo's models, so its texts differ there.", "",
        f"Versions: {versions}.", "",
        "| convention | family, as `inspect` says | " + " | ".join(columns) + " |", "|---" * (2 + len(columns)) + "|",
    ]  # fmt: skip
    for name, outcome in found.items():
        cells: list[str] = [name, str(outcome.facts.get("family", "none"))]
        for system in columns:
            answer = outcome.did[system]
            what = f"`{answer['text'][:20]}`" if "text" in answer else _short(answer["error"])
            right = did_use(name, system, answer) == outcome.usable[system]
            wrong = ", wrong" if "text" in answer and not did_use(name, system, answer) else ""
            cells.append(f"{what}{wrong} ({'as said' if right else 'not as said'})")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _short(error: str) -> str:
    return "ends the process" if "ended with status" in error else error.split("\n")[0][:60].strip()


def main(out: str) -> None:
    """Write the table to a file."""
    asked = ("sherpa-onnx", "onnx-asr")
    with tempfile.TemporaryDirectory() as root:
        Path(out).write_text(as_markdown(outcomes(Path(root), list(WILD), asked), asked), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
