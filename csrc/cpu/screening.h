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
// output whose upper bound is below another's value cannot be the largest. So the output with the largest approximation is
// computed first, and then those whose upper bounds are not below its value; by the same sums as in a whole product, so
// that even ties are decided as without screening. If no upper bound reaches its lower bound, not even that one has to be
// computed: any value between its bounds gives the same decision. Where the best token may not be emitted, the same is
// done again with the tokens that may.
//
// Where scores of fusions take part in choosing the token, the same is done with the sums of value and score. Adding a
// score s rounds both sums, and their bounds. Of these errors, the share of the value is within the 64 u above, and that
// of the score is at most 4 u |s|. Twice that is added to the bound.
//
// Nothing here may overflow. So a row is screened only if its norm is below 1e15, and a matrix only if all its norms and
// errors are below 1e22 (packing.py).
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

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
  Best best(const float*, int first, int last, const Steering& steering) const {
    Best best;
    for (int i = 0; i < count_; ++i) {
      const int index = outputs_[i];
      if (index >= first && index < last && may_win(steering.allowed, index))
        best = better(best, candidate(steered(row_[index], index, steering), index));
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
  std::int32_t* outputs;  // [2 outputs]: those that are known, then more that are listed
  unsigned char* known;   // [outputs], all 0
  float* block_maxima;    // [blocks]
};

// The largest norms and errors of each block of outputs, see ApproximateRow.
struct ScreenBlocks {
  std::vector<float> norms, errors;

  ScreenBlocks() = default;
  ScreenBlocks(const Network& network, int entries)
      : norms((entries + kScreenBlock - 1) / kScreenBlock), errors(norms.size()) {
    for (int i = 0; i < entries; ++i) {
      float &norm = norms[i / kScreenBlock], &error = errors[i / kScreenBlock];
      norm = std::max(norm, network.weight_norms[i]);
      error = std::max(error, network.weight_errors[i]);
    }
  }
};

// A lower bound of a token's value with its score.
inline float lower_bound_of(const ApproximateRow& row, int token) {
  const float error = row.weight_errors[token] * row.norm + row.weight_norms[token] * row.error_norm;
  if (!row.steering.scores) return row.values[token] - error;
  const float score = row.steering.scores[token];
  return (row.values[token] + score) - (error + std::fabs(score) * kScoreError);
}

// Decides a joint row of which only the approximation is known. Log-probabilities are left at 0.
inline Decision decide_screened(const Network& network, const ScreenBlocks& blocks, const InstructionSet& isa,
                                const float* approximate, const StagedRow& approximated, const StagedRow& exact,
                                const GreedyOptions& options, const Steering& steering, const ScreenScratch& scratch) {
  const RowLayout& layout = network.layout;
  const int entries = layout.token_entries();
  // The outputs that are computed in full, in the order in which they are needed.
  int count = 0;
  const auto compute = [&](int added) {
    std::int32_t* outputs = scratch.outputs + count;
    const auto is_known = [&](std::int32_t output) { return scratch.known[output] != 0; };
    added = static_cast<int>(std::remove_if(outputs, outputs + added, is_known) - outputs);
    isa.network->multiply_some(network.output, exact, outputs, added, scratch.values);
    for (int i = 0; i < added; ++i) {
      scratch.row[outputs[i]] = scratch.values[i];
      scratch.known[outputs[i]] = 1;
    }
    count += added;
  };
  const auto compute_range = [&](int first, int last) {
    std::iota(scratch.outputs + count, scratch.outputs + count + last - first, first);
    compute(last - first);
  };
  const auto outputs_so_far = [&] { return KnownOutputs(scratch.row, scratch.outputs, count); };
  const auto decided = [&] { return decide(scratch.row, layout, options, steering, outputs_so_far()); };
  const auto forget = [&] {
    for (int i = 0; i < count; ++i) scratch.known[scratch.outputs[i]] = 0;
  };
  // Computes the tokens that can be the best, if that is above `least`. If it is certain which one it is, its
  // approximation will do. Else the likeliest is computed first: its value rules out most of the others.
  const auto compute_contenders = [&](const Steering& by, float least) {
    const ApproximateRow row = {approximate, network.weight_norms, network.weight_errors, blocks.norms.data(),
                                blocks.errors.data(), entries, layout.blank, layout.blanks_end(), approximated.norm,
                                approximated.error_norm, by};
    const int likeliest = isa.network->likeliest(row, scratch.block_maxima);
    if (likeliest == kNoIndex) return;
    const auto survivors = [&](float certain) {
      return isa.network->survivors(row, scratch.block_maxima, std::max(certain, least), scratch.outputs + count);
    };
    const float lower_bound = lower_bound_of(row, likeliest);
    const int contenders = survivors(lower_bound);
    if (contenders == 0) return;
    if (contenders == 1 && lower_bound > least) {
      if (!scratch.known[likeliest]) scratch.row[likeliest] = approximate[likeliest];
      ++count;
      return;
    }
    compute_range(likeliest, likeliest + 1);
    compute(survivors(steered(scratch.row[likeliest], likeliest, by)));
  };

  if (!(approximated.norm < 1e15f)) {  // also for NaN
    compute_range(0, layout.width());
  } else {
    compute_range(layout.blank, layout.blanks_end());
    compute_range(entries, layout.width());
    // Tokens that are certainly below the best blank are not needed.
    const Best blank = best_blank(scratch.row, layout);
    compute_contenders({}, sanitized(blank.value - options.blank_penalty));
    const Best best = better(outputs_so_far().best(scratch.row, 0, layout.blank),
                             outputs_so_far().best(scratch.row, layout.blanks_end(), entries));
    // Another token can take the best one's place.
    if (emits(best, blank, options) && (steering.scores || !may_win(steering.allowed, best.index)))
      compute_contenders(steering, kLowest);
  }
  const Decision decision = decided();
  forget();
  return decision;
}

}  // namespace tdt::cpu
