"""Multi-blank RNN-T: NeMo's own results in every cell, how its blanks are stated, and what is refused."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.bundle import read_bundle
from tests.conftest import GOLDEN
from tests.cuda.helpers import PROVIDER_CARDS, on
from tests.decoding.test_beam import check_same, in_chunks

MODEL = GOLDEN.parent / "golden_streaming" / "multiblank-248"
NEMO = json.loads((MODEL / "nemo.json").read_text())
FRAMES = NEMO["big_blank_durations"]
LAYOUT_FILES = {"split": ("decoder.onnx", "joiner.onnx", "tokens.txt"), "combined": ("decoder_joint-model.onnx",)}


@pytest.fixture(scope="module", params=list(LAYOUT_FILES))
def directory(request, tmp_path_factory):
    """The model in one layout, which does not say how many frames its blanks move."""
    folder = tmp_path_factory.mktemp(request.param)
    for name in LAYOUT_FILES[request.param]:
        shutil.copy(MODEL / name, folder)
    if request.param == "combined":
        shutil.copy(MODEL / "tokens.txt", folder / "vocab.txt")
    return folder


@pytest.fixture(scope="module")
def encoded():
    arrays = np.load(MODEL / "encoder_out.npz")
    return arrays["encoder_out"], arrays["lengths"]


def check_is_nemo(found, symbols):
    expected = NEMO["greedy"][f"max_symbols={symbols}"]
    for utterance, nemo in zip(NEMO["rows_decoded"], expected, strict=True):
        assert found[utterance].tokens.tolist() == nemo["tokens"]
        assert found[utterance].frames.tolist() == nemo["frames"]
        assert not found[utterance].durations.any()


@pytest.mark.parametrize("symbols", [10, 2])
def test_greedy_is_nemos(cell, directory, encoded, symbols):
    network, kernels = cell
    decoder = tdt.Decoder.from_bundle(directory, big_blanks=FRAMES, network=network, kernels=kernels)
    search = tdt.Greedy(max_symbols=symbols)
    found = decoder.decode(*encoded, search=search)
    check_is_nemo(found, symbols)
    for chunk in (1, 7):
        state, tokens, frames = None, [[] for _ in found], [[] for _ in found]
        for start in range(0, encoded[0].shape[2], chunk):
            piece = encoded[0][:, :, start : start + chunk]
            news, state = decoder.decode_chunk(
                piece, np.clip(encoded[1] - start, 0, piece.shape[2]), state, search=search
            )
            for i, new in enumerate(news):
                tokens[i] += new.tokens.tolist()
                frames[i] += new.frames.tolist()
        assert tokens == [h.tokens.tolist() for h in found] and frames == [h.frames.tolist() for h in found]


@pytest.mark.parametrize("card", PROVIDER_CARDS)
@pytest.mark.parametrize("network", ["ort", "fused"])
def test_greedy_is_nemos_on_cuda(card, network, directory, encoded):
    with on(card):
        decoder = tdt.Decoder.from_bundle(directory, big_blanks=FRAMES, network=network, device="cuda")
        check_is_nemo(decoder.decode(*encoded), 10)
        check_is_nemo(decoder.decode(*encoded, search=tdt.Greedy(max_symbols=2)), 2)
        beam = tdt.Beam(size=3)
        expected = tdt.Decoder.from_bundle(directory, big_blanks=FRAMES).decode(*encoded, search=beam)
        check_same(decoder.decode(*encoded, search=beam), expected)


def test_a_trace_says_how_far_each_blank_moves(directory, encoded):
    decoder = tdt.Decoder.from_bundle(directory, big_blanks=FRAMES)
    seen = set()
    for trace, length in zip(decoder.trace(*encoded), encoded[1]):
        blanks = ~trace.emitted
        moved = np.diff(np.append(trace.frames, max(length, (trace.frames + trace.durations).max(initial=0))))
        np.testing.assert_array_equal(moved[blanks][:-1], trace.durations[blanks][:-1])
        seen |= set(trace.durations[blanks].tolist())
    assert seen == {1, 2, 4, 8}


def test_beams_agree(directory, encoded):
    search = tdt.Beam(size=4)
    reference = tdt.Decoder.from_bundle(directory, big_blanks=FRAMES, network="fused", kernels="reference")
    expected = reference.decode(*encoded, search=search)
    for network in ("ort", "fused"):
        decoder = tdt.Decoder.from_bundle(directory, big_blanks=FRAMES, network=network)
        check_same(decoder.decode(*encoded, search=search), expected)
        check_same(in_chunks(decoder, *encoded, search, 5), decoder.decode(*encoded, search=search), 0)


def test_config_json_states_them(directory, encoded, tmp_path):
    stated = shutil.copytree(directory, tmp_path / "stated")
    (stated / "config.json").write_text(json.dumps({"big_blank_durations": FRAMES}))
    decoder = tdt.Decoder.from_bundle(stated)
    assert decoder.spec == tdt.TransducerSpec(36, (), encoder_size=48, big_blanks=FRAMES)
    check_is_nemo(decoder.decode(*encoded), 10)
    check_is_nemo(pickle.loads(pickle.dumps(decoder)).decode(*encoded), 10)
    assert read_bundle(stated, big_blanks=[3, 4, 9]).spec.big_blanks == (3, 4, 9)  # what is given counts
    for wrong, problem in (([2, 4], "has 2 entries, but .* has 3 outputs"), ([2, 4, 0], "each 1 or more"),
                           ("2, 4", "expected a list of frame counts")):  # fmt: skip
        (stated / "config.json").write_text(json.dumps({"big_blank_durations": wrong}))
        with pytest.raises(tdt.BundleError, match=f"(?s)config.json.*big_blank_durations.*{problem}"):
            read_bundle(stated)


def test_what_is_given_must_fit(directory):
    for wrong, problem in (([2, 4], "big_blanks has 2 entries, but .* has 3 outputs"), ([2, 4, 0], "each 1 or more"),
                           (3, "big_blanks must be")):  # fmt: skip
        with pytest.raises(tdt.InputError, match=problem):
            tdt.Decoder.from_bundle(directory, big_blanks=wrong)
    with pytest.raises(tdt.InputError, match="give durations=()"):
        tdt.TransducerSpec(9, big_blanks=[2])
    with pytest.raises(tdt.InputError, match="blank must be 9, behind all tokens"):
        tdt.TransducerSpec(9, (), blank=0, big_blanks=[2])


def test_nemos_beam_knows_one_blank(directory, encoded):
    decoder = tdt.Decoder.from_bundle(directory, big_blanks=FRAMES)
    with pytest.raises(tdt.InputError, match="does not know models with several blanks: use"):
        decoder.decode(*encoded, search=tdt.Beam(strategy="malsd"))


def test_converted_repaired_and_inspected(directory, encoded, tmp_path):
    other = "combined" if (directory / "joiner.onnx").exists() else "split"
    bundle = tdt.prepare.convert(directory, tmp_path / "converted", other, big_blanks=FRAMES)
    assert bundle.spec.big_blanks == tuple(FRAMES)
    check_is_nemo(tdt.Decoder.from_bundle(tmp_path / "converted").decode(*encoded), 10)
    repaired = tdt.prepare.repair(directory, tmp_path / "repaired", big_blanks=FRAMES)
    assert any(change.field == "big_blank_durations" for change in repaired.changes)
    check_is_nemo(tdt.Decoder.from_bundle(tmp_path / "repaired").decode(*encoded), 10)
    assert any(fact.value == FRAMES for fact in tdt.prepare.inspect(tmp_path / "repaired").facts)
