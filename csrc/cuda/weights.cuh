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
constexpr int kGroups = 4;  // groups that are multiplied with a tile while its weights are in registers
constexpr int kSplits = 8;  // pieces that a tile's inputs are cut into, for as many warps
constexpr int kSums = kTile * kGroup;

// Where the sum of an output with a column lies among the `kSums` of a tile and a group. With the tensor cores a lane
// has four sums, i < 4, and stores its sum i at 32 i plus its own number, of which some bits are changed. So neither the
// lanes that store sums nor those that read four outputs of a column (`multiply`) want one bank of shared memory twice.
__device__ __forceinline__ int sum_of_lane(int i, int lane) { return i * kWarp + (lane ^ i % 2 * 24 ^ i / 2 * 4); }
__device__ __forceinline__ int sum_at(int output, int column) {
  return sum_of_lane(output / 8 * 2 + column % 2, output % 8 * 4 + column / 2);
}

// How many products of a tile with a group are held at once, where `staged` columns are staged at once.
__device__ __forceinline__ int held_products(int staged) { return staged >= kGroup * kGroups ? 2 * kGroups : kGroups; }
// Numbers of shared memory for their sums.
__device__ __forceinline__ int scratch_size(int staged) { return held_products(staged) * kSplits * kSums; }

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
  __device__ static float value(Input x) { return x; }
  __device__ static void store(Input* to, const float4& four) { *reinterpret_cast<float4*>(to) = four; }
  // The same, but zero instead of negative numbers.
  __device__ static void store_positive(Input* to, const float4& four) {
    const auto positive = [](float x) { return x < 0.0f ? 0.0f : x; };  // NaN stays NaN
    store(to, float4{positive(four.x), positive(four.y), positive(four.z), positive(four.w)});
  }

  // Multiplies some steps of a tile with groups of columns. `columns`: how many there are. Writes the sums of one group
  // after the other.
  __device__ static void multiply(const uint4* weights, const Input* x, int stride, int columns, int steps,
                                  float* sums) {
#pragma unroll 1
    for (int group = 0; group * kGroup < columns; ++group)
      multiply_group(weights, x + group * kGroup * stride, stride, columns - group * kGroup, steps,
                     sums + group * kSplits * kSums);
  }

 private:
  __device__ static void multiply_group(const uint4* weights, const Input* x, int stride, int columns, int steps,
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
        if (four == 0) sums[sum_at(half * 8 + lane / 4, column)] = sum;
      }
    }
  }
};

// 16-bit inputs and weights on the tensor cores, which multiply eight columns in the time of one.
template <void (*Multiply)(float (&)[4], const uint4&, unsigned, unsigned)>
struct SixteenBits {
  using Input = unsigned short;
  static constexpr int kWords = 1, kPadding = 8;

  __device__ static void multiply(const uint4* weights, const Input* x, int stride, int columns, int steps,
                                  float* sums) {
    if (columns > 2 * kGroup) {
      multiply_groups<kGroups>(weights, x, stride, steps, sums);
      return;
    }
#pragma unroll 1
    for (int group = 0; group * kGroup < columns; ++group)
      multiply_groups<1>(weights, x + group * kGroup * stride, stride, steps, sums + group * kSplits * kSums);
  }

 private:
  template <int kCount>
  __device__ static void multiply_groups(const uint4* weights, const Input* x, int stride, int steps, float* sums) {
    const int lane = lane_index(), column = lane / 4;
    // Two chains of sums, so that the latency of one hides behind the other.
    float even[kCount][4] = {}, odd[kCount][4] = {};
    const Input* at = x + column * stride + lane % 4 * 2;
    const auto pair = [](const Input* two) { return *reinterpret_cast<const unsigned*>(two); };
    int step = 0;
    for (; step + 1 < steps; step += 2, weights += 2 * kWarp, at += 2 * kDepth) {
      const uint4 a = weights[lane], b = weights[kWarp + lane];
#pragma unroll
      for (int group = 0; group < kCount; ++group) {
        const Input* own = at + group * kGroup * stride;
        Multiply(even[group], a, pair(own), pair(own + 8));
        Multiply(odd[group], b, pair(own + kDepth), pair(own + kDepth + 8));
      }
    }
    if (step < steps) {
      const uint4 a = weights[lane];
#pragma unroll
      for (int group = 0; group < kCount; ++group) {
        const Input* own = at + group * kGroup * stride;
        Multiply(even[group], a, pair(own), pair(own + 8));
      }
    }
#pragma unroll
    for (int group = 0; group < kCount; ++group)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        sums[group * kSplits * kSums + sum_of_lane(i, lane)] = even[group][i] + odd[group][i];
  }
};

__device__ __forceinline__ void store_words(unsigned short* to, unsigned low, unsigned high) {
  *reinterpret_cast<unsigned long long*>(to) = static_cast<unsigned long long>(high) << 32 | low;
}

struct Float16 : SixteenBits<multiply_halves> {
  __device__ static Input input(float x) { return static_cast<Input>(finite_halves(x, 0.0f)); }
  __device__ static float value(Input x) { return half_value(x); }
  __device__ static void store(Input* to, const float4& four) {
    store_words(to, finite_halves(four.x, four.y), finite_halves(four.z, four.w));
  }
  __device__ static void store_positive(Input* to, const float4& four) {
    store_words(to, positive_halves(four.x, four.y), positive_halves(four.z, four.w));
  }
};

struct Bfloat16 : SixteenBits<multiply_bfloats> {
  __device__ static Input input(float x) {
    const unsigned bits = bits_of(x);
    if (!(x == x)) return 0x7fff;
    return static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
  }
  __device__ static float value(Input x) { return float_of(static_cast<unsigned>(x) << 16); }
  __device__ static void store(Input* to, const float4& four) {
    const auto pair = [](float low, float high) { return input(low) | static_cast<unsigned>(input(high)) << 16; };
    store_words(to, pair(four.x, four.y), pair(four.z, four.w));
  }
  __device__ static void store_positive(Input* to, const float4& four) {
    const auto positive = [](float x) { return x < 0.0f ? 0.0f : x; };
    store(to, float4{positive(four.x), positive(four.y), positive(four.z), positive(four.w)});
  }
};

#if !defined(TDT_WEIGHT)
#define TDT_WEIGHT Float32
#endif
using Weight = TDT_WEIGHT;

// Four neighbouring inputs, loaded together.
struct alignas(4 * sizeof(Weight::Input)) FourInputs {
  Weight::Input x, y, z, w;
};
__device__ __forceinline__ float4 four_values(const Weight::Input* from) {
  const FourInputs four = *reinterpret_cast<const FourInputs*>(from);
  return float4{Weight::value(four.x), Weight::value(four.y), Weight::value(four.z), Weight::value(four.w)};
}

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

// Where in shared memory something lies, in bytes.
__device__ __forceinline__ int shared_place(const void* inside) {
  return static_cast<int>(static_cast<const unsigned char*>(inside) - shared_memory());
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

// A block's tiles of a matrix: `first` and others at equal distances. The first `resident_count` lie in shared memory,
// each with its biases behind it, and the others with the matrix in global memory.
struct alignas(16) Share {
  int first, count;
  int resident;  // where in shared memory they begin, in uint4
  int resident_count;
};

// Of a tile, in uint4.
__device__ __forceinline__ int weight_words(const Matrix& matrix) { return matrix.steps() * Weight::kWords * kWarp; }
__device__ __forceinline__ int resident_words(const Matrix& matrix) { return weight_words(matrix) + kTile / 4; }

// The share that has the tiles first, first + every, ...
__device__ __forceinline__ Share share_of(const Matrix& matrix, int first, int every) {
  const int count = first < matrix.count ? (matrix.count - first + every - 1) / every : 0;
  return {first, count, 0, 0};
}

// This block's share of a matrix, if the tiles are dealt out to the whole grid. Copies as many of its tiles as fit into
// `left` bytes to shared memory, where they stay, and reduces `left`.
__device__ TDT_OUTLINED Share kept_share(const Matrix& matrix, Arena* arena, int* left) {
  const int grid = static_cast<int>(gridDim.x);
  Share share = share_of(matrix, (static_cast<int>(blockIdx.x) + grid - matrix.owner) % grid, grid);
  const int words = weight_words(matrix), each = resident_words(matrix);
  const int bytes = each * static_cast<int>(sizeof(uint4)), fitting = *left / bytes;
  share.resident_count = fitting < share.count ? fitting : share.count;
  uint4* memory = arena->take<uint4>(share.resident_count * each);
  share.resident = shared_place(memory) / static_cast<int>(sizeof(uint4));
#pragma unroll 1
  for (int i = 0; i < share.resident_count; ++i) {
    const int tile = share.first + i * grid;
    const uint4* weights = matrix.tiles + static_cast<long long>(tile) * words;
    const uint4* biases = reinterpret_cast<const uint4*>(matrix.bias + tile * kTile);
    for (int word = static_cast<int>(threadIdx.x); word < each; word += static_cast<int>(blockDim.x))
      memory[i * each + word] = word < words ? weights[word] : biases[word - words];
  }
  *left -= share.resident_count * bytes;
  return share;
}

// Four neighbouring values of a row. Values past its end are zero.
__device__ TDT_OUTLINED float4 load_some(const float* row, int i, int size) {
  float4 four = {0.0f, 0.0f, 0.0f, 0.0f};
  if (i < size) four.x = row[i];
  if (i + 1 < size) four.y = row[i + 1];
  if (i + 2 < size) four.z = row[i + 2];
  if (i + 3 < size) four.w = row[i + 3];
  return four;
}
__device__ __forceinline__ float4 load_four(const float* row, int i, int size) {
  if (size % 4 == 0 && i < size) return *reinterpret_cast<const float4*>(row + i);
  return load_some(row, i, size);  // seldom: rows of such lengths are not aligned
}

// Stores the numbers i .. i + 3 of a column. Those past its end become zero.
__device__ TDT_OUTLINED void store_some(Weight::Input* column, int i, float4 four, int inputs) {
  if (i >= inputs) four.x = 0.0f;
  if (i + 1 >= inputs) four.y = 0.0f;
  if (i + 2 >= inputs) four.z = 0.0f;
  four.w = 0.0f;
  Weight::store(column + i, four);
}
__device__ __forceinline__ void store_four(Weight::Input* column, int i, const float4& four, int inputs) {
  if (i + 4 <= inputs)
    Weight::store(column + i, four);
  else
    store_some(column, i, four, inputs);
}

// Stages columns of `inputs` values each, a column by one warp or several. `source_of_column(column)` is where a column
// comes from, and has two functions: `load(i)` fetches what the values i .. i + 3 are made from, and `make(fetched, i)`
// makes them. Values past the end are zero. A lane starts several fetches before it uses the first.
template <class SourceOf>
__device__ __forceinline__ void stage(Weight::Input* x, int columns, int inputs, SourceOf source_of_column) {
  constexpr int kAhead = 2;
  const int stride = column_stride(inputs), end = stride - Weight::kPadding;
  int log = 0;  // of the number of warps that share a column
  while (columns << (log + 1) <= warp_count()) ++log;
  const int part = warp_index() & ((1 << log) - 1), step = 4 * kWarp << log, together = warp_count() >> log;
  if (warp_index() >= together << log) return;
  for (int column = warp_index() >> log; column < columns; column += together) {
    Weight::Input* to = x + column * stride;
    const auto source = source_of_column(column);
    for (int first = 4 * (part * kWarp + lane_index()); first < end; first += kAhead * step) {
      decltype(source.load(0)) fetched[kAhead] = {};
#pragma unroll
      for (int i = 0; i < kAhead; ++i)
        if (first + i * step < inputs) fetched[i] = source.load(first + i * step);
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int from = first + i * step;
        if (from >= end) break;
        float4 made = {0.0f, 0.0f, 0.0f, 0.0f};
        if (from < inputs) made = source.make(fetched[i], from);
        store_four(to, from, made, inputs);
      }
    }
  }
}

// Stages columns that lie in global memory as they are staged.
__device__ TDT_OUTLINED void stage_made(Weight::Input* x, const Weight::Input* made, int columns, int inputs) {
  constexpr int kAhead = 4;
  const int words = columns * column_stride(inputs) * static_cast<int>(sizeof(Weight::Input)) / 16;
  const int threads = static_cast<int>(blockDim.x);
  const uint4* from = reinterpret_cast<const uint4*>(made);
  uint4* to = reinterpret_cast<uint4*>(x);
  for (int first = static_cast<int>(threadIdx.x); first < words; first += kAhead * threads) {
    uint4 fetched[kAhead] = {};
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (first + i * threads < words) fetched[i] = from[first + i * threads];
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (first + i * threads < words) to[first + i * threads] = fetched[i];
  }
}

// Multiplies `tiles` tiles with 1 << groups_log groups of staged columns. The first tile lies at `weights`, and the
// others follow, each `every` tiles further. The first `resident_count` are taken from shared memory, where they begin
// at `resident`. The sums are [tiles, groups, kSplits, kSums]. All products call this, since one copy of it keeps the
// kernels short. `x_at` and `sums_at` are places in shared memory, in bytes, since the compiler does not know of a
// pointer that it points there.
__device__ TDT_OUTLINED void multiply_tiles(const uint4* weights, int every, int resident, int resident_count,
                                            int steps, int x_at, int stride, int sums_at, int tiles, int columns,
                                            int groups_log) {
  const int each = (steps + kSplits - 1) / kSplits, words = steps * Weight::kWords * kWarp;
  for (int task = warp_index(); task < tiles * kSplits; task += warp_count()) {
    const int tile = task / kSplits, split = task % kSplits, from = split * each;
    if (from >= steps) continue;
    const uint4* own = tile < resident_count
                           ? reinterpret_cast<const uint4*>(shared_memory()) + resident + tile * (words + kTile / 4)
                           : weights + static_cast<long long>(tile * every) * words;
    Weight::multiply(own + from * Weight::kWords * kWarp,
                     reinterpret_cast<const Weight::Input*>(shared_memory() + x_at) + from * kDepth, stride, columns,
                     from + each < steps ? each : steps - from,
                     reinterpret_cast<float*>(shared_memory() + sums_at) +
                         ((tile << groups_log) * kSplits + split) * kSums);
  }
}

// Products of a column with the outputs first, first + every, ... of a tile: the biases, and the sums of the pieces.
__device__ TDT_OUTLINED float4 four_products(const float* biases, const float* sums, int first, int every, int column,
                                             int pieces) {
  float values[4];
  const float* own[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[i] = biases[first + i * every];
    own[i] = sums + sum_at(first + i * every, column);
  }
#pragma unroll 4
  for (int piece = 0; piece < pieces; ++piece)
#pragma unroll
    for (int i = 0; i < 4; ++i) values[i] += own[i][piece * kSums];
  return float4{values[0], values[1], values[2], values[3]};
}

// Multiplies a share, whose tiles are `every` apart, with staged columns, at most kGroup kGroups. It calls
// `use(place, output, column, valid, four)` with four products, their biases included: those of `column` with
// the outputs `output`, output + kStride, and so on. A warp calls it with 16 neighbouring outputs of eight columns; a
// column's are in four neighbouring lanes. `valid` is false if there is no such column. After each batch of tiles all
// threads call `batch(tiles, each, is_first)`. Within a batch, the products of tile i with column c have the place
// i each + c. Synchronises the block before it reads the columns, and again when it will not read them any more.
template <int kStride, class Use, class Batch>
__device__ __forceinline__ void multiply(const Matrix& matrix, int every, const Share& share, const Weight::Input* x,
                                         float* scratch, int held, int columns, Use use, Batch batch) {
  static_assert(kStride == 1 || kStride == 4);
  if (share.count == 0) return;
  const int steps = matrix.steps(), each = (steps + kSplits - 1) / kSplits, words = weight_words(matrix);
  const int groups_log = columns <= kGroup ? 0 : columns <= 2 * kGroup ? 1 : 2;
  const int together = held >> groups_log, lane = lane_index();
  sync_block();
  for (int first = 0; first < share.count; first += together) {
    if (first > 0) sync_block();  // the sums before have been read
    const int tiles = share.count - first < together ? share.count - first : together;
    multiply_tiles(matrix.tiles + static_cast<long long>(share.first + first * every) * words, every,
                   share.resident + first * resident_words(matrix), share.resident_count - first, steps, shared_place(x),
                   column_stride(matrix.inputs), shared_place(scratch), tiles, columns, groups_log);
    sync_block();
    for (int product = warp_index(); product < tiles << groups_log; product += warp_count()) {
      const int tile = product >> groups_log, place = product * kGroup + lane / 4;
      const int column = place - (tile << groups_log) * kGroup, within = lane % 4 * (4 / kStride);
      const int at = first + tile, number = share.first + at * every;
      const float* biases = matrix.bias + number * kTile;
      if (at < share.resident_count)
        biases = reinterpret_cast<const float*>(shared_memory()) +
                 4 * (share.resident + at * resident_words(matrix) + words);
      const float4 four = four_products(biases, scratch + product * kSplits * kSums, within, kStride, lane / 4,
                                        (steps + each - 1) / each);
      use(place, number * kTile + within, column, column < columns, four);
    }
    batch(tiles, kGroup << groups_log, first == 0);
  }
}

struct NoBatch {
  __device__ void operator()(int, int, bool) const {}
};

}  // namespace tdt::cuda
