"""Model directories that cannot be used: each is refused by a message that names the file and says what to do."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tdtdecode as tdt
from benches import nemo_graphs
from tdtdecode.bundle import read_bundle
from tests.bundle.helpers import edit, small_bundle


def check_refused(directory, *parts, error=tdt.BundleError, **arguments):
    """Read a bundle that must be refused; every part must be in the message."""
    with pytest.raises(error) as caught:
        read_bundle(directory, **arguments)
    for part in parts:
        assert str(part) in str(caught.value)
    return caught.value


def test_missing_directory(tmp_path):
    check_refused(tmp_path / "nowhere", "no such model directory", tmp_path / "nowhere")


def test_a_file_in_place_of_a_directory(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"x")
    check_refused(tmp_path / "model.onnx", "this is a file")


@pytest.mark.parametrize("directory", [None, 5, "a\0b"])
def test_no_path(directory):
    with pytest.raises((tdt.InputError, tdt.BundleError)):
        read_bundle(directory)


def test_an_empty_directory(tmp_path):
    check_refused(tmp_path, "no model in it", "decoder_joint-model.onnx", "joiner.onnx", "genai_config.json")


@pytest.mark.parametrize(
    ("there", "asked", "missing"),
    [("combined", "split", "decoder.onnx"), ("split", "combined", "decoder_joint-model.onnx")],
)
def test_another_layout_than_the_one_asked_for(tmp_path, there, asked, missing):
    check_refused(small_bundle(tmp_path, there), repr(missing), f"look like layout {there!r}", layout=asked)


def test_genai_without_its_configuration(tmp_path):
    check_refused(small_bundle(tmp_path, "split"), "genai_config.json", layout="genai")


def test_one_of_two_graphs_missing(tmp_path):
    directory = small_bundle(tmp_path, "split")
    (directory / "joiner.onnx").unlink()
    check_refused(directory, "no 'joiner.onnx'", "decoder.onnx", layout="split")
    assert "no model in it" in str(check_refused(directory))


def test_missing_variant_names_those_that_exist(tmp_path):
    directory = small_bundle(tmp_path, precision="int8")
    check_refused(directory, "decoder_joint-model.fp16.onnx", "variant 'int8'", variant="fp16")


@pytest.mark.parametrize(("name", "value"), [("layout", "sherpa"), ("variant", "../int8"), ("variant", 8)])
def test_arguments_out_of_range(tmp_path, name, value):
    check_refused(small_bundle(tmp_path), name, error=tdt.InputError, **{name: value})


def truncate(data):
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (truncate, "truncated"),
        (lambda data: b"", "empty"),
        (lambda data: b"<html>404</html>", "not an ONNX graph"),
        (lambda data: onnx.ModelProto(ir_version=8).SerializeToString(), "not an ONNX graph"),
    ],
    ids=["truncated", "empty", "html", "no-graph"],
)
@pytest.mark.parametrize("name", ["decoder.onnx", "joiner.onnx", "encoder.onnx"])
def test_files_that_are_no_graphs(tmp_path, name, change, problem):
    directory = small_bundle(tmp_path, "split", mel_bins=8)
    file = directory / name
    file.write_bytes(change(file.read_bytes()))
    check_refused(directory, name, problem)


def test_a_graph_cut_at_every_length(tmp_path):
    """No cut of a file may end in anything but a BundleError."""
    directory = small_bundle(tmp_path, "combined", vocab_size=3, predictor_layers=1)
    file = directory / "decoder_joint-model.onnx"
    data = file.read_bytes()
    for length in np.linspace(1, len(data) - 1, 60).astype(int):
        file.write_bytes(data[:length])
        check_refused(directory, file.name)


def test_a_folder_with_the_name_of_a_file(tmp_path):
    directory = small_bundle(tmp_path)
    (directory / "vocab.txt").unlink()
    (directory / "vocab.txt").mkdir()
    check_refused(directory, "vocab.txt", "regular file")


def lines(directory, name, change):
    file = directory / name
    symbols = file.read_text(encoding="utf-8").split("\n")[:-1]
    file.write_bytes("\n".join(change(symbols)).encode() + b"\n")
    return directory


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda s: s[:-1], "no blank"),
        (lambda s: [], "no entries"),
        (lambda s: s[:3] + s[4:], "gaps"),
        (lambda s: s[:3] + [s[2]] + s[3:], "already given"),
        (lambda s: s[:5] + ["<blk> 5"] + s[6:-1] + ["\u2581f 12"], "the blank has id 5"),
        (lambda s: s[:-1] + ["<blk> 12", "<blank> 13"], "several blanks"),
        (lambda s: ["\u2581a"] + s[1:], "line 1"),
        (lambda s: s[:2] + [""] + s[2:], "line 3"),
        (lambda s: [f"{i} {i}" for i in range(9)] + ["<blk> 9"], "decoder_joint-model.onnx has 13 rows"),
        (lambda s: [f"{i} {i}" for i in range(29)] + ["<blk> 29"], "fewer than the 30 entries"),
    ],
    ids=["no-blank", "empty", "gap", "twice", "blank-inside", "two-blanks", "no-id", "blank-line", "short", "long"],
)
def test_token_files(tmp_path, change, problem):
    directory = lines(small_bundle(tmp_path), "vocab.txt", change)
    if problem.startswith("fewer"):
        edit(directory / "decoder_joint-model.onnx", widen_embedding)
    check_refused(directory, "vocab.txt", problem)


def widen_embedding(model):
    for tensor in model.graph.initializer:
        if tensor.name.endswith("embed.weight"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros((30, 8), np.float32), tensor.name))


def test_a_token_file_that_is_not_text(tmp_path):
    directory = small_bundle(tmp_path)
    (directory / "vocab.txt").write_bytes(b"\xff\xfe0 0\n<blk> 1\n")
    check_refused(directory, "vocab.txt", "not UTF-8")


def test_no_token_file(tmp_path):
    directory = small_bundle(tmp_path, "split")
    (directory / "tokens.txt").unlink()
    check_refused(directory, "no token file", "tokens.txt", "decoder.onnx")


def test_unusual_token_files_that_are_right(tmp_path):
    directory = small_bundle(tmp_path)
    symbols = [" ", "a b", "\u3000", "\u2028", "\u0085", "\u00e9", "\U0001f600", "7", "x", "y", "z", "<unk>", "<blk>"]
    text = "\r\n".join(f"{symbol} {i}" for i, symbol in enumerate(symbols)) + "\r\n\r\n"
    (directory / "vocab.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_bundle(directory).vocabulary.pieces == tuple(symbols)


def test_durations_of_the_wrong_number(tmp_path):
    directory = small_bundle(tmp_path)
    check_refused(directory, "durations has 4 entries", "5 duration outputs", error=tdt.InputError, durations=range(4))
    check_refused(directory, "durations", error=tdt.InputError, durations=5)
    check_refused(directory, "durations", error=tdt.InputError, durations=[0, 1, 2, 3, -4])


def test_durations_for_a_model_without_any(tmp_path):
    check_refused(small_bundle(tmp_path, durations=()), "0 duration outputs", error=tdt.InputError, durations=range(5))


def change_json(directory, name, *path, value):
    file = directory / name
    data = json.loads(file.read_text())
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file.write_text(json.dumps(data))
    return directory


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("model", "tdt_durations"), [0, 1, 2, 4], "tdt_durations: has 4 entries"),
        (("model", "tdt_durations"), [0, 1, 2, 4, -8], "frame counts"),
        (("model", "tdt_durations"), "01234", "frame counts"),
        (("model", "vocab_size"), 12, "outside a vocabulary of 12 (vocab_size counts the blank)"),
        (("model", "vocab_size"), None, "vocab_size"),
        (("model", "vocab_size"), 1 << 40, "vocab_size"),
        (("model", "blank_id"), 40, "blank_id"),
        (("model", "blank_id"), 0, "blank_id is 0"),
        (("model", "decoder"), [], "decoder"),
        (("model", "decoder"), {"filename": 7}, "filename"),
        (("model", "decoder"), {"filename": "../decoder.onnx"}, "in the directory"),
        (("model", "decoder"), {"filename": "/etc/passwd"}, "in the directory"),
        (("model", "joiner"), {"filename": "other.onnx"}, "no 'other.onnx'"),
        (("model", "speech"), {"config_filename": "../x.json"}, "config_filename"),
        (("model",), None, "model"),
    ],
    ids=str,
)
def test_genai_configurations(tmp_path, path, value, problem):
    check_refused(change_json(small_bundle(tmp_path, "genai"), "genai_config.json", *path, value=value), problem)


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000, '{"model": 1' + "0" * 10_000 + "}", "\xff"])
def test_broken_json(tmp_path, text):
    directory = small_bundle(tmp_path, "genai")
    (directory / "genai_config.json").write_text(text, encoding="latin-1")
    check_refused(directory, "genai_config.json")


def test_genai_without_a_token_file(tmp_path):
    directory = small_bundle(tmp_path, "genai")
    (directory / "vocab.txt").unlink()
    (directory / "tokenizer.json").unlink()
    check_refused(directory, "vocab.txt", "tokenizer.json")


@pytest.mark.parametrize(
    ("vocab", "problem"),
    [(7, "model.vocab"), ([["a", 0.0]] * 5, "5 pieces"), ({"a": 0, "b": 2}, "gaps"), ([1], "string")],
)
def test_genai_tokenizers(tmp_path, vocab, problem):
    directory = small_bundle(tmp_path, "genai")
    (directory / "vocab.txt").unlink()
    (directory / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}}))
    check_refused(directory, "tokenizer.json", problem)


def test_files_of_different_models(tmp_path):
    small_bundle(tmp_path / "a", "split")
    small_bundle(tmp_path / "b", "split", predictor_size=24)
    (tmp_path / "b" / "joiner.onnx").rename(tmp_path / "a" / "joiner.onnx")
    check_refused(tmp_path / "a", "joiner.onnx", "decoder.onnx gives 8 values", "different models")


@pytest.mark.parametrize("layout", ["split", "combined", "genai"])
def test_encoder_of_another_width(tmp_path, layout):
    small_bundle(tmp_path, layout, mel_bins=8)
    encoder = next(tmp_path.glob("encoder*.onnx"))
    onnx.save(nemo_graphs.encoder_graph(8, 24, np.dtype(np.float32), 0), encoder)
    check_refused(tmp_path, "the encoder's are 24 wide")


def test_an_encoder_with_time_before_width(tmp_path):
    directory = small_bundle(tmp_path, "split", mel_bins=8)

    def change(model):
        model.graph.node.append(helper.make_node("Transpose", ["outputs"], ["turned"], perm=[0, 2, 1]))
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("turned", TensorProto.FLOAT, ["B", "T", 16]))

    edit(directory / "encoder.onnx", change)
    check_refused(directory, "encoder.onnx", "expected [batch, width, time]")


def ctc_head(width=13):
    g = nemo_graphs.GraphBuilder()
    frames = g.add("Transpose", ["encoder_outputs"], perm=[0, 2, 1])
    g.affine(frames, "ctc", np.ones((16, width)), None, "logprobs")
    return g.build([g.value("encoder_outputs", ["B", 16, "T"])], [g.value("logprobs", ["B", "T", width])])


@pytest.mark.parametrize(("layout", "name"), [("split", "joiner.onnx"), ("combined", "decoder_joint-model.onnx")])
def test_a_ctc_head(tmp_path, layout, name):
    directory = small_bundle(tmp_path, layout)
    onnx.save(ctc_head(), directory / name)
    check_refused(directory, name, "CTC head", "transducer head")


def test_a_joint_in_place_of_a_predictor(tmp_path):
    directory = small_bundle(tmp_path, "split")
    (directory / "decoder.onnx").write_bytes((directory / "joiner.onnx").read_bytes())
    check_refused(directory, "decoder.onnx", "no input for tokens")


def test_a_predictor_of_two_tokens(tmp_path):
    directory = small_bundle(tmp_path, "split")

    def change(model):
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2

    edit(directory / "decoder.onnx", change)
    check_refused(directory, "decoder.onnx: targets", "2 tokens at once")


@pytest.mark.parametrize(("layout", "name"), [("split", "joiner.onnx"), ("combined", "decoder_joint-model.onnx")])
def test_static_time_axis_of_a_joint(tmp_path, layout, name):
    directory = small_bundle(tmp_path, layout)

    def change(model):
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 188

    edit(directory / name, change)
    check_refused(directory, name, "static time axis", "dynamic")


def test_a_static_time_axis_of_one_will_do(tmp_path):
    directory = small_bundle(tmp_path, "split")

    def change(model):
        for value in model.graph.input:
            value.type.tensor_type.shape.dim[2].dim_value = 1

    edit(directory / "joiner.onnx", change)
    assert read_bundle(directory).spec.encoder_size == 16


def test_a_joint_of_unknown_widths(tmp_path):
    directory = small_bundle(tmp_path, "split")

    def change(model):
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "width"

    edit(directory / "joiner.onnx", change)
    check_refused(directory, "joiner.onnx: encoder_outputs", "cannot tell the width")


def bake_batch_of_one(model):
    """A reshape to a batch of one, as tracing leaves behind."""
    nodes = list(model.graph.node)
    last = next(node for node in nodes if "outputs" in node.output)
    last.output[:] = ["free"]
    shape = onnx.numpy_helper.from_array(np.array([1, 8, 1], np.int64))
    model.graph.node.append(helper.make_node("Constant", [], ["shape"], value=shape))
    model.graph.node.append(helper.make_node("Reshape", ["free", "shape"], ["outputs"]))


def mix_rows(model):
    """Each row gets the mean of its batch."""
    next(node for node in model.graph.node if "outputs" in node.output).output[:] = ["free"]
    model.graph.node.append(helper.make_node("ReduceMean", ["free"], ["mean"], axes=[0], keepdims=1))
    model.graph.node.append(helper.make_node("Add", ["free", "mean"], ["outputs"]))


@pytest.mark.parametrize(
    ("change", "problem"), [(bake_batch_of_one, "for a batch"), (mix_rows, "utterances of a batch affect each other")]
)
def test_graphs_for_a_batch_of_one(tmp_path, change, problem):
    directory = small_bundle(tmp_path, "split")
    edit(directory / "decoder.onnx", change)
    check_refused(directory, "decoder.onnx", problem)


def test_a_state_too_large_to_try(tmp_path):
    directory = small_bundle(tmp_path, "split")

    def change(model):
        model.graph.input[2].type.tensor_type.shape.dim[2].dim_value = 1 << 40

    edit(directory / "decoder.onnx", change)
    check_refused(directory, "decoder.onnx: states.1", "expected a state")


def set_metadata(file, **values):
    def change(model):
        for key, value in values.items():
            next(entry for entry in model.metadata_props if entry.key == key).value = value

    edit(file, change)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("feat_dim", "128", "128 mel bins contradict 8 in encoder.onnx (input audio_signal)"),
        ("feat_dim", "many", "whole number"),
        ("vocab_size", "13", "must not count the blank"),
        ("vocab_size", "1024", "contradicts tokens.txt"),
        ("normalize_type", "all_features", "per_feature"),
        ("subsampling_factor", "0", "whole number"),
    ],
)
def test_encoder_metadata(tmp_path, field, value, problem):
    directory = small_bundle(tmp_path, "split", mel_bins=8)
    set_metadata(directory / "encoder.onnx", **{field: value})
    error = check_refused(directory, "encoder.onnx", problem)
    assert error.field == field


@pytest.mark.parametrize(
    ("layout", "path"),
    [
        ("combined", ("config.json", "features_size")),
        ("genai", ("genai_config.json", "model", "num_mels")),
        ("genai", ("audio_processor_config.json", "audio_params", "n_mels")),
    ],
)
def test_mel_bins_that_contradict_the_encoder(tmp_path, layout, path):
    directory = small_bundle(tmp_path, layout, mel_bins=8)
    message = str(check_refused(change_json(directory, *path, value=128), path[0], "128 mel bins contradict 8"))
    assert re.search(r"encoder(-model)?\.onnx", message)


def test_an_encoder_that_is_none(tmp_path):
    directory = small_bundle(tmp_path, "split")
    (directory / "encoder.onnx").write_bytes((directory / "decoder.onnx").read_bytes())
    edit(directory / "encoder.onnx", lambda model: model.graph.input.pop())
    edit(directory / "encoder.onnx", lambda model: model.graph.input.pop())
    check_refused(directory, "encoder.onnx", "expected an encoder")


def test_precompiled_code(tmp_path):
    directory = small_bundle(tmp_path, "split")

    def change(model):
        model.graph.node.append(helper.make_node("EPContext", [], ["x"], domain="com.microsoft"))

    edit(directory / "decoder.onnx", change)
    check_refused(directory, "decoder.onnx", "precompiled")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_missing_packages_are_named(tmp_path, monkeypatch, package):
    import sys

    directory = small_bundle(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    error = check_refused(directory, package, "tdtdecode[cpu]", error=tdt.MissingDependencyError)
    assert error.name == package


def test_importing_needs_neither():
    import subprocess
    import sys

    code = (
        "import sys; sys.modules.update(onnx=None, onnxruntime=None); import tdtdecode.bundle as b; "
        "assert b.read_bundle"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_predictor_whose_batch_is_not_first(tmp_path):
    directory = small_bundle(tmp_path, "split")

    def change(model):
        last = next(node for node in model.graph.node if "outputs" in node.output)
        attribute = next(attribute for attribute in last.attribute if attribute.name == "perm")
        attribute.ints[:] = [2, 0, 1]  # [1, batch, H] to [H, 1, batch]
        model.graph.output[0].type.tensor_type.ClearField("shape")

    edit(directory / "decoder.onnx", change)
    check_refused(directory, "decoder.onnx: outputs", "the batch first")
