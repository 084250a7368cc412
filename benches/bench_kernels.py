"""Kernels by pytest-benchmark: decisions on joint rows on every kernel set, matrix products on every instruction set.

    python -m pytest benches/bench_kernels.py --benchmark-columns=min,median --benchmark-group-by=func,param:shape
"""

from __future__ import annotations

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.allowed import no_masks
from tdtdecode.networks._fused import product
from tdtdecode.networks.packing import Format, pack
from tdtdecode.options import greedy_options
from tdtdecode.weights import Affine

KERNELS = tdt.kernels.available()
ISAS = [kernels.isa for kernels in KERNELS if kernels.isa is not None]
ROWS = 16


@pytest.mark.parametrize("kernels", KERNELS, ids=lambda k: k.name)
@pytest.mark.parametrize("shape", [1024, 8192])
@pytest.mark.parametrize("decided", ["tokens", "blanks"])
def test_decide(benchmark, kernels, shape, decided):
    """Decide 16 joint rows. Where a token is emitted, that includes its log-probabilities."""
    spec = tdt.TransducerSpec(shape)
    rows = np.random.default_rng(0).normal(scale=3, size=(ROWS, spec.joint_width)).astype(np.float32)
    rows[:, spec.blank] = -20 if decided == "tokens" else 20
    decisions, logprobs = np.empty((2, ROWS), np.int32), np.empty((2, ROWS), np.float32)
    options = greedy_options(tdt.Greedy())
    benchmark(kernels.decide, rows, spec.layout, options, no_masks(ROWS), decisions, logprobs)
    assert (decisions[0] == spec.blank).all() == (decided == "blanks")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rows", [1, 4, 16, 64])
@pytest.mark.parametrize("format", list(Format), ids=lambda f: f.name.lower())
@pytest.mark.parametrize("shape", [(2560, 1280), (8198, 640)], ids=["lstm", "output"])
def test_product(benchmark, shape, format, rows, isa):
    """The products behind the gates of an upper LSTM layer, and behind the joint's output for V = 8192."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(shape).astype(np.float16).astype(np.float32)
    packed = pack(Affine(weight, np.zeros(shape[0], np.float32)), format)
    x = rng.standard_normal((rows, shape[1])).astype(np.float32)
    out = np.empty((rows, packed.outputs), np.float32)
    benchmark(product, packed, isa, x, out)
    benchmark.extra_info["megabytes"] = packed.nbytes / 1e6
    np.testing.assert_allclose(out[:, : shape[0]], x @ weight.T, atol=0.1 * shape[1] ** 0.5)
