"""The demo model's loss against a sum over every alignment, spelt out."""

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training tool's loss is a torch function")
pytest.importorskip("numba", reason="the training tool's loss is compiled with Numba")

FOLDER = Path(__file__).parents[2] / "tools" / "demo_model"
DURATIONS = (0, 1, 2, 3, 4)
BLANK = 3  # tokens 0 to 2, then blank


@pytest.fixture(scope="module")
def tdt_loss():
    sys.path.insert(0, str(FOLDER))
    try:
        import tdt_loss
    finally:
        sys.path.remove(str(FOLDER))
    return tdt_loss


def log_softmax(values):
    shifted = values - values.max()
    return shifted - np.log(np.exp(shifted).sum())


def all_alignments(rows, labels, allowed, sigma):
    """-log of the summed probability of every path; rows [T, U + 1, V + 1 + D], allowed(t, u) -> bool."""
    frames = len(rows)

    def paths(t, u):
        if t >= frames or not allowed(t, u):
            return []
        tokens = log_softmax(rows[t, u, : BLANK + 1]) - sigma
        spans = log_softmax(rows[t, u, BLANK + 1 :])
        found = []
        for index, duration in enumerate(DURATIONS):
            if duration > 0 and t + duration == frames and u == len(labels):
                found.append(tokens[BLANK] + spans[index])
            if duration > 0:
                found += [tokens[BLANK] + spans[index] + rest for rest in paths(t + duration, u)]
            if u < len(labels):
                found += [tokens[labels[u]] + spans[index] + rest for rest in paths(t + duration, u + 1)]
        return found

    return -np.logaddexp.reduce(paths(0, 0))


def batch(tdt_loss, frames, labels, ranges=None, seed=0):
    """Joint rows [B, T, U + 1, V + 1 + D] with a lattice over them, and the lattice's packed rows."""
    generator = torch.Generator().manual_seed(seed)
    states = max(map(len, labels)) + 1
    rows = torch.randn(len(frames), max(frames), states, BLANK + 1 + len(DURATIONS), generator=generator).double()
    lattice = tdt_loss.build_lattice(frames, labels, BLANK, max(frames), states, ranges)
    cells = torch.from_numpy(lattice.cell_frame * states + lattice.cell_state % states)
    return rows, lattice, rows.flatten(0, 2)[cells].float().requires_grad_()


FRAMES, LABELS = [6, 3, 4], [[1, 2], [0, 0], []]


@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_sum_over_alignments(tdt_loss, sigma):
    rows, lattice, packed = batch(tdt_loss, FRAMES, LABELS)
    expected = sum(
        all_alignments(rows[b, :frames].numpy(), labels, lambda t, u: True, sigma)
        for b, (frames, labels) in enumerate(zip(FRAMES, LABELS))
    )
    assert float(tdt_loss.tdt_loss(packed, lattice, DURATIONS, sigma).detach()) == pytest.approx(expected, rel=1e-5)


def test_cells_ruled_out(tdt_loss):
    first, stop = np.array([0, 0, 0, 1, 1, 2]), np.array([1, 2, 2, 3, 3, 3])
    rows, lattice, packed = batch(tdt_loss, [6], [[1, 2]], [(first, stop)])
    expected = all_alignments(rows[0].numpy(), [1, 2], lambda t, u: first[t] <= u < stop[t], 0.0)
    assert len(packed) == (stop - first).sum()
    assert float(tdt_loss.tdt_loss(packed, lattice, DURATIONS).detach()) == pytest.approx(expected, rel=1e-5)


def test_gradient(tdt_loss):
    _, lattice, packed = batch(tdt_loss, FRAMES, LABELS)
    tdt_loss.tdt_loss(packed, lattice, DURATIONS, 0.05).backward()
    step = 1e-2
    generator = np.random.default_rng(0)
    for _ in range(30):
        cell, column = generator.integers(packed.shape[0]), generator.integers(packed.shape[1])
        moved = []
        for sign in (1, -1):
            shifted = packed.detach().clone()
            shifted[cell, column] += sign * step
            moved.append(float(tdt_loss.tdt_loss(shifted, lattice, DURATIONS, 0.05)))
        slope = (moved[0] - moved[1]) / (2 * step)
        assert float(packed.grad[cell, column]) == pytest.approx(slope, abs=2e-4)
