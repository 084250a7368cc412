// Greedy search over a batch: decisions move the utterances on; emitted tokens go to an append-only log.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tdt/transition.h"

namespace tdt::cpu {

// Decisions by position in the batch of rows that were scored.
struct Decisions {
  const std::int32_t* tokens;
  const std::int32_t* durations;
  const float* token_logprobs;
  const float* duration_logprobs;
};

// Where each of the B rows stands, by slot.
struct Positions {
  std::int32_t* frame;
  std::int32_t* symbols;
  const std::int32_t* length;
};

// Emitted tokens of all rows in the order of their emission, one entry per array.
struct TokenLog {
  std::int32_t* slot;
  std::int32_t* token;
  std::int32_t* frame;
  std::int32_t* duration;
  float* token_logprob;
  float* duration_logprob;
};

struct StepCounts {
  std::size_t logged;   // entries appended to the log
  std::size_t pending;  // rows that want another joint row
};

// Moves the `count` rows listed in `slots` on. On return slots[0 .. pending) lists the rows that are still inside
// the audio, in their order, and frames[0 .. pending) the frames they want. With `hold`, rows that emitted are left
// out: they want the predictor first.
inline StepCounts advance(std::int32_t* slots, std::int32_t* frames, std::size_t count, const Decisions& decisions,
                          int blank, const GreedyOptions& options, bool hold, const Positions& positions,
                          const TokenLog& log, std::size_t cursor) {
  StepCounts counts = {0, 0};
  for (std::size_t i = 0; i < count; ++i) {
    const std::int32_t slot = slots[i], token = decisions.tokens[i], duration = decisions.durations[i];
    const bool is_blank = token == blank;
    if (!is_blank || options.trace) {
      const std::size_t entry = cursor + counts.logged++;
      log.slot[entry] = slot;
      log.token[entry] = token;
      log.frame[entry] = positions.frame[slot];
      log.duration[entry] = duration;
      log.token_logprob[entry] = decisions.token_logprobs[i];
      log.duration_logprob[entry] = decisions.duration_logprobs[i];
    }
    const Position next = advanced({positions.frame[slot], positions.symbols[slot]}, is_blank, duration, options);
    positions.frame[slot] = next.frame;
    positions.symbols[slot] = next.symbols;
    if (next.frame < positions.length[slot] && (is_blank || !hold)) {
      slots[counts.pending] = slot;
      frames[counts.pending++] = next.frame;
    }
  }
  return counts;
}

}  // namespace tdt::cpu
