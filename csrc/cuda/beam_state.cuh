// What beams are made of, and where it lies: arrays for all utterances of a decode, what belongs to one side by side.
#pragma once

#include "fusion.cuh"
#include "rank.cuh"
#include "requests.cuh"
#include "weights.cuh"

namespace tdt::cuda {

// An emitted token of one alignment, linked to the one before it; -1: none.
struct Record {
  int previous, token, frame, duration;
  float token_logprob, duration_logprob, statistic;
};

struct Hypothesis {
  double score;               // of the alignments merged here
  double best;                // of the best of them, which the records tell
  unsigned long long prefix;  // hash of the tokens
  int frame, symbols;
  int length;                 // tokens
  int record;
  int slot;                   // of the predictor's state after these tokens; -1: not yet computed ...
  int parent, token;          // ... from the state in this slot and the last token
  int place;                  // of the ranked row; -1: not yet asked for
};

// A hypothesis of the next step. Where several were merged, `hypothesis` and `rank` tell what it is, `from`,
// `from_rank` and `duration` the last step of its best alignment.
struct Entry {
  double score, best;
  unsigned long long prefix;
  int frame, symbols, length;
  int hypothesis, rank;  // -1: no entry
  int from, from_rank, duration;
};

constexpr int kKept = -2, kBlankRank = -1;  // ranks that stand for no token

// A malsd step of one hypothesis.
struct Pair {
  float score;
  int rank, duration;
  int valid;
  long long order;
};

// A hypothesis that waits for a row: which of the rows and of the predictor steps asked for is its own, and whose
// state it shares.
struct Asking {
  int asks, row, step, same, slot;
};

// What a beam has for itself in shared memory; where it fits, its hypotheses and what a step makes of them too.
struct alignas(16) BeamScratch {
  static constexpr int kRoom = 16 * 1024;
  unsigned char room[kRoom];
  unsigned long long words[kWarp];
  int integers[kWarp];
  int first, counted;
};

// Arrays of all utterances; what belongs to one lies together.
struct BeamSearch {
  BeamOptions options;
  RowLayout layout;
  int utterances, hypotheses, slots, ranks, max_entries, capacity;
  const int* lengths;       // [B]
  const int* first_frames;  // [B] where its frames begin among all
  const int* offsets;       // [B] frames of the stream before the chunk
  int* counts;              // [B, 4] hypotheses, which of the two buffers, records, whether there is no room for more
  Hypothesis* beams;        // [B, 2, hypotheses]
  Record* records;          // [B, capacity]
  Entry* entries;           // [B, max_entries]
  int* marks;               // [B, max_entries]
  Pair* pairs;              // [B, max_entries]
  Asking* asking;           // [B, hypotheses]
  Ranked* ranked;           // [B, hypotheses]
  int* tokens;              // [B, hypotheses, ranks]
  float* token_logprobs;    // [B, hypotheses, ranks]
  float* duration_logprobs; // [B, hypotheses, D]
  int fusions;
  const Automaton* automata;  // [fusions]
  long long* fusion_states;   // [B, slots, fusions]
  float* bonus;               // [B, slots, V + 1]
};

// The fusions' scores after the prefix in a slot, counted through the batch; by one block, with `scratch` [blocks, V + 1].
__device__ inline void score_slot(const BeamSearch& search, long long slot, float* scratch) {
  const int entries = search.layout.token_entries();
  score_fusions(search.automata, search.fusions, search.fusion_states + slot * search.fusions, entries,
                search.layout.blank, scratch + static_cast<long long>(blockIdx.x) * entries,
                search.bonus + slot * entries);
}

// The same for every predictor step that is asked for.
__device__ inline void score_steps(const BeamSearch& search, const Requests& requests, float* scratch) {
  for (int i = static_cast<int>(blockIdx.x); i < requests.step_count; i += static_cast<int>(gridDim.x))
    score_slot(search, requests.steps[i].slot, scratch);
}

// Ranks the row of a request, by one block.
__device__ inline void rank_wanted(const BeamSearch& search, const Wanted& wanted, const float* row, void* scratch) {
  const long long place = static_cast<long long>(wanted.utterance) * search.hypotheses + wanted.place;
  const bool late = !(search.options.strategy == Strategy::malsd && search.options.prune_early);
  const float* bonus = nullptr;
  if (search.fusions && late)
    bonus = search.bonus + static_cast<long long>(wanted.slot) * search.layout.token_entries();
  rank_row(row, search.layout, bonus, search.ranks, search.options, scratch, search.ranked + place,
           search.tokens + place * search.ranks, search.token_logprobs + place * search.ranks,
           search.duration_logprobs + place * search.layout.num_durations);
}

}  // namespace tdt::cuda
