"""Directories made to do harm, or just damaged: refused by a message, in bounded time and memory.

`tools/fuzz_bundles.py` looks for more of them; what it found is here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tdtdecode as tdt
from tdtdecode.bundle import probe, read_bundle
from tdtdecode.prepare.conversion import convert
from tdtdecode.prepare.inspection import inspect
from tdtdecode.prepare.optimization import optimize
from tdtdecode.prepare.repairing import repair
from tests.bundle.helpers import edit, small_bundle
from tests.conftest import HANGING


def check_all_refuse(directory: Path, tmp_path: Path, *parts: str) -> None:
    """Reading and converting refuse; inspecting says what is wrong; repairing mends what it can and says the rest."""
    with pytest.raises(tdt.BundleError) as caught:
        read_bundle(directory)
    for part in parts:
        assert part in str(caught.value)
    with pytest.raises(tdt.TdtDecodeError):
        convert(directory, tmp_path / "converted", "genai")
    assert not (tmp_path / "converted").exists()
    inspection = inspect(directory)
    assert not inspection.ok
    json.dumps(inspection.as_dict())
    try:
        repair(directory, tmp_path / "mended")
    except tdt.TdtDecodeError:
        assert not (tmp_path / "mended").exists()


@pytest.fixture
def bundle(tmp_path):
    return small_bundle(tmp_path / "bundle", "split", mel_bins=80)


def unknown_type_of_a_port(model):
    model.graph.input[0].type.tensor_type.elem_type = 255


def negative_type_of_a_port(model):
    model.graph.output[0].type.tensor_type.elem_type = -1


def too_few_values(model):
    model.graph.initializer[0].dims[0] += 1


def too_few_values_one_by_one(model):
    tensor = model.graph.initializer[0]
    tensor.CopyFrom(TensorProto(name=tensor.name, data_type=TensorProto.FLOAT, float_data=[1.0], dims=[2]))


def values_of_another_type(model):
    tensor = model.graph.initializer[0]
    tensor.CopyFrom(TensorProto(name=tensor.name, data_type=TensorProto.FLOAT, int64_data=[1], dims=[]))


def two_inputs_of_one_name(model):
    model.graph.input.add().CopyFrom(model.graph.input[2])
    del model.graph.input[-1].type.tensor_type.shape.dim[:]


def negative_dimensions(model):
    tensor = model.graph.initializer[0]
    tensor.dims[:] = [-dim for dim in tensor.dims]


def absurd_dimensions(model):
    model.graph.initializer[0].dims[:] = [1 << 62, 1 << 62]


def texts_with_raw_data(model):
    tensor = model.graph.initializer[0]
    tensor.CopyFrom(TensorProto(name=tensor.name, data_type=TensorProto.STRING, raw_data=b"", dims=[]))


def a_node_without_inputs(model):
    del next(n for n in model.graph.node if n.op_type == "Gather").input[1:]


def a_node_without_inputs_in_an_unknown_version(model):
    del next(n for n in model.graph.node if n.op_type == "Gather").input[:]
    model.opset_import[0].version = 1 << 40


def a_node_without_outputs(model):
    del model.graph.node[0].output[:]


def a_scalar_state(model):
    del model.graph.input[2].type.tensor_type.shape.dim[:]


def a_state_of_absurd_size(model):
    model.graph.input[2].type.tensor_type.shape.dim[2].dim_value = 1 << 40


def a_cycle(model):
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


def deep_subgraphs(model):
    inner = helper.make_graph([], "deep", [], [])
    for depth in range(30):
        node = helper.make_node("If", ["c"], [f"o{depth}"], then_branch=inner, else_branch=onnx.GraphProto())
        inner = helper.make_graph([node], "deep", [], [])
    model.graph.node.extend(inner.node)


def a_constant_shape_of_terabytes(model):
    model.graph.initializer.append(numpy_helper.from_array(np.array([1 << 20, 1 << 22], np.int64), "huge"))
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["huge"], ["bomb"]))
    model.graph.node.append(helper.make_node("ReduceSum", ["bomb"], ["sum"], keepdims=0))


def a_tiling_of_terabytes(model):
    tensor = numpy_helper.from_array(np.array([1 << 22, 1 << 22], np.int64))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["times"], value=tensor))
    model.graph.node.append(helper.make_node("Tile", [model.graph.initializer[0].name, "times"], ["bomb"]))


def an_address_in_memory(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="*/_ORT_MEM_ADDR_/*")


@pytest.mark.parametrize("change", [
    unknown_type_of_a_port, negative_type_of_a_port, too_few_values, too_few_values_one_by_one,
    values_of_another_type, two_inputs_of_one_name, negative_dimensions, absurd_dimensions,
    texts_with_raw_data, a_node_without_inputs, a_node_without_inputs_in_an_unknown_version, a_node_without_outputs,
    a_scalar_state, a_state_of_absurd_size, a_cycle, deep_subgraphs, a_constant_shape_of_terabytes,
    a_tiling_of_terabytes, an_address_in_memory,
], ids=lambda change: change.__name__)  # fmt: skip
def test_graphs(bundle, tmp_path, change):
    edit(bundle / "decoder.onnx", change)
    check_all_refuse(bundle, tmp_path, "decoder.onnx")


@pytest.mark.parametrize("location", [
    "/etc/passwd", "../outside", "..\\outside", "C:\\outside", "a/../../outside", "a\0b", "", "x" * 70_000,
    "\\\\host\\x",
])  # fmt: skip
def test_locations_of_weights(bundle, tmp_path, location):
    (tmp_path / "outside").write_bytes(b"\0" * 100_000)

    def change(model):
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    edit(bundle / "decoder.onnx", change)
    check_all_refuse(bundle, tmp_path, "decoder.onnx")


def test_frames_without_axes(tmp_path):
    """In a combined graph that cannot be split."""
    directory = small_bundle(tmp_path / "bundle", "combined", mel_bins=80)

    def change(model):
        del model.graph.input[0].type.tensor_type.shape.dim[:]
        state = next(n for n in model.graph.node if "output_states_1" in n.output)
        state.op_type = "Unknown"

    edit(directory / "decoder_joint-model.onnx", change)
    check_all_refuse(directory, tmp_path, "decoder_joint-model.onnx")


def test_names_that_are_no_text(bundle, tmp_path):
    """A protobuf's text that is no UTF-8 comes out as bytes, in the middle of everything that takes names."""
    data = (bundle / "decoder.onnx").read_bytes()
    assert data.count(b"/Gather") or data.count(b"Gather")
    (bundle / "decoder.onnx").write_bytes(data.replace(b"decoder.prediction.embed.weight", b"\xff" * 31))
    check_all_refuse(bundle, tmp_path, "not UTF-8 text")


@pytest.mark.parametrize("size", [0, 1, 10, 1000])
def test_graphs_cut_short(bundle, tmp_path, size):
    data = (bundle / "joiner.onnx").read_bytes()
    (bundle / "joiner.onnx").write_bytes(data[:size])
    check_all_refuse(bundle, tmp_path, "joiner.onnx")


def huge(path):
    path.unlink()
    with open(path, "wb") as file:
        file.truncate(1 << 40)


def fifo(path):
    path.unlink()
    os.mkfifo(path)


def device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def secret(path):
    path.unlink()
    path.symlink_to("/etc/passwd")


def loop(path):
    path.unlink()
    path.symlink_to(path.name)


def folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["tokens.txt", "decoder.onnx", "encoder.onnx"])
@pytest.mark.parametrize("kind", [huge, fifo, device, secret, loop, folder], ids=lambda kind: kind.__name__)
def test_strange_files(bundle, tmp_path, kind, name):
    kind(bundle / name)
    check_all_refuse(bundle, tmp_path)


@pytest.mark.parametrize("content", [
    b"\xff\xfe\x00", b"[" * 200_000, b"{" * 200_000, ("(" * 60_000 + "' 3\n").encode(), b"\n" * 100_000,
    b"a 0\n" * 50_000, b"p 99999999999999999999\n", b"\0 0\n",
], ids=range(8))  # fmt: skip
def test_token_files(bundle, tmp_path, content):
    (bundle / "tokens.txt").write_bytes(content)
    check_all_refuse(bundle, tmp_path, "tokens.txt")


@pytest.mark.parametrize("content", [
    "[" * 200_000,
    '{"model": ' * 50_000,
    "[]",
    '{"a": NaN}',
    '{"model": []}',
    '{"model": {"encoder": 5}}',
    '{"model": {"vocab_size": 1e400}}',
    '{"model": {"vocab_size": 99999999999}}',
    '{"model": {"decoder": {"filename": "/etc/passwd"}}}',
    '{"model": {"decoder": {"filename": "../../x"}}}',
    '{"model": {"tdt_durations": [1e9]}}',
], ids=range(11))  # fmt: skip
def test_configurations(tmp_path, content):
    directory = small_bundle(tmp_path / "bundle", "genai", mel_bins=80)
    (directory / "genai_config.json").write_text(content)
    check_all_refuse(directory, tmp_path)


@pytest.mark.parametrize("name", ["tokens.txt", "vocab.json", "tokenizer.json"])
def test_halves_of_characters(bundle, tmp_path, name):
    """JSON can hold escapes that are no Unicode, which no file can be written with."""
    pieces = [f"p{i}" for i in range(11)]
    (bundle / "tokens.txt").unlink()
    text = json.dumps([*pieces, "\udc80"]) if name != "tokenizer.json" else json.dumps(
        {"model": {"vocab": [*pieces, "\udc80"]}})  # fmt: skip
    (bundle / name).write_text(text)
    check_all_refuse(bundle, tmp_path)
    (bundle / name).unlink()
    (bundle / "tokens.txt").write_text("".join(f"['\\udc80{i}', -1.5] {i}\n" for i in range(12)) + "<blk> 12\n")
    repair(bundle, tmp_path / "again")


def test_a_loop_without_an_end(bundle, tmp_path, monkeypatch):
    """Graphs may have loops; the probe of one that does not end is ended."""
    monkeypatch.setattr(probe, "_SECONDS", 0.2)

    def change(model):
        value = helper.make_tensor_value_info
        body = helper.make_graph(
            [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["x"], ["y"])], "body",
            [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("x", TensorProto.FLOAT, None)],
            [value("on", TensorProto.BOOL, []), value("y", TensorProto.FLOAT, None)],
        )  # fmt: skip
        output = next(n for n in model.graph.node if n.output[0] == "outputs")
        output.output[0] = "before"
        model.graph.initializer.append(numpy_helper.from_array(np.array(1 << 62, np.int64), "times"))
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
        model.graph.node.append(helper.make_node("Loop", ["times", "always", "before"], ["outputs"], body=body))

    edit(bundle / "decoder.onnx", change)
    check_all_refuse(bundle, tmp_path, "cannot run it")


def test_memory_is_bounded(tmp_path):
    """All of it within a gigabyte of address space more than Python and ONNX Runtime take by themselves."""
    directory = small_bundle(tmp_path / "bundle", "split", mel_bins=80)
    edit(directory / "decoder.onnx", a_constant_shape_of_terabytes)
    huge(directory / "tokens.txt")
    code = (
        "import resource, sys\n"
        "import onnx, onnxruntime, numpy\n"
        "from tdtdecode.prepare.inspection import inspect\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)\n"
        "inspection = inspect(sys.argv[1])\n"
        "print(*(problem.code for problem in inspection.problems))\n"
    )
    if not Path("/proc/self/statm").exists():
        pytest.skip("this system has no /proc to tell the address space in use")
    run = subprocess.run([sys.executable, "-c", code, directory], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "graph" in run.stdout and "tokens-form" in run.stdout


def test_nothing_outside_is_opened(tmp_path):
    """By Python's own account of every file that is opened."""
    directory = small_bundle(tmp_path / "bundle", "split", mel_bins=80)
    (tmp_path / "secret.txt").write_text("secret")
    for name in ("tokens.txt", "encoder.onnx", "README.md", "tokenizer.json", "config.json", "weights.data"):
        (directory / name).unlink(missing_ok=True)
        (directory / name).symlink_to("../secret.txt")
    code = (
        "import sys\n"
        "from tdtdecode.prepare.inspection import inspect\n"
        "from tdtdecode.prepare.repairing import repair\n"
        "sys.addaudithook(lambda event, a: print(a[0]) if event == 'open' and 'secret' in str(a[0]) else None)\n"
        "inspect(sys.argv[1]); repair(sys.argv[1], sys.argv[2])\n"
    )
    run = subprocess.run([sys.executable, "-c", code, directory, tmp_path / "out"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == ""
    assert not any("secret" in path.read_bytes().decode("latin-1") for path in (tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["LICENSE", "notes.txt", "extra.json"])
def test_texts_are_not_copied_from_outside(tmp_path, name):
    directory = small_bundle(tmp_path / "bundle", "split", mel_bins=80)
    (tmp_path / "secret").write_text("secret")
    (directory / name).symlink_to("../secret")
    acts = [lambda: optimize(directory, tmp_path / "out", "fp16")]
    if name == "LICENSE":
        acts.append(lambda: convert(directory, tmp_path / "out", "combined"))
    for act in acts:
        with pytest.raises(tdt.BundleError, match="outside the model directory"):
            act()
        assert not (tmp_path / "out").exists()


def test_the_fuzzer_runs():
    """A few cases of the tool that looks for more of these."""
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-m", "tools.fuzz_bundles", "--seconds", "3", "--seed", "7"], cwd=root, capture_output=True,
        text=True, timeout=HANGING,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert " 0 findings" in run.stdout.splitlines()[-1], run.stdout
