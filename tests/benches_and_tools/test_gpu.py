"""The GPU benchmark runs: on the emulated card with small models, whose times mean nothing."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tdtdecode as tdt
from benches.gpu import bars, decoding, files, micro
from benches.gpu.record import Record
from tests.cuda.helpers import emulated, missing_card
from tests.decoding.fused_helpers import as_lifted, fused

ROOT = Path(__file__).parents[2]


def test_every_figure_is_there(tmp_path, capsys):
    with emulated():
        card = micro.measure(repetitions=20, trials=1)
        model = decoding.Model(1024, tmp_path, frames=6, sizes=(16, 8))
        searches = {"greedy": tdt.Greedy(), "beam 4": tdt.Beam(size=4)}
        comparisons = [decoding.measure(model, batch, 1, searches, card) for batch in (1, 2)]
    systems = comparisons[0]["systems"]
    assert systems["fused float32"]["token_error_rate"] == 0 == systems["ort"]["token_error_rate"]
    assert {"fused float16, flags", "fused float16, phases", "fused float16, beam 4"} <= systems.keys()
    assert 0 < systems["fused float16"]["floor_us_per_token"]
    assert "us/token" in capsys.readouterr().out
    measured = {bar["bar"]: bar["measured"] for bar in bars.reached(comparisons, {})}
    assert measured["greedy, batch 1, V = 1024, microseconds a token"] > 0
    assert measured["batch 1, V = 1024, beam 4 in units of greedy"] > 0
    assert measured["greedy, batch 1, V = 8192, microseconds a token"] is None, "not measured is not zero"


def test_from_files_to_text(tmp_path, capsys):
    """Every figure is there, and what fails is kept in its place."""
    from benches.conformer_graph import Sizes

    sizes = Sizes(layers=2, width=32, heads=2, channels=8, mel_bins=80, most_frames=500)
    record = Record(tmp_path / "figures.json", {"card": "none", "versions": {}})
    with emulated():
        files.measure(record, tmp_path, 1, sizes, 64, 16, (files.ONE_AT_A_TIME, 2), 6.0)
    figures = json.loads((tmp_path / "figures.json").read_text())["files"]
    assert set(figures) == {f"{how}, {b}" for how in files.ARITHMETIC for b in (files.ONE_AT_A_TIME, "batch 2")}
    assert all(one["times_real_time"] > 0 and one["tokens_per_second"] > 0.5 for one in figures.values()), figures
    assert {one["anchor"] for one in figures.values()} == {594.0, None}
    assert "float16, one at a time:" in capsys.readouterr().out
    best, alone = bars.reached([], figures)[-2:]
    assert best["measured"] >= alone["measured"] == figures["float16, one at a time"]["times_real_time"]


def test_a_model_that_cannot_be_made(tmp_path, monkeypatch, capsys):
    def fails(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(files, "make_model", fails)
    record = Record(tmp_path / "figures.json", {"card": "none", "versions": {}})
    files.measure(record, tmp_path, 1, batches=(1,), seconds=2.0)
    figures = json.loads((tmp_path / "figures.json").read_text())["files"]
    assert figures == {f"{how}, loading": {"error": "MemoryError: no room"} for how in files.ARITHMETIC}
    assert "left out, since there is no model" in capsys.readouterr().out


def test_a_conformer_of_these_sizes_does_not_hear_the_padding(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from benches.conformer_graph import Sizes, write

    sizes = Sizes(layers=2, width=32, heads=2, channels=8, mel_bins=80, most_frames=500)
    write(tmp_path / "encoder.onnx", sizes)
    session = onnxruntime.InferenceSession(str(tmp_path / "encoder.onnx"), providers=["CPUExecutionProvider"])
    features = np.random.default_rng(0).standard_normal((1, 80, 75)).astype(np.float32)
    found = []
    for width in (75, 76, 80, 200):
        padded = np.pad(features, ((0, 0), (0, 0), (0, width - 75)))
        frames, counts = session.run(None, {"audio_signal": padded, "length": np.array([75])})
        assert counts.tolist() == [10] and frames.shape == (1, 32, -(-width // 8))
        found.append(frames[:, :, :10])
    for frames in found:
        np.testing.assert_allclose(frames, found[0], atol=1e-5)


def test_a_system_that_fails_costs_only_itself(tmp_path, capsys):
    """Neither an error nor other tokens end the benchmark: both are figures."""

    def fails():
        raise RuntimeError("no such driver")

    with emulated():
        cell = decoding.Cell(decoding.Model(64, tmp_path, frames=20, sizes=(16, 8)), 2)
        cell.add("broken", fails)
        cell.add("other tokens", lambda: lambda: [[*tokens, 1][1:] for tokens in cell.reference])
        systems = cell.measure(1)["systems"]
    assert systems["broken"] == {"error": "RuntimeError: no such driver"}
    assert systems["other tokens"]["token_error_rate"] > 0 and systems["other tokens"]["median"] >= 0


def test_figures_are_written_one_by_one(tmp_path, capsys):
    file, asked = tmp_path / "figures.json", []

    def figure(value):
        asked.append(value)
        if value == "hang":
            raise TimeoutError("never")
        return {"value": value}

    for _ in range(2):
        record = Record(file, {"card": "none", "versions": {}})
        record.measured("decoding", "first", lambda: figure(1))
        assert json.loads(file.read_text())["decoding"]["first"] == {"value": 1}
        assert record.measured("decoding", "second", lambda: figure("hang")) is None
    assert asked == [1, "hang", "hang"], "what is there is not measured again, what failed is"
    assert Record(file, {"card": "another", "versions": {}}).values == {"card": "another", "versions": {}}


def test_bytes_of_a_token(tmp_path):
    model = decoding.Model(1024, tmp_path, frames=2, sizes=(1024, 640))
    assert model.token_bytes("float16") == pytest.approx(12.0e6, rel=0.01)
    assert model.token_bytes("float32") == pytest.approx(23.9e6, rel=0.01)


def test_without_a_card_the_figures_stay_open():
    if missing_card() is None:
        pytest.skip("there is a card here")
    done = subprocess.run([sys.executable, "-m", "benches.gpu"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "no figures: device 'cuda'" in done.stderr and "Traceback" not in done.stderr


def test_the_results_say_whether_they_were_measured():
    result = json.loads((ROOT / "benches/results/gpu.json").read_text())
    measured = [bar["measured"] for bar in result["bars"]]
    assert len(measured) == 10
    if result["status"] == "measured":
        assert result["micro"]["card"] and None not in measured
    else:
        assert result["status"].startswith("open: ") and measured == [None] * 10


def test_hugging_face_decodes_the_same():
    """The peer's weights are put where ours are."""
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: no ParakeetForTDT to compare with")
    torch = pytest.importorskip("torch")
    from benches.gpu.peers import hugging_face_greedy, parakeet_for_tdt
    from benches.random_weights import random_encoder_out, random_weights

    weights = random_weights(200, (0, 1, 2, 3, 4), 64, 32, 2, 32)
    frames = np.stack([random_encoder_out(60, 64, seed) for seed in range(3)])
    model = parakeet_for_tdt(weights, 1, "cpu", "float32")
    spec = tdt.TransducerSpec(200, (0, 1, 2, 3, 4), encoder_size=64)
    ours = fused(as_lifted(weights), spec).decode(frames)
    for a, b in zip(ours, hugging_face_greedy(model, torch.from_numpy(frames))()):
        assert b[: len(a)] == a.tokens.tolist() and len(a) > 5
