// Decides and ranks joint rows, a block for each row: row -> decision, row -> best tokens with log-probabilities.
#pragma once

#include "reduce.cuh"

namespace tdt::cuda {

// Which tokens may be emitted: a few masks, and the number of the one that each row or utterance has.
struct Masks {
  const unsigned char* table;  // [masks, V + 1] by token id, see tdt::Allowed; null: all tokens everywhere
  const int* numbers;          // of each row or utterance; -1: all tokens
  int entries;                 // V + 1
  int padding;

  __device__ Allowed of(int i) const {
    return table && numbers[i] >= 0 ? table + static_cast<long long>(numbers[i]) * entries : nullptr;
  }
};

// Loops over a part of a row, run by the whole block. One copy of each keeps the kernels short. `scratch` is shared
// memory: 8 bytes for each warp.
//
// The best of the entries first .. last - 1 that may be emitted.
__device__ TDT_OUTLINED Best best_of(const float* row, int first, int last, Allowed allowed, void* scratch) {
  Best best;
#pragma unroll 1
  for (int i = first + static_cast<int>(threadIdx.x); i < last; i += static_cast<int>(blockDim.x))
    if (may_win(allowed, i)) best = better(best, candidate(sanitized(row[i]), i));
  return over_block(best, static_cast<Best*>(scratch), Better{});
}
// The sum of a function of sanitized entries.
template <class Term>
__device__ __forceinline__ float total(const float* part, int n, Term term, void* scratch) {
  float sum = 0.0f;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x)) sum += term(sanitized(part[i]));
  return over_block(sum, static_cast<float*>(scratch), Plus{});
}
// log(sum(exp((x - max) scale))).
__device__ TDT_OUTLINED float scaled_log_sum(const float* part, int n, float max, float scale, void* scratch) {
  return logf(total(part, n, [=](float logit) { return expf((logit - max) * scale); }, scratch));
}

// The loops that `tdt::decide` needs.
struct BlockReduce {
  void* scratch;

  __device__ Best best(const float* row, int first, int last, Allowed allowed = nullptr) const {
    return best_of(row, first, last, allowed, scratch);
  }
  // Without scores: searches that have any rank their rows.
  __device__ Best best(const float* row, int first, int last, const Steering& steering) const {
    return best_of(row, first, last, steering.allowed, scratch);
  }
  __device__ float log_sum_exp(const float* part, int n, float max) const {
    return scaled_log_sum(part, n, max, 1.0f, scratch);
  }
};

// What a beam reads of a row beside its best tokens, as `RankedRow` of the CPU.
struct Ranked {
  int count;          // of ranked tokens
  int largest_index;  // of the largest logit, blanks aside
  int longest;        // index of the chosen duration
  int blank_index;    // entry of the best blank
  float largest, raised, blank_logit, statistic, token_normalizer, duration_normalizer;
};

// Ranks the tokens of a row that may be emitted, by logit / temperature + bonus. Log-probabilities are without
// temperature and bonus. `bonus` [V + 1] may be null. Writes `tokens` and `token_logprobs` [ranks], `duration_logprobs`
// [D], `blank_logprobs` [B].
__device__ TDT_OUTLINED void rank_row(const float* row, const RowLayout& layout, const float* bonus, Allowed allowed,
                                      int ranks, const BeamOptions& options, void* scratch, Ranked* ranked,
                                      int* tokens, float* token_logprobs, float* duration_logprobs,
                                      float* blank_logprobs) {
  const BlockReduce reduce = {scratch};
  const int entries = layout.token_entries(), thread = static_cast<int>(threadIdx.x);
  const int threads = static_cast<int>(blockDim.x);
  const float scale = 1.0f / options.temperature;
  const int blanks = layout.blank, end = layout.blanks_end();
  const Best blank = best_blank(row, layout);
  const Best largest = better(reduce.best(row, 0, blanks), reduce.best(row, end, entries));
  const float max = blank.value > largest.value ? blank.value : largest.value;
  Ranked result = {};
  result.largest = largest.value;
  result.largest_index = largest.index;
  result.blank_logit = blank.value;
  result.blank_index = blank.index;
  if (largest.index != kNoIndex && !may_win(allowed, largest.index))
    result.raised =
        raised_by(largest, better(reduce.best(row, 0, blanks, allowed), reduce.best(row, end, entries, allowed)));
  const Statistic statistic = options.statistic;
  if (max > kLowest) {
    const float log_sum = reduce.log_sum_exp(row, entries, max);
    const auto logprob = [=](float logit) { return logit > kLowest ? log_probability(logit, max, log_sum) : kLowest; };
    const auto value = [=](int token) {
      float value = sanitized(row[token]) * scale;
      if (bonus) value += bonus[token];
      return value > kLargest ? kLargest : value;
    };
    // Each thread offers the best of its own tokens. The thread whose offer is taken looks for its next best.
    const auto offer = [=](const Best& after) {
      Best best;
#pragma unroll 1
      for (int token = thread; token < entries; token += threads) {
        if ((token >= blanks && token < end) || !may_win(allowed, token)) continue;
        const Best one = candidate(value(token), token);
        const bool taken = after.index != kNoIndex &&
                           (one.value > after.value || (one.value == after.value && one.index <= after.index));
        if (!taken) best = better(best, one);
      }
      return best;
    };
    Best mine, next;
    bool taken = true;
    for (; result.count < ranks; ++result.count) {
      if (taken) mine = offer(next);
      next = over_block(mine, static_cast<Best*>(scratch), Better{});
      if (next.index == kNoIndex) break;
      if (thread == 0) {
        tokens[result.count] = next.index;
        token_logprobs[result.count] = logprob(sanitized(row[next.index]));
      }
      taken = next.index % threads == thread;
    }
#pragma unroll 1
    for (int i = thread; i < layout.num_blanks; i += threads) blank_logprobs[i] = logprob(sanitized(row[blanks + i]));
    if (scale != 1.0f)
      result.token_normalizer = scaled_log_sum(row, entries, max, scale, scratch) - scale * log_sum;
    const float alpha = statistic == Statistic::shannon ? 1.0f : options.alpha;
    if (statistic == Statistic::max_prob) result.statistic = expf(-log_sum);
    if (statistic == Statistic::power_sum)
      result.statistic = total(row, entries, [=](float logit) { return expf(alpha * logprob(logit)); }, scratch);
    if (statistic == Statistic::power_log_sum || statistic == Statistic::shannon)
      result.statistic = total(
          row, entries,
          [=](float logit) {
            const float power = expf(alpha * logprob(logit));
            return power > 0.0f ? power * logprob(logit) : 0.0f;
          },
          scratch);
  } else {  // no number: the last blank is certain
#pragma unroll 1
    for (int i = thread; i < layout.num_blanks; i += threads)
      blank_logprobs[i] = i == blank_rank(blank, layout) ? 0.0f : kLowest;
    result.statistic = certain_statistic(statistic);
  }

  const float* durations = row + entries;
  const Best longest = reduce.best(durations, 0, layout.num_durations);
  const bool certain = longest.index == kNoIndex;  // no number: the table's first duration is certain
  result.longest = chosen_duration(longest, layout).index;
  float log_sum = 0.0f;
  if (!certain) {
    log_sum = reduce.log_sum_exp(durations, layout.num_durations, longest.value);
    if (scale != 1.0f)
      result.duration_normalizer =
          scaled_log_sum(durations, layout.num_durations, longest.value, scale, scratch) - scale * log_sum;
  }
#pragma unroll 1
  for (int i = thread; i < layout.num_durations; i += threads) {
    const float logit = sanitized(durations[i]);
    duration_logprobs[i] = certain            ? (i == 0 ? 0.0f : kLowest)
                           : logit > kLowest ? log_probability(logit, longest.value, log_sum)
                                             : kLowest;
  }
  if (thread == 0) *ranked = result;
}

}  // namespace tdt::cuda
