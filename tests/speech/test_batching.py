"""Batches that cost the encoder least: against all ways to group, and by the rules that hold in any case."""

from __future__ import annotations

import numpy as np
import pytest

from tdtdecode.speech.batching import COSTS, EncoderCost, cheapest_batches, encoder_cost

CPU = COSTS["cpu"]


def cost_of(batches, seconds, cost):
    return sum(cost.call_seconds + len(batch) * max(seconds[i] for i in batch) for batch in batches)


def partitions(items):
    """All ways to group items."""
    if not items:
        yield []
        return
    first, *rest = items
    for groups in partitions(rest):
        yield [[first], *groups]
        for i, group in enumerate(groups):
            yield [*groups[:i], [first, *group], *groups[i + 1 :]]


@pytest.mark.parametrize("seed", range(20))
def test_no_other_grouping_costs_less(seed):
    rng = np.random.default_rng(seed)
    seconds = rng.choice([rng.uniform(0.1, 12, 8), rng.integers(1, 4, 8), rng.exponential(4, 8)], axis=0).tolist()
    cost, most = EncoderCost(float(rng.uniform(0, 5)), float(rng.uniform(4, 25))), int(rng.integers(1, 5))
    found = cheapest_batches(seconds, cost, most)
    assert sorted(i for batch in found for i in batch) == list(range(8))

    def allowed(batch):
        return len(batch) == 1 or (
            len(batch) <= most and len(batch) * max(seconds[i] for i in batch) <= cost.most_seconds
        )

    assert all(map(allowed, found))
    least = min(cost_of(one, seconds, cost) for one in partitions(list(range(8))) if all(map(allowed, one)))
    assert cost_of(found, seconds, cost) == pytest.approx(least)


@pytest.mark.parametrize(("seconds", "batches"), [
    ([], []),
    ([7.0], [[0]]),
    ([0.0, 0.0], [[0, 1]]),
    ([2.0] * 10, [list(range(10))]),
    ([2.0] * 12, [list(range(10)), [10, 11]]),  # more than 20 s would gain nothing
    ([18.0, 3.0, 17.0], [[0], [1], [2]]),
    ([300.0, 300.0], [[0], [1]]),
    ([1.0, 15.0, 1.1, 1.2], [[0, 2, 3], [1]]),
])  # fmt: skip
def test_on_a_cpu(seconds, batches):
    assert cheapest_batches(seconds, CPU, 16) == batches


def test_the_batch_with_the_first_recording_comes_first():
    rng = np.random.default_rng(0)
    batches = cheapest_batches(rng.uniform(0.5, 18, 300).tolist(), CPU, 16)
    assert [batch[0] for batch in batches] == sorted(batch[0] for batch in batches)
    assert all(batch == sorted(batch) for batch in batches)


@pytest.mark.parametrize("device", COSTS)
def test_little_is_padding(device):
    """Of LibriSpeech's lengths, in numbers as they are under way together."""
    rng = np.random.default_rng(0)
    seconds = np.clip(rng.normal(12, 4.5, 50), 1, 17).tolist()
    batches = cheapest_batches(seconds, COSTS[device], 16)
    padded = sum(len(batch) * max(seconds[i] for i in batch) for batch in batches)
    assert padded < 1.12 * sum(seconds)


def test_batches_grow_with_the_memory_of_a_card():
    assert encoder_cost("cpu", None) == COSTS["cpu"]
    seconds = [encoder_cost("cuda", gigabytes << 30).most_seconds for gigabytes in (8, 16, 80, 141)]
    assert seconds == [240.0, 480.0, 2400.0, 2400.0]
