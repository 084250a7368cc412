// A transducer's predictor and joint, computed by the whole grid in phases. A phase reads what earlier phases have left
// in global memory. Between two phases there is a barrier over the grid, or the end of a launch.
#pragma once

#include "grid.cuh"
#include "requests.cuh"
#include "weights.cuh"

namespace tdt::cuda {

constexpr int kMaxLayers = 8;

// Whether the predictor looks at several tokens (its context) and has no LSTM layers. Such networks are compiled apart,
// so that neither kind makes the other's kernels longer.
#if !defined(TDT_CONTEXT)
#define TDT_CONTEXT 0
#endif
constexpr bool kContext = TDT_CONTEXT;

enum class Activation : int { relu = 0, tanh = 1, sigmoid = 2 };

// The gates of a layer are ordered by unit: i, o, f, c of the first unit, then of the second.
struct Network {
  RowLayout layout;
  Activation activation;
  int layers;          // levels below the prediction: the LSTM layers, or 1 for a context
  int hidden;          // H, padded to whole tiles of gates
  int joint;           // J
  int cells;           // of a state: one for each LSTM layer, or one for each token of the context but the last
  const Weight::Input* table;  // [V + 1, 4 H] the first layer's gates for each token, without the recurrent product;
                               // if there are no layers, [V + 1, J] the prediction for each token;
                               // for a context, [V + 1, 1 + cells, H] what each token adds to the predictor's output
                               // as the last token, as the second last, and so on
  Matrix recurrent[kMaxLayers];
  Matrix input[kMaxLayers];  // from the layer below; the first layer has none
  Matrix prediction;
  Matrix output;
  Matrix encoder;
  int staged;          // columns that are staged at once, a multiple of kGroup
  int resident_bytes;  // bytes of shared memory for weights

  __device__ int widest() const { return layers && hidden > joint ? hidden : joint; }
};

// Predictor states by slot: layers' outputs and cells [L, slots, H], recurrent products [L, slots, 4 H], and
// predictions [slots, J], which the joint takes. For a context, there are only predictions and cells [cells, slots, H]:
// what the tokens so far add to the predictor's output in the next step, in the step after that, and so on. And what
// blocks leave for other blocks to stage (`Worker` says how).
struct States {
  int slots;
  float *hidden, *cell, *recurrent, *prediction;
  int most;                   // columns that `columns` has room for
  Weight::Input* columns;     // [L + 1, most, widest stride] columns as they are staged
  unsigned long long* words;  // [L + 1, kGroup, widest] numbers with tags

  __device__ float* hidden_at(const Network& net, int layer, int slot) const {
    return hidden + (static_cast<long long>(layer) * slots + slot) * net.hidden;
  }
  __device__ float* cell_at(const Network& net, int layer, int slot) const {
    return cell + (static_cast<long long>(layer) * slots + slot) * net.hidden;
  }
  __device__ float* recurrent_at(const Network& net, int layer, int slot) const {
    return recurrent + (static_cast<long long>(layer) * slots + slot) * net.hidden * 4;
  }
  __device__ float* prediction_at(const Network& net, int slot) const {
    return prediction + static_cast<long long>(slot) * net.joint;
  }
  // A column of a layer's outputs or, at level L, of the joint's inputs.
  __device__ Weight::Input* column_at(const Network& net, int level, int column) const {
    const int stride = column_stride(level < net.layers ? net.hidden : net.joint);
    return columns + static_cast<long long>(level) * most * column_stride(net.widest()) + column * stride;
  }
  // The tagged outputs of a layer or, at level L, a tagged prediction.
  __device__ unsigned long long* words_at(const Network& net, int level, int column) const {
    return words + (level * kGroup + column) * ((net.widest() + 3) / 4 * 4);
  }
  __device__ long long column_bytes(const Network& net) const {
    return static_cast<long long>(net.layers + 1) * most * column_stride(net.widest()) * sizeof(Weight::Input);
  }
  __device__ long long word_bytes(const Network& net) const {
    return static_cast<long long>(net.layers + 1) * kGroup * ((net.widest() + 3) / 4 * 4) * 8;
  }
};

// A joint row that is wanted: from the state in `slot` and projected frame number `frame`.
struct Column {
  int slot, frame;
};

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

__device__ __forceinline__ float activated(Activation activation, float x) {
  if (activation == Activation::relu) return x < 0.0f ? 0.0f : x;  // NaN stays NaN
  return activation == Activation::tanh ? tanhf(x) : sigmoid(x);
}

// Stores four of the joint's inputs, from `i` on: in the general case. One copy of it, and of the activations, keeps the
// kernels short.
__device__ TDT_OUTLINED float activated_once(Activation activation, float x) { return activated(activation, x); }
__device__ TDT_OUTLINED void store_some_joined(Weight::Input* column, int i, float4 sum, Activation activation,
                                               int size) {
  sum.x = activated_once(activation, sum.x);
  sum.y = activated_once(activation, sum.y);
  sum.z = activated_once(activation, sum.z);
  sum.w = activated_once(activation, sum.w);
  store_four(column, i, sum, size);
}

struct Cell {
  float hidden, cell;
};
__device__ TDT_OUTLINED Cell lstm(float i, float o, float f, float c, float cell) {
  Cell next;
  next.cell = sigmoid(f) * cell + sigmoid(i) * tanhf(c);
  next.hidden = sigmoid(o) * tanhf(next.cell);
  return next;
}

// For launches of a single phase, in which no block may wait for another.
struct NoBarrier {
  static constexpr bool kSpansGrid = false;
  __device__ void wait_in_first_warp() {}
  __device__ void meanwhile() {}
  __device__ void idle(int) {}
  __device__ void arrive() {}
  __device__ void wait() {}
  __device__ void sync() {}
};

// Four numbers that another block leaves with tags, as they were when they were read.
struct Tagged {
  unsigned long long x, y, z, w;

  __device__ static Tagged load(const unsigned long long* from) {
    Tagged four;
    load_relaxed(from, &four.x, &four.y);
    load_relaxed(from + 2, &four.z, &four.w);
    return four;
  }
  __device__ bool has(unsigned tag) const {
    return x >> 32 == tag && y >> 32 == tag && z >> 32 == tag && w >> 32 == tag;
  }
  __device__ float4 values() const {
    return float4{float_of(static_cast<unsigned>(x)), float_of(static_cast<unsigned>(y)),
                  float_of(static_cast<unsigned>(z)), float_of(static_cast<unsigned>(w))};
  }
};

// A row of numbers that other blocks leave with tags.
struct TaggedRow {
  const unsigned long long* words;
  unsigned tag;

  __device__ Tagged load(int i) const { return Tagged::load(words + i); }
  // The numbers, once they have come.
  __device__ float4 make(Tagged four, int i) const {
    Patience patience;
    while (!four.has(tag)) {
      patience.wait();
      four = load(i);
    }
    return four.values();
  }
};

// Four neighbouring numbers of a prediction, from its tagged words if there are such, else from the prediction itself.
__device__ TDT_OUTLINED float4 prediction_from(TaggedRow tagged, const float* prediction, int i, int size) {
  return tagged.words ? tagged.make(tagged.load(i), i) : load_four(prediction, i, size);
}

// A block's part in the network: its shares of the matrices and its shared memory.
//
// What one block computes and all blocks stage goes through global memory, in one of two ways.
//
// If there are many columns, whoever computes a number also stores it in `States::columns`, in the weights' type and in
// the layout of the staged columns. After a barrier every block copies them.
//
// If there are few columns, a barrier would cost more than the work between two of them. So each number travels in one
// word of 64 bits together with a tag, and a block that needs the number reads the word until it has the tag. This
// needs no order between different words: a word is read and written whole (relaxed, of the GPU's scope), and a number
// is only ever taken from the word whose tag says that it is there. The rules that make it right are these.
//   - The tag is the number of the call of `predict` in this launch, from 1. All blocks make the same calls. The words
//     are zero before a launch. So a word never has a tag before the number that belongs to it.
//   - A word is written once in a call, by one thread. Between two calls there is at least one barrier over the grid
//     (that of the joint), and a block reads the words of a call, in `upper_layer` and in `joint`, before it arrives
//     there. So no number is overwritten before all blocks have taken it. A larger tag is never seen.
//   - Everything else that a call writes (states and recurrent products) is read after that barrier only.
//   - No block waits for a word that is written after the writer waits for this block: a block writes its part of a
//     level before it waits for another level, and at each level it waits only for lower ones. All blocks of the launch
//     run at once. So nobody waits for ever.
class Worker {
 public:
  // What a column of the joint is made from. `words`: which of the last call's steps has left the slot's prediction in
  // tagged words, or -1.
  struct alignas(16) JointInput {
    const float* frame;
    int slot, words;
  };

  // The shared memory that it needs beside weights.
  struct Room {
    float* scratch;
    Share* shares;
    JointInput* inputs;
    Weight::Input* x;
  };
  __device__ static Room reserve(const Network& net, Arena* arena) {
    return {arena->take<float>(scratch_size(net.staged)), arena->take<Share>(kShares),
            arena->take<JointInput>(net.staged),
            arena->take<Weight::Input>(column_stride(net.widest()) * net.staged)};
  }

  // If `keeping`, copies weights to the rest of shared memory, up to `resident_bytes` of the network.
  __device__ Worker(const Network& net, const States& states, const Room& room, Arena* arena, bool keeping)
      : net_(net),
        states_(states),
        scratch_(room.scratch),
        shares_(room.shares),
        inputs_(room.inputs),
        x_(room.x) {
    int left = keeping ? net.resident_bytes : 0;
    // In the order in which a token waits for them, since there may be no room for the last ones.
    take(kOutput, net.output, arena, &left);
    for (int layer = 1; layer < net.layers; ++layer) take(kInput + layer, net.input[layer], arena, &left);
    if (net.layers) take(kPrediction, net.prediction, arena, &left);
    if constexpr (!kContext)
      for (int layer = 0; layer < net.layers; ++layer) take(kRecurrent + layer, net.recurrent[layer], arena, &left);
    sync_block();
  }

  // Takes predictor steps: all phases. `steps` must stay as they are until the joint rows after them are computed.
  template <class Barrier>
  __device__ void predict(const Step* steps, int count, Barrier& barrier) {
    steps_ = steps;
    tagged_ = net_.layers > 0 && count <= kGroup ? count : 0;
    tag_ += tagged_ > 0;
    // The first layer of very few steps costs less than its exchange, so every block computes all of it.
    const bool alone = tagged_ && count <= kAlone;
    first_layer(steps, count, alone);
    if (!tagged_)
      barrier.sync();
    else if (!alone)
      barrier.meanwhile();
    for (int layer = 1; layer <= net_.layers; ++layer) upper_layer(layer, steps, count, alone && layer == 1, barrier);
  }

  // Computes the first layer, the output for a context or, if there are no layers, the prediction. If `alone`, the
  // block computes all of it and stages the result for the next layer; else the block computes its part.
  __device__ void first_layer(const Step* steps, int count, bool alone) {
    const int width = net_.layers ? net_.hidden : net_.joint, stride = column_stride(width);
    if (alone)  // the columns' padding is zero
      for (int i = 0; i < count; ++i)
        for (int unit = width + static_cast<int>(threadIdx.x); unit < stride - Weight::kPadding;
             unit += static_cast<int>(blockDim.x))
          x_[i * stride + unit] = Weight::input(0.0f);
    const int thread = static_cast<int>(alone ? threadIdx.x : blockIdx.x * blockDim.x + threadIdx.x);
    const int threads = static_cast<int>(alone ? blockDim.x : gridDim.x * blockDim.x);
    if constexpr (kContext)
      context(steps, count, alone, thread, threads);
    else
      look_up(steps, count, alone, thread, threads);
  }

  // Computes layer `layer` or, after the last layer, the prediction. While others do the same, it also computes the
  // recurrent product of the layer below, which is not needed before the next token. `staged`: whether that layer's
  // outputs are staged already.
  template <class Barrier>
  __device__ void upper_layer(int layer, const Step* steps, int count, bool staged, Barrier& barrier) {
    for (int first = 0; first < count;) {
      const int columns = count - first < net_.staged ? count - first : net_.staged;
      if (!tagged_)
        stage_made(x_, states_.column_at(net_, layer - 1, first), columns, net_.hidden);
      else if (!staged) {
        awaiting();
        stage(x_, columns, net_.hidden, [&](int i) { return tagged_row(layer - 1, i); });
      }
      if (!kContext && layer < net_.layers)
        gates(layer, steps + first, first, columns);
      else
        project(steps + first, columns);
      const Step* own = steps + first;
      first += columns;
      if (first >= count) {
        if (tagged_)
          barrier.meanwhile();
        else
          barrier.arrive();
      }
      if constexpr (!kContext) recurrent(layer - 1, own, columns);
    }
    barrier.idle(layer);
    if (!tagged_) barrier.wait();
  }

  // Computes the recurrent products of states whose layers' outputs lie at `output(layer, step)`.
  template <class Output>
  __device__ void restore(const Step* steps, int count, Output output) {
    for (int layer = 0; layer < net_.layers; ++layer)
      for (int first = 0; first < count; first += net_.staged) {
        const int columns = count - first < net_.staged ? count - first : net_.staged;
        stage(x_, columns, net_.hidden, [&](int i) { return Row{output(layer, steps[first + i]), net_.hidden}; });
        recurrent(layer, steps + first, columns);
      }
  }

  // Computes the joint rows of `column(i)`, i < count. `use(place, output, column, valid, four)` and `batch(first,
  // columns, tiles, each, is_first)` are as in `multiply`, with every fourth output; columns are numbered through.
  template <class Barrier, class ColumnAt, class Use, class Batch>
  __device__ void joint(const float* projected, int count, ColumnAt column, Barrier& barrier, Use use, Batch batch) {
    // The inputs of many columns are made once, by all blocks.
    const bool made = Barrier::kSpansGrid && count > kGroup;
    if (made) {
      make_inputs(projected, count, column);
      barrier.sync();
    }
    for (int first = 0; first < count; first += net_.staged) {
      const int columns = count - first < net_.staged ? count - first : net_.staged;
      if (made)
        stage_made(x_, states_.column_at(net_, net_.layers, first), columns, net_.joint);
      else
        stage_inputs(projected, columns, [&](int i) { return column(first + i); });
      multiply<4>(
          net_.output, static_cast<int>(gridDim.x), share(kOutput), x_, scratch_, held_products(net_.staged), columns,
          [&](int place, int output, int i, bool valid, const float4& four) {
            use(place, output, first + i, valid, four);
          },
          [&](int tiles, int each, bool is_first) { batch(first, columns, tiles, each, is_first); });
    }
  }
  // Whether this block computes any outputs of joint rows.
  __device__ bool scores() const { return shares_[kOutput].count > 0; }

  static constexpr int kOutput = 0, kPrediction = 1, kInput = 2, kRecurrent = kInput + kMaxLayers;
  static constexpr int kShares = kRecurrent + kMaxLayers;
  static constexpr int kAlone = 3;  // steps whose first layer every block computes on its own

 private:
  // Where the values of a staged column come from, if they lie in memory as they are.
  struct Row {
    const float* row;
    int size;

    __device__ float4 load(int i) const { return load_four(row, i, size); }
    __device__ float4 make(const float4& four, int) const { return four; }
  };
  __device__ void take(int which, const Matrix& matrix, Arena* arena, int* left) {
    const Share share = kept_share(matrix, arena, left);
    if (threadIdx.x == 0) shares_[which] = share;
  }
  __device__ Share share(int which) const {
    Share found;
    copy_whole(&found, shares_ + which);
    return found;
  }
  template <class Use>
  __device__ void multiply_share(const Share& share, const Matrix& matrix, int columns, Use use) {
    multiply<1>(matrix, static_cast<int>(gridDim.x), share, x_, scratch_, held_products(net_.staged), columns, use,
                NoBatch{});
  }

  // Leaves a number of a level for the other blocks.
  __device__ void leave(int level, int column, int i, float value) {
    if (tagged_)
      store_relaxed(states_.words_at(net_, level, column) + i,
                    static_cast<unsigned long long>(tag_) << 32 | bits_of(value));
    else
      states_.column_at(net_, level, column)[i] = Weight::input(value);
  }

  __device__ TaggedRow tagged_row(int level, int column) const {
    return {states_.words_at(net_, level, column), tag_};
  }
  __device__ JointInput joint_input(const float* projected, const Column& wanted) const {
    JointInput input = {projected + static_cast<long long>(wanted.frame) * net_.joint, wanted.slot, -1};
#pragma unroll 1
    for (int i = 0; i < tagged_; ++i)
      if (steps_[i].slot == wanted.slot) input.words = i;
    return input;
  }
  __device__ __forceinline__ float4 prediction_of(const JointInput& input, int i) const {
    const TaggedRow tagged = {input.words < 0 ? nullptr : states_.words_at(net_, net_.layers, input.words), tag_};
    return prediction_from(tagged, states_.prediction_at(net_, input.slot), i, net_.joint);
  }
  // Stores four of the joint's inputs in a column, from `i` on.
  __device__ __forceinline__ void store_joined(Weight::Input* column, int i, const float4& frame,
                                               const float4& prediction) const {
    const float4 sum = {frame.x + prediction.x, frame.y + prediction.y, frame.z + prediction.z,
                        frame.w + prediction.w};
    if (net_.activation == Activation::relu && i + 4 <= net_.joint)
      Weight::store_positive(column + i, sum);
    else
      store_some_joined(column, i, sum, net_.activation, net_.joint);
  }

  // Stages the joint's inputs for `column(i)`, i < count. A thread makes the same four numbers of several columns, so
  // that what these have in common is fetched once. It fetches its first frames before it waits for predictions.
  template <class ColumnAt>
  __device__ void stage_inputs(const float* projected, int count, ColumnAt column) {
    constexpr int kAhead = sizeof(Weight::Input) == 4 ? 2 : 3;  // of a window, which is shorter in float32
    const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x), size = net_.joint;
    for (int i = thread; i < count; i += threads) inputs_[i] = joint_input(projected, column(i));
    sync_block();
    const int stride = column_stride(size), fours = (stride - Weight::kPadding) / 4;
    const int parts = threads > fours ? threads / fours : 1;
    int part = thread / fours, at = (thread - part * fours) * 4, first = part;
    float4 frames[kAhead];
    const auto fetch = [&] {
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        frames[i] = float4{};
        const int own = first + i * parts;
        if (part < parts && own < count && at < size) frames[i] = load_four(inputs_[own].frame, at, size);
      }
    };
    fetch();
    if (tagged_) awaiting();
    int held = -1;  // the slot that `prediction` is of
    float4 prediction = {};
    while (part < parts) {
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int own = first + i * parts;
        if (own >= count) break;
        const JointInput input = inputs_[own];
        if (at < size && input.slot != held) {
          held = input.slot;
          prediction = prediction_of(input, at);
        }
        store_joined(x_ + own * stride, at, frames[i], prediction);
      }
      first += kAhead * parts;
      if (first >= count) {
        held = -1;
        if (parts > 1 || (at += 4 * threads) >= 4 * fours) break;
        first = part;
      }
      fetch();
    }
  }

  // Makes this block's part of the joint's inputs, for all blocks.
  template <class ColumnAt>
  __device__ void make_inputs(const float* projected, int count, ColumnAt column) {
    const int fours = (net_.joint + 3) / 4, threads = static_cast<int>(gridDim.x * blockDim.x);
    int i = 0, four = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    for (;; four += threads) {
      for (; four >= fours; four -= fours) ++i;
      if (i >= count) return;
      const JointInput input = joint_input(projected, column(i));
      const float4 frame = load_four(input.frame, four * 4, net_.joint);
      store_joined(states_.column_at(net_, net_.layers, i), four * 4, frame, prediction_of(input, four * 4));
    }
  }

  // The first LSTM layer or, if there are no layers, the prediction. For thread `thread` of `threads`.
  __device__ void look_up(const Step* steps, int count, bool alone, int thread, int threads) {
    const int width = net_.layers ? net_.hidden : net_.joint, stride = column_stride(width);
    constexpr int kAhead = 2;  // as in `stage`
    int row = 0, unit = thread;
    while (row < count) {
      float4 own[kAhead] = {}, past[kAhead] = {};
      float cell[kAhead] = {};
      int rows[kAhead], units[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        for (; unit >= width; unit -= width) ++row;
        rows[i] = row;
        units[i] = unit;
        unit += threads;
        if (rows[i] >= count) continue;
        const Step step = steps[rows[i]];
        if (!net_.layers) {
          own[i].x = Weight::value(net_.table[static_cast<long long>(step.token) * width + units[i]]);
          continue;
        }
        own[i] = four_values(net_.table + (static_cast<long long>(step.token) * width + units[i]) * 4);
        past[i] = *reinterpret_cast<const float4*>(states_.recurrent_at(net_, 0, step.parent) + units[i] * 4);
        cell[i] = states_.cell_at(net_, 0, step.parent)[units[i]];
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (rows[i] >= count) break;
        const int slot = steps[rows[i]].slot;
        if (!net_.layers) {
          states_.prediction_at(net_, slot)[units[i]] = own[i].x;
          continue;
        }
        const Cell next =
            lstm(own[i].x + past[i].x, own[i].y + past[i].y, own[i].z + past[i].z, own[i].w + past[i].w, cell[i]);
        if (alone) x_[rows[i] * stride + units[i]] = Weight::input(next.hidden);
        if (alone && blockIdx.x != 0) continue;
        if (!alone) leave(0, rows[i], units[i], next.hidden);
        states_.hidden_at(net_, 0, slot)[units[i]] = next.hidden;
        states_.cell_at(net_, 0, slot)[units[i]] = next.cell;
      }
    }
  }

  // The predictor's output for a context, which is what the last token adds to it and what earlier tokens have left in
  // the first cell; and the cells of the state after it. For thread `thread` of `threads`.
  __device__ void context(const Step* steps, int count, bool alone, int thread, int threads) {
    const int width = net_.hidden, stride = column_stride(width);
    for (int i = thread; i < count * width; i += threads) {
      const int row = i / width, unit = i % width;
      const Step step = steps[row];
      const Weight::Input* added = net_.table + static_cast<long long>(step.token) * (1 + net_.cells) * width + unit;
      const float sum = Weight::value(added[0]) + states_.cell_at(net_, 0, step.parent)[unit];
      const float output = activated(Activation::relu, sum);
      if (alone) x_[row * stride + unit] = Weight::input(output);
      if (alone && blockIdx.x != 0) continue;
      if (!alone) leave(0, row, unit, output);
      for (int cell = 0; cell < net_.cells; ++cell) {
        const float earlier = cell + 1 < net_.cells ? states_.cell_at(net_, cell + 1, step.parent)[unit] : 0.0f;
        states_.cell_at(net_, cell, step.slot)[unit] = Weight::value(added[(cell + 1) * width]) + earlier;
      }
    }
  }

  __device__ void gates(int layer, const Step* steps, int first, int columns) {
    const Share own = share(kInput + layer);
    for (int column = warp_index(); column < columns; column += warp_count()) {
      const int parent = steps[column].parent;
      for (int i = lane_index(); i < own.count * kTile / 4; i += kWarp) {
        const int unit = (own.first + i / 4 * static_cast<int>(gridDim.x)) * 4 + i % 4;
        if (unit >= net_.hidden) continue;
        prefetch(states_.recurrent_at(net_, layer, parent) + unit * 4);
        prefetch(states_.cell_at(net_, layer, parent) + unit);
      }
    }
    multiply_share(own, net_.input[layer], columns,
                   [&](int, int output, int column, bool valid, const float4& gates) {
                     const int unit = output / 4;
                     if (!valid || unit >= net_.hidden) return;
                     const Step step = steps[column];
                     const float* products = states_.recurrent_at(net_, layer, step.parent);
                     const float4 past = *reinterpret_cast<const float4*>(products + output);
                     const Cell next = lstm(gates.x + past.x, gates.y + past.y, gates.z + past.z, gates.w + past.w,
                                            states_.cell_at(net_, layer, step.parent)[unit]);
                     leave(layer, first + column, unit, next.hidden);
                     states_.hidden_at(net_, layer, step.slot)[unit] = next.hidden;
                     states_.cell_at(net_, layer, step.slot)[unit] = next.cell;
                   });
  }

  __device__ void project(const Step* steps, int columns) {
    multiply_share(share(kPrediction), net_.prediction, columns,
                   [&](int, int output, int column, bool valid, const float4& four) {
                     if (!valid) return;
                     const float values[4] = {four.x, four.y, four.z, four.w};
                     float* prediction = states_.prediction_at(net_, steps[column].slot);
#pragma unroll
                     for (int i = 0; i < 4; ++i) {
                       // The words are read four at a time, so there are some past the end.
                       if (tagged_ && output < net_.joint) leave(net_.layers, column, output + i, values[i]);
                       if (output + i < net_.joint) prediction[output + i] = values[i];
                     }
                   });
  }

  __device__ void recurrent(int layer, const Step* steps, int columns) {
    multiply_share(share(kRecurrent + layer), net_.recurrent[layer], columns,
                   [&](int, int output, int column, bool valid, const float4& four) {
                     if (!valid || output >= net_.hidden * 4) return;
                     float* products = states_.recurrent_at(net_, layer, steps[column].slot);
                     *reinterpret_cast<float4*>(products + output) = four;
                   });
  }

  const Network& net_;
  const States& states_;
  float* scratch_;
  Share* shares_;
  JointInput* inputs_;
  Weight::Input* x_;
  const Step* steps_ = nullptr;  // of the last call of `predict`
  int tagged_ = 0;               // how many of them left their numbers in tagged words
  unsigned tag_ = 0;
};

}  // namespace tdt::cuda
