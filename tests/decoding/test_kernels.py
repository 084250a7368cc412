"""Every kernel set, compared with the specification: first rule by rule, then on random input."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.allowed import Binding, Masks, no_masks
from tdtdecode.options import BEAM_OPTIONS, greedy_options
from tests.conftest import KERNELS, RandomTransducer, random_decodes, random_frames
from tests.decoding.compare import check_same_hypotheses, check_traces, traced_decode

INF, NAN = np.inf, np.nan
LAYOUT = tdt.TransducerSpec(9).layout


def decide(kernels, rows, spec, trace=False, **options):
    rows = np.ascontiguousarray(rows, np.float32)
    decisions, logprobs = np.full((2, len(rows)), -9, np.int32), np.full((2, len(rows)), NAN, np.float32)
    search = tdt.Greedy(**options)
    masks = Binding(spec, None).masks(search.allow, len(rows))
    tdt.kernels.get(kernels).decide(rows, spec.layout, greedy_options(search, trace), masks, decisions, logprobs)
    return decisions, logprobs


def decide_one(kernels, tokens, durations=(0.0,), table=(1,), blank=None, **options):
    spec = tdt.TransducerSpec(len(tokens) - 1, table, blank)
    decisions, logprobs = decide(kernels, [[*tokens, *durations]], spec, **options)
    return (*decisions[:, 0].tolist(), *logprobs[:, 0].tolist())


class TestRow:
    def test_parts_are_decided_independently(self, kernels):
        token, duration, token_lp, duration_lp = decide_one(kernels, [0, 3, 1, 2], [5, 9, 7], (0, 1, 4))
        assert (token, duration) == (1, 1)
        assert token_lp == pytest.approx(3 - np.log(np.exp([0, 3, 1, 2]).sum()), abs=1e-6)
        assert duration_lp == pytest.approx(9 - np.log(np.exp([5.0, 9, 7]).sum()), abs=1e-6)

    @pytest.mark.parametrize("blank", [0, 2, 4])
    def test_blank_anywhere(self, kernels, blank):
        tokens = [1.0, 0, 0, 0, 0]
        tokens[blank] = 2
        assert decide_one(kernels, tokens, blank=blank)[0] == blank
        tokens[blank] = -1
        assert decide_one(kernels, tokens, blank=blank)[0] == (0 if blank else 1)

    @pytest.mark.parametrize("blank, expected", [(0, 0), (2, 1), (3, 1)])
    def test_lowest_index_wins_a_tie(self, kernels, blank, expected):
        tokens = [7.0, 7, 7, 7]
        tokens[0] = 7.0 if blank == 0 else 6.0
        token, duration, *_ = decide_one(kernels, tokens, [3, 4, 4], (8, 6, 2), blank=blank)
        assert (token, duration) == (expected, 6)

    def test_negative_zero_ties_with_zero(self, kernels):
        assert decide_one(kernels, [-0.0, 0.0, -1], [-0.0, 0.0], (3, 5), blank=2)[:2] == (0, 3)

    def test_penalty_steers_and_is_not_reported(self, kernels):
        token, _, token_lp, _ = decide_one(kernels, [1.0, 2.0], blank_penalty=1.5)
        assert token == 0
        assert token_lp == pytest.approx(1 - np.log(np.exp([1.0, 2.0]).sum()), abs=1e-6)
        assert decide_one(kernels, [1.0, 2.0], blank_penalty=1.0)[0] == 0  # a tie: the lower index
        assert decide_one(kernels, [2.0, 1.0], blank_penalty=-1.5)[0] == 1

    def test_nan_counts_as_minus_infinity(self, kernels):
        token, duration, token_lp, duration_lp = decide_one(kernels, [NAN, -5, NAN, -9], [NAN, -2], (3, 4))
        assert (token, duration) == (1, 4)
        assert token_lp == pytest.approx(-np.log1p(np.exp(-4)), abs=1e-6)
        assert duration_lp == 0

    def test_infinity_counts_as_the_largest_float(self, kernels):
        token, duration, token_lp, duration_lp = decide_one(kernels, [1, INF, INF, 0], [0, INF], (3, 4))
        assert (token, duration) == (1, 4)
        assert token_lp == pytest.approx(-np.log(2), abs=1e-6)
        assert duration_lp == 0
        largest = np.finfo(np.float32).max
        assert decide_one(kernels, [0, largest, INF, 0])[0] == 1

    @pytest.mark.parametrize("nothing", [NAN, -INF])
    @pytest.mark.parametrize("blank", [0, 3])
    def test_a_part_without_a_number(self, kernels, nothing, blank):
        token, duration, *_ = decide_one(kernels, [nothing] * 4, [nothing] * 3, (7, 1, 2), blank=blank)
        assert (token, duration) == (blank, 7)
        tokens = [nothing] * 4
        tokens[1] = -3
        token, duration, token_lp, duration_lp = decide_one(kernels, tokens, [nothing] * 3, (7, 1, 2), blank=blank)
        assert (token, duration, token_lp, duration_lp) == (1, 7, 0, 0)

    def test_a_blank_reports_no_logprobs(self, kernels):
        assert decide_one(kernels, [0, 1.0], [1, 2], (0, 1))[2:] == (0, 0)

    def test_already_normalised_rows_change_nothing(self, kernels):
        rng = np.random.default_rng(3)
        spec = tdt.TransducerSpec(50)
        rows = rng.normal(size=(20, spec.joint_width)).astype(np.float32) * 3
        normalised = rows - np.log(np.exp(rows).sum(1, keepdims=True))
        first, second = decide(kernels, rows, spec), decide(kernels, normalised, spec)
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_allclose(first[1], second[1], atol=1e-5)

    def test_far_shifted_rows_stay_finite(self, kernels):
        spec = tdt.TransducerSpec(4)
        rows = np.array([[100, 200, 0, -100, 0, -900, -901, -902, -903, -904]], np.float32)
        for shift in (-1e4, 1e4):
            _, logprobs = decide(kernels, rows + np.float32(shift), spec)
            np.testing.assert_allclose(logprobs[:, 0], [0, -0.4519], atol=1e-3)

    @pytest.mark.parametrize("vocab_size", [1, 15, 16, 17, 255, 256, 257, 1024, 8192])
    def test_every_position_can_win(self, kernels, vocab_size):
        spec = tdt.TransducerSpec(vocab_size, (), blank=vocab_size // 2)
        winners = np.unique(np.linspace(0, vocab_size, 40, dtype=int))
        rows = np.zeros((len(winners), spec.joint_width), np.float32)
        rows[np.arange(len(winners)), winners] = 1
        decisions, logprobs = decide(kernels, rows, spec)
        np.testing.assert_array_equal(decisions[0], winners)
        expected = np.where(winners == spec.blank, 0, -np.log1p(vocab_size * np.exp(-1)))
        np.testing.assert_allclose(logprobs[0], expected, atol=1e-5)

    def test_each_big_blank_moves_its_own_frames(self, kernels):
        spec = tdt.TransducerSpec(3, (), big_blanks=(2, 4, 8))
        for entry, frames in ((3, 8), (4, 4), (5, 2), (6, 1)):
            row = np.zeros((1, 7), np.float32)
            row[0, entry] = 5
            decisions, logprobs = decide(kernels, row, spec, trace=True)
            assert decisions[:, 0].tolist() == [3, frames]
            assert logprobs[0, 0] == pytest.approx(5 - np.log(6 + np.exp(5)), abs=1e-5) and logprobs[1, 0] == 0
        assert decide(kernels, [[0, 0, 0, 1, 1, 1, 1]], spec)[0][:, 0].tolist() == [3, 8]  # a tie: the first one
        assert decide(kernels, [[2, 0, 0, 2, 2, 2, 2]], spec)[0][:, 0].tolist() == [0, 0]
        assert decide(kernels, [[NAN] * 7], spec)[0][:, 0].tolist() == [3, 1]  # no number: the blank
        assert decide(kernels, [[1, 0, 0, 0, 3, 0, 0]], spec, blank_penalty=2.5)[0][:, 0].tolist() == [0, 0]

    def test_the_whole_row_decides_whether_and_those_allowed_which(self, kernels):
        tokens = [5.0, 1, 3, 2, NAN, 4]  # blank is last
        some = tdt.OnlyTokens([1, 2, 4])
        token, duration, logprob, _ = decide_one(kernels, tokens, [0, 9], (1, 2), allow=some)
        assert (token, duration) == (2, 2)  # though blank is better than it
        numbers = np.exp([5.0, 1, 3, 2, 4])
        assert logprob == pytest.approx(3 - np.log(numbers.sum()), abs=1e-5)  # the network's
        tokens[5] = 6
        assert decide_one(kernels, tokens, allow=some)[0] == 5
        tokens[5] = 4
        assert decide_one(kernels, tokens, allow=tdt.OnlyTokens([0]))[0] == 0
        assert decide_one(kernels, tokens, allow=tdt.OnlyTokens([4]))[0] == 5  # it has no number
        assert decide_one(kernels, [5.0, 1, 4, 4, 0, 4], allow=tdt.OnlyTokens([2, 3]))[0] == 2  # a tie: the lower index
        assert decide_one(kernels, [1.0, 2, 9, 8, 0], blank=0, allow=tdt.ExceptTokens([2]))[0] == 3

    def test_each_row_has_its_own_mask(self, kernels):
        rows = np.tile(np.array([3, 2, 1, 0], np.float32), (4, 1))
        allow = [tdt.OnlyTokens([2]), None, tdt.OnlyTokens([1, 2]), tdt.OnlyTokens([2])]
        decisions, _ = decide(kernels, rows, tdt.TransducerSpec(3, ()), allow=allow)
        assert decisions[0].tolist() == [2, 0, 1, 2]

    def test_any_row(self):
        from hypothesis import given, settings
        from hypothesis import strategies as st
        from hypothesis.extra import numpy as npst

        @settings(max_examples=300)
        @given(data=st.data())
        def any_row(data):
            vocab_size = data.draw(st.integers(1, 40))
            table = data.draw(st.lists(st.integers(0, 9), max_size=6))
            spec = tdt.TransducerSpec(vocab_size, tuple(table), data.draw(st.integers(0, vocab_size)))
            if data.draw(st.booleans()):
                blanks = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
                spec = tdt.TransducerSpec(vocab_size, (), big_blanks=blanks)
            special = np.array([NAN, INF, -INF, -0.0, 0.0, 3e38, -3e38, 1.0], np.float32)
            numbers = st.sampled_from(special.tolist()) | st.floats(-50, 50, width=32)
            rows = data.draw(npst.arrays(np.float32, (3, spec.joint_width), elements=numbers))
            penalty = data.draw(st.sampled_from([0.0, 1.0, -1.0, 1e6, -1e6]))
            trace = data.draw(st.booleans())
            tokens = [token for token in range(vocab_size + 1) if token != spec.blank]
            few = st.lists(st.sampled_from(tokens), min_size=1).map(tdt.OnlyTokens)
            options = {"blank_penalty": penalty, "allow": data.draw(st.lists(st.none() | few, min_size=3, max_size=3))}
            decisions, logprobs = decide("reference", rows, spec, trace, **options)
            for name in KERNELS[1:]:
                others = decide(name, rows, spec, trace, **options)
                np.testing.assert_array_equal(others[0], decisions, err_msg=name)
                np.testing.assert_allclose(others[1], logprobs, atol=1e-4, rtol=1e-6, err_msg=name)

        any_row()

    def test_one_bad_row_never_touches_its_neighbours(self, kernels):
        rng = np.random.default_rng(4)
        spec = tdt.TransducerSpec(33)
        rows = rng.normal(size=(5, spec.joint_width)).astype(np.float32)
        clean = decide(kernels, rows, spec)
        rows[2] = NAN
        dirty = decide(kernels, rows, spec)
        for a, b in zip(clean, dirty):
            np.testing.assert_array_equal(np.delete(a, 2, 1), np.delete(b, 2, 1))


def test_instruction_sets_give_the_same_bits():
    rng = np.random.default_rng(5)
    spec = tdt.TransducerSpec(1000)
    rows = rng.normal(size=(64, spec.joint_width)).astype(np.float32) * 5
    first, *others = [decide(name, rows, spec) for name in KERNELS if name.startswith("cpu-")]
    for other in others:
        np.testing.assert_array_equal(other[0], first[0])
        np.testing.assert_array_equal(other[1].view(np.uint32), first[1].view(np.uint32))


class TestTransition:
    """Which tokens are emitted at which frames, with scripted joint rows."""

    def run(self, kernels, script, length, table=(0, 1, 2, 3, 4), **options):
        """Run a search with joint rows that decide as ``script(frame, symbols) -> (token or None, duration)`` says."""
        spec = tdt.TransducerSpec(9, table)
        search = tdt.kernels.GreedySearch(spec, tdt.Greedy(**options), [length], kernels)
        asked = []
        while search.pending:
            token, duration = script(int(search.frames[0]), int(search.symbols[0]))
            row = np.zeros((1, spec.joint_width), np.float32)
            row[0, spec.blank if token is None else token] = 9
            if table:
                row[0, spec.vocab_size + 1 + table.index(duration)] = 9
            asked.append(int(search.frames[0]))
            search.step(row)
        (hypothesis,) = search.hypotheses()
        return asked, hypothesis, int(search.frame[0])

    def test_blank_moves_at_least_one_frame(self, kernels):
        asked, hypothesis, end = self.run(kernels, lambda t, s: (None, 0), 4)
        assert asked == [0, 1, 2, 3] and len(hypothesis) == 0 and end == 4

    def test_durations_skip_frames_and_the_last_is_kept(self, kernels):
        asked, hypothesis, end = self.run(kernels, lambda t, s: (3, 4), 6)
        assert asked == [0, 4]
        assert hypothesis.frames.tolist() == [0, 4] and hypothesis.durations.tolist() == [4, 4] and end == 8

    def test_table_values_not_indices(self, kernels):
        asked, hypothesis, _ = self.run(kernels, lambda t, s: (1, 8), 20, table=(0, 1, 2, 4, 8))
        assert asked == [0, 8, 16] and hypothesis.durations.tolist() == [8, 8, 8]

    @pytest.mark.parametrize("cap", [1, 2, 3])
    def test_cap(self, kernels, cap):
        asked, hypothesis, _ = self.run(kernels, lambda t, s: (2, 0), 3, max_symbols=cap)
        assert asked == hypothesis.frames.tolist() == [t for t in range(3) for _ in range(cap)]

    def test_a_moving_token_resets_the_count_and_the_cap_adds_nothing_to_it(self, kernels):
        asked, *_ = self.run(kernels, lambda t, s: (2, 0) if s == 0 else (2, 3), 7, max_symbols=2)
        assert asked == [0, 0, 3, 3, 6, 6]

    def test_rnnt(self, kernels):
        asked, hypothesis, _ = self.run(kernels, lambda t, s: (5, None) if s < 2 else (None, None), 2, table=())
        assert asked == [0, 0, 0, 1, 1, 1]
        assert hypothesis.durations.tolist() == [0] * 4 and hypothesis.duration_logprobs.tolist() == [0] * 4

    def test_no_utterances_and_empty_utterances(self, kernels):
        spec = tdt.TransducerSpec(9)
        assert tdt.kernels.GreedySearch(spec, tdt.Greedy(), [], kernels).hypotheses() == []
        search = tdt.kernels.GreedySearch(spec, tdt.Greedy(), [0, 0], kernels)
        assert search.pending == 0 and [len(h) for h in search.hypotheses()] == [0, 0]


def random_allow(rng, spec):
    """Some of the tokens, at least one."""
    tokens = np.delete(np.arange(spec.vocab_size + 1), spec.blank)
    return tdt.OnlyTokens(rng.choice(tokens, rng.integers(1, len(tokens) + 1), replace=False).tolist())


def random_configurations(count, seed):
    """Random specs, searches and transducers that reach every rule."""
    rng = np.random.default_rng(seed)
    tables = [(0, 1, 2, 3, 4), (0, 1, 2, 4, 8), (1, 2, 3, 4), (), (0,), (2, 0, 1), (3, 3, 0)]
    for _ in range(count):
        vocab_size = int(rng.integers(1, 40))
        blank = [0, vocab_size, int(rng.integers(0, vocab_size + 1))][rng.integers(3)]
        spec = tdt.TransducerSpec(vocab_size, tables[rng.integers(len(tables))], blank)
        if rng.random() < 0.25:
            spec = tdt.TransducerSpec(vocab_size, (), big_blanks=rng.integers(1, 6, rng.integers(1, 4)).tolist())
        symbols, penalty = int(rng.choice([1, 2, 3, 10])), float(rng.choice([0, 0, 1.5, -1]))
        allow = random_allow(rng, spec) if rng.random() < 0.5 else None
        search = tdt.Greedy(max_symbols=symbols, blank_penalty=penalty, allow=allow)
        levels, bad = rng.choice([None, 1.0, 4.0]), float(rng.choice([0, 0, 0.05, 0.5]))
        yield spec, search, RandomTransducer(spec, int(rng.integers(1 << 30)), levels, bad)


@random_decodes
def test_random_decodes_are_identical_on_every_kernel_set(decodes):
    batch = 100
    for seed, (spec, search, transducer) in enumerate(random_configurations(decodes // batch, seed=6)):
        frames, lengths = random_frames(batch, transducer.encoder_size, 12, seed)
        reference = transducer.decoder(spec, kernels="reference", search=search).decode(frames, lengths)
        for name in KERNELS[1:]:
            found = transducer.decoder(spec, kernels=name, search=search).decode(frames, lengths)
            check_same_hypotheses(reference, found)


def test_traced_decisions_are_identical_on_every_kernel_set():
    for seed, (spec, search, transducer) in enumerate(random_configurations(20, seed=7)):
        frames, lengths = random_frames(20, transducer.encoder_size, 12, seed)
        decoders = [transducer.decoder(spec, kernels=name, search=search) for name in KERNELS]
        (_, reference), *others = [traced_decode(decoder, frames, lengths) for decoder in decoders]
        for _, other in others:
            assert check_traces(reference, other, spec, exact=True) == 0


class TestChoice:
    def test_all_names(self):
        first = ["reference", "jit"] if importlib.util.find_spec("numba") else ["reference"]
        assert KERNELS[: len(first) + 1] == [*first, "cpu-baseline"]
        assert tdt.kernels.get("auto") == tdt.kernels.get("cpu") == tdt.kernels.available()[-1]

    def test_environment_forces_an_instruction_set(self, monkeypatch):
        monkeypatch.setenv("TDTDECODE_ISA", "baseline")
        assert tdt.kernels.get("cpu").isa == "baseline"
        monkeypatch.setenv("TDTDECODE_ISA", "mmx")
        with pytest.raises(tdt.InputError, match="TDTDECODE_ISA=mmx.*baseline"):
            tdt.kernels.get("auto")

    def test_unknown_name_lists_the_known(self):
        with pytest.raises(tdt.InputError, match="no kernel set 'opencl'.*reference, jit, cpu, cpu-baseline.*cuda"):
            tdt.kernels.get("opencl")

    def test_jit_without_numba(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "numba", None)
        monkeypatch.delitem(sys.modules, "tdtdecode.kernels.jit", raising=False)
        tdt.kernels.sets._load.cache_clear()
        with pytest.raises(tdt.MissingDependencyError, match=r"tdtdecode\[numba\]"):
            tdt.kernels.get("jit")
        tdt.kernels.sets._load.cache_clear()

    @pytest.mark.parametrize("lengths", [[-1], [2**31], [1.5], [[1]]])
    def test_wrong_lengths_are_refused(self, lengths):
        with pytest.raises(tdt.InputError, match="lengths must be"):
            tdt.kernels.GreedySearch(tdt.TransducerSpec(9), tdt.Greedy(), lengths)

    def test_wrong_rows_are_refused(self):
        search = tdt.kernels.GreedySearch(tdt.TransducerSpec(9), tdt.Greedy(), [5])
        for rows in (np.zeros((1, 14), np.float32), np.zeros((2, 15), np.float32), np.zeros((1, 15))):
            with pytest.raises(tdt.InputError, match=r"float32 \[1, 15\]"):
                search.step(rows)

    @pytest.mark.parametrize(
        "change",
        [{"layout": LAYOUT._replace(vocab_size=10)}, {"layout": LAYOUT._replace(blank=10)},
         {"layout": LAYOUT._replace(blank=-1)}, {"layout": LAYOUT._replace(durations=np.arange(4, dtype=np.int32))},
         {"layout": LAYOUT._replace(blank_frames=np.ones(2, np.int32))},
         {"layout": LAYOUT._replace(blank_frames=np.ones(0, np.int32), durations=np.arange(6, dtype=np.int32))},
         {"decisions": np.zeros((2, 1), np.int32)}, {"logprobs": np.zeros((1, 2), np.float32)}, {"masks": no_masks(1)},
         {"masks": Masks(np.ones((1, 9), np.uint8), np.zeros(2, np.int32))},
         {"masks": Masks(np.ones((1, 10), np.uint8), np.ones(2, np.int32))}, {"options": np.zeros(1, BEAM_OPTIONS)[0]}],
    )  # fmt: skip
    def test_compiled_kernels_check_their_bounds(self, change):
        arguments = {
            "rows": np.zeros((2, 15), np.float32),
            "layout": LAYOUT,
            "options": greedy_options(tdt.Greedy()),
            "masks": no_masks(2),
            "decisions": np.zeros((2, 2), np.int32),
            "logprobs": np.zeros((2, 2), np.float32),
        }
        decide = tdt.kernels.get("cpu").decide
        decide(*arguments.values())
        with pytest.raises(ValueError, match="must be"):
            decide(*(arguments | change).values())
