"""`inspect` names the family of every convention of model directories, and which systems use it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import tdtdecode as tdt
from tdtdecode.bundle import read_bundle
from tdtdecode.bundle.onnx_files.graph import load_graph
from tdtdecode.bundle.roles import COMBINED, DECISION, ENCODER, JOINT, PREDICTOR, role_of
from tdtdecode.prepare import convert, inspect
from tests.bundle.helpers import small_bundle
from tests.bundles_in_the_wild import WILD, did_use, outcomes
from tests.conventions import GOLDEN
from tests.k2_models import write_model

pytest.importorskip("kaldi_native_fbank")
pytestmark = [
    pytest.mark.filterwarnings("ignore::tdtdecode.errors.SlowerWarning"),
    pytest.mark.skipif(sys.platform == "win32", reason="systems are tried in forked processes"),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    pytest.importorskip("sherpa_onnx")
    pytest.importorskip("onnx_asr")
    pytest.importorskip("sentencepiece")
    return outcomes(tmp_path_factory.mktemp("wild"), list(WILD), ("sherpa-onnx", "onnx-asr"))


@pytest.mark.parametrize("name", WILD)
def test_the_family_is_named(found, name):
    facts, wanted = found[name].facts, WILD[name]
    assert wanted.family in facts["family"]
    assert wanted.files in facts["files as written by"]
    assert wanted.here in facts["this package"]


@pytest.mark.parametrize("name", WILD)
def test_systems_do_what_inspect_says(found, name):
    outcome = found[name]
    for system, answer in outcome.did.items():
        assert outcome.usable[system] == did_use(name, system, answer), (system, answer)


@pytest.mark.parametrize("name", [name for name, wild in WILD.items() if "refuses" not in wild.here])
def test_this_package_recognises_with_all_that_it_does_not_refuse(found, name):
    assert found[name].did["tdtdecode"].get("text")


@pytest.mark.parametrize("name", [name for name, wild in WILD.items() if "argmax" in wild.here])
def test_an_argmax_inside_is_refused_by_name(tmp_path, name):
    WILD[name].make(tmp_path)
    with pytest.raises(tdt.BundleError, match="argmax inside: it gives .*duration.*decoder_joint.onnx") as caught:
        read_bundle(tmp_path)
    assert Path(caught.value.file).name in ("joint_decision.onnx", "decoder.onnx")
    assert [problem.code for problem in inspect(tmp_path).problems] == ["argmax-inside"]


def test_roles_by_what_graphs_take_and_give(tmp_path):
    def roles(directory):
        return {path.stem: role_of(load_graph(path, directory)) for path in sorted(directory.glob("*.onnx"))}

    split = {"encoder": ENCODER, "decoder": PREDICTOR, "joiner": JOINT}
    assert roles(small_bundle(tmp_path / "a", "split", mel_bins=80)) == split
    assert roles(write_model(tmp_path / "b")) == split
    combined = {"encoder-model": ENCODER, "decoder_joint-model": COMBINED}
    assert roles(small_bundle(tmp_path / "c", "combined", mel_bins=80)) == combined
    streaming = roles(GOLDEN / "rnnt-8-1")
    assert streaming == split | {name: role for name, role in combined.items() if name in streaming}
    WILD["talatapp, joint_decision"].make(tmp_path / "d")
    assert roles(tmp_path / "d")["joint_decision"] == DECISION


@pytest.mark.parametrize("names", ["parakeet-rs", "soniqo"])
@pytest.mark.parametrize("layout", ["split", "combined", "genai"])
def test_convert_writes_other_names_and_reads_them_again(tmp_path, names, layout):
    source = small_bundle(tmp_path / "a", layout, mel_bins=80)
    written = convert(source, tmp_path / "b", "combined", names=names)
    expected = {"parakeet-rs": "encoder.onnx", "soniqo": "parakeet-encoder.onnx"}[names]
    assert (written.layout, written.encoder.name) == ("combined", expected)
    back = convert(tmp_path / "b", tmp_path / "c", "combined")
    assert back.encoder.name == "encoder-model.onnx" and back.vocabulary == written.vocabulary
    with pytest.raises(tdt.InputError, match="has layout 'combined' already"):
        convert(tmp_path / "c", tmp_path / "d", "combined")


def test_names_belong_to_the_combined_layout(tmp_path):
    with pytest.raises(tdt.InputError, match="names='parakeet-rs' are names of the combined layout"):
        convert(small_bundle(tmp_path / "a"), tmp_path / "b", "split", names="parakeet-rs")


@pytest.mark.parametrize("to", ["combined", "genai"])
def test_no_other_layout_holds_a_model_of_k2(tmp_path, to):
    with pytest.raises(tdt.BundleError, match="a model of k2, whose predictor has no states: only the split layout"):
        convert(write_model(tmp_path / "a"), tmp_path / "b", to)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(("text", "problem"), [
    ('["a", "b", 3]', "expected a string, got 3"), ('{"a": 0, "b": 2}', "ids have gaps or repeat"),
    ('{"a": 0, "b": 0}', "ids have gaps or repeat"), ('{"0": "a", "x": "b"}', "expected a token id, got 'x'"),
    ('"a"', "expected a list of pieces, or a map"), ("[", "not valid JSON"),
])  # fmt: skip
def test_a_vocabulary_in_json_that_cannot_be_read(tmp_path, text, problem):
    WILD["soniqo"].make(tmp_path)
    (tmp_path / "vocab.json").write_text(text, encoding="utf-8")
    with pytest.raises(tdt.BundleError, match=f"vocab.json: .*{problem}|vocab.json.*{problem}"):
        read_bundle(tmp_path)


@pytest.mark.parametrize("form", ["list", "piece to id"])
def test_other_forms_of_a_vocabulary_in_json(tmp_path, form):
    WILD["soniqo"].make(tmp_path)
    file = tmp_path / "vocab.json"
    by_id = json.loads(file.read_text(encoding="utf-8"))
    expected = read_bundle(tmp_path).vocabulary
    pieces = list(by_id.values())
    value = pieces if form == "list" else {piece: i for i, piece in enumerate(pieces)}
    file.write_text(json.dumps(value), encoding="utf-8")
    assert read_bundle(tmp_path).vocabulary == expected
