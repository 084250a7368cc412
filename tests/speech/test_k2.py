"""Models of k2 (icefall): stateless predictors, blank first, Kaldi's features. Oracles: sherpa-onnx and onnx-asr."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("kaldi_native_fbank")

import tdtdecode as tdt  # noqa: E402
from tdtdecode.bundle import read_bundle  # noqa: E402
from tdtdecode.prepare import repair  # noqa: E402
from tdtdecode.speech.audio.kaldi import KaldiExtractor  # noqa: E402
from tests.bundle.helpers import edit, set_metadata  # noqa: E402
from tests.conftest import COMPILED  # noqa: E402
from tests.decoding.compare import check_hypotheses, traced_decode  # noqa: E402
from tests.decoding.test_beam import check_same, in_chunks  # noqa: E402
from tests.k2_models import Sizes, write_model  # noqa: E402

RATE = 16_000
MODELS = {
    "usual": Sizes(),
    "wide": Sizes(entries=120, decoder=40, joiner=48),
    "one token": Sizes(context=1),
    "three tokens": Sizes(context=3),
}


def recordings(count: int = 6) -> list[np.ndarray]:
    """Noise in syllables, of different lengths."""
    found = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        loudness = np.repeat(rng.uniform(0.01, 1, 12 + 5 * seed), RATE // 12)
        found.append((0.2 * rng.standard_normal(len(loudness)) * loudness).astype(np.float32)[: -seed * 77 or None])
    return found


def shortened(seconds: float) -> list[np.ndarray]:
    """The beginnings of many recordings."""
    return [samples[: round(seconds * RATE)] for samples in recordings(20)]


def encoded(directory: Path, heard: list[np.ndarray] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Encoder output [B, E, T] for the recordings, and lengths."""
    model = tdt.load_model(directory)
    outs = [model.encoder(*model._extract([samples])) for samples in heard or recordings()]
    lengths = np.array([int(count) for _, (count,) in outs])
    frames = np.zeros((len(outs), outs[0][0].shape[1], lengths.max()), np.float32)
    for row, (out, (count,)) in zip(frames, outs):
        row[:, :count] = out[0, :, :count]
    return frames, lengths


@pytest.fixture(scope="module", params=MODELS, ids=lambda name: name.replace(" ", "-"))
def directory(request, tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("k2"), MODELS[request.param])


def sherpa_onnx_results(
    directory: Path, method: str = "greedy_search", paths: int = 4, seconds: float = 0
) -> list[dict]:
    """The tokens and times of sherpa-onnx. What it does not take ends its process, which is one of its own for that."""
    pytest.importorskip("sherpa_onnx")
    run = subprocess.run(
        [sys.executable, "-m", __name__, directory, method, str(paths), str(seconds)], capture_output=True, text=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_what_is_read(directory):
    bundle = read_bundle(directory)
    assert (bundle.spec.blank, bundle.spec.durations, bundle.spec.max_symbols) == (0, (), 1)
    assert (bundle.features.family, bundle.features.normalize) == ("kaldi", None)
    assert (bundle.features.mel_bins, bundle.features.subsampling_factor) == (80, 4)
    assert bundle.layout == "split" and bundle.vocabulary.pieces[0] == "<blk>"


def test_greedy_gives_the_tokens_of_sherpa_onnx(directory):
    """From the samples on: its features are those of kaldi-native-fbank, too."""
    model = tdt.load_model(directory)
    pieces = model.bundle.vocabulary.pieces
    emitted = 0
    for samples, peer in zip(recordings(), sherpa_onnx_results(directory), strict=True):
        found = model.recognize((samples, RATE)).hypothesis
        assert [pieces[token].replace("\u2581", " ") for token in found.tokens] == peer["tokens"]
        np.testing.assert_allclose(found.frames * 0.04, peer["timestamps"], atol=1e-5)
        emitted += len(found.tokens)
    assert emitted > 30


def test_onnx_asr_gives_the_same_text_and_times(tmp_path):
    """It looks for the graphs in Vosk's folders, and computes its features itself."""
    import onnx_asr

    graphs = write_model(tmp_path / "am-onnx")
    (tmp_path / "lang").mkdir()
    (graphs / "tokens.txt").rename(tmp_path / "lang" / "tokens.txt")
    peer = onnx_asr.load_model("kaldi-rnnt", tmp_path, providers=["CPUExecutionProvider"]).with_timestamps()
    model = tdt.load_model(tmp_path)
    pieces = model.bundle.vocabulary.pieces
    for samples in recordings():
        theirs, ours = peer.recognize(samples), model.recognize((samples, RATE)).hypothesis
        assert theirs.tokens == [pieces[token].replace("\u2581", " ") for token in ours.tokens]
        np.testing.assert_allclose(theirs.timestamps, ours.frames * 0.04, atol=1e-5)


def test_a_wide_beam_finds_what_sherpa_onnx_finds(tmp_path):
    """Both add up the alignments of equal tokens, with one token at most on a frame.

    sherpa-onnx prunes before it merges, and ranks by score / (tokens + 2) in the end. So they are compared with a beam
    that is wide for the audio, and with our n-best list in its order.
    """
    seconds, size = 0.4, 200
    directory = write_model(tmp_path, Sizes(entries=5))
    decoder = tdt.Decoder.from_bundle(directory)
    pieces = list(decoder.vocabulary.pieces)
    frames, lengths = encoded(directory, shortened(seconds))
    longest = 0
    peers = sherpa_onnx_results(directory, "modified_beam_search", size, seconds)
    for found, peer in zip(decoder.decode(frames, lengths, tdt.Beam(size=size, nbest=size)), peers, strict=True):
        theirs = [pieces.index(token.replace(" ", "\u2581")) for token in peer["tokens"]]
        ours = max(found.nbest, key=lambda one: one.score / (len(one.tokens) + 2))
        assert ours.tokens.tolist() == theirs
        longest = max(longest, len(theirs))
    assert longest > 2


@pytest.mark.parametrize("search", [
    tdt.Greedy(), tdt.Greedy(blank_penalty=1.0), tdt.Beam(size=4), tdt.Beam(strategy="malsd", size=4),
    tdt.Greedy(fusion=[tdt.PhraseBoost([[2, 3], [4]], 1.0)]),
], ids=["greedy", "penalty", "tsd", "malsd", "phrases"])  # fmt: skip
def test_all_networks_and_kernels_agree(directory, search):
    frames, lengths = encoded(directory)
    reference = tdt.Decoder.from_bundle(directory, network="fused", kernels="reference")
    expected = reference.decode(frames, lengths, search)
    others = [("ort", "reference"), ("ort", "cpu"), *(("fused", kernels) for kernels in COMPILED)]
    for network, kernels in others:
        found = tdt.Decoder.from_bundle(directory, network=network, kernels=kernels).decode(frames, lengths, search)
        if search == tdt.Greedy():
            trace = traced_decode(reference, frames, lengths, replace(search, max_symbols=1))[1]
            spec = read_bundle(directory).spec
            assert not check_hypotheses(expected, trace, found, spec, replace(search, max_symbols=1))
        check_same(found, expected)


def test_numba_agrees(directory):
    pytest.importorskip("numba")
    frames, lengths = encoded(directory)
    expected = tdt.Decoder.from_bundle(directory, network="ort", kernels="reference").decode(frames, lengths)
    check_same(tdt.Decoder.from_bundle(directory, network="ort", kernels="jit").decode(frames, lengths), expected)


@pytest.mark.parametrize("network", ["ort", "fused"])
@pytest.mark.parametrize("search", [tdt.Greedy(), tdt.Beam(size=4, threshold=np.inf)], ids=["greedy", "tsd"])
def test_chunks_change_nothing(directory, network, search):
    frames, lengths = encoded(directory)
    decoder = tdt.Decoder.from_bundle(directory, network=network)
    whole = decoder.decode(frames, lengths, search)
    if isinstance(search, tdt.Beam):
        check_same(in_chunks(decoder, frames, lengths, search, 3), whole)
        return
    state, parts = None, []
    for start in range(0, frames.shape[2], 3):
        piece = frames[:, :, start : start + 3]
        found, state = decoder.decode_chunk(piece, np.clip(lengths - start, 0, piece.shape[2]), state, search=search)
        parts.append(found)
    for i, one in enumerate(whole):
        for name in ("tokens", "frames", "token_logprobs"):
            together = np.concatenate([getattr(part[i], name) for part in parts])
            np.testing.assert_allclose(together, getattr(one, name), atol=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_other_precisions_do_not_depend_on_the_batch(directory, precision):
    frames, lengths = encoded(directory)
    decoder = tdt.Decoder.from_bundle(directory, precision=precision)
    whole = decoder.decode(frames, lengths)
    check_same([decoder.decode(frames[i : i + 1], lengths[i : i + 1])[0] for i in range(len(frames))], whole, 0)


def test_at_most_one_token_on_a_frame_whatever_the_search_allows(directory):
    frames, lengths = encoded(directory)
    decoder = tdt.Decoder.from_bundle(directory)
    for search in (tdt.Greedy(blank_penalty=30.0, max_symbols=5), tdt.Beam(blank_penalty=30.0, max_symbols=5)):
        for found in decoder.decode(frames, lengths, search):
            assert np.all(np.diff(found.frames) > 0) and len(found.tokens) > 10


def test_a_batch_says_what_single_recordings_say(directory):
    model = tdt.load_model(directory)
    many = [(samples, RATE) for samples in recordings()]
    alone = [model.recognize(one).hypothesis.tokens.tolist() for one in many]
    assert [one.hypothesis.tokens.tolist() for one in model.recognize(many)] == alone


def test_a_live_stream_in_pieces_of_any_size(directory):
    """Windows overlap, and this encoder looks at no more than a few frames, so the stream says what the whole does."""
    model = tdt.load_model(directory)
    samples = np.concatenate(recordings())
    whole = model.recognize((samples, RATE)).hypothesis.tokens.tolist()
    for size in (1000, 16_000):
        stream = model.stream()
        for start in range(0, len(samples), size):
            stream.feed(samples[start : start + size], rate=RATE)
        assert stream.finish().hypothesis.tokens.tolist() == whole


@pytest.mark.parametrize("suffix", ["-epoch-99-avg-1", "-epoch-99-avg-1.int8", "_iter-9000", ".fp16"])
def test_names_of_icefall(tmp_path, suffix):
    bundle = read_bundle(write_model(tmp_path, suffix=suffix))
    assert bundle.encoder.name == f"encoder{suffix}.onnx"


def test_two_models_in_a_folder(tmp_path):
    write_model(tmp_path, suffix="-epoch-99-avg-1")
    write_model(tmp_path, suffix="-epoch-30-avg-9")
    with pytest.raises(tdt.BundleError, match="several models: joiner-epoch-30-avg-9.onnx and joiner-epoch-99"):
        read_bundle(tmp_path)


def test_an_export_without_the_clamp(tmp_path):
    """Gather takes -1 as the last row; sherpa-onnx gives it that, too."""
    directory = write_model(tmp_path, clamp=False)
    pieces = read_bundle(directory).vocabulary.pieces
    model = tdt.load_model(directory)
    for samples, peer in zip(recordings(2), sherpa_onnx_results(directory)):
        tokens = model.recognize((samples, RATE)).hypothesis.tokens
        assert [pieces[token].replace("\u2581", " ") for token in tokens] == peer["tokens"]


def test_a_context_that_contradicts_its_input(tmp_path):
    directory = write_model(tmp_path)
    set_metadata(directory / "decoder.onnx", context_size="3")
    with pytest.raises(tdt.BundleError, match=r"decoder.onnx: context_size: 3, but y takes 2 tokens"):
        read_bundle(directory)


def test_a_predictor_whose_places_are_not_added_is_not_lifted(tmp_path):
    """The tables are right for single tokens, so only the comparison with the graph can tell."""
    directory = write_model(tmp_path)

    def squared(model: onnx.ModelProto) -> None:
        (node,) = [node for node in model.graph.node if node.op_type == "Relu"]
        model.graph.node.insert(list(model.graph.node).index(node), onnx.helper.make_node("Abs", ["tokens"], ["x"]))
        node.input[0] = "x"

    edit(directory / "decoder.onnx", squared)
    with pytest.raises(tdt.BundleError, match="give other joint rows"):
        tdt.Decoder.from_bundle(directory, network="fused")


def test_repair_finds_nothing_to_do(tmp_path):
    """The fields that NeMo's models need would be wrong in it."""
    assert not repair(write_model(tmp_path / "a"), tmp_path / "b").changes
    assert read_bundle(tmp_path / "b").features == read_bundle(tmp_path / "a").features


def test_normalised_features_are_refused(tmp_path):
    directory = write_model(tmp_path)
    set_metadata(directory / "encoder.onnx", normalize_type="per_feature")
    with pytest.raises(tdt.BundleError, match="normalize_type: 'per_feature', but models of k2 take features"):
        read_bundle(directory)


@pytest.mark.parametrize("operators", [["MatMul", "Gemm"], ["MatMul", "Gemm", "Gather"]], ids="-".join)
def test_int8_files_as_icefall_quantises_them(tmp_path, operators):
    """Products, perhaps also the embedding. The lifted weights are those of the files, so few tokens differ."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    directory = write_model(tmp_path)
    for name in ("decoder", "joiner"):
        quantize_dynamic(
            directory / f"{name}.onnx", directory / f"{name}.int8.onnx", op_types_to_quantize=operators,
            weight_type=QuantType.QInt8,
        )  # fmt: skip
    frames, lengths = encoded(directory)
    found, expected = (
        tdt.Decoder.from_bundle(directory, variant="int8", network=network).decode(frames, lengths)
        for network in ("fused", "ort")
    )
    same = sum(np.array_equal(one.tokens[:5], other.tokens[:5]) for one, other in zip(found, expected))
    assert same >= 4, f"{same} of {len(found)} begin with the same tokens"


def test_streaming_encoders_are_refused(tmp_path):
    directory = write_model(tmp_path)

    def with_a_cache(model: onnx.ModelProto) -> None:
        shape = [2, "N", 4]
        model.graph.input.append(onnx.helper.make_tensor_value_info("cached_key_0", onnx.TensorProto.FLOAT, shape))
        model.graph.output.append(onnx.helper.make_tensor_value_info("new_cached_key_0", onnx.TensorProto.FLOAT, shape))
        model.graph.node.append(onnx.helper.make_node("Identity", ["cached_key_0"], ["new_cached_key_0"]))

    edit(directory / "encoder.onnx", with_a_cache)
    with pytest.raises(tdt.BundleError, match="encoder.onnx: a streaming encoder of k2: .* whole recordings only"):
        read_bundle(directory)


# --- features --------------------------------------------------------------------------------------------------------


def test_features_of_onnx_asr():
    """Another implementation, in NumPy."""
    from onnx_asr.preprocessors.numpy_preprocessor import KaldiPreprocessorNumpy

    theirs = KaldiPreprocessorNumpy("kaldi")
    for samples in recordings():
        (features,), (length,) = KaldiExtractor(80)([samples])
        expected, (count,) = theirs(samples[None], np.array([len(samples)]))
        assert length == count
        np.testing.assert_allclose(features.T, expected[0], atol=2e-3)


def test_pieces_of_any_size_give_the_features_of_the_whole():
    extract = KaldiExtractor(80)
    samples = recordings()[3]
    (whole,), (length,) = extract([samples])
    for size in (1, 37, 400, 5000):
        stream = extract.stream()
        step = size if size > 1 else len(samples)
        parts = [stream.add(samples[i : i + step]) for i in range(0, len(samples), step)]
        np.testing.assert_array_equal(np.concatenate([*parts, stream.end()], axis=1), whole[:, :length])
        assert (stream.samples, stream.frames) == (len(samples), length)


@pytest.mark.parametrize("samples", [0, 1, 79, 80, 119, 200, 399, 400, 560])
def test_short_recordings(samples):
    extract = KaldiExtractor(80)
    features, (length,) = extract([np.full(samples, 0.1, np.float32)])
    assert features.shape == (1, 80, length) and length == extract.frames(samples)
    assert np.isfinite(features).all()


def _main(directory: str, method: str, paths: str, seconds: str) -> None:
    import sherpa_onnx

    files = {part: str(Path(directory, f"{part}.onnx")) for part in ("encoder", "decoder", "joiner")}
    recognizer = sherpa_onnx.OfflineRecognizer.from_transducer(
        **files, tokens=str(Path(directory, "tokens.txt")), num_threads=1, decoding_method=method,
        max_active_paths=int(paths),
    )  # fmt: skip
    results = []
    for samples in shortened(float(seconds)) if float(seconds) else recordings():
        stream = recognizer.create_stream()
        stream.accept_waveform(RATE, samples)
        recognizer.decode_stream(stream)
        results.append({"tokens": stream.result.tokens, "timestamps": stream.result.timestamps})
    print(json.dumps(results))


if __name__ == "__main__":
    _main(*sys.argv[1:])
