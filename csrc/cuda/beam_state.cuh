// What beams are made of, and where it lies: in arrays for all utterances of a decode.
#pragma once

#include "fusion.cuh"
#include "rank.cuh"
#include "requests.cuh"
#include "weights.cuh"

namespace tdt::cuda {

// An emitted token of one alignment. `previous` is the record of the token before it; -1: none.
struct Record {
  int previous, token, frame, duration;
  float token_logprob, duration_logprob, statistic;
};

struct Hypothesis {
  double score;               // of all alignments that were merged into it
  double best;                // of the best of them, which the records hold
  unsigned long long prefix;  // hash of the tokens
  int frame, symbols;
  int length;                 // number of tokens
  int record;                 // of the last token
  int slot;                   // of the predictor state after these tokens; -1: not computed yet
  int parent, token;          // if it is not computed yet: slot of the state before the last token, and that token
  int place;                  // of its ranked row; -1: not asked for yet
};

// A candidate for the next step. `hypothesis` and `rank` tell which hypothesis it extends, and by which of its ranked
// tokens. Where several candidates were merged, `from`, `from_rank` and `duration` are the last step of the best one.
struct Entry {
  double score, best;
  unsigned long long prefix;
  int frame, symbols, length;
  int hypothesis, rank;  // -1: no entry
  int from, from_rank, duration;
};

// Ranks without a token: the hypothesis is kept as it is, or extended by blank.
constexpr int kKept = -2, kBlankRank = -1;

// A step of one hypothesis in malsd: a token or blank, with a duration.
struct Pair {
  float score;
  int rank, duration;
  int valid;
  long long order;
};

// What a hypothesis asks for in a round.
struct Asking {
  int asks;       // whether it asks for a row
  int row, step;  // numbers of its row and its predictor step among those of its beam; step -1: none
  int same;       // the hypothesis whose predictor state it shares, or itself
  int slot;       // of that state
};

// A beam's shared memory. `room` holds its hypotheses, entries and so on, if they fit.
struct alignas(16) BeamScratch {
  static constexpr int kRoom = 16 * 1024;
  unsigned char room[kRoom];
  unsigned long long words[kWarp];
  int integers[kWarp];
  int first, counted;
};

// The beams of B utterances. The first axis of each array is the utterance.
struct BeamSearch {
  BeamOptions options;
  RowLayout layout;
  int utterances, hypotheses, slots, ranks, max_entries, capacity;
  int rows;                 // most joint rows that an utterance asks for in a round
  const int* lengths;       // [B]
  const int* first_frames;  // [B] where an utterance's frames begin among the frames of all
  const int* offsets;       // [B] frames of the stream before this chunk
  int* counts;              // [B, 4] hypotheses, which of the two buffers holds them, records, whether records are full
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
  float* blank_logprobs;    // [B, hypotheses, blanks]
  Masks masks;              // of each utterance
  int fusions;
  const Automaton* automata;  // [fusions]
  long long* fusion_states;   // [B, slots, fusions]
  float* bonus;               // [B, slots, V + 1]
};

// The strategy is compiled in: a search has one, and the code of all would not fit a multiprocessor's cache.
#if !defined(TDT_STRATEGY)
#define TDT_STRATEGY tsd
#endif
constexpr Strategy kStrategy = Strategy::TDT_STRATEGY;

// Computes the fusions' scores after the prefix of a slot, by one block. Slots are numbered through all utterances.
// `scratch` [blocks, V + 1].
__device__ inline void score_slot(const BeamSearch& search, long long slot, float* scratch) {
  const int entries = search.layout.vocab_size + 1;
  score_fusions(search.automata, search.fusions, search.fusion_states + slot * search.fusions, entries,
                search.layout.blank, scratch + static_cast<long long>(blockIdx.x) * entries,
                search.bonus + slot * entries);
}

// The same for the slots that predictor steps write, a block for each.
__device__ inline void score_steps(const BeamSearch& search, const Requests& requests, float* scratch) {
  for (int i = static_cast<int>(blockIdx.x); i < requests.step_count; i += static_cast<int>(gridDim.x))
    score_slot(search, requests.steps[i].slot, scratch);
}

// Ranks the joint row that was asked for, by one block.
__device__ inline void rank_wanted(const BeamSearch& search, const Wanted& wanted, const float* row, void* scratch) {
  const long long place = static_cast<long long>(wanted.utterance) * search.hypotheses + wanted.place;
  const bool late = !(kStrategy == Strategy::malsd && search.options.prune_early);
  const float* bonus = nullptr;
  if (search.fusions && late)
    bonus = search.bonus + static_cast<long long>(wanted.slot) * (search.layout.vocab_size + 1);
  rank_row(row, search.layout, bonus, search.masks.of(wanted.utterance), search.ranks, search.options, scratch,
           search.ranked + place, search.tokens + place * search.ranks, search.token_logprobs + place * search.ranks,
           search.duration_logprobs + place * search.layout.num_durations,
           search.blank_logprobs + place * search.layout.num_blanks);
}

}  // namespace tdt::cuda
