"""What people send to worker processes: searches by value, models as the directory that is opened again."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

import tdtdecode as tdt  # noqa: E402
from benches.random_bundle import make_bundle  # noqa: E402
from tdtdecode.networks.fused import FusedNetwork  # noqa: E402
from tdtdecode.networks.ort import OrtNetwork  # noqa: E402
from tdtdecode.speech.loading import load_model  # noqa: E402
from tdtdecode.speech.routing import RoutedRecognizer  # noqa: E402
from tests.cuda.helpers import on  # noqa: E402

RATE = 16_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(
        tmp_path_factory.mktemp("bundle"), "combined", vocab_size=64, encoder_size=32, predictor_size=32, joint_size=32,
        mel_bins=80,
    )


@pytest.fixture(scope="module")
def audio():
    return (0.1 * np.random.default_rng(0).standard_normal(40_000).astype(np.float32), RATE)


def encoder_out(size=32):
    return np.random.default_rng(0).standard_normal((2, size, 40)).astype(np.float32)


def again(value):
    return pickle.loads(pickle.dumps(value))


def recognized(model, audio):
    out = model.recognize(audio)
    return out.text, out.hypothesis.tokens.tolist(), out.hypothesis.token_logprobs.tolist()


def decoded(decoder, search=None):
    return [(h.tokens.tolist(), h.frames.tolist(), h.score) for h in decoder.decode(encoder_out(), search=search)]


def fused_search(bundle, folder):
    pieces = load_model(bundle).bundle.vocabulary.pieces
    words = [piece for piece in pieces if piece not in ("<unk>", "<blk>")]
    lines = "\n".join(f"-2\t{word}" for word in words)
    lm = folder / "lm.arpa"
    head = f"\\data\\\nngram 1={len(words) + 1}\n\n\\1-grams:\n-3\t<unk>\n"
    lm.write_text(f"{head}{lines}\n\n\\end\\\n", encoding="utf-8")
    return tdt.Beam(
        size=3, fusion=[tdt.NgramLM.from_arpa(lm, 0.3), tdt.PhraseBoost([[3, 4]], 0.7)], confidence=tdt.Confidence(),
    )


@pytest.mark.parametrize("options", [
    {}, {"network": "ort"}, {"precision": "bfloat16"}, {"kernels": "reference"}, {"threads": 2},
    {"providers": ["CPUExecutionProvider"], "network": "ort"}, {"search": tdt.Greedy(max_symbols=2)},
])  # fmt: skip
def test_models_are_opened_again_with_their_options(bundle, audio, options):
    model = load_model(bundle, **options)
    pickled = pickle.dumps(model)
    assert len(pickled) < 4000
    copy = pickle.loads(pickled)
    assert recognized(copy, audio) == recognized(model, audio)
    assert copy.decoder.search == model.decoder.search and type(copy.decoder.network) is type(model.decoder.network)
    assert copy.decoder.kernels.name == model.decoder.kernels.name
    decoder = again(model.decoder)
    assert decoded(decoder) == decoded(model.decoder) and decoder.spec == model.decoder.spec
    assert getattr(decoder.network, "precision", None) == getattr(model.decoder.network, "precision", None)


def test_searches(bundle, tmp_path):
    decoder = tdt.Decoder.from_bundle(bundle)
    search = fused_search(bundle, tmp_path)
    assert again(search) == search and hash(again(search)) == hash(search)
    assert decoded(decoder, again(search)) == decoded(decoder, search)
    with_search = tdt.Decoder.from_bundle(bundle, search=search)
    assert decoded(again(with_search)) == decoded(with_search) != decoded(decoder)
    others = (tdt.PhraseBoost([[3, 4]], 0.8), tdt.PhraseBoost([[3, 5]], 0.7), tdt.PhraseBoost.per_row([[[3, 4]]], 0.7))
    assert all(again(search.fusion[1]) != other for other in others)
    for other in (tdt.Greedy(), tdt.Beam(strategy="malsd"), tdt.Confidence()):
        assert again(other) == other


def test_streams_go_on_elsewhere(bundle, tmp_path):
    """A state goes to another process, and its search too."""
    decoder = tdt.Decoder.from_bundle(bundle)
    frames = encoder_out()
    for search in (tdt.Greedy(), tdt.Beam(), fused_search(bundle, tmp_path)):
        whole = decoder.decode_chunk(frames[:, :, 20:], state=decoder.decode_chunk(frames[:, :, :20], search=search)[1],
                                     search=search, final=True)[0]  # fmt: skip
        state = again(decoder.decode_chunk(frames[:, :, :20], search=search)[1])
        other = again(decoder).decode_chunk(frames[:, :, 20:], state=state, search=again(search), final=True)[0]
        assert [h.tokens.tolist() for h in other] == [h.tokens.tolist() for h in whole]


def test_the_bundle_is_read_once(bundle, monkeypatch):
    from tdtdecode.bundle import combined, reading

    pickled = pickle.dumps(load_model(bundle))
    reads = []

    def read(*arguments):
        reads.append(arguments)
        return combined.read(*arguments)

    monkeypatch.setattr(reading, "LAYOUTS", {"combined": read})
    pickle.loads(pickled)
    assert len(reads) == 1


def test_a_model_that_is_gone(tmp_path, bundle):
    pickled = pickle.dumps(load_model(shutil.copytree(bundle, tmp_path / "model")))
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(tdt.BundleError, match="no such model directory"):
        pickle.loads(pickled)


def test_session_options_cannot_be_sent(bundle):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    model = load_model(bundle, session_options=options)
    for value in (model, model.decoder):
        with pytest.raises(tdt.InputError, match="session_options cannot be pickled: open the model where"):
            pickle.dumps(value)


def predict(tokens, state):
    total = tokens.astype(np.float32) + (0 if state is None else state)
    return np.stack([total, np.ones_like(total)], 1), total


def joint(frames, g):
    return np.sin(frames[:, :1] * 5 + g[:, :1] * np.arange(9, dtype=np.float32))


def select(state, index):
    return state[index]


def test_decoders_that_were_not_made_from_a_bundle(bundle):
    spec = tdt.TransducerSpec(vocab_size=6, durations=(1, 2))
    network = tdt.CallableNetwork(predict, joint, select)
    decoder = tdt.Decoder(network, spec=spec, search=tdt.Beam(), kernels="reference")
    assert decoded(again(decoder)) == decoded(decoder) and again(decoder).kernels.name == "reference"
    made = tdt.Decoder.from_bundle(bundle)
    fused = tdt.Decoder(FusedNetwork(made.network.weights, made.spec), made.spec)
    assert decoded(again(fused)) == decoded(made)
    with pytest.raises(Exception, match="pickle"):
        pickle.dumps(tdt.Decoder(OrtNetwork(load_model(bundle).bundle.transducer), made.spec))
    assert decoded(copy.deepcopy(made)) == decoded(made)


def test_a_model_on_two_devices(bundle, audio):
    cpu, other = load_model(bundle), load_model(bundle, kernels="reference")
    routed = again(RoutedRecognizer(cpu, other, crossover=1.5))
    assert (routed.crossover, routed.cpu.decoder.kernels.name, routed.cuda.decoder.kernels.name) == (
        1.5, cpu.decoder.kernels.name, "reference",
    )
    assert recognized(routed, audio)[:2] == recognized(cpu, audio)[:2]


def test_a_decoder_on_a_gpu(bundle):
    with on("emulated"):
        decoder = tdt.Decoder.from_bundle(bundle, device="cuda")
        assert again(decoder).network.device == "cuda"


@pytest.mark.parametrize("error", [
    tdt.InputError("a"), tdt.BundleError("p", file="f", field="x"), tdt.DeviceError("d"),
    tdt.MissingDependencyError("package", "extra", "purpose"), tdt.UnsupportedVersionError("package", "1", "2"),
    tdt.PhraseWarning("w"), tdt.LanguageModelWarning("w"),
])  # fmt: skip
def test_errors(error):
    copy = again(error)
    assert type(copy) is type(error) and str(copy) == str(error) and vars(copy) == vars(error)


def work(model, search, audio):
    found = recognized(model, audio)
    try:
        model.recognize("absent.wav")
    except tdt.InputError as error:
        return found, decoded(model.decoder, search), error
    raise AssertionError("a recording that is not there")


def test_worker_processes(bundle, audio, tmp_path):
    model, search = load_model(bundle), fused_search(bundle, tmp_path)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        text, tokens, error = pool.submit(work, model, search, audio).result(timeout=300)
    assert text == recognized(model, audio) and tokens == decoded(model.decoder, search)
    assert "absent.wav" in str(error)
