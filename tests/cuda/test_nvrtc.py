"""Every CUDA source compiles for every architecture, and so do the rules in csrc/tdt that the CPU shares."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from benches.gpu.build import measure
from tdtdecode.cuda.structs import agreement
from tdtdecode.options import Strategy
from tests.cuda import nvrtc
from tests.host_cuda.emulated_cupy import kernels_in

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
  __device__ tdt::Best best(const float* row, int first, int last, const tdt::Steering& by) const {
    tdt::Best best;
    for (int i = first; i < last; ++i)
      if (tdt::may_win(by.allowed, i)) best = tdt::better(best, tdt::candidate(tdt::steered(row[i], i, by), i));
    return best;
  }
  __device__ float log_sum_exp(const float* part, int n, float max) const {
    float sum = 0;
    for (int i = 0; i < n; ++i) sum += expf(tdt::sanitized(part[i]) - max);
    return logf(sum);
  }
};

extern "C" __global__ void rules(const float* rows, tdt::RowLayout layout, tdt::GreedyOptions options,
                                 tdt::Steering steering, tdt::Decision* decisions, tdt::Position* positions,
                                 double* scores, unsigned long long* prefixes) {
  const tdt::Decision d = tdt::decide(rows + threadIdx.x * layout.width(), layout, options, steering, SerialReduce{});
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
    ptx = nvrtc.compile_source(RULES_KERNEL, "rules.cu", architecture, [CSRC]).decode()
    assert ".visible .entry rules" in ptx and f".target sm_{architecture}" in ptx


SOURCES = sorted(path.name for path in (CSRC / "cuda").glob("*.cu"))
WEIGHTED = [name for name in SOURCES if "network.cuh" in (CSRC / "cuda" / name).read_text()]
"""Sources that are compiled once for each type of weights."""


WEIGHTS = ("Float32", "Float16", "Bfloat16")
PHASED = [name for name in SOURCES if "TDT_PHASES" in (CSRC / "cuda" / name).read_text()]
"""Sources that are compiled apart for one launch and for launches of single phases."""
SEARCHING = [name for name in SOURCES if "beam.cuh" in (CSRC / "cuda" / name).read_text()]
"""Sources that are compiled for one strategy of beam search."""
STRATEGIES = tuple(strategy.name.lower() for strategy in Strategy)
SAMPLE = (90, "Float16", 0), (75, "Float32", 1)
"""Of the many that a source is compiled for: a new architecture and the oldest. The others are exhaustive."""


def variants():
    """Each source for each architecture, type of weights, kind of predictor, kind of launch and strategy."""
    for name in SOURCES:
        weights, phased = WEIGHTS if name in WEIGHTED else (None,), name in PHASED
        contexts = (0, 1) if name in WEIGHTED else (None,)
        strategies = STRATEGIES if name in SEARCHING else (None,)
        for architecture, weight, context, phases, strategy in itertools.product(
            nvrtc.ARCHITECTURES, weights, contexts, (0, 1) if phased else (0,), strategies
        ):
            usual = strategy in (None, "tsd") and any(
                architecture == sample[0] and weight in (None, sample[1]) and (not phased or phases == sample[2])
                for sample in SAMPLE
            )
            usual = usual and not (context and name in SEARCHING)  # what the predictor changes, beams do not see
            marks = () if usual else pytest.mark.exhaustive
            yield pytest.param(name, architecture, weight, context, phases, strategy, marks=marks)


@pytest.mark.parametrize("name, architecture, weight, context, phases, strategy", list(variants()))
def test_sources_compile(name, architecture, weight, context, phases, strategy):
    """To machine code, as on a card: PTX alone would not show registers that do not suffice, nor the time it takes."""
    if architecture < 80 and weight == "Bfloat16":
        pytest.skip("these cards cannot multiply bfloat16, and the host refuses it")
    source = (CSRC / "cuda" / name).read_text() + agreement(name)
    defines = {"TDT_PHASES": phases, "TDT_WEIGHT": weight, "TDT_CONTEXT": context, "TDT_STRATEGY": strategy}
    defines = {name: value for name, value in defines.items() if value is not None}
    code = nvrtc.compile_source(source, name, architecture, [CSRC, CSRC / "cuda"], cubin=True, **defines)
    assert code[:4] == b"\x7fELF"
    missing = [kernel for kernel in kernels_in(source, phases == 1) if kernel.encode() not in code]
    assert not missing


CODE_BYTES = 128 << 10
"""Most machine code of a kernel that runs a whole search: about what a multiprocessor caches."""
WHOLE_SEARCHES = [("fused_greedy", None), *(("fused_beam", strategy) for strategy in STRATEGIES)]


@pytest.mark.parametrize("weight", ["Float16", pytest.param("Float32", marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("context", [0, pytest.param(1, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("kernel, strategy", WHOLE_SEARCHES)
def test_code_is_short(kernel, strategy, context, weight):
    defines = {"TDT_WEIGHT": weight, "TDT_CONTEXT": context, "TDT_PHASES": 0}
    if strategy is not None:
        defines["TDT_STRATEGY"] = strategy
    measured = measure(f"{kernel}.cu", 90, defines)
    print(json.dumps({f"{kernel} {strategy or ''}": measured}))
    found = measured["kernels"][kernel]
    assert found["code_bytes"] <= CODE_BYTES
    assert found["spill_bytes"] == 0


@pytest.mark.parametrize("architecture, instruction", [(75, "m16n8k8"), (80, "m16n8k16"), (90, "m16n8k16")])
def test_tensor_cores_are_used(architecture, instruction):
    source = (CSRC / "cuda" / "frames.cu").read_text()
    ptx = nvrtc.compile_source(source, "frames.cu", architecture, [CSRC, CSRC / "cuda"], TDT_WEIGHT="Float16")
    assert f"mma.sync.aligned.{instruction}".encode() in ptx


@pytest.mark.parametrize("name", ["fused_greedy.cu", pytest.param("fused_beam.cu", marks=pytest.mark.exhaustive)])
def test_either_barrier_compiles(name):
    source = (CSRC / "cuda" / name).read_text()
    texts = {nvrtc.compile_source(source, name, 90, [CSRC, CSRC / "cuda"], TDT_BARRIER=kind) for kind in (0, 1)}
    assert len(texts) == 2


def test_errors_are_reported():
    with pytest.raises(RuntimeError, match="broken.cu.*compute_90"):
        nvrtc.compile_source("__global__ void f() { nonsense }", "broken.cu", 90, [CSRC])
