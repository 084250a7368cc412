// Greedy search over many utterances with a packed network. The whole loop is one cooperative launch (`fused_greedy`).
// For cards without cooperative launch there is a kernel for each phase (`greedy_score`, `greedy_decide`,
// `greedy_layer`).
//
// An utterance in flight has a slot. When it ends, another utterance takes the slot. In a round the next few frames of
// every slot are scored together, each slot is decided up to its next token, and the predictor runs for the slots that
// emitted one. Blocks exchange only the few numbers that decisions need, and every block takes all decisions itself. So
// a token costs one barrier for each layer above the first, one for the prediction and one for the joint. A round
// without a token costs one barrier.
#include "network.cuh"
#include "rank.cuh"
#include "tdt/transition.h"

namespace tdt::cuda {

constexpr int kMaxSlots = 128;
// Exchanged numbers are overwritten after this many rounds. A block may be one round ahead of another, it clears the
// numbers of the round after its own, and log-probabilities are computed one round late.
constexpr int kExchangedRounds = 3;

// An utterance in flight.
struct Slot {
  int utterance, frame, symbols;
  int state;                // where its predictor state lies in `States`: 2 utterance, or 2 utterance + 1
  int length, first_frame;  // number of its frames, and where they begin among the projected frames
  int column, window;       // its first column of the round, and how many frames from `frame` on are scored
};

struct Control {
  int round;
  int cursor;      // tokens logged
  int next;        // utterances that have begun
  int active;      // slots in use, the first ones
  int step_count;  // predictor steps of this round
  Slot slots[kMaxSlots];
  Step steps[kMaxSlots];
};

// The predictor states of utterance u lie at 2u and 2u + 1 in turn: a step reads one and writes the other.
struct Greedy {
  Network net;
  States states;
  int slots;    // at most kMaxSlots and the threads of a block
  int window;   // frames that a round scores for one slot alone; a few slots share them, many have one frame each
  int columns;  // most joint rows of a round, a column for each
  GreedyOptions options;
  int batch;                 // B
  int waiting;               // utterances that have frames
  const int* order;          // [waiting] the utterances in the order in which they begin
  const int* lengths;        // [B] number of frames
  const int* first_frames;   // [B] where an utterance's frames begin among the projected frames
  const int* starts;         // [3, B] where utterances begin: next frame, tokens emitted there, place of the state
  int* ends;                 // [3, B] where they end: the same numbers
  const float* projected;    // [all frames, J]
  unsigned long long* best;  // [2, kExchangedRounds, columns] best token, and best of those that may be emitted; zero
                             // before the first launch
  float* specials;           // [kExchangedRounds, columns, B + D] logits of the blanks and of the durations
  LogSum* sums;              // [kExchangedRounds, columns, blocks] log-sums of each block's tokens
  int capacity;
  int* log;           // [4, capacity] utterance, token, frame, duration
  float* logprobs;    // [2, capacity] of token and duration
  int* summary;       // [3] tokens logged, slots in use, utterances that have begun
  Control* control;   // [2]; zero before the first launch
  unsigned* barrier;  // [blocks]; zero before each launch
  Masks masks;        // of each utterance

  __device__ float* specials_at(int column) const {
    return specials + static_cast<long long>(column) * (net.layout.num_blanks + net.layout.num_durations);
  }
  __device__ LogSum* sums_at(int column) const { return sums + static_cast<long long>(column) * gridDim.x; }
};

// An emitted token, as its log-probabilities need it.
struct Emission {
  int column, duration, duration_index;
  float value;
};

// Computes the log-probabilities of tokens, each by one of the first `warps` warps of each block. They go into the
// log from entry `first` on.
__device__ __forceinline__ void log_probabilities(const Greedy& search, const Emission* emissions, int count, int first,
                                                  int warps) {
  const RowLayout& layout = search.net.layout;
  const int grid = static_cast<int>(gridDim.x), lane = lane_index();
  for (int i = warp_index() * grid + grid - 1 - static_cast<int>(blockIdx.x); i < count; i += warps * grid) {
    const Emission emission = emissions[i];
    const LogSum* sums = search.sums_at(emission.column);
    LogSum total;
#pragma unroll 1
    for (int block = lane; block < grid; block += kWarp) total = added(total, sums[block]);
    total = over_warp(total, Added{});
    const float* durations = search.specials_at(emission.column) + layout.num_blanks;
    LogSum timing;
#pragma unroll 1
    for (int d = lane; d < layout.num_durations; d += kWarp) timing = added(timing, log_sum_of(durations[d]));
    timing = over_warp(timing, Added{});
    if (lane != 0) continue;
    float* entry = search.logprobs + first + i;
    entry[0] = log_probability(emission.value, total.max, logf(total.sum));
    entry[search.capacity] = emission.duration_index == kNoIndex
                                 ? 0.0f
                                 : log_probability(durations[emission.duration_index], timing.max, logf(timing.sum));
  }
}

// A block's part in the search.
class Searcher {
 public:
  // What a joint row decides.
  struct Row {
    float value;
    int token;  // -1: blank
    int duration, duration_index;
  };

  struct Room {
    Control* control;
    Emission* emissions;
    Best* tile_best;
    LogSum* tile_sums;
    Row* rows;
    int* durations;
    Worker::Room worker;
  };
  __device__ static Room reserve(const Greedy& search, Arena* arena) {
    return {arena->take<Control>(1),
            arena->take<Emission>(kMaxSlots),
            arena->take<Best>(2 * held_products(search.net.staged) * kGroup),
            arena->take<LogSum>(held_products(search.net.staged) * kGroup),
            arena->take<Row>(search.columns),
            arena->take<int>(search.net.layout.num_durations),
            Worker::reserve(search.net, arena)};
  }

  __device__ Searcher(const Greedy& search, const Control* control, Arena* arena, bool keeping)
      : Searcher(search, control, reserve(search, arena), arena, keeping) {}

  __device__ Worker& worker() { return worker_; }
  __device__ const Control& control() const { return control_; }
  __device__ bool over() const { return active_ == 0 || control_.cursor + active_ > search_.capacity; }

  __device__ void store(Control* to) const {
    sync_block();
    if (blockIdx.x != 0) return;
    copy_words(to, &control_);
    if (threadIdx.x != 0) return;
    search_.summary[0] = control_.cursor;
    search_.summary[1] = control_.active;
    search_.summary[2] = control_.next;
  }
  // Makes this a round without steps.
  __device__ void stop() {
    if (threadIdx.x == 0) control_.step_count = 0;
    sync_block();
  }

  // Gives free slots to the next utterances, and plans which frames this round scores.
  __device__ void plan() {
    const int slot = static_cast<int>(threadIdx.x);
    const int waiting = search_.waiting - control_.next, free = search_.slots - control_.active;
    const int admitted = waiting < free ? waiting : free, active = control_.active + admitted;
    if (slot >= control_.active && slot < active) {
      const int u = search_.order[control_.next + slot - control_.active];
      const int *start = search_.starts + u, batch = search_.batch;
      control_.slots[slot] = {u, start[0], start[batch], start[2 * batch], search_.lengths[u], search_.first_frames[u],
                              0, 0};
    }
    window_ = window_of(active);
    if (slot < active) {
      Slot& mine = control_.slots[slot];
      mine.column = slot * window_;
      mine.window = mine.length - mine.frame < window_ ? mine.length - mine.frame : window_;
    }
    sync_block();
    if (slot == 0) {  // nobody reads them before the next barrier
      control_.active = active;
      control_.next += admitted;
    }
    active_ = active;
    columns_ = active * window_;
  }

  // Computes the joint rows of the slots' windows, and publishes what decisions need of them.
  template <class Barrier>
  __device__ void score(Barrier& barrier) {
    const RowLayout& layout = search_.net.layout;
    const int window = window_, columns = columns_;
    const int entries = layout.token_entries(), buffer = control_.round % kExchangedRounds * search_.columns;
    const int next = (control_.round + 1) % kExchangedRounds * search_.columns;
    const bool masked = search_.masks.table != nullptr;
    if (blockIdx.x == 0)  // clears the next round's numbers
      for (int i = static_cast<int>(threadIdx.x); i < search_.columns; i += static_cast<int>(blockDim.x)) {
        best_at(next)[i] = 0;
        best_allowed_at(next)[i] = 0;
      }
    if (!worker_.scores())
      for (int i = static_cast<int>(threadIdx.x); i < columns; i += static_cast<int>(blockDim.x))
        sums_at(buffer + i)[blockIdx.x] = LogSum{};
    worker_.joint(
        search_.projected, columns,
        [&](int column) {
          const Slot& slot = control_.slots[column / window];
          const int at = column % window < slot.window ? column % window : slot.window - 1;
          return Column{slot.state, slot.first_frame + slot.frame + at};
        },
        barrier,
        [&](int place, int output, int column, bool valid, const float4& four) {
          // The sums of a tile's outputs are added in the order of a tree: output i and i + 8, then i and i + 4, ...
          const float values[4] = {four.x, four.y, four.z, four.w};
          float logits[4], max = kLowest;
          Best best, allowed;
          const Allowed table = masked ? allowed_in(valid ? column / window : 0) : nullptr;
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int own = output + i * 4;
            const bool is_blank = own >= layout.blank && own < layout.blanks_end(), is_token = own < entries;
            const float logit = sanitized(values[i]);
            if (valid && own < layout.width() && (is_blank || !is_token))
              specials_at(buffer + column)[is_blank ? own - layout.blank : own - layout.vocab_size] = logit;
            logits[i] = is_token ? logit : kLowest;
            max = logits[i] > max ? logits[i] : max;
            if (!is_token || is_blank) continue;
            best = better(best, candidate(logit, own));
            if (masked && valid && may_win(table, own)) allowed = better(allowed, candidate(logit, own));
          }
          max = over_lanes(max, 4, [](float a, float b) { return a > b ? a : b; });
          float terms[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) terms[i] = logits[i] > kLowest ? expf(logits[i] - max) : 0.0f;
          const LogSum sum = {max, over_lanes((terms[0] + terms[2]) + (terms[1] + terms[3]), 4, Plus{})};
          best = over_lanes(best, 4, Better{});
          if (masked) allowed = over_lanes(allowed, 4, Better{});
          if (lane_index() % 4 != 0) return;
          tile_best_[place] = best;
          tile_sums_[place] = sum;
          if (masked) tile_best_[held_products(search_.net.staged) * kGroup + place] = allowed;
        },
        [&](int first, int together, int tiles, int each, bool is_first) {
          if (tiles == 1 && each == kGroup)
            sync_warp();  // all of it is the first warp's
          else
            sync_block();
          const int at = static_cast<int>(threadIdx.x);
          if (at >= together) return;
          Best best = tile_best_[at];
#pragma unroll 1  // so that the code fits the cache
          for (int tile = 1; tile < tiles; ++tile) best = better(best, tile_best_[tile * each + at]);
          if (best.index != kNoIndex) atomic_max(&best_at(buffer)[first + at], packed(best));
          if (masked) {
            const Best* tile_allowed = tile_best_ + held_products(search_.net.staged) * kGroup;
            Best allowed = tile_allowed[at];
#pragma unroll 1
            for (int tile = 1; tile < tiles; ++tile) allowed = better(allowed, tile_allowed[tile * each + at]);
            if (allowed.index != kNoIndex) atomic_max(&best_allowed_at(buffer)[first + at], packed(allowed));
          }
          LogSum& sum = sums_at(buffer + first + at)[blockIdx.x];
          LogSum total = is_first ? LogSum{} : sum;
#pragma unroll 1
          for (int tile = 0; tile < tiles; ++tile) total = added(total, tile_sums_[tile * each + at]);
          sum = total;
        });
  }

  // Waits for the joint rows, and decides each slot from frame to frame of its window, up to its next token. First a
  // thread decides each joint row. Then one warp goes from row to row, a lane for each slot. Where there are few rows,
  // that warp does all of it, and the block only waits for it.
  template <class Barrier>
  __device__ void decide(Barrier& barrier) {
    if (alone())
      barrier.wait_in_first_warp();
    else
      barrier.wait();
    if (!alone() || warp_index() == 0) {
      const int buffer = control_.round % kExchangedRounds * search_.columns;
      decide_rows(buffer, alone() ? kWarp : static_cast<int>(blockDim.x));
      if (alone())
        sync_warp();
      else
        sync_block();
      if (warp_index() == 0) go_on(buffer);
    }
    sync_block();
  }

  // Brings the frames that the next round will score near, if they are few. Utterances that begin in it are left out.
  __device__ void prefetch_frames() const {
    constexpr int kSector = 8;  // numbers
    const int active = control_.active, window = window_of(active), size = search_.net.joint;
    if (active * window > kGroup) return;
    for (int i = warp_index(); i < active * window; i += warp_count()) {
      const Slot& slot = control_.slots[i / window];
      const int frame = slot.frame + i % window;
      if (frame >= slot.length) continue;
      const float* row = search_.projected + static_cast<long long>(slot.first_frame + frame) * size;
      for (int at = lane_index() * kSector; at < size; at += kWarp * kSector) prefetch(row + at);
    }
  }

  // Computes the log-probabilities of the last round's tokens. Nothing waits for them. If the first warp will decide
  // the next round alone, it does this alone too, so that it overwrites nothing that another one reads.
  __device__ void report() {
    const int warps = alone() ? 1 : warp_count();
    if (warp_index() >= warps) return;
    const int count = control_.step_count;
    log_probabilities(search_, emissions_, count, control_.cursor - count, warps);
  }

 private:
  // Whether the first warp decides alone.
  __device__ bool alone() const { return columns_ <= kWarp; }

  // Decides each joint row by one of `threads` threads.
  __device__ void decide_rows(int buffer, int threads) {
    const RowLayout& layout = layout_;
    for (int i = static_cast<int>(threadIdx.x); i < columns_; i += threads) {
      const float* special = specials_at(buffer + i);
      Best best = unpacked(best_at(buffer)[i]), blank, longest;
#pragma unroll 1
      for (int b = 0; b < layout.num_blanks; ++b) blank = better(blank, candidate(special[b], layout.blank + b));
      bool emitted = emits(best, blank, search_.options);
      if (emitted && !may_win(allowed_in(i / window_), best.index)) {
        best = unpacked(best_allowed_at(buffer)[i]);
        emitted = best.index != kNoIndex;
      }
      special += layout.num_blanks;
#pragma unroll 1
      for (int d = 0; d < layout.num_durations; ++d) longest = better(longest, candidate(special[d], d));
      int duration = chosen_duration(longest, layout).frames;
      if (!emitted && layout.num_durations == 0) duration = layout.blank_frames[blank_rank(blank, layout)];
      rows_[i] = {best.value, emitted ? best.index : -1, duration, longest.index};
    }
  }

  // Moves each slot to its next token or past its window. Slots that have ended leave, and the others close up. Called
  // by one warp.
  __device__ void go_on(int buffer) {
    const int lane = lane_index(), active = control_.active;
    const unsigned before = (1u << lane) - 1u;
    int emitted = 0, living = 0;
    for (int first = 0; first < active; first += kWarp) {
      const int index = first + lane;
      Slot slot = {};
      Position at = {0, 0};
      Row row = {0.0f, -1, 0, 0};
      int token_frame = 0, token_column = 0;
      if (index < active) {
        slot = control_.slots[index];
        at = {slot.frame, slot.symbols};
        while (row.token < 0 && at.frame < slot.frame + slot.window) {
          token_frame = at.frame;
          token_column = slot.column + at.frame - slot.frame;
          row = rows_[token_column];
          at = advanced(at, row.token < 0, row.duration, search_.options);
        }
      }
      const bool emits_token = row.token >= 0, alive = index < active && at.frame < slot.length;
      const unsigned emitting = ballot(emits_token), staying = ballot(alive);
      sync_warp();  // all lanes have read their slots, and those of later turns are not overwritten in this one
      if (emits_token) {
        const int place = emitted + count_bits(emitting & before);
        emissions_[place] = {buffer + token_column, row.duration, row.duration_index, row.value};
        control_.steps[place] = {slot.state, row.token, slot.state ^ 1};
        slot.state ^= 1;
        if (blockIdx.x == 0) {
          int* entry = search_.log + control_.cursor + place;
          entry[0] = slot.utterance;
          entry[search_.capacity] = row.token;
          entry[2ll * search_.capacity] = token_frame;
          entry[3ll * search_.capacity] = row.duration;
        }
      }
      if (index < active && !alive && blockIdx.x == 0) {
        int* end = search_.ends + slot.utterance;
        end[0] = at.frame;
        end[search_.batch] = at.symbols;
        end[2 * search_.batch] = slot.state;
      }
      slot.frame = at.frame;
      slot.symbols = at.symbols;
      if (alive) control_.slots[living + count_bits(staying & before)] = slot;
      emitted += count_bits(emitting);
      living += count_bits(staying);
    }
    sync_warp();  // the lanes have read `cursor` and `active`
    if (lane != 0) return;
    control_.step_count = emitted;
    control_.cursor += emitted;
    control_.active = living;
    ++control_.round;
  }

  __device__ Searcher(const Greedy& search, const Control* control, const Room& room, Arena* arena, bool keeping)
      : search_(search),
        control_(copied(room.control, control)),
        emissions_(room.emissions),
        tile_best_(room.tile_best),
        tile_sums_(room.tile_sums),
        rows_(room.rows),
        layout_(search.net.layout),
        worker_(search.net, search.states, room.worker, arena, keeping) {
    for (int i = static_cast<int>(threadIdx.x); i < layout_.num_durations; i += static_cast<int>(blockDim.x))
      room.durations[i] = layout_.durations[i];
    layout_.durations = room.durations;
    if (keeping && threadIdx.x == 0) control_.step_count = 0;  // the launch before has reported its last round
  }

  __device__ int window_of(int active) const {
    return active > 0 && search_.window > active ? search_.window / active : 1;
  }
  __device__ float* specials_at(int column) const { return search_.specials_at(column); }
  __device__ unsigned long long* best_at(int buffer) const { return search_.best + buffer; }
  __device__ unsigned long long* best_allowed_at(int buffer) const {
    return search_.best + kExchangedRounds * search_.columns + buffer;
  }
  __device__ Allowed allowed_in(int slot) const { return search_.masks.of(control_.slots[slot].utterance); }
  __device__ LogSum* sums_at(int column) const { return search_.sums_at(column); }

  const Greedy& search_;
  Control& control_;
  Emission* emissions_;
  Best* tile_best_;
  LogSum* tile_sums_;
  Row* rows_;
  RowLayout layout_;  // its durations lie in shared memory
  Worker worker_;
  int active_ = 0, window_ = 1, columns_ = 0;  // of this round, as `plan` has found them
};

// A barrier for the predictor's steps. A block that has nothing else to do fetches the next frames.
struct FetchingBarrier {
  static constexpr bool kSpansGrid = true;
  GridBarrier& barrier;
  const Searcher& searcher;

  __device__ void idle(int layer) {
    if (layer == 1) searcher.prefetch_frames();
  }
  __device__ void meanwhile() { barrier.meanwhile(); }
  __device__ void arrive() { barrier.arrive(); }
  __device__ void wait() { barrier.wait(); }
  __device__ void sync() { barrier.sync(); }
};

}  // namespace tdt::cuda

using namespace tdt::cuda;

#if !TDT_PHASES  // one launch and launches of single phases are compiled apart, since only one of them is used

// Runs until all utterances are done or the log is full. If it is full, the host empties it and launches again.
extern "C" __global__ void __launch_bounds__(512, 1) fused_greedy(const __grid_constant__ Greedy search) {
  Arena arena(shared_memory());
  Searcher searcher(search, search.control, &arena, true);
  GridBarrier barrier(search.barrier);
  for (;;) {
    searcher.plan();
    const bool over = searcher.over();
    if (!over) {
      searcher.score(barrier);
      barrier.arrive();
    }
    searcher.report();  // of the round before, while the block would only wait
    if (over) break;
    searcher.decide(barrier);
    if (!searcher.control().step_count) continue;
    FetchingBarrier fetching = {barrier, searcher};
    searcher.worker().predict(searcher.control().steps, searcher.control().step_count, fetching);
  }
  searcher.store(search.control);
}

#else

// The phases, one kernel each. A round reads one of the two `Control`s, number `parity`, and writes the other.
extern "C" __global__ void __launch_bounds__(512, 1) greedy_score(const __grid_constant__ Greedy search, int parity) {
  Arena arena(shared_memory());
  Searcher searcher(search, search.control + parity, &arena, false);
  searcher.plan();
  NoBarrier none;
  if (!searcher.over()) searcher.score(none);
}

extern "C" __global__ void __launch_bounds__(512, 1) greedy_decide(const __grid_constant__ Greedy search, int parity) {
  Arena arena(shared_memory());
  Searcher searcher(search, search.control + parity, &arena, false);
  searcher.plan();
  const bool over = searcher.over();
  sync_block();  // all threads have asked, and the first warp may move the slots on
  if (over)
    searcher.stop();
  else {
    NoBarrier none;
    searcher.decide(none);
    searcher.report();
    searcher.worker().first_layer(searcher.control().steps, searcher.control().step_count, false);
  }
  searcher.store(search.control + 1 - parity);
}

extern "C" __global__ void __launch_bounds__(512, 1) greedy_layer(const __grid_constant__ Greedy search, int parity,
                                                                      int layer) {
  Arena arena(shared_memory());
  Searcher searcher(search, search.control + 1 - parity, &arena, false);
  NoBarrier none;
  searcher.worker().upper_layer(layer, searcher.control().steps, searcher.control().step_count, false, none);
}

#endif

// The bytes of shared memory that a block needs beside its weights.
extern "C" __global__ void fused_greedy_room(const __grid_constant__ Greedy search, int* bytes) {
  Arena arena(shared_memory());
  Searcher::reserve(search, &arena);
  if (threadIdx.x != 0) return;
  *bytes = arena.used();
}
