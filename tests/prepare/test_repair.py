"""Mending model directories: what can be known is mended and said, the rest is left and said."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import onnx
import pytest
from onnx import helper

import tdtdecode as tdt
from benches.random_bundle import LAYOUTS
from tdtdecode.bundle import read_bundle
from tdtdecode.cli import main
from tdtdecode.prepare.inspection import inspect
from tdtdecode.prepare.repairing import repair
from tests import demo, peers
from tests.bundle.helpers import TOKEN_FORMS, configure, edit, rewrite, set_metadata, small_bundle


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def mended(directory, tmp_path, **options):
    """The repaired copy of a directory, which is as good as it gets; the original is as it was."""
    before = contents(directory)
    result = repair(directory, tmp_path / "mended", **options)
    assert contents(directory) == before
    assert not result.problems, result.problems
    assert inspect(result.directory).ok
    return result


def fields(result):
    return {(change.file, change.field) for change in result.changes}


def decoded(directory, **options):
    decoder = tdt.Decoder.from_bundle(directory, **options)
    frames = np.random.default_rng(0).standard_normal((2, decoder.spec.encoder_size, 40)).astype(np.float32)
    return [h.tokens.tolist() for h in decoder.decode(frames)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_to_mend(whole_bundle, tmp_path, layout):
    directory = whole_bundle(layout)
    result = mended(directory, tmp_path)
    assert result.changes == ()
    assert contents(tmp_path / "mended") == contents(directory)


def test_everything_at_once(whole_bundle, tmp_path):
    directory = whole_bundle("split")
    expected = decoded(directory)
    set_metadata(
        directory / "encoder.onnx", vocab_size="13", feat_dim="128", url="https://example.org/a", pred_hidden="640",
        pred_rnn_layers="1", normalize_type=None,
    )  # fmt: skip
    rewrite(directory / "tokens.txt", lambda lines: lines[:-1])
    result = mended(directory, tmp_path)
    assert fields(result) == {("tokens.txt", ""), *(
        ("encoder.onnx", f"metadata {name}")
        for name in ("vocab_size", "feat_dim", "url", "pred_hidden", "pred_rnn_layers", "normalize_type")
    )}  # fmt: skip
    metadata = {e.key: e.value for e in onnx.load(tmp_path / "mended" / "encoder.onnx").metadata_props}
    assert metadata["url"] == "https://example.org/a (tdt)" and metadata["vocab_size"] == "12"
    assert (metadata["pred_hidden"], metadata["pred_rnn_layers"], metadata["feat_dim"]) == ("8", "2", "80")
    assert decoded(tmp_path / "mended") == expected
    assert next(use for use in inspect(tmp_path / "mended").uses if use.system == "sherpa-onnx").usable


def test_relative_paths(whole_bundle, monkeypatch):
    directory = whole_bundle("split")
    set_metadata(directory / "encoder.onnx", vocab_size="13")
    monkeypatch.chdir(directory.parent)
    assert fields(repair("bundle", "mended")) == {("encoder.onnx", "metadata vocab_size")}
    assert inspect("mended").ok
    repair("bundle", None)
    assert inspect("bundle").ok


def test_sherpa_onnx_takes_a_demo_without_metadata(tmp_path):
    """Everything that sherpa-onnx needs is written, where nothing was."""
    directory = demo.write_demo(tmp_path / "demo", "split")
    expected = peers.sherpa_onnx_texts(directory)
    edit(directory / "encoder.onnx", lambda model: model.ClearField("metadata_props"))
    (directory / "tokens.txt").rename(directory / "vocab.txt")
    mended(directory, tmp_path)
    assert peers.sherpa_onnx_texts(tmp_path / "mended") == expected


@pytest.mark.parametrize("form", TOKEN_FORMS)
def test_token_files_in_every_form(whole_bundle, tmp_path, form):
    directory = whole_bundle("split")
    right = (directory / "tokens.txt").read_text()
    rewrite(directory / "tokens.txt", TOKEN_FORMS[form][0])
    result = mended(directory, tmp_path)
    assert fields(result) == {("tokens.txt", "")}
    assert (tmp_path / "mended" / "tokens.txt").read_text() == right


@pytest.mark.parametrize("change", [
    lambda lines: lines[:-1],
    lambda lines: [lines[-1], *lines[:-1]],
    lambda lines: [f"{x.rsplit(' ', 1)[0]} {i}" for i, x in enumerate(lines, 1)],
    lambda lines: [*lines[:6], *(f"{x.rsplit(' ', 1)[0]} {i}" for i, x in enumerate(lines[6:], 7))],
], ids=["no blank", "order", "from one", "gap"])  # fmt: skip
def test_ids_and_blank(whole_bundle, tmp_path, change):
    directory = whole_bundle("split")
    right = (directory / "tokens.txt").read_text()
    rewrite(directory / "tokens.txt", change)
    mended(directory, tmp_path)
    assert (tmp_path / "mended" / "tokens.txt").read_text() == right


def pieces_of(directory):
    return list(read_bundle(directory).vocabulary.pieces)[:-1]


@pytest.mark.parametrize(("name", "write"), [
    ("vocab.txt", lambda pieces: "".join(f"{p} {i}\n" for i, p in enumerate(pieces)) + f"<blk> {len(pieces)}\n"),
    ("vocab.txt", lambda pieces: "".join(f"{p}\n" for p in pieces)),
    ("vocab.json", lambda pieces: json.dumps({p: i for i, p in enumerate(pieces)})),
    ("vocab.json", json.dumps),
    ("tokenizer.json", lambda pieces: json.dumps({"model": {"vocab": [[p, -1.0] for p in pieces]}})),
    ("tokenizer.json", lambda pieces: json.dumps({
        "model": {"vocab": {p: i for i, p in enumerate(pieces)}},
        "added_tokens": [{"id": len(pieces), "content": "<blank>"}]})),
    ("tokenizer.vocab", lambda pieces: "".join(f"{p}\t-{i}.5\n" for i, p in enumerate(pieces))),
])  # fmt: skip
def test_tokens_from_another_file(whole_bundle, tmp_path, name, write):
    directory = whole_bundle("split")
    pieces, right = pieces_of(directory), (directory / "tokens.txt").read_text()
    (directory / "tokens.txt").unlink()
    (directory / name).write_text(write(pieces), encoding="utf-8")
    result = mended(directory, tmp_path)
    assert [(c.file, c.before, c.why) for c in result.changes][0][2] == f"the pieces in {name}"
    assert (tmp_path / "mended" / "tokens.txt").read_text().replace("<blank>", "<blk>") == right


def test_tokens_from_a_sentencepiece_model(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed (it comes with NeMo)")
    text = tmp_path / "text"
    text.write_text("\n".join(f"turn the {c}{d} lights on" for c in "abcdefghij" for d in "klmnop"))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(tmp_path / "tokenizer"), vocab_size=30, bos_id=-1, eos_id=-1,
    )  # fmt: skip
    directory = small_bundle(tmp_path / "bundle", "split", vocab_size=30, mel_bins=80)
    (directory / "tokens.txt").unlink()
    shutil.copy(tmp_path / "tokenizer.model", directory)
    mended(directory, tmp_path)
    processor = sentencepiece.SentencePieceProcessor(str(tmp_path / "tokenizer.model"))
    assert pieces_of(tmp_path / "mended") == [processor.IdToPiece(i) for i in range(30)]


def test_tokens_of_another_model_are_left(whole_bundle, tmp_path):
    directory = whole_bundle("split")
    (directory / "tokens.txt").write_text("".join(f"p{i} {i}\n" for i in range(20)) + "<blk> 20\n")
    result = repair(directory, tmp_path / "mended")
    assert [problem.code for problem in result.problems] == ["tokens-count"]
    assert result.changes == ()


def test_genai_vocabulary(whole_bundle, tmp_path):
    directory = whole_bundle("genai")
    right = pieces_of(directory)
    (directory / "vocab.json").write_text(json.dumps(right))
    for name in ("vocab.txt", "tokenizer.json"):
        (directory / name).unlink()
    mended(directory, tmp_path)
    assert pieces_of(tmp_path / "mended") == right


def test_genai_s_unknown_piece(whole_bundle, tmp_path):
    """onnxruntime-genai demands one, and export scripts write none."""
    directory = whole_bundle("genai")
    configure(directory / "tokenizer.json", lambda data: data["model"].update(unk_id=None))
    assert not next(use for use in inspect(directory).uses if use.system == "onnxruntime-genai").usable
    mended(directory, tmp_path)
    assert next(use for use in inspect(tmp_path / "mended").uses if use.system == "onnxruntime-genai").usable
    assert pieces_of(tmp_path / "mended") == pieces_of(directory)


def test_genai_vocabulary_with_blank_first(tmp_path):
    directory = small_bundle(tmp_path / "bundle", "genai", mel_bins=80, blank="first")
    right = list(read_bundle(directory).vocabulary.pieces)
    (directory / "vocab.json").write_text(json.dumps(right))
    for name in ("vocab.txt", "tokenizer.json"):
        (directory / name).unlink()
    mended(directory, tmp_path)
    assert list(read_bundle(tmp_path / "mended").vocabulary.pieces) == right


def test_batch_axes(tmp_path):
    """As NeMo exports them for sherpa-onnx: the batch of the second state is fixed."""
    directory = small_bundle(tmp_path / "bundle", "split", mel_bins=80)
    assert any("a batch of one" in note for note in inspect(directory).notes)
    result = mended(directory, tmp_path)
    assert ("decoder.onnx", "onnx::Slice_3") in fields(result)
    shapes = {p.name: [d.dim_value for d in p.type.tensor_type.shape.dim]
              for p in onnx.load(tmp_path / "mended" / "decoder.onnx").graph.input}  # fmt: skip
    assert shapes["onnx::Slice_3"] == [2, 0, 8]
    assert not any("a batch of one" in note for note in inspect(tmp_path / "mended").notes)
    assert decoded(directory) == decoded(tmp_path / "mended")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_external_weights_stay(whole_bundle, tmp_path, layout):
    directory = whole_bundle(layout, external_weights=True)
    set_metadata(directory / next(directory.glob("encoder*.onnx")).name, vocab_size="99")
    mended(directory, tmp_path)
    assert {path.name for path in directory.iterdir()} == {path.name for path in (tmp_path / "mended").iterdir()}
    assert decoded(directory.with_name("other")) == decoded(tmp_path / "mended")


def test_external_weights_that_were_renamed(whole_bundle, tmp_path):
    directory = whole_bundle("split", external_weights=True)
    (directory / "encoder.onnx.data").rename(directory / "weights.bin")
    result = mended(directory, tmp_path)
    assert [(c.before, c.after) for c in result.changes] == [("encoder.onnx.data", "weights.bin")]


def test_a_misnamed_encoder(whole_bundle, tmp_path):
    directory = whole_bundle("split")
    (directory / "encoder.onnx").rename(directory / "encoder-model.onnx")
    result = mended(directory, tmp_path)
    assert ("encoder-model.onnx", "") in fields(result)
    assert not (tmp_path / "mended" / "encoder-model.onnx").exists()


def test_config_json(whole_bundle, tmp_path):
    directory = whole_bundle("combined")
    right = json.loads((directory / "config.json").read_text())
    configure(directory / "config.json", lambda data: data.update(
        features_size=128, vocab_size=9953, model_type="nemo-conformer-rnnt", mine=1))  # fmt: skip
    mended(directory, tmp_path)
    assert json.loads((tmp_path / "mended" / "config.json").read_text()) == right | {"vocab_size": 12, "mine": 1}


def test_no_config_json(whole_bundle, tmp_path):
    directory = whole_bundle("combined")
    (directory / "config.json").unlink()
    mended(directory, tmp_path)
    data = json.loads((tmp_path / "mended" / "config.json").read_text())
    assert data == {"features_size": 80, "model_type": "nemo-conformer-tdt"}


def test_genai_configuration(whole_bundle, tmp_path):
    directory = whole_bundle("genai")
    right = json.loads((directory / "genai_config.json").read_text())

    def spoil(data):
        model = data["model"]
        model.update(vocab_size=12, blank_id=99, num_mels=128, eos_token_id=[3])
        for name in ("tdt_durations", "context_length", "preemph"):
            del model[name]
        del model["decoder"]["inputs"]
        model["mine"] = 1

    configure(directory / "genai_config.json", spoil)
    audio = directory / "audio_processor_config.json"
    configure(audio, lambda data: data.update(mine=2, audio_params=data["audio_params"] | {"n_mels": 128}))
    mended(directory, tmp_path)
    found = json.loads((tmp_path / "mended" / "genai_config.json").read_text())
    assert found["model"].pop("mine") == 1
    found_audio = json.loads((tmp_path / "mended" / "audio_processor_config.json").read_text())
    assert found_audio["mine"] == 2 and found_audio["audio_params"]["n_mels"] == 80
    assert found == right


def test_an_old_genai_draft_becomes_usable(tmp_path):
    """Without names of ports, windows or features: they are taken from the graphs and from NeMo."""
    directory = small_bundle(tmp_path / "bundle", "genai", mel_bins=80)
    mended(directory, tmp_path)
    use = next(use for use in inspect(tmp_path / "mended").uses if use.system == "onnxruntime-genai")
    assert use.usable, use.reasons


def test_durations_as_given(whole_bundle, tmp_path):
    directory = whole_bundle("genai")
    set_metadata(directory / "encoder.onnx", tdt_durations=None)
    configure(directory / "genai_config.json", lambda data: data["model"].update(tdt_durations=[0, 1, 2, 4, 8]))
    result = repair(directory, tmp_path / "guessed")
    assert [problem.code for problem in result.problems] == ["durations-guessed"]
    mended(directory, tmp_path, durations=(0, 1, 2, 3, 4))
    assert read_bundle(tmp_path / "mended").spec.durations == (0, 1, 2, 3, 4)


def test_what_cannot_be_known_is_left(whole_bundle, tmp_path):
    directory = whole_bundle("split")
    (directory / "joiner.onnx").unlink()
    set_metadata(directory / "encoder.onnx", feat_dim="128")
    result = repair(directory, tmp_path / "mended")
    assert ("encoder.onnx", "metadata feat_dim") in fields(result)
    assert [problem.code for problem in result.problems] == ["missing-graph"]


def test_in_place(whole_bundle):
    directory = whole_bundle("split")
    before = contents(directory)
    set_metadata(directory / "encoder.onnx", feat_dim="128")
    (directory / "encoder.onnx").chmod(0o644)
    result = repair(directory, None)
    assert result.directory == directory and not result.problems
    assert inspect(directory).ok
    assert {name: data for name, data in contents(directory).items() if name != "encoder.onnx"} == {
        name: data for name, data in before.items() if name != "encoder.onnx"}  # fmt: skip
    assert sorted(path.name for path in directory.parent.iterdir()) == ["bundle", "other"]


def test_in_place_without_hard_links(whole_bundle, monkeypatch):
    """Not every disk has them."""
    directory = whole_bundle("split")
    set_metadata(directory / "encoder.onnx", feat_dim="128")

    def refused(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    assert not repair(directory, None).problems
    assert inspect(directory).ok


def test_in_place_on_a_full_disk(whole_bundle, monkeypatch):
    directory = whole_bundle("split")
    set_metadata(directory / "encoder.onnx", feat_dim="128")
    before = contents(directory)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tdtdecode.prepare.repairing._put_back", full)
    with pytest.raises(tdt.InputError, match="No space left"):
        repair(directory, None)
    assert contents(directory) == before
    assert sorted(path.name for path in directory.parent.iterdir()) == ["bundle", "other"]


def test_in_place_never_writes_through_a_link(whole_bundle, tmp_path):
    """A hub's snapshot is links: the blobs they lead to belong to the hub's cache."""
    source = whole_bundle("split")
    set_metadata(source / "encoder.onnx", feat_dim="128")
    repository = tmp_path / "models--a--b"
    (repository / "blobs").mkdir(parents=True)
    snapshot = repository / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    for path in source.iterdir():
        shutil.move(path, repository / "blobs" / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    before = contents(repository / "blobs")
    repair(snapshot, None)
    assert contents(repository / "blobs") == before
    assert inspect(snapshot).ok


def test_links_that_lead_outside_are_left_out(whole_bundle, tmp_path):
    directory = whole_bundle("split")
    (tmp_path / "secret").write_text("secret")
    (directory / "notes.txt").symlink_to(tmp_path / "secret")
    result = repair(directory, tmp_path / "mended")
    assert ("notes.txt", "") in fields(result)
    assert not (tmp_path / "mended" / "notes.txt").exists()


def test_absurd_sizes_are_not_copied(whole_bundle, tmp_path):
    directory = whole_bundle("split")
    with open(directory / "notes.txt", "wb") as file:
        file.truncate(1 << 40)
    result = repair(directory, tmp_path / "mended")
    assert ("notes.txt", "") in fields(result)
    (directory / "notes.txt").rename(directory / "notes.bin")
    with pytest.raises(tdt.InputError, match="are free"):
        repair(directory, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_wrong_arguments(whole_bundle, tmp_path):
    with pytest.raises(tdt.BundleError, match="no model in it"):
        os.mkdir(tmp_path / "empty")
        repair(tmp_path / "empty", tmp_path / "mended")
    directory = whole_bundle("split")
    with pytest.raises(tdt.InputError, match="exists already"):
        repair(directory, directory)


def test_the_command(whole_bundle, tmp_path, capsys):
    directory = whole_bundle("split")
    set_metadata(directory / "encoder.onnx", vocab_size="13")
    assert main(["repair", str(directory), "-o", str(tmp_path / "mended")]) == 0
    out = capsys.readouterr().out
    assert "1 changed" in out and "encoder.onnx, metadata vocab_size: 13 -> 12" in out
    (directory / "tokens.txt").unlink()
    assert main(["repair", str(directory), "--in-place"]) == 1
    assert "left: tokens.txt: no tokens.txt" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["repair", str(directory)])


def test_a_graph_that_cannot_be_a_batch_keeps_its_axis(tmp_path):
    """What rows of a batch would change is not freed."""
    directory = small_bundle(tmp_path / "bundle", "split", mel_bins=80)

    def mix(model):
        node = next(n for n in model.graph.node if n.output[0] == "outputs")
        node.output[0] = "mixed"
        model.graph.node.extend([
            helper.make_node("CumSum", ["mixed", "axis"], ["outputs"]),
        ])  # fmt: skip
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.int64), "axis"))

    edit(directory / "decoder.onnx", mix)
    result = repair(directory, tmp_path / "mended")
    assert not any("batch" in change.before for change in result.changes)
    assert [problem.code for problem in result.problems] == ["unusable"]
