// A beam as the block that runs it sees it: its hypotheses, what their joint rows say, and entries for the next step.
#pragma once

#include "beam_state.cuh"
#include "tdt/hypothesis.h"
#include "tdt/transition.h"

namespace tdt::cuda {

// Functions of the rules that are long and seldom called. One copy of each keeps the kernels short and quick to compile.
__device__ TDT_OUTLINED double log_added(double a, double b) { return log_add(a, b); }
__device__ TDT_OUTLINED bool have_same_tokens(const Record* records, int a, int token_a, int b, int token_b) {
  return tdt::same_tokens(records, a, token_a, b, token_b);
}

class BeamView {
 public:
  __device__ BeamView(const BeamSearch& search, int utterance, BeamScratch& scratch)
      : search_(search),
        utterance_(utterance),
        length_(search.lengths[utterance]),
        thread_(static_cast<int>(threadIdx.x)),
        threads_(static_cast<int>(blockDim.x)),
        scratch_(scratch),
        counts_(search.counts + 4ll * utterance),
        records_(search.records + static_cast<long long>(utterance) * search.capacity),
        entries_(search.entries + static_cast<long long>(utterance) * search.max_entries),
        marks_(search.marks + static_cast<long long>(utterance) * search.max_entries),
        pairs_(search.pairs + static_cast<long long>(utterance) * search.max_entries),
        asking_(search.asking + static_cast<long long>(utterance) * search.hypotheses),
        beams_(kept_beams()) {
    sync_block();
    count_ = counts_[0];
    buffer_ = counts_[1];
    recorded_ = counts_[2];
    Arena arena(scratch.room);
    Hypothesis* beams = arena.take<Hypothesis>(2 * search.hypotheses);
    Entry* entries = arena.take<Entry>(search.max_entries);
    Pair* pairs = arena.take<Pair>(search.max_entries);
    Asking* asking = arena.take<Asking>(search.hypotheses);
    int* marks = arena.take<int>(search.max_entries);
    if (arena.used() > BeamScratch::kRoom) return;
#pragma unroll 1
    for (int i = thread_; i < count_; i += threads_)
      beams[buffer_ * search.hypotheses + i] = beams_[buffer_ * search.hypotheses + i];
    beams_ = beams;
    entries_ = entries;
    pairs_ = pairs;
    asking_ = asking;
    marks_ = marks;
    sync_block();
  }

 protected:
  // Where the hypotheses lie between two rounds: two buffers in global memory.
  __device__ Hypothesis* kept_beams() const { return search_.beams + 2ll * utterance_ * search_.hypotheses; }
  __device__ Hypothesis* hypotheses() const { return beams_ + buffer_ * search_.hypotheses; }
  __device__ long long place_of(const Hypothesis& h) const {
    return static_cast<long long>(utterance_) * search_.hypotheses + h.place;
  }
  __device__ const Ranked& row_of(const Hypothesis& h) const { return search_.ranked[place_of(h)]; }
  __device__ int token_of(const Hypothesis& h, int rank) const {
    return rank < 0 ? -1 : search_.tokens[place_of(h) * search_.ranks + rank];
  }
  __device__ float token_logprob(const Hypothesis& h, int rank) const {
    return search_.token_logprobs[place_of(h) * search_.ranks + rank];
  }
  // RNN-T counts as a table with one duration, 0, whose probability is 1.
  __device__ int durations() const { return search_.layout.num_durations ? search_.layout.num_durations : 1; }
  __device__ int frames(int index) const { return search_.layout.num_durations ? search_.layout.durations[index] : 0; }
  // The frames of a blank, given its place among the blanks and the index of a duration.
  __device__ int blank_frames(int rank, int index) const {
    return search_.layout.num_durations ? search_.layout.durations[index] : search_.layout.blank_frames[rank];
  }
  __device__ float blank_logprob(const Hypothesis& h, int rank) const {
    return search_.blank_logprobs[place_of(h) * search_.layout.num_blanks + rank];
  }
  __device__ float duration_logprob(const Hypothesis& h, int index) const {
    const int count = search_.layout.num_durations;
    return count ? search_.duration_logprobs[place_of(h) * count + index] : 0.0f;
  }
  __device__ float bonus(const Hypothesis& h, int token) const {
    if (!search_.fusions) return 0.0f;
    const long long slot = static_cast<long long>(utterance_) * search_.slots + h.slot;
    return search_.bonus[slot * (search_.layout.vocab_size + 1) + token];
  }
  __device__ bool inside(const Hypothesis& h) const { return h.frame < length_; }
  __device__ unsigned long long time_of(const Hypothesis& h) const {
    const auto frame = static_cast<unsigned>(h.frame), symbols = static_cast<unsigned>(h.symbols);
    return static_cast<unsigned long long>(frame) << 32 | symbols;
  }

  __device__ bool any(bool flag) { return tdt::cuda::ranked(flag, scratch_.integers).total != 0; }

  __device__ Entry kept(int i) const {
    const Hypothesis& h = hypotheses()[i];
    return {h.score, h.best, h.prefix, h.frame, h.symbols, h.length, i, kKept, i, kKept, 0};
  }
  // Hypothesis i with one more step, whose score is `step`. `duration` is an index into the table, `moves` the frames of
  // the step.
  __device__ Entry extended(int i, int rank, double step, int duration, int moves) const {
    const Hypothesis& h = hypotheses()[i];
    const Position at = advanced({h.frame, h.symbols}, rank == kBlankRank, moves, search_.options.greedy);
    const bool emits = rank >= 0;
    return {h.score + step, h.best + step,    emits ? tdt::extended(h.prefix, token_of(h, rank)) : h.prefix,
            at.frame,       at.symbols,       h.length + emits,
            i,              rank,             i,
            rank,           duration};
  }
  __device__ static Entry none() { return {0.0, 0.0, 0, 0, 0, 0, -1, 0, 0, 0, 0}; }

  __device__ bool same_tokens(const Entry& a, const Entry& b) const {
    if (a.length != b.length) return false;
    const Hypothesis &x = hypotheses()[a.hypothesis], &y = hypotheses()[b.hypothesis];
    return have_same_tokens(records_, x.record, token_of(x, a.rank), y.record, token_of(y, b.rank));
  }

  // Calls `use(i)` for each i from `first` to `end` - 1 for which `test(i)`, in their order. Few pass the test, which is
  // made of several at once.
  template <class Test, class Use>
  __device__ static void each_where(int first, int end, Test test, Use use) {
    constexpr int kAhead = 8;
#pragma unroll 1
    for (; first < end; first += kAhead) {
      unsigned passed = 0;
#pragma unroll
      for (int i = 0; i < kAhead; ++i) passed |= (first + i < end && test(first + i) ? 1u : 0u) << i;
#pragma unroll 1
      for (int i = first; passed; ++i, passed >>= 1)
        if (passed & 1u) use(i);
    }
  }

  const BeamSearch& search_;
  const int utterance_, length_, thread_, threads_;
  BeamScratch& scratch_;
  int* counts_;
  Record* records_;
  Entry* entries_;
  int* marks_;
  Pair* pairs_;
  Asking* asking_;
  Hypothesis* beams_;
  int count_, buffer_, recorded_;
  unsigned long long earliest_ = 0;  // the position of the earliest hypothesis inside the audio
};

}  // namespace tdt::cuda
