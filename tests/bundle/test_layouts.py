"""Layouts, precisions, orientations and structures: all read, all run at any batch size."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tdtdecode as tdt
from benches import nemo_graphs
from benches.random_bundle import LAYOUTS, PRECISIONS, make_bundle
from benches.random_weights import random_weights
from tdtdecode.bundle import CombinedTransducer, SplitTransducer, read_bundle
from tests.bundle.helpers import SMALL, edit, random_step, small_bundle, step, store_as_float16


def expected_rows(weights, frames, tokens, states):
    """What NumPy makes of the same weights."""
    rows = []
    for i, token in enumerate(tokens):
        output, _ = weights.predict(token, (states[0][:, i], states[1][:, i]))
        rows.append(weights.rows(weights.project_frames(frames[i]), weights.project_prediction(output)))
    return np.array(rows)


def log_softmax(rows):
    shifted = rows - rows.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def small_weights(durations=(0, 1, 2, 3, 4), layers=2, **options):
    sizes = [SMALL[name] for name in ("encoder_size", "predictor_size")]
    return random_weights(
        SMALL["vocab_size"], durations, *sizes, layers, SMALL["joint_size"], tokens_per_second=None, **options
    )


@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_precision_computes_the_same(tmp_path, layout, precision, external):
    directory = small_bundle(tmp_path, layout, precision=precision, external_weights=external)
    bundle = read_bundle(directory, variant=None if precision == "fp32" else precision)
    assert bundle.layout == layout
    assert isinstance(bundle.transducer, SplitTransducer)
    quantized = {bundle.transducer.predictor.graph.quantized, bundle.transducer.joint.graph.quantized}
    assert quantized == {precision == "int8"}
    frames, tokens, states = random_step(bundle)
    rows, _ = step(bundle, frames, tokens, states)
    expected = expected_rows(small_weights(), frames, tokens, states)
    if layout == "genai":
        expected = log_softmax(expected)
    tolerance = {"fp32": 1e-5, "fp16": 2e-2, "int8": 0.5}[precision]
    np.testing.assert_allclose(rows, expected, atol=tolerance)


@pytest.mark.parametrize("blank", ["first", "last"])
@pytest.mark.parametrize("durations", [(), (0, 1, 2, 3, 4), (0, 1, 2, 4, 8)], ids=["rnnt", "01234", "01248"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_spec(tmp_path, layout, durations, blank):
    bundle = read_bundle(small_bundle(tmp_path, layout, durations=durations, blank=blank), layout=layout)
    stated = durations if layout == "genai" else tuple(range(len(durations)))
    assert bundle.spec == tdt.TransducerSpec(12, stated, 0 if blank == "first" else 12, 16)
    assert bundle.vocabulary.pieces[bundle.spec.blank] in ("<blk>", "<blank>")
    assert bundle.vocabulary.size == 12
    assert bundle.frame_seconds == pytest.approx(0.08)


@pytest.mark.parametrize("options", [
    {"predictor_layers": 1}, {"predictor_layers": 3}, {"activation": "tanh"}, {"biases": False}, {"static_batch": True},
    {"predictor_size": 16}, {"joint_size": 16}, {"predictor_layers": 1, "predictor_size": 12, "encoder_size": 12},
], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sizes_and_structures(tmp_path, layout, options):
    bundle = read_bundle(small_bundle(tmp_path, layout, **options))
    batch = step(bundle, *random_step(bundle))[0]
    frames, tokens, states = random_step(bundle)
    for i in range(len(tokens)):
        row, _ = step(bundle, frames[i:i + 1], tokens[i:i + 1], [state[:, i:i + 1] for state in states])
        np.testing.assert_allclose(row[0], batch[i], atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_stored_as_float16(tmp_path, layout):
    reference = read_bundle(small_bundle(tmp_path / "a", layout))
    directory = small_bundle(tmp_path / "b", layout)
    for file in directory.glob("*.onnx"):
        edit(file, store_as_float16)
    bundle = read_bundle(directory)
    assert isinstance(bundle.transducer, SplitTransducer)
    data = random_step(bundle)
    np.testing.assert_allclose(step(bundle, *data)[0], step(reference, *data)[0], atol=2e-2)


def test_weights_of_the_parts_are_those_of_the_file(tmp_path):
    directory = small_bundle(tmp_path, external_weights=True)
    transducer = read_bundle(directory).transducer
    whole = onnx.load(directory / "decoder_joint-model.onnx")
    expected = {tensor.name: numpy_helper.to_array(tensor) for tensor in whole.graph.initializer}
    found = {}
    for graph in (transducer.predictor.graph, transducer.joint.graph):
        found.update((name, graph.array(name)) for name in graph.initializers)
        assert graph.model.ByteSize() < 10_000
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_target_length_of_any_name_and_names_without_meaning(tmp_path):
    names = {"targets": "a", "target_length_orig": "b", "h_in": "c", "c_in": "d", "decoder_output": "e", "h_out": "z"}

    def rename(model):
        for value in (*model.graph.input, *model.graph.output):
            value.name = names.get(value.name, value.name)
        for node in model.graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]

    directory = small_bundle(tmp_path, "genai")
    edit(directory / "decoder.onnx", rename)
    predictor = read_bundle(directory).transducer.predictor
    assert predictor.target_length.name == "b"
    assert [port.name for port in predictor.states_in] == ["c", "d"]
    assert [port.name for port in predictor.states_out] == ["z", "c_out"]
    assert predictor.output.name == "e"


def stateless_graph(combined: bool) -> onnx.ModelProto | tuple[onnx.ModelProto, onnx.ModelProto]:
    weights = small_weights(layers=1)
    g = nemo_graphs.GraphBuilder()
    embedded = g.add("Gather", [g.weight("embed", weights.embedding), "y"])
    output = g.add("Tanh", [g.affine(embedded, "decoder.proj", weights.pred[:, :8], None)], "decoder_out")
    tokens = g.value("y", ["N", 1], TensorProto.INT64)
    if not combined:
        predictor = g.build([tokens], [g.value("decoder_out", ["N", 1, 8])])
        j = nemo_graphs.GraphBuilder()
        nemo_graphs.add_joint(j, weights, "encoder_out", "decoder_out", "logits")
        joint = j.build(
            [j.value("encoder_out", ["N", "T", 16]), j.value("decoder_out", ["N", "U", 8])],
            [j.value("logits", ["N", "T", "U", 18])],
        )
        return predictor, joint
    nemo_graphs.add_joint(g, weights, "encoder_out", output, "logits")
    return g.build([g.value("encoder_out", ["N", "T", 16]), tokens], [g.value("logits", ["N", "T", "U", 18])])


def test_a_predictor_without_states(tmp_path):
    for layout in ("split", "combined"):
        small_bundle(tmp_path / layout, layout)
    for name, model in zip(("decoder", "joiner"), stateless_graph(False), strict=True):
        onnx.save(model, tmp_path / "split" / f"{name}.onnx")
    onnx.save(stateless_graph(True), tmp_path / "combined" / "decoder_joint-model.onnx")
    split, combined = (read_bundle(tmp_path / layout) for layout in ("split", "combined"))
    assert split.spec == combined.spec
    assert combined.transducer.predictor.states_in == combined.transducer.predictor.states_out == ()
    assert combined.transducer.predictor.target_length is None
    data = random_step(split)
    np.testing.assert_allclose(step(split, *data)[0], step(combined, *data)[0], atol=1e-5)


def test_shapes_used_by_both_sides_do_not_hinder_the_split(tmp_path):
    """The joint asks for the shape of the predictor's output, far above the place where the two meet."""
    directory = small_bundle(tmp_path)

    def expand(model):
        nodes = list(model.graph.node)
        meeting = next(i for i, node in enumerate(nodes) if node.op_type == "Add" and "Unsqueeze" in node.input[1])
        squeezed = next(node.output[0] for node in reversed(nodes) if node.op_type == "Squeeze")
        projected, predicted = nodes[meeting].input
        extra = [
            helper.make_node("Shape", [squeezed], ["shape"]),
            helper.make_node("Constant", [], ["last"], value=numpy_helper.from_array(np.array([0], np.int64))),
            helper.make_node("Gather", ["shape", "last"], ["steps"]),
            helper.make_node("Cast", ["steps"], ["steps_float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [projected, "steps_float"], ["scaled"]),
        ]
        nodes[meeting].input[0] = "scaled"
        del model.graph.node[:]
        model.graph.node.extend([*nodes[:meeting], *extra, *nodes[meeting:]])

    reference = read_bundle(small_bundle(tmp_path / "reference"))
    edit(directory / "decoder_joint-model.onnx", expand)
    bundle = read_bundle(directory)
    assert isinstance(bundle.transducer, SplitTransducer)
    data = random_step(bundle)
    np.testing.assert_allclose(step(bundle, *data)[0], step(reference, *data)[0], atol=1e-5)


def mix_state_with_frames(model):
    """A state that depends on the encoder's frames."""
    nodes = list(model.graph.node)
    for node in nodes:
        node.output[:] = ["state_alone" if name == "output_states_2" else name for name in node.output]
    nodes.append(helper.make_node("ReduceMean", ["encoder_outputs"], ["mean"], axes=[1, 2], keepdims=0))
    nodes.append(helper.make_node("Constant", [], ["axes"], value=numpy_helper.from_array(np.array([0, 2], np.int64))))
    nodes.append(helper.make_node("Unsqueeze", ["mean", "axes"], ["mean_3d"]))
    nodes.append(helper.make_node("Add", ["state_alone", "mean_3d"], ["output_states_2"]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def pass_two_tensors(model):
    """A joint that takes the targets, too."""
    nodes = list(model.graph.node)
    row = next(node for node in nodes if "outputs" in node.output)
    row.output[:] = ["row_alone"]
    nodes.append(helper.make_node("Cast", ["targets"], ["targets_float"], to=TensorProto.FLOAT))
    nodes.append(helper.make_node("Constant", [], ["axes"], value=numpy_helper.from_array(np.array([2, 3], np.int64))))
    nodes.append(helper.make_node("Unsqueeze", ["targets_float", "axes"], ["targets_4d"]))
    nodes.append(helper.make_node("Add", ["row_alone", "targets_4d"], ["outputs"]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


@pytest.mark.parametrize(
    ("change", "reason"),
    [(mix_state_with_frames, "output_states_2"), (pass_two_tensors, "targets")],
    ids=["state-from-frames", "two-tensors"],
)
def test_what_cannot_be_split_stays_whole(tmp_path, change, reason):
    directory = small_bundle(tmp_path)
    edit(directory / "decoder_joint-model.onnx", change)
    bundle = read_bundle(directory)
    assert isinstance(bundle.transducer, CombinedTransducer)
    assert reason in bundle.transducer.reason
    assert bundle.spec == read_bundle(small_bundle(tmp_path / "reference")).spec
    frames, tokens, states = random_step(bundle)
    rows, new = step(bundle, frames, tokens, states)
    one, new_one = step(bundle, frames[:1], tokens[:1], [state[:, :1] for state in states])
    np.testing.assert_allclose(one[0], rows[0], atol=1e-5)
    np.testing.assert_allclose(new_one[1], new[1][:, :1], atol=1e-5)


def test_encoder_facts(tmp_path):
    for layout in LAYOUTS:
        bundle = read_bundle(small_bundle(tmp_path / layout, layout, mel_bins=20, position_frames=500))
        features = bundle.features
        assert (features.mel_bins, features.subsampling_factor, features.normalize) == (20, 8, "per_feature")
        assert (features.sample_rate, features.max_frames, features.fixed_input_frames) == (16000, 500, None)
        assert bundle.encoder.is_file()


def test_features_without_an_encoder(tmp_path):
    directory = small_bundle(tmp_path)
    (directory / "config.json").write_text(json.dumps({"features_size": 80, "subsampling_factor": 4}))
    bundle = read_bundle(directory)
    assert bundle.encoder is None
    assert (bundle.features.mel_bins, bundle.frame_seconds) == (80, pytest.approx(0.04))


@pytest.mark.parametrize(("written", "read"), [("NA", None), ("", None), ("per_feature", "per_feature")])
def test_normalization_of_metadata(tmp_path, written, read):
    directory = small_bundle(tmp_path, "split", mel_bins=8)

    def change(model):
        next(entry for entry in model.metadata_props if entry.key == "normalize_type").value = written

    edit(directory / "encoder.onnx", change)
    assert read_bundle(directory).features.normalize == read


def test_a_fixed_time_axis_of_the_encoder_is_told(tmp_path):
    directory = small_bundle(tmp_path, "split", mel_bins=8)

    def change(model):
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 3000

    edit(directory / "encoder.onnx", change)
    assert read_bundle(directory).features.fixed_input_frames == 3000


def test_variants_lie_side_by_side(tmp_path):
    small_bundle(tmp_path, mel_bins=8)
    small_bundle(tmp_path, mel_bins=8, precision="int8")
    assert read_bundle(tmp_path).encoder.name == "encoder-model.onnx"
    int8 = read_bundle(tmp_path, variant="int8")
    assert (int8.variant, int8.encoder.name) == ("int8", "encoder-model.int8.onnx")


def test_genai_tokenizer_is_the_fall_back(tmp_path):
    directory = small_bundle(tmp_path, "genai")
    vocabulary = read_bundle(directory).vocabulary
    (directory / "vocab.txt").unlink()
    assert read_bundle(directory).vocabulary == vocabulary


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_genai_vocabulary_without_a_line_for_the_blank(tmp_path, ending):
    directory = small_bundle(tmp_path, "genai")
    vocabulary = read_bundle(directory).vocabulary
    (directory / "vocab.txt").write_bytes(ending.join(vocabulary.pieces[:-1]).encode() + ending.encode())
    assert read_bundle(directory).vocabulary == vocabulary


def test_graphs_in_folders_of_their_own(tmp_path):
    directory = small_bundle(tmp_path, "genai", external_weights=True)
    before = read_bundle(directory)
    rows, _ = step(before, *random_step(before))
    (directory / "parts").mkdir()
    for file in directory.glob("joint.onnx*"):
        file.rename(directory / "parts" / file.name)
    configuration = json.loads((directory / "genai_config.json").read_text())
    configuration["model"]["joiner"]["filename"] = "parts/joint.onnx"
    (directory / "genai_config.json").write_text(json.dumps(configuration))
    bundle = read_bundle(directory)
    np.testing.assert_array_equal(step(bundle, *random_step(bundle))[0], rows)


def test_reading_leaves_the_directory_alone(tmp_path):
    directory = small_bundle(tmp_path, "split")
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in directory.iterdir()}
    read_bundle(directory)
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in directory.iterdir()} == before


def test_make_bundle_refuses_unknown_words(tmp_path):
    with pytest.raises(ValueError, match="layout"):
        make_bundle(tmp_path, "sherpa", **SMALL)
