// Beam search over one utterance, as a state machine that can be stopped and resumed. It asks for predictor steps and
// joint rows, takes the ranked rows as the answer, and moves on. It knows nothing of networks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "beam_trace.h"
#include "fusion.h"
#include "row_kernels.h"
#include "tdt/hypothesis.h"
#include "tdt/transition.h"

namespace tdt::cpu {

// A token that was emitted. `previous` is the index of the record of the token before it, -1 for the first.
struct Record {
  std::int32_t previous, token, frame, duration;
  float token_logprob, duration_logprob, statistic;
};

struct BeamHypothesis {
  double score;   // of all alignments merged into it together; includes fusion and blank penalties. Not kept where
                  // greedy search runs without beams: nothing is compared there
  double best;    // of the best of these alignments
  unsigned long long prefix;    // hash of the tokens
  std::int32_t frame, symbols;  // the next frame, and the tokens emitted there so far
  std::int32_t length;          // number of tokens
  std::int32_t record;          // the last record of the best alignment; -1: no tokens yet
  std::int32_t slot;    // of the predictor state after these tokens; -1: not computed yet. Then it follows ...
  std::int32_t parent;  // ... from the state in this slot ...
  std::int32_t token;   // ... by a step on the last token
  std::int32_t place;   // of its ranked row; -1: the row was not asked for yet
};

// How much of everything a beam may need at once.
struct BeamSizes {
  int hypotheses;
  int slots;   // for predictor states
  int spread;  // frames from the hindmost hypothesis to the foremost, both frames counted
  BeamSizes(const BeamOptions& options, const RowLayout& layout);
};

// A predictor step that is asked for: from the state in slot `parent`, on `token`, to `slot`.
struct Prediction {
  std::int32_t parent, token, slot;
};

// A joint row that is asked for: of the predictor state in `slot` and an encoder frame. `place` keeps it once ranked.
struct Scoring {
  std::int32_t slot, frame, place;
};

class Beam {
 public:
  // `allowed` says which tokens the utterance may have; null: all.
  Beam(const BeamOptions& options, const RowLayout& layout, const Fusions& fusions, Allowed allowed);

  // Sets up the empty hypothesis, which a search begins with. Its predictor state is in slot 0; `fusion` is the
  // fusions' state before the first token.
  void start(const std::int64_t* fusion);
  // Begins a chunk of `length` frames. `hypotheses`, `records` and `fusion_states` are those to go on from. Frames are
  // counted from the chunk's first, which is frame `first_frame` of the stream. False if a user's function failed.
  bool open(int length);

  // Moves on as far as the ranked rows allow, then lists what is needed next: predictor steps, and the joint rows to
  // score after them. Both lists are empty once all hypotheses are past the chunk's end. A row is asked for as soon as
  // its hypothesis exists. Some of these rows are never read, but there are fewer rounds of requests, and a round costs
  // more than a row. False if a user's function failed.
  bool request();
  const std::vector<Prediction>& predictions() const { return predictions_; }
  const std::vector<Scoring>& scorings() const { return scorings_; }
  // Takes the joint row that a scoring asked for.
  void rank(const Scoring& scoring, const float* row, RankRow kernel);

  // Whether a greedy search without beams gives the same: there is one hypothesis whose predictor state is known, and
  // nothing else is asked for.
  bool is_plain_greedy() const;
  const GreedyOptions& greedy_options() const { return options_.greedy; }
  const Fusions& fusions() const { return fusions_; }
  Allowed allowed() const { return allowed_; }
  // In place of a chunk that is opened, takes what such a search gave: its tokens, in order, with frames counted from
  // the chunk's first; then the position that it ended at.
  void take(int token, int frame, int duration, float token_logprob, float duration_logprob);
  void end_chunk(int length, Position at);

  // Frees the memory that is only needed while a chunk is open.
  void rest();

  // The hypotheses, best first, with their final scores and last records.
  struct Result {
    double score;
    std::int32_t record;
    std::int32_t hypothesis;  // whose last record it is
  };
  std::vector<Result> results() const;
  // The last record that all hypotheses share, -1 for none. The tokens up to it can no longer change.
  std::int32_t settled() const;
  // The slots of the predictor states that are needed to go on, in the order of their numbers after `close`.
  std::vector<std::int32_t> used_slots() const;
  // Ends the chunk. Frames are then counted from its end on, the records up to the settled one are dropped, and the
  // slots in use become 0, 1, 2 ...
  void close();

  const BeamSizes sizes;
  int first_frame = 0;
  std::vector<BeamHypothesis> hypotheses;
  std::vector<Record> records;
  std::vector<std::int64_t> fusion_states;  // [slots, fusions.state_size]
  FusionFailure failure;
  std::unique_ptr<BeamTrace> trace;  // of the chunk; null: the search is not traced

 private:
  // A hypothesis of the next step. Its tokens are those of `hypothesis`, followed by the token of rank `rank`. Its best
  // alignment is that of `from`, followed by the token of rank `from_rank` with the duration of index `duration`. The
  // two can differ if several hypotheses were merged.
  struct Entry {
    double score, best;
    unsigned long long prefix;
    std::int32_t frame, symbols, length;
    std::int32_t hypothesis, rank;
    std::int32_t from, from_rank, duration;
    std::int32_t candidate;  // its number in the trace, if there is one
  };
  static constexpr std::int32_t kKept = -2, kBlank = -1;  // ranks of entries without a new token: no step, or a blank

  bool inside(const BeamHypothesis& hypothesis) const { return hypothesis.frame < length_; }
  bool next_in_time(Position* at) const;
  bool ready() const;
  void advance();
  void advance_greedy();
  void advance_tsd();
  void advance_malsd();
  bool find_slot(BeamHypothesis* hypothesis);
  bool score_fusions(std::int32_t slot);

  Entry kept(std::int32_t hypothesis) const;
  Entry extended(std::int32_t hypothesis, std::int32_t rank, double step, int duration, int moves) const;
  void list(Entry* entry);
  void merge(Entry entry);
  void prune();
  void commit();
  bool same_tokens(std::int32_t a, std::int32_t token_a, std::int32_t b, std::int32_t token_b) const;
  bool same_tokens(const Entry& a, const Entry& b) const {
    return a.length == b.length && same_tokens(hypotheses[a.hypothesis].record, token(a.hypothesis, a.rank),
                                               hypotheses[b.hypothesis].record, token(b.hypothesis, b.rank));
  }
  // The token at a rank of a hypothesis's row; -1 if the rank stands for no token.
  std::int32_t token(std::int32_t hypothesis, std::int32_t rank) const {
    return rank < 0 ? -1 : row_of(hypothesis).tokens[rank];
  }

  const RankedRow& row_of(std::int32_t hypothesis) const { return ranked_[hypotheses[hypothesis].place]; }
  double bonus(std::int32_t hypothesis, std::int32_t token) const {
    const std::size_t slot = hypotheses[hypothesis].slot;
    return fusions_.empty() ? 0.0 : bonus_[slot * fusions_.entries + token];
  }
  // RNN-T is treated as a table with the one duration 0, whose probability is 1.
  int durations() const { return layout_.num_durations ? layout_.num_durations : 1; }
  int frames(int index) const { return layout_.num_durations ? layout_.durations[index] : 0; }
  // The frames of a blank, given its place among the blanks and the index of a duration.
  int blank_frames(int rank, int index) const {
    return layout_.num_durations ? layout_.durations[index] : layout_.blank_frames[rank];
  }
  double duration_logprob(const RankedRow& row, int index) const {
    return layout_.num_durations ? row.duration_logprobs[index] : 0.0;
  }

  const BeamOptions& options_;
  const RowLayout& layout_;
  const Fusions& fusions_;
  const Allowed allowed_;
  int length_ = 0;
  std::vector<RankedRow> ranked_;  // by place
  std::vector<std::int32_t> tokens_;
  std::vector<float> token_logprobs_, duration_logprobs_, blank_logprobs_;
  std::unique_ptr<float[]> bonus_;  // [slots, V + 1]; most slots are never used, and their memory is never touched
  FusionScratch scratch_;
  std::vector<Prediction> predictions_;
  std::vector<Scoring> scorings_;
  std::vector<char> slot_used_, place_used_;
  std::vector<Entry> entries_;
  std::vector<std::int32_t> index_;  // hash table: indices of entries, -1 where free
  std::vector<std::int32_t> order_;
  std::vector<BeamHypothesis> next_;
  std::vector<double> best_;
  struct Pair {
    float score;
    std::int32_t rank, duration;
    std::int64_t order;
  };
  std::vector<Pair> pairs_;
};

// A search over many utterances. Each has a beam of its own.
struct BeamSearch {
  BeamOptions options;
  RowLayout layout;
  Fusions fusions;
  std::vector<std::int32_t> durations, blank_frames;
  std::vector<std::unique_ptr<Beam>> beams;
};

}  // namespace tdt::cpu
