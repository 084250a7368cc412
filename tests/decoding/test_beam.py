"""Beam search: its objective, compared with exhaustive search, and everything that must not change its results."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest

import tdtdecode as tdt
from tests.conftest import KERNELS, RandomTransducer, in_fork, random_frames

NO_PRUNING = tdt.Beam(size=1024, threshold=math.inf, max_symbols=2)
SPECS = {
    "tdt": tdt.TransducerSpec(vocab_size=7),
    "blank-first": tdt.TransducerSpec(vocab_size=6, durations=(0, 1, 2), blank=0),
    "no-zero": tdt.TransducerSpec(vocab_size=5, durations=(1, 2, 4, 8)),
    "odd": tdt.TransducerSpec(vocab_size=4, durations=(3, 0, 3, 1)),
    "rnnt": tdt.TransducerSpec(vocab_size=6, durations=()),
    "multi-blank": tdt.TransducerSpec(vocab_size=5, durations=(), big_blanks=(2, 3)),
}
SEARCHES = {
    "tsd": tdt.Beam(size=4),
    "tsd-unpruned": tdt.Beam(size=3, threshold=math.inf, max_symbols=2),
    "tsd-warm": tdt.Beam(size=4, temperature=1.4, blank_penalty=-0.5),
    "malsd": tdt.Beam(strategy="malsd", size=4, max_symbols=3),
    "malsd-late": tdt.Beam(strategy="malsd", size=3, pruning_mode="late", blank_penalty=0.5),
    "tsd-allowed": tdt.Beam(size=4, temperature=1.2, allow=tdt.OnlyTokens([1, 2])),
    "malsd-allowed": tdt.Beam(strategy="malsd", size=4, max_symbols=3, allow=tdt.ExceptTokens([1, 3])),
    "greedy-allowed": tdt.Greedy(confidence=tdt.Confidence(), allow=tdt.OnlyTokens([1, 3])),
}


@pytest.fixture(params=SPECS, ids=str)
def spec(request):
    return SPECS[request.param]


@pytest.fixture(params=SEARCHES, ids=str)
def search(request, spec):
    if "malsd" in request.param and spec.big_blanks:
        pytest.skip("malsd knows one blank, as NeMo's does")
    return SEARCHES[request.param]


def check_same(found, expected, tolerance=1e-4):
    """Assert that two results have the same n-best lists."""
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        assert len(a.nbest) == len(b.nbest)
        for x, y in zip(a.nbest, b.nbest):
            for name in ("tokens", "frames", "durations"):
                np.testing.assert_array_equal(getattr(x, name), getattr(y, name))
            for name in ("token_logprobs", "duration_logprobs", "score"):
                one, other = getattr(x, name), getattr(y, name)
                if not np.array_equal(one, other):
                    np.testing.assert_allclose(one, other, atol=tolerance, rtol=1e-6 if tolerance else 0)


def in_chunks(decoder, frames, lengths, search, chunk):
    """The result of decoding in chunks, put together."""
    state, parts = None, [[] for _ in lengths]
    for start in range(0, max(frames.shape[2], 1), chunk):
        piece = frames[:, :, start : start + chunk]
        last = start + chunk >= frames.shape[2]
        here = np.clip(lengths - start, 0, piece.shape[2])
        found, state = decoder.decode_chunk(piece, here, state, final=last, search=search)
        if last:
            return [joined(before, hypothesis) for before, hypothesis in zip(parts, found)]
        for before, hypothesis in zip(parts, found):
            before.append(hypothesis)


def joined(before, last):
    fields = ("tokens", "frames", "durations", "token_logprobs", "duration_logprobs")
    entries = [
        tdt.Hypothesis(*(np.concatenate([getattr(part, name) for part in (*before, entry)]) for name in fields),
                       entry.score)
        for entry in last.nbest
    ]  # fmt: skip
    return tdt.Hypothesis(*(getattr(entries[0], name) for name in (*fields, "score")), alternatives=tuple(entries[1:]))


class Alignments:
    """Every alignment of a tiny model, scored by the definition of the search's objective."""

    def __init__(self, model, spec, frames, max_symbols, temperature=1.0):
        self.model, self.spec, self.max_symbols, self.temperature = model, spec, max_symbols, temperature
        self.frames = np.ascontiguousarray(frames.T)
        self.states, self.rows = {}, {}
        self.blanks = {spec.blank + i: frames for i, frames in enumerate(spec.layout.blank_frames.tolist())}
        self.total = defaultdict(lambda: -math.inf)
        self.best = {}
        self._walk((), (), 0, 0, 0.0)

    def row(self, tokens, frame):
        """Log-probabilities of tokens and of durations after a prefix, in float64."""
        if (tokens, frame) not in self.rows:
            row = self.model.joint(self.frames[frame : frame + 1], self._state(tokens)[0])[0].astype(np.float64)
            row = row / self.temperature
            entries = self.spec.token_entries
            self.rows[tokens, frame] = normalised(row[:entries]), normalised(row[entries:])
        return self.rows[tokens, frame]

    def _state(self, tokens):
        if tokens not in self.states:
            before = self._state(tokens[:-1])[1] if tokens else None
            last = tokens[-1] if tokens else self.spec.blank
            self.states[tokens] = self.model.predict(np.array([last]), before)
        return self.states[tokens]

    def _walk(self, tokens, steps, frame, symbols, score):
        if frame >= len(self.frames):
            self.total[tokens] = np.logaddexp(self.total[tokens], score)
            if tokens not in self.best or score > self.best[tokens][0]:
                self.best[tokens] = score, steps
            return
        logprobs, timing = self.row(tokens, frame)
        for index, duration in enumerate(self.spec.durations or (0,)):
            duration_logprob = timing[index] if self.spec.durations else 0.0
            for token, logprob in enumerate(logprobs):
                step = score + logprob + duration_logprob
                if token in self.blanks:
                    self._walk(tokens, steps, frame + max(duration, self.blanks[token]), 0, step)
                    continue
                emitted = (frame, duration, logprob, duration_logprob)
                after = frame + duration, 0
                if duration == 0:
                    after = (frame + 1, 0) if symbols + 1 >= self.max_symbols else (frame, symbols + 1)
                self._walk((*tokens, token), (*steps, emitted), *after, step)


def normalised(part):
    return part - np.logaddexp.reduce(part) if len(part) else part


TINY = {
    "tdt": (tdt.TransducerSpec(vocab_size=2, durations=(0, 1, 2)), 3),
    "no-zero": (tdt.TransducerSpec(vocab_size=2, durations=(1, 3)), 5),
    "blank-first": (tdt.TransducerSpec(vocab_size=2, durations=(2, 0), blank=0), 4),
    "rnnt": (tdt.TransducerSpec(vocab_size=2, durations=()), 3),
    "multi-blank": (tdt.TransducerSpec(vocab_size=2, durations=(), big_blanks=(2, 3)), 4),
}


@pytest.mark.parametrize("name", TINY)
def test_without_pruning_it_is_exhaustive_search(name, kernels):
    spec, length = TINY[name]
    for seed in range(1 if kernels == "reference" else 10):
        model = RandomTransducer(spec, seed)
        frames, _ = random_frames(1, model.encoder_size, length, seed)
        alignments = Alignments(model, spec, frames[0], max_symbols=2)
        assert np.logaddexp.reduce(list(alignments.total.values())) == pytest.approx(0, abs=1e-6)
        found = model.decoder(spec, kernels=kernels).decode(frames, search=NO_PRUNING)[0].nbest
        expected = sorted(alignments.total.items(), key=lambda entry: -entry[1])
        assert len(found) == min(len(expected), 1024)
        for hypothesis, (_, score) in zip(found, expected):
            assert hypothesis.score == pytest.approx(score, abs=1e-4)
            tokens = tuple(hypothesis.tokens.tolist())
            assert alignments.total[tokens] == pytest.approx(score, abs=1e-4)
            _, steps = alignments.best[tokens]
            columns = zip(hypothesis.frames, hypothesis.durations, hypothesis.token_logprobs,
                          hypothesis.duration_logprobs)  # fmt: skip
            for step, expected_step in zip(columns, steps, strict=True):
                assert step == pytest.approx(expected_step, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.01, 0.5, 1.5, 100])
def test_temperature_is_that_of_the_softmaxes(kernels, temperature):
    spec, length = TINY["tdt"]
    model = RandomTransducer(spec, 1)
    frames, _ = random_frames(1, model.encoder_size, length, 1)
    warm = Alignments(model, spec, frames[0], max_symbols=2, temperature=temperature)
    plain = Alignments(model, spec, frames[0], max_symbols=2)
    search = tdt.Beam(size=1024, threshold=math.inf, max_symbols=2, temperature=temperature)
    for hypothesis in model.decoder(spec, kernels=kernels).decode(frames, search=search)[0].nbest:
        tokens = tuple(hypothesis.tokens.tolist())
        assert hypothesis.score == pytest.approx(warm.total[tokens], rel=1e-4, abs=1e-3)
        for i, token in enumerate(tokens):  # reported log-probs ignore it
            logprobs, _ = plain.row(tokens[:i], int(hypothesis.frames[i]))
            assert hypothesis.token_logprobs[i] == pytest.approx(logprobs[token], abs=1e-4)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_reported_scores_are_those_of_the_path(spec, size):
    """Log-probs are those of their prefix and frame. A score is at most the sum over all alignments."""
    for seed in range(10):
        model = RandomTransducer(spec, seed)
        frames, lengths = random_frames(3, model.encoder_size, 8, seed)
        decoder = model.decoder(spec)
        for utterance, result in enumerate(decoder.decode(frames, lengths, search=tdt.Beam(size=size, max_symbols=3))):
            scores = [hypothesis.score for hypothesis in result.nbest]
            assert scores == sorted(scores, reverse=True)
            for hypothesis in result.nbest:
                tokens = tuple(hypothesis.tokens.tolist())
                rows = Rows(model, spec, frames[utterance, :, : lengths[utterance]])
                for i, token in enumerate(tokens):
                    logprobs, timing = rows.row(tokens[:i], int(hypothesis.frames[i]))
                    assert hypothesis.token_logprobs[i] == pytest.approx(logprobs[token], abs=1e-4)
                    if spec.durations:
                        options = timing[np.array(spec.durations) == hypothesis.durations[i]]
                        assert np.abs(options - hypothesis.duration_logprobs[i]).min() < 1e-4
                total = rows.forward(tokens, max_symbols=3)
                path = hypothesis.token_logprobs.sum() + hypothesis.duration_logprobs.sum()
                assert path - 100 < hypothesis.score <= total + 1e-4
                if size == 1:
                    assert hypothesis.score <= path + 1e-4  # the blanks' log-probs come on top


class Rows(Alignments):
    """The joint rows of a model, and the exact score of a token sequence by the forward algorithm."""

    def _walk(self, *_):
        pass

    def __init__(self, model, spec, frames):
        super().__init__(model, spec, frames, 0)

    def forward(self, tokens, max_symbols):
        end = len(self.frames)
        at = defaultdict(lambda: -math.inf, {(0, 0, 0): 0.0})  # frame, symbols there, tokens emitted
        done = -math.inf
        while at:
            position = min(at)
            frame, symbols, emitted = position
            score = at.pop(position)
            if frame >= end:
                if emitted == len(tokens):
                    done = np.logaddexp(done, score)
                continue
            logprobs, timing = self.row(tokens[:emitted], frame)
            for index, duration in enumerate(self.spec.durations or (0,)):
                step = score + (timing[index] if self.spec.durations else 0.0)
                for entry, least in self.blanks.items():
                    blank = frame + max(duration, least), 0, emitted
                    at[blank] = np.logaddexp(at[blank], step + logprobs[entry])
                if emitted == len(tokens):
                    continue
                after = frame + duration, 0
                if duration == 0:
                    after = (frame + 1, 0) if symbols + 1 >= max_symbols else (frame, symbols + 1)
                token = *after, emitted + 1
                at[token] = np.logaddexp(at[token], step + logprobs[tokens[emitted]])
        return done


@pytest.mark.parametrize("trouble", [{}, {"levels": 2}, {"bad": 0.2}, {"levels": 1, "bad": 0.5}], ids=str)
def test_a_beam_of_one_is_greedy(spec, kernels, trouble):
    for seed in range(2 if kernels == "reference" else 12):
        model = RandomTransducer(spec, seed, **trouble)
        frames, lengths = random_frames(5, model.encoder_size, 30, seed)
        decoder = model.decoder(spec, kernels=kernels)
        options = {"max_symbols": 1 + seed % 4, "blank_penalty": (seed % 3) - 1.0}
        greedy = decoder.decode(frames, lengths, search=tdt.Greedy(**options))
        for a, b in zip(greedy, decoder.decode(frames, lengths, search=tdt.Beam(size=1, **options))):
            for name in ("tokens", "frames", "durations"):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
            np.testing.assert_allclose(a.token_logprobs, b.token_logprobs, atol=1e-4)
            np.testing.assert_allclose(a.duration_logprobs, b.duration_logprobs, atol=1e-4)


def test_kernels_agree(spec, search):
    for seed in range(3):
        model = RandomTransducer(spec, seed)
        frames, lengths = random_frames(4, model.encoder_size, 20, seed)
        expected = model.decoder(spec, kernels="reference").decode(frames, lengths, search=search)
        for kernels in KERNELS[1:]:
            check_same(model.decoder(spec, kernels=kernels).decode(frames, lengths, search=search), expected)


def test_utterances_do_not_depend_on_the_batch(spec, search, kernels):
    model = RandomTransducer(spec, 3)
    frames, lengths = random_frames(9, model.encoder_size, 10 if kernels == "reference" else 25, 3)
    decoder = model.decoder(spec, kernels=kernels)
    whole = decoder.decode(frames, lengths, search=search)
    order = np.random.default_rng(0).permutation(9)
    check_same(decoder.decode(frames[order], lengths[order], search=search), [whole[i] for i in order], 0)
    parts = [decoder.decode(frames[part], lengths[part], search=search) for part in (slice(4), slice(4, None))]
    check_same(sum(parts, []), whole, 0)
    padded = np.pad(frames, ((0, 0), (0, 0), (0, 7)), constant_values=np.nan)
    check_same(decoder.decode(padded, lengths, search=search), whole, 0)
    noisy = frames.copy()
    for utterance, length in enumerate(lengths):
        noisy[utterance, :, length:] = 1e9
    check_same(decoder.decode(noisy, lengths, search=search), whole, 0)


@pytest.mark.parametrize("chunk", [1, 2, 5, 13])
def test_chunks_change_nothing(spec, kernels, chunk):
    search = tdt.Beam(size=3, max_symbols=3)
    for seed in range(1 if kernels == "reference" else 3):
        model = RandomTransducer(spec, seed)
        frames, lengths = random_frames(4, model.encoder_size, 26, seed)
        decoder = model.decoder(spec, kernels=kernels)
        whole = decoder.decode(frames, lengths, search=search)
        check_same(in_chunks(decoder, frames, lengths, search, chunk), whole, 0)


def test_chunks_change_malsd():
    """As NeMo prunes, hypotheses of different frames compete. The documentation says so where it speaks of chunks."""
    spec, search = tdt.TransducerSpec(vocab_size=8), tdt.Beam(strategy="malsd", size=3)
    differing = 0
    for seed in range(10):
        model = RandomTransducer(spec, seed)
        frames, lengths = random_frames(4, model.encoder_size, 24, seed)
        decoder = model.decoder(spec)
        whole = decoder.decode(frames, lengths, search)
        for hypothesis, found in zip(whole, in_chunks(decoder, frames, lengths, search, 5), strict=True):
            differing += hypothesis.tokens.tolist() != found.tokens.tolist()
        in_one = in_chunks(decoder, frames, lengths, search, 24)
        assert [h.tokens.tolist() for h in in_one] == [h.tokens.tolist() for h in whole]
    assert differing > 0, "chunks no longer change malsd: correct Decoder.decode_chunk, Beam and docs/decoding.md"


def test_what_a_chunk_returns_never_changes(spec):
    """Whatever audio follows, every hypothesis begins with the tokens returned so far."""
    model, search = RandomTransducer(spec, 1), tdt.Beam(size=3)
    frames, _ = random_frames(1, model.encoder_size, 40, 1)
    decoder = model.decoder(spec)
    first, state = decoder.decode_chunk(frames[:, :, :20], search=search)
    assert state.consumed.tolist() == [20]
    for seed in range(10):
        rest, _ = random_frames(1, model.encoder_size, 20, 100 + seed)
        whole = decoder.decode(np.concatenate([frames[:, :, :20], rest], 2), search=search)[0]
        for hypothesis in whole.nbest:
            np.testing.assert_array_equal(hypothesis.tokens[: len(first[0])], first[0].tokens)
            np.testing.assert_array_equal(hypothesis.frames[: len(first[0])], first[0].frames)


def test_streams_come_and_go(spec):
    model, search = RandomTransducer(spec, 5), tdt.Beam(size=3)
    frames, _ = random_frames(3, model.encoder_size, 24, 5)
    decoder = model.decoder(spec)
    whole = decoder.decode(frames, search=search)
    first, states = decoder.decode_chunk(frames[:2, :, :10], search=search)
    late, other = decoder.decode_chunk(frames[2:, :, :10], search=search)
    joined_state = tdt.DecoderState.join([other, states.select([1]), states.select([0])])
    order = [2, 1, 0]
    last, _ = decoder.decode_chunk(frames[order, :, 10:], state=joined_state, final=True, search=search)
    found = [joined([before], entry) for before, entry in zip([late[0], first[1], first[0]], last)]
    check_same(found, [whole[i] for i in order], 0)
    again, _ = decoder.decode_chunk(frames[order, :, 10:], state=joined_state, final=True, search=search)
    check_same(again, last, 0)  # a state is a value


def test_a_state_belongs_to_its_search(spec):
    decoder = RandomTransducer(spec, 0).decoder(spec)
    frames, _ = random_frames(2, 6, 10, 0)
    _, beam = decoder.decode_chunk(frames, search=tdt.Beam(size=2))
    _, greedy = decoder.decode_chunk(frames)
    for state, search in ((beam, tdt.Beam(size=3)), (beam, tdt.Greedy()), (greedy, tdt.Beam(size=2))):
        with pytest.raises(tdt.InputError, match="state comes from another search"):
            decoder.decode_chunk(frames, state=state, search=search)
    with pytest.raises(tdt.InputError, match="different searches"):
        tdt.DecoderState.join([beam, greedy])


def test_beams_larger_than_all_there_is(kernels):
    spec = tdt.TransducerSpec(vocab_size=1, durations=(1,))
    model = RandomTransducer(spec, 0)
    frames, lengths = random_frames(3, model.encoder_size, 3, 0)
    for strategy in ("tsd", "malsd"):
        found = model.decoder(spec, kernels=kernels).decode(
            frames, lengths, search=tdt.Beam(strategy=strategy, size=50, threshold=math.inf)
        )
        for hypotheses, length in zip(found, lengths):
            assert len({tuple(h.tokens.tolist()) for h in hypotheses.nbest}) == length + 1
            assert [len(h) for h in hypotheses.nbest if len(h) > length] == []


@pytest.mark.parametrize("bad", [0.3, 1.0])
def test_bad_numbers(spec, search, kernels, bad):
    """In rows without numbers blank is certain. No score is NaN, and other utterances do not change."""
    model = RandomTransducer(spec, 2, bad=bad)
    frames, lengths = random_frames(4, model.encoder_size, 12, 2)
    decoder = model.decoder(spec, kernels=kernels)
    whole = decoder.decode(frames, lengths, search=search)
    for i, result in enumerate(whole):
        assert result.nbest and not any(math.isnan(h.score) for h in result.nbest)
        check_same(decoder.decode(frames[i : i + 1], lengths[i : i + 1], search=search), [result], 0)


def test_nothing_to_decode(search):
    decoder = RandomTransducer(SPECS["tdt"], 0).decoder(SPECS["tdt"])
    assert decoder.decode(np.empty((0, 6, 4), np.float32), search=search) == []
    for frames in (np.empty((2, 6, 0), np.float32), np.zeros((2, 6, 4), np.float32)):
        for result in decoder.decode(frames, np.zeros(2, int), search=search):
            assert len(result) == 0 and result.score == 0 and result.nbest == [result]


def test_nbest_is_the_beginning_of_the_list(search):
    if isinstance(search, tdt.Greedy):
        pytest.skip("greedy search has one hypothesis")
    model = RandomTransducer(SPECS["tdt"], 4)
    frames, lengths = random_frames(4, model.encoder_size, 20, 4)
    decoder = model.decoder(SPECS["tdt"])
    whole = decoder.decode(frames, lengths, search=search)
    few = decoder.decode(frames, lengths, search=tdt.Beam(**{**vars(search), "nbest": 2}))
    for a, b in zip(whole, few):
        assert [h.score for h in b.nbest] == [h.score for h in a.nbest[:2]]


def test_many_threads_and_a_fork():
    from concurrent.futures import ThreadPoolExecutor

    model, search = RandomTransducer(SPECS["tdt"], 6), tdt.Beam(size=4)
    frames, lengths = random_frames(6, model.encoder_size, 30, 6)
    decoder = model.decoder(SPECS["tdt"])
    expected = decoder.decode(frames, lengths, search=search)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: decoder.decode(frames, lengths, search=search), range(32)):
            check_same(found, expected, 0)
    assert in_fork(lambda: [h.score for h in decoder.decode(frames, lengths, search=search)]) == [
        h.score for h in expected
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "maes"}, "strategy must be 'tsd' or 'malsd'"),
        ({"size": 0}, "size must be from 1 to 1024"),
        ({"size": 2.5}, "size must be an integer"),
        ({"nbest": 5}, "nbest must be at most size, 4"),
        ({"nbest": 0}, "nbest must be at least 1"),
        ({"threshold": 0}, "threshold must be a positive number"),
        ({"threshold": math.nan}, "threshold must be a positive number"),
        ({"temperature": 0}, "temperature must be a number from 0.01 to 100"),
        ({"temperature": math.nan}, "temperature must be a number from 0.01 to 100"),
        ({"temperature": 2.0, "strategy": "malsd"}, "temperature is an option of strategy 'tsd'"),
        ({"blank_penalty": math.inf}, "blank_penalty must be a finite number"),
        ({"max_symbols": 0}, "max_symbols must be from 1"),
        ({"pruning_mode": "late"}, "options of strategy 'malsd'"),
        ({"strategy": "malsd", "blank_mode": "none"}, "blank_mode must be"),
        ({"fusion": "lm.arpa"}, "fusion must be a list of NgramLM"),
        ({"fusion": [3]}, r"fusion\[0\] must be an NgramLM, a PhraseBoost or a ScoringFunction, got 3"),
        ({"confidence": "entropy"}, "confidence must be Confidence"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(tdt.InputError, match=message):
        tdt.Beam(**options)
