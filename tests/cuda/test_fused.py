"""The fused network on an emulated card, and on a real one if there is one, against the specification."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.fusion import PhraseBoost
from tdtdecode.kernels.beam import BoundFusion
from tdtdecode.networks.cuda import beams as cuda_beam
from tdtdecode.networks.cuda import fused_greedy
from tdtdecode.networks.fused import FusedNetwork
from tests.conftest import random_frames
from tests.cuda.helpers import LAUNCHES, cupy, launch, on  # noqa: F401 - a fixture
from tests.decoding.compare import check_hypotheses, traced_decode
from tests.decoding.fused_helpers import check_same_bits, fused, random_weights
from tests.decoding.test_beam import check_same
from tests.host_cuda.emulated_cupy import TRANSFERS

MODELS = {
    "parakeet": (tdt.TransducerSpec(vocab_size=40, encoder_size=20), {}),
    "one-layer": (tdt.TransducerSpec(21, encoder_size=7, durations=(1, 2, 4, 8)), {"layers": 1, "hidden": 7}),
    "stateless": (tdt.TransducerSpec(vocab_size=30, encoder_size=16, blank=0), {"layers": 0, "activation": "tanh"}),
    "three-layers": (tdt.TransducerSpec(vocab_size=6, encoder_size=9, durations=(3, 0, 3, 1), blank=2), {"layers": 3}),
    "rnnt": (tdt.TransducerSpec(vocab_size=45, encoder_size=33, durations=()), {"joint": 17, "activation": "sigmoid"}),
    "multi-blank": (tdt.TransducerSpec(24, (), encoder_size=12, big_blanks=(2, 4, 8)), {"layers": 1}),
    "context-2": (tdt.TransducerSpec(25, (), 0, 12, max_symbols=1), {"layers": 0, "context": 2, "activation": "tanh"}),
    "context-3": (tdt.TransducerSpec(21, (0, 1, 3), blank=2, encoder_size=9), {"layers": 0, "context": 3, "hidden": 7}),
}
SEARCHES = {
    "tsd": tdt.Beam(size=4),
    "tsd-warm": tdt.Beam(size=3, temperature=1.4, blank_penalty=-0.5, max_symbols=2),
    "malsd": tdt.Beam(strategy="malsd", size=4, max_symbols=3),
    "malsd-late": tdt.Beam(strategy="malsd", size=3, pruning_mode="late", blank_penalty=0.5),
    "confident": tdt.Greedy(confidence=tdt.Confidence()),
    "allowed": tdt.Beam(size=4, allow=tdt.OnlyTokens([1, 3, 5])),
    "malsd-allowed": tdt.Beam(strategy="malsd", size=4, max_symbols=3, allow=tdt.ExceptTokens([1, 3, 4])),
    "confident-allowed": tdt.Greedy(confidence=tdt.Confidence(), allow=tdt.OnlyTokens([1, 3, 5])),
}


def cuda_decoder(weights, spec, precision="float32", **options):
    from tdtdecode.networks.cuda.fused import FusedCudaNetwork

    return tdt.Decoder(FusedCudaNetwork(weights, spec, precision, launch(**options)), spec)


@pytest.fixture(params=MODELS)
def model(request):
    """A spec, its weights, frames and lengths."""
    spec, options = MODELS[request.param]
    weights = random_weights(spec, seed=len(request.param), **options)
    return spec, weights, *random_frames(5, spec.encoder_size, 13, seed=len(request.param))


def specified(model, search):
    """What the specification decodes, and its decisions."""
    spec, weights, frames, lengths = model
    decoder = tdt.Decoder(FusedNetwork(weights, spec), spec, kernels="reference")
    return traced_decode(decoder, frames, lengths, search)


class TestGreedy:
    @pytest.mark.parametrize("how", LAUNCHES)
    def test_it_is_the_specification(self, cupy, model, how):  # noqa: F811
        spec, weights, frames, lengths = model
        decoder = cuda_decoder(weights, spec, **LAUNCHES[how])
        allow = [None, *(tdt.OnlyTokens([first, 3, 5]) for first in (1, 4, 1, 4))]
        allowed = tdt.Greedy(max_symbols=2, allow=allow)
        for search in (tdt.Greedy(), tdt.Greedy(max_symbols=1, blank_penalty=0.7), allowed):
            expected, trace = specified(model, search)
            check_hypotheses(expected, trace, decoder.decode(frames, lengths, search), spec, search)

    @pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
    def test_nothing_depends_on_the_batch(self, cupy, model, precision):  # noqa: F811
        spec, weights, frames, lengths = model
        decoder = cuda_decoder(weights, spec, precision)
        together = decoder.decode(frames, lengths)
        order = np.random.default_rng(1).permutation(len(frames))
        check_same_bits([together[i] for i in order], decoder.decode(frames[order], lengths[order]))
        check_same_bits(together[:1], decoder.decode(frames[:1], lengths[:1]))
        padded = np.pad(frames, ((0, 0), (0, 0), (0, 5)), constant_values=np.nan)
        check_same_bits(together, decoder.decode(np.asfortranarray(padded), lengths))
        check_same_bits(together, decoder.decode([array[:, :length] for array, length in zip(frames, lengths)]))

    @pytest.mark.parametrize("how", LAUNCHES)
    def test_launches_give_the_same_bits(self, cupy, model, how):  # noqa: F811
        spec, weights, frames, lengths = model
        expected = cuda_decoder(weights, spec).decode(frames, lengths)
        check_same_bits(expected, cuda_decoder(weights, spec, **LAUNCHES[how]).decode(frames, lengths))
        # With fewer slots than utterances, an utterance takes the slot of one that has ended.
        check_same_bits(expected, cuda_decoder(weights, spec, slots=2, **LAUNCHES[how]).decode(frames, lengths))

    @pytest.mark.parametrize("how", LAUNCHES)
    @pytest.mark.parametrize("precision", ["float32", "float16"])
    @pytest.mark.parametrize("name", ["parakeet", "context-3"])
    def test_many_utterances_at_once(self, cupy, name, precision, how):  # noqa: F811
        """More joint rows and predictor steps than are staged at once; some, and so few that every block makes all."""
        spec, options = MODELS[name]
        weights = random_weights(spec, seed=3, **options)
        frames, lengths = random_frames(40, spec.encoder_size, 6, seed=3)
        decoder = cuda_decoder(weights, spec, precision, **LAUNCHES[how])
        together = decoder.decode(frames, lengths)
        for some in (slice(0, 1), slice(3, 8), slice(8, 20)):
            check_same_bits(together[some], decoder.decode(frames[some], lengths[some]))
        if precision == "float32":
            check_same(together, fused(weights, spec).decode(frames, lengths))

    @pytest.mark.parametrize("chunk", [1, 4])
    def test_chunks_and_streams_that_come_and_go(self, cupy, model, chunk):  # noqa: F811
        spec, weights, frames, lengths = model
        decoder = cuda_decoder(weights, spec)
        whole = decoder.decode(frames, lengths)
        tokens, state, order = [[] for _ in whole], None, np.arange(len(whole))
        rng = np.random.default_rng(chunk)
        for start in range(0, frames.shape[2], chunk):
            piece = frames[order, :, start : start + chunk]
            found, state = decoder.decode_chunk(piece, np.clip(lengths[order] - start, 0, piece.shape[2]), state)
            for stream, hypothesis in zip(order, found):
                tokens[stream] += list(zip(hypothesis.tokens.tolist(), hypothesis.frames.tolist()))
            shuffled = rng.permutation(len(order))
            first, second = state.select(shuffled[:2]), state.select(shuffled[2:])
            state, order = tdt.decoder.DecoderState.join([first, second]), order[shuffled]
        assert tokens == [list(zip(h.tokens.tolist(), h.frames.tolist())) for h in whole]

    def test_reduced_precisions_are_near(self, cupy, model):  # noqa: F811
        spec, weights, frames, lengths = model
        expected, _ = specified(model, tdt.Greedy())
        for precision, tolerance in (("float16", 0.02), ("bfloat16", 0.15)):
            found = cuda_decoder(weights, spec, precision).decode(frames, lengths)
            compared = 0
            for a, b in zip(expected, found):
                both = min(len(a), len(b))  # up to a token or a duration that rounding changes, they score the same
                differ = (a.tokens[:both] != b.tokens[:both]) | (a.frames[:both] != b.frames[:both])
                same = np.flatnonzero(np.append(differ, True))[0]
                np.testing.assert_allclose(a.token_logprobs[:same], b.token_logprobs[:same], atol=tolerance)
                compared += same
            assert compared

    @pytest.mark.parametrize("how", LAUNCHES)
    def test_a_full_log_is_emptied(self, cupy, monkeypatch, how):  # noqa: F811
        spec = tdt.TransducerSpec(vocab_size=12, encoder_size=6)
        weights = random_weights(spec, seed=1)
        weights.output.bias[spec.blank] = -3  # a token nearly everywhere
        frames, lengths = random_frames(3, 6, 40, seed=1)
        decoder = cuda_decoder(weights, spec, slots=2, **LAUNCHES[how])
        expected = decoder.decode(frames, lengths)
        monkeypatch.setattr(fused_greedy, "_MOST_LOGGED", 3)
        check_same_bits(expected, decoder.decode(frames, lengths))

    def test_bad_numbers_touch_no_other_utterance(self, cupy, model):  # noqa: F811
        spec, weights, frames, lengths = model
        decoder = cuda_decoder(weights, spec)
        expected = decoder.decode(frames, lengths)
        longest = int(np.argmax(lengths))
        frames = frames.copy()
        frames[longest, :, 2:] = np.nan
        found = decoder.decode(frames, lengths)
        for i in range(len(frames)):
            if i != longest:
                check_same_bits([expected[i]], [found[i]])
        assert (found[longest].frames < 2).all(), "a joint row without numbers is blank"

    def test_nothing_to_do(self, cupy, model):  # noqa: F811
        spec, weights, frames, lengths = model
        decoder = cuda_decoder(weights, spec)
        assert [len(h) for h in decoder.decode(frames[:2], [0, 0])] == [0, 0]
        assert [len(h) for h in decoder.decode(frames[:2], [0, 0], tdt.Beam(size=2))] == [0, 0]
        assert decoder.decode(frames[:0]) == []

    def test_copies_and_launches_do_not_grow_with_the_audio(self):
        """One launch decodes everything, and the results are copied to the host once."""
        spec = tdt.TransducerSpec(vocab_size=12, encoder_size=6)
        counts = []
        with on("emulated"):
            weights = random_weights(spec, seed=1)
            weights.output.bias[spec.blank] = -1
            decoder = cuda_decoder(weights, spec)
            for length in (8, 8, 120):
                frames, lengths = random_frames(2, 6, length, seed=1)
                before = dict(TRANSFERS)
                tokens = sum(map(len, decoder.decode(frames, lengths)))
                counts.append(({name: TRANSFERS[name] - before[name] for name in TRANSFERS}, tokens))
        assert counts[1][0] == counts[2][0] and counts[2][1] > counts[1][1] + 20


class TestBeam:
    @pytest.mark.parametrize("name", SEARCHES)
    def test_it_is_the_specification(self, cupy, model, name):  # noqa: F811
        spec, weights, frames, lengths = model
        if spec.big_blanks and "malsd" in name:
            pytest.skip("malsd knows one blank, as NeMo's does")
        expected = fused(weights, spec).decode(frames, lengths, SEARCHES[name])
        found = cuda_decoder(weights, spec).decode(frames, lengths, SEARCHES[name])
        check_same(found, expected)
        for a, b in zip(found, expected):
            if b.token_confidence is not None:
                np.testing.assert_allclose(a.token_confidence, b.token_confidence, atol=1e-4)

    @pytest.mark.parametrize("how", LAUNCHES)
    @pytest.mark.parametrize("name", ["one-layer", "context-2"])
    def test_launches_are_the_same(self, cupy, name, how):  # noqa: F811
        spec, options = MODELS[name]
        weights = random_weights(spec, seed=5, **options)
        frames, lengths = random_frames(5, spec.encoder_size, 15, seed=2)
        expected = cuda_decoder(weights, spec).decode(frames, lengths, tdt.Beam(size=3))
        decoder = cuda_decoder(weights, spec, slots=2, **LAUNCHES[how])
        check_same(decoder.decode(frames, lengths, tdt.Beam(size=3)), expected, tolerance=0)

    @pytest.mark.parametrize("name", ["tsd", "confident"])
    @pytest.mark.parametrize("kind", ["parakeet", "context-2", "context-3"])
    def test_chunks(self, cupy, kind, name):  # noqa: F811
        spec, options = MODELS[kind]
        weights = random_weights(spec, seed=4, **options)
        frames, lengths = random_frames(3, spec.encoder_size, 14, seed=4)
        decoder, search = cuda_decoder(weights, spec), SEARCHES[name]
        whole = decoder.decode(frames, lengths, search)
        state, parts = None, [[] for _ in whole]
        for start in range(0, 14, 5):
            piece = frames[:, :, start : start + 5]
            here = np.clip(lengths - start, 0, piece.shape[2])
            found, state = decoder.decode_chunk(piece, here, state, final=start + 5 >= 14, search=search)
            for part, hypothesis in zip(parts, found):
                part += hypothesis.tokens.tolist()
        assert parts == [h.tokens.tolist() for h in whole]

    @pytest.mark.parametrize("how", LAUNCHES)
    def test_room_is_made_for_more_records(self, cupy, monkeypatch, how):  # noqa: F811
        spec, options = MODELS["parakeet"]
        weights = random_weights(spec, seed=4, **options)
        frames, lengths = random_frames(3, spec.encoder_size, 25, seed=4)
        decoder = cuda_decoder(weights, spec, **LAUNCHES[how])
        expected = decoder.decode(frames, lengths, tdt.Beam(size=3))
        monkeypatch.setattr(cuda_beam, "_RECORDS_PER_FRAME", 0)
        check_same(decoder.decode(frames, lengths, tdt.Beam(size=3)), expected, tolerance=0)

    def test_phrases_by_utterance(self, cupy):  # noqa: F811
        spec, options = MODELS["parakeet"]
        weights = random_weights(spec, seed=9, **options)
        frames, lengths = random_frames(3, spec.encoder_size, 16, seed=9)
        phrases = [[[3, 5], [7]], [], [[1, 2, 3]]]
        boost = PhraseBoost.per_row(phrases, weight=1.5)
        allow = [None, tdt.OnlyTokens([3, 5, 7]), tdt.ExceptTokens([1, 2])]
        masked = tdt.Beam(size=3, fusion=[boost], allow=allow)
        for search in (tdt.Beam(size=3, fusion=[boost]), tdt.Greedy(fusion=[boost]), masked):
            expected = fused(weights, spec).decode(frames, lengths, search)
            check_same(cuda_decoder(weights, spec).decode(frames, lengths, search), expected)

    @pytest.mark.parametrize("name", [name for name in SEARCHES if "allowed" not in name])
    def test_fewer_tokens_than_hypotheses(self, cupy, name):  # noqa: F811
        spec = tdt.TransducerSpec(vocab_size=1, durations=(), encoder_size=4)
        weights = random_weights(spec, seed=3)
        frames, lengths = random_frames(3, 4, 9, seed=3)
        expected = fused(weights, spec).decode(frames, lengths, SEARCHES[name])
        check_same(cuda_decoder(weights, spec).decode(frames, lengths, SEARCHES[name]), expected)

    def test_what_is_refused(self, cupy):  # noqa: F811
        spec, options = MODELS["parakeet"]
        decoder = cuda_decoder(random_weights(spec, **options), spec)
        frames, lengths = random_frames(1, spec.encoder_size, 4, seed=0)
        with pytest.raises(tdt.InputError, match="make the beam smaller, or use device='cpu'"):
            decoder.decode(frames, lengths, tdt.Beam(size=60))
        with pytest.raises(tdt.InputError, match="ScoringFunction runs only on the CPU"):
            search = kernels_search(decoder)
            cuda_beam.check_beam(search)
        for look in (decoder.trace, decoder.profile):
            with pytest.raises(tdt.InputError, match="(on the cpu, this one is on cuda|on the cpu, this decoder has)"):
                look(frames, lengths, tdt.Beam(size=2))


def kernels_search(decoder):
    """A beam search that a user's function steers."""
    from tdtdecode.kernels import BeamSearch

    search = BeamSearch(decoder.spec, tdt.Beam(size=2), np.array([4]), "reference")
    search.fusions = (BoundFusion(1.0, None, object(), np.zeros((1, 1), np.int64)),)
    return search


class TestNetwork:
    def test_precisions_and_kernels(self, cupy):  # noqa: F811
        spec, options = MODELS["parakeet"]
        weights = random_weights(spec, **options)
        from tdtdecode.networks.cuda.fused import FusedCudaNetwork

        with pytest.raises(tdt.InputError, match="no precision 'int8' on cuda: float32, float16, bfloat16"):
            FusedCudaNetwork(weights, spec, "int8")
        with pytest.raises(tdt.InputError, match="does not exist for kernels 'reference': use 'cuda'"):
            tdt.Decoder(FusedCudaNetwork(weights, spec), spec, kernels="reference")
        with pytest.raises(tdt.InputError, match="8 predictor layers at most, this model has 9"):
            FusedCudaNetwork(random_weights(spec, layers=9), spec)
        with pytest.raises(tdt.InputError, match="E = 20, got"):
            tdt.Decoder(FusedCudaNetwork(weights, spec), replace(spec, encoder_size=None)).decode(
                np.zeros((1, 3, 4), np.float32)
            )

    def test_cards_that_lack_something(self):
        spec, options = MODELS["parakeet"]
        weights = random_weights(spec, **options)
        with on("emulated", capability="75"), pytest.raises(tdt.DeviceError, match="choose float16"):
            cuda_decoder(weights, spec, "bfloat16")
        with on("emulated", shared_memory=20_000), pytest.raises(tdt.DeviceError, match="bytes of shared memory"):
            decoder = cuda_decoder(weights, spec)
            decoder.decode(np.zeros((1, 20, 3), np.float32))
        with on("emulated", count=0), pytest.raises(tdt.DeviceError, match="no CUDA device is visible"):
            cuda_decoder(weights, spec)

    @pytest.mark.parametrize("shared_memory", [48 * 1024, 60 * 1024, 200 * 1024])
    def test_weights_lie_wherever_they_fit(self, shared_memory):
        spec, options = MODELS["parakeet"]
        weights = random_weights(spec, seed=4, **options)
        frames, lengths = random_frames(2, spec.encoder_size, 12, seed=2)
        expected = fused(weights, spec).decode(frames, lengths)
        for precision in ("float32", "float16"):
            with on("emulated", shared_memory=shared_memory):
                found = cuda_decoder(weights, spec, precision).decode(frames, lengths)
            if precision == "float32":
                check_same(found, expected)
            assert any(map(len, found))

    @pytest.mark.parametrize("blocks, threads", [(1, 32), (2, 128), (5, 64)])
    @pytest.mark.parametrize("name", ["three-layers", "context-3"])
    def test_any_grid(self, name, blocks, threads):
        spec, options = MODELS[name]
        weights = random_weights(spec, seed=2, **options)
        frames, lengths = random_frames(4, spec.encoder_size, 12, seed=2)
        expected = fused(weights, spec).decode(frames, lengths)
        with on("emulated", multiprocessors=blocks, threads=threads):
            check_same(cuda_decoder(weights, spec).decode(frames, lengths), expected)
            beam = tdt.Beam(size=2)
            check_same(
                cuda_decoder(weights, spec).decode(frames, lengths, beam),
                fused(weights, spec).decode(frames, lengths, beam),
            )

    def test_many_tokens_and_no_durations(self):
        """A vocabulary of real size, which needs more tiles than blocks hold, and a joint row for every frame."""
        spec = tdt.TransducerSpec(13_087, (), encoder_size=12)
        weights = random_weights(spec, hidden=16, joint=16, layers=1, seed=3)
        weights.output.bias[spec.blank] += 1.5  # blanks too, among so many tokens
        frames, _ = random_frames(1, 12, 5, seed=3)
        search = tdt.Greedy(max_symbols=2)
        expected = fused(weights, spec).decode(frames, search=search)
        with on("emulated"):
            check_same(cuda_decoder(weights, spec).decode(frames, search=search), expected)
        assert len(expected[0]) > 0


@pytest.mark.card
class TestOnCard:
    """What only a card can show."""

    @pytest.mark.parametrize("models", [100, pytest.param(1000, marks=pytest.mark.exhaustive)])
    def test_random_models(self, models):
        rng = np.random.default_rng(int(os.environ.get("TDTDECODE_TEST_SEED", "0")))
        ties = 0
        with on("card"):
            for _ in range(models):
                durations = tuple(rng.integers(0, 6, rng.integers(0, 6)).tolist())
                vocab_size = int(rng.integers(1, 300))
                blank, encoder_size = int(rng.integers(0, vocab_size + 1)), int(rng.integers(1, 80))
                spec = tdt.TransducerSpec(vocab_size, durations, blank, encoder_size)
                hidden, joint, layers, batch = rng.integers([1, 1, 0, 1], [70, 90, 4, 20]).tolist()
                seed = int(rng.integers(1 << 30))
                weights = random_weights(spec, hidden, joint, layers, seed=seed)
                frames, lengths = random_frames(batch, encoder_size, 40, seed)
                expected, trace = specified((spec, weights, frames, lengths), tdt.Greedy())
                found = cuda_decoder(weights, spec).decode(frames, lengths)
                ties += check_hypotheses(expected, trace, found, spec, tdt.Greedy())
        print(json.dumps({"models": models, "utterances that differ by a tie": ties}))

    @pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
    @pytest.mark.parametrize("vocab_size, durations", [(1024, range(5)), (8192, range(5)), (13_087, ())])
    def test_real_sizes(self, vocab_size, durations, precision):
        """Parakeet's sizes: weights resident in shared memory, full batches, and the same bits from every launch."""
        spec = tdt.TransducerSpec(vocab_size, tuple(durations), encoder_size=1024)
        weights = random_weights(spec, 640, 640, 2, seed=1)
        frames, lengths = random_frames(130, 1024, 60, seed=1)
        with on("card"):
            decoder = cuda_decoder(weights, spec, precision)
            together = decoder.decode(frames, lengths)
            for how in LAUNCHES.values():
                other = cuda_decoder(weights, spec, precision, **how)
                check_same_bits(together[:7], other.decode(frames[:7], lengths[:7]))
            if precision == "float32":
                expected, trace = specified((spec, weights, frames[:4], lengths[:4]), tdt.Greedy())
                check_hypotheses(expected, trace, together[:4], spec, tdt.Greedy())
