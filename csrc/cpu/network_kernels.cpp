// Compiled once per instruction set; TDT_ISA names the set and the namespace.
#include "network_kernels.h"

#include "elementwise.h"
#include "lanes.h"
#include "products.h"
#include "staging.h"

namespace tdt::cpu::TDT_ISA {
namespace {

// --- elementwise -----------------------------------------------------------------------------------------------------

void lstm_cell(const float* gates, const float* addend, int first, int last, float* cell, float* out, float* copy) {
  for (int block = first; block < last; ++block)
    for (int v = 0; v < kUnits; v += kWidth) {
      Floats gate[4];
      for (int g = 0; g < 4; ++g) {
        const int at = block * kPanel + g * kUnits + v;
        gate[g] = addend ? load(gates + at) + load(addend + at) : load(gates + at);
      }
      const int unit = block * kUnits + v;
      const Floats next = sigmoid(gate[2]) * load(cell + unit) + sigmoid(gate[0]) * hyperbolic_tangent(gate[3]);
      const Floats output = sigmoid(gate[1]) * hyperbolic_tangent(next);
      store(cell + unit, next);
      store(out + unit, output);
      if (copy) store(copy + unit, output);
    }
}

template <class Function>
inline void each_sum(const float* a, const float* b, int count, float* out, Function function) {
  for (int j = 0; j < count; j += kWidth) store(out + j, function(load(a + j) + load(b + j)));
}

void hidden(Activation activation, const float* a, const float* b, int count, float* out) {
  switch (activation) {
    case Activation::relu:  // written so that NaN stays NaN
      return each_sum(a, b, count, out, [](Floats x) { return x < 0.0f ? Floats{} : x; });
    case Activation::tanh:
      return each_sum(a, b, count, out, [](Floats x) { return hyperbolic_tangent(x); });
    case Activation::sigmoid:
      return each_sum(a, b, count, out, [](Floats x) { return sigmoid(x); });
  }
}

// --- screening -------------------------------------------------------------------------------------------------------

int survivors(const float* approximate, const float* weight_norms, const float* weight_errors, int count,
              int first_skipped, int last_skipped, float norm, float error_norm, float certain, std::int32_t* outputs) {
  const auto skips = [&](int i) { return i >= first_skipped && i < last_skipped; };
  const auto bound = [&](int i) { return load(weight_errors + i) * norm + load(weight_norms + i) * error_norm; };
  Floats best = all(certain);
  int i = 0;
  for (; i + kWidth <= count; i += kWidth) {
    Floats low = load(approximate + i) - bound(i);
    if (first_skipped < i + kWidth && last_skipped > i) {
      float lanes[kWidth];
      store(lanes, low);
      for (int j = 0; j < kWidth; ++j)
        if (skips(i + j)) lanes[j] = certain;
      low = load(lanes);
    }
    best = low > best ? low : best;
  }
  float lanes[kWidth];
  store(lanes, best);
  for (float lane : lanes) certain = lane > certain ? lane : certain;
  const int tail = i;
  for (; i < count; ++i) {
    const float low = approximate[i] - (weight_errors[i] * norm + weight_norms[i] * error_norm);
    if (!skips(i) && low > certain) certain = low;
  }
  int found = 0;
  for (i = 0; i < tail; i += kWidth) {
    const Floats high = load(approximate + i) + bound(i);
    store(lanes, high);
    bool any = false;
    for (float lane : lanes) any |= lane >= certain;
    if (!any) continue;
    for (int j = 0; j < kWidth; ++j)
      if (lanes[j] >= certain && !skips(i + j)) outputs[found++] = i + j;
  }
  for (; i < count; ++i) {
    const float high = approximate[i] + (weight_errors[i] * norm + weight_norms[i] * error_norm);
    if (high >= certain && !skips(i)) outputs[found++] = i;
  }
  return found;
}

// --- measuring -------------------------------------------------------------------------------------------------------

std::uint32_t read(const char* data, std::size_t bytes) {
  constexpr int kSumsAtOnce = 8;
  Words sums[kSumsAtOnce] = {};
  for (std::size_t at = 0; at < bytes; at += kSumsAtOnce * sizeof(Words))
    for (int i = 0; i < kSumsAtOnce; ++i) sums[i] += load_words(data + at + i * sizeof(Words));
  std::uint32_t words[kSumsAtOnce * kWidth], sum = 0;
  std::memcpy(words, sums, sizeof words);
  for (std::uint32_t word : words) sum += word;
  return sum;
}

}  // namespace

extern const NetworkKernels network_kernels;
const NetworkKernels network_kernels = {stage, multiply, multiply_some, lstm_cell, hidden, survivors, read};

}  // namespace tdt::cpu::TDT_ISA
