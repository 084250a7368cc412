"""What an inspection says: nothing against what is right, and of every mistake what, where, why, and how to mend it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tdtdecode as tdt
from benches.random_bundle import LAYOUTS
from tdtdecode.cli import main
from tdtdecode.prepare.inspection import Inspection, Problem, inspect
from tests import demo
from tests.bundle.helpers import TOKEN_FORMS, configure, edit, rewrite, set_metadata, small_bundle
from tests.conftest import GOLDEN


def only(inspection: Inspection, code: str) -> Problem:
    """The one problem there is."""
    assert [problem.code for problem in inspection.problems] == [code], inspection.problems
    (problem,) = inspection.problems
    assert problem.found and problem.expected and problem.remedy and problem.file
    return problem


def fact(inspection: Inspection, name: str):
    (value,) = [fact.value for fact in inspection.facts if fact.name == name]
    return value


def usable(inspection: Inspection) -> dict[str, bool]:
    return {use.system: use.usable for use in inspection.uses}


# What is right


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_said_against_what_is_right(whole_bundle, layout):
    inspection = inspect(whole_bundle(layout))
    assert inspection.ok and inspection.layout == layout
    ours = {"split": "sherpa-onnx", "combined": "onnx-asr", "genai": "onnxruntime-genai"}
    assert [system for system, can in usable(inspection).items() if can] == ["tdtdecode", ours[layout]]
    assert inspect(inspection.directory, system=ours[layout]).ok


def test_the_demo():
    inspection = inspect(demo.DIRECTORY)
    assert inspection.ok
    assert fact(inspection, "vocabulary without blank") == 256 and fact(inspection, "blank") == 256
    assert fact(inspection, "durations") == [0, 1, 2, 3, 4]
    assert fact(inspection, "joint row width") == 262 and fact(inspection, "embedding rows") == 257
    assert fact(inspection, "mel bins") == 80 and fact(inspection, "time axis") == "dynamic"
    assert fact(inspection, "longest audio at once, seconds") == 32.0
    assert usable(inspection) == {
        "tdtdecode": True, "sherpa-onnx": False, "onnx-asr": True, "onnxruntime-genai": False,
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir() if path.is_dir()))
def test_nemo_s_exports_have_no_problems(name):
    inspection = inspect(GOLDEN / name)
    assert inspection.ok and inspection.layout == "split"
    assert any("a batch of one is fixed" in note for note in inspection.notes)
    assert any("no encoder" in note for note in inspection.notes)


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_variants(tmp_path, precision):
    """Where there are only files with a suffix, they are looked at."""
    inspection = inspect(small_bundle(tmp_path, "combined", precision=precision, mel_bins=80))
    assert inspection.ok and inspection.variant == precision
    assert fact(inspection, "variants") == [precision]
    kind = {"int8": "int8", "fp16": "float16"}[precision]
    assert kind in fact(inspection, "predictor and joint: precision")


def test_external_weights_are_not_read(whole_bundle, tmp_path):
    """Four gigabytes of weights that are a hole in a file: nothing of them is read."""
    if not Path("/proc/self/status").exists():
        pytest.skip("this system has no /proc to tell the memory that was used at most")
    directory = whole_bundle("split")
    rows, columns = 1 << 15, 1 << 15

    def enlarge(model):
        tensor = TensorProto(name="large", data_type=TensorProto.FLOAT, dims=[rows, columns])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="encoder.weights")
        model.graph.initializer.append(tensor)
        model.graph.node.append(helper.make_node("ReduceMax", ["large"], ["most"], keepdims=0))

    edit(directory / "encoder.onnx", enlarge)
    with open(directory / "encoder.weights", "wb") as file:
        file.truncate(rows * columns * 4)
    code = (
        "import sys; from tdtdecode.prepare.inspection import inspect\n"
        "i = inspect(sys.argv[1]); assert i.ok, i.problems\n"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )
    run = subprocess.run([sys.executable, "-c", code, directory], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 1 << 20  # kilobytes
    assert fact(inspect(directory), "encoder: external weights") == ["encoder.weights"]


# The eleven mistakes


def test_1_vocab_size_with_the_blank(whole_bundle):
    directory = whole_bundle("split")
    set_metadata(directory / "encoder.onnx", vocab_size="13")
    problem = only(inspect(directory), "vocab-size")
    assert (problem.file, problem.field) == ("encoder.onnx", "vocab_size")
    assert "13, which counts the blank" in problem.found and problem.expected.startswith("12 ")
    assert "<blk> is not the last token!" in problem.expected


def test_1_vocab_size_without_the_blank_in_genai(whole_bundle):
    directory = whole_bundle("genai")
    configure(directory / "genai_config.json", lambda data: data["model"].update(vocab_size=12))
    problem = only(inspect(directory), "vocab-size")
    assert "12, which does not count the blank" in problem.found and problem.expected.startswith("13 ")


def test_2_feat_dim_of_another_model(whole_bundle):
    directory = whole_bundle("split")
    set_metadata(directory / "encoder.onnx", feat_dim="128")
    problem = only(inspect(directory), "mel-bins")
    assert problem.field == "feat_dim" and problem.found == "128" and problem.expected.startswith("80")


@pytest.mark.parametrize(("layout", "file", "keys"), [
    ("combined", "config.json", ["features_size"]),
    ("genai", "genai_config.json", ["model", "num_mels"]),
    ("genai", "audio_processor_config.json", ["audio_params", "n_mels"]),
])  # fmt: skip
def test_2_mel_bins_in_configurations(whole_bundle, layout, file, keys):
    directory = whole_bundle(layout)

    def change(data):
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = 128

    configure(directory / file, change)
    problem = only(inspect(directory), "mel-bins")
    assert problem.file == file and problem.found == "128"


def test_2_feat_dim_missing_where_it_matters(tmp_path):
    """sherpa-onnx and onnx-asr compute 80 bins where nothing is said."""
    directory = small_bundle(tmp_path, "split", mel_bins=128)
    set_metadata(directory / "encoder.onnx", feat_dim=None)
    assert "not stated, which means 80" in only(inspect(directory), "mel-bins").found


def test_3_the_mel_axis_is_not_time(whole_bundle):
    inspection = inspect(whole_bundle("split"))
    assert fact(inspection, "mel bins") == 80 and fact(inspection, "time axis") == "dynamic"
    assert not any("at once" in note for note in inspection.notes)


def test_3_a_time_axis_that_is_fixed(whole_bundle):
    directory = whole_bundle("split")

    def fix(model):
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 400

    edit(directory / "encoder.onnx", fix)
    inspection = inspect(directory)
    assert inspection.ok
    assert fact(inspection, "mel bins") == 80 and fact(inspection, "time axis") == 400
    assert any("400 feature frames (4 s) at once" in note for note in inspection.notes)
    assert usable(inspection)["tdtdecode"] and not usable(inspection)["sherpa-onnx"]
    assert [p.code for p in inspect(directory, system="sherpa-onnx").problems] == ["system"]


def test_3_axes_the_other_way_round(whole_bundle):
    directory = whole_bundle("split")

    def swap(model):
        dims = model.graph.input[0].type.tensor_type.shape.dim
        dims[1].dim_param, dims[2].dim_value = "time", 80

    edit(directory / "encoder.onnx", swap)
    assert "encoder-axes" in [problem.code for problem in inspect(directory).problems]


def test_4_no_token_file(whole_bundle):
    directory = whole_bundle("split")
    (directory / "tokens.txt").unlink()
    problem = only(inspect(directory), "tokens-missing")
    assert problem.field == "tokens.txt" and "repair" in problem.remedy


@pytest.mark.parametrize("form", TOKEN_FORMS)
def test_4_tokens_from_the_wrong_kind_of_vocabulary(whole_bundle, form):
    directory = whole_bundle("split")
    change, found = TOKEN_FORMS[form]
    rewrite(directory / "tokens.txt", change)
    assert found in only(inspect(directory), "tokens-form").found


def test_4_no_blank(whole_bundle):
    directory = whole_bundle("split")
    rewrite(directory / "tokens.txt", lambda lines: lines[:-1])
    problem = only(inspect(directory), "blank-missing")
    assert "12 entries" in problem.found and "id 12" in problem.expected


def test_4_blank_in_the_middle(whole_bundle):
    directory = whole_bundle("split")
    rewrite(directory / "tokens.txt", lambda lines: [*lines[:5], "<blk> 5", *lines[6:-1], f"{lines[5].split()[0]} 12"])
    assert "id 5 of 13" in only(inspect(directory), "blank-place").found


def test_4_the_order_of_lines_is_free(whole_bundle):
    """The ids count, to all systems."""
    directory = whole_bundle("split")
    rewrite(directory / "tokens.txt", lambda lines: [lines[-1], *lines[:-1]])
    assert inspect(directory).ok and usable(inspect(directory))["sherpa-onnx"]


@pytest.mark.parametrize(("change", "found"), [
    (lambda lines: [f"{x.rsplit(' ', 1)[0]} {i}" for i, x in enumerate(lines, 1)], "ids begin at 1"),
    (lambda lines: [*lines[:6], *(f"{x.rsplit(' ', 1)[0]} {i}" for i, x in enumerate(lines[6:], 7))], "ids have gaps"),
    (lambda lines: [*lines[:6], f"{lines[6].split()[0]} 5", *lines[7:]], "ids repeat"),
])  # fmt: skip
def test_4_ids(whole_bundle, change, found):
    directory = whole_bundle("split")
    rewrite(directory / "tokens.txt", change)
    assert found in only(inspect(directory), "tokens-ids").found


def test_4_tokens_that_are_no_text(whole_bundle):
    directory = whole_bundle("split")
    (directory / "tokens.txt").write_bytes(b"\xff\xfe\x00 0\n")
    assert "not UTF-8" in only(inspect(directory), "tokens-form").found


def test_5_a_combined_graph_among_split_files(whole_bundle, tmp_path):
    directory = whole_bundle("combined")
    (directory / "encoder-model.onnx").rename(directory / "encoder.onnx")
    (directory / "vocab.txt").rename(directory / "tokens.txt")
    problem = only(inspect(directory), "layout")
    assert problem.file == "encoder-model.onnx" or "encoder" in problem.found
    wanted = inspect(directory, layout="split")
    assert "layout" in [problem.code for problem in wanted.problems]
    assert any("convert" in problem.remedy for problem in wanted.problems)


def test_5_what_a_system_needs_is_another_layout(whole_bundle):
    directory = whole_bundle("combined")
    problem = only(inspect(directory, system="sherpa-onnx"), "system")
    assert "split layout" in problem.found and "convert DIR --to split" in problem.remedy


def test_6_external_weights_missing(whole_bundle):
    directory = whole_bundle("split", external_weights=True)
    (directory / "encoder.onnx.data").unlink()
    problem = only(inspect(directory), "external-weights")
    assert problem.file == "encoder.onnx" and "'encoder.onnx.data' is missing" in problem.found


def test_6_external_weights_cut_short(whole_bundle):
    directory = whole_bundle("split", external_weights=True)
    data = directory / "encoder.onnx.data"
    data.write_bytes(data.read_bytes()[:100])
    assert "has only 100" in only(inspect(directory), "external-weights").found


def test_6_external_weights_outside(whole_bundle, tmp_path):
    directory = whole_bundle("split", external_weights=True)
    shutil.move(directory / "encoder.onnx.data", tmp_path / "elsewhere")
    (directory / "encoder.onnx.data").symlink_to(tmp_path / "elsewhere")
    assert "outside the model directory" in only(inspect(directory), "external-weights").found


@pytest.mark.parametrize("layout", ["split", "combined", "genai"])
def test_7_a_count_that_fits_nothing(whole_bundle, layout):
    directory = whole_bundle(layout)
    if layout == "split":
        set_metadata(directory / "encoder.onnx", vocab_size="9953")
    elif layout == "combined":
        configure(directory / "config.json", lambda data: data.update(vocab_size=9953))
    else:
        configure(directory / "genai_config.json", lambda data: data["model"].update(vocab_size=9953))
    problem = only(inspect(directory), "vocab-size-unknown")
    assert "9953, which fits no file" in problem.found


def test_7_a_token_file_of_another_model(whole_bundle):
    directory = whole_bundle("split")
    (directory / "tokens.txt").write_text("".join(f"p{i} {i}\n" for i in range(20)) + "<blk> 20\n")
    problem = only(inspect(directory), "tokens-count")
    assert "21 entries" in problem.found and problem.expected.startswith("13")


def test_8_an_address_without_tdt(whole_bundle):
    directory = whole_bundle("split")
    set_metadata(directory / "encoder.onnx", url="https://example.org/parakeet")
    problem = only(inspect(directory), "url")
    assert "without 'tdt'" in problem.found and "vocab_size: 13 != output_size: 18" in problem.expected
    assert not usable(inspect(directory))["sherpa-onnx"]


def test_8_an_address_with_tdt_of_a_model_without(whole_bundle):
    directory = whole_bundle("split", durations=())
    set_metadata(directory / "encoder.onnx", url="https://example.org/parakeet-tdt")
    assert "no durations" in only(inspect(directory), "url").found


def test_9_guessed_durations(whole_bundle):
    directory = whole_bundle("genai")
    set_metadata(directory / "encoder.onnx", tdt_durations=None)
    configure(directory / "genai_config.json", lambda data: data["model"].update(tdt_durations=[0, 1, 2, 4, 8]))
    problem = only(inspect(directory), "durations-guessed")
    assert "[0, 1, 2, 3, 4]" in problem.expected


def test_9_durations_that_are_meant(whole_bundle):
    """Stated in two places, the same table is no guess."""
    assert inspect(whole_bundle("genai", durations=(0, 1, 2, 4, 8))).ok


def test_9_no_durations_in_genai(whole_bundle):
    directory = whole_bundle("genai")
    configure(directory / "genai_config.json", lambda data: data["model"].pop("tdt_durations"))
    assert only(inspect(directory), "durations-missing").field == "model.tdt_durations"


def test_9_as_many_durations_as_the_joint_has_not(whole_bundle):
    directory = whole_bundle("genai")
    configure(directory / "genai_config.json", lambda data: data["model"].update(tdt_durations=[0, 1, 2, 3]))
    codes = [problem.code for problem in inspect(directory).problems]
    assert "durations-count" in codes


def test_10_a_ctc_head_alone(tmp_path):
    """What NeMo exports of a hybrid model whose CTC head is the current one."""
    make_ctc(tmp_path / "model.onnx", 12)
    (tmp_path / "vocab.txt").write_text("".join(f"p{i} {i}\n" for i in range(12)) + "<blk> 12\n")
    codes = [problem.code for problem in inspect(tmp_path).problems]
    assert codes == ["no-model", "ctc-head"]
    assert "transducer head" in inspect(tmp_path).problems[1].remedy


def test_10_a_ctc_model_in_the_encoder_s_place(whole_bundle):
    directory = whole_bundle("combined")
    make_ctc(directory / "encoder-model.onnx", 12)
    assert "ctc-head" in [problem.code for problem in inspect(directory).problems]


def test_10_a_ctc_head_in_the_joint_s_place(whole_bundle):
    directory = whole_bundle("split")
    frames = helper.make_tensor_value_info("encoder_outputs", TensorProto.FLOAT, ["B", 16, "T"])
    rows = helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["B", "T", 13])
    nodes = [
        helper.make_node("Transpose", ["encoder_outputs"], ["x"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["x", "w"], ["outputs"]),
    ]
    weight = numpy_helper.from_array(np.zeros((16, 13), np.float32), "w")
    save(directory / "joiner.onnx", helper.make_graph(nodes, "ctc", [frames], [rows], [weight]))
    assert "ctc-head" in [problem.code for problem in inspect(directory).problems]


def make_ctc(file, tokens):
    audio = helper.make_tensor_value_info("audio_signal", TensorProto.FLOAT, ["B", 80, "T"])
    length = helper.make_tensor_value_info("length", TensorProto.INT64, ["B"])
    rows = helper.make_tensor_value_info("logprobs", TensorProto.FLOAT, ["B", "T", tokens + 1])
    nodes = [
        helper.make_node("Transpose", ["audio_signal"], ["x"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("LogSoftmax", ["y"], ["logprobs"], axis=-1),
    ]
    weight = numpy_helper.from_array(np.zeros((80, tokens + 1), np.float32), "w")
    save(file, helper.make_graph(nodes, "ctc", [audio, length], [rows], [weight]))


def save(file, graph):
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)


def test_11_int8_on_a_gpu(tmp_path, whole_bundle):
    directory = whole_bundle("genai")
    quantised = small_bundle(tmp_path / "int8", "genai", precision="int8", mel_bins=80)
    shutil.copy(quantised / "decoder.int8.onnx", directory / "decoder.onnx")
    options = {"provider_options": [{"cuda": {}}]}
    configure(directory / "genai_config.json", lambda data: data["model"]["decoder"].update(session_options=options))
    problem = only(inspect(directory), "int8-on-gpu")
    assert "decoder.onnx on cuda" in problem.found
    assert any("int8 graphs" in note for note in inspect(directory).notes)


def test_11_float16_weights_that_overflowed(tmp_path):
    directory = small_bundle(tmp_path, "split", precision="fp16", mel_bins=80)

    def overflow(model):
        tensor = next(t for t in model.graph.initializer if t.dims == [10, 18])
        tensor.CopyFrom(numpy_helper.from_array(np.full((10, 18), np.inf, np.float16), tensor.name))

    edit(directory / "joiner.fp16.onnx", overflow)
    codes = [problem.code for problem in inspect(directory).problems]
    assert codes[0] == "not-finite"


def test_11_a_float16_joint_that_overflows(tmp_path):
    directory = small_bundle(tmp_path, "split", precision="fp16", mel_bins=80)

    def enlarge(model):
        tensor = next(t for t in model.graph.initializer if t.dims == [10, 18])
        tensor.CopyFrom(numpy_helper.from_array(np.full((10, 18), 6e4, np.float16), tensor.name))

    edit(directory / "joiner.fp16.onnx", enlarge)
    assert "float16-overflow" in [problem.code for problem in inspect(directory).problems]


# Others


@pytest.mark.parametrize(("content", "found"), [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "Git LFS"),
    (b"<!DOCTYPE html><html>404</html>", "a web page"),
    (b"", "empty"),
])  # fmt: skip
def test_what_came_in_place_of_a_file(whole_bundle, content, found):
    directory = whole_bundle("split")
    (directory / "joiner.onnx").write_bytes(content)
    assert any(problem.code == "graph" and found in problem.found for problem in inspect(directory).problems)


def test_metadata_of_another_predictor(whole_bundle):
    directory = whole_bundle("split")
    set_metadata(directory / "encoder.onnx", pred_hidden="640")
    assert only(inspect(directory), "predictor-size").field == "pred_hidden"


def test_the_wrong_model_type(whole_bundle):
    directory = whole_bundle("combined")
    configure(directory / "config.json", lambda data: data.update(model_type="nemo-conformer-rnnt"))
    assert only(inspect(directory), "model-type").file == "config.json"


def test_a_joint_of_another_model(whole_bundle, tmp_path):
    directory = whole_bundle("split")
    other = small_bundle(tmp_path / "larger", "split", predictor_size=24)
    shutil.copy(other / "joiner.onnx", directory)
    assert "different models" in only(inspect(directory), "unusable").found


def test_what_no_check_knows_is_said_beside_the_rest(whole_bundle, tmp_path):
    directory = whole_bundle("split")
    set_metadata(directory / "encoder.onnx", url="model")
    other = small_bundle(tmp_path / "larger", "split", predictor_size=24)
    shutil.copy(other / "joiner.onnx", directory)
    assert [problem.code for problem in inspect(directory).problems] == ["url", "unusable"]


def test_several_at_once(whole_bundle):
    directory = whole_bundle("split")
    set_metadata(directory / "encoder.onnx", vocab_size="13", feat_dim="128", url="model")
    rewrite(directory / "tokens.txt", lambda lines: lines[:-1])
    codes = {problem.code for problem in inspect(directory).problems}
    assert codes == {"vocab-size", "mel-bins", "url", "blank-missing"}


def test_an_empty_directory(tmp_path):
    assert only(inspect(tmp_path), "no-model").file == "."


def test_wrong_arguments(tmp_path):
    with pytest.raises(tdt.BundleError, match="no such model directory"):
        inspect(tmp_path / "nowhere")
    with pytest.raises(tdt.InputError, match="layout must be"):
        inspect(tmp_path, layout="nemo")
    with pytest.raises(tdt.InputError, match="variant must be"):
        inspect(tmp_path, variant="../x")
    with pytest.raises(tdt.InputError, match="system must be .*got 'kaldi'"):
        inspect(tmp_path, system="kaldi")


# The command


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_lines_fit_the_terminal(whole_bundle, capsys, monkeypatch, columns):
    """The verdict comes first, and no line is longer than the terminal is wide."""
    monkeypatch.setenv("COLUMNS", str(columns))
    directory = whole_bundle("split")
    set_metadata(directory / "encoder.onnx", vocab_size="13")
    for model, verdict in (("demo", "no problems, can be used with tdtdecode"), (directory, "1 problem, can be used")):
        main(["inspect", str(model)])
        lines = capsys.readouterr().out.splitlines()
        assert " ".join(" ".join(lines[:3]).split()).startswith(verdict)
        assert max(map(len, lines)) <= min(columns, 120)
        text = " ".join(" ".join(lines).split())
        assert text.index("problems:") < text.index("what it is:") < text.index("embedding rows:")


def test_unrelated_files_are_not_listed(tmp_path, capsys):
    for name in ("notes.txt", "photo.jpg", "data.json", "secret"):
        (tmp_path / name).write_text("")
    assert main(["inspect", str(tmp_path)]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "the directory: no model, but no file of a model" in out
    with pytest.raises(tdt.BundleError, match="no model in it: expected .* found no file of a model") as failure:
        tdt.load_model(tmp_path)
    (tmp_path / "model.nemo").write_text("")
    with pytest.raises(tdt.BundleError, match="found model.nemo$"):
        tdt.load_model(tmp_path)
    for text in (out, str(failure.value)):
        assert not any(name in text for name in ("notes", "photo", "data.json", "secret"))


def test_the_command(whole_bundle, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    directory = whole_bundle("split")
    assert main(["inspect", str(directory)]) == 0
    out = capsys.readouterr().out
    assert "problems: none" in out and "sherpa-onnx        yes" in out
    set_metadata(directory / "encoder.onnx", vocab_size="13")
    assert main(["inspect", str(directory)]) == 1
    out = capsys.readouterr().out
    assert "encoder.onnx, vocab_size: 13, which counts the blank" in out and "to fix it" in out


def test_the_command_for_machines(whole_bundle, capsys):
    directory = whole_bundle("split")
    assert main(["inspect", str(directory), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["ok"] and data["layout"] == "split" and data["problems"] == []
    assert {"name": "blank", "value": 12, "file": "tokens.txt", "field": ""} in data["facts"]
    assert main(["inspect", str(directory), "--json", "--for", "onnx-asr"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert [problem["code"] for problem in data["problems"]] == ["system"]
