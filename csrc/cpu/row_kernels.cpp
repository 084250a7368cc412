// Compiled once per instruction set; TDT_ISA names the set and the namespace.
//
// A sum's order depends on kLanes alone, and multiplications are not fused with additions (-ffp-contract=off): every
// instruction set gives the same bits.
#include "row_kernels.h"

#include <cmath>

#include "elementwise.h"
#include "lanes.h"

namespace tdt::cpu::TDT_ISA {
namespace {

// The last, partial group of lanes, filled up with "no number".
struct Tail {
  float lanes[kLanes];
  Tail(const float* x, int n) {
    for (int j = 0; j < kLanes; ++j) lanes[j] = j < n ? x[j] : kLowest;
  }
};

struct Largest {
  Floats best[kVectors];
  Largest() {
    for (Floats& b : best) b = all(kLowest);
  }
  void add(const float* x) {
    for (int v = 0; v < kVectors; ++v) {
      const Floats values = load(x + v * kWidth);
      best[v] = values > best[v] ? values : best[v];  // NaN never wins
    }
  }
  float value() const {
    float lanes[kLanes], max = kLowest;
    std::memcpy(lanes, best, sizeof lanes);
    for (float lane : lanes) max = lane > max ? lane : max;
    return max;
  }
};

struct SumExp {
  Floats sums[kVectors] = {};
  float max;
  explicit SumExp(float max) : max(max) {}
  void add(const float* x) {
    for (int v = 0; v < kVectors; ++v) {
      const Floats values = load(x + v * kWidth);
      const Floats numbers = values > kLowest ? values : all(kLowest);  // NaN counts as -inf
      const Floats finite = numbers > kLargest ? all(kLargest) : numbers;
      sums[v] += exp_nonpositive(finite - max);
    }
  }
  float value() const {
    float lanes[kLanes];
    std::memcpy(lanes, sums, sizeof lanes);
    for (int width = kLanes / 2; width > 0; width /= 2)
      for (int j = 0; j < width; ++j) lanes[j] += lanes[j + width];
    return lanes[0];
  }
};

template <class Accumulator>
inline float accumulate(Accumulator accumulator, const float* x, int n) {
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) accumulator.add(x + i);
  if (i < n) accumulator.add(Tail(x + i, n - i).lanes);
  return accumulator.value();
}

struct Reduce {
  // Block by block, so that the place of the largest entry is looked for in one block alone.
  Best best(const float* row, int first, int last) const {
    constexpr int kBlock = 16 * kLanes;
    float max = kLowest;
    int block = first;
    for (int i = first; i < last; i += kBlock) {
      const float largest = sanitized(accumulate(Largest(), row + i, i + kBlock < last ? kBlock : last - i));
      if (largest > max) {
        max = largest;
        block = i;
      }
    }
    if (!(max > kLowest)) return Best{};
    while (!(row[block] >= max)) ++block;
    return candidate(max, block);
  }

  float log_sum_exp(const float* part, int n, float max) const {
    return std::log(accumulate(SumExp(max), part, n));
  }
};

}  // namespace

void decide_rows(const float* rows, std::size_t count, const RowLayout& layout, float blank_penalty,
                 std::int32_t* tokens, std::int32_t* durations, float* token_logprobs, float* duration_logprobs) {
  for (std::size_t i = 0; i < count; ++i) {
    const Decision decision = decide(rows + i * layout.width(), layout, blank_penalty, Reduce{});
    tokens[i] = decision.token;
    durations[i] = decision.duration;
    token_logprobs[i] = decision.token_logprob;
    duration_logprobs[i] = decision.duration_logprob;
  }
}

}  // namespace tdt::cpu::TDT_ISA
