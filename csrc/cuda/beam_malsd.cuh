// A step of NeMo's modified alignment-length-synchronous decoding, with one blank.
#pragma once

#include "beam_view.cuh"

namespace tdt::cuda {

class MalsdBeam : public BeamView {
 public:
  using BeamView::BeamView;

 protected:
  static constexpr bool kInTurn = false;

  // Scores are rounded to float wherever NeMo rounds them.
  __device__ int step() {
    const float largest_blank = 0.99f;
    const BeamOptions& options = search_.options;
    const int ways = (search_.ranks + 1) * durations(), size = options.size;
#pragma unroll 1
    for (int at = thread_; at < count_ * ways; at += threads_) {
      const Hypothesis& h = hypotheses()[at / ways];
      Pair pair = {0.0f, 0, at % durations(), 0, 0};
      if (inside(h)) {
        const Ranked& row = row_of(h);
        const float blank_score = blank_logprob(h, 0), blank = blank_score - options.greedy.blank_penalty;
        float steered_blank = blank, shift = 0.0f;
        if (options.blank_mode == BlankMode::lm_weighted_full && search_.fusions) {
          const float certain = expf(blank_score);
          shift = options.weight_sum * log1pf(-(certain < largest_blank ? certain : largest_blank));
          steered_blank = blank * (1.0f + options.weight_sum);
        }
        int ranks = row.count;
        bool with_blank = true;
        if (options.prune_early) {  // blank must be among the best `size` before fusion
          int above = 0;
#pragma unroll 1
          for (int rank = 0; rank < row.count; ++rank) {
            const float logprob = token_logprob(h, rank) + row.raised;
            above += logprob > blank_score || (logprob == blank_score && token_of(h, rank) < search_.layout.blank);
          }
          with_blank = above < size;
          if (ranks > size - with_blank) ranks = size - with_blank;
        }
        const int rank = at % ways / durations();
        float score = 0.0f;
        int token = search_.layout.blank;
        if (rank == search_.ranks) {
          pair.rank = kBlankRank;
          pair.valid = with_blank;
          score = steered_blank;
        } else if (rank < ranks) {
          pair.rank = rank;
          pair.valid = 1;
          token = token_of(h, rank);
          score = (token_logprob(h, rank) + row.raised) + (shift + bonus(h, token));
        }
        pair.score = score + duration_logprob(h, pair.duration);
        pair.order = static_cast<long long>(token) * durations() + pair.duration;
      }
      pairs_[at] = pair;
    }
#pragma unroll 1
    for (int i = thread_; i < count_ * size; i += threads_) entries_[i] = none();
    sync_block();
#pragma unroll 1
    for (int at = thread_; at < count_ * ways; at += threads_) {
      const int i = at / ways;
      const Hypothesis& h = hypotheses()[i];
      const Pair pair = pairs_[at];
      if (!inside(h)) {
        if (at % ways == 0) entries_[i * size] = kept(i);
        continue;
      }
      if (!pair.valid) continue;
      int above = 0;
      for (int j = i * ways; j < (i + 1) * ways; ++j) {
        const Pair& other = pairs_[j];
        above += other.valid && (other.score > pair.score || (other.score == pair.score && other.order < pair.order));
      }
      if (h.symbols >= options.greedy.max_symbols) {
        if (above) continue;
        const Ranked& row = row_of(h);
        float blank = blank_logprob(h, 0) - options.greedy.blank_penalty;
        if (!options.prune_early && options.blank_mode == BlankMode::lm_weighted_full &&
            search_.fusions)
          blank = blank * (1.0f + options.weight_sum);
        Entry entry = extended(i, kBlankRank, blank + duration_logprob(h, row.longest), pair.duration,
                               blank_frames(0, pair.duration));
        entry.score = static_cast<float>(entry.score);
        entries_[i * size] = entry;
        continue;
      }
      if (above >= size) continue;
      const int duration = frames(pair.duration);
      Entry entry = extended(i, pair.rank, pair.score, pair.duration, duration);
      // The cap on symbols acts in the next step, which is then a forced blank.
      const bool is_blank = pair.rank == kBlankRank;
      entry.frame = h.frame + (is_blank && duration < 1 ? 1 : duration);
      entry.symbols = is_blank || duration > 0 ? 0 : h.symbols + 1;
      entry.score = static_cast<float>(entry.score);
      entries_[i * size + above] = entry;
    }
    sync_block();
    // The best `size` of all entries, best first; then equal ones are merged.
    const int total = count_ * size;
    int valid = 0;
#pragma unroll 1
    for (int first = 0; first < total; first += threads_) {
      const int i = first + thread_;
      const bool exists = i < total && entries_[i].hypothesis >= 0;
      if (exists) {
        int above = 0;
        for (int j = 0; j < total; ++j) {
          const Entry& other = entries_[j];
          above += other.hypothesis >= 0 &&
                   (other.score > entries_[i].score || (other.score == entries_[i].score && j < i));
        }
        if (above < size) pairs_[above].rank = i;
      }
      valid += tdt::cuda::ranked(exists, scratch_.integers).total;
    }
    sync_block();
    const int best = valid < size ? valid : size;
    if (thread_ == 0) {  // they are few: one thread merges them, one after the other
      int last = 0;
#pragma unroll 1
      for (int i = 0; i < best; ++i) {
        const int at = pairs_[i].rank;
        int same = 0;
#pragma unroll 1
        while (same < last && !(entries_[pairs_[same].rank].prefix == entries_[at].prefix &&
                                entries_[pairs_[same].rank].frame == entries_[at].frame &&
                                same_tokens(entries_[pairs_[same].rank], entries_[at])))
          ++same;
        if (same < last) {
          Entry& first = entries_[pairs_[same].rank];
          first.score = static_cast<float>(log_added(first.score, entries_[at].score));
        } else {
          pairs_[last++].rank = at;
        }
      }
      scratch_.counted = last;
    }
    sync_block();
    return scratch_.counted;
  }
};

}  // namespace tdt::cuda
