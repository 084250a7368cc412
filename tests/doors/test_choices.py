"""What was chosen can be seen: one line of log for each choice, a warning for each fall to something slower, `repr`."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("soundfile", reason="soundfile is not installed")

import tdtdecode as tdt  # noqa: E402
from benches.random_bundle import make_bundle  # noqa: E402
from tdtdecode import prepare  # noqa: E402
from tdtdecode.bundle import read_bundle, reading  # noqa: E402
from tdtdecode.bundle.cut import CannotSplit  # noqa: E402
from tdtdecode.cli import main  # noqa: E402
from tdtdecode.errors import DeviceError  # noqa: E402
from tdtdecode.sessions import ForkSafeSession  # noqa: E402
from tdtdecode.speech import loading  # noqa: E402
from tdtdecode.speech.audio import FeatureExtractor  # noqa: E402
from tdtdecode.speech.routing import RoutedRecognizer  # noqa: E402
from tests import demo  # noqa: E402

SPEECH = demo.DIRECTORY / "speech.flac"
SIZES = {"vocab_size": 60, "encoder_size": 24, "predictor_size": 20, "joint_size": 20}


@pytest.fixture
def whole(tmp_path, monkeypatch):
    """A model directory whose graph cannot be split, so that its weights cannot be found."""

    def refuse(*_):
        raise CannotSplit("for this test")

    make_bundle(tmp_path, "combined", **SIZES)
    monkeypatch.setattr(reading, "Cut", refuse)
    return tmp_path


def lines(caplog, level=logging.INFO):
    return [record.getMessage() for record in caplog.records if record.levelno == level]


class TestLog:
    def test_one_line_for_each_choice(self, caplog):
        caplog.set_level(logging.INFO, "tdtdecode")
        model = tdt.load_model("demo")
        model.recognize([SPEECH, SPEECH])
        said = lines(caplog)
        kinds = [line.partition(":")[0] for line in said]
        assert kinds == ["files", "decoder", "kernels", "network", "precision", "encoder", "batches"]
        assert not any("\n" in line for line in said)
        text = "\n".join(said)
        for part in ("encoder-model.onnx, decoder_joint-model.onnx", "layout combined", "without a suffix",
                     "network: fused, 1 LSTM layers of 96", "float32 (exact)", model.decoder.kernels.name,
                     "2 recordings (18.4 s) in 1 batches of at most 16"):  # fmt: skip
            assert part in text

    def test_other_choices(self, tmp_path, caplog, monkeypatch):
        make_bundle(tmp_path, "split", precision="int8", **SIZES)
        monkeypatch.setenv("TDTDECODE_ISA", "baseline")
        caplog.set_level(logging.INFO, "tdtdecode")
        tdt.Decoder.from_bundle(tmp_path, variant="int8", network="ort", threads=2)
        text = "\n".join(lines(caplog))
        for part in ("layout split", "variant int8", "decoder.int8.onnx", "network: ort, as asked",
                     "decoder: device cpu, threads 2",
                     "kernels: cpu-baseline, which TDTDECODE_ISA asks for", "one joint row at a time"):  # fmt: skip
            assert part in text
        caplog.clear()
        tdt.Decoder.from_bundle(demo.DIRECTORY, kernels="reference")
        assert "network: ort, since 'fused' does not exist for kernels 'reference'" in lines(caplog)

    def test_encoders_that_take_one_recording(self, tmp_path, caplog):
        pytest.importorskip("onnx_ir", reason="onnx-ir is not installed")
        pytest.importorskip("sympy", reason="sympy is not installed")
        prepare.optimize(demo.DIRECTORY, tmp_path / "int8", "int8")
        caplog.set_level(logging.INFO, "tdtdecode")
        tdt.load_model(tmp_path / "int8", variant="int8").recognize([SPEECH, SPEECH])
        text = "\n".join(lines(caplog))
        assert "one recording at a time, being dynamically quantised" in text
        assert "in 2 batches of at most 1, since this encoder takes one recording at a time" in text

    def test_windows(self, caplog):
        model = tdt.load_model("demo")
        caplog.set_level(logging.INFO, "tdtdecode")
        model.recognize([(np.zeros(16_000 * 40, np.float32), 16_000), SPEECH])
        assert "; 1 of them in windows of 32 s" in lines(caplog)[0]

    def test_the_command_line(self):
        command = [sys.executable, "-m", "tdtdecode", "transcribe", str(SPEECH)]
        assert subprocess.run(command, capture_output=True, text=True).stderr == ""
        err = subprocess.run([*command, "-v"], capture_output=True, text=True).stderr
        kinds = ["files", "decoder", "kernels", "network", "precision", "encoder", "batches"]
        assert re.findall(r"^tdtdecode: (\w+): ", err, re.MULTILINE) == kinds


class TestWarnings:
    def test_weights_that_cannot_be_found(self, whole):
        with pytest.warns(tdt.SlowerWarning, match=r"network 'ort' .*slower.*'fused'.*for this test") as found:
            tdt.Decoder.from_bundle(whole)
        assert len(found) == 1 and str(whole) in str(found[0].message)

    def test_graphs_that_cannot_be_split(self, whole):
        with pytest.warns(tdt.SlowerWarning, match="cannot be split: for this test"):
            tdt.Decoder.from_bundle(whole, network="ort")

    def test_nothing_is_said_of_what_was_asked_for(self):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for options in ({}, {"network": "ort"}, {"kernels": "reference"}, {"network": "fused"}):
                tdt.Decoder.from_bundle(demo.DIRECTORY, **options)
            tdt.load_model("demo", device="cpu")
        assert caught == []

    def test_a_card_that_lacks_something(self, monkeypatch):
        """Without a card, the cpu is the right choice; with one it is a fall."""
        def no_provider(*_, **options):
            if options.get("device") == "cuda":
                raise DeviceError("onnxruntime-gpu is not installed")
            return made(*_, **options)

        made = tdt.Decoder.from_bundle
        monkeypatch.setattr(loading.Decoder, "from_bundle", no_provider)
        monkeypatch.setattr(loading, "current_device", lambda: None)
        with pytest.warns(tdt.SlowerWarning, match="device: cpu, since cuda cannot be used: onnxruntime-gpu is not"):
            assert tdt.load_model("demo", device="auto").device == "cpu"

        def no_card():
            raise DeviceError("no card")

        monkeypatch.setattr(loading, "current_device", no_card)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert tdt.load_model("demo", device="auto").device == "cpu"

    def test_providers_that_onnx_runtime_drops(self):
        class Session:
            def get_providers(self):
                return ["CPUExecutionProvider"]

        asked = [("CUDAExecutionProvider", {}), "CPUExecutionProvider"]
        with pytest.warns(tdt.SlowerWarning, match="a.onnx: ONNX Runtime cannot use CUDAExecutionProvider and runs"):
            ForkSafeSession(Session, asked, "a.onnx")

    def test_a_cache_that_cannot_be_written(self, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("TDTDECODE_CACHE", str(tmp_path / "file" / "folder"))
        words = "".join(f"-2\t{piece}\n" for piece in demo.pieces()[:-1] if piece != "<unk>")
        count = words.count("\n") + 1
        (tmp_path / "lm.arpa").write_text(f"\\data\\\nngram 1={count}\n\n\\1-grams:\n-3\t<unk>\n{words}\n\\end\\\n")
        lm = tdt.NgramLM.from_arpa(tmp_path / "lm.arpa")
        with pytest.warns(tdt.SlowerWarning, match="cannot be written .*compiled anew next time; TDTDECODE_CACHE"):
            tdt.Decoder.from_bundle(demo.DIRECTORY, search=tdt.Greedy(fusion=[lm]))

    def test_on_the_command_line(self, whole, tmp_path, capsys):
        for command in ("info", "bench"):
            more = ["--runs", "1", "--frames", "40"] if command == "bench" else []
            assert main([command, str(whole), *more]) == 0
            assert not re.search(r"\.py:\d+", capsys.readouterr().err)


def test_every_public_object_says_what_it_is(tmp_path):
    model = tdt.load_model("demo")
    transcript = model.recognize(SPEECH, tdt.Beam(nbest=2))
    encoder_out = np.zeros((2, model.bundle.spec.encoder_size, 9), np.float32)
    states = [model.decoder.decode_chunk(encoder_out, search=search)[1] for search in (tdt.Greedy(), tdt.Beam())]
    boost = tdt.PhraseBoost(["new york"] * 100, 0.5)
    spec = tdt.TransducerSpec(9)
    (tmp_path / "lm.arpa").write_text("\\data\\\nngram 1=1\n\n\\1-grams:\n-1\ta\n\n\\end\\\n")
    function = tdt.ScoringFunction(scores, scores)
    objects = [
        (model, ["demo (combined)", "fused in float32", "cpu", "Greedy()", "windows beyond 32 s"]),
        (model.decoder, ["demo (combined)", "fused in float32", model.decoder.kernels.name, "on the cpu", "Greedy()"]),
        (RoutedRecognizer(model, model, 4.0), ["demo", "4 s"]),
        (model.encoder, ["encoder-model.onnx", "on the cpu", "several recordings"]),
        (model.bundle, ["demo", "combined", "256 tokens", "encoder-model.onnx"]),
        (model.bundle.vocabulary, ["256 pieces", "blank 256"]),
        (model.bundle.transducer, ["decoder_joint-model.onnx"]),
        (model.bundle.transducer.graphs[0], ["decoder_joint-model.onnx"]),
        (model.decoder.network, ["float32 on the cpu", "1 LSTM layers of 96"]),
        (tdt.Decoder.from_bundle(demo.DIRECTORY, network="ort"), ["network ort"]),
        (tdt.Decoder.from_bundle(demo.DIRECTORY, network="ort").network, ["ONNX Runtime"]),
        (model.decoder.kernels, [model.decoder.kernels.name]),
        (FeatureExtractor(80), ["80 mel bins", "per feature"]),
        (transcript, ["set an alarm", "23 words", "9.21 s", "1 alternative"]),
        (transcript.words[0], ["set"]),
        (transcript.hypothesis, ["44 tokens", "score", "1 alternative"]),
        (model.decoder.trace(encoder_out)[0], ["step"]),
        (states[0], ["2 streams", "9 to 9 frames"]),
        (states[1], ["2 streams", "Beam()"]),
        (tdt.CallableNetwork(scores, scores, scores), ["functions on the cpu"]),
        (tdt.kernels.GreedySearch(spec, tdt.Greedy(), [3, 4]), ["2 utterances"]),
        (tdt.kernels.BeamSearch(spec, tdt.Beam(), [3]), ["1 utterance", "Beam()"]),
        (boost, ["100 phrases from 'new york' on", "0.5"]),
        (tdt.PhraseBoost.per_row([["a"], []]), ["2 utterances"]),
        (tdt.NgramLM.from_arpa(tmp_path / "lm.arpa"), ["lm.arpa", "0.1", "pieces"]),
        (function, ["scores", "[0]"]),
        (tdt.Greedy(fusion=[boost]), ["fusion=[<PhraseBoost"]),
        (tdt.Confidence(), ["tsallis"]),
        (spec, ["vocab_size=9"]),
        (prepare.inspect(demo.DIRECTORY), ["demo", "0 problems", "systems"]),
        (tdt.Progress(seconds_done=1, seconds_total=2, recordings_done=0, recordings_known=1,
                      recordings_total=1), ["seconds_done=1"]),
    ]  # fmt: skip
    for thing, parts in objects:
        text = repr(thing)
        assert "\n" not in text and len(text) < 300 and " object at 0x" not in text and " at 0x" not in text
        assert text.lstrip("<").startswith(type(thing).__name__), text
        for part in parts:
            assert part in text, text


def scores(state, out):
    """For tests."""


@pytest.mark.parametrize("search", [
    tdt.Greedy(), tdt.Greedy(max_symbols=3), tdt.Beam(), tdt.Beam(size=8), tdt.Beam(nbest=1), tdt.Beam(nbest=3),
    tdt.Beam(nbest=4), tdt.Beam(size=2, nbest=2, threshold=6.0), tdt.Beam(threshold=3.0), tdt.Beam("malsd", size=1),
    tdt.Beam(threshold=float("inf")), tdt.Beam(nbest=1, threshold=2.0, confidence=tdt.Confidence("gibbs")),
], ids=repr)  # fmt: skip
def test_searches_are_written_as_they_are_made(search):
    names = {"Greedy": tdt.Greedy, "Beam": tdt.Beam, "Confidence": tdt.Confidence, "inf": float("inf")}
    assert eval(repr(search), names) == search


def test_names():
    assert set(tdt.__all__) <= set(dir(tdt)) and "load_model" in dir(tdt)
    assert read_bundle(demo.DIRECTORY).directory == demo.DIRECTORY.resolve()
