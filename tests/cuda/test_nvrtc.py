"""Every CUDA source compiles for every architecture, and so do the rules in csrc/tdt that the CPU shares."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cuda import nvrtc

CSRC = Path(__file__).parents[2] / "csrc"

# One joint row per thread. Calls every function of the rules.
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

extern "C" __global__ void rules(const float* rows, tdt::RowLayout layout, tdt::GreedyOptions options,
                                 tdt::Decision* decisions, tdt::Position* positions, double* scores,
                                 unsigned long long* prefixes) {
  const tdt::Decision d = tdt::decide(rows + threadIdx.x * layout.width(), layout, options, SerialReduce{});
  decisions[threadIdx.x] = d;
  scores[threadIdx.x] = tdt::log_add(scores[threadIdx.x], d.token_logprob);
  prefixes[threadIdx.x] = tdt::extended(prefixes[threadIdx.x], d.token);
  positions[threadIdx.x] = tdt::advanced(positions[threadIdx.x], d.token == layout.blank, d.duration, options);
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


SOURCES = sorted(path.name for path in (CSRC / "cuda").glob("*.cu"))
WEIGHTED = [name for name in SOURCES if "network.cuh" in (CSRC / "cuda" / name).read_text()]
"""Sources that are compiled once for each type of weights."""


WEIGHTS = ("Float32", "Float16", "Bfloat16")
SAMPLE = [(75, "Float16"), (90, "Float32"), (120, "Bfloat16")]
"""Of the many that a large source is compiled for: the oldest and the newest architecture, each type of weights."""
LARGE = ["beam.cu", *WEIGHTED]


def variants():
    """Each source for each architecture and type of weights. Most variants of large sources are exhaustive."""
    for name in SOURCES:
        for architecture in nvrtc.ARCHITECTURES:
            for weight in WEIGHTS if name in WEIGHTED else (None,):
                rare = name in LARGE and not any(sample == (architecture, weight or sample[1]) for sample in SAMPLE)
                yield pytest.param(name, architecture, weight, marks=pytest.mark.exhaustive if rare else ())


@pytest.mark.parametrize("name, architecture, weight", list(variants()))
def test_sources_compile(name, architecture, weight):
    source = (CSRC / "cuda" / name).read_text()
    kernels = set(re.findall(r"__global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(", source))
    defines = {} if weight is None else {"TDT_WEIGHT": weight}
    ptx = nvrtc.compile_source(source, name, architecture, [CSRC, CSRC / "cuda"], **defines)
    assert set(re.findall(r"\.visible \.entry (\w+)", ptx)) == kernels and kernels
    assert f".target sm_{architecture}" in ptx
    if weight == "Float16":
        assert ("mma.sync.aligned.m16n8k16" if architecture >= 80 else "mma.sync.aligned.m16n8k8") in ptx


@pytest.mark.parametrize("name", ["fused_greedy.cu", pytest.param("fused_beam.cu", marks=pytest.mark.exhaustive)])
def test_either_barrier_compiles(name):
    texts = {
        nvrtc.compile_source((CSRC / "cuda" / name).read_text(), name, 90, [CSRC, CSRC / "cuda"], TDT_BARRIER=kind)
        for kind in (0, 1)
    }
    assert len(texts) == 2


def test_errors_are_reported():
    with pytest.raises(RuntimeError, match="broken.cu.*sm_90"):
        nvrtc.compile_source("__global__ void f() { nonsense }", "broken.cu", 90, [CSRC])
