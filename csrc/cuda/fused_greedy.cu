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
// Exchanged numbers are overwritten after this many rounds. A block may be one round ahead of another, and it
// clears the numbers of the round after its own.
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

// Computes the log-probabilities of tokens, each by one warp of the grid. They go into the log from entry `first` on.
__device__ TDT_OUTLINED void log_probabilities(const Greedy& search, const Emission* emissions, int count, int first) {
  const RowLayout& layout = search.net.layout;
  const int grid = static_cast<int>(gridDim.x), lane = lane_index();
  for (int i = warp_index() * grid + grid - 1 - static_cast<int>(blockIdx.x); i < count; i += warp_count() * grid) {
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
    Greedy* search;
    Control* control;
    Emission* emissions;
    Best* tile_best;
    LogSum* tile_sums;
    Row* rows;
    Worker::Room worker;
  };
  __device__ static Room reserve(const Greedy& search, Arena* arena) {
    return {arena->take<Greedy>(1),
            arena->take<Control>(1),
            arena->take<Emission>(kMaxSlots),
            arena->take<Best>(2 * held_products(search.net.staged) * kGroup),
            arena->take<LogSum>(held_products(search.net.staged) * kGroup),
            arena->take<Row>(search.columns),
            Worker::reserve(search.net, arena)};
  }

  __device__ Searcher(const Greedy* search, const Control* control, Arena* arena, bool keeping)
      : Searcher(search, control, reserve(*search, arena), arena, keeping) {}

  __device__ Worker& worker() { return worker_; }
  __device__ const Control& control() const { return control_; }
  __device__ bool over() const { return control_.active == 0 || control_.cursor + control_.active > search_.capacity; }

  __device__ void store(Control* to) const {
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
    const int window = window_of(active);
    if (slot < active) {
      Slot& mine = control_.slots[slot];
      mine.column = slot * window;
      mine.window = mine.length - mine.frame < window ? mine.length - mine.frame : window;
    }
    sync_block();
    if (slot == 0) {
      control_.active = active;
      control_.next += admitted;
    }
    sync_block();
  }

  // Computes the joint rows of the slots' windows, and publishes what decisions need of them.
  template <class Barrier>
  __device__ void score(Barrier& barrier) {
    const RowLayout& layout = search_.net.layout;
    const int window = window_of(control_.active), columns = control_.active * window;
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
        [&](int place, int output, int column, bool valid, float value) {
          const float logit = sanitized(value);
          const bool is_blank = output >= layout.blank && output < layout.blanks_end(), is_token = output < entries;
          if (valid && output < layout.width() && (is_blank || !is_token))
            specials_at(buffer + column)[is_blank ? output - layout.blank : output - layout.vocab_size] = logit;
          const Best best = over_lanes(is_token && !is_blank ? candidate(logit, output) : Best{}, kTile, Better{});
          LogSum sum;
          sum.max = over_lanes(is_token ? logit : kLowest, kTile, [](float a, float b) { return a > b ? a : b; });
          const bool counts = is_token && logit > kLowest;
          sum.sum = over_lanes(counts ? expf(logit - sum.max) : 0.0f, kTile, Plus{});
          if (lane_index() % kTile == 0) {
            tile_best_[place] = best;
            tile_sums_[place] = sum;
          }
          if (!masked) return;
          const bool wins = valid && is_token && !is_blank && may_win(allowed_in(column / window), output);
          const Best allowed = over_lanes(wins ? candidate(logit, output) : Best{}, kTile, Better{});
          if (lane_index() % kTile == 0) tile_best_[held_products(search_.net.staged) * kGroup + place] = allowed;
        },
        [&](int first, int together, int tiles, int each, bool is_first) {
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

  // Decides each slot from frame to frame of its window, up to its next token. First a thread decides each joint row.
  // Then one warp goes from row to row, a lane for each slot.
  __device__ void decide() {
    const RowLayout& layout = search_.net.layout;
    const int buffer = control_.round % kExchangedRounds * search_.columns;
    const int window = window_of(control_.active), columns = control_.active * window;
    for (int i = static_cast<int>(threadIdx.x); i < columns; i += static_cast<int>(blockDim.x)) {
      const float* special = specials_at(buffer + i);
      Best best = unpacked(best_at(buffer)[i]), blank, longest;
#pragma unroll 1
      for (int b = 0; b < layout.num_blanks; ++b) blank = better(blank, candidate(special[b], layout.blank + b));
      bool emitted = emits(best, blank, search_.options);
      if (emitted && !may_win(allowed_in(i / window), best.index)) {
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
    first_logged_ = control_.cursor;
    sync_block();
    if (warp_index() == 0) go_on(buffer);
    sync_block();
  }

  // Computes the log-probabilities of the round's tokens. Nothing waits for them.
  __device__ void report() { log_probabilities(search_, emissions_, control_.step_count, first_logged_); }

 private:
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

  __device__ Searcher(const Greedy* search, const Control* control, const Room& room, Arena* arena, bool keeping)
      : search_(copied(room.search, search)),
        control_(copied(room.control, control)),
        emissions_(room.emissions),
        tile_best_(room.tile_best),
        tile_sums_(room.tile_sums),
        rows_(room.rows),
        worker_(search_.net, search_.states, room.worker, arena, keeping) {}

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
  Worker worker_;
  int first_logged_ = 0;
};

// A barrier that computes the log-probabilities while the block waits for the others.
struct ReportingBarrier {
  static constexpr bool kSpansGrid = true;
  GridBarrier& barrier;
  Searcher& searcher;
  bool pending;

  __device__ void meanwhile() {
    barrier.meanwhile();
    report();
  }
  __device__ void arrive() {
    barrier.arrive();
    report();
  }
  __device__ void wait() { barrier.wait(); }
  __device__ void sync() {
    arrive();
    wait();
  }

 private:
  __device__ void report() {
    if (pending) searcher.report();
    pending = false;
  }
};

}  // namespace tdt::cuda

using namespace tdt::cuda;

#if !TDT_PHASES  // one launch and launches of single phases are compiled apart, since only one of them is used

// Runs until all utterances are done or the log is full. If it is full, the host empties it and launches again.
extern "C" __global__ void __launch_bounds__(512, 1) fused_greedy(const Greedy* search) {
  Arena arena(shared_memory());
  Searcher searcher(search, search->control, &arena, true);
  GridBarrier barrier(search->barrier);
  for (;;) {
    searcher.plan();
    if (searcher.over()) break;
    searcher.score(barrier);
    barrier.sync();
    searcher.decide();
    if (!searcher.control().step_count) continue;
    ReportingBarrier reporting = {barrier, searcher, true};
    searcher.worker().predict(searcher.control().steps, searcher.control().step_count, reporting);
  }
  searcher.store(search->control);
}

#else

// The phases, one kernel each. A round reads one of the two `Control`s, number `parity`, and writes the other.
extern "C" __global__ void __launch_bounds__(512, 1) greedy_score(const Greedy* search, int parity) {
  Arena arena(shared_memory());
  Searcher searcher(search, search->control + parity, &arena, false);
  searcher.plan();
  NoBarrier none;
  if (!searcher.over()) searcher.score(none);
}

extern "C" __global__ void __launch_bounds__(512, 1) greedy_decide(const Greedy* search, int parity) {
  Arena arena(shared_memory());
  Searcher searcher(search, search->control + parity, &arena, false);
  searcher.plan();
  if (searcher.over())
    searcher.stop();
  else {
    searcher.decide();
    searcher.report();
    searcher.worker().first_layer(searcher.control().steps, searcher.control().step_count, false);
  }
  searcher.store(search->control + 1 - parity);
}

extern "C" __global__ void __launch_bounds__(512, 1) greedy_layer(const Greedy* search, int parity, int layer) {
  Arena arena(shared_memory());
  Searcher searcher(search, search->control + 1 - parity, &arena, false);
  NoBarrier none;
  searcher.worker().upper_layer(layer, searcher.control().steps, searcher.control().step_count, false, none);
}

#endif

// The bytes of shared memory that a block needs beside its weights.
extern "C" __global__ void fused_greedy_room(const Greedy* search, int* bytes) {
  Arena arena(shared_memory());
  Searcher::reserve(*search, &arena);
  if (threadIdx.x != 0) return;
  *bytes = arena.used();
}
