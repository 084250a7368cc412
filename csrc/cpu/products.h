// Products of packed matrices with a few rows.
//
// Each output has one lane and one accumulator, which adds the inputs in order. So the bits of a sum depend neither on
// the number of rows nor on how the work is divided. Integer sums are exact.
#pragma once

#include <type_traits>

#include "float_sums.h"
#include "integer_sums.h"
#include "lanes.h"
#include "matrix.h"
#include "staging.h"
#if defined(TDT_TILES)
#include "tiles.h"
#endif

namespace tdt::cpu::TDT_ISA {

constexpr int kPanelVectors = kPanel / kWidth;
constexpr int kRowsAtOnce = 6;

// How many vectors of a panel are accumulated at once for `rows` rows, if the sums of one vector and row take
// `registers`.
constexpr int tile_vectors(int rows, int registers) {
#if TDT_BITS == 512 || defined(TDT_NEON)
  constexpr int kRoom = 24;  // of 32 registers
#else
  constexpr int kRoom = 12;  // of 16 registers
#endif
  int vectors = kPanelVectors;
  while (vectors > 1 && (vectors * rows * registers > kRoom || vectors > 8)) vectors /= 2;
  return vectors;
}

// A part of a panel, small enough to stay in the first cache while all rows are multiplied with it. Meanwhile the part
// that follows in memory is prefetched, so that reading and arithmetic overlap.
struct Block {
  const Matrix& matrix;
  const char* weights;
  int first_output;
  int first_group, last_group;
  bool has_next;

  bool resumes() const { return first_group > 0; }
  bool finishes() const { return last_group == matrix.groups(); }
};

constexpr int kBlockBytes = 8192;

template <Format F>
constexpr int kGroupBytes = static_cast<int>(weight_bytes(F)) * group_of(F) * kPanel;  // of all outputs of a panel

inline void prefetch(const char* memory, int bytes) {
#if defined(__GNUC__)
  for (int line = 0; line < bytes; line += kAlignment) __builtin_prefetch(memory + line);
#endif
}

// Multiplies some vectors of a block, from `vector` on, with some rows. `share` of `shares` of what these vectors take
// of the next block is prefetched.
template <Format F, int ROWS, int VECTORS>
inline void multiply_tile(const Block& block, int vector, const StagedRow* rows, float* const* outs, int share,
                          int shares) {
  using S = Sums<F>;
  constexpr int kVectorBytes = kGroupBytes<F> / kPanelVectors, kStepBytes = VECTORS * kVectorBytes;
  const int groups = block.last_group - block.first_group;
  const int first = block.first_output + vector * kWidth;
  typename S::Sum sums[ROWS][VECTORS];
  const void* x[ROWS];
  for (int r = 0; r < ROWS; ++r) {
    x[r] = rows[r].values;
    for (int v = 0; v < VECTORS; ++v)
      sums[r][v] = block.resumes() ? S::resume(outs[r] + first + v * kWidth) : S::begin(block.matrix, first + v * kWidth);
  }
  const char* weights = block.weights + vector * kVectorBytes;
  const auto step = [&](int group) {
    typename S::Weights w[VECTORS];
    for (int v = 0; v < VECTORS; ++v) w[v] = S::weights(weights + v * kVectorBytes);
    weights += kGroupBytes<F>;
    for (int r = 0; r < ROWS; ++r) {
      const auto values = S::values(x[r], group);
      for (int v = 0; v < VECTORS; ++v) sums[r][v] = S::add(sums[r][v], w[v], values);
    }
  };
  const int ahead = block.has_next ? (groups + shares - 1) / shares : 0;
  const char* next = block.weights + groups * kGroupBytes<F> + (vector / VECTORS * groups + share * ahead) * kStepBytes;
  int group = block.first_group;
  for (; group < block.first_group + ahead; ++group, next += kStepBytes) {
    prefetch(next, kStepBytes);
    step(group);
  }
  for (; group < block.last_group; ++group) step(group);
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < VECTORS; ++v) {
      float* out = outs[r] + first + v * kWidth;
      if (block.finishes()) {
        S::finish(block.matrix, rows[r], first + v * kWidth, out, sums[r][v], block.resumes());
      } else {
        S::pause(out, sums[r][v], block.resumes());
      }
    }
}

template <Format F, int ROWS>
void multiply_rows(const Block& block, const StagedRow* rows, float* const* outs, int share, int shares) {
  constexpr int kVectorsAtOnce = tile_vectors(ROWS, Sums<F>::kRegisters);
  for (int vector = 0; vector < kPanelVectors; vector += kVectorsAtOnce)
    multiply_tile<F, ROWS, kVectorsAtOnce>(block, vector, rows, outs, share, shares);
}

template <Format F>
void multiply_as(const Matrix& matrix, const StagedRow* rows, int count, int first, int last, float* const* outs) {
  using Tile = void (*)(const Block&, const StagedRow*, float* const*, int, int);
  static constexpr Tile kTiles[kRowsAtOnce] = {multiply_rows<F, 1>, multiply_rows<F, 2>, multiply_rows<F, 3>,
                                             multiply_rows<F, 4>, multiply_rows<F, 5>, multiply_rows<F, 6>};
  constexpr int kBlockGroups = kBlockBytes / kGroupBytes<F>;
  const int tiles = (count + kRowsAtOnce - 1) / kRowsAtOnce, groups = matrix.groups();
  for (int panel = first; panel < last; ++panel)
    for (int group = 0; group < groups; group += kBlockGroups) {
      const int end = group + kBlockGroups < groups ? group + kBlockGroups : groups;
      const Block block = {matrix, matrix.panel(panel) + static_cast<std::size_t>(group) * kGroupBytes<F>,
                           panel * kPanel, group, end, panel + 1 < last || end < groups};
      for (int tile = 0; tile < tiles; ++tile) {  // of about equal sizes: a tile of one row uses its reads badly
        const int from = count * tile / tiles, to = count * (tile + 1) / tiles;
        kTiles[to - from - 1](block, rows + from, outs + from, tile, tiles);
      }
    }
}

#if defined(TDT_TILES)
// Multiplies up to 16 rows at once in tile registers, with the sums of a panel's kPanel outputs in four of them. The
// rows must have been staged together, so that they lie one after the other.
template <Format F>
void multiply_in_tiles(const Matrix& matrix, const StagedRow* rows, int count, int first, int last,
                       float* const* outs) {
  const std::size_t row_stride = staged_bytes(matrix), weight_stride = 4 * kPanel;
  const int steps = matrix.groups() / kTileRows;
  int configured = 0;
  for (int panel = first; panel < last; ++panel)
    for (int from = 0; from < count; from += kTileRows) {  // the first rows bring the panel into the cache
      const int n = count - from < kTileRows ? count - from : kTileRows;
      if (n != configured) configure(tile_config(configured = n));
      zero_tile<0>();
      zero_tile<1>();
      zero_tile<2>();
      zero_tile<3>();
      const char* x = static_cast<const char*>(rows[from].values);
      const char* weights = matrix.panel(panel);
      const auto add = [&](auto tile) {
        load_tile<kWeightTile>(weights + kTileBytes * tile.value, weight_stride);
        if constexpr (F == Format::int8) {
          add_byte_products<tile.value>();
        } else {
          add_pair_products<tile.value>();
        }
      };
      for (int step = 0; step < steps; ++step, x += kTileBytes, weights += kTileRows * weight_stride) {
        load_tile<kRowTile>(x, row_stride);
        add(std::integral_constant<int, 0>());
        add(std::integral_constant<int, 1>());
        add(std::integral_constant<int, 2>());
        add(std::integral_constant<int, 3>());
      }
      using Sum = std::conditional_t<F == Format::int8, std::int32_t, float>;
      alignas(kTileBytes) Sum sums[kTileRows][kPanel];
      store_tile<0>(sums[0], sizeof sums[0]);
      store_tile<1>(sums[0] + 16, sizeof sums[0]);
      store_tile<2>(sums[0] + 32, sizeof sums[0]);
      store_tile<3>(sums[0] + 48, sizeof sums[0]);
      for (int r = 0; r < n; ++r)
        for (int j = 0; j < kPanel; j += kWidth) {
          const int output = panel * kPanel + j;
          float* out = outs[from + r] + output;
          if constexpr (F == Format::int8) {
            store(out, scaled(matrix, rows[from + r], output, bits_of<Integers>(load_words(&sums[r][j]))));
          } else {
            store(out, load(&sums[r][j]) + load(matrix.bias + output));
          }
        }
    }
  if (configured) release_tiles();
}
#endif

inline void multiply(const Matrix& matrix, const StagedRow* rows, int count, int first, int last, float* const* outs) {
#if defined(TDT_TILES)
  if (matrix.format == Format::int8)
    return multiply_in_tiles<Format::int8>(matrix, rows, count, first, last, outs);
  if (matrix.format == Format::bfloat16_pairs)
    return multiply_in_tiles<Format::bfloat16_pairs>(matrix, rows, count, first, last, outs);
#endif
  switch (matrix.format) {
    case Format::float32: return multiply_as<Format::float32>(matrix, rows, count, first, last, outs);
    case Format::float16: return multiply_as<Format::float16>(matrix, rows, count, first, last, outs);
    case Format::bfloat16: return multiply_as<Format::bfloat16>(matrix, rows, count, first, last, outs);
    case Format::bfloat16_pairs: return multiply_as<Format::bfloat16_pairs>(matrix, rows, count, first, last, outs);
    case Format::int8: return multiply_as<Format::int8>(matrix, rows, count, first, last, outs);
  }
}

// Computes four vectors of outputs at once, wherever these lie, so that the processor can overlap their sums.
template <Format F>
void multiply_some_as(const Matrix& matrix, const StagedRow& row, const std::int32_t* outputs, int count,
                      float* values) {
  constexpr int kAtOnce = 4;
  const float* x = static_cast<const float*>(row.values);
  const int inputs = matrix.inputs;
  for (int i = 0; i < count;) {
    int firsts[kAtOnce] = {}, vectors = 0, end = i;
    for (; end < count; ++end) {
      const int first = outputs[end] / kWidth * kWidth;
      if (vectors > 0 && firsts[vectors - 1] == first) continue;
      if (vectors == kAtOnce) break;
      firsts[vectors++] = first;
    }
    for (int v = vectors; v < kAtOnce; ++v) firsts[v] = firsts[0];
    const void* panels[kAtOnce];
    std::size_t offsets[kAtOnce];
    Floats sums[kAtOnce];
    for (int v = 0; v < kAtOnce; ++v) {
      panels[v] = matrix.panel(firsts[v] / kPanel);
      offsets[v] = firsts[v] % kPanel;
      sums[v] = load(matrix.bias + firsts[v]);
    }
    for (int k = 0; k < inputs; ++k) {
      const Floats value = all(x[k]);
      for (int v = 0; v < kAtOnce; ++v) {
        sums[v] = multiply_add(widened<F>(panels[v], offsets[v]), value, sums[v]);
        offsets[v] += kPanel;
      }
    }
    float lanes[kAtOnce][kWidth];
    std::memcpy(lanes, sums, sizeof lanes);
    for (int v = 0; i < end; ++i) {
      if (outputs[i] / kWidth * kWidth != firsts[v]) ++v;
      values[i] = lanes[v][outputs[i] % kWidth];
    }
  }
}

inline void multiply_some(const Matrix& matrix, const StagedRow& row, const std::int32_t* outputs, int count,
                          float* values) {
  switch (matrix.format) {
    case Format::float16: return multiply_some_as<Format::float16>(matrix, row, outputs, count, values);
    case Format::bfloat16: return multiply_some_as<Format::bfloat16>(matrix, row, outputs, count, values);
    default: return multiply_some_as<Format::float32>(matrix, row, outputs, count, values);
  }
}

}  // namespace tdt::cpu::TDT_ISA
