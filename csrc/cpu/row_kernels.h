// The loops over joint rows, compiled once per instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tdt/row.h"

namespace tdt::cpu {

// Decides `count` rows, each layout.width() floats, one after the other in memory; writes one entry each.
using DecideRows = void (*)(const float* rows, std::size_t count, const RowLayout& layout, float blank_penalty,
                            std::int32_t* tokens, std::int32_t* durations, float* token_logprobs,
                            float* duration_logprobs);

// A sum over a row's token entries, p = softmax of them, from which confidence measures are computed.
enum class Statistic : int {
  none = 0,
  max_prob = 1,   // the largest p
  power_sum = 2,  // sum of p^alpha
  power_log_sum = 3,  // sum of p^alpha ln p
  shannon = 4,    // sum of p ln p
};

// What a beam search reads of a row. Log-probabilities are those of the row, without any bonus.
struct RankedRow {
  int count;                 // tokens ranked; fewer than asked for where the row has no more numbers
  std::int32_t* tokens;      // by logit plus bonus, best first; blank is not among them
  float* token_logprobs;
  float* duration_logprobs;  // [D]
  float blank_logit, blank_logprob;
  Best largest;              // logit and index of the largest token, blank aside, without any bonus
  int longest;               // index of the largest duration entry
  float statistic;

  // At temperature T an entry of log-probability x has the log-probability x / T less this; 0 for T = 1.
  float token_normalizer, duration_normalizer;
};

// Ranks one row: the `size` best tokens by logit / temperature + bonus. `bonus` [V + 1] may be null.
using RankRow = void (*)(const float* row, const RowLayout& layout, const float* bonus, int size, float temperature,
                         Statistic statistic, float alpha, RankedRow* ranked);

}  // namespace tdt::cpu
