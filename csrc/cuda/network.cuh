// A transducer's predictor and joint, computed by the whole grid in phases. A phase reads what earlier phases have left
// in global memory. Between two phases there is a barrier over the grid, or the end of a launch.
#pragma once

#include "grid.cuh"
#include "requests.cuh"
#include "weights.cuh"

namespace tdt::cuda {

constexpr int kMaxLayers = 8;

enum class Activation : int { relu = 0, tanh = 1, sigmoid = 2 };

// The gates of a layer are ordered by unit: i, o, f, c of the first unit, then of the second.
struct Network {
  RowLayout layout;
  Activation activation;
  int layers;
  int hidden;          // H, padded to whole tiles of gates
  int joint;           // J
  const float* table;  // [V + 1, 4 H] the first layer's gates for each token, without the recurrent product;
                       // if there are no layers, [V + 1, J] the prediction for each token
  Matrix recurrent[kMaxLayers];
  Matrix input[kMaxLayers];  // from the layer below; the first layer has none
  Matrix prediction;
  Matrix output;
  Matrix encoder;
  int staged;          // columns that are staged at once, a multiple of kGroup
  int resident_bytes;  // bytes of shared memory for weights
};

// Predictor states by slot: layers' outputs and cells [L, slots, H], recurrent products [L, slots, 4 H], and
// predictions [slots, J], which the joint takes.
struct States {
  int slots;
  float *hidden, *cell, *recurrent, *prediction;

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

struct Cell {
  float hidden, cell;
};
__device__ __forceinline__ Cell lstm(float i, float o, float f, float c, float cell) {
  Cell next;
  next.cell = sigmoid(f) * cell + sigmoid(i) * tanhf(c);
  next.hidden = sigmoid(o) * tanhf(next.cell);
  return next;
}

// For launches of a single phase, which need no barrier.
struct NoBarrier {
  __device__ void arrive() {}
  __device__ void wait() {}
  __device__ void sync() {}
};

// A block's part in the network: its shares of the matrices and its shared memory.
class Worker {
 public:
  // The shared memory that it needs beside weights.
  struct Room {
    float* scratch;
    Share* shares;
    Weight::Input* x;
  };
  __device__ static Room reserve(const Network& net, Arena* arena) {
    const int widest = net.layers && net.hidden > net.joint ? net.hidden : net.joint;
    return {arena->take<float>(kScratchBytes / 4), arena->take<Share>(kShares),
            arena->take<Weight::Input>(column_stride(widest) * net.staged)};
  }

  // If `keeping`, copies weights to the rest of shared memory, up to `resident_bytes` of the network.
  __device__ Worker(const Network& net, const States& states, const Room& room, Arena* arena, bool keeping)
      : net_(net), states_(states), scratch_(room.scratch), shares_(room.shares), x_(room.x) {
    int left = keeping ? net.resident_bytes : 0;
    // In the order in which a token waits for them, since there may be no room for the last ones.
    take(kOutput, &net.output, arena, &left);
    for (int layer = 1; layer < net.layers; ++layer) take(kInput + layer, &net.input[layer], arena, &left);
    if (net.layers) take(kPrediction, &net.prediction, arena, &left);
    for (int layer = 0; layer < net.layers; ++layer) take(kRecurrent + layer, &net.recurrent[layer], arena, &left);
    sync_block();
  }

  // Takes predictor steps: all phases, with barriers between them.
  template <class Barrier>
  __device__ void predict(const Step* steps, int count, Barrier& barrier) {
    // The first layer of a few steps costs less than a barrier, so every block computes all of it.
    const bool alone = net_.layers > 0 && count <= kGroup;
    first_layer(steps, count, alone);
    if (!alone) barrier.sync();
    for (int layer = 1; layer <= net_.layers; ++layer) upper_layer(layer, steps, count, alone && layer == 1, barrier);
  }

  // Computes the first layer or, if there are no layers, the prediction. If `alone`, the block computes all of it and
  // stages the result for the next layer; else the block computes its part.
  __device__ void first_layer(const Step* steps, int count, bool alone) {
    const int width = net_.layers ? net_.hidden : net_.joint;
    const int stride = column_stride(width);
    if (alone) {  // the columns' padding is zero
      const int padding = stride - Weight::kPadding - width;
      for (int i = static_cast<int>(threadIdx.x); i < count * padding; i += static_cast<int>(blockDim.x))
        x_[i / padding * stride + width + i % padding] = Weight::input(0.0f);
    }
    const int thread = static_cast<int>(alone ? threadIdx.x : blockIdx.x * blockDim.x + threadIdx.x);
    const int threads = static_cast<int>(alone ? blockDim.x : gridDim.x * blockDim.x);
    constexpr int kAhead = 2;  // as in `stage`
    for (int first = thread; first < count * width; first += kAhead * threads) {
      float4 own[kAhead] = {}, past[kAhead] = {};
      float cell[kAhead] = {};
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int at = first + i * threads;
        if (at >= count * width) break;
        const Step step = steps[at / width];
        const int unit = at % width;
        if (!net_.layers) {
          own[i].x = net_.table[static_cast<long long>(step.token) * width + unit];
          continue;
        }
        own[i] = *reinterpret_cast<const float4*>(net_.table + (static_cast<long long>(step.token) * width + unit) * 4);
        past[i] = *reinterpret_cast<const float4*>(states_.recurrent_at(net_, 0, step.parent) + unit * 4);
        cell[i] = states_.cell_at(net_, 0, step.parent)[unit];
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int at = first + i * threads;
        if (at >= count * width) break;
        const int slot = steps[at / width].slot, unit = at % width;
        if (!net_.layers) {
          states_.prediction_at(net_, slot)[unit] = own[i].x;
          continue;
        }
        const Cell next =
            lstm(own[i].x + past[i].x, own[i].y + past[i].y, own[i].z + past[i].z, own[i].w + past[i].w, cell[i]);
        if (alone) x_[at / width * stride + unit] = Weight::input(next.hidden);
        if (alone && blockIdx.x != 0) continue;
        states_.hidden_at(net_, 0, slot)[unit] = next.hidden;
        states_.cell_at(net_, 0, slot)[unit] = next.cell;
      }
    }
  }

  // Computes layer `layer` or, after the last layer, the prediction. Around the barrier it also computes the recurrent
  // product of the layer below, which is not needed before the next token.
  template <class Barrier>
  __device__ void upper_layer(int layer, const Step* steps, int count, bool staged, Barrier& barrier) {
    int first = 0, columns = 0;
    for (; first < count; first += columns) {
      columns = count - first < net_.staged ? count - first : net_.staged;
      if (!staged) stage_hidden(layer - 1, steps + first, columns);
      if (layer < net_.layers)
        gates(layer, steps + first, columns);
      else
        project(steps + first, columns);
      if (first + columns < count) recurrent(layer - 1, steps + first, columns);
    }
    barrier.arrive();
    if (count) recurrent(layer - 1, steps + first - columns, columns);
    barrier.wait();
  }

  // Computes the recurrent products of states whose layers' outputs lie at `output(layer, step)`.
  template <class Output>
  __device__ void restore(const Step* steps, int count, Output output) {
    for (int layer = 0; layer < net_.layers; ++layer)
      for (int first = 0; first < count; first += net_.staged) {
        const int columns = count - first < net_.staged ? count - first : net_.staged;
        stage(
            x_, columns, net_.hidden,
            [&](int i, int unit) { return load_four(output(layer, steps[first + i]), unit, net_.hidden); },
            [](const float4& four) { return four; });
        recurrent(layer, steps + first, columns);
      }
  }

  // Computes the joint rows of `column(i)`, i < count. `use` and `batch` are as in `multiply`; columns are numbered
  // through.
  template <class ColumnAt, class Use, class Batch>
  __device__ void joint(const float* projected, int count, ColumnAt column, Use use, Batch batch) {
    for (int first = 0; first < count; first += net_.staged) {
      const int columns = count - first < net_.staged ? count - first : net_.staged;
      stage(
          x_, columns, net_.joint,
          [&](int i, int unit) {
            const Column wanted = column(first + i);
            const float* frame = projected + static_cast<long long>(wanted.frame) * net_.joint;
            return Both{load_four(frame, unit, net_.joint),
                        load_four(states_.prediction_at(net_, wanted.slot), unit, net_.joint)};
          },
          [&](const Both& both) {
            return float4{activated(net_.activation, both.frame.x + both.prediction.x),
                          activated(net_.activation, both.frame.y + both.prediction.y),
                          activated(net_.activation, both.frame.z + both.prediction.z),
                          activated(net_.activation, both.frame.w + both.prediction.w)};
          });
      multiply(
          shares_[kOutput], x_, scratch_, columns,
          [&](int tile, int output, int i, bool valid, float value) { use(tile, output, first + i, valid, value); },
          [&](int group, int tiles, bool is_first) { batch(first + group, tiles, is_first); });
    }
  }
  // Whether this block computes any outputs of joint rows.
  __device__ bool scores() const { return shares_[kOutput].count > 0; }

  static constexpr int kOutput = 0, kPrediction = 1, kInput = 2, kRecurrent = kInput + kMaxLayers;
  static constexpr int kShares = kRecurrent + kMaxLayers;

 private:
  struct Both {
    float4 frame, prediction;
  };

  __device__ void take(int which, const Matrix* matrix, Arena* arena, int* left) {
    const int grid = static_cast<int>(gridDim.x);
    Share share = share_of(matrix, (static_cast<int>(blockIdx.x) + grid - matrix->owner) % grid, grid);
    keep(&share, arena, left);
    if (threadIdx.x == 0) shares_[which] = share;
  }

  __device__ void stage_hidden(int layer, const Step* steps, int columns) {
    stage(
        x_, columns, net_.hidden,
        [&](int i, int unit) { return load_four(states_.hidden_at(net_, layer, steps[i].slot), unit, net_.hidden); },
        [](const float4& four) { return four; });
  }

  __device__ void gates(int layer, const Step* steps, int columns) {
    const Share& share = shares_[kInput + layer];
    const int units = share.count * kTile / 4;
    for (int i = static_cast<int>(threadIdx.x); i < units * columns; i += static_cast<int>(blockDim.x)) {
      const int unit = share.tile(i % units / 4) * 4 + i % 4, parent = steps[i / units].parent;
      if (unit >= net_.hidden) continue;
      prefetch(states_.recurrent_at(net_, layer, parent) + unit * 4);
      prefetch(states_.cell_at(net_, layer, parent) + unit);
    }
    multiply(
        shares_[kInput + layer], x_, scratch_, columns,
        [&](int, int output, int column, bool valid, float value) {
          const int four = lane_index() & ~3;  // a unit's gates are in four neighbouring lanes
          const float i = shuffle(value, four), o = shuffle(value, four + 1);
          const float f = shuffle(value, four + 2), c = shuffle(value, four + 3);
          const int unit = output / 4;
          if (!valid || lane_index() != four || unit >= net_.hidden) return;
          const Step step = steps[column];
          const float* products = states_.recurrent_at(net_, layer, step.parent);
          const float4 past = *reinterpret_cast<const float4*>(products + unit * 4);
          const Cell next =
              lstm(i + past.x, o + past.y, f + past.z, c + past.w, states_.cell_at(net_, layer, step.parent)[unit]);
          states_.hidden_at(net_, layer, step.slot)[unit] = next.hidden;
          states_.cell_at(net_, layer, step.slot)[unit] = next.cell;
        },
        NoBatch{});
  }

  __device__ void project(const Step* steps, int columns) {
    multiply(
        shares_[kPrediction], x_, scratch_, columns,
        [&](int, int output, int column, bool valid, float value) {
          if (valid && output < net_.joint) states_.prediction_at(net_, steps[column].slot)[output] = value;
        },
        NoBatch{});
  }

  __device__ void recurrent(int layer, const Step* steps, int columns) {
    multiply(
        shares_[kRecurrent + layer], x_, scratch_, columns,
        [&](int, int output, int column, bool valid, float value) {
          if (valid && output < net_.hidden * 4) states_.recurrent_at(net_, layer, steps[column].slot)[output] = value;
        },
        NoBatch{});
  }

  const Network& net_;
  const States& states_;
  float* scratch_;
  Share* shares_;
  Weight::Input* x_;
};

}  // namespace tdt::cuda
