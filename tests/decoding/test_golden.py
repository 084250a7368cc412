"""Results are those of NeMo 3.0.0 on models that it exported, with every layout, network, kernel set and chunking."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.fusion import NgramLM, PhraseBoost
from tests.conftest import CELLS, GOLDEN, LAYOUT_FILES
from tests.decoding.compare import check_same_hypotheses

CAPS = [10, 3, 1]


def beam_cells():
    """Layouts with networks and kernels. The specification is slow: all but one of its cells are marked exhaustive."""
    for layout, cell in itertools.product(LAYOUT_FILES, CELLS):
        slow = cell[1] == "reference" and (layout, cell[0]) != ("split", "fused")
        name = "-".join((layout, *cell))
        yield pytest.param(layout, cell, id=name, marks=pytest.mark.exhaustive if slow else ())


every_beam_cell = pytest.mark.parametrize("layout, cell", list(beam_cells()))


@pytest.fixture(scope="session")
def decoder_for(tmp_path_factory):
    """A function: decoder_for(golden, layout, (network, kernels)). It opens each bundle once."""
    parent, networks = tmp_path_factory.mktemp("golden"), {}

    def make(golden, layout, cell=("auto", "auto")):
        network, kernels = cell
        key = golden.name, layout, network
        if key not in networks:
            directory = golden.directory(layout, parent)
            networks[key] = tdt.Decoder.from_bundle(
                directory, layout=layout, durations=golden.durations, network=network
            )
        opened = networks[key]
        return tdt.Decoder(opened.network, opened.spec, kernels=kernels, vocabulary=opened.vocabulary)

    return make


def check_emissions(golden, found, recorded):
    """Assert that the hypotheses found have NeMo's tokens and frames."""
    for utterance, expected in zip(golden.utterances, recorded, strict=True):
        assert found[utterance].tokens.tolist() == expected["tokens"]
        assert found[utterance].frames.tolist() == expected["frames"]


def check_nbest(golden, found, recorded, utterances=None):
    """Assert that the n-best lists found are NeMo's, for all utterances or for the given ones."""
    for utterance, nemo in zip(golden.utterances, recorded, strict=True):
        if utterances is not None and utterance not in utterances:
            continue
        assert len(found[utterance].nbest) == len(nemo)
        for hypothesis, entry in zip(found[utterance].nbest, nemo):
            assert hypothesis.tokens.tolist() == entry["tokens"]
            assert hypothesis.frames.tolist() == entry["frames"]
            durations = entry["durations"] if golden.durations else [0] * len(hypothesis)
            assert hypothesis.durations.tolist() == durations
            assert hypothesis.score == pytest.approx(entry["score"], abs=1e-3)


def malsd_as_recorded(golden, name):
    """The search that a name in NeMo's records stands for."""
    beam, *rest = name.split(",")
    blank_mode, pruning_mode = rest[-2:] if rest else ("no_score", "late")
    return tdt.Beam(
        strategy="malsd", size=int(beam.removeprefix("beam=")), fusion=fusions(golden, rest), blank_mode=blank_mode,
        pruning_mode=pruning_mode,
    )  # fmt: skip


@pytest.mark.parametrize("cap", CAPS)
def test_tokens_and_frames_are_nemos(golden, layout, cell, cap, decoder_for):
    decoder = decoder_for(golden, layout, cell)
    found = decoder.decode(golden.encoder_out, golden.lengths, search=tdt.Greedy(max_symbols=cap))
    others = [h for utterance, h in enumerate(found) if utterance not in golden.utterances]
    assert len(others) == len(found) - len(golden.utterances) and not any(map(len, others))
    check_emissions(golden, found, golden.nemo["greedy"][f"max_symbols={cap}"])


def test_durations_are_nemos_beam_ones_where_the_paths_agree(golden, layout, cell, decoder_for):
    best = golden.nemo["malsd"].get("beam=1")
    if best is None:
        assert golden.durations != list(range(len(golden.durations))), "NeMo's beam is right for this table"
        return
    found = decoder_for(golden, layout, cell).decode(golden.encoder_out, golden.lengths)
    agreeing = 0
    for utterance, (expected, *_) in zip(golden.utterances, best, strict=True):
        hypothesis = found[utterance]
        if (hypothesis.tokens.tolist(), hypothesis.frames.tolist()) == (expected["tokens"], expected["frames"]):
            if golden.durations:
                assert hypothesis.durations.tolist() == expected["durations"]
            else:
                assert not hypothesis.durations.any()
            agreeing += 1
    assert agreeing or golden.name == "tdt-stuck", "no utterance was compared"


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_chunks_equal_the_whole(golden, layout, cell, chunk, decoder_for):
    decoder = decoder_for(golden, layout, cell)
    for cap in CAPS:
        decoder.search = tdt.Greedy(max_symbols=cap)
        whole = decoder.decode(golden.encoder_out, golden.lengths)
        parts, state = [[] for _ in whole], None
        for start in range(0, golden.encoder_out.shape[2], chunk):
            piece = golden.encoder_out[:, :, start : start + chunk]
            lengths = np.clip(golden.lengths - start, 0, piece.shape[2])
            found, state = decoder.decode_chunk(piece, lengths, state)
            for part, hypothesis in zip(parts, found):
                part.append(hypothesis)
        check_same_hypotheses(whole, [joined(part) for part in parts])


def joined(chunks):
    """One hypothesis from those of consecutive chunks."""
    fields = ("tokens", "frames", "durations", "token_logprobs", "duration_logprobs")
    arrays = [np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in fields]
    return tdt.Hypothesis(*arrays, sum(chunk.score for chunk in chunks))


def test_both_layouts_agree(golden, decoder_for):
    split, combined = (
        decoder_for(golden, name).decode(golden.encoder_out, golden.lengths) for name in ("split", "combined")
    )
    check_same_hypotheses(split, combined)


def fusions(golden, names):
    """The golden language model and phrases, if they are among the names: ``lm=WEIGHT``, ``boost=WEIGHT``."""
    weights = dict(name.split("=") for name in names if "=" in name)
    phrases = json.loads((GOLDEN / golden.name / "phrases.json").read_text())
    made = []
    if "lm" in weights:
        made.append(NgramLM.from_arpa(GOLDEN / golden.name / "lm.arpa", float(weights["lm"]), units="nemo"))
    if "boost" in weights:
        scores = phrases["context_score"], phrases["depth_scaling"]
        made.append(PhraseBoost(phrases["phrases"], float(weights["boost"]), *scores))
    return made


@every_beam_cell
def test_fused_greedy_is_nemos(golden, layout, cell, decoder_for):
    decoder = decoder_for(golden, layout, cell)
    for name, expected in golden.nemo["greedy_fused"].items():
        search = tdt.Greedy(fusion=fusions(golden, name.split(",")))
        found = decoder.decode(golden.encoder_out, golden.lengths, search=search)
        check_emissions(golden, found, expected)


@every_beam_cell
def test_malsd_is_nemos(golden, layout, cell, decoder_for):
    decoder = decoder_for(golden, layout, cell)
    recorded = golden.nemo["malsd"]
    if not recorded:
        assert golden.durations != list(range(len(golden.durations))), "NeMo's beam is right for this table"
    for name, expected in recorded.items():
        search = malsd_as_recorded(golden, name)
        check_nbest(golden, decoder.decode(golden.encoder_out, golden.lengths, search=search), expected)
