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
// full, by the same sums as in a whole product, so that even ties are decided as without screening. Where the best token
// may not be emitted, the same is done again with the tokens that may.
//
// Where scores of fusions take part in choosing the token, the same is done with the sums of value and score. Adding a
// score s rounds both sums, and their bounds. Of these errors, the share of the value is within the 64 u above, and that
// of the score is at most 4 u |s|. Twice that is added to the bound.
//
// Nothing here may overflow. So a row is screened only if its norm is below 1e15, and a matrix only if all its norms and
// errors are below 1e22 (packing.py).
#pragma once

#include <cmath>

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

  // As above, of the tokens that may be emitted.
  Best best(const float*, int first, int last, Allowed allowed) const {
    Best best;
    for (int i = 0; i < count_; ++i) {
      const int index = outputs_[i];
      if (index >= first && index < last && allowed[index])
        best = better(best, candidate(sanitized(row_[index]), index));
    }
    return best;
  }

 private:
  const float* row_;
  const std::int32_t* outputs_;
  int count_;
};

// Scratch memory for one row.
struct ScreenScratch {
  float* row;             // [outputs]
  float* values;          // [outputs]
  float* steered;         // [outputs]
  float* bounds;          // [outputs]
  std::int32_t* outputs;  // [outputs]
};

// Decides a joint row of which only the approximation is known. Log-probabilities are left at 0. `scores` [V + 1] are
// those of the fusions, null without any.
inline Decision decide_screened(const Network& network, const InstructionSet& isa, const float* approximate,
                                const StagedRow& approximated, const StagedRow& exact, const GreedyOptions& options,
                                Allowed allowed, const float* scores, const ScreenScratch& scratch) {
  const RowLayout& layout = network.layout;
  const int entries = layout.token_entries();
  int count = 0;
  const auto add = [&](int first, int last) {
    for (int output = first; output < last; ++output) scratch.outputs[count++] = output;
  };
  const auto compute = [&] {
    isa.network->multiply_some(network.output, exact, scratch.outputs, count, scratch.values);
    for (int i = 0; i < count; ++i) scratch.row[scratch.outputs[i]] = scratch.values[i];
  };
  const auto add_blanks_and_durations = [&] {
    add(layout.blank, layout.blanks_end());
    add(entries, layout.width());
  };
  const float norm = approximated.norm, error_norm = approximated.error_norm;
  // Computes the tokens that can be the best, if one with the value `certain` is known.
  const auto compute_survivors = [&](const float* values, float certain) {
    count = isa.network->survivors(values, network.weight_norms, network.weight_errors, entries, layout.blank,
                                   layout.blanks_end(), norm, error_norm, certain, scratch.outputs);
    compute();
  };
  const auto in_tokens = [&](auto loop) {
    loop(0, layout.blank);
    loop(layout.blanks_end(), entries);
  };
  // The best of the outputs that were computed, by value and score.
  const auto best_with_scores = [&] {
    Best best;
    for (int i = 0; i < count; ++i) {
      const int token = scratch.outputs[i];
      const bool is_token = token < layout.blank || (token >= layout.blanks_end() && token < entries);
      if (is_token && may_win(allowed, token))
        best = better(best, candidate(sanitized(sanitized(scratch.row[token]) + scores[token]), token));
    }
    return best.index;
  };
  const auto decided = [&](Allowed tokens) {
    return decide(scratch.row, layout, options, tokens, KnownOutputs(scratch.row, scratch.outputs, count));
  };

  if (!(approximated.norm < 1e15f)) {  // also for NaN
    add(0, layout.width());
    compute();
    const Decision decision = decided(scores ? nullptr : allowed);
    if (!scores || decision.token == layout.blank) return decision;
    return replaced(decision, best_with_scores(), scratch.row, layout);
  }
  // Tokens that are certainly below the best blank are not needed.
  add_blanks_and_durations();
  compute();
  compute_survivors(approximate, sanitized(best_blank(scratch.row, layout).value - options.blank_penalty));
  add_blanks_and_durations();
  const Decision decision = decided(nullptr);
  if (decision.token == layout.blank || (!scores && may_win(allowed, decision.token))) return decision;

  // These loops have no branches, so that they become vector code.
  if (scores) {
    in_tokens([&](int first, int last) {
      for (int i = first; i < last; ++i) {
        scratch.steered[i] = approximate[i] + scores[i];
        scratch.bounds[i] = network.weight_errors[i] * norm + network.weight_norms[i] * error_norm +
                            std::fabs(scores[i]) * (8.0f / (1 << 24));
      }
    });
    if (allowed)
      in_tokens([&](int first, int last) {
        for (int i = first; i < last; ++i) scratch.steered[i] = allowed[i] ? scratch.steered[i] : kLowest;
      });
    count = isa.network->survivors(scratch.steered, network.weight_norms, scratch.bounds, entries, layout.blank,
                                   layout.blanks_end(), 1.0f, 0.0f, kLowest, scratch.outputs);
    compute();
    return replaced(decision, best_with_scores(), scratch.row, layout);
  }
  in_tokens([&](int first, int last) {
    for (int i = first; i < last; ++i) {
      const float value = approximate[i];
      scratch.steered[i] = allowed[i] ? value : kLowest;
    }
  });
  compute_survivors(scratch.steered, kLowest);
  add(decision.token, decision.token + 1);
  add_blanks_and_durations();
  return decided(allowed);
}

}  // namespace tdt::cpu
