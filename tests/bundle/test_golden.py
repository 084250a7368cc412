"""Golden models: both layouts read alike, and their parts compute what the combined graph computes."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from tdtdecode.bundle import SplitTransducer, read_bundle
from tests.bundle.helpers import random_step, step
from tests.conftest import GOLDEN


@pytest.fixture
def bundles(golden, tmp_path):
    return {layout: read_bundle(golden.directory(layout, tmp_path)) for layout in ("split", "combined")}


def test_layouts_give_the_same_spec(golden, bundles):
    split, combined = bundles["split"], bundles["combined"]
    assert (split.layout, combined.layout) == ("split", "combined")
    assert split.spec == combined.spec
    assert split.vocabulary == combined.vocabulary
    assert split.spec.vocab_size == golden.nemo["vocab_size"]
    assert split.spec.blank == golden.nemo["blank"]
    assert split.spec.num_durations == len(golden.durations)
    assert split.spec.encoder_size == golden.encoder_out.shape[1]
    assert split.encoder is None


def test_combined_graph_is_split_with_the_projection_in_the_predictor(bundles):
    combined, split = bundles["combined"].transducer, bundles["split"].transducer
    assert isinstance(combined, SplitTransducer)
    matrices = {"predictor": 0, "joint": 0}
    for side in matrices:
        nodes = getattr(combined, side).graph.model.graph.node
        matrices[side] = sum(node.op_type == "MatMul" for node in nodes)
    assert matrices == {"predictor": 1, "joint": 2}
    assert sum(node.op_type == "MatMul" for node in split.joint.graph.model.graph.node) == 3
    weights = [t.name for t in combined.predictor.graph.model.graph.initializer]
    assert not {t.name for t in combined.joint.graph.model.graph.initializer} & set(weights)


@pytest.mark.parametrize("layout", ["split", "combined"])
def test_parts_agree_with_the_graph_run_whole(golden, bundles, layout):
    bundle = bundles[layout]
    frames, tokens, states = random_step(bundle)
    rows, new = step(bundle, frames, tokens, states)
    whole = ort.InferenceSession(
        GOLDEN / golden.name / "decoder_joint-model.onnx", providers=["CPUExecutionProvider"]
    )
    expected = whole.run(
        ["outputs", "output_states_1", "output_states_2"],
        {
            "encoder_outputs": frames[:, :, None],
            "targets": tokens[:, None].astype(np.int32),
            "target_length": np.ones(len(tokens), np.int32),
            "input_states_1": states[0],
            "input_states_2": states[1],
        },
    )
    np.testing.assert_allclose(rows, expected[0].reshape(len(tokens), -1), atol=1e-5)
    for state, reference in zip(new, expected[1:], strict=True):
        np.testing.assert_allclose(state, reference, atol=1e-6)


def test_given_durations_replace_the_default(golden, tmp_path):
    durations = tuple(golden.durations)
    bundle = read_bundle(golden.directory("combined", tmp_path), durations=durations)
    assert bundle.spec.durations == durations


def test_auto_prefers_split_files():
    assert read_bundle(GOLDEN / "tdt-01234").layout == "split"
    assert read_bundle(GOLDEN / "tdt-01234", layout="combined").layout == "combined"
