"""What the decoder takes and refuses, its state, and that results do not depend on batches and other utterances."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import onnxruntime as ort
import pytest

import tdtdecode as tdt
from tests.conftest import RandomTransducer, in_fork, random_frames
from tests.decoding.compare import check_same_hypotheses

SPEC = tdt.TransducerSpec(30, encoder_size=6)


@pytest.fixture(scope="module")
def callable_decoder():
    return RandomTransducer(SPEC, seed=11).decoder(SPEC)


@pytest.fixture(scope="module")
def ort_decoder(golden_tdt, tmp_path_factory):
    return tdt.Decoder.from_bundle(golden_tdt.directory("split", tmp_path_factory.mktemp("bundle")))


@pytest.fixture(params=["callable", "ort"])
def decoder(request):
    return request.getfixturevalue(f"{request.param}_decoder")


def frames_for(decoder, batch=6, frames=30, seed=12):
    return random_frames(batch, decoder.spec.encoder_size, frames, seed)


class ForeignArray:
    """An array that can only be read by DLPack."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class ReadOnlyArray(ForeignArray):
    """A read-only array: only DLPack versions that can mark it so may export it."""

    def __dlpack__(self, *, max_version=None, **options):
        if max_version is None:
            raise BufferError("read-only")
        return self._array.__dlpack__(max_version=max_version, **options)


class TestInputs:
    def variants(self, frames):
        yield "numpy", frames
        yield "not contiguous", np.ascontiguousarray(frames.transpose(0, 2, 1)).transpose(0, 2, 1)
        yield "reversed twice", np.ascontiguousarray(frames[:, ::-1])[:, ::-1]
        yield "OrtValue", ort.OrtValue.ortvalue_from_numpy(frames)
        yield "DLPack", ForeignArray(frames)
        yield "DLPack, not contiguous", ForeignArray(np.ascontiguousarray(frames.transpose(2, 0, 1)).transpose(1, 2, 0))
        read_only = frames.copy()
        read_only.flags.writeable = False
        yield "read-only", read_only
        if np.lib.NumpyVersion(np.__version__) >= "2.1.0":
            yield "DLPack, read-only", ReadOnlyArray(read_only)
        yield "list", list(frames)
        yield "list of DLPack", [ForeignArray(one) for one in frames]

    def test_every_kind_of_array(self, decoder):
        frames, lengths = frames_for(decoder)
        expected = decoder.decode(frames, lengths)
        assert sum(map(len, expected)) > 20
        for name, variant in self.variants(frames):
            check_same_hypotheses(decoder.decode(variant, lengths), expected), name

    def test_list_without_padding(self, decoder):
        frames, lengths = frames_for(decoder)
        utterances = [one[:, :length] for one, length in zip(frames, lengths)]
        check_same_hypotheses(decoder.decode(utterances), decoder.decode(frames, lengths))

    def test_half_precision(self, decoder):
        frames, lengths = frames_for(decoder)
        half = frames.astype(np.float16)
        check_same_hypotheses(decoder.decode(half, lengths), decoder.decode(half.astype(np.float32), lengths))
        brain = frames.astype(ml_dtypes.bfloat16)
        expected = decoder.decode(brain.astype(np.float32), lengths)
        check_same_hypotheses(decoder.decode(brain, lengths), expected)
        value = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(brain.view(np.uint16), 16)
        check_same_hypotheses(decoder.decode(value, lengths), expected)

    def test_bfloat16_by_dlpack(self, decoder):
        torch = pytest.importorskip("torch", reason="torch is not installed: no other producer of bfloat16 DLPack")
        frames, lengths = frames_for(decoder)
        tensor = torch.from_numpy(frames).to(torch.bfloat16)
        expected = decoder.decode(tensor.float().numpy(), lengths)
        check_same_hypotheses(decoder.decode(tensor, torch.from_numpy(lengths)), expected)
        turned = tensor.transpose(1, 2).contiguous().transpose(1, 2)
        check_same_hypotheses(decoder.decode(turned, lengths), expected)

    def test_lengths_of_every_kind(self, decoder):
        frames, lengths = frames_for(decoder)
        expected = decoder.decode(frames, lengths)
        for variant in (lengths.tolist(), lengths.astype(np.int32), lengths.astype(np.uint8),
                        ort.OrtValue.ortvalue_from_numpy(lengths)):  # fmt: skip
            check_same_hypotheses(decoder.decode(frames, variant), expected)
        check_same_hypotheses(decoder.decode(frames), decoder.decode(frames, [frames.shape[2]] * len(frames)))

    def test_empty(self, decoder):
        width = decoder.spec.encoder_size
        assert decoder.decode([]) == [] == decoder.decode(np.zeros((0, width, 5), np.float32), [])
        for frames in (np.zeros((3, width, 0), np.float32), np.zeros((3, width, 4), np.float32)):
            hypotheses = decoder.decode(frames, [0, 0, 0])
            assert [(len(h), h.score) for h in hypotheses] == [(0, 0.0)] * 3
            assert hypotheses[0].tokens.dtype == np.int32 and hypotheses[0].token_logprobs.dtype == np.float32

    def test_padding_is_never_read(self, decoder):
        frames, lengths = frames_for(decoder)
        expected = decoder.decode(frames, lengths)
        for utterance, length in zip(frames, lengths):
            utterance[:, length:] = np.nan
        check_same_hypotheses(decoder.decode(frames, lengths), expected)

    def test_input_is_left_alone(self, decoder):
        frames, lengths = frames_for(decoder)
        before = frames.copy(), lengths.copy()
        decoder.decode(frames, lengths)
        np.testing.assert_array_equal(frames, before[0])
        np.testing.assert_array_equal(lengths, before[1])

    @pytest.mark.parametrize(
        "change, message",
        [
            (lambda x, n: (x.astype(np.float64), n), "float32, float16 or bfloat16, got float64"),
            (lambda x, n: (x.astype(np.int32), n), "got int32"),
            (lambda x, n: (x[0], n), r"shape \[B, E, T\]"),
            (lambda x, n: (x[:, 1:], n), r"E = \d+, got"),
            (lambda x, n: (x.transpose(0, 2, 1), n), "it looks transposed"),
            (lambda x, n: (list(x[:, 1:]), n), r"encoder_out\[0\] must be \[E, T\] with E"),
            (lambda x, n: ("speech.wav", n), "must be a NumPy array"),
            (lambda x, n: (x, n[:-1]), "one entry for each of the 6 utterances"),
            (lambda x, n: (x, n.astype(np.float32)), "lengths must be integers"),
            (lambda x, n: (x, [*n[:-1], -1]), r"lengths\[5\] must be from 0 to 30, the number of frames given, got -1"),
            (lambda x, n: (x, [31, *n[1:]]), r"lengths\[0\].*got 31"),
            (lambda x, n: (x, [[1], [2, 3]]), r"lengths must be integers \[B\]"),
            (lambda x, n: (x.astype(">f4"), n), "got >f4"),
            (lambda x, n: (ForeignArray(np.broadcast_to(x, (2, *x.shape))[0].astype(complex)), n), "complex128"),
        ],
    )
    def test_bad_input(self, decoder, change, message):
        with pytest.raises(tdt.InputError, match=message):
            decoder.decode(*change(*frames_for(decoder)))

    def test_data_elsewhere(self, decoder):
        class OnCuda:
            def __dlpack__(self, **options):
                raise AssertionError("must not be exported")

            def __dlpack_device__(self):
                return 2, 0

        with pytest.raises(tdt.DeviceError, match="not in main memory"):
            decoder.decode(OnCuda())

    def test_wrong_search(self, decoder):
        with pytest.raises(tdt.InputError, match="Greedy"):
            decoder.decode(frames_for(decoder)[0], search="greedy")


class TestIndependence:
    def test_batch_order_and_size(self, decoder):
        frames, lengths = frames_for(decoder, batch=12)
        together = decoder.decode(frames, lengths)
        check_same_hypotheses([decoder.decode(frames[i : i + 1], lengths[i : i + 1])[0] for i in range(12)], together)
        order = np.random.default_rng(1).permutation(12)
        check_same_hypotheses(decoder.decode(frames[order], lengths[order]), [together[i] for i in order])

    def test_a_bad_neighbour(self, decoder):
        frames, lengths = frames_for(decoder)
        lengths[:] = 30
        expected = decoder.decode(frames, lengths)
        frames[2] = np.nan
        found = decoder.decode(frames, lengths)
        check_same_hypotheses(found[:2] + found[3:], expected[:2] + expected[3:])

    def test_many_utterances(self, ort_decoder):
        """More utterances than one run of the graphs takes."""
        frames, lengths = frames_for(ort_decoder, batch=600, frames=8)
        together = ort_decoder.decode(frames, lengths)
        check_same_hypotheses(ort_decoder.decode(frames[300:310], lengths[300:310]), together[300:310])

    def test_long_utterances_grow_the_log(self, callable_decoder):
        frames, lengths = frames_for(callable_decoder, batch=3, frames=2000)
        (hypothesis, *_) = callable_decoder.decode(frames[:1], [2000])
        assert len(hypothesis) > 500
        assert np.all(np.diff(hypothesis.frames) >= 0)

    def test_threads(self, decoder):
        frames, lengths = frames_for(decoder, batch=8, frames=60)
        expected = decoder.decode(frames, lengths)
        with ThreadPoolExecutor(8) as pool:
            for found in pool.map(lambda _: decoder.decode(frames, lengths), range(32)):
                check_same_hypotheses(found, expected)

    @pytest.mark.parametrize("threads", [1, 2])
    def test_after_a_fork(self, golden_tdt, tmp_path, threads):
        decoder = tdt.Decoder.from_bundle(golden_tdt.directory("combined", tmp_path), threads=threads)
        expected = decoder.decode(golden_tdt.encoder_out, golden_tdt.lengths)
        found = in_fork(lambda: [h.tokens for h in decoder.decode(golden_tdt.encoder_out, golden_tdt.lengths)])
        for tokens, hypothesis in zip(found, expected, strict=True):
            np.testing.assert_array_equal(tokens, hypothesis.tokens)


class TestChunks:
    def test_streams_come_and_go(self, decoder):
        """Streams that start at different times, leave, and change places are decoded as if each were alone."""
        frames, _ = frames_for(decoder, batch=3, frames=24)
        whole = decoder.decode(frames)
        first, a = decoder.decode_chunk(frames[:2, :, :10])
        second, b = decoder.decode_chunk(frames[2:, :, :5])
        joined = tdt.DecoderState.join([b, a])
        assert len(joined) == 3
        pieces = [frames[2, :, 5:], frames[0, :, 10:18], frames[1, :, 10:10]]
        third, c = decoder.decode_chunk(pieces, state=joined)
        fourth, d = decoder.decode_chunk([frames[1, :, 10:], frames[0, :, 18:]], state=c.select([2, 1]))
        check_same_tokens([second[0], third[0]], whole[2])
        check_same_tokens([first[0], third[1], fourth[1]], whole[0])
        check_same_tokens([first[1], third[2], fourth[0]], whole[1])
        assert d.consumed.tolist() == [24, 24]

    def test_states_are_values(self, decoder):
        frames, _ = frames_for(decoder, batch=2, frames=20)
        _, state = decoder.decode_chunk(frames[:, :, :7])
        once, _ = decoder.decode_chunk(frames[:, :, 7:], state=state)
        again, _ = decoder.decode_chunk(frames[:, :, 7:], state=state)
        check_same_hypotheses(once, again)

    def test_overshoot_longer_than_a_chunk(self):
        spec = tdt.TransducerSpec(1, (9,))
        network = tdt.CallableNetwork(
            lambda tokens, state: (np.zeros((len(tokens), 1), np.float32), np.zeros(len(tokens))),
            lambda frames, g: np.tile(np.float32([1, 0, 0]), (len(frames), 1)),
            lambda state, index: state[index],
        )
        decoder, state, frames = tdt.Decoder(network, spec=spec), None, []
        for _ in range(20):
            (hypothesis,), state = decoder.decode_chunk(np.zeros((1, 4, 1), np.float32), state=state)
            frames += hypothesis.frames.tolist()
        assert frames == [0, 9, 18]

    def test_bad_state(self, decoder):
        frames, _ = frames_for(decoder, batch=2)
        _, state = decoder.decode_chunk(frames)
        with pytest.raises(tdt.InputError, match="2 streams, but encoder_out has 1 utterances"):
            decoder.decode_chunk(frames[:1], state=state)
        with pytest.raises(tdt.InputError, match="state must be"):
            decoder.decode_chunk(frames, state="state")
        with pytest.raises(tdt.InputError, match="at least one"):
            tdt.DecoderState.join([])

    @pytest.mark.parametrize("index", [[True, False], [0.0], [[0]], [2], [-3]])
    def test_bad_selection(self, decoder, index):
        _, state = decoder.decode_chunk(frames_for(decoder, batch=2)[0])
        with pytest.raises(tdt.InputError, match="index must be"):
            state.select(index)

    def test_states_of_other_decoders(self, callable_decoder, ort_decoder):
        decoders = callable_decoder, ort_decoder
        inputs = [frames_for(decoder, batch=2)[0] for decoder in decoders]
        states = [decoder.decode_chunk(frames)[1] for decoder, frames in zip(decoders, inputs)]
        for decoder, frames, state in zip(decoders, inputs, states[::-1]):
            with pytest.raises(tdt.InputError, match="another network"):
                decoder.decode_chunk(frames, state=state)
        with pytest.raises(tdt.InputError, match="different networks"):
            tdt.DecoderState.join(states)


def check_same_tokens(chunks, whole):
    for name in ("tokens", "frames", "durations"):
        np.testing.assert_array_equal(np.concatenate([getattr(c, name) for c in chunks]), getattr(whole, name))


class TestCallable:
    def test_predictor_runs_only_after_tokens(self):
        transducer, calls = RandomTransducer(SPEC, seed=11), []

        def predict(tokens, state):
            calls.extend(tokens.tolist())
            return transducer.predict(tokens, state)

        decoder = tdt.Decoder(tdt.CallableNetwork(predict, transducer.joint, transducer.select), spec=SPEC)
        frames, lengths = random_frames(5, 6, 30, 1)
        tokens = [t for h in decoder.decode(frames, lengths) for t in h.tokens]
        assert calls[0] == SPEC.blank and sorted(calls[1:]) == sorted(tokens)

    @pytest.mark.parametrize(
        "functions, message",
        [
            ({"predict": lambda t, s: t}, r"predict must return \(g, state\)"),
            ({"predict": lambda t, s: (np.zeros((3, 2, 1)), s)}, r"predict must return g of shape \[1, H\]"),
            ({"joint": lambda f, g: f[:1]}, r"joint must return rows of shape \[4, V \+ 1 \+ D\]"),
            ({"joint": lambda f, g: f}, r"joint rows must be contiguous float32 \[4, 36\]"),
        ],
    )
    def test_wrong_functions(self, functions, message):
        transducer = RandomTransducer(SPEC, seed=11)
        good = {name: getattr(transducer, name) for name in ("predict", "joint", "select")}
        with pytest.raises(tdt.InputError, match=message):
            decoder = tdt.Decoder(tdt.CallableNetwork(**{**good, **functions}), spec=SPEC)
            decoder.decode(np.zeros((4, 6, 3), np.float32))

    def test_no_vocabulary(self, callable_decoder):
        with pytest.raises(tdt.InputError, match="no vocabulary"):
            callable_decoder.detokenize([1])


class TestOptions:
    @pytest.mark.parametrize(
        "options, error, message",
        [
            ({"device": "tpu"}, tdt.InputError, "device must be 'cpu' or 'cuda', got 'tpu'"),
            ({"network": "tensorrt"}, tdt.InputError, "network must be one of 'auto', 'ort', 'fused', got 'tensorrt'"),
            ({"network": "fused", "kernels": "jit"}, tdt.InputError, "not exist for kernels 'jit': reference, cpu"),
            ({"network": "ort", "precision": "int8"}, tdt.InputError, "precision='int8'.*variant"),
            ({"precision": "float16"}, tdt.InputError, r"'float16' on the cpu \(float32, bfloat16, int8\)"),
            ({"kernels": "cuda"}, tdt.InputError, "kernels 'cuda' run on a GPU only"),
            ({"threads": 0}, tdt.InputError, "threads must be from 1 to"),
            (
                {"network": "ort", "threads": 2, "session_options": ort.SessionOptions()},
                tdt.InputError, "cannot both be given",
            ),
            ({"durations": [0, 1]}, tdt.TdtDecodeError, "durations"),
        ],
    )
    def test_refused(self, golden_tdt, tmp_path, options, error, message):
        with pytest.raises(error, match=message):
            tdt.Decoder.from_bundle(golden_tdt.directory("split", tmp_path), **options)

    @pytest.mark.parametrize(
        "options", [{"max_symbols": 0}, {"max_symbols": 1.5}, {"blank_penalty": np.nan}, {"blank_penalty": "1"}]
    )
    def test_greedy(self, options):
        with pytest.raises(tdt.InputError, match=next(iter(options))):
            tdt.Greedy(**options)

    @pytest.mark.parametrize(
        "options",
        [{"vocab_size": 0}, {"vocab_size": 5, "blank": 6}, {"vocab_size": 5, "blank": -1},
         {"vocab_size": 5, "durations": (0, -1)}, {"vocab_size": 5, "durations": 4},
         {"vocab_size": 5, "encoder_size": 0}],
    )  # fmt: skip
    def test_spec(self, options):
        with pytest.raises(tdt.InputError, match=list(options)[-1]):
            tdt.TransducerSpec(**options)

    def test_blank_penalty_and_cap_reach_the_search(self, callable_decoder):
        frames, lengths = frames_for(callable_decoder)
        plain = callable_decoder.decode(frames, lengths)
        eager = callable_decoder.decode(frames, lengths, search=tdt.Greedy(blank_penalty=100.0))
        assert sum(map(len, eager)) > sum(map(len, plain))
        one = callable_decoder.decode(frames, lengths, search=tdt.Greedy(max_symbols=1))
        assert max(np.bincount(h.frames).max() for h in one if len(h)) == 1
