"""NeMo checkpoints become model directories that decode what NeMo decodes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import tdtdecode as tdt
from tdtdecode.cli import main
from tdtdecode.errors import InputError, MissingDependencyError
from tdtdecode.prepare.inspection import inspect
from tdtdecode.prepare.nemo_export import export, pieces_of
from tests import demo

PIECES = ["\u2581a", "b", "\u2581c"]
DEMO_CHECKPOINT = os.environ.get("TDTDECODE_DEMO_NEMO")
"""The demo model as NeMo's own file, which `tools/demo_model/export.py --nemo` writes."""


@pytest.mark.parametrize("vocabulary", [
    PIECES, tuple(PIECES), {"\u2581c": 2, "b": 1, "\u2581a": 0}, {2: "\u2581c", 0: "\u2581a", 1: "b"},
])  # fmt: skip
def test_vocabularies_of_both_kinds(vocabulary):
    assert pieces_of(vocabulary) == PIECES


@pytest.mark.parametrize(("vocabulary", "message"), [
    ({"a": 0, "b": 2}, "ids 0 to 1"),
    ({"a": "b"}, "from pieces to ids"),
    ("abc", "a list of pieces"),
    ([("a", -1.5)], "a list of pieces"),
])  # fmt: skip
def test_what_is_no_vocabulary(vocabulary, message):
    with pytest.raises(InputError, match=message):
        pieces_of(vocabulary)


def test_no_checkpoint(tmp_path):
    with pytest.raises(InputError, match="expected a .nemo file, or a hub name"):
        export(tmp_path / "nowhere.nemo", tmp_path / "out")
    with pytest.raises(InputError, match="'split', 'combined', 'genai'"):
        export("a/b", tmp_path / "out", "nemo")


def test_without_nemo(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "nemo.collections.asr.models", None)
    (tmp_path / "model.nemo").write_bytes(b"x")
    with pytest.raises(MissingDependencyError, match=r"tdtdecode\[export\]"):
        export(tmp_path / "model.nemo", tmp_path / "out")
    assert main(["export", str(tmp_path / "model.nemo"), "-o", str(tmp_path / "out")]) == 2
    assert "tdtdecode[export]" in capsys.readouterr().err


@pytest.fixture(scope="module")
def nemo():
    pytest.importorskip("torch", reason="NeMo is not installed (pip install torch nemo_toolkit[asr]==3.0.0)")
    pytest.importorskip("nemo.collections.asr", reason="NeMo is not installed (pip install nemo_toolkit[asr]==3.0.0)")


@pytest.fixture(scope="module")
def checkpoint(nemo, tmp_path_factory):
    """Tiny random checkpoints of every kind, made once."""
    from benches.nemo_checkpoints import build

    made: dict[str, Path] = {}

    def of(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            made[kind] = folder / f"{kind}.nemo"
            build(kind, True, folder).save_to(str(made[kind]))
        return made[kind]

    return of


@pytest.mark.parametrize(("kind", "mel_bins", "layers", "durations"), [
    ("0.6b-v2", 128, 2, [0, 1, 2, 3, 4]),
    ("0.6b-v3", 128, 2, [0, 1, 2, 3, 4]),
    ("1.1b", 80, 2, [0, 1, 2, 3, 4]),
    ("tdt_ctc-1.1b", 80, 2, [0, 1, 2, 3, 4]),
    ("tdt_ctc-110m", 80, 1, [0, 1, 2, 3, 4]),
    ("rnnt-1.1b", 80, 2, []),
])  # fmt: skip
def test_every_kind(checkpoint, tmp_path, kind, mel_bins, layers, durations):
    """`export` decodes with NeMo and with the files itself, and says nothing but what is equal."""
    result = export(checkpoint(kind), tmp_path / "out", "split")
    assert result.tokens > 0
    assert ("transducer head" in result.kind) == kind.startswith("tdt_ctc")
    bundle = result.bundle
    assert bundle.features.mel_bins == mel_bins and list(bundle.spec.durations) == durations
    assert bundle.transducer.predictor.state_shapes[0][0] == layers
    assert bundle.features.max_frames == 5000
    assert inspect(tmp_path / "out", system="sherpa-onnx").ok


@pytest.mark.parametrize("to", ["combined", "genai"])
def test_other_layouts(checkpoint, tmp_path, to):
    system = {"combined": "onnx-asr", "genai": "onnxruntime-genai"}[to]
    result = export(checkpoint("0.6b-v2"), tmp_path / "out", to)
    assert result.bundle.layout == to and inspect(tmp_path / "out", system=system).ok
    expected = export(checkpoint("0.6b-v2"), tmp_path / "split", "split")
    assert result.bundle.vocabulary.pieces[:-1] == expected.bundle.vocabulary.pieces[:-1]


def test_the_demo_model(nemo, tmp_path):
    """Exported anew, it says what the files of this package say, whose weights are stored in float16."""
    if DEMO_CHECKPOINT is None:
        pytest.skip("TDTDECODE_DEMO_NEMO does not name the demo model's checkpoint")
    export(DEMO_CHECKPOINT, tmp_path / "out")
    recordings = [(samples, 16_000) for samples, _ in demo.recordings().values()]
    texts = [out.text for out in tdt.load_model(tmp_path / "out").recognize(recordings)]
    assert texts == [out.text for out in tdt.load_model("demo").recognize(recordings)]


def test_a_hub_name(checkpoint, tmp_path, monkeypatch):
    """It is NeMo that fetches it, by its name."""
    from nemo.collections.asr.models import ASRModel

    asked = []

    def fetch(name, map_location):
        asked.append(name)
        return ASRModel.restore_from(str(checkpoint("0.6b-v2")), map_location=map_location)

    monkeypatch.setattr(ASRModel, "from_pretrained", fetch)
    assert export("nvidia/parakeet-tdt-0.6b-v2", tmp_path / "out").tokens > 0
    assert asked == ["nvidia/parakeet-tdt-0.6b-v2"]


def test_a_wrong_export_is_found(checkpoint, tmp_path, monkeypatch):
    from tdtdecode.prepare import nemo_export

    monkeypatch.setattr(nemo_export, "_pieces", lambda model: [f"p{i}" for i in range(65)])
    with pytest.raises(tdt.BundleError):
        export(checkpoint("0.6b-v2"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_transducer(nemo, tmp_path):
    (tmp_path / "model.nemo").write_bytes(b"no archive")
    with pytest.raises(InputError, match="NeMo cannot restore it"):
        export(tmp_path / "model.nemo", tmp_path / "out")


def test_the_command(checkpoint, tmp_path, capsys):
    assert main(["export", str(checkpoint("tdt_ctc-110m")), "-o", str(tmp_path / "out"), "--to", "split"]) == 0
    out = capsys.readouterr().out
    assert "the CTC head is left out" in out and "checked against NeMo" in out and "GiB of memory" in out


@pytest.mark.parametrize(("kind", "to", "window", "durations"), [
    ("nemotron-streaming", "split", (121, 112), []),
    ("nemotron-streaming", "genai", (121, 112), []),
    ("nemotron-3.5-streaming", "combined", (121, 112), []),
    ("hybrid-streaming", "combined", (121, 112), []),
    ("tdt-streaming", "split", (25, 16), [0, 1, 2, 3, 4]),
])  # fmt: skip
def test_streaming_checkpoints(checkpoint, tmp_path, kind, to, window, durations):
    """`export` compares each step with NeMo's: frames, caches and tokens."""
    result = export(checkpoint(kind), tmp_path / "out", to, streaming=True)
    assert result.tokens > 0 and result.encoder_difference < 1e-4
    assert list(result.bundle.spec.durations) == durations and result.bundle.features.normalize is None
    model = tdt.load_model(tmp_path / "out")
    caches = model.encoder.caches
    assert (caches.window, caches.shift) == window and caches.takes_batches
    assert caches.languages == ({"en-US": 0, "de-DE": 3, "ja-JP": 5, "auto": 7} if "3.5" in kind else {})
    usable = {use.system for use in inspect(tmp_path / "out").uses if use.usable}
    assert usable == {"tdtdecode"} | {"split": {"sherpa-onnx"}, "genai": {"onnxruntime-genai"}}.get(to, set()) - (
        {"sherpa-onnx"} if durations else set())  # fmt: skip
    samples = next(iter(demo.recordings().values()))[0]
    stream = model.stream()
    stream.feed(samples)
    assert stream.finish().text == model.recognize((samples, 16_000)).text


@pytest.mark.parametrize("context", [(70, 6), [70, 0]])
def test_a_context_is_chosen(checkpoint, tmp_path, context):
    export(checkpoint("nemotron-streaming"), tmp_path / "out", streaming=True, context=context)
    caches = tdt.load_model(tmp_path / "out").encoder.caches
    assert caches.chunk == context[1] + 1 and caches.caches[0].shape[1] == context[0]


@pytest.mark.parametrize(("kind", "options", "message"), [
    ("nemotron-streaming", {"context": (70, 5)}, "context 70,5: the checkpoint was trained with 70,13, 70,6, 70,1"),
    ("0.6b-v2", {}, "not trained for streaming: its attention sees the whole recording.* Export it whole"),
])  # fmt: skip
def test_what_cannot_be_streamed(checkpoint, tmp_path, kind, options, message):
    with pytest.raises(InputError, match=message):
        export(checkpoint(kind), tmp_path / "out", streaming=True, **options)
    assert not (tmp_path / "out").exists()


def test_a_prompt_is_exported_with_caches_only(checkpoint, tmp_path):
    with pytest.raises(InputError, match="--streaming"):
        export(checkpoint("nemotron-3.5-streaming"), tmp_path / "out")


def test_a_wrong_prompt_is_found(checkpoint, tmp_path, monkeypatch):
    from tdtdecode.prepare import nemo_export

    write = nemo_export.write_prompt

    def of_other_languages(model, file):
        model.prompt_kernel[0].weight.data[:, -8:] += 0.3
        write(model, file)
        model.prompt_kernel[0].weight.data[:, -8:] -= 0.3

    monkeypatch.setattr(nemo_export, "write_prompt", of_other_languages)
    with pytest.raises(tdt.BundleError, match="encoder output differs from NeMo's"):
        export(checkpoint("nemotron-3.5-streaming"), tmp_path / "out", streaming=True)


def test_streaming_tdt_is_not_for_genai(checkpoint, tmp_path):
    with pytest.raises(tdt.BundleError, match="streaming models .nemotron_speech. are RNN-T"):
        export(checkpoint("tdt-streaming"), tmp_path / "out", "genai", streaming=True)


def test_the_command_streams(checkpoint, tmp_path, capsys):
    options = ["--streaming", "--context", "70,1", "-o", str(tmp_path / "out"), "--to", "split"]
    assert main(["export", str(checkpoint("hybrid-streaming")), *options]) == 0
    assert "checked against NeMo: the same" in capsys.readouterr().out
    assert tdt.load_model(tmp_path / "out").encoder.caches.chunk == 2


@pytest.mark.parametrize(("options", "message"), [
    ({"context": (70, 6)}, "only a streaming export has one"),
    ({"streaming": True, "context": 70}, "context must be"),
    ({"streaming": True, "context": (70,)}, "context must be two numbers"),
    ({"streaming": True, "context": (70, -1)}, "context"),
    ({"streaming": "yes"}, "streaming must be"),
])  # fmt: skip
def test_wrong_options_of_streaming(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        export(tmp_path / "model.nemo", tmp_path / "out", **options)
