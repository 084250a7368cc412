"""Damaged encoders are refused by a BundleError that names their file, when they are loaded or when they are run."""

from __future__ import annotations

import os
import random
import shutil

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import tdtdecode as tdt  # noqa: E402
from benches.random_bundle import make_bundle  # noqa: E402
from tdtdecode.speech.loading import load_model  # noqa: E402
from tests.conftest import in_fork  # noqa: E402
from tools.fuzz_bundles import _bytes, _protobuf  # noqa: E402

RATE = 16_000
SIZES = {"vocab_size": 12, "encoder_size": 16, "predictor_size": 8, "joint_size": 10, "mel_bins": 80}


def noise(seconds):
    return 0.1 * np.random.default_rng(0).standard_normal(int(seconds * RATE)).astype(np.float32), RATE


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    return [
        make_bundle(folder / name, "combined", **SIZES, tokens_per_second=None, **options)
        for name, options in (("plain", {}), ("external", {"external_weights": True}))
    ]


@pytest.fixture
def encoder(originals, tmp_path):
    """A model directory, and a function that changes its encoder."""
    directory = shutil.copytree(originals[0], tmp_path / "model")

    def change(edit):
        model = onnx.load(directory / "encoder-model.onnx")
        edit(model)
        onnx.save(model, directory / "encoder-model.onnx")
        return directory

    return change


def conv(model):
    return next(node for node in model.graph.node if node.op_type == "Conv")


def an_input_that_is_not_there(model):
    conv(model).input[1] = "absent"


def an_operator_that_is_not_there(model):
    conv(model).op_type = "Convoluted"


def a_version_that_is_not_there(model):
    model.opset_import[0].version = 1 << 20


def an_attribute_of_another_type(model):
    attribute = conv(model).attribute[0]
    attribute.CopyFrom(onnx.helper.make_attribute(attribute.name, "text"))


def two_nodes_of_one_output(model):
    model.graph.node.add().CopyFrom(conv(model))


def a_cycle(model):
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


@pytest.mark.parametrize("edit", [
    an_input_that_is_not_there, an_operator_that_is_not_there, a_version_that_is_not_there,
    an_attribute_of_another_type, two_nodes_of_one_output, a_cycle,
])  # fmt: skip
def test_what_cannot_be_loaded(encoder, edit):
    with pytest.raises(tdt.BundleError, match=r"encoder-model\.onnx"):
        load_model(encoder(edit))


def weights_of_another_size(model):
    weight = next(w for w in model.graph.initializer if w.name == conv(model).input[1])
    array = onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array(array[:, :-1].copy(), weight.name))
    del model.graph.value_info[:]


def test_what_cannot_be_run(encoder):
    with pytest.raises(tdt.BundleError, match=r"encoder-model\.onnx: ONNX Runtime cannot (load|run) it"):
        load_model(encoder(weights_of_another_size)).recognize(noise(1))


def frame_counts(change):
    def edit(model):
        counts = next(value for value in model.graph.output if value.type.tensor_type.elem_type in (6, 7))
        producer = next(node for node in model.graph.node if counts.name in node.output)
        producer.output[list(producer.output).index(counts.name)] = "counts/before"
        for other in model.graph.node:
            for i, name in enumerate(other.input):
                if name == counts.name:
                    other.input[i] = "counts/before"
        change(model, counts)

    return edit


def too_many(model, counts):
    thousand = np.array([1000], onnx.helper.tensor_dtype_to_np_dtype(counts.type.tensor_type.elem_type))
    model.graph.initializer.append(onnx.numpy_helper.from_array(thousand, "thousand"))
    model.graph.node.append(onnx.helper.make_node("Add", ["counts/before", "thousand"], [counts.name]))


def negative(model, counts):
    model.graph.node.append(onnx.helper.make_node("Neg", ["counts/before"], [counts.name]))


def too_long(model, counts):
    model.graph.node.append(onnx.helper.make_node("Concat", ["counts/before"] * 2, [counts.name], axis=0))


@pytest.mark.parametrize("change", [too_many, negative, too_long])
def test_lengths_that_do_not_fit_the_frames(encoder, change):
    model = load_model(encoder(frame_counts(change)))
    with pytest.raises(tdt.BundleError, match=r"encoder-model\.onnx: .*gives the lengths .* expected one for each"):
        model.recognize(noise(1))


def test_sound_encoders_are_as_before(originals):
    for directory in originals:
        assert load_model(directory).recognize(noise(1)).duration == 1.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each case needs a process that may die")
@pytest.mark.parametrize("cases", [15, pytest.param(60, marks=pytest.mark.exhaustive)])
def test_random_damage(originals, tmp_path, cases):
    """Bytes and fields changed anywhere: refused by this package's errors, or recognised."""

    def outcome(directory):
        try:
            load_model(directory).recognize(noise(1))
        except tdt.TdtDecodeError as error:
            return type(error).__name__
        return "recognised"

    found = []
    for case in range(cases):
        rng = random.Random(case)
        directory = shutil.copytree(rng.choice(originals), tmp_path / str(case))
        (_protobuf if case % 4 else _bytes)(directory / "encoder-model.onnx", rng)
        found.append(in_fork(lambda: outcome(directory)))  # noqa: B023 -- called at once
    assert found.count("BundleError") > cases // 4 and found.count("recognised") > cases // 12
    assert set(found) <= {"BundleError", "recognised", "InputError"}


def test_memory_does_not_grow_with_the_lengths_seen(originals):
    """No plan of memory for each length. The soak among the exhaustive tests measures the memory itself."""
    from tdtdecode.sessions import default_options

    assert not default_options(None).enable_mem_pattern and not default_options(2).enable_mem_pattern
    assert load_model(originals[0]).encoder._options.enable_mem_pattern is False
