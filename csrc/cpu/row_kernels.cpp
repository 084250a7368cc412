// Compiled once per instruction set; TDT_ISA names the set and the namespace.
//
// A sum's order depends on kLanes alone, and multiplications are not fused with additions (-ffp-contract=off): every
// instruction set gives the same bits.
#include "row_kernels.h"

#include <cmath>

#include "lanes.h"

namespace tdt::cpu::TDT_ISA {
namespace {

// e^x for x <= 0, to 2 units in the last place; 0 from -87 down.
// x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its Taylor polynomial of degree 7 (truncation below 6e-9).
inline Floats exp_nonpositive(Floats x) {
  constexpr float kLog2e = 1.44269504088896341f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
  const Floats bounded = x > -87.0f ? x : all(-87.0f);
  const Floats shifted = bounded * kLog2e + kRound;
  const Floats n = shifted - kRound;
  const Floats r = (bounded - n * kLn2High) - n * kLn2Low;
  Floats p = all(1.0f / 5040);
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  // The low bits of `shifted` hold n; moved to the exponent they scale by 2^n.
  const Words scale = (bits_of<Words>(shifted) << 23) + 0x3f800000u;
  return x > -87.0f ? p * bits_of<Floats>(scale) : Floats{};
}

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
