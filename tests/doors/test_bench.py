"""``tdtdecode bench``: figures for every decoder of a model, and plain words where there are none."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from benches.random_bundle import make_bundle, random_pieces, write_bundle
from benches.random_weights import random_weights
from tdtdecode.benchmark import floor_seconds, random_encoder_out, stream_bandwidth
from tdtdecode.benchmark.charts import spread, ticks
from tdtdecode.bundle import reading
from tdtdecode.bundle.cut import CannotSplit
from tdtdecode.cli import main
from tdtdecode.decoder import Decoder
from tdtdecode.evaluation import edit_distance
from tdtdecode.traces import PHASES
from tests import demo

SIZES = {"vocab_size": 60, "encoder_size": 24, "predictor_size": 20, "joint_size": 20}
DECODERS = ["fused float32", "fused bfloat16", "fused int8", "ort"]
QUICK = ["--runs", "1", "--frames", "60", "--batch", "2"]


def test_every_decoder_is_measured(tmp_path, capsys):
    make_bundle(tmp_path, "combined", **SIZES)
    assert main(["bench", str(tmp_path), *QUICK, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [entry["decoder"] for entry in result["measurements"]] == DECODERS and not result["refused"]
    assert result["frames"] == 60 and result["processor"] and result["date"][:2] == "20"
    assert {"tdtdecode", "numpy", "onnxruntime"} <= result["versions"].keys()
    for entry in result["measurements"]:
        assert (entry["batch"], entry["threads"], entry["search"]) == (2, 1, "greedy")
        assert entry["min"] <= entry["p10"] <= entry["median"] <= entry["p90"] <= entry["max"]
        assert entry["times_real_time"] > 0 and "floor_fraction" not in entry and "profile" not in entry
        assert "differing_tokens" not in entry and "compared_tokens" not in entry
    assert main(["bench", str(tmp_path), "--runs", "1", "--frames", "60"]) == 0
    assert "of what memory allows" in capsys.readouterr().out


def test_edits_are_counted_on_speech(tmp_path, capsys):
    """On random frames, half of the tokens of int8 differ; on speech, few do."""
    own = demo.DIRECTORY / "speech.flac"
    one = Path(__file__).parents[1] / "recordings" / "known-0.flac"
    counts = {}
    for given in ([], ["--recordings", str(own)], ["--recordings", str(one), str(own)]):
        assert main(["bench", "--runs", "1", "--frames", "40", "--json", *given]) == 0
        counts[len(given)] = {
            entry["decoder"]: (entry["differing_tokens"], entry["compared_tokens"]) for entry in _measurements(capsys)
        }
    assert counts[0] == counts[2] and counts[0]["ort"] == (0, 44) and counts[0]["fused int8"][0] <= 4
    assert counts[3]["ort"][0] == 0 and counts[3]["ort"][1] > 44
    assert main(["bench", "--runs", "1", "--frames", "40"]) == 0
    assert "edits from the first" not in capsys.readouterr().out
    np.savez(tmp_path / "out.npz", encoder_out=np.zeros((1, 128, 5), np.float32))
    assert main(["bench", "--runs", "1", "--encoder-out", str(tmp_path / "out.npz"), "--json"]) == 0
    assert _measurements(capsys)[-1]["differing_tokens"] == 0


def _measurements(capsys) -> list[dict]:
    return json.loads(capsys.readouterr().out)["measurements"]


def test_a_sweep_measures_everything_asked_for(tmp_path, capsys):
    """Edits are counted against the most exact decoder with the same search."""
    options = ["--precision", "float32,int8", "--search", "all", "--batch", "1,3", "--threads", "2,1", "--runs", "1"]
    recording = Path(__file__).parents[1] / "recordings" / "known-0.flac"
    given = ["--frames", "40", "--recordings", str(recording)]
    assert main(["bench", "demo", *options, *given, "--profile", "--json"]) == 0
    found = _measurements(capsys)
    assert [(entry["threads"], entry["search"], entry["batch"], entry["decoder"]) for entry in found] == [
        (threads, search, batch, decoder)
        for threads in (2, 1) for search in ("greedy", "beam") for batch in (1, 3)
        for decoder in ("fused float32", "fused int8", "ort")
    ]  # fmt: skip
    for entry in found:
        assert entry["compared_tokens"] > 5 and (entry["decoder"] == "fused int8" or not entry["differing_tokens"])
        floor = entry["search"] == "greedy" and entry["batch"] == 1 and entry["decoder"] != "ort"
        assert ("floor_us_per_token" in entry) == floor
        assert ("profile" in entry) == (entry["decoder"] != "ort")
    for entry in found:
        same = [e["tokens"] for e in found if all(e[key] == entry[key] for key in ("decoder", "search", "batch"))]
        assert len(set(same)) == 1, "threads change nothing"


def test_profiles_add_up(capsys):
    assert main(["bench", "demo", *QUICK, "--precision", "float32", "--profile", "--json"]) == 0
    fused, _ = _measurements(capsys)
    profile = fused["profile"]
    shares = [figures["share"] for figures in profile["phases"].values()]
    assert list(profile["phases"]) == list(PHASES) and sum(shares) == pytest.approx(1)
    per_token = sum(figures["us_per_token"] for figures in profile["phases"].values())
    assert per_token * fused["tokens"] == pytest.approx(profile["seconds"] * 1e6)
    assert profile["predictor_steps"] == fused["tokens"] and profile["joint_rows"] >= profile["passes"] > 0
    assert main(["bench", "demo", *QUICK, "--precision", "float32", "--profile"]) == 0
    out = capsys.readouterr().out
    assert "us per pass" in out and all(f"      {phase}" in out for phase in PHASES)


def test_csv_has_a_row_for_each_measurement(tmp_path, capsys):
    make_bundle(tmp_path, "combined", **SIZES)
    assert main(["bench", str(tmp_path), "--runs", "2", "--frames", "60", "--batch", "1,2", "--profile", "--csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["decoder"], row["batch"]) for row in rows] == [(name, b) for b in "12" for name in DECODERS]
    for row in rows:
        assert row["processor"] and row["date"] and row["version_tdtdecode"] and float(row["p90"]) > 0
        assert bool(row["share_waiting"]) == (row["decoder"] != "ort") and not row["compared_tokens"]


def test_charts_say_whose_line_is_whose(tmp_path, capsys):
    plot = tmp_path / "out.html"
    options = ["--runs", "1", "--frames", "60", "--batch", "1,2", "--search", "all", "--profile"]
    assert main(["bench", "demo", *options, "--plot", str(plot)]) == 0
    text = plot.read_text(encoding="utf-8")
    drawing = text[text.index("<svg"):]
    titles = "greedy search, 1 thread", "beam search of size 4, 1 thread"
    for name in (*DECODERS[:3], "ONNX Runtime (ort)", "floor of fused int8", "lower is better", *titles):
        assert f"{name}<" in drawing or f"{name})<" in drawing, name
    assert not re.search(r"(src|href|url)\s*[=(]|<script|https?:", text), "nothing from elsewhere"
    assert "Where the time goes: fused float32, beam, batch 2" in text and "processor" in text
    HTMLParser().feed(text)


def test_charts_as_png(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    plot = tmp_path / "out.png"
    assert main(["bench", "demo", *QUICK, "--plot", str(plot)]) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_labels_keep_their_distance_and_their_order():
    assert spread([5.0, 1.0, 3.0], 1.0) == [5, 1, 3], "where there is room, they stay"
    found = spread([2.0, 2.1, 1.9, 9.0], 1.0)
    assert found == pytest.approx([2, 3, 1, 9])
    assert sorted(spread([0.0] * 4, 2.0)) == [-3, -1, 1, 3]
    assert ticks(0.7, 21) == [1, 2, 5, 10, 20]


def test_a_plot_without_tokens_or_with_another_ending(tmp_path, capsys):
    make_bundle(tmp_path, "combined", **SIZES)
    np.savez(tmp_path / "nothing.npz", encoder_out=np.zeros((1, 24, 0), np.float32))
    options = ["--runs", "1", "--encoder-out", str(tmp_path / "nothing.npz"), "--plot"]
    assert main(["bench", str(tmp_path), *options, str(tmp_path / "a.html")]) == 2
    assert "no decoder emitted a token" in capsys.readouterr().err
    assert main(["bench", str(tmp_path), *options, str(tmp_path / "a.gif")]) == 2
    assert "must end in .png or .html" in capsys.readouterr().err


def test_what_cannot_be_had_is_said(tmp_path, capsys, monkeypatch):
    def refuse(*_):
        raise CannotSplit("for this test")

    monkeypatch.setattr(reading, "Cut", refuse)
    make_bundle(tmp_path, "combined", **SIZES)
    assert main(["bench", str(tmp_path), *QUICK]) == 0
    out = capsys.readouterr().out
    assert "fused float32   not available" in out and "for this test" in out and "  ort " in out


def test_no_tokens(tmp_path, capsys):
    make_bundle(tmp_path, "combined", **SIZES)
    np.savez(tmp_path / "nothing.npz", encoder_out=np.zeros((1, 24, 0), np.float32))
    assert main(["bench", str(tmp_path), "--runs", "1", "--encoder-out", str(tmp_path / "nothing.npz")]) == 0
    assert "no tokens emitted" in capsys.readouterr().out


@pytest.mark.parametrize("blank_shift, tokens", [(100, "0 tokens"), (-100, "40 tokens")])
def test_random_frames_unlike_speech_are_told(tmp_path, capsys, blank_shift, tokens):
    weights = random_weights(60, (0, 1, 2), 24, 20, 1, 20)
    weights.out_bias[weights.blank] += blank_shift
    weights.out_bias[weights.vocab_size + 1:] = (-100, 100, -100)  # one frame a decision
    write_bundle(tmp_path, "combined", weights, random_pieces(weights))
    assert main(["bench", str(tmp_path), "--runs", "1", "--frames", "40"]) == 0
    out = capsys.readouterr().out
    assert f"On random frames this model emits {tokens} in 3.2 s, unlike speech" in out and "--encoder-out" in out


@pytest.mark.parametrize("options, names", [
    (["--network", "ort"], {"ort"}),
    (["--network", "fused"], {"fused float32", "fused bfloat16", "fused int8"}),
    (["--precision", "int8"], {"fused int8"}),
    (["--precision", "float32"], {"fused float32", "ort"}),
    (["--kernels", "reference"], {"fused float32", "ort"}),
])  # fmt: skip
def test_what_is_measured_can_be_chosen(tmp_path, capsys, options, names):
    make_bundle(tmp_path, "combined", **SIZES)
    assert main(["bench", str(tmp_path), *QUICK, *options, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {entry["decoder"] for entry in result["measurements"]} == names
    assert set(result["refused"]) == ({"fused bfloat16", "fused int8"} if "reference" in options else set())


def _archive(path, **arrays):
    np.savez(path, **arrays)


@pytest.mark.parametrize("write, problem", [
    (lambda path: path.write_bytes(b""), "expected an .npz file"),
    (lambda path: path.write_bytes(b"PK\x03\x04 and no more"), "not a zip file"),
    (lambda path: path.write_text("numbers"), "expected an .npz file"),
    (lambda path: _archive(path, frames=np.zeros(3)), "encoder_out is not a file in the archive"),
    (lambda path: _archive(path, encoder_out=np.float32(3)), "encoder_out is []"),
    (lambda path: _archive(path, encoder_out=np.zeros((24, 5), np.float32)), "encoder_out is [24, 5]"),
    (lambda path: _archive(path, encoder_out=np.array([None])), "Object arrays cannot be loaded"),
    (lambda path: _archive(path, encoder_out=np.zeros((1, 23, 5), np.float32)), "E = 24"),
    (lambda path: _archive(path, encoder_out=np.zeros((1, 24, 5), np.int64)), "float32, float16 or bfloat16"),
    (lambda path: _archive(path, encoder_out=np.zeros((1, 24, 5), np.float32), lengths=[6]), "from 0 to 5"),
])  # fmt: skip
def test_encoder_output_that_cannot_be_used(tmp_path, capsys, write, problem):
    make_bundle(tmp_path, "combined", **SIZES)
    write(tmp_path / "frames.npz")
    assert main(["bench", str(tmp_path), "--runs", "1", "--encoder-out", str(tmp_path / "frames.npz")]) == 2
    captured = capsys.readouterr()
    assert problem in captured.err and captured.err.count("\n") == 1 and not captured.out


def test_a_single_array_is_no_archive(tmp_path, capsys):
    np.save(tmp_path / "frames.npy", np.zeros((1, 128, 5), np.float32))
    assert main(["bench", "demo", "--runs", "1", "--encoder-out", str(tmp_path / "frames.npy")]) == 2
    assert "this is a single array" in capsys.readouterr().err


@pytest.mark.parametrize("options, message", [
    (["--runs", "0"], "--runs must be at least 1"),
    (["--encoder-out", "missing.npz"], "missing.npz: expected an .npz file"),
    (["--kernels", "opencl"], "no kernel set 'opencl'"),
    (["--network", "ort", "--precision", "int8"], "precision"),
    (["--batch", "2", "--encoder-out", "missing.npz"], "leave it out with --encoder-out"),
    (["--batch", str(10**9), "--frames", str(10**6)], "does not fit into memory"),
])  # fmt: skip
def test_wrong_usage(capsys, options, message):
    assert main(["bench", str(demo.DIRECTORY), *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("options, message", [
    (["--precision", "float8"], "expected some of float32, bfloat16, int8, or all, got 'float8'"),
    (["--search", ","], "expected some of greedy, beam, or all, got nothing"),
    (["--threads", "1,0"], "invalid list of positive integers value: '1,0'"),
    (["--json", "--csv"], "not allowed with argument"),
])  # fmt: skip
def test_values_that_no_option_takes(capsys, options, message):
    with pytest.raises(SystemExit, match="2"):
        main(["bench", *options])
    assert message in capsys.readouterr().err


def test_info_tells_how_a_model_is_decoded(tmp_path, capsys):
    assert main(["info", "demo"]) == 0
    assert "network: fused (1 LSTM layers of 96" in capsys.readouterr().out
    make_bundle(tmp_path, "combined", precision="int8", **SIZES)
    assert main(["info", str(tmp_path), "--variant", "int8"]) == 0
    out = capsys.readouterr().out
    assert "some tokens differ from network ort" in out and f"tdtdecode bench {tmp_path} --recordings" in out
    assert "random" not in out


def test_floor():
    decoder = Decoder.from_bundle(demo.DIRECTORY)
    packed = decoder.program.packed
    hidden, joint, rows = 96, 112, 262
    # Blocks of 16 units and panels of 64 outputs; float16 weights.
    assert packed.token_bytes == 2 * (4 * hidden * hidden + 128 * hidden + 320 * joint) and rows < 320
    assert floor_seconds(decoder, 10, 1e9) == (10 * packed.token_bytes + packed.decode_bytes) / 1e9
    assert stream_bandwidth(decoder.kernels.isa, 1 << 20, 2, repeats=3) > 1e8
    assert floor_seconds(Decoder.from_bundle(demo.DIRECTORY, network="ort"), 10, 1e9) is None


def test_edit_distance():
    assert [edit_distance(a, b) for a, b in (("", "abc"), ("abc", "abc"), ("kitten", "sitting"), ("ab", "ba"))] == [
        3, 0, 3, 2,
    ]  # fmt: skip


def test_random_encoder_out_has_unit_variance_and_memory():
    out = random_encoder_out(2, 50, 400, seed=1)
    assert out.shape == (2, 50, 400) and out.dtype == np.float32
    assert abs(out.std() - 1) < 0.05
    assert abs(np.mean(out[:, :, 1:] * out[:, :, :-1]) - 0.6) < 0.05
