"""Streaming models are inspected, repaired and converted between the conventions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

import tdtdecode as tdt
from tdtdecode import BundleError, InputError, load_model
from tdtdecode.cli import main
from tdtdecode.prepare import convert, inspect, optimize, repair
from tests.bundle.helpers import configure
from tests.conventions import (
    GOLDEN,
    LAYERS_FIRST,
    TIME_FIRST,
    edited,
    fixed,
    for_one_stream,
    metadata,
    rename,
    together,
    uncounted,
    without_metadata,
)
from tests.speech.test_cache_aware import GENAI, PARAKEET_RS, check, sizes

LANGUAGES = ("prompt_dictionary", "auto_prompt_id")
GIVEN = {
    "sherpa-onnx": lambda: metadata(),
    "NeMo's export": lambda: without_metadata(*LANGUAGES),
    "parakeet-rs": lambda: together(without_metadata(*LANGUAGES), LAYERS_FIRST, rename(PARAKEET_RS)),
    "time first": lambda: together(without_metadata(*LANGUAGES), TIME_FIRST, rename(GENAI)),
}  # fmt: skip


def facts(directory) -> dict:
    return {fact.name: fact.value for fact in inspect(directory).facts}


def usable(directory) -> set[str]:
    return {use.system for use in inspect(directory).uses if use.usable}


@pytest.mark.parametrize("given", GIVEN)
def test_inspect_names_what_it_is(tmp_path, given):
    directory = edited(tmp_path / "model", "rnnt-8-1", GIVEN[given]())
    inspection = inspect(directory)
    assert inspection.ok, inspection.problems
    found = {fact.name: fact.value for fact in inspection.facts}
    prefix = "cache_last_channel float32 [3, 8, 24]", "cache_last_time float32 [3, 24, 8]"
    assert found["encoder for"] == "cache-aware streaming"
    assert found["window"] == "25 feature frames, 16 of them new"
    assert (found["latency, seconds"], found["look-ahead, seconds"]) == (0.16, 0.08)
    assert found["caches of a stream"] == list(prefix) and found["bytes of a stream's caches"] == 4 * 2 * 576 + 8
    assert (found["mel bins"], found["time axis"]) == (128, "dynamic")
    assert found["normalisation"] is None and found["subsampling factor"] == 8
    (caches,) = [fact for fact in inspection.facts if fact.name == "caches of a stream"]
    assert caches.field == f"inputs, the {'layers' if given == 'parakeet-rs' else 'streams'} first"


def test_inspect_names_languages(tmp_path, capsys):
    directory = edited(tmp_path / "model", "prompt-70-13")
    assert facts(directory)["languages"] == ["auto", "en-US", "ja-JP"]
    assert facts(directory)["language if none is told"] == "auto"
    assert facts(directory)["latency, seconds"] == 1.12
    assert main(["inspect", str(directory)]) == 0
    out = capsys.readouterr().out
    assert "cache-aware streaming, with language prompt" in out and "121 feature frames, 112 of them new" in out


@pytest.mark.parametrize(("entries", "codes"), [
    ({"window_size": "65", "chunk_shift": "56"}, ["windows", "windows"]),
    ({"chunk_size_output_frames": "7", "pre_encode_cache": "5"}, ["windows", "windows"]),
    ({"cache_last_channel_dim2": "70", "cache_last_time_dim3": "4"}, ["caches", "caches"]),
    ({"subsampling_factor": "4"}, ["subsampling"]),
    ({"chunk_size_ms": "160", "version": "2"}, []),
])  # fmt: skip
def test_what_contradicts_the_graph_is_a_problem_and_mended(tmp_path, entries, codes):
    directory = edited(tmp_path / "model", "rnnt-8-1", metadata(**entries))
    inspection = inspect(directory)
    assert [problem.code for problem in inspection.problems] == codes
    assert all("repair" in problem.remedy for problem in inspection.problems)
    # The names of parakeet-rs count only where those of sherpa-onnx are missing.
    readable = not codes or "chunk_size_output_frames" in entries
    assert readable == any(use.usable for use in inspection.uses if use.system == "tdtdecode")
    result = repair(directory, tmp_path / "mended")
    assert not result.problems and len(result.changes) >= len(codes)
    assert usable(tmp_path / "mended") == {"tdtdecode", "sherpa-onnx"}
    check(load_model(tmp_path / "mended"), "rnnt-8-1")


@pytest.mark.parametrize("name", ["rnnt-70-6", "tdt-4-0"])
def test_repair_writes_the_metadata_that_a_plain_export_lacks(tmp_path, name):
    directory = edited(tmp_path / "model", name, without_metadata(*LANGUAGES))
    assert usable(directory) == {"tdtdecode"}
    result = repair(directory, tmp_path / "mended")
    assert not result.problems
    graph = onnx.load(tmp_path / "mended" / "encoder.onnx")
    found = {entry.key: entry.value for entry in graph.metadata_props}
    expected = {entry.key: entry.value for entry in onnx.load(GOLDEN / name / "encoder.onnx").metadata_props}
    for entry in ("window_size", "chunk_shift", "chunk_size_ms", "vocab_size", "pred_hidden", "pred_rnn_layers",
                  "feat_dim", "subsampling_factor"):  # fmt: skip
        assert found[entry] == expected[entry]
    caches = {name: value for name, value in expected.items() if name.startswith("cache_")}
    assert len(caches) == 6 and found.items() >= caches.items()
    assert found["normalize_type"] == "NA"
    assert usable(tmp_path / "mended") == {"tdtdecode"} | (set() if name.startswith("tdt") else {"sherpa-onnx"})
    check(load_model(tmp_path / "mended"), name)


def test_windows_that_nothing_says_are_asked_for(tmp_path, capsys):
    """And never guessed; what is told may not contradict the graph."""
    directory = edited(tmp_path / "model", "rnnt-8-1", uncounted, metadata(window_size=None, chunk_shift=None))
    (problem,) = inspect(directory).problems
    assert problem.code == "windows-unknown" and "--window" in problem.remedy
    assert [problem.code for problem in repair(directory, tmp_path / "unmended").problems] == ["windows-unknown"]
    assert main(["repair", str(directory), "-o", str(tmp_path / "mended"), "--window", "25,16"]) == 0
    assert "metadata window_size: nothing -> 25  (as given)" in capsys.readouterr().out
    check(load_model(tmp_path / "mended"), "rnnt-8-1")
    sound = edited(tmp_path / "sound", "rnnt-8-1")
    with pytest.raises(InputError, match="made for windows of 25 feature frames that move on by 16"):
        repair(sound, tmp_path / "wrong", windows=(65, 56))
    assert not (tmp_path / "wrong").exists()
    assert not repair(sound, tmp_path / "right", windows=(25, 16)).problems


@pytest.mark.parametrize(("windows", "message"), [
    (25, "windows must be"), ((25,), "windows must be"), ((16, 25), "skips some frames"), ((0, 0), r"windows\[0\]"),
])  # fmt: skip
def test_wrong_windows(tmp_path, windows, message):
    with pytest.raises(InputError, match=message):
        repair(edited(tmp_path / "model", "rnnt-8-1"), tmp_path / "out", windows=windows)


def test_windows_of_whole_recordings_do_not_exist(tmp_path):
    with pytest.raises(InputError, match="only a cache-aware encoder has some"):
        repair(tdt.speech.hub.demo_directory(), tmp_path / "out", windows=(25, 16))


@pytest.mark.parametrize("name", ["rnnt-8-1"])
def test_combined_directories_of_nemo_alone(tmp_path, name):
    """Their config.json may state windows; what is wrong there is mended."""
    given = edited(tmp_path / "given", name)
    convert(given, tmp_path / "combined", "combined")
    file = tmp_path / "combined" / "config.json"
    configure(file, lambda data: data.update(window_size=7, chunk_shift=3))
    assert {problem.code for problem in inspect(tmp_path / "combined").problems} == {"windows"}
    repair(tmp_path / "combined", tmp_path / "mended")
    data = json.loads((tmp_path / "mended" / "config.json").read_text())
    assert (data["window_size"], data["chunk_shift"]) == (sizes(name)["window_size"], sizes(name)["chunk_shift"])
    check(load_model(tmp_path / "mended"), name)


def test_config_json_states_windows_that_the_graph_does_not(tmp_path):
    convert(edited(tmp_path / "given", "rnnt-8-1"), tmp_path / "model", "combined")
    graph = onnx.load(tmp_path / "model" / "encoder-model.onnx")
    uncounted(graph)
    without_metadata("cache_last_channel_dim2")(graph)
    onnx.save(graph, tmp_path / "model" / "encoder-model.onnx")
    with pytest.raises(BundleError, match="--window 65,56"):
        load_model(tmp_path / "model")
    configure(tmp_path / "model" / "config.json", lambda data: data.update(window_size=25, chunk_shift=16))
    check(load_model(tmp_path / "model"), "rnnt-8-1")


@pytest.mark.parametrize(("name", "given"), [
    ("rnnt-8-1", "parakeet-rs"), ("rnnt-70-6", "NeMo's export"), ("prompt-70-13", "time first"),
])  # fmt: skip
def test_conversions(tmp_path, name, given):
    """From each convention into each layout: NeMo's tokens, settings that say all, and no operator more in the end."""
    directory = edited(tmp_path / "given", name, GIVEN[given]())
    convert(directory, tmp_path / "combined", "combined")
    convert(tmp_path / "combined", tmp_path / "genai", "genai")
    convert(tmp_path / "genai", tmp_path / "split", "split")
    for layout, system in (("combined", None), ("genai", "onnxruntime-genai"), ("split", "sherpa-onnx")):
        made = tmp_path / layout
        assert not inspect(made).problems
        assert usable(made) == {"tdtdecode"} | ({system} if system else set())
        check(load_model(made), name)
        graph = onnx.load(next(made.glob("encoder*.onnx")))
        entries = {entry.key: entry.value for entry in graph.metadata_props}
        assert entries["window_size"] == str(sizes(name)["window_size"])
        assert {value.name for value in graph.graph.input} >= {"audio_signal", "length", "cache_last_channel"}
    back = onnx.load(tmp_path / "split" / "encoder.onnx")
    assert len(back.graph.node) <= len(onnx.load(directory / "encoder.onnx").graph.node)
    one, other = (
        {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
        for graph in (back, onnx.load(directory / "encoder.onnx"))
    )
    assert one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_a_batch_of_one_stays_one(tmp_path):
    """Where the file fixes it, a conversion cannot know whether the graph allows more."""
    directory = edited(tmp_path / "given", "rnnt-8-1", fixed({"*": {0: 1}}))
    convert(directory, tmp_path / "genai", "genai")
    check(load_model(tmp_path / "genai"), "rnnt-8-1")


def test_repair_opens_a_batch_of_one_where_the_graph_allows(tmp_path):
    directory = edited(tmp_path / "model", "rnnt-8-1", fixed({"*": {0: 1}}))
    assert any("a batch of one is fixed in encoder.onnx" in note for note in inspect(directory).notes)
    repair(directory, tmp_path / "mended")
    graph = onnx.load(tmp_path / "mended" / "encoder.onnx").graph
    assert {value.type.tensor_type.shape.dim[0].dim_param for value in (*graph.input, *graph.output)} == {"batch"}
    check(load_model(tmp_path / "mended"), "rnnt-8-1")
    alone = edited(tmp_path / "alone", "rnnt-8-1", for_one_stream)
    assert not any(change.file == "encoder.onnx" for change in repair(alone, tmp_path / "as-it-is").changes)


def test_weights_in_files_of_their_own(tmp_path):
    directory = edited(tmp_path / "model", "rnnt-8-1", fixed({"*": {0: 1}}))
    model = onnx.load(directory / "encoder.onnx")
    onnx.save(model, directory / "encoder.onnx", save_as_external_data=True, location="weights", size_threshold=100)
    assert (directory / "weights").stat().st_size > 100_000
    loaded = load_model(directory)
    assert loaded.encoder.takes_batches
    check(loaded, "rnnt-8-1")
    convert(directory, tmp_path / "genai", "genai")
    assert (tmp_path / "genai" / "encoder.onnx.data").exists()
    check(load_model(tmp_path / "genai"), "rnnt-8-1")
    repair(directory, tmp_path / "mended")
    check(load_model(tmp_path / "mended"), "rnnt-8-1")


def test_streaming_tdt_is_for_this_package_alone(tmp_path):
    directory = edited(tmp_path / "given", "tdt-4-0")
    convert(directory, tmp_path / "combined", "combined")
    check(load_model(tmp_path / "combined"), "tdt-4-0")
    with pytest.raises(BundleError, match="streaming models .nemotron_speech. are RNN-T"):
        convert(directory, tmp_path / "genai", "genai")
    assert usable(directory) == {"tdtdecode"}


@pytest.mark.parametrize("name", ["rnnt-8-1", "prompt-70-13"])
def test_genai_settings_are_completed(tmp_path, name):
    convert(edited(tmp_path / "given", name), tmp_path / "genai", "genai")

    def take(data):
        for taken in ("left_context", "chunk_samples", "encoder", "decoder", "max_symbols_per_step"):
            if isinstance(data["model"][taken], dict):
                data["model"][taken] = {"filename": data["model"][taken]["filename"]}
            else:
                del data["model"][taken]

    configure(tmp_path / "genai" / "genai_config.json", take)
    assert usable(tmp_path / "genai") == {"tdtdecode"}
    assert not repair(tmp_path / "genai", tmp_path / "mended").problems
    assert usable(tmp_path / "mended") == {"tdtdecode", "onnxruntime-genai"}
    check(load_model(tmp_path / "mended"), name)


def test_wrong_genai_settings_are_mended(tmp_path):
    convert(edited(tmp_path / "given", "rnnt-8-1"), tmp_path / "genai", "genai")
    wrong = {"left_context": 4, "conv_context": 3, "pre_encode_cache_size": 5, "chunk_samples": 1280,
             "subsampling_factor": 4}  # fmt: skip
    configure(tmp_path / "genai" / "genai_config.json", lambda data: data["model"].update(wrong))
    problems = inspect(tmp_path / "genai").problems
    assert [problem.field for problem in problems] == [f"model.{name}" for name in wrong]
    assert [problem.code for problem in problems] == ["caches", "caches", "windows", "windows", "subsampling"]
    assert not repair(tmp_path / "genai", tmp_path / "mended").problems
    check(load_model(tmp_path / "mended"), "rnnt-8-1")


def test_the_licence_goes_along(tmp_path):
    directory = edited(tmp_path / "given", "rnnt-8-1")
    shutil.copy(GOLDEN / "README.md", directory / "LICENSE")
    convert(directory, tmp_path / "genai", "genai")
    assert (tmp_path / "genai" / "LICENSE").exists()


def parakeet_rs(directory: Path, name: str, vocabulary: str) -> Path:
    """A directory as that package reads it: its names of files and ports, layers first, and a config.json that errs."""
    edited(directory, name, GIVEN["parakeet-rs"]())
    for file in ("decoder.onnx", "joiner.onnx"):
        (directory / file).unlink()
    shutil.copy(GOLDEN / name / "decoder_joint-model.onnx", directory / "decoder_joint.onnx")
    (directory / "config.json").write_text(json.dumps({"normalize": "per_feature", "sample_rate": 16000}))
    tokens = directory / "tokens.txt"
    if vocabulary == "tokenizer.model":
        protos = pytest.importorskip("sentencepiece.sentencepiece_model_pb2", reason="sentencepiece is not installed")
        model = protos.ModelProto()
        for i, line in enumerate(tokens.read_text().splitlines()[:-1]):
            piece = line.rsplit(" ", 1)[0]
            model.pieces.add(piece=piece, score=-float(i), type=protos.ModelProto.SentencePiece.UNKNOWN if not i else 1)
        (directory / vocabulary).write_bytes(model.SerializeToString())
        tokens.unlink()
    else:
        tokens.rename(directory / vocabulary)
    return directory


@pytest.mark.parametrize("vocabulary", ["tokenizer.model", "vocab.txt"])
def test_directories_of_parakeet_rs(tmp_path, vocabulary):
    directory = parakeet_rs(tmp_path / "model", "rnnt-8-1", vocabulary)
    model = load_model(directory)
    check(model, "rnnt-8-1")
    assert (model.bundle.layout, model.bundle.features.normalize) == ("combined", None)
    assert model.bundle.vocabulary.pieces == load_model(GOLDEN / "rnnt-8-1", layout="split").bundle.vocabulary.pieces
    inspection = inspect(directory)
    assert not inspection.problems and usable(directory) == {"tdtdecode"}
    convert(directory, tmp_path / "split", "split")
    assert usable(tmp_path / "split") == {"tdtdecode", "sherpa-onnx"}
    check(load_model(tmp_path / "split"), "rnnt-8-1")
    result = repair(directory, tmp_path / "mended")
    assert not result.problems and (tmp_path / "mended" / "encoder.onnx").exists()
    check(load_model(tmp_path / "mended"), "rnnt-8-1")


@pytest.mark.parametrize(("to", "error"), [("fp16", 0.005), ("int8", 0.1), ("int4", 0.3)])
def test_smaller_encoders(tmp_path, to, error):
    """Streams go on with them. Frames differ little; such small random models make other tokens of that."""
    pytest.importorskip("onnx_ir", reason="onnx-ir is not installed")
    made = optimize(edited(tmp_path / "given", "rnnt-70-6"), tmp_path / "made", to)
    assert made.bundle.cache_aware and not inspect(tmp_path / "made").problems
    assert usable(tmp_path / "made") == {"tdtdecode", "sherpa-onnx"}
    model = load_model(tmp_path / "made")
    assert model.encoder.takes_batches == (to != "int8")
    with np.load(GOLDEN / "rnnt-70-6" / "features.npz") as given, np.load(
        GOLDEN / "rnnt-70-6" / "encoder_out.npz"
    ) as wanted:
        features, expected = given["features_1"], wanted["padded_1"]
    pool = model.streams()
    pool.feed_features({i: features[:, : 300 + i] for i in range(3)})
    alone = model.stream()
    alone.feed_features(features[:, :302])
    assert pool.finish()[2].hypothesis.tokens.tolist() == alone.finish().hypothesis.tokens.tolist()
    (found,), _ = model.encoder(features[None], np.array([features.shape[1]]))
    difference = np.abs(found[:, : expected.shape[1]] - expected)
    assert np.sqrt(np.mean(difference**2)) < error * expected.std()


def test_attention_with_caches_cannot_be_fused(tmp_path):
    with pytest.raises(BundleError, match="is cache-aware, and ONNX Runtime knows no fused attention"):
        optimize(edited(tmp_path / "given", "rnnt-8-1"), tmp_path / "made", "fused")
    assert not (tmp_path / "made").exists()
