"""`inspect` says what each system can use: its answers, and what the systems really do with the same directories."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from benches.random_bundle import make_bundle
from tdtdecode import Decoder
from tdtdecode.prepare import convert, inspect
from tdtdecode.speech.loading import load_model
from tests import systems
from tests.bundle.helpers import SMALL, configure, edit, rewrite, set_metadata, small_bundle
from tests.bundle.test_sorting import shuffled

pytestmark = pytest.mark.filterwarnings("ignore::tdtdecode.errors.SlowerWarning")
"""These tests choose slower ways on purpose."""

SYSTEM = {"split": "sherpa-onnx", "combined": "onnx-asr", "genai": "onnxruntime-genai"}
STREAMING = Path(__file__).parents[1] / "golden_streaming"
TOKENS = {"split": "tokens.txt", "combined": "vocab.txt"}


@dataclass
class Row:
    """A directory of the table: how it is made, and what is broken in it.

    ``like`` names the row whose text it must have too, on each system, and ``unlike`` one whose text it must not have:
    otherwise the text counts as wrong.
    """

    layout: str
    change: Callable[[Path], object] = lambda directory: None
    like: str | None = "sound"
    kind: str = "tdt"
    options: dict = field(default_factory=dict)
    unlike: str | None = None
    copy: str | None = None


def metadata(**entries):
    return lambda directory: set_metadata(directory / "encoder.onnx", **entries)


def config(**entries):
    return lambda directory: configure(directory / "config.json", lambda data: data.update(entries))


def without(name):
    return lambda directory: (directory / name).unlink()


def genai(change):
    return lambda directory: configure(directory / "genai_config.json", lambda data: change(data["model"]))


def symbols(change):
    """Change the symbols of a token file; ids follow."""

    def changed(directory):
        (file,) = (directory / name for name in TOKENS.values() if (directory / name).exists())
        rewrite(file, lambda lines: [
            f"{symbol} {i}" for i, symbol in enumerate(change([line.rsplit(" ", 1)[0] for line in lines]))
        ])  # fmt: skip

    return changed


def renamed(suffix):
    def change(directory):
        for file in directory.glob("*.onnx"):
            file.rename(file.with_name(f"{file.stem}{suffix}.onnx"))

    return change


def every_graph(change):
    return lambda directory: [edit(file, change) for file in directory.glob("*.onnx")]


def encoder(change):
    return lambda directory: edit(next(directory.glob("encoder*.onnx")), change)


def fixed_time(model):
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 500


def with_input(name):
    """An encoder with an input of a number for each recording, which is used."""

    def change(model):
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, ["batch"]))
        (node,) = [node for node in model.graph.node if "encoded_lengths" in node.output]
        node.output[0] = "counts"
        model.graph.node.append(helper.make_node("Mul", [name, name], ["squared"]))
        model.graph.node.append(helper.make_node("Sub", ["squared", "squared"], ["nothing"]))
        model.graph.node.append(helper.make_node("Add", ["counts", "nothing"], ["encoded_lengths"]))

    return change


def combined_of(directory):
    """NeMo's combined export of a streaming model: the other files of its folder go."""
    for name in ("encoder.onnx", "decoder.onnx", "joiner.onnx"):
        (directory / name).unlink()
    (directory / "tokens.txt").rename(directory / "vocab.txt")


def split_of(directory):
    for name in ("encoder-model.onnx", "decoder_joint-model.onnx"):
        (directory / name).unlink(missing_ok=True)


def without_durations(model):
    """A joint whose rows end with the blank's value."""
    (output,) = model.graph.output
    (node,) = [node for node in model.graph.node if output.name in node.output]
    node.output[0] = "whole"
    bounds = {"from": 0, "to": -5, "of": -1}
    model.graph.initializer.extend(numpy_helper.from_array(np.array([n]), name) for name, n in bounds.items())
    model.graph.node.append(helper.make_node("Slice", ["whole", "from", "to", "of"], [output.name]))
    del output.type.tensor_type.shape.dim[:]
    for size in ("B", "T", "U", 41):
        dim = output.type.tensor_type.shape.dim.add()
        setattr(dim, "dim_value" if isinstance(size, int) else "dim_param", size)


def lengths_as_int32(model):
    (output,) = [output for output in model.graph.output if output.name == "encoded_lengths"]
    (node,) = [node for node in model.graph.node if "encoded_lengths" in node.output]
    node.output[0] = "counts"
    model.graph.node.append(helper.make_node("Cast", ["counts"], ["encoded_lengths"], to=TensorProto.INT32))
    output.type.tensor_type.elem_type = TensorProto.INT32


def port_renamed(old, new):
    def change(model):
        for value in (*model.graph.input, *model.graph.output):
            value.name = new if value.name == old else value.name
        for node in model.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]

    return change


def file(name, change):
    return lambda directory: edit(directory / name, change)


RNNT = {"durations": ()}
BEFORE_THE_BLANK = symbols(lambda s: [*s[:-1], "<s>", s[-1]])
SPLIT = {
    "sound": Row("split"),
    "external weights": Row("split", options={"external_weights": True}),
    "int8": Row("split", like=None, options={"precision": "int8"}),
    "float16 with its ports": Row("split", like=None, options={"precision": "fp16"}),
    "another suffix": Row("split", renamed(".quantized")),
    "nodes in any order": Row("split", every_graph(shuffled)),
    "any batch": Row("split", options={"static_batch": False}),
    "int32 lengths": Row("split", encoder(lengths_as_int32)),
    "another name of a port": Row("split", file("joiner.onnx", port_renamed("encoder_outputs", "frames"))),
    "one layer": Row("split", like=None, options={"predictor_layers": 1}),
    "tanh": Row("split", like=None, options={"activation": "tanh"}),
    "RNN-T": Row("split", kind="rnnt", like=None, options=RNNT),
    "RNN-T without a url": Row("split", metadata(url=None), like="RNN-T", kind="rnnt", options=RNNT),
    "RNN-T with tdt in the url": Row("split", metadata(url="tdt"), like="RNN-T", kind="rnnt", options=RNNT),
    "no url": Row("split", metadata(url=None)),
    "a url without tdt": Row("split", metadata(url="https://example.org/parakeet")),
    "a url with TDT in capitals": Row("split", metadata(url="https://example.org/Parakeet-TDT")),
    "vocab_size with the blank": Row("split", metadata(vocab_size="13")),
    "vocab_size of another model": Row("split", metadata(vocab_size="1024")),
    "no vocab_size": Row("split", metadata(vocab_size=None)),
    "no subsampling_factor": Row("split", metadata(subsampling_factor=None)),
    "no normalize_type": Row("split", metadata(normalize_type=None)),
    "normalize_type NA": Row("split", metadata(normalize_type="NA"), like=None),
    "normalize_type empty": Row("split", metadata(normalize_type=""), like=None),
    "no pred_hidden": Row("split", metadata(pred_hidden=None)),
    "pred_hidden of another model": Row("split", metadata(pred_hidden="640")),
    "no pred_rnn_layers": Row("split", metadata(pred_rnn_layers=None)),
    "pred_rnn_layers of another model": Row("split", metadata(pred_rnn_layers="1")),
    "no model_type": Row("split", metadata(model_type=None)),
    "no feat_dim": Row("split", metadata(feat_dim=None)),
    "feat_dim of another model": Row("split", metadata(feat_dim="128")),
    "128 bins": Row("split", like=None, options={"mel_bins": 128}),
    "128 bins without feat_dim": Row("split", metadata(feat_dim=None), like="128 bins", options={"mel_bins": 128}),
    "no metadata": Row("split", encoder(lambda model: model.ClearField("metadata_props"))),
    "GigaAM": Row("split", metadata(is_giga_am="1", normalize_type="", feat_dim=None, url=None), like=None, kind="rnnt",
                  options={"mel_bins": 64, **RNNT}),
    "the blank first": Row("split", like=None, options={"blank": "first"}),
    "the blank called <pad>": Row("split", symbols(lambda s: [*s[:-1], "<pad>"])),
    "the blank called <blank>": Row("split", symbols(lambda s: [*s[:-1], "<blank>"])),
    "the blank first in the file alone": Row("split", symbols(lambda s: [s[-1], *s[:-1]])),
    "no blank": Row("split", symbols(lambda s: s[:-1])),
    "an entry too many": Row("split", BEFORE_THE_BLANK),
    "the blank's line first": Row("split", lambda d: rewrite(d / "tokens.txt", lambda x: [x[-1], *x[:-1]])),
    "plain spaces": Row("split", symbols(lambda s: [piece.replace("\u2581", " ") for piece in s])),
    "WordPiece": Row("split", symbols(lambda s: [
        piece.replace("\u2581", "") if piece[0] in "\u2581<" else f"##{piece}" for piece in s])),
    "no token file": Row("split", without("tokens.txt")),
    "no encoder": Row("split", without("encoder.onnx"), like=None),
    "no joiner": Row("split", without("joiner.onnx")),
    "weights missing": Row("split", without("encoder.onnx.data"), options={"external_weights": True}),
    "a fixed time axis": Row("split", encoder(fixed_time)),
    "a language prompt": Row("split", encoder(with_input("prompt_index"))),
    "an unknown input": Row("split", encoder(with_input("mystery"))),
    "other durations": Row("split", metadata(tdt_durations="0,1,2,4,8"), like=None, unlike="sound"),
    "streaming": Row("split", split_of, like=None, kind="online", copy="rnnt-70-6"),
    "streaming with short context": Row("split", split_of, like=None, kind="online", copy="rnnt-8-1"),
    "streaming with a prompt": Row("split", split_of, like=None, kind="online", copy="prompt-70-13"),
    "streaming TDT": Row("split", split_of, like=None, unlike="the same as RNN-T", kind="online", copy="tdt-4-0"),
    "streaming TDT with tdt in the url": Row("split", lambda d: (split_of(d), metadata(url="tdt")(d)), like=None,
                                             unlike="the same as RNN-T", kind="online", copy="tdt-4-0"),
    "the same as RNN-T": Row("split", lambda d: (split_of(d), edit(d / "joiner.onnx", without_durations)), like=None,
                             kind="online", copy="tdt-4-0"),
}  # fmt: skip
COMBINED = {
    "sound": Row("combined"),
    "external weights": Row("combined", options={"external_weights": True}),
    "int8": Row("combined", like=None, options={"precision": "int8"}),
    "float16 with its ports": Row("combined", like=None, options={"precision": "fp16"}),
    "another suffix": Row("combined", renamed(".quantized")),
    "nodes in any order": Row("combined", every_graph(shuffled)),
    "int32 lengths": Row("combined", encoder(lengths_as_int32)),
    "another name of a port": Row(
        "combined", file("decoder_joint-model.onnx", port_renamed("input_states_1", "h"))),
    "another name of the audio": Row("combined", file("encoder-model.onnx", port_renamed("audio_signal", "processed"))),
    "a batch of one": Row("combined", options={"static_batch": True}),
    "one layer": Row("combined", like=None, options={"predictor_layers": 1}),
    "the wrong type": Row("combined", config(model_type="nemo-conformer-rnnt"), like=None),
    "RNN-T": Row("combined", kind="rnnt", like=None, options=RNNT),
    "128 bins": Row("combined", like=None, options={"mel_bins": 128}),
    "128 bins not stated": Row("combined", lambda d: configure(
        d / "config.json", lambda data: data.pop("features_size")), like="128 bins", options={"mel_bins": 128}),
    "64 bins": Row("combined", like=None, options={"mel_bins": 64}),
    "features_size of another model": Row("combined", config(features_size=128)),
    "no config.json": Row("combined", without("config.json")),
    "no normalisation": Row("combined", config(normalize_type="NA"), like=None, unlike="sound"),
    "other durations": Row("combined", config(tdt_durations=[0, 1, 2, 4, 8]), like=None, unlike="sound"),
    "the blank first": Row("combined", like=None, options={"blank": "first"}),
    "the blank called <blank>": Row("combined", symbols(lambda s: [*s[:-1], "<blank>"])),
    "the blank called <pad>": Row("combined", symbols(lambda s: [*s[:-1], "<pad>"])),
    "the blank first in the file alone": Row("combined", symbols(lambda s: [s[-1], *s[:-1]])),
    "no blank": Row("combined", symbols(lambda s: s[:-1])),
    "an entry too many": Row("combined", BEFORE_THE_BLANK),
    "plain spaces": Row("combined", symbols(lambda s: [piece.replace("\u2581", " ") for piece in s])),
    "byte-level BPE": Row("combined", symbols(lambda s: [piece.replace("\u2581", "\u0120") for piece in s])),
    "tokens.txt": Row("combined", lambda d: (d / "vocab.txt").rename(d / "tokens.txt")),
    "no token file": Row("combined", without("vocab.txt")),
    "no encoder": Row("combined", without("encoder-model.onnx"), like=None),
    "weights missing": Row("combined", without("encoder-model.onnx.data"), options={"external_weights": True}),
    "a fixed time axis": Row("combined", encoder(fixed_time)),
    "a language prompt": Row("combined", encoder(with_input("lang_id"))),
    "an unknown input": Row("combined", encoder(with_input("mystery"))),
    "streaming": Row("combined", combined_of, like=None, kind="rnnt", copy="rnnt-70-6"),
    "streaming TDT": Row("combined", combined_of, like=None, copy="tdt-4-0"),
}  # fmt: skip
GENAI = {
    "sound": Row("genai"),
    "external weights": Row("genai", options={"external_weights": True}),
    "one layer": Row("genai", like=None, options={"predictor_layers": 1}),
    "eleven tokens": Row("genai", like=None, options={"vocab_size": 11}),
    "other durations": Row("genai", like=None, options={"durations": (0, 1, 2, 4, 8)}),
    "no tokenizer.json": Row("genai", without("tokenizer.json")),
    "no tokenizer_config.json": Row("genai", without("tokenizer_config.json")),
    "no vocab.txt": Row("genai", without("vocab.txt")),
    "another type": Row("genai", genai(lambda model: model.update(type="whisper"))),
    "an unknown field": Row("genai", genai(lambda model: model.update(mystery=1))),
    "vocab_size without the blank": Row("genai", genai(lambda model: model.update(vocab_size=12))),
    "one duration fewer": Row("genai", genai(lambda model: model.update(tdt_durations=[0, 1, 2, 3]))),
    "no durations": Row("genai", genai(lambda model: model.pop("tdt_durations"))),
    "the blank elsewhere": Row("genai", genai(lambda model: model.update(blank_id=0))),
    "the end is another token": Row("genai", genai(lambda model: model.update(eos_token_id=[3]))),
    "a port of another name": Row("genai", genai(
        lambda model: model["decoder"]["inputs"].update(targets="mystery"))),
    "no joint": Row("genai", without("joint.onnx")),
    "no encoder": Row("genai", without("encoder.onnx"), like=None),
    "no unknown piece": Row("genai", lambda d: configure(
        d / "tokenizer.json", lambda data: data["model"].update(unk_id=None))),
    "num_mels of another model": Row("genai", genai(lambda model: model.update(num_mels=128))),
}  # fmt: skip
TABLE = {"split": SPLIT, "combined": COMBINED, "genai": GENAI}


def made(directory: Path, row: Row) -> Path:
    if row.copy is not None:
        directory.mkdir(parents=True)
        for file in (STREAMING / row.copy).iterdir():
            if file.suffix == ".onnx" or file.name == "tokens.txt":
                shutil.copy(file, directory)
    else:
        options = {"mel_bins": 80, "seed": 3, **row.options}
        if row.layout == "genai":  # what this package writes has all that onnxruntime-genai needs
            small_bundle(directory.with_name(f"{directory.name}-other"), "combined", **options)
            convert(
                directory.with_name(f"{directory.name}-other"), directory, "genai", durations=options.get("durations")
            )
        else:
            make_bundle(directory, row.layout, **{**SMALL, **options})
    row.change(directory)
    return directory


def ours(directory: Path) -> dict[str, str]:
    if not any(directory.glob("encoder*")):  # what it can be used for is said in a note
        return {"text": str(Decoder.from_bundle(directory).spec)}
    try:
        return {"text": load_model(directory).recognize((systems.audio(), systems.RATE)).text}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def did_use(answers: dict[str, dict[str, str]], name: str, row: Row) -> bool:
    """Whether a system used a directory: to the end, and with the right text."""
    text = answers[name].get("text")
    return (
        text is not None and (row.like is None or text == answers[row.like].get("text"))
        and (row.unlike is None or text != answers[row.unlike].get("text"))
    )  # fmt: skip


def judged(root: Path, layout: str, table: dict[str, Row], make: Callable[[Path, Row], Path]) -> list[tuple]:
    """Of each row: its name, a system, what inspect says, whether the system did it, what it said."""
    rows = {name: make(root / f"{i}", row) for i, (name, row) in enumerate(table.items())}
    theirs = systems.ask(SYSTEM[layout], [(rows[name], row.kind) for name, row in table.items()])
    said = {name: {use.system: use for use in inspect(directory).uses} for name, directory in rows.items()}
    found = []
    for system, answers in (("tdtdecode", [ours(directory) for directory in rows.values()]),
                            (SYSTEM[layout], theirs)):  # fmt: skip
        by_name = dict(zip(rows, answers, strict=True))
        for name, row in table.items():
            found.append((name, system, said[name][system], did_use(by_name, name, row), by_name[name]))
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="systems are tried in forked processes")
@pytest.mark.parametrize("layout", TABLE)
def test_inspect_agrees_with_the_systems(tmp_path, layout, record_property):
    check_agreement(tmp_path, layout, TABLE[layout], made, record_property)


def check_agreement(root, layout, table, make, record_property) -> None:
    """What inspect says of a table's directories is what the systems do with them."""
    module = systems.MODULES[SYSTEM[layout]]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    found = judged(root, layout, table, make)
    wrong = [
        f"{system}, {name}: inspect says {'yes' if use.usable else 'no'} {list(use.reasons)}, it did {answer}"
        for name, system, use, did, answer in found if use.usable != did
    ]  # fmt: skip
    summary = f"inspect against tdtdecode and {SYSTEM[layout]}: {len(found) - len(wrong)} of {len(found)} agree"
    record_property("agreement", summary)
    print(summary)
    assert not wrong, "\n".join([summary, *wrong])
    assert {(system, did) for _, system, _, did, _ in found} >= {(SYSTEM[layout], True), (SYSTEM[layout], False)}
