// One utterance's beam, run by one block. The steps are those of csrc/cpu/beam.cpp: where the CPU loops over entries,
// there is a thread for each entry here. Where a result depends on the order of the entries, it is the CPU's order.
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

struct Earlier {
  __device__ unsigned long long operator()(unsigned long long a, unsigned long long b) const { return a < b ? a : b; }
};

class Beam {
 public:
  __device__ Beam(const BeamSearch& search, int utterance, BeamScratch& scratch)
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

  // Advances as far as the ranked rows allow, then asks for the next rows: those of the earliest hypotheses first. The
  // next step cannot need more than `size`, but rows that cost nothing now save a round later.
  __device__ void advance(int* step_count, Step* steps, int* wanted_count, Wanted* wanted) {
    bool full = false;
    while (next_in_time() && ready()) {
      full = recorded_ + search_.hypotheses > search_.capacity;
      if (full) break;
      if constexpr (kStrategy == Strategy::greedy)
        commit(greedy());
      else if constexpr (kStrategy == Strategy::tsd)
        commit(tsd());
      else
        commit(malsd());
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

  // Finds the earliest position of a hypothesis inside the audio: the lowest frame, then the fewest symbols there.
  // Returns whether there is one.
  __device__ bool next_in_time() {
    unsigned long long earliest = ~0ull;
#pragma unroll 1
    for (int i = thread_; i < count_; i += threads_) {
      const Hypothesis& h = hypotheses()[i];
      if (inside(h) && time_of(h) < earliest) earliest = time_of(h);
    }
    earliest_ = over_block(earliest, scratch_.words, Earlier{});
    return earliest_ != ~0ull;
  }

  // Whether the rows that the next step reads have been ranked.
  __device__ bool ready() {
    constexpr bool in_turn = kStrategy == Strategy::tsd;
    bool missing = false;
#pragma unroll 1
    for (int i = thread_; i < count_; i += threads_) {
      const Hypothesis& h = hypotheses()[i];
      missing = missing || (inside(h) && h.place < 0 && (!in_turn || time_of(h) == earliest_));
    }
    return !any(missing);
  }

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

  __device__ int greedy() {
    if (thread_ == 0) {
      const Hypothesis& h = hypotheses()[0];
      const Ranked& row = row_of(h);
      Best largest, blank;
      largest.value = row.largest;
      largest.index = row.largest_index;
      blank.value = row.blank_logit;
      blank.index = row.blank_index;
      // If no token may be emitted, none is ranked.
      const bool is_blank = !emits(largest, blank, search_.options.greedy) || row.count == 0;
      const int which = blank_rank(blank, search_.layout);
      double logprob = blank_logprob(h, which);
      if (!is_blank) logprob = static_cast<double>(token_logprob(h, 0)) + bonus(h, token_of(h, 0));
      entries_[0] = extended(0, is_blank ? kBlankRank : 0, logprob + duration_logprob(h, row.longest), row.longest,
                             is_blank ? blank_frames(which, row.longest) : frames(row.longest));
    }
    sync_block();
    return 1;
  }

  // Extends all hypotheses at the earliest position in every way that could matter. Then merges hypotheses that have
  // the same tokens and the same position, and only then drops the worst.
  __device__ int tsd() {
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

  // Adds up equal entries at the first of them, in their order. `marks_[i]` is the first entry that equals entry i.
  __device__ void merge(int total) {
#pragma unroll 1
    for (int i = thread_; i < total; i += threads_) {
      const Entry entry = entries_[i];
      int first = i;
      const int end = entry.hypothesis < 0 ? 0 : i;
#pragma unroll 8
      for (int j = 0; j < end; ++j) {
        if (entries_[j].prefix != entry.prefix) continue;  // nearly always
        const Entry& other = entries_[j];
        if (j >= first || other.hypothesis < 0 || other.frame != entry.frame || other.symbols != entry.symbols ||
            !same_tokens(other, entry))
          continue;
        first = j;
      }
      marks_[i] = entry.hypothesis < 0 ? -1 : first;
    }
    sync_block();
#pragma unroll 1
    for (int i = thread_; i < total; i += threads_) {
      if (marks_[i] != i) continue;
      Entry entry = entries_[i];
      bool changed = false;
#pragma unroll 8
      for (int j = i + 1; j < total; ++j) {
        if (marks_[j] != i) continue;
        const Entry& other = entries_[j];
        entry.score = log_added(entry.score, other.score);
        if (other.best > entry.best) {
          entry.best = other.best;
          entry.from = other.from;
          entry.from_rank = other.from_rank;
          entry.duration = other.duration;
        }
        changed = true;
      }
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

  // NeMo's modified alignment-length-synchronous decoding, with one blank. Scores are rounded to float wherever NeMo rounds them.
  __device__ int malsd() {
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
      for (int i = 0; i < best; ++i) {
        const int at = pairs_[i].rank;
        int same = 0;
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

  __device__ bool same_tokens(const Entry& a, const Entry& b) const {
    if (a.length != b.length) return false;
    const Hypothesis &x = hypotheses()[a.hypothesis], &y = hypotheses()[b.hypothesis];
    return have_same_tokens(records_, x.record, token_of(x, a.rank), y.record, token_of(y, b.rank));
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
  unsigned long long earliest_ = 0;
};

}  // namespace tdt::cuda
