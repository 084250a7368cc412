// Beam search over one utterance as a resumable state machine: it asks for predictor steps and joint rows, is answered
// with ranked rows, and moves on. It knows nothing of networks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "fusion.h"
#include "row_kernels.h"
#include "tdt/hypothesis.h"
#include "tdt/transition.h"

namespace tdt::cpu {

// An emitted token of one alignment, linked to the one before it; -1: none.
struct Record {
  std::int32_t previous, token, frame, duration;
  float token_logprob, duration_logprob, statistic;
};

struct BeamHypothesis {
  double score;   // log of the total probability of the alignments merged here, steered
  double best;    // the best of them, which the records tell
  unsigned long long prefix;  // hash of the tokens
  std::int32_t frame, symbols;
  std::int32_t length;  // tokens
  std::int32_t record;
  std::int32_t slot;    // of the predictor's state after these tokens; -1: not yet computed ...
  std::int32_t parent;  // ... from the state in this slot ...
  std::int32_t token;   // ... and the last token
  std::int32_t place;   // of the ranked row; -1: not yet asked for
};

// How much memory a beam needs.
struct BeamSizes {
  int hypotheses;  // at most, alive at once
  int slots;       // of predictor states
  int spread;      // most frames from the first of a hypothesis to the last of one
  BeamSizes(const BeamOptions& options, const RowLayout& layout);
};

struct Prediction {
  std::int32_t parent, token, slot;
};

struct Scoring {
  std::int32_t slot, frame, place;
};

class Beam {
 public:
  Beam(const BeamOptions& options, const RowLayout& layout, const Fusions& fusions);

  // The one hypothesis that a search begins with, the start state in slot 0; `fusion` is the fusions' state there.
  void start(const std::int64_t* fusion);
  // Goes on with `hypotheses`, `records` and `fusion_states` through a chunk of `length` frames, from which frames are
  // counted; in the stream it begins at `first_frame`. False: a user's function failed.
  bool open(int length);

  // Goes as far as the answers allow, then lists what is wanted next: predictor steps, and after them joint rows;
  // none once all hypotheses are past the end. Rows are asked for as soon as a hypothesis exists: some are never read,
  // but there are fewer steps, and these cost more. False: a user's function failed.
  bool request();
  const std::vector<Prediction>& predictions() const { return predictions_; }
  const std::vector<Scoring>& scorings() const { return scorings_; }
  // Answers one scoring.
  void rank(const Scoring& scoring, const float* row, RankRow kernel);

  // Gives back the memory that only an open chunk needs.
  void rest();

  // The hypotheses as results, best first.
  struct Result {
    double score;
    std::int32_t record;
  };
  std::vector<Result> results() const;
  // The last record that all hypotheses share: what stands up to it can no longer change.
  std::int32_t settled() const;
  // The slots that hypotheses need, in the order in which `close` numbers them.
  std::vector<std::int32_t> used_slots() const;
  // Ends the chunk: frames are counted from its end on, records up to the settled one are dropped, slots are numbered
  // anew.
  void close();

  const BeamSizes sizes;
  int first_frame = 0;
  std::vector<BeamHypothesis> hypotheses;
  std::vector<Record> records;
  std::vector<std::int64_t> fusion_states;  // [slots, fusions.state_size]
  FusionFailure failure;

 private:
  // A hypothesis of the next step. Where several were merged, `hypothesis` and `rank` tell what it is (whose prefix it
  // extends, and by which token), `from`, `from_rank` and `duration` the last step of its best alignment.
  struct Entry {
    double score, best;
    unsigned long long prefix;
    std::int32_t frame, symbols, length;
    std::int32_t hypothesis, rank;
    std::int32_t from, from_rank, duration;
  };
  static constexpr std::int32_t kKept = -2, kBlank = -1;  // ranks that stand for no token

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
  Entry extended(std::int32_t hypothesis, std::int32_t rank, double step, int duration) const;
  void merge(const Entry& entry);
  void prune();
  void commit();
  bool same_tokens(std::int32_t a, std::int32_t token_a, std::int32_t b, std::int32_t token_b) const;
  bool same_tokens(const Entry& a, const Entry& b) const {
    return a.length == b.length && same_tokens(hypotheses[a.hypothesis].record, token(a.hypothesis, a.rank),
                                               hypotheses[b.hypothesis].record, token(b.hypothesis, b.rank));
  }
  // The token that a rank of a hypothesis stands for; -1: none.
  std::int32_t token(std::int32_t hypothesis, std::int32_t rank) const {
    return rank < 0 ? -1 : row_of(hypothesis).tokens[rank];
  }

  const RankedRow& row_of(std::int32_t hypothesis) const { return ranked_[hypotheses[hypothesis].place]; }
  double bonus(std::int32_t hypothesis, std::int32_t token) const {
    const std::size_t slot = hypotheses[hypothesis].slot;
    return fusions_.empty() ? 0.0 : bonus_[slot * fusions_.entries + token];
  }
  // RNN-T is read as a table of one duration, 0, that is certain.
  int durations() const { return layout_.num_durations ? layout_.num_durations : 1; }
  int frames(int index) const { return layout_.num_durations ? layout_.durations[index] : 0; }
  double duration_logprob(const RankedRow& row, int index) const {
    return layout_.num_durations ? row.duration_logprobs[index] : 0.0;
  }

  const BeamOptions& options_;
  const RowLayout& layout_;
  const Fusions& fusions_;
  int length_ = 0;
  std::vector<RankedRow> ranked_;  // by place
  std::vector<std::int32_t> tokens_;
  std::vector<float> token_logprobs_, duration_logprobs_;
  std::vector<float> bonus_;       // [slots, V + 1]
  std::vector<float> scratch_;
  std::vector<Prediction> predictions_;
  std::vector<Scoring> scorings_;
  std::vector<char> slot_used_, place_used_;
  std::vector<Entry> entries_;
  std::vector<std::int32_t> index_;  // entries by hash
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

// A search over many utterances, each with its beam.
struct BeamSearch {
  BeamOptions options;
  RowLayout layout;
  Fusions fusions;
  std::vector<std::int32_t> durations;
  std::vector<std::unique_ptr<Beam>> beams;
};

}  // namespace tdt::cpu
