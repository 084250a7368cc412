"""The options of loading a model: the library and the command line have the same ones, with the same defaults."""

from __future__ import annotations

import argparse
import inspect as python_inspect
import subprocess
import sys

import pytest

import tdtdecode as tdt
from tdtdecode.bundle import read_bundle
from tdtdecode.cli import main
from tdtdecode.commands import COMMANDS
from tdtdecode.commands.options import MODEL_OPTIONS, SOURCE_OPTIONS, add_model, add_source
from tdtdecode.speech.loading import DEVICES, load_model
from tests import demo

NO_TEXT = {"name_or_directory", "search", "session_options"}
"""Parameters of `load_model` that are no options of loading on the command line."""


def parameters(function) -> dict:
    return {name: parameter.default for name, parameter in python_inspect.signature(function).parameters.items()}


def declared(add) -> dict:
    parser = argparse.ArgumentParser()
    add(parser)
    return vars(parser.parse_args([]))


def test_the_command_line_has_every_option_of_load_model():
    wanted = {name: default for name, default in parameters(load_model).items() if name not in NO_TEXT}
    assert declared(add_model) == wanted and list(MODEL_OPTIONS) == list(wanted)


def test_load_model_has_every_option_of_the_decoder():
    assert set(parameters(tdt.Decoder.from_bundle)) - {"directory"} <= set(parameters(load_model))


def test_reading_a_directory_has_the_same_options_everywhere():
    wanted = {name: default for name, default in parameters(read_bundle).items() if name != "directory"}
    assert declared(add_source) == wanted and list(SOURCE_OPTIONS) == list(wanted)
    for function in (tdt.prepare.inspect, tdt.prepare.repair, tdt.prepare.convert, tdt.prepare.optimize):
        assert parameters(function).items() >= wanted.items(), function.__name__


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"evaluate", "export"}))
def test_every_command_that_reads_a_model_has_them(name):
    parser = argparse.ArgumentParser()
    COMMANDS[name].add_arguments(parser)
    options = {action.dest for action in parser._actions}
    assert options >= set(MODEL_OPTIONS if name in ("transcribe", "listen") else SOURCE_OPTIONS)


def test_the_devices_are_those_of_the_library():
    assert MODEL_OPTIONS["device"]["choices"] == DEVICES


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    """The demo as an int8-only release."""
    directory = tmp_path_factory.mktemp("demo") / "int8"
    assert main(["optimize", "demo", "--to", "int8", "-o", str(directory)]) == 0
    return directory


def transcribed(capsys, *options) -> tuple[str, str]:
    capsys.readouterr()
    assert main(["transcribe", str(demo.DIRECTORY / "speech.flac"), *map(str, options)]) == 0
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_an_int8_only_release_is_transcribed(int8):
    """What was taken is said on standard error."""
    command = [sys.executable, "-m", "tdtdecode", "transcribe", str(demo.DIRECTORY / "speech.flac"), "--model"]
    found, wanted = (subprocess.run([*command, m], capture_output=True, text=True) for m in (str(int8), "demo"))
    assert (found.returncode, found.stdout) == (0, wanted.stdout)
    assert f"the only variant there is ({int8})" in found.stderr


@pytest.mark.parametrize("options", [
    ("--variant", "int8"), ("--layout", "combined"), ("--durations", "0,1,2,3,4"), ("--network", "ort"),
    ("--providers", "CPUExecutionProvider"), ("--precision", "bfloat16"), ("--kernels", "reference"),
])  # fmt: skip
def test_each_option_reaches_the_model(int8, capsys, options):
    assert transcribed(capsys, "--model", int8, *options)[0].strip()


@pytest.mark.parametrize(("options", "message"), [
    (("--variant", "fp16"), "decoder_joint-model.int8.onnx (variant 'int8')"),
    (("--layout", "split"), "look like layout 'combined'"),
    (("--durations", "0,1,2"), "durations has 3 entries"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(int8, capsys, options, message):
    assert main(["transcribe", str(demo.DIRECTORY / "speech.flac"), "--model", str(int8), *options]) == 2
    assert message in capsys.readouterr().err


def test_the_command_line_has_every_option_of_the_vad_and_of_latency():
    for name in ("listen", "transcribe"):
        parser = argparse.ArgumentParser()
        COMMANDS[name].add_arguments(parser)
        options = {action.dest for action in parser._actions}
        assert options >= {f"vad_{option}" for option in parameters(tdt.SileroVad)} | {"vad"}
        assert name == "transcribe" or options >= set(parameters(tdt.Latency))
