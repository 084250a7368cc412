// Exact decisions from 8-bit products: they tell which outputs of a joint row can be the largest, and only these are
// computed in full.
//
// Let w be an output's weights, b its bias and a the joint's hidden vector. Let w' and a' be w and a as the 8 bits hold
// them, and e and d the errors: w = w' + e, a = a' + d. Then
//   w . a - w' . a' = e . a + w' . d,   so   |w . a - w' . a'| <= |e| |a| + |w'| |d|   (Cauchy-Schwarz).
// The integer product w' . a' is exact. Float32 rounds in three places. With u = 2^-24 and n inputs these errors are
//   - in the full sum b + w . a, which has n fused or 2n separate roundings: at most 2 n u / (1 - 2 n u) times
//     |b| + sum |w_i a_i| <= |(w, b)| |(a, 1)|;
//   - in scaling the integer product and adding the bias: at most 5 u (|w'| |a'| + |b|) <= 20 u |(w, b)| |(a, 1)|,
//     since |w'| <= 2 |w| and |a'| <= 2 |a|;
//   - in the bound itself and the comparison: at most 5 u of the same magnitudes.
// So with  norm >= |(a, 1)|,  error_norm >= |d|,  weight_norms >= |w'|  and
//   weight_errors >= |e| + (2 n + 64) u |(w, b)| (1 + 1e-3),
// an output's value differs from its approximation by at most  norm * weight_errors + error_norm * weight_norms.  An
// output whose upper bound is below another's lower bound cannot be the largest. The other outputs are computed in
// full, by the same sums as in a whole product, so that even ties are decided as without screening.
//
// Nothing here may overflow. So a row is screened only if its norm is below 1e15, and a matrix only if all its norms and
// errors are below 1e22 (packing.py).
#pragma once

#include "instruction_sets.h"
#include "network.h"

namespace tdt::cpu {

// The outputs of a row that were computed, in the form in which the rules (tdt/row.h) read a row.
class KnownOutputs {
 public:
  KnownOutputs(const float* row, const std::int32_t* outputs, int count)
      : row_(row), outputs_(outputs), count_(count) {}

  // The largest known entry of [first, last), counted from `part`, which points to the row's token or duration part.
  Best best(const float* part, int first, int last) const {
    const int offset = static_cast<int>(part - row_);
    Best best;
    for (int i = 0; i < count_; ++i) {
      const int index = outputs_[i] - offset;
      if (index >= first && index < last) best = better(best, candidate(sanitized(row_[outputs_[i]]), index));
    }
    return best;
  }

  // Not known here, since it needs every output. Log-probabilities are computed later, from whole rows.
  float log_sum_exp(const float*, int, float) const { return 0.0f; }

 private:
  const float* row_;
  const std::int32_t* outputs_;
  int count_;
};

// Scratch memory for one row.
struct ScreenScratch {
  float* row;             // [outputs]
  float* values;          // [outputs]
  std::int32_t* outputs;  // [outputs]
  std::int32_t* found;    // [outputs]
};

// Decides a joint row of which only the approximation is known. Log-probabilities are left at 0.
inline Decision decide_screened(const Network& network, const InstructionSet& isa, const float* approximate,
                                const StagedRow& approximated, const StagedRow& exact, const GreedyOptions& options,
                                const ScreenScratch& scratch) {
  const RowLayout& layout = network.layout;
  const int entries = layout.token_entries();
  const auto compute = [&](int count) {
    isa.network->multiply_some(network.output, exact, scratch.outputs, count, scratch.values);
    for (int i = 0; i < count; ++i) scratch.row[scratch.outputs[i]] = scratch.values[i];
  };
  // Blank and durations are always computed. Tokens that are certainly below blank are not needed.
  int count = 0;
  scratch.outputs[count++] = layout.blank;
  for (int d = 0; d < layout.num_durations; ++d) scratch.outputs[count++] = entries + d;
  compute(count);
  const float blank = sanitized(sanitized(scratch.row[layout.blank]) - options.blank_penalty);
  const bool bounded = approximated.norm < 1e15f;  // false for NaN
  int tokens = 0;
  if (bounded) {
    tokens = isa.network->survivors(approximate, network.weight_norms, network.weight_errors, entries, layout.blank,
                                        approximated.norm, approximated.error_norm, blank, scratch.found);
  } else {
    for (int i = 0; i < entries; ++i)
      if (i != layout.blank) scratch.found[tokens++] = i;
  }
  for (int i = 0; i < tokens; ++i) scratch.outputs[i] = scratch.found[i];
  compute(tokens);
  count = tokens;
  scratch.outputs[count++] = layout.blank;
  for (int d = 0; d < layout.num_durations; ++d) scratch.outputs[count++] = entries + d;
  return decide(scratch.row, layout, options, KnownOutputs(scratch.row, scratch.outputs, count));
}

}  // namespace tdt::cpu
