// The loops over joint rows, compiled once per instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tdt/row.h"

namespace tdt::cpu {

// Which tokens may be emitted: a few masks, and the number of the one that each row or utterance has.
struct Masks {
  const unsigned char* table = nullptr;   // [masks, entries] by token id, see tdt::Allowed
  const std::int32_t* numbers = nullptr;  // of each row or utterance; -1: all tokens. Null: all tokens everywhere
  std::ptrdiff_t entries = 0;             // V + 1

  Allowed operator[](std::size_t i) const {
    return numbers && numbers[i] >= 0 ? table + numbers[i] * entries : nullptr;
  }
  // The same for a single row or utterance.
  Masks of(std::size_t i) const { return {table, numbers ? numbers + i : nullptr, entries}; }
};

// Decides `count` joint rows of layout.width() floats, which lie one after the other. Writes one entry for each.
// `scores` [V + 1] may be null; they steer all these rows.
using DecideRows = void (*)(const float* rows, std::size_t count, const RowLayout& layout,
                            const GreedyOptions& options, const Masks& masks, const float* scores,
                            std::int32_t* tokens, std::int32_t* durations, float* token_logprobs,
                            float* duration_logprobs);

// What a beam search reads of a joint row. Log-probabilities are the network's, without any bonus.
struct RankedRow {
  int count;                 // tokens ranked; fewer than asked for if the row has fewer numbers that may be emitted
  std::int32_t* tokens;      // best first by logit plus bonus, without blanks
  float* token_logprobs;
  float* duration_logprobs;  // [D]
  float* blank_logprobs;     // [B]
  Best blank;                // logit and entry of the best blank
  Best largest;              // logit and index of the best of all tokens, without any bonus
  float raised;              // see `raised_by`
  Duration duration;         // the greedy choice
  float statistic;

  // At temperature T, an entry of log-probability x has the log-probability x / T minus this. 0 for T = 1.
  float token_normalizer, duration_normalizer;
};

// Ranks one joint row: finds its `ranks` best tokens by logit / temperature + bonus, of those that may be emitted.
// `bonus` [V + 1] may be null.
using RankRow = void (*)(const float* row, const RowLayout& layout, const float* bonus, Allowed allowed, int ranks,
                         const BeamOptions& options, RankedRow* ranked);

}  // namespace tdt::cpu
