// Packed matrices, and how a block multiplies its share of a matrix with columns.
//
// A matrix is cut into tiles of 16 outputs, which are dealt out over the blocks in turn. Input columns are staged in
// shared memory, in the weights' type. Sums are float32. Their order depends only on the matrix, so a column's result
// does not depend on the other columns.
#pragma once

#include "reduce.cuh"

namespace tdt::cuda {

constexpr int kTile = 16;   // outputs
constexpr int kDepth = 16;  // inputs of one step through a tile
constexpr int kGroup = 8;   // columns multiplied together
constexpr int kBatch = 4;   // tiles whose sums are held at once
constexpr int kSplits = 8;  // pieces that a tile's inputs are cut into, for as many warps
constexpr int kSums = kTile * kGroup;

// Bytes of shared memory for sums.
constexpr int kScratchBytes = kBatch * kSplits * kSums * 4;

struct Matrix {
  const uint4* tiles;  // [tiles, steps, Weight::kWords, lanes]
  const float* bias;   // [16 tiles]
  int count;           // of tiles
  int inputs;
  int owner;           // the block that has the first tile

  __device__ int steps() const { return (inputs + kDepth - 1) / kDepth; }
};

// float32 inputs and weights, multiplied without the tensor cores. A lane holds the weights of 4 inputs and 2 outputs.
struct Float32 {
  using Input = float;
  static constexpr int kWords = 2, kPadding = 4;
  __device__ static Input input(float x) { return x; }

  __device__ static void multiply(const uint4* weights, const Input* x, int stride, int columns, int steps,
                                  float* sums) {
    const int lane = lane_index(), four = lane % 4 * 4;
    float own[2][kGroup] = {};
    for (int step = 0; step < steps; ++step, weights += kWords * kWarp) {
      const uint4 a = weights[lane], b = weights[kWarp + lane];
      const float* at = x + step * kDepth + four;
#pragma unroll
      for (int column = 0; column < kGroup; ++column) {
        if (column >= columns) break;
        const float4 values = *reinterpret_cast<const float4*>(at + column * stride);
        own[0][column] = fmaf(float_of(a.x), values.x, own[0][column]);
        own[0][column] = fmaf(float_of(a.y), values.y, own[0][column]);
        own[0][column] = fmaf(float_of(a.z), values.z, own[0][column]);
        own[0][column] = fmaf(float_of(a.w), values.w, own[0][column]);
        own[1][column] = fmaf(float_of(b.x), values.x, own[1][column]);
        own[1][column] = fmaf(float_of(b.y), values.y, own[1][column]);
        own[1][column] = fmaf(float_of(b.z), values.z, own[1][column]);
        own[1][column] = fmaf(float_of(b.w), values.w, own[1][column]);
      }
    }
#pragma unroll
    for (int column = 0; column < kGroup; ++column) {
      if (column >= columns) break;
      for (int half = 0; half < 2; ++half) {
        float sum = own[half][column];
        sum += shuffle_xor(sum, 1);
        sum += shuffle_xor(sum, 2);
        if (four == 0) sums[column * kTile + half * 8 + lane / 4] = sum;
      }
    }
  }
};

// 16-bit inputs and weights on the tensor cores, which multiply eight columns in the time of one.
template <void (*Multiply)(float (&)[4], const uint4&, unsigned, unsigned)>
struct SixteenBits {
  using Input = unsigned short;
  static constexpr int kWords = 1, kPadding = 8;

  __device__ static void multiply(const uint4* weights, const Input* x, int stride, int, int steps, float* sums) {
    const int lane = lane_index(), column = lane / 4;
    // Two chains of sums, so that the latency of one hides behind the other.
    float even[4] = {}, odd[4] = {};
    const Input* at = x + column * stride + lane % 4 * 2;
    const auto pair = [](const Input* two) { return *reinterpret_cast<const unsigned*>(two); };
    int step = 0;
    for (; step + 1 < steps; step += 2, weights += 2 * kWarp, at += 2 * kDepth) {
      const uint4 a = weights[lane], b = weights[kWarp + lane];
      Multiply(even, a, pair(at), pair(at + 8));
      Multiply(odd, b, pair(at + kDepth), pair(at + kDepth + 8));
    }
    if (step < steps) Multiply(even, weights[lane], pair(at), pair(at + 8));
    for (int i = 0; i < 4; ++i)
      sums[(lane % 4 * 2 + i % 2) * kTile + i / 2 * 8 + lane / 4] = even[i] + odd[i];
  }
};

struct Float16 : SixteenBits<multiply_halves> {
  // Numbers out of range become the largest number. NaN stays NaN.
  __device__ static Input input(float x) {
    return half_bits(x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x);
  }
};

struct Bfloat16 : SixteenBits<multiply_bfloats> {
  __device__ static Input input(float x) {
    const unsigned bits = bits_of(x);
    if (!(x == x)) return 0x7fff;
    return static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
  }
};

#if !defined(TDT_WEIGHT)
#define TDT_WEIGHT Float32
#endif
using Weight = TDT_WEIGHT;

// Elements from one staged column to the next, if a column has so many inputs.
__device__ __forceinline__ int column_stride(int inputs) {
  return (inputs + kDepth - 1) / kDepth * kDepth + Weight::kPadding;
}

// All threads of the block copy an object together. `copied` also waits until all are done.
template <class T>
__device__ inline void copy_words(T* to, const T* from) {
  static_assert(sizeof(T) % 4 == 0);
  for (unsigned i = threadIdx.x; i < sizeof(T) / 4; i += blockDim.x)
    reinterpret_cast<unsigned*>(to)[i] = reinterpret_cast<const unsigned*>(from)[i];
}

template <class T>
__device__ inline T& copied(T* to, const T* from) {
  copy_words(to, from);
  sync_block();
  return *to;
}

// Hands out memory piece by piece, without reading or writing it.
class Arena {
 public:
  __device__ explicit Arena(unsigned char* memory) : first_(memory), next_(memory) {}
  template <class T>
  __device__ T* take(int count) {
    T* taken = reinterpret_cast<T*>(next_);
    next_ += (count * sizeof(T) + 15) / 16 * 16;
    return taken;
  }
  __device__ int used() const { return static_cast<int>(next_ - first_); }

 private:
  unsigned char *first_, *next_;
};

// A block's tiles of a matrix. The first `resident_count` lie in shared memory, the others with the matrix in global
// memory.
struct Share {
  const Matrix* matrix;
  const uint4* resident;
  int first, every;  // it has the tiles first, first + every, ...
  int count, resident_count;

  __device__ int words() const { return matrix->steps() * Weight::kWords * kWarp; }
  __device__ int tile(int i) const { return first + i * every; }
  __device__ const uint4* at(int i) const {
    if (i < resident_count) return resident + static_cast<long long>(i) * words();
    return matrix->tiles + static_cast<long long>(tile(i)) * words();
  }
};

// The share that has the tiles first, first + every, ...
__device__ __forceinline__ Share share_of(const Matrix* matrix, int first, int every) {
  Share share = {matrix, nullptr, first, every, 0, 0};
  if (first < matrix->count) share.count = (matrix->count - first + every - 1) / every;
  return share;
}

// Copies as many tiles of a share as fit into `left` bytes to shared memory, where they stay, and reduces `left`.
__device__ inline void keep(Share* share, Arena* arena, int* left) {
  const int bytes = share->words() * static_cast<int>(sizeof(uint4));
  const int count = bytes ? *left / bytes : 0;
  share->resident_count = count < share->count ? count : share->count;
  uint4* memory = arena->take<uint4>(share->resident_count * share->words());
  share->resident = memory;
  for (int i = 0; i < share->resident_count; ++i) {
    const uint4* tile = share->matrix->tiles + static_cast<long long>(share->tile(i)) * share->words();
    for (int word = static_cast<int>(threadIdx.x); word < share->words(); word += static_cast<int>(blockDim.x))
      memory[static_cast<long long>(i) * share->words() + word] = tile[word];
  }
  *left -= share->resident_count * bytes;
}

// Four neighbouring values of a row. Values past its end are zero.
__device__ __forceinline__ float4 load_four(const float* row, int i, int size) {
  if (size % 4 == 0 && i < size) return *reinterpret_cast<const float4*>(row + i);
  float4 four = {0.0f, 0.0f, 0.0f, 0.0f};
  if (i < size) four.x = row[i];
  if (i + 1 < size) four.y = row[i + 1];
  if (i + 2 < size) four.z = row[i + 2];
  if (i + 3 < size) four.w = row[i + 3];
  return four;
}

// Stages columns of `inputs` values each. `load(column, i)` fetches the numbers that the values i .. i + 3 are made
// from, and `make` makes the four values. Values past the end are zero. A thread starts all its fetches before it uses
// the first.
template <class Load, class Make>
__device__ __forceinline__ void stage(Weight::Input* x, int columns, int inputs, Load load, Make make) {
  constexpr int kAhead = 4;
  const int stride = column_stride(inputs), fours = (stride - Weight::kPadding) / 4;
  const int total = columns * fours, threads = static_cast<int>(blockDim.x);
  for (int first = static_cast<int>(threadIdx.x); first < total; first += kAhead * threads) {
    decltype(load(0, 0)) fetched[kAhead] = {};
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int at = first + i * threads;
      if (at < total) fetched[i] = load(at / fours, at % fours * 4);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int at = first + i * threads, from = at % fours * 4;
      if (at >= total) break;
      const float4 made = make(fetched[i]);
      Weight::Input* to = x + at / fours * stride + from;
      to[0] = Weight::input(from < inputs ? made.x : 0.0f);
      to[1] = Weight::input(from + 1 < inputs ? made.y : 0.0f);
      to[2] = Weight::input(from + 2 < inputs ? made.z : 0.0f);
      to[3] = Weight::input(from + 3 < inputs ? made.w : 0.0f);
    }
  }
}

// Multiplies a share with staged columns, for kBatch tiles and kGroup columns at a time. `use(tile, output, column,
// valid, value)` is called with each product, its bias included. A warp calls it with 16 neighbouring outputs of two
// columns; `valid` is false if there is no such column. After each batch of tiles all threads call `batch(group, tiles,
// is_first)`. Synchronises the block at the beginning and at the end.
template <class Use, class Batch>
__device__ __forceinline__ void multiply(const Share& share, const Weight::Input* x, float* scratch, int columns,
                                         Use use, Batch batch) {
  const int stride = column_stride(share.matrix->inputs), steps = share.matrix->steps();
  const int each = (steps + kSplits - 1) / kSplits, splits = steps ? (steps + each - 1) / each : 0;
  sync_block();
  for (int group = 0; group < columns; group += kGroup) {
    const int together = columns - group < kGroup ? columns - group : kGroup;
    for (int first = 0; first < share.count; first += kBatch) {
      const int tiles = share.count - first < kBatch ? share.count - first : kBatch;
      for (int task = warp_index(); task < tiles * splits; task += warp_count()) {
        const int from = task % splits * each, until = from + each < steps ? from + each : steps;
        Weight::multiply(share.at(first + task / splits) + from * Weight::kWords * kWarp,
                         x + group * stride + from * kDepth, stride, together, until - from, scratch + task * kSums);
      }
      sync_block();
      for (int i = static_cast<int>(threadIdx.x); i < tiles * kSums; i += static_cast<int>(blockDim.x)) {
        const int tile = i / kSums, column = i % kSums / kTile;
        const int output = share.tile(first + tile) * kTile + i % kTile;
        float value = share.matrix->bias[output];
        for (int split = 0; split < splits; ++split) value += scratch[(tile * splits + split) * kSums + i % kSums];
        use(tile, output, group + column, column < together, value);
      }
      batch(group, tiles, first == 0);
      sync_block();
    }
  }
}

struct NoBatch {
  __device__ void operator()(int, int, bool) const {}
};

}  // namespace tdt::cuda
