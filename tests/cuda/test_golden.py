"""NeMo's own results, from both networks, on an emulated card and on a real one if there is one."""

from __future__ import annotations

import numpy as np
import pytest

import tdtdecode as tdt
from tests.cuda.helpers import on
from tests.decoding.test_golden import check_emissions, check_nbest, fusions, malsd_as_recorded


@pytest.fixture(
    params=[
        ("fused", "emulated"),
        ("ort", "emulated"),
        pytest.param(("fused", "card"), marks=pytest.mark.card),
        pytest.param(("ort", "card"), marks=pytest.mark.card(provider=True)),
    ],
    ids="-".join,
)
def network(request):
    """The name of a network. The package uses the card of the parameter meanwhile."""
    name, card = request.param
    with on(card):
        yield name


def recorded_malsd(golden):
    """Some of NeMo's recorded beam searches: one for each way of steering the beam."""
    names = {}
    for name in golden.nemo["malsd"]:
        size, *rest = name.split(",")
        if size != "beam=1":
            names.setdefault(tuple(part.split("=")[0] for part in rest), name)
    return list(names.values())


def decoder_on_cuda(golden, layout, network, tmp_path):
    directory = golden.directory(layout, tmp_path)
    return tdt.Decoder.from_bundle(
        directory, layout=layout, durations=golden.durations, network=network, device="cuda"
    )


def test_greedy_is_nemos(golden, layout, network, tmp_path):
    decoder = decoder_on_cuda(golden, layout, network, tmp_path)
    assert decoder.network.device == "cuda" and decoder.network.name == network
    for cap in (10, 1):
        found = decoder.decode(golden.encoder_out, golden.lengths, search=tdt.Greedy(max_symbols=cap))
        check_emissions(golden, found, golden.nemo["greedy"][f"max_symbols={cap}"])


def test_chunks_equal_the_whole(golden, network, tmp_path):
    decoder = decoder_on_cuda(golden, "split", network, tmp_path)
    whole = decoder.decode(golden.encoder_out, golden.lengths)
    parts, state = [[] for _ in whole], None
    for start in range(0, golden.encoder_out.shape[2], 7):
        piece = golden.encoder_out[:, :, start : start + 7]
        found, state = decoder.decode_chunk(piece, np.clip(golden.lengths - start, 0, piece.shape[2]), state)
        for part, hypothesis in zip(parts, found):
            part += hypothesis.tokens.tolist()
    assert parts == [hypothesis.tokens.tolist() for hypothesis in whole]


def test_greedy_with_fusion_is_nemos(golden, network, tmp_path):
    decoder = decoder_on_cuda(golden, "split", network, tmp_path)
    for name, expected in list(golden.nemo["greedy_fused"].items())[-2:]:
        search = tdt.Greedy(fusion=fusions(golden, name.split(",")))
        found = decoder.decode(golden.encoder_out, golden.lengths, search=search)
        check_emissions(golden, found, expected)


@pytest.mark.parametrize("which", ["some", pytest.param("each", marks=pytest.mark.exhaustive)])
def test_malsd_is_nemos(golden, network, which, tmp_path):
    if not golden.nemo["malsd"]:
        assert golden.durations != list(range(len(golden.durations))), "NeMo's beam is right for this table"
        return
    decoder = decoder_on_cuda(golden, "split", network, tmp_path)
    names, lengths = recorded_malsd(golden), golden.lengths
    if which == "some":
        names, lengths = names[::4], np.where(lengths < 30, lengths, 0)
    for name in names:
        found = decoder.decode(golden.encoder_out, lengths, search=malsd_as_recorded(golden, name))
        check_nbest(golden, found, golden.nemo["malsd"][name], np.flatnonzero(lengths))
