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

// The values of the tokens of a row that is known approximately, as large as their scores' errors can make them. Those of
// blanks, and of tokens that may not be emitted, are -inf.
class Likely {
 public:
  explicit Likely(const ApproximateRow& row) : row_(row) {}

  Floats vector(int first) const {
    Floats value = load(row_.values + first);
    if (row_.steering.scores) {
      const Floats score = load(row_.steering.scores + first);
      value = (value + score) + (score < 0.0f ? -score : score) * kScoreError;
    }
    if (row_.steering.allowed)
      value = allowed_lanes(row_.steering.allowed + first) ? value : all(kLowest);
    if (row_.first_blank >= first + kWidth || row_.blanks_end <= first) return value;
    float lanes[kWidth];
    store(lanes, value);
    for (int i = 0; i < kWidth; ++i)
      if (is_blank(first + i)) lanes[i] = kLowest;
    return load(lanes);
  }
  float one(int token) const {
    if (is_blank(token) || !may_win(row_.steering.allowed, token)) return kLowest;
    if (!row_.steering.scores) return row_.values[token];
    const float score = row_.steering.scores[token];
    return (row_.values[token] + score) + (score < 0.0f ? -score : score) * kScoreError;
  }

 private:
  bool is_blank(int token) const { return token >= row_.first_blank && token < row_.blanks_end; }
  const ApproximateRow& row_;
};

int likeliest(const ApproximateRow& row, float* block_maxima) {
  const Likely likely(row);
  float max = kLowest;
  int best_block = 0;
  for (int block = 0; block * kScreenBlock < row.entries; ++block) {
    const int end = (block + 1) * kScreenBlock, last = end < row.entries ? end : row.entries;
    Floats best = all(kLowest);
    int i = block * kScreenBlock;
    for (; i + kWidth <= last; i += kWidth) {
      const Floats values = likely.vector(i);
      best = values > best ? values : best;  // NaN never wins
    }
    float lanes[kWidth], largest = kLowest;
    store(lanes, best);
    for (float lane : lanes) largest = lane > largest ? lane : largest;
    for (; i < last; ++i) largest = likely.one(i) > largest ? likely.one(i) : largest;
    block_maxima[block] = largest;
    if (largest > max) {
      max = largest;
      best_block = block;
    }
  }
  if (!(max > kLowest)) return kNoIndex;
  int token = best_block * kScreenBlock;
  while (token + kWidth <= row.entries && !any((Words)(likely.vector(token) >= max))) token += kWidth;
  while (!(likely.one(token) >= max)) ++token;
  return token;
}

int survivors(const ApproximateRow& row, const float* block_maxima, float certain, std::int32_t* tokens) {
  const Likely likely(row);
  int found = 0;
  for (int block = 0; block * kScreenBlock < row.entries; ++block) {
    const float error = row.block_errors[block] * row.norm + row.block_norms[block] * row.error_norm;
    if (block_maxima[block] + error < certain) continue;
    const int end = (block + 1) * kScreenBlock, last = end < row.entries ? end : row.entries;
    int i = block * kScreenBlock;
    for (; i + kWidth <= last; i += kWidth) {
      const Floats errors = load(row.weight_errors + i) * row.norm + load(row.weight_norms + i) * row.error_norm;
      const Floats high = likely.vector(i) + errors;
      if (!any((Words)(high >= certain))) continue;
      float lanes[kWidth];
      store(lanes, high);
      for (int j = 0; j < kWidth; ++j)
        if (lanes[j] >= certain) tokens[found++] = i + j;
    }
    for (; i < last; ++i)
      if (likely.one(i) + (row.weight_errors[i] * row.norm + row.weight_norms[i] * row.error_norm) >= certain)
        tokens[found++] = i;
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
const NetworkKernels network_kernels = {stage, multiply, multiply_some, lstm_cell, hidden, likeliest, survivors, read};

}  // namespace tdt::cpu::TDT_ISA
