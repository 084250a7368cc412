"""A model directory is untrusted: nothing outside it is opened, and weights outside a graph are checked first."""

from __future__ import annotations

import hashlib
import json
import os

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import tdtdecode as tdt
from tdtdecode.bundle import files, load_graph, read_bundle
from tdtdecode.bundle.onnx_files import parsing
from tests.bundle.helpers import edit, random_step, small_bundle, step

DATA = "decoder_joint-model.onnx.data"
GRAPH = "decoder_joint-model.onnx"


def hub_snapshot(cache, layout="combined", **options):
    """A bundle as a model hub keeps it: every file a link into the repository's blobs."""
    repository = cache / "models--someone--model"
    snapshot = repository / "snapshots" / "0123abc"
    small_bundle(snapshot, layout, **options)
    (repository / "blobs").mkdir()
    for file in list(snapshot.iterdir()):
        blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(blob)
        file.symlink_to(os.path.join("..", "..", "blobs", blob.name))
    return snapshot


def set_external(file, name=None, **entries):
    """Change entries of the external data of a graph's first (or named) tensor; None removes one."""

    def change(model):
        tensor = next(t for t in model.graph.initializer if name in (None, t.name))
        kept = {entry.key: entry.value for entry in tensor.external_data} | entries
        del tensor.external_data[:]
        for key, value in kept.items():
            if value is not None:
                tensor.external_data.add(key=key, value=str(value))

    edit(file, change)


def check_refused(directory, *parts, **arguments):
    with pytest.raises(tdt.BundleError) as caught:
        read_bundle(directory, **arguments)
    for part in parts:
        assert str(part) in str(caught.value)


@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
@pytest.mark.parametrize("layout", ["split", "combined", "genai"])
def test_hub_snapshots(tmp_path, layout, external):
    reference = read_bundle(small_bundle(tmp_path / "plain", layout))
    snapshot = hub_snapshot(tmp_path / "hub", layout, external_weights=external, mel_bins=8)
    bundle = read_bundle(snapshot)
    assert bundle.spec == reference.spec
    data = random_step(bundle)
    np.testing.assert_array_equal(step(bundle, *data)[0], step(reference, *data)[0])
    graph = load_graph(bundle.encoder, bundle.directory)
    frames, lengths = graph.session().run(None, {
        "audio_signal": np.ones((1, 8, 20), np.float32), "length": np.array([20])
    })
    assert frames.shape == (1, 16, 3) and lengths.tolist() == [3]


def test_a_snapshot_reached_through_a_link(tmp_path):
    snapshot = hub_snapshot(tmp_path, external_weights=True)
    (tmp_path / "model").symlink_to(snapshot)
    assert read_bundle(tmp_path / "model").directory == snapshot


def test_a_real_graph_with_linked_weights(tmp_path):
    """ONNX Runtime itself refuses this one by path."""
    snapshot = hub_snapshot(tmp_path, external_weights=True)
    content = (snapshot / GRAPH).read_bytes()
    (snapshot / GRAPH).unlink()
    (snapshot / GRAPH).write_bytes(content)
    with pytest.raises(Exception, match="escapes model directory"):
        ort.InferenceSession(snapshot / GRAPH, providers=["CPUExecutionProvider"])
    bundle = read_bundle(snapshot)
    step(bundle, *random_step(bundle))


@pytest.mark.parametrize("name", [GRAPH, DATA, "vocab.txt", "config.json", "encoder-model.onnx"])
def test_links_that_lead_out(tmp_path, name):
    directory = small_bundle(tmp_path / "model", external_weights=True, mel_bins=8)
    (directory / name).rename(tmp_path / "outside")
    (directory / name).symlink_to(tmp_path / "outside")
    check_refused(directory, "outside the model directory", name)


def test_links_from_a_snapshot_to_another_repository(tmp_path):
    snapshot = hub_snapshot(tmp_path, external_weights=True)
    other = tmp_path / "models--other--model" / "blobs"
    other.mkdir(parents=True)
    (snapshot / DATA).resolve().rename(other / "x")
    (snapshot / DATA).unlink()
    (snapshot / DATA).symlink_to(other / "x")
    check_refused(snapshot, DATA, "outside the model directory")


def test_blobs_that_are_a_link_themselves(tmp_path):
    snapshot = hub_snapshot(tmp_path)
    blobs = snapshot.parent.parent / "blobs"
    blobs.rename(tmp_path / "elsewhere")
    blobs.symlink_to(tmp_path / "elsewhere")
    check_refused(snapshot, "outside the model directory")


def test_links_within_the_directory_are_fine(tmp_path):
    directory = small_bundle(tmp_path, external_weights=True)
    before = read_bundle(directory)
    rows, _ = step(before, *random_step(before))
    (directory / "weights").mkdir()
    (directory / DATA).rename(directory / "weights" / "w.bin")
    (directory / DATA).symlink_to(directory / "weights" / "w.bin")
    bundle = read_bundle(directory)
    np.testing.assert_array_equal(step(bundle, *random_step(bundle))[0], rows)


def test_broken_and_circular_links(tmp_path):
    directory = small_bundle(tmp_path)
    (directory / "vocab.txt").unlink()
    (directory / "vocab.txt").symlink_to("nowhere.txt")
    check_refused(directory, "vocab.txt", "broken link")
    (directory / "vocab.txt").unlink()
    (directory / "vocab.txt").symlink_to("vocab.txt")
    check_refused(directory, "vocab.txt")


@pytest.mark.parametrize(
    "location",
    ["../outside.data", "/etc/passwd", "a/../../outside.data", "..\\outside.data", "C:\\x", "\\\\host\\x", "", "a\0b",
     "*/_ORT_MEM_ADDR_/*"],
)
def test_locations_outside(tmp_path, location):
    directory = small_bundle(tmp_path / "model", external_weights=True)
    (tmp_path / "outside.data").write_bytes((directory / DATA).read_bytes())
    set_external(directory / GRAPH, location=location)
    check_refused(directory, GRAPH, "location", "inside the model directory")


def test_a_location_in_memory_is_refused_even_if_such_a_file_exists(tmp_path):
    directory = small_bundle(tmp_path, external_weights=True)
    (directory / "*" / "_ORT_MEM_ADDR_").mkdir(parents=True)
    (directory / "*" / "_ORT_MEM_ADDR_" / "*").write_bytes(bytes(100_000))
    set_external(directory / GRAPH, location="*/_ORT_MEM_ADDR_/*")
    check_refused(directory, "location")


def test_missing_weights(tmp_path):
    directory = small_bundle(tmp_path, external_weights=True)
    (directory / DATA).unlink()
    check_refused(directory, GRAPH, DATA, "is missing")


def test_truncated_weights(tmp_path):
    directory = small_bundle(tmp_path, external_weights=True)
    with open(directory / DATA, "r+b") as file:
        file.truncate(os.path.getsize(directory / DATA) - 1)
    check_refused(directory, GRAPH, DATA, "truncated")


@pytest.mark.parametrize(
    "entries",
    [{"offset": -1}, {"offset": "x"}, {"offset": 1 << 62}, {"length": 1}, {"length": 1 << 40}, {"length": "y"}],
    ids=str,
)
def test_extents_that_do_not_fit(tmp_path, entries):
    directory = small_bundle(tmp_path, external_weights=True)
    set_external(directory / GRAPH, **entries)
    check_refused(directory, GRAPH, "external data of")


def test_tensors_of_unknown_type(tmp_path):
    directory = small_bundle(tmp_path, external_weights=True)

    def change(model):
        model.graph.initializer[0].data_type = 99

    edit(directory / GRAPH, change)
    check_refused(directory, GRAPH)


def test_external_data_is_found_wherever_a_graph_hides_it(tmp_path):
    """A tensor in an attribute of a subgraph is opened by ONNX Runtime as well."""
    directory = small_bundle(tmp_path / "model")
    tensor = onnx.TensorProto(name="t", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    constant = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    inner = onnx.helper.make_graph([constant], "g", [], [onnx.helper.make_tensor_value_info("c", 1, [1])])

    def change(model):
        node = onnx.helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
        model.graph.node.append(node)

    edit(directory / GRAPH, change)
    check_refused(directory, GRAPH, "../secret")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_not_read(tmp_path):
    directory = small_bundle(tmp_path)
    (directory / "vocab.txt").unlink()
    os.mkfifo(directory / "vocab.txt")
    check_refused(directory, "vocab.txt", "regular file")


def test_sizes_are_bounded_before_reading(tmp_path, monkeypatch):
    directory = small_bundle(tmp_path)
    with open(directory / "vocab.txt", "r+b") as file:
        file.truncate(files.TEXT_LIMIT + 1)
    check_refused(directory, "vocab.txt", "more than")
    monkeypatch.setattr(parsing, "GRAPH_LIMIT", 100)
    check_refused(small_bundle(tmp_path / "b"), GRAPH, "more than")


def test_sessions_with_options_of_the_caller(tmp_path):
    """The same options serve several bundles with external weights."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name in ("a", "b"):
        bundle = read_bundle(small_bundle(tmp_path / name, external_weights=True))
        for graph in (bundle.transducer.predictor.graph, bundle.transducer.joint.graph):
            graph.session(options, ["CPUExecutionProvider"])
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_weights_of_4_bits(tmp_path):
    """The size of packed tensors is counted right."""
    tensor = onnx.helper.make_tensor("w", onnx.TensorProto.INT4, [3, 3], np.arange(9) % 7)
    node = onnx.helper.make_node("DequantizeLinear", ["w", "s"], ["y"])
    scale = onnx.helper.make_tensor("s", 1, [], [0.5])
    outputs = [onnx.helper.make_tensor_value_info("y", 1, [3, 3])]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [], outputs, [tensor, scale]),
        opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10,
    )
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    graph = load_graph(tmp_path / "m.onnx", tmp_path)
    (values,) = graph.session().run(None, {})
    np.testing.assert_array_equal(values.ravel(), np.arange(9) % 7 * 0.5)


def test_configuration_names_stay_inside(tmp_path):
    directory = small_bundle(tmp_path / "model", "genai")
    (directory / "decoder.onnx").rename(tmp_path / "decoder.onnx")
    configuration = json.loads((directory / "genai_config.json").read_text())
    configuration["model"]["decoder"]["filename"] = str(tmp_path / "decoder.onnx")
    (directory / "genai_config.json").write_text(json.dumps(configuration))
    check_refused(directory, "in the directory")
