// row -> decision: where tokens, blank and durations lie in a joint row, and what a row decides.
//
// Header-only and without dependencies: compiled by host compilers and by NVRTC alike.
//
// A joint row is [V + 1 token logits, blank among them | D duration logits]. The rules:
//   - the two parts are decided independently; equal values go to the lowest index;
//   - NaN counts as -inf, +inf as the largest finite float;
//   - if a part has no number above -inf, its decision is certain: blank for the token part, the first entry of the
//     table for the duration part;
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
  int vocab_size;        // V, without blank
  int blank;             // 0 .. V
  int num_durations;     // D; 0 for RNN-T
  const int* durations;  // [D] frames

  TDT_HD int token_entries() const { return vocab_size + 1; }
  TDT_HD int width() const { return vocab_size + 1 + num_durations; }
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

// Whether a token is emitted. `token` is the best token other than blank. Its logit is compared with the blank logit
// minus the blank penalty; the lower index wins a tie.
TDT_HD bool emits(const Best& token, float blank, int blank_index, const GreedyOptions& options) {
  const Best winner = better(token, candidate(sanitized(blank - options.blank_penalty), blank_index));
  return winner.index != kNoIndex && winner.index != blank_index;
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
  int token;               // 0 .. V, may be blank
  int duration;            // frames, as predicted; 0 for RNN-T
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

// Decides one row. `Reduce` has the two loops over a part, so that each processor can bring its own:
//   Best  best(const float* row, int first, int last)         largest sanitized entry of [first, last)
//   float log_sum_exp(const float* part, int n, float max)    log(sum(exp(sanitized(x) - max)))
template <class Reduce>
TDT_HD Decision decide(const float* row, const RowLayout& layout, const GreedyOptions& options, const Reduce& reduce) {
  const int entries = layout.token_entries();
  const Best token = better(reduce.best(row, 0, layout.blank), reduce.best(row, layout.blank + 1, entries));
  const float blank = sanitized(row[layout.blank]);
  const bool emitted = emits(token, blank, layout.blank, options);

  const float* durations = row + entries;
  Best longest;
  if (layout.num_durations > 0) longest = reduce.best(durations, 0, layout.num_durations);
  Decision decision = {emitted ? token.index : layout.blank, chosen_duration(longest, layout).frames, 0.0f, 0.0f};
  if (!emitted && !options.trace) return decision;

  // The blank penalty takes part in the choice alone. Reported log-probabilities ignore it.
  const float max = blank > token.value ? blank : token.value;
  if (max > kLowest) {
    const float chosen = emitted ? token.value : blank;
    decision.token_logprob = log_probability(chosen, max, reduce.log_sum_exp(row, entries, max));
  }
  if (longest.index != kNoIndex) {
    const float log_sum = reduce.log_sum_exp(durations, layout.num_durations, longest.value);
    decision.duration_logprob = log_probability(longest.value, longest.value, log_sum);
  }
  return decision;
}

}  // namespace tdt
