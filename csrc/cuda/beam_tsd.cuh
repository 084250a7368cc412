// A step of time-synchronous decoding.
#pragma once

#include "beam_view.cuh"

namespace tdt::cuda {

class TsdBeam : public BeamView {
 public:
  using BeamView::BeamView;

 protected:
  static constexpr bool kInTurn = true;

  // Extends all hypotheses at the earliest position in every way that could matter. Then merges hypotheses that have
  // the same tokens and the same position, and only then drops the worst.
  __device__ int step() {
    // The entries: first the hypotheses that wait, in their order, then the extensions of the others.
    const int ways = (search_.ranks + search_.layout.num_blanks) * durations();
    int waiting = 0, extending = 0;
#pragma unroll 1
    for (int first = 0; first < count_; first += threads_) {
      const int i = first + thread_;
      const bool extends = i < count_ && time_of(hypotheses()[i]) == earliest_;
      const Rank kept_rank = tdt::cuda::ranked(i < count_ && !extends, scratch_.integers);
      const Rank extended_rank = tdt::cuda::ranked(extends, scratch_.integers);
      if (i < count_ && !extends) entries_[waiting + kept_rank.before] = kept(i);
      if (extends) marks_[extending + extended_rank.before] = i;
      waiting += kept_rank.total;
      extending += extended_rank.total;
    }
    sync_block();
    const double temperature = search_.options.temperature;
    const int total = waiting + extending * ways;
#pragma unroll 1
    for (int at = thread_; at < extending * ways; at += threads_) {
      const int i = marks_[at / ways], index = at % durations();
      int rank = at % ways / durations();
      const Hypothesis& h = hypotheses()[i];
      const Ranked& row = row_of(h);
      double score;
      int moves = frames(index);
      if (rank >= search_.ranks) {
        const int which = rank - search_.ranks;
        rank = kBlankRank;
        moves = blank_frames(which, index);
        score = blank_logprob(h, which) / temperature - row.token_normalizer - search_.options.greedy.blank_penalty;
      } else if (rank < row.count) {
        score = (token_logprob(h, rank) + row.raised) / temperature - row.token_normalizer + bonus(h, token_of(h, rank));
      } else {
        entries_[waiting + at] = none();
        continue;
      }
      if (search_.layout.num_durations) score += duration_logprob(h, index) / temperature - row.duration_normalizer;
      entries_[waiting + at] = extended(i, rank, score, index, moves);
    }
    sync_block();
    merge(total);
    return prune(total);
  }

 private:
  // Adds up equal entries at the first of them, in their order. `marks_[i]` is the first entry that equals entry i.
  __device__ void merge(int total) {
#pragma unroll 1
    for (int i = thread_; i < total; i += threads_) {
      const Entry entry = entries_[i];
      int first = i;
      each_where(
          0, entry.hypothesis < 0 ? 0 : i, [&](int j) { return entries_[j].prefix == entry.prefix; },
          [&](int j) {
            const Entry& other = entries_[j];
            if (j < first && other.hypothesis >= 0 && other.frame == entry.frame && other.symbols == entry.symbols &&
                same_tokens(other, entry))
              first = j;
          });
      marks_[i] = entry.hypothesis < 0 ? -1 : first;
    }
    sync_block();
#pragma unroll 1
    for (int i = thread_; i < total; i += threads_) {
      if (marks_[i] != i) continue;
      Entry entry = entries_[i];
      bool changed = false;
      each_where(
          i + 1, total, [&](int j) { return marks_[j] == i; },
          [&](int j) {
            const Entry& other = entries_[j];
            entry.score = log_added(entry.score, other.score);
            if (other.best > entry.best) {
              entry.best = other.best;
              entry.from = other.from;
              entry.from_rank = other.from_rank;
              entry.duration = other.duration;
            }
            changed = true;
          });
      if (changed) entries_[i] = entry;
    }
    sync_block();
  }

  // Lists in `pairs_` which of the entries that `merge` left are kept, and returns their number. An entry is dropped if
  // `size` others that are at least as far in the audio score at least as high, or if one of those others is better by
  // more than the threshold. The others may be entries that are dropped themselves: whatever drops them also drops what
  // is behind them.
  __device__ int prune(int total) {
    int kept_count = 0;
#pragma unroll 1
    for (int first = 0; first < total; first += threads_) {
      const int i = first + thread_;
      bool keeps = i < total && marks_[i] == i;
      if (keeps) {
        const int own_frame = entries_[i].frame;
        const double own_score = entries_[i].score;
        int above = 0;
        double best = -1.0 / 0.0;
#pragma unroll 4
        for (int j = 0; j < total; ++j) {
          const int frame = entries_[j].frame, mark = marks_[j];
          const double score = entries_[j].score;
          const bool better = score > own_score || (score == own_score && j < i);
          const bool ahead = mark == j && j != i && (frame > own_frame || (frame == own_frame && better));
          above += ahead && score >= own_score;
          best = ahead && score > best ? score : best;
        }
        keeps = above < search_.options.size && !(own_score < best - search_.options.threshold);
      }
      const Rank rank = tdt::cuda::ranked(keeps, scratch_.integers);
      if (keeps) pairs_[kept_count + rank.before].rank = i;
      kept_count += rank.total;
    }
    sync_block();
    return kept_count;
  }
};

}  // namespace tdt::cuda
