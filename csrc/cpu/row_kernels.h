// The loops over joint rows, compiled once per instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tdt/row.h"

namespace tdt::cpu {

// Decides `count` rows, each layout.width() floats, one after the other in memory; writes one entry each.
using DecideRows = void (*)(const float* rows, std::size_t count, const RowLayout& layout,
                            const GreedyOptions& options, std::int32_t* tokens, std::int32_t* durations,
                            float* token_logprobs, float* duration_logprobs);

// What a beam search reads of a row. Log-probabilities are those of the row, without any bonus.
struct RankedRow {
  int count;                 // tokens ranked; fewer than asked for where the row has no more numbers
  std::int32_t* tokens;      // by logit plus bonus, best first; blank is not among them
  float* token_logprobs;
  float* duration_logprobs;  // [D]
  float blank_logit, blank_logprob;
  Best largest;              // logit and index of the largest token, blank aside, without any bonus
  Duration duration;         // the greedy choice
  float statistic;

  // At temperature T an entry of log-probability x has the log-probability x / T less this; 0 for T = 1.
  float token_normalizer, duration_normalizer;
};

// Ranks one row: the `ranks` best tokens by logit / temperature + bonus. `bonus` [V + 1] may be null.
using RankRow = void (*)(const float* row, const RowLayout& layout, const float* bonus, int ranks,
                         const BeamOptions& options, RankedRow* ranked);

}  // namespace tdt::cpu
