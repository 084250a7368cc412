"""Cache-aware encoders in every convention of the wild: the same tokens as NeMo's, or an error that says what to do."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from tdtdecode import InputError, load_model  # noqa: E402
from tdtdecode.cli import main  # noqa: E402
from tdtdecode.errors import BundleError  # noqa: E402
from tests import conventions  # noqa: E402
from tests.conventions import (  # noqa: E402
    GOLDEN,
    LAYERS_FIRST,
    TIME_FIRST,
    edited,
    fixed,
    for_one_stream,
    in_float16,
    metadata,
    rename,
    together,
    uncounted,
    without_metadata,
)
from tests.cuda.helpers import emulated  # noqa: E402
from tests.speech.test_streaming import MODELS, cases  # noqa: E402

PARAKEET_RS = {
    "audio_signal": "processed_signal", "length": "processed_signal_length", "outputs": "encoded",
    "encoded_lengths": "encoded_len", "cache_last_channel_next_len": "cache_last_channel_len_next",
}  # fmt: skip
EOU = {
    "cache_last_channel_next": "new_cache_last_channel", "cache_last_time_next": "new_cache_last_time",
    "cache_last_channel_next_len": "new_cache_last_channel_len",
}  # fmt: skip
GENAI = {"cache_last_channel_next_len": "cache_last_channel_len_next", "prompt_index": "lang_id"}
NAMELESS = {
    "audio_signal": "a", "length": "b", "cache_last_channel": "c", "cache_last_time": "d",
    "cache_last_channel_len": "e", "outputs": "v", "encoded_lengths": "w", "cache_last_channel_next": "x",
    "cache_last_time_next": "y",
    "cache_last_channel_next_len": "z",
}  # fmt: skip
LANGUAGES = ("prompt_dictionary", "auto_prompt_id")


def sizes(name: str) -> dict[str, int]:
    graph = onnx.load(GOLDEN / name / "encoder.onnx")
    return {entry.key: int(entry.value) for entry in graph.metadata_props if entry.value.isdecimal()}


def static(name: str, time_axis: int = 2) -> conventions.Edit:
    """Every size of the inputs fixed, for one stream."""
    found = sizes(name)
    return fixed({
        "*": {0: 1},
        "audio_signal": {0: 1, time_axis: found["window_size"]},
        "cache_last_channel": {0: 1, 2: found["cache_last_channel_dim2"]},
        "cache_last_time": {0: 1, 3: found["cache_last_time_dim3"]},
    })  # fmt: skip


CONVENTIONS = {
    "NeMo's export": lambda name: without_metadata(*LANGUAGES),
    "sherpa-onnx": lambda name: metadata(),
    "parakeet-rs": lambda name: together(
        without_metadata(*LANGUAGES), LAYERS_FIRST, fixed({"cache_last_channel": {1: 1}, "cache_last_time": {1: 1}}),
        rename(PARAKEET_RS)),
    "parakeet-rs, any batch": lambda name: together(without_metadata(*LANGUAGES), LAYERS_FIRST, rename(PARAKEET_RS)),
    "parakeet-rs, EOU": lambda name: together(
        without_metadata(*LANGUAGES), LAYERS_FIRST, rename(PARAKEET_RS), rename(
            {PARAKEET_RS.get(old, old): new for old, new in EOU.items()})),
    "onnxruntime-genai": lambda name: together(without_metadata(*LANGUAGES), TIME_FIRST, rename(GENAI)),
    "onnxruntime-genai, static": lambda name: together(
        without_metadata(*LANGUAGES), TIME_FIRST, static(name, 1), rename(GENAI)),
    "every size fixed": lambda name: static(name),
    "names that say nothing": lambda name: together(without_metadata(*LANGUAGES), rename(NAMELESS)),
}  # fmt: skip


def check(model, name: str, count: int | None = None) -> None:
    """NeMo's utterances at once, in pieces."""
    pool = model.streams()
    left = {}
    for i, case in enumerate(cases(name)[:count]):
        pool.open(i, language=case.language)
        left[i] = case.features
    while any(features.shape[1] for features in left.values()):
        pool.feed_features({i: features[:, : 50 + 20 * i] for i, features in left.items()})
        left = {i: features[:, 50 + 20 * i :] for i, features in left.items()}
    for i, transcript in pool.finish().items():
        assert transcript.hypothesis.tokens.tolist() == cases(name)[i].tokens
        assert transcript.hypothesis.frames.tolist() == cases(name)[i].frames


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("name", MODELS)
def test_every_convention_gives_nemos_tokens(tmp_path, name, convention):
    check(load_model(edited(tmp_path / "model", name, CONVENTIONS[convention](name))), name)


@pytest.mark.parametrize("name", [name for name in MODELS if (GOLDEN / name / "encoder-model.onnx").exists()])
def test_nemos_own_files(tmp_path, name):
    """As NeMo writes them, beside nothing but the vocabulary."""
    for file in ("encoder-model.onnx", "decoder_joint-model.onnx"):
        shutil.copy(GOLDEN / name / file, tmp_path)
    shutil.copy(GOLDEN / name / "tokens.txt", tmp_path / "vocab.txt")
    model = load_model(tmp_path)
    assert model.bundle.features.normalize is None
    assert model.encoder.caches.window == sizes(name)["window_size"]
    check(model, name)


@pytest.mark.parametrize("name", ["rnnt-8-1", "prompt-70-13"])
def test_axes_are_told_by_sizes(tmp_path, name):
    found = sizes(name)
    for convention, batch_axis, time_axis in (
        ("sherpa-onnx", 0, 2), ("parakeet-rs", 1, 2), ("parakeet-rs, any batch", 1, 2), ("onnxruntime-genai", 0, 1),
        ("onnxruntime-genai, static", 0, 1), ("every size fixed", 0, 2),
    ):  # fmt: skip
        directory = edited(tmp_path / convention, name, CONVENTIONS[convention](name))
        caches = load_model(directory).encoder.caches
        assert [cache.batch_axis for cache in caches.caches] == [batch_axis, batch_axis, 0]
        assert (caches.time_axis, caches.frames_time_axis) == (time_axis, time_axis)
        assert [cache.shape for cache in caches.caches] == [
            tuple(found[f"{cache}_dim{i}"] for i in (1, 2, 3)) for cache in ("cache_last_channel", "cache_last_time")
        ] + [()]
        assert (caches.window, caches.shift) == (found["window_size"], found["chunk_shift"])
        assert caches.metadata().items() >= {
            "window_size": str(caches.window), "chunk_size_ms": str(found["chunk_size_ms"]),
        }.items()  # fmt: skip


@pytest.mark.parametrize("layers_first", [False, True])
def test_where_both_axes_may_be_the_streams_names_decide(tmp_path, layers_first):
    """A graph that leaves both open; and, of one layer, one that fixes both at one."""
    edits = (LAYERS_FIRST, rename(PARAKEET_RS)) if layers_first else ()
    caches = ("cache_last_channel", "cache_last_time")

    def all_open(graph):
        for value in graph.graph.input:
            if value.name in caches:
                for axis in (0, 1):
                    value.type.tensor_type.shape.dim[axis].dim_param = f"any{axis}"

    found = load_model(edited(tmp_path / "model", "rnnt-8-1", *edits, all_open)).encoder.caches
    assert found.layers_first == layers_first
    assert [cache.shape for cache in found.caches] == [(3, 8, 24), (3, 24, 8), ()]


@pytest.mark.parametrize("name", ["rnnt-8-1", "tdt-4-0"])
def test_a_batch_of_one_is_opened_where_the_graph_allows(tmp_path, name, caplog):
    opened = load_model(edited(tmp_path / "opened", name, fixed({"*": {0: 1}})))
    assert opened.encoder.takes_batches and "several recordings" in repr(opened.encoder)
    runs = []
    run = opened.encoder._bound_run
    opened.encoder._bound_run = lambda told, *rest: runs.append(len(told[0][1])) or run(told, *rest)
    check(opened, name)
    assert max(runs) == len(cases(name))
    with caplog.at_level(logging.INFO, logger="tdtdecode"):
        alone = load_model(edited(tmp_path / "alone", name, for_one_stream))
    assert not alone.encoder.takes_batches
    assert "takes one recording at a time, as it was exported" in caplog.text
    check(alone, name)


def test_a_stream_beside_others_gets_the_bits_it_gets_alone(tmp_path):
    model = load_model(edited(tmp_path / "model", "rnnt-70-6", fixed({"*": {0: 1}})))
    for i, case in enumerate(cases("rnnt-70-6")):
        alone = model.stream()
        alone.feed_features(case.features)
        pool = model.streams()
        pool.feed_features({i: case.features, "other": cases("rnnt-70-6")[3].features[:, :300]})
        one, other = alone.finish(), pool.finish([i])[i]
        np.testing.assert_array_equal(one.hypothesis.token_logprobs, other.hypothesis.token_logprobs)


def test_no_stream_holds_the_memory_of_others(tmp_path):
    """Streams that went together get copies of their rows where some go on without them, and the results stay."""
    model = load_model(edited(tmp_path / "model", "rnnt-8-1", LAYERS_FIRST))
    pool = model.streams()
    case = cases("rnnt-8-1")[0]
    pool.feed_features({i: case.features[:, :64] for i in range(6)})

    def rows() -> list[int]:
        return [live.position.caches.arrays[0].shape[1] for live in pool._streams.values()]

    assert rows() == [6] * 6
    pool.feed_features({i: case.features[:, 64:112] for i in range(2)})
    assert rows() == [2, 2, 1, 1, 1, 1]
    pool.feed_features({i: case.features[:, 64 if i > 1 else 112 : 112 if i > 1 else 160] for i in range(6)})
    assert rows() == [6] * 6
    pool.feed_features({i: case.features[:, 112 if i > 1 else 160 :] for i in range(6)})
    for transcript in pool.finish().values():
        assert transcript.hypothesis.tokens.tolist() == case.tokens


@pytest.mark.parametrize("name", MODELS)
def test_graphs_in_float16(tmp_path, name):
    """Features, caches and frames in float16 stay float16; the tokens are nearly all the same."""
    model = load_model(edited(tmp_path / "model", name, in_float16))
    caches = model.encoder.caches
    assert {port.dtype.name for port in (caches.audio, caches.frames, caches.caches[0].into)} == {"float16"}
    state = model.encoder.begin()
    assert [array.dtype.name for array in state.arrays] == ["float16", "float16", "int64"]
    check_frames(model, name, 0.03)


def check_frames(model, name: str, tolerance: float) -> None:
    """The encoder frames are NeMo's. (Random models make other tokens of frames that differ by a hundredth.)"""
    prefixes = dict.fromkeys(case.language for case in cases(name))
    with np.load(GOLDEN / name / "features.npz") as given, np.load(GOLDEN / name / "encoder_out.npz") as wanted:
        for language in prefixes:
            for i in range(len(given)):
                expected = wanted["_".join(filter(None, (language, "padded", str(i))))]
                features = given[f"features_{i}"]
                (found,), _ = model.encoder(features[None], np.array([features.shape[1]]), language)
                np.testing.assert_allclose(found[:, : expected.shape[1]], expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("name", "convention"), [
    ("rnnt-8-1", "sherpa-onnx"), ("tdt-4-0", "parakeet-rs"), ("prompt-70-13", "onnxruntime-genai"),
])  # fmt: skip
def test_on_a_card(tmp_path, name, convention):
    """Caches and frames stay on the card, emulated here: CuPy's arrays cannot be read by NumPy."""
    directory = edited(tmp_path / "model", name, CONVENTIONS[convention](name))
    with emulated() as cupy:
        model = load_model(directory, device="cuda")
        assert isinstance(model.encoder.begin().arrays[0], cupy.ndarray)
        check(model, name, 3)
        for case in cases(name)[:1]:
            features, lengths = case.features[None], np.array([case.features.shape[1]])
            encoder_out, counts = model.encoder(features, lengths, case.language)
            (found,) = model.decoder.decode(encoder_out, counts)
            assert found.tokens.tolist() == case.tokens


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([uncounted, metadata(window_size=None)], r"--window 65,56"),
        ([uncounted, metadata(chunk_shift=None)], r"--window 65,56"),
        ([metadata(window_size="66")], r"overlap by 50 .* overlap by 9: `tdtdecode repair`"),
        ([metadata(window_size="17", chunk_shift="8")], "move on by 8 .* move on by 16"),
        ([metadata(window_size="8", chunk_shift="16")], "would skip some"),
        ([uncounted, metadata(window_size="26", chunk_shift="17")], "does not fit a subsampling by 8"),
        ([metadata(cache_last_channel_dim2="70")], "70, but the cache .* has the size 8"),
        ([metadata(subsampling_factor="4")], "4, but encoder.onnx gives a frame for each 8"),
        ([fixed({"audio_signal": {2: 30}})], "takes windows of 30 feature frames"),
        ([fixed({"*": {0: 2}})], "number of streams is fixed at 2"),
        ([fixed({"cache_last_time": {0: 2}})], "number of streams is fixed at 2"),
        ([rename({"cache_last_time_next": "something"})], "no output that continues it"),
    ],
)  # fmt: skip
def test_what_contradicts_the_graph_or_is_missing(tmp_path, edits, message):
    directory = edited(tmp_path / "model", "rnnt-8-1", *edits)
    with pytest.raises(BundleError, match=message):
        load_model(directory)


@pytest.mark.parametrize("name", ["rnnt-8-1", "tdt-4-0"])
def test_metadata_tells_what_the_graph_does_not(tmp_path, name):
    check(load_model(edited(tmp_path / "sherpa", name, uncounted)), name)
    frames = sizes(name)["chunk_shift"] // 8
    others = [entry for entry in sizes(name) if entry.startswith("cache")]
    edits = uncounted, without_metadata(*others), metadata(chunk_size_output_frames=str(frames))
    check(load_model(edited(tmp_path / "rs", name, *edits)), name)


def test_another_input_is_named(tmp_path):
    def speakers(graph):
        graph.graph.input.append(onnx.helper.make_tensor_value_info("spk_targets", onnx.TensorProto.FLOAT, ["b", "t"]))

    directory = edited(tmp_path / "model", "rnnt-8-1", speakers)
    with pytest.raises(BundleError, match="expected a streaming encoder .*spk_targets"):
        load_model(directory)


def test_languages_without_names_are_told_by_number(tmp_path):
    model = load_model(edited(tmp_path / "model", "prompt-70-13", without_metadata()))
    with pytest.raises(InputError, match="needs a language: its files name none, so give its number"):
        model.stream()
    numbers = {"en-US": "0", "ja-JP": "4"}
    for case in cases("prompt-70-13"):
        if case.language in numbers:
            stream = model.stream(language=numbers[case.language])
            stream.feed_features(case.features)
            assert stream.finish().hypothesis.tokens.tolist() == case.tokens


def test_wrong_features(tmp_path: Path):
    model = load_model(edited(tmp_path / "model", "rnnt-8-1", TIME_FIRST))
    with pytest.raises(InputError, match=r"features must be \[B, 128, T\]"):
        model.encoder(np.zeros((1, 80, 20), np.float32), np.array([20]))


def speech() -> tuple[np.ndarray, int]:
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    return soundfile.read(Path(__file__).parents[1] / "recordings" / "known-2.flac", dtype="float32")


def test_recognize_is_told_a_language(tmp_path):
    """A recording gets the text of a stream, in each language; without one, in the model's default."""
    model, plain = (load_model(GOLDEN / name, layout="split") for name in ("prompt-70-13", "rnnt-8-1"))
    samples, rate = speech()
    found = {}
    for language in ("en-US", "ja-JP", "auto", None):
        stream = model.stream(language=language)
        stream.feed(samples, rate)
        expected = found[language] = stream.finish().text
        assert model.recognize((samples, rate), language=language).text == expected
        assert [out.text for out in model.recognize_each([(samples, rate)] * 2, language=language)] == [expected] * 2
    assert found["auto"] == found[None] and len(set(found.values())) == 3
    with pytest.raises(InputError, match="no language 'fr-FR': auto, en-US, ja-JP"):
        model.recognize((samples, rate), language="fr-FR")
    for call in (plain.recognize, lambda audio, **more: plain.recognize_each([audio], **more),
                 load_model("demo").recognize):  # fmt: skip
        with pytest.raises(InputError, match="is not told a language"):
            call((samples, rate), language="en-US")


def test_transcribe_is_told_a_language(tmp_path, capsys):
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    samples, rate = speech()
    soundfile.write(tmp_path / "a.wav", samples, rate, "FLOAT")
    model = load_model(GOLDEN / "prompt-70-13", layout="split")
    options = ["--model", str(GOLDEN / "prompt-70-13"), "--layout", "split"]
    for language in ("en-US", "ja-JP"):
        expected = model.recognize((samples, rate), language=language).text
        for stream in ([], ["--stream"]):
            assert main(["transcribe", str(tmp_path / "a.wav"), "--language", language, *options, *stream]) == 0
            assert "".join(capsys.readouterr().out.split()) == "".join(expected.split())
    assert main(["transcribe", str(tmp_path / "a.wav"), "--language", "xx", *options]) == 2
    assert "no language 'xx': auto, en-US, ja-JP" in capsys.readouterr().err


def test_languages_that_a_model_names_are_no_text(tmp_path, capsys):
    directory = edited(tmp_path / "model", "rnnt-8-1")
    samples, rate = speech()
    tokens = load_model(directory).recognize((samples, rate)).hypothesis.tokens.tolist()
    lines = (directory / "tokens.txt").read_text().splitlines()
    lines[tokens[0]], lines[tokens[-1]] = f"<en-US> {tokens[0]}", f"<de-DE> {tokens[-1]}"
    (directory / "tokens.txt").write_text("\n".join(lines) + "\n")
    model = load_model(directory)
    stream = model.stream()
    stream.feed(samples, rate)
    for found in (model.recognize((samples, rate)), stream.finish()):
        assert found.language == "de-DE" and found.hypothesis.tokens.tolist() == tokens
        assert not any(tag in found.text + "".join(word.text for word in found.words) for tag in ("en-US", "de-DE"))
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    soundfile.write(tmp_path / "a.wav", samples, rate, "FLOAT")
    assert main(["transcribe", str(tmp_path / "a.wav"), "--model", str(directory), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["language"] == "de-DE"
    assert main(["listen", str(tmp_path / "a.wav"), "--model", str(directory), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["language"] == "de-DE"
