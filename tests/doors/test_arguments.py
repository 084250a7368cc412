"""Every public callable, with every argument wrong in many ways: an InputError that names the argument, at once.

`DOORS` lists what people call, with arguments that are right. Each test replaces one of them by things of other types
and ranges. What comes back is a result, or an error of this package; nothing fails on the inside.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("soundfile", reason="soundfile is not installed")

import tdtdecode as tdt  # noqa: E402
from tdtdecode import prepare  # noqa: E402
from tdtdecode.bundle import read_bundle  # noqa: E402
from tdtdecode.speech.audio import FeatureExtractor, as_samples, audio_seconds, read_audio  # noqa: E402
from tdtdecode.speech.encoder import Encoder  # noqa: E402
from tdtdecode.speech.formats import CueOptions  # noqa: E402
from tdtdecode.speech.hub import find_model  # noqa: E402
from tests import demo  # noqa: E402


class Strange:
    """An object of no use, whose every operation is missing."""


WRONG: dict[str, Any] = {
    "an object": Strange(),
    "a class": tdt.Greedy,
    "a function": lambda *_: None,
    "text": "nonsense",
    "empty text": "",
    "text with a zero": "a\0b",
    "bytes": b"\xff\xfe",
    "a fraction": 2.5,
    "nan": float("nan"),
    "infinity": float("-inf"),
    "a negative number": -1,
    "a huge number": 10**400,
    "True": True,
    "None": None,
    "a list": [Strange()],
    "a list of lists": [["a"], [1, 2]],
    "a dict": {"a": 1},
    "a tuple of two": ("a.wav", "b.wav"),
    "a set": {1, 2},
    "complex": 1j,
    "an array of text": np.array(["a"]),
    "a scalar array": np.array(1.5),
    "an array of objects": np.array([None, 1], dtype=object),
    "an array": np.zeros((2, 3), np.float32),
    "an iterator": iter([object()]),
}
"""What may stand in the place of any argument; a door may take some of it."""


@dataclass
class Door:
    """A callable with arguments that are right."""

    call: Callable[..., Any]
    right: dict[str, Any]
    names: dict[str, str] = field(default_factory=dict)
    """What messages call an argument, if not by its name."""


@lru_cache
def model():
    return tdt.load_model("demo")


@lru_cache
def encoded():
    return np.zeros((2, model().bundle.spec.encoder_size, 5), np.float32)


def predict(tokens, state):
    return np.zeros((len(tokens), 4), np.float32), tokens


def joint(frames, g):
    return np.zeros((len(g), 9), np.float32)


SPEC = tdt.TransducerSpec(4, (0, 1, 2, 3))
CALLABLE = tdt.CallableNetwork(predict, joint, lambda state, index: state[index])
SILENCE = (np.zeros(1600, np.float32), 16000)
READING = {"layout": "auto", "variant": None, "durations": None, "big_blanks": None}
RUNNING = {"network": "auto", "kernels": "auto", "precision": "float32", "threads": 1, "search": tdt.Greedy(),
           "session_options": None, "providers": None}  # fmt: skip


def doors(folder: Path) -> dict[str, Door]:
    out = folder / "out"
    lm, phrases = folder / "lm.arpa", folder / "phrases.txt"
    lm.write_text("\\data\\\nngram 1=2\n\n\\1-grams:\n-1\t<unk>\n-1\ta\n\n\\end\\\n")
    phrases.write_text("new york\n")
    boost = {"weight": 0.6, "context_score": 1.0, "depth_scaling": 2.0, "ignore_case": False}
    greedy = {"max_symbols": 10, "blank_penalty": 0.0, "fusion": (), "confidence": None,
              "allow": None}  # fmt: skip
    beam = {**greedy, "size": 4, "nbest": None, "threshold": None, "temperature": 1.0, "strategy": "tsd",
            "blank_mode": "no_score", "pruning_mode": "early"}  # fmt: skip
    kernels = {"spec": SPEC, "lengths": [3], "kernels": "auto"}
    _, state = model().decoder.decode_chunk(encoded())
    return {
        "Greedy": Door(tdt.Greedy, greedy),
        "Beam": Door(tdt.Beam, beam),
        "Confidence": Door(
            tdt.Confidence, {"measure": "tsallis", "alpha": 0.33, "normalization": "exp", "aggregation": "min"}
        ),
        "TransducerSpec": Door(
            tdt.TransducerSpec, {"vocab_size": 4, "durations": (0, 1), "blank": None, "encoder_size": None,
                                 "max_symbols": None, "big_blanks": ()}
        ),
        "Script": Door(lambda first, second: tdt.Script(first, second), {"first": "latin", "second": "common"},
                       names={"first": "script", "second": "script"}),
        "OnlyTokens": Door(tdt.OnlyTokens, {"ids": [1]}),
        "ExceptTokens": Door(tdt.ExceptTokens, {"ids": [1]}),
        "PhraseBoost": Door(tdt.PhraseBoost, {"phrases": ["new york"], **boost}, names={"phrases": "phrase"}),
        "PhraseBoost.from_file": Door(tdt.PhraseBoost.from_file, {"path": phrases, **boost}),
        "PhraseBoost.per_row": Door(
            tdt.PhraseBoost.per_row, {"lists": [["new york"]], **boost}, names={"lists": "phrase"}
        ),
        "NgramLM.from_arpa": Door(tdt.NgramLM.from_arpa, {"path": lm, "weight": 0.1, "units": "pieces"}),
        "ScoringFunction": Door(
            tdt.ScoringFunction, {"scores": predict, "advance": predict, "start": [0], "weight": 1.0}
        ),
        "CallableNetwork": Door(
            tdt.CallableNetwork, {"predict": predict, "joint": joint, "select": predict, "device": "cpu"}
        ),
        "Decoder": Door(
            tdt.Decoder,
            {"network": CALLABLE, "spec": SPEC, "search": tdt.Greedy(), "kernels": "auto", "vocabulary": None},
            names={"kernels": "kernel"},
        ),
        "Decoder.from_bundle": Door(
            tdt.Decoder.from_bundle, {"directory": demo.DIRECTORY, **READING, "device": "cpu", **RUNNING,
                                      "card_share": 1.0},
            names={"kernels": "kernel"},
        ),
        "Decoder.decode": Door(
            model().decoder.decode, {"encoder_out": encoded(), "lengths": None, "search": None}
        ),
        "Decoder.decode_chunk": Door(
            model().decoder.decode_chunk,
            {"encoder_out": encoded(), "lengths": None, "state": None, "final": False, "search": None},
        ),
        "Decoder.trace": Door(model().decoder.trace, {"encoder_out": encoded(), "lengths": None, "search": None}),
        "Decoder.detokenize": Door(model().decoder.detokenize, {"tokens": [1]}, names={"tokens": "token"}),
        "DecoderState.select": Door(state.select, {"index": [0]}),
        "DecoderState.join": Door(tdt.DecoderState.join, {"states": [state]}),
        "GreedySearch": Door(
            tdt.kernels.GreedySearch,
            {**kernels, "options": tdt.Greedy(), "frame": None, "symbols": None, "trace": False, "masks": None},
            names={"kernels": "kernel"},
        ),
        "GreedySearch.step": Door(
            lambda **more: tdt.kernels.GreedySearch(SPEC, tdt.Greedy(), [3]).step(**more),
            {"rows": np.zeros((1, 9), np.float32), "hold": False}, names={"rows": "joint rows"},
        ),
        "BeamSearch": Door(
            tdt.kernels.BeamSearch,
            {**kernels, "options": tdt.Beam(), "fusions": (), "states": None, "trace": False, "masks": None},
            names={"kernels": "kernel"},
        ),
        "kernels.get": Door(tdt.kernels.get, {"name": "auto", "device": "cpu"}, names={"name": "kernel"}),
        "load_model": Door(
            tdt.load_model, {"name_or_directory": "demo", "device": "cpu", **READING, **RUNNING, "tf32": False,
                             "card_share": 0.25},
            names={"name_or_directory": "model", "kernels": "kernel"},
        ),
        "Recognizer": Door(
            tdt.Recognizer, {"bundle": model().bundle, "encoder": model().encoder, "decoder": model().decoder}
        ),
        "Recognizer.recognize": Door(
            model().recognize,
            {"audio": SILENCE, "search": None, "batch_size": 16, "on_error": "raise", "progress": None,
             "language": None, "vad": None},
        ),
        "Recognizer.recognize_each": Door(
            lambda **more: list(model().recognize_each(**more)),
            {"recordings": [SILENCE], "search": None, "batch_size": 16, "on_error": "raise", "progress": None,
             "language": None, "vad": None},
        ),
        "Recognizer.streams": Door(model().streams, {"search": None, "latency": None, "pause": None, "vad": None}),
        "Recognizer.stream": Door(
            model().stream, {"language": None, "search": None, "latency": None, "pause": None, "vad": None}
        ),
        "Streams.open": Door(
            lambda **more: model().streams().open("a", **more), {"language": None, "search": None}
        ),
        "Streams.feed": Door(lambda **more: model().streams().feed(**more), {"pieces": {}}),
        "Stream.feed": Door(
            lambda **more: model().stream().feed(**more), {"samples": SILENCE[0], "rate": 16000},
            names={"rate": "sample rate"},
        ),
        "Latency": Door(tdt.Latency, {"chunk": 0.8, "right": 1.0, "left": 2.8}),
        "SileroVad": Door(
            tdt.SileroVad,
            {"threshold": 0.5, "neg_threshold": None, "min_speech": 0.25, "min_silence": 1.0, "speech_pad": 0.5,
             "max_speech": None, "model": None},
        ),
        "SileroVad.segments": Door(lambda **more: tdt.SileroVad().segments(**more), {"audio": SILENCE}),
        "CueOptions": Door(CueOptions, {option.name: option.default for option in fields(CueOptions)}),
        "Vocabulary.detokenize": Door(
            model().bundle.vocabulary.detokenize, {"tokens": [1]}, names={"tokens": "token"}
        ),
        "Vocabulary.words": Door(
            model().bundle.vocabulary.words,
            {"hypothesis": model().decoder.decode(encoded())[0], "frame_seconds": 0.08,
             "confidence": tdt.Confidence()},
        ),
        "Encoder": Door(
            Encoder, {"bundle": model().bundle, "threads": None, "session_options": None, "providers": None,
                      "device": "cpu", "tf32": False},
        ),
        "Encoder()": Door(
            model().encoder, {"features": np.zeros((1, 80, 20), np.float32), "lengths": np.array([20])}
        ),
        "FeatureExtractor": Door(FeatureExtractor, {"mel_bins": 80, "normalize": None, "family": "nemo"}),
        "FeatureExtractor()": Door(FeatureExtractor(80), {"recordings": [SILENCE[0]]}),
        "as_samples": Door(as_samples, {"audio": SILENCE, "sample_rate": 16000, "most_seconds": None}),
        "audio_seconds": Door(audio_seconds, {"audio": SILENCE}),
        "read_audio": Door(
            read_audio, {"path": demo.DIRECTORY / "speech.flac", "sample_rate": 16000, "most_seconds": None}
        ),
        "find_model": Door(find_model, {"name": "demo", "variant": None}, names={"name": "model"}),
        "read_bundle": Door(read_bundle, {"directory": demo.DIRECTORY, **READING}),
        "inspect": Door(
            prepare.inspect, {"directory": demo.DIRECTORY, **READING, "system": None}
        ),
        "convert": Door(
            prepare.convert, {"directory": folder, "out": out, "to": "combined", "names": "nemo", **READING}),
        "repair": Door(
            prepare.repair, {"directory": folder, "out": out, **READING, "windows": None}, names={"windows": "window"}
        ),
        "optimize": Door(
            prepare.optimize,
            {"directory": folder, "out": out, "to": "int8", **READING, "block_size": 32, "algorithm": "rtn",
             "recordings": ()},
        ),
        "pack": Door(prepare.pack, {"directory": folder, "out": out, **READING}),
        "pack_ngram": Door(
            prepare.pack_ngram, {"model": demo.DIRECTORY, "arpa": lm, "out": out, "units": "pieces", **READING}
        ),
        "export": Door(
            prepare.export,
            {"checkpoint": folder / "a.nemo", "out": out, "to": "combined", "streaming": True, "context": None},
        ),
    }  # fmt: skip


@pytest.fixture(scope="module")
def every_door(tmp_path_factory):
    return doors(tmp_path_factory.mktemp("arguments"))


PATHS = {"path", "arpa", "model", "audio", "recordings", "name", "name_or_directory", "directory", "out", "checkpoint"}
"""Arguments whose message may name the file, and not the argument."""

NAMES = """Greedy Beam Confidence TransducerSpec Script OnlyTokens ExceptTokens
PhraseBoost PhraseBoost.from_file PhraseBoost.per_row
NgramLM.from_arpa ScoringFunction CallableNetwork Decoder Decoder.from_bundle Decoder.decode
Decoder.decode_chunk Decoder.trace Decoder.detokenize DecoderState.select DecoderState.join GreedySearch
GreedySearch.step BeamSearch kernels.get load_model Recognizer Recognizer.recognize Recognizer.recognize_each
Recognizer.streams Recognizer.stream Streams.open Streams.feed Stream.feed Latency SileroVad SileroVad.segments
CueOptions Vocabulary.detokenize Vocabulary.words Encoder Encoder() FeatureExtractor FeatureExtractor() as_samples
audio_seconds read_audio find_model read_bundle inspect convert repair optimize pack pack_ngram export""".split()


def test_every_door_is_here(every_door):
    assert set(NAMES) == set(every_door)
    made_elsewhere = {"Hypothesis", "NgramLM", "Transcript", "Word", "DecoderState", "kernels", "Progress",
                      "SpeechSegment"}  # fmt: skip
    errors = {name for name in tdt.__all__ if name.endswith(("Error", "Warning"))}
    assert set(tdt.__all__) - errors - made_elsewhere <= set(every_door)
    assert {name.lower() for name in prepare.__all__} <= set(every_door) | {
        "inspection", "repair", "optimization", "packedmodel"
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_wrong_arguments(every_door, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    door = every_door[name]
    parameters = inspect.signature(door.call).parameters
    if "more" not in parameters:
        assert set(door.right) == set(parameters)
    problems = []
    for argument in door.right:
        known_as = door.names.get(argument, argument)
        for kind, value in WRONG.items():
            if argument == "progress" and kind == "a class":
                continue  # it can be called, and fails on its own
            if value is door.right[argument]:
                continue  # nothing is wrong
            try:
                door.call(**{**door.right, argument: iter([object()]) if kind == "an iterator" else value})
            except tdt.InputError as error:
                message = str(error)
                is_path = kind in ("text", "text with a zero", "empty text", "bytes", "a tuple of two")
                named = known_as.split("_")[0] in message or (is_path and argument in PATHS)
                if not named or "\n" in message or len(message) > 400:
                    problems.append(f"{argument} = {kind}: {message}")
            except (tdt.BundleError, tdt.MissingDependencyError, tdt.DeviceError) as error:
                if kind in ("an object", "a list", "a dict"):
                    problems.append(f"{argument} = {kind}: {error!r}")
            except Exception as error:
                problems.append(f"{argument} = {kind}: {type(error).__name__}: {error}")
            else:
                if kind == "an object":
                    problems.append(f"{argument} = {kind} is taken")
    assert problems == []


def test_wrong_arguments_of_accelerate():
    onnx_asr = pytest.importorskip("onnx_asr", reason="onnx-asr is not installed")
    from tdtdecode.integrations.onnx_asr import accelerate

    loaded = onnx_asr.load_model("nemo-conformer-tdt", demo.DIRECTORY, providers=["CPUExecutionProvider"])
    right = {"model": loaded, "directory": None, "network": "auto", "kernels": "auto", "precision": "float32",
             "threads": 1, "search": None}  # fmt: skip
    assert set(right) == set(inspect.signature(accelerate).parameters)
    for argument in right:
        for kind in ("an object", "a fraction", "a list", "a dict", "an array", "True", "a class"):
            with pytest.raises(tdt.InputError, match=argument.removesuffix("s")):
                accelerate(**{**right, argument: WRONG[kind]})


WAV = np.zeros(1600, np.float32)


@pytest.mark.parametrize(("call", "parts"), [
    (lambda: model().recognize(WAV, 16000), ["search must be Greedy(...) or Beam(...)", "(samples, rate)"]),
    (lambda: model().recognize(SILENCE, search="beam"), ["search must be", "got 'beam'", "tdtdecode.Beam()"]),
    (lambda: model().recognize(SILENCE, search=tdt.Beam), ["search must be", "Beam(...)"]),
    (lambda: model().recognize(("a.wav", "b.wav")), ["audio must be a recording", "as a list"]),
    (lambda: model().recognize(("a.wav", "b.wav", "c.wav")), ["audio must be a recording", "as a list"]),
    (lambda: model().recognize({"a.wav"}), ["audio must be a recording", "as a list"]),
    (lambda: model().recognize(iter(["a.wav"])), ["audio must be a recording", "as a list"]),
    (lambda: model().recognize(WAV), ["audio must be a recording", "got an array float32 [1600]", "(samples, 16000)"]),
    (lambda: model().recognize((16000, WAV)), ["audio: the sample rate", "the order is (samples, rate)"]),
    (lambda: model().recognize({"array": WAV, "sampling_rate": 16000}), ["audio['sampling_rate']"]),
    (lambda: model().recognize([SILENCE, 5]), ["audio[1] must be a recording", "got 5"]),
    (lambda: model().recognize([0.0, 0.5]), ["audio[0] must be a recording", "(samples, rate)"]),
    (lambda: tdt.Beam(4), ["strategy must be 'tsd' or 'malsd', got 4", "Beam(size=4)"]),
    (lambda: tdt.Beam(fusion=["lm.arpa"]), ["fusion[0] must be an NgramLM", "got 'lm.arpa'"]),
    (lambda: tdt.Decoder("model/", SPEC), ["network must be", "Decoder.from_bundle"]),
    (lambda: tdt.load_model("demo", providers=["Tpu"]), ["providers[0]", "CPUExecutionProvider", "Tpu"]),
    (lambda: tdt.load_model("demo", threads=True), ["threads must be an integer, got True"]),
    (lambda: tdt.load_model("demo", durations=[0, "1"]), ["durations[1] must be an integer, got '1'"]),
])  # fmt: skip
def test_what_people_do(call, parts):
    with pytest.raises(tdt.InputError) as failure:
        call()
    for part in parts:
        assert part in str(failure.value)


def test_right_arguments_stay_right():
    assert tdt.Beam("malsd", size=np.int64(3)).size == 3
    assert tdt.TransducerSpec(4, np.array([0, 1])).durations == (0, 1)
    assert tdt.Greedy(blank_penalty=np.float32(0.5)).blank_penalty == 0.5
    assert [out.text for out in model().recognize([SILENCE, (WAV.tolist(), 16000)], tdt.Beam(size=2))] == ["", ""]
    assert tdt.PhraseBoost(phrase for phrase in ("new york",)).phrases == ["new york"]


def test_nothing_is_done_before_arguments_are_checked(monkeypatch):
    """No audio is read, no model is looked for."""
    monkeypatch.setattr("tdtdecode.speech.stages.as_samples", lambda *_: pytest.fail("audio is read"))
    monkeypatch.setattr("tdtdecode.speech.loading.find_model", lambda *_: pytest.fail("a model is looked for"))
    for options in ({"batch_size": 0}, {"on_error": "stop"}, {"progress": 1}, {"search": "greedy"}):
        with pytest.raises(tdt.InputError, match=next(iter(options))):
            model().recognize(SILENCE, **options)
    for argument, value in {"device": 0, "layout": "x", "variant": "/", "durations": 3, "network": "x", "kernels": "x",
                            "precision": "x", "threads": 0, "search": "x", "providers": "x"}.items():  # fmt: skip
        with pytest.raises(tdt.InputError, match=argument.removesuffix("s")):
            tdt.load_model("organisation/name", **{argument: value})
