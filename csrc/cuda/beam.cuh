// One utterance's beam, run by one block. The steps are those of csrc/cpu/beam.cpp: where the CPU loops over entries,
// there is a thread for each entry here. Where a result depends on the order of the entries, it is the CPU's order.
#pragma once

#include "beam_greedy.cuh"
#include "beam_malsd.cuh"
#include "beam_tsd.cuh"

namespace tdt::cuda {

template <Strategy>
struct BeamOf;
template <>
struct BeamOf<Strategy::greedy> {
  using Type = GreedyBeam;
};
template <>
struct BeamOf<Strategy::tsd> {
  using Type = TsdBeam;
};
template <>
struct BeamOf<Strategy::malsd> {
  using Type = MalsdBeam;
};

struct Larger {
  __device__ unsigned long long operator()(unsigned long long a, unsigned long long b) const { return a > b ? a : b; }
};

class Beam : public BeamOf<kStrategy>::Type {
 public:
  using BeamOf<kStrategy>::Type::Type;

  // Advances as far as the ranked rows allow, then asks for the next rows: those of the earliest hypotheses first. The
  // next step cannot need more than `size`, but rows that cost nothing now save a round later.
  __device__ void advance(int* step_count, Step* steps, int* wanted_count, Wanted* wanted) {
    bool full = false;
    while (next_in_time() && ready()) {
      full = recorded_ + search_.hypotheses > search_.capacity;
      if (full) break;
      commit(step());
    }
    if (!full && next_in_time()) request(step_count, steps, wanted_count, wanted);
    sync_block();
    if (beams_ != kept_beams())
#pragma unroll 1
      for (int i = thread_; i < count_; i += threads_)
        kept_beams()[buffer_ * search_.hypotheses + i] = hypotheses()[i];
    if (thread_ != 0) return;
    counts_[0] = count_;
    counts_[1] = buffer_;
    counts_[2] = recorded_;
    counts_[3] = full;
  }

 private:
  // Finds the earliest hypothesis inside the audio: the lowest frame, then the fewest symbols there. Returns whether
  // there is one.
  __device__ bool next_in_time() {
    unsigned long long earliest = ~0ull;
#pragma unroll 1
    for (int i = thread_; i < count_; i += threads_) {
      const Hypothesis& h = hypotheses()[i];
      if (inside(h) && time_of(h) < earliest) earliest = time_of(h);
    }
    earliest_ = ~over_block(~earliest, scratch_.words, Larger{});
    return earliest_ != ~0ull;
  }

  // Whether the rows that the next step reads have been ranked.
  __device__ bool ready() {
    bool missing = false;
#pragma unroll 1
    for (int i = thread_; i < count_; i += threads_) {
      const Hypothesis& h = hypotheses()[i];
      missing = missing || (inside(h) && h.place < 0 && (!kInTurn || time_of(h) == earliest_));
    }
    return !any(missing);
  }

  // Makes hypotheses of the entries that `pairs_` lists (greedy search has one entry), and records of the tokens that
  // they emit.
  __device__ void commit(int count) {
    constexpr bool listed = kStrategy != Strategy::greedy;
    Hypothesis* next = beams_ + (1 - buffer_) * search_.hypotheses;
#pragma unroll 1
    for (int first = 0; first < count; first += threads_) {
      const int i = first + thread_;
      Entry entry = none();
      if (i < count) entry = entries_[listed ? pairs_[i].rank : 0];
      const Rank emitted = tdt::cuda::ranked(i < count && entry.from_rank >= 0, scratch_.integers);
      if (i < count) {
        Hypothesis h = hypotheses()[entry.hypothesis];
        const Hypothesis& from = hypotheses()[entry.from];
        if (entry.rank >= 0) {
          h.parent = h.slot;
          h.slot = -1;
          h.token = token_of(hypotheses()[entry.hypothesis], entry.rank);
        }
        if (entry.rank != kKept) h.place = -1;
        h.score = entry.score;
        h.best = entry.best;
        h.prefix = entry.prefix;
        h.frame = entry.frame;
        h.symbols = entry.symbols;
        h.length = entry.length;
        h.record = from.record;
        if (entry.from_rank >= 0) {
          const int at = recorded_ + emitted.before;
          records_[at] = {from.record,
                          token_of(from, entry.from_rank),
                          search_.offsets[utterance_] + from.frame,
                          frames(entry.duration),
                          token_logprob(from, entry.from_rank),
                          duration_logprob(from, entry.duration),
                          row_of(from).statistic};
          h.record = at;
        }
        next[i] = h;
      }
      recorded_ += emitted.total;
    }
    sync_block();
    buffer_ = 1 - buffer_;
    count_ = count;
  }

  // Asks for the rows that hypotheses wait for, and for the predictor steps that these rows need.
  __device__ void request(int* step_count, Step* steps, int* wanted_count, Wanted* wanted) {
    Hypothesis* own = hypotheses();
#pragma unroll 1
    for (int i = thread_; i < count_; i += threads_) {
      const bool waits = inside(own[i]) && own[i].place < 0;
      int before = 0;
      for (int j = 0; waits && j < count_; ++j)
        before += inside(own[j]) && own[j].place < 0 &&
                  (time_of(own[j]) < time_of(own[i]) || (time_of(own[j]) == time_of(own[i]) && j < i));
      asking_[i].asks = waits && before < search_.rows;
    }
    sync_block();
    int asked = 0, stepped = 0;
#pragma unroll 1
    for (int first = 0; first < count_; first += threads_) {
      const int i = first + thread_;
      const bool asks = i < count_ && asking_[i].asks;
      const int same = asks ? state_of(i) : i;
      const bool takes_step = asks && own[i].slot < 0 && same == i;
      const Rank row = tdt::cuda::ranked(asks, scratch_.integers);
      const Rank step = tdt::cuda::ranked(takes_step, scratch_.integers);
      if (asks) {
        asking_[i].row = asked + row.before;
        asking_[i].step = takes_step ? stepped + step.before : -1;
        asking_[i].same = same;
      }
      asked += row.total;
      stepped += step.total;
    }
    if (thread_ == 0) {
      scratch_.first = atomic_add(step_count, stepped);
      scratch_.counted = atomic_add(wanted_count, asked);
    }
    int *free_places = marks_, *free_slots = marks_ + asked;
    find_free(search_.hypotheses, asked, free_places, [](const Hypothesis& h) { return h.place; });
    find_free(search_.slots, stepped, free_slots,
              [](const Hypothesis& h) { return h.slot >= 0 ? h.slot : h.parent; });
    sync_block();
    const int first_slot = utterance_ * search_.slots;
    const auto slot_of = [&](int i) {
      return own[i].slot >= 0 ? own[i].slot : free_slots[asking_[i].step];
    };
#pragma unroll 1
    for (int i = thread_; i < count_; i += threads_) {
      if (!asking_[i].asks) continue;
      asking_[i].slot = slot_of(asking_[i].same);
      if (asking_[i].step < 0) continue;
      const int parent = first_slot + own[i].parent, slot = first_slot + asking_[i].slot;
      steps[scratch_.first + asking_[i].step] = {parent, own[i].token, slot};
      for (int fusion = 0; fusion < search_.fusions; ++fusion) {
        const long long* before = search_.fusion_states + static_cast<long long>(parent) * search_.fusions;
        search_.fusion_states[static_cast<long long>(slot) * search_.fusions + fusion] =
            search_.automata[fusion].next(static_cast<int>(before[fusion]), own[i].token);
      }
    }
    sync_block();
#pragma unroll 1
    for (int i = thread_; i < count_; i += threads_) {
      if (!asking_[i].asks) continue;
      own[i].slot = asking_[i].slot;
      own[i].place = free_places[asking_[i].row];
      wanted[scratch_.counted + asking_[i].row] = {first_slot + own[i].slot,
                                                   search_.first_frames[utterance_] + own[i].frame, own[i].place,
                                                   utterance_};
    }
    sync_block();
  }

  // The hypothesis whose predictor state hypothesis i shares: one with the same tokens that has its state already, or
  // else the first one with the same tokens that asks for it.
  __device__ int state_of(int i) const {
    const Hypothesis* own = hypotheses();
    if (own[i].slot >= 0) return i;
    int same = i;
    for (int j = 0; j < count_; ++j) {
      const bool known = own[j].slot >= 0;
      if (!known && !(j < same && asking_[j].asks)) continue;
      if (own[j].prefix != own[i].prefix || own[j].length != own[i].length ||
          !have_same_tokens(records_, own[j].record, -1, own[i].record, -1))
        continue;
      same = j;
      if (known) break;
    }
    return same;
  }

  // Finds the first `wanted` numbers below `end` that no hypothesis uses.
  template <class Number>
  __device__ void find_free(int end, int wanted, int* found, Number number) {
    int count = 0;
#pragma unroll 1
    for (int first = 0; first < end && count < wanted; first += threads_) {
      const int at = first + thread_;
      bool free = at < end;
      for (int i = 0; free && i < count_; ++i) free = number(hypotheses()[i]) != at;
      const Rank rank = tdt::cuda::ranked(free, scratch_.integers);
      if (free && count + rank.before < wanted) found[count + rank.before] = at;
      count += rank.total;
    }
  }
};

}  // namespace tdt::cuda
