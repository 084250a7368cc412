// One step of greedy search over a batch: decisions move the utterances on, and emitted tokens are appended to a log.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tdt/transition.h"

namespace tdt::cpu {

// Decisions, in the order of the joint rows.
struct Decisions {
  const std::int32_t* tokens;
  const std::int32_t* durations;
  const float* token_logprobs;
  const float* duration_logprobs;
};

// The position and the length of each of the B utterances. Slot i is utterance i.
struct Positions {
  std::int32_t* frame;
  std::int32_t* symbols;
  const std::int32_t* length;
};

// Emitted tokens of all utterances, in the order in which they were emitted; one entry in each array.
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
  std::size_t pending;  // slots that want another joint row
};

// Moves the `count` utterances in `slots` on. On return slots[0 .. pending) lists those that are still inside the
// audio, in the same order, and frames[0 .. pending) the frames that they want next. With `hold`, utterances that
// emitted are left out, because the predictor has to run for them first.
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
