"""Every layout into every other: the same weights, the same tokens, and accepted by the systems they are for."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

import tdtdecode as tdt
from benches.random_bundle import LAYOUTS
from tdtdecode.bundle import read_bundle
from tdtdecode.prepare.conversion import convert
from tdtdecode.speech.audio import FeatureExtractor
from tests import demo, peers
from tests.bundle.helpers import edit, small_bundle
from tests.conftest import GOLDEN

DIRECTIONS = list(itertools.permutations(LAYOUTS, 2))
RATE = 16_000


def graphs(directory: Path) -> dict[str, onnx.ModelProto]:
    return {file.name: onnx.load(file) for file in sorted(directory.glob("*.onnx"))}


def weights(directory: Path) -> Counter:
    """How often each weight is there, by type, shape and bits; those of Constant nodes too, but for the smallest."""
    found: Counter = Counter()
    for model in graphs(directory).values():
        tensors = list(model.graph.initializer)
        tensors += [a.t for n in model.graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"]
        for tensor in tensors:
            array = onnx.numpy_helper.to_array(tensor)
            if array.size > 8:
                found[tensor.data_type, array.shape, hashlib.sha256(array.tobytes()).hexdigest()] += 1
    return found


def operators(model: onnx.ModelProto) -> Counter:
    return Counter(node.op_type for node in model.graph.node)


def decoded(directory: Path, frames: np.ndarray, **options) -> list[list[int]]:
    decoder = tdt.Decoder.from_bundle(directory, network="ort", **options)
    return [[*h.tokens.tolist(), *h.frames.tolist(), *h.durations.tolist()] for h in decoder.decode(frames)]


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """The demo model in each layout."""
    root = tmp_path_factory.mktemp("demos")
    return {layout: demo.write_demo(root / layout, layout) for layout in LAYOUTS}


@pytest.fixture(scope="module")
def converted(demos, tmp_path_factory):
    """The demo model converted in all six directions."""
    root = tmp_path_factory.mktemp("converted")
    for source, target in DIRECTIONS:
        convert(demos[source], root / f"{source}-{target}", target)
    return root


@pytest.mark.parametrize(("source", "target"), DIRECTIONS)
def test_the_demo_says_the_same(converted, demos, source, target):
    recordings = [(samples, RATE) for samples, _ in demo.recordings().values()]
    expected = tdt.load_model("demo", network="ort").recognize(recordings)
    found = tdt.load_model(converted / f"{source}-{target}", network="ort").recognize(recordings)
    for one, other in zip(found, expected, strict=True):
        assert one.text == other.text
        assert one.hypothesis.tokens.tolist() == other.hypothesis.tokens.tolist()
        assert one.hypothesis.frames.tolist() == other.hypothesis.frames.tolist()


@pytest.mark.parametrize(("source", "target"), DIRECTIONS)
def test_weights_keep_their_bits(converted, demos, source, target):
    assert weights(converted / f"{source}-{target}") == weights(demos[source])


@pytest.mark.parametrize("source", ["combined", "genai"])
def test_sherpa_onnx_takes_it(converted, demos, source):
    said = peers.sherpa_onnx_texts(converted / f"{source}-split")
    assert said == peers.sherpa_onnx_texts(demos["split"])
    assert sum(a == b for a, (_, b) in zip(said, demo.recordings().values(), strict=True)) >= 12


@pytest.mark.parametrize("source", ["split", "genai"])
def test_onnx_asr_takes_it(converted, source):
    texts = [text for _, text in demo.recordings().values()]
    said = peers.onnx_asr_texts(converted / f"{source}-combined")
    recordings = [(samples, RATE) for samples, _ in demo.recordings().values()]
    assert said == [out.text for out in tdt.load_model("demo").recognize(recordings)]
    assert sum(a == b for a, b in zip(said, texts, strict=True)) >= 14


@pytest.mark.parametrize("source", ["split", "combined"])
def test_onnxruntime_genai_takes_it(converted, source):
    """Given our features, it finds our tokens; given a file, it computes other features, and its text may differ."""
    genai = pytest.importorskip("onnxruntime_genai", reason="onnxruntime-genai has no wheel for this platform")
    directory = converted / f"{source}-genai"
    model = genai.Model(str(directory))
    processor = model.create_multimodal_processor()
    ours = tdt.load_model(directory)
    extract = FeatureExtractor(ours.bundle.features.mel_bins)
    for samples, _ in demo.recordings().values():
        features, lengths = extract([samples])
        tensors = genai.NamedTensors()
        tensors["audio_features"] = np.ascontiguousarray(features[:, :, : lengths[0]])
        generator = genai.Generator(model, genai.GeneratorParams(model))
        generator.set_inputs(tensors)
        while not generator.is_done():
            generator.generate_next_token()
        out = ours.recognize((samples, RATE))
        assert generator.get_sequence(0).tolist() == out.hypothesis.tokens.tolist()
        assert processor.decode(generator.get_sequence(0)) == out.text


@pytest.mark.parametrize("source", LAYOUTS)
def test_there_and_back_adds_nothing(demos, converted, tmp_path, source):
    for other in set(LAYOUTS) - {source}:
        back = tmp_path / other
        convert(converted / f"{source}-{other}", back, source)
        for name, model in graphs(demos[source]).items():
            there = onnx.load(back / name)
            assert operators(there) == operators(model), name
            assert len(there.graph.input) == len(model.graph.input)
            assert len(there.graph.output) == len(model.graph.output)


def test_nemo_s_own_split_export_comes_out(golden, tmp_path):
    """NeMo's combined export, converted, has the operators and weights that NeMo's split export has."""
    given = golden.directory("combined", tmp_path)
    durations = golden.durations
    if durations != list(range(len(durations))):  # the split layout keeps a table in the encoder, and there is none
        with pytest.raises(tdt.BundleError, match="add the encoder"):
            convert(given, tmp_path / "out", "split", durations=durations)
        durations = list(range(len(durations)))
    convert(given, tmp_path / "out", "split", durations=durations)
    for file in ("decoder.onnx", "joiner.onnx"):
        ours, nemo = onnx.load(tmp_path / "out" / file), onnx.load(GOLDEN / golden.name / file)
        assert operators(ours) == operators(nemo)
        assert sorted(t.raw_data for t in ours.graph.initializer) == sorted(t.raw_data for t in nemo.graph.initializer)
    frames = golden.encoder_out
    assert decoded(tmp_path / "out", frames) == decoded(given, frames, durations=durations)


KINDS = {
    "parakeet's sizes": dict(encoder_size=1024, predictor_size=640, joint_size=640, vocab_size=1024, mel_bins=128),
    "external weights": dict(external_weights=True, mel_bins=80),
    "one layer": dict(predictor_layers=1, mel_bins=80),
    "a joint of the predictor's width": dict(joint_size=8, mel_bins=80),
    "float16": dict(precision="fp16", mel_bins=80),
    "int8": dict(precision="int8", mel_bins=80),
    "other durations": dict(durations=(0, 1, 2, 4, 8), mel_bins=80),
    "tanh, no biases": dict(activation="tanh", biases=False, mel_bins=80),
    "static batch": dict(static_batch=True, mel_bins=80),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("source", "target"), DIRECTIONS)
def test_every_kind_of_model(tmp_path, source, target, kind):
    options = KINDS[kind]
    given = small_bundle(tmp_path / "given", source, **options)
    precision = options.get("precision", "fp32")
    variant = None if precision == "fp32" else precision
    durations = options.get("durations", (0, 1, 2, 3, 4))
    found = convert(given, tmp_path / "out", target, variant=variant, durations=durations)
    assert found.spec.durations == durations and found.layout == target
    assert found.variant == (None if target == "genai" else variant)
    frames = np.random.default_rng(0).standard_normal((3, found.spec.encoder_size, 40)).astype(np.float32)
    expected = decoded(given, frames, variant=variant, durations=durations)
    assert decoded(tmp_path / "out", frames, variant=found.variant) == expected
    assert weights(tmp_path / "out") == weights(given)
    embedded = [
        tensor.name for model in graphs_without_data(tmp_path / "out") for tensor in model.graph.initializer
        if tensor.data_location != tensor.EXTERNAL
    ]
    assert bool(embedded) != options.get("external_weights", False)
    kinds = {
        value.type.tensor_type.elem_type
        for model in graphs_without_data(tmp_path / "out") for value in (*model.graph.input, *model.graph.output)
    }  # fmt: skip
    assert kinds <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT32, onnx.TensorProto.INT64}


def graphs_without_data(directory: Path) -> list[onnx.ModelProto]:
    return [onnx.load(file, load_external_data=False) for file in directory.glob("*.onnx")]


def test_no_durations(tmp_path):
    given = small_bundle(tmp_path / "given", "combined", durations=(), mel_bins=80)
    convert(given, tmp_path / "split", "split")
    metadata = {e.key: e.value for e in onnx.load(tmp_path / "split" / "encoder.onnx").metadata_props}
    assert "tdt" not in metadata["url"]
    with pytest.raises(tdt.BundleError, match="no durations"):
        convert(given, tmp_path / "genai", "genai")
    assert not (tmp_path / "genai").exists()


def test_metadata_are_completed_and_kept(tmp_path):
    given = small_bundle(tmp_path / "given", "combined", mel_bins=80)
    edit(given / "encoder-model.onnx", lambda m: onnx.helper.set_model_props(m, {"url": "a-tdt-model", "mine": "1"}))
    convert(given, tmp_path / "out", "split")
    metadata = {e.key: e.value for e in onnx.load(tmp_path / "out" / "encoder.onnx").metadata_props}
    assert metadata == {
        "url": "a-tdt-model", "mine": "1", "vocab_size": "12", "feat_dim": "80", "normalize_type": "per_feature",
        "pred_rnn_layers": "2", "pred_hidden": "8", "subsampling_factor": "8", "model_type": "EncDecRNNTBPEModel",
        "tdt_durations": "0,1,2,3,4",
    }  # fmt: skip


def test_an_address_that_says_otherwise_is_replaced(tmp_path):
    given = small_bundle(tmp_path / "given", "combined", mel_bins=80)
    edit(given / "encoder-model.onnx", lambda m: onnx.helper.set_model_props(m, {"url": "https://example.org/model"}))
    convert(given, tmp_path / "out", "split")
    metadata = {e.key: e.value for e in onnx.load(tmp_path / "out" / "encoder.onnx").metadata_props}
    assert metadata["url"] == "tdt"


def test_settings_go_round(tmp_path):
    """What one layout has no field for is not lost on the way through it."""
    given = small_bundle(tmp_path / "given", "split", mel_bins=80, durations=(0, 1, 2, 4, 8))
    settings = {"normalize_type": "NA", "subsampling_factor": "4"}
    edit(given / "encoder.onnx", lambda model: onnx.helper.set_model_props(model, settings))
    there = convert(given, tmp_path / "combined", "combined", durations=(0, 1, 2, 4, 8))
    back = convert(tmp_path / "combined", tmp_path / "split", "split")
    assert there.features == back.features == read_bundle(given, durations=(0, 1, 2, 4, 8)).features
    assert back.features.normalize is None and back.features.subsampling_factor == 4
    assert back.spec.durations == (0, 1, 2, 4, 8)
    with pytest.raises(tdt.BundleError, match="not normalised"):
        convert(given, tmp_path / "genai", "genai")


def test_licences_go_along(tmp_path):
    given = small_bundle(tmp_path / "given", "combined", mel_bins=80)
    (given / "README.md").write_text("about")
    (given / "LICENSE").write_text("terms")
    (given / "notes.txt").write_text("not for others")
    convert(given, tmp_path / "out", "split")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "README.md", "LICENSE", "encoder.onnx", "decoder.onnx", "joiner.onnx", "tokens.txt",
    }  # fmt: skip


def test_no_encoder(tmp_path):
    given = small_bundle(tmp_path / "given", "combined")
    assert convert(given, tmp_path / "out", "split").encoder is None
    with pytest.raises(tdt.BundleError, match="has no encoder"):
        convert(given, tmp_path / "genai", "genai")


def test_blank_first(tmp_path):
    given = small_bundle(tmp_path / "given", "genai", mel_bins=80, blank="first")
    assert convert(given, tmp_path / "combined", "combined").spec.blank == 0
    with pytest.raises(tdt.BundleError, match="has its blank at 0 of 13 tokens"):
        convert(given, tmp_path / "split", "split")


def test_what_cannot_be_split(tmp_path):
    """A joint that reads two of the predictor's tensors has no place for a cut."""
    given = small_bundle(tmp_path / "given", "combined", mel_bins=80)

    def entangle(model):
        state = next(n for n in model.graph.node if "output_states_1" in n.output).output[0]
        row = model.graph.node[[list(n.output) for n in model.graph.node].index(["outputs"])]
        row.output[0] = "rows"
        total = onnx.helper.make_node("ReduceSum", [state], ["total"], keepdims=0)
        model.graph.node.extend([total, onnx.helper.make_node("Add", ["rows", "total"], ["outputs"])])

    edit(given / "decoder_joint-model.onnx", entangle)
    with pytest.raises(tdt.BundleError, match="utterances of a batch affect each other|cannot be split into predictor"):
        convert(given, tmp_path / "out", "split")


def test_wrong_arguments(tmp_path):
    given = small_bundle(tmp_path / "given", "combined", mel_bins=80)
    with pytest.raises(tdt.InputError, match="has layout 'combined' already"):
        convert(given, tmp_path / "out", "combined")
    with pytest.raises(tdt.InputError, match="'split', 'combined', 'genai'"):
        convert(given, tmp_path / "out", "nemo")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("kept")
    with pytest.raises(tdt.InputError, match="exists already"):
        convert(given, tmp_path / "full", "split")
    assert (tmp_path / "full" / "mine").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "given"]


def test_an_empty_folder_is_filled(tmp_path):
    given = small_bundle(tmp_path / "given", "combined", mel_bins=80)
    (tmp_path / "out").mkdir()
    convert(given, tmp_path / "out", "split")
    assert (tmp_path / "out" / "joiner.onnx").is_file()


def test_nothing_is_left_of_a_failure(tmp_path, monkeypatch):
    given = small_bundle(tmp_path / "given", "combined", mel_bins=80)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tdtdecode.prepare.writing.split.save_graph", full)
    with pytest.raises(tdt.InputError, match="No space left"):
        convert(given, tmp_path / "out", "split")
    assert [path.name for path in tmp_path.iterdir()] == ["given"]


def test_the_source_stays_as_it_is(tmp_path):
    given = small_bundle(tmp_path / "given", "split", mel_bins=80, external_weights=True)
    before = {file.name: file.read_bytes() for file in given.iterdir()}
    convert(given, tmp_path / "out", "genai")
    assert {file.name: file.read_bytes() for file in given.iterdir()} == before


def test_scattered_weights_are_gathered(tmp_path):
    """NeMo's exporter leaves a file for each weight of a large model; equal places are written once."""
    given = small_bundle(tmp_path / "given", "combined", mel_bins=80)
    model = onnx.load(given / "encoder-model.onnx")
    (given / "weights").mkdir()
    for i, tensor in enumerate(model.graph.initializer):
        (given / "weights" / str(i)).write_bytes(tensor.raw_data)
        onnx.external_data_helper.set_external_data(tensor, f"weights/{i}")
        tensor.ClearField("raw_data")
    onnx.save(model, given / "encoder-model.onnx")
    expected = weights(given)
    convert(given, tmp_path / "out", "split")
    assert weights(tmp_path / "out") == expected
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "decoder.onnx", "encoder.onnx", "encoder.onnx.data", "joiner.onnx", "tokens.txt",
    ]  # fmt: skip


def test_a_hub_snapshot(tmp_path):
    """All links, into the blobs of the same repository."""
    source = small_bundle(tmp_path / "files", "combined", mel_bins=80, external_weights=True)
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    expected = weights(source)
    for number, path in enumerate(sorted(source.iterdir())):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert convert(snapshot, tmp_path / "out", "split").layout == "split"
    assert weights(tmp_path / "out") == expected
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())


def test_different_operator_versions_cannot_be_one_graph(tmp_path):
    given = small_bundle(tmp_path / "given", "split", mel_bins=80)
    edit(given / "joiner.onnx", lambda m: setattr(m.opset_import[0], "version", 16))
    with pytest.raises(tdt.BundleError, match="version 16 of the operators"):
        convert(given, tmp_path / "out", "combined")


def test_hugging_face_reads_the_tokenizer(converted):
    tokenizers = pytest.importorskip("tokenizers", reason="Hugging Face's tokenizers are not installed")
    tokenizer = tokenizers.Tokenizer.from_file(str(converted / "split-genai" / "tokenizer.json"))
    for out in tdt.load_model("demo").recognize([(samples, RATE) for samples, _ in demo.recordings().values()]):
        assert tokenizer.decode(out.hypothesis.tokens.tolist()) == out.text


def test_genai_configuration(converted):
    model = json.loads((converted / "split-genai" / "genai_config.json").read_text())["model"]
    assert model["vocab_size"] == 257 and model["blank_id"] == 256 and model["eos_token_id"] == [256]
    assert model["tdt_durations"] == [0, 1, 2, 3, 4]
    window = model["chunk_samples"] + model["left_context_samples"] + model["right_context_samples"]
    assert window <= 400 * 8 * 160  # what the encoder's position table allows
