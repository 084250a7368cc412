// The loops over joint rows, compiled once per instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tdt/row.h"

namespace tdt::cpu {

// Decides `count` joint rows of layout.width() floats, which lie one after the other. Writes one entry for each.
using DecideRows = void (*)(const float* rows, std::size_t count, const RowLayout& layout,
                            const GreedyOptions& options, std::int32_t* tokens, std::int32_t* durations,
                            float* token_logprobs, float* duration_logprobs);

// What a beam search reads of a joint row. Log-probabilities are the network's, without any bonus.
struct RankedRow {
  int count;                 // tokens ranked; fewer than asked for if the row has fewer numbers
  std::int32_t* tokens;      // best first by logit plus bonus, without blank
  float* token_logprobs;
  float* duration_logprobs;  // [D]
  float blank_logit, blank_logprob;
  Best largest;              // logit and index of the best token other than blank, without any bonus
  Duration duration;         // the greedy choice
  float statistic;

  // At temperature T, an entry of log-probability x has the log-probability x / T minus this. 0 for T = 1.
  float token_normalizer, duration_normalizer;
};

// Ranks one joint row: finds its `ranks` best tokens by logit / temperature + bonus. `bonus` [V + 1] may be null.
using RankRow = void (*)(const float* row, const RowLayout& layout, const float* bonus, int ranks,
                         const BeamOptions& options, RankedRow* ranked);

}  // namespace tdt::cpu
