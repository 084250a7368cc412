"""A bundle's networks in every layout, compared with the same weights in NumPy; utterances do not change each other."""

from __future__ import annotations

import numpy as np
import pytest

import tdtdecode as tdt
from benches import random_bundle
from benches.random_bundle import make_bundle, random_weights
from benches.random_weights import ACTIVATIONS, Weights
from tdtdecode.bundle import CombinedTransducer, read_bundle, reading
from tdtdecode.bundle.cut import CannotSplit
from tests.conftest import random_decodes, random_frames
from tests.decoding.compare import check_hypotheses, check_same_hypotheses, check_traces, traced_decode

pytestmark = pytest.mark.filterwarnings("ignore::tdtdecode.errors.SlowerWarning")
"""These tests choose slower ways on purpose."""

SIZES = {"encoder_size": 16, "predictor_size": 12, "joint_size": 10, "tokens_per_second": None}


def numpy_network(weights: Weights) -> tdt.CallableNetwork:
    """A network that computes the formulas of the weights in NumPy. States are (h, c), each [N, L, H]."""

    def affine(x, matrix, bias):
        return x @ matrix if bias is None else x @ matrix + bias

    def predict(tokens, state):
        if state is None:
            state = np.zeros((2, len(tokens), *weights.start()[0].shape), np.float32)
        x, new = weights.embedding[tokens], np.empty_like(state)
        for at, layer in enumerate(weights.layers):
            h, c = state[:, :, at]
            gates = x @ layer.w.T + h @ layer.r.T
            if layer.w_bias is not None:
                gates = gates + layer.w_bias + layer.r_bias
            i, o, f, cell = np.split(gates, 4, axis=1)
            sigmoid = ACTIVATIONS["sigmoid"]
            new[1, :, at] = sigmoid(f) * c + sigmoid(i) * np.tanh(cell)
            x = new[0, :, at] = sigmoid(o) * np.tanh(new[1, :, at])
        return affine(x, weights.pred, weights.pred_bias), new

    def joint(frames, g):
        return weights.rows(affine(frames, weights.enc, weights.enc_bias), g).astype(np.float32)

    return tdt.CallableNetwork(predict, joint, lambda state, index: state[:, index])


def whole_graph(monkeypatch):
    """Make splitting a combined graph fail, so that it is run whole."""

    def refuse(*_):
        raise CannotSplit("for this test")

    monkeypatch.setattr(reading, "Cut", refuse)


CONFIGURATIONS = [
    {"vocab_size": 20, "predictor_layers": 2},
    {"vocab_size": 50, "predictor_layers": 1, "blank": "first", "activation": "tanh"},
    {"vocab_size": 9, "predictor_layers": 3, "durations": (0, 1, 2, 4, 8), "activation": "sigmoid"},
    {"vocab_size": 33, "predictor_layers": 1, "durations": (1, 2, 3, 4), "biases": False},
    {"vocab_size": 12, "predictor_layers": 2, "durations": ()},
]


LAYOUTS = [*random_bundle.LAYOUTS, "whole"]


@random_decodes
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda c: "-".join(map(str, c.values())))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_random_decodes_equal_numpy(tmp_path, monkeypatch, configuration, layout, decodes):
    options = {"durations": (0, 1, 2, 3, 4), **SIZES, **configuration}
    if layout == "genai" and not options["durations"]:
        options["durations"] = (0,)  # the layout speaks of TDT alone
    if layout == "whole":
        whole_graph(monkeypatch)
    searches = tdt.Greedy(), tdt.Greedy(max_symbols=2, blank_penalty=2.0)
    batch, ties, done = 100, 0, 0
    for seed in range(max(1, decodes // (len(CONFIGURATIONS) * len(LAYOUTS) * len(searches) * batch))):
        directory = tmp_path / str(seed)
        make_bundle(directory, "combined" if layout == "whole" else layout, seed=seed, **options)
        bundle = read_bundle(directory, durations=options["durations"])
        assert isinstance(bundle.transducer, CombinedTransducer) == (layout == "whole")
        ours = tdt.Decoder.from_bundle(bundle, network="ort")
        fused = None if layout == "whole" else tdt.Decoder.from_bundle(bundle, network="fused")
        numpy = tdt.Decoder(numpy_network(random_weights(seed=seed, **options)), bundle.spec, kernels="reference")
        frames, lengths = random_frames(batch, 16, 20, seed)
        for search in searches:
            (expected, reference), (_, other) = (traced_decode(d, frames, lengths, search) for d in (numpy, ours))
            ties += check_traces(reference, other, bundle.spec)
            if fused is not None:
                found = fused.decode(frames, lengths, search)
                ties += check_hypotheses(expected, reference, found, bundle.spec, search)
            done += batch
    assert ties <= done // 100


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_reduced_precision_does_not_depend_on_neighbours(tmp_path, monkeypatch, layout, precision):
    if layout == "whole":
        whole_graph(monkeypatch)
    make_bundle(tmp_path, "combined" if layout == "whole" else layout, vocab_size=60, precision=precision,
                durations=(0, 1, 2, 3, 4), **SIZES)  # fmt: skip
    decoder = tdt.Decoder.from_bundle(tmp_path, variant=precision, network="ort")
    frames, lengths = random_frames(8, 16, 40, 5)
    together = decoder.decode(frames, lengths)
    frames[3] *= 50  # one loud neighbour
    alone = [decoder.decode(frames[i : i + 1], lengths[i : i + 1])[0] for i in range(8)]
    check_same_hypotheses([h for i, h in enumerate(together) if i != 3], [h for i, h in enumerate(alone) if i != 3])
    assert sum(map(len, together)) > 10


def test_half_precision_is_near_single(tmp_path):
    for precision in ("fp32", "fp16"):
        make_bundle(tmp_path, "combined", vocab_size=60, precision=precision, **SIZES)
    frames, lengths = random_frames(8, 16, 40, 5)
    single, half = (tdt.Decoder.from_bundle(tmp_path, variant=v).decode(frames, lengths) for v in (None, "fp16"))
    equal = sum(a.tokens.tolist() == b.tokens.tolist() for a, b in zip(single, half))
    assert equal >= 6


@pytest.mark.parametrize("layout", ["split", "combined", "genai"])
def test_external_weights(tmp_path, layout):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    make_bundle(inside, layout, vocab_size=60, **SIZES)
    make_bundle(outside, layout, vocab_size=60, external_weights=True, **SIZES)
    frames, lengths = random_frames(4, 16, 40, 5)
    a, b = (tdt.Decoder.from_bundle(directory).decode(frames, lengths) for directory in (inside, outside))
    check_same_hypotheses(a, b)


def test_no_buffer_is_allocated_per_step(golden_tdt, tmp_path):
    """After a first decode has met every batch size, a longer one allocates no more arrays of the network's size."""
    import tracemalloc

    decoder = tdt.Decoder.from_bundle(golden_tdt.directory("split", tmp_path), network="ort")
    long = np.tile(golden_tdt.encoder_out, (1, 1, 20))
    peaks = []
    for frames in (golden_tdt.encoder_out, long):
        lengths = np.full(len(frames), frames.shape[2])
        decoder.decode(frames, lengths)
        tracemalloc.start()
        hypotheses = decoder.decode(frames, lengths)
        peaks.append(tracemalloc.get_traced_memory()[1] - frames.nbytes - 40 * sum(map(len, hypotheses)))
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 100_000
