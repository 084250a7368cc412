// row -> decision: where tokens, blank and durations lie in a joint row, and what a row decides.
//
// Header-only and without dependencies: compiled by host compilers and by NVRTC alike.
//
// A joint row is [V token logits and B blank logits | D duration logits]. The blanks lie side by side. B is 1, except in
// multi-blank RNN-T: there the row ends with several blanks, each of which moves the search by frames of its own, and
// D is 0. The rules:
//   - the two parts are decided independently; equal values go to the lowest index;
//   - the frames of a decision are those of the duration part; without one, a token has 0, and a blank those of the
//     table of blanks;
//   - whether a token is emitted is decided by the whole row. If the best token may not be emitted (`allowed`), it is
//     the best of those that may; if there are scores beside the network's, the best of these by logit plus score;
//   - NaN counts as -inf, +inf as the largest finite float;
//   - if a part has no number above -inf, its decision is certain: the last blank for the token part, the first entry
//     of the table for the duration part;
//   - log-probabilities are a log-softmax of each part on its own.
#pragma once

#include "options.h"

#if defined(__CUDACC__)
#define TDT_HD __host__ __device__ __forceinline__
#else
#define TDT_HD inline
#endif

namespace tdt {

constexpr float kLargest = 3.402823466e+38f;                        // largest finite float
constexpr float kLowest = __builtin_bit_cast(float, 0xff800000u);  // -inf, "no number"; NVRTC has no other constant
constexpr int kNoIndex = 0x7fffffff;

struct RowLayout {
  int vocab_size;           // V, without blanks
  int blank;                // entry of the first blank, 0 .. V; also the id that stands for every blank
  int num_blanks;           // B
  int num_durations;        // D; 0 for RNN-T
  const int* blank_frames;  // [B] frames, read only if D is 0
  const int* durations;     // [D] frames

  TDT_HD int token_entries() const { return vocab_size + num_blanks; }
  TDT_HD int blanks_end() const { return blank + num_blanks; }
  TDT_HD int width() const { return token_entries() + num_durations; }
};

TDT_HD float sanitized(float logit) {
  if (!(logit >= kLowest)) return kLowest;  // NaN
  return logit > kLargest ? kLargest : logit;
}

// The largest value of a part so far and its index; kNoIndex as long as no number above -inf was seen.
struct Best {
  float value = kLowest;
  int index = kNoIndex;
};

TDT_HD Best better(Best a, Best b) {
  return (b.value > a.value || (b.value == a.value && b.index < a.index)) ? b : a;
}

TDT_HD Best candidate(float value, int index) {
  Best best;
  if (value > kLowest) {
    best.value = value;
    best.index = index;
  }
  return best;
}

// Whether a token is emitted. The logit of the best token is compared with that of the best blank minus the blank
// penalty; the lower index wins a tie.
TDT_HD bool emits(const Best& token, const Best& blank, const GreedyOptions& options) {
  const Best winner = better(token, candidate(sanitized(blank.value - options.blank_penalty), blank.index));
  return winner.index != kNoIndex && winner.index != blank.index;
}

// The best blank of a row.
TDT_HD Best best_blank(const float* row, const RowLayout& layout) {
  Best best;
  for (int i = layout.blank; i < layout.blanks_end(); ++i) best = better(best, candidate(sanitized(row[i]), i));
  return best;
}

// The tokens that may be emitted: [V + 1] by id, 0 for those that may not; null if all may.
using Allowed = const unsigned char*;

TDT_HD bool may_win(Allowed allowed, int token) { return allowed == nullptr || allowed[token] != 0; }

// What steers which token is emitted.
struct Steering {
  Allowed allowed;
  const float* scores;  // [V + 1] by id, added to the logits; null: none
};

// What a token's logit is compared by.
TDT_HD float steered(float logit, int token, const Steering& steering) {
  return steering.scores ? sanitized(sanitized(logit) + steering.scores[token]) : sanitized(logit);
}

// Which blank of a row decides: its place among the B blanks.
TDT_HD int blank_rank(const Best& blank, const RowLayout& layout) {
  return blank.index == kNoIndex ? layout.num_blanks - 1 : blank.index - layout.blank;
}

// How much the logits of the tokens that may be emitted are raised for scores that compare them with blank: as far as
// the best of them, `allowed`, is below the best of all tokens. So they take the place of tokens that may not be
// emitted, whose probability blank does not get.
TDT_HD float raised_by(const Best& token, const Best& allowed) {
  return allowed.index == kNoIndex ? 0.0f : sanitized(token.value - allowed.value);
}

// The greedy choice of a duration.
struct Duration {
  int index;   // in the table; 0 if the duration part has no number
  int frames;  // 0 for RNN-T
};

// `longest` is the largest entry of the duration part.
TDT_HD Duration chosen_duration(const Best& longest, const RowLayout& layout) {
  if (layout.num_durations == 0) return {0, 0};
  const int index = longest.index == kNoIndex ? 0 : longest.index;
  return {index, layout.durations[index]};
}

struct Decision {
  int token;               // 0 .. V; `RowLayout::blank` for every blank
  int duration;            // frames, as predicted or those of the blank; 0 for a token of RNN-T
  float token_logprob;     // 0 where the token is blank, unless the search is traced
  float duration_logprob;  // 0 where the token is blank, unless the search is traced; 0 for RNN-T
};

// The statistic of a row whose token part has no number, so that blank is certain.
TDT_HD float certain_statistic(Statistic statistic) {
  return statistic == Statistic::max_prob || statistic == Statistic::power_sum ? 1.0f : 0.0f;
}

// Log-probability of the entry `value` in a part whose largest entry is `max`; `log_sum` is the logarithm of the part's
// sum of exp(x - max).
TDT_HD float log_probability(float value, float max, float log_sum) { return (value - max) - log_sum; }

// Decides one row. `Reduce` has the three loops over a part, so that each processor can bring its own:
//   Best  best(const float* row, int first, int last)         largest sanitized entry of [first, last)
//   Best  best(const float* row, int first, int last, const Steering& steering)
//                                                             the best that may be emitted, and what it is compared by
//   float log_sum_exp(const float* part, int n, float max)    log(sum(exp(sanitized(x) - max)))
template <class Reduce>
TDT_HD Decision decide(const float* row, const RowLayout& layout, const GreedyOptions& options,
                       const Steering& steering, const Reduce& reduce) {
  const int entries = layout.token_entries(), end = layout.blanks_end();
  const Best best = better(reduce.best(row, 0, layout.blank), reduce.best(row, end, entries));
  const Best blank = best_blank(row, layout);
  Best token = best;
  bool emitted = emits(best, blank, options);
  if (emitted && (steering.scores || !may_win(steering.allowed, best.index))) {
    token = better(reduce.best(row, 0, layout.blank, steering), reduce.best(row, end, entries, steering));
    emitted = token.index != kNoIndex;
    if (emitted) token.value = sanitized(row[token.index]);
  }

  const float* durations = row + entries;
  Best longest;
  if (layout.num_durations > 0) longest = reduce.best(durations, 0, layout.num_durations);
  Decision decision = {emitted ? token.index : layout.blank, chosen_duration(longest, layout).frames, 0.0f, 0.0f};
  if (!emitted && layout.num_durations == 0) decision.duration = layout.blank_frames[blank_rank(blank, layout)];
  if (!emitted && !options.trace) return decision;

  // Blank penalty and steering take part in the choice alone. Reported log-probabilities ignore them.
  const float max = blank.value > best.value ? blank.value : best.value;
  if (max > kLowest) {
    const float chosen = emitted ? token.value : blank.value;
    decision.token_logprob = log_probability(chosen, max, reduce.log_sum_exp(row, entries, max));
  }
  if (longest.index != kNoIndex) {
    const float log_sum = reduce.log_sum_exp(durations, layout.num_durations, longest.value);
    decision.duration_logprob = log_probability(longest.value, longest.value, log_sum);
  }
  return decision;
}

}  // namespace tdt
