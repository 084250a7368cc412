"""The rules in csrc/tdt compile as device code for every architecture, so that a GPU runs the same ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import nvrtc

CSRC = Path(__file__).parent.parent / "csrc"

# One row per thread: every function of the rules is instantiated.
RULES_KERNEL = """
#include "tdt/hypothesis.h"
#include "tdt/row.h"
#include "tdt/transition.h"

struct SerialReduce {
  __device__ tdt::Best best(const float* row, int first, int last) const {
    tdt::Best best;
    for (int i = first; i < last; ++i) best = tdt::better(best, tdt::candidate(tdt::sanitized(row[i]), i));
    return best;
  }
  __device__ float log_sum_exp(const float* part, int n, float max) const {
    float sum = 0;
    for (int i = 0; i < n; ++i) sum += expf(tdt::sanitized(part[i]) - max);
    return logf(sum);
  }
};

extern "C" __global__ void rules(const float* rows, tdt::RowLayout layout, float penalty, int max_symbols,
                                 tdt::Decision* decisions, tdt::Position* positions, double* scores,
                                 unsigned long long* prefixes) {
  const tdt::Decision d = tdt::decide(rows + threadIdx.x * layout.width(), layout, penalty, SerialReduce{});
  decisions[threadIdx.x] = d;
  scores[threadIdx.x] = tdt::log_add(scores[threadIdx.x], d.token_logprob);
  prefixes[threadIdx.x] = tdt::extended(prefixes[threadIdx.x], d.token);
  positions[threadIdx.x] = tdt::advanced(positions[threadIdx.x], d.token == layout.blank, d.duration, max_symbols);
}
"""


@pytest.fixture(autouse=True)
def compiler():
    try:
        nvrtc.load_nvrtc()
    except ImportError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
def test_rules_compile(architecture):
    ptx = nvrtc.compile_source(RULES_KERNEL, "rules.cu", architecture, [CSRC])
    assert ".visible .entry rules" in ptx and f".target sm_{architecture}" in ptx


def test_errors_are_reported():
    with pytest.raises(RuntimeError, match="broken.cu.*sm_90"):
        nvrtc.compile_source("__global__ void f() { nonsense }", "broken.cu", 90, [CSRC])
