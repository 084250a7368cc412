// Products of packed matrices with a few rows.
//
// Each output has one lane and one accumulator, which adds the inputs in order. So the bits of a sum depend neither on
// the number of rows nor on how the work is divided. Integer sums are exact.
#pragma once

#include <type_traits>

#include "lanes.h"
#include "matrix.h"
#if defined(__AMX_TILE__) || defined(TDT_EMULATE_TILES)
#define TDT_TILES
#include "tiles.h"
#endif

namespace tdt::cpu::TDT_ISA {

constexpr int kPanelVectors = kPanel / kWidth;
constexpr int kRowsAtOnce = 6;

// How many vectors of a panel are accumulated at once for `rows` rows, if the sums of one vector and row take
// `registers`.
constexpr int tile_vectors(int rows, int registers) {
  const int room = kWidth == 16 ? 24 : 12;
  int vectors = kPanelVectors;
  while (vectors > 1 && (vectors * rows * registers > room || vectors > 8)) vectors /= 2;
  return vectors;
}

// Prefetches the weights of a later step. With one row the processor's own prefetching keeps up, and this would only
// cost time. With several rows, whose arithmetic fills the processor's queue, it saves a quarter of the time.
template <int ROWS>
inline void prefetch(const void* weights, std::size_t bytes) {
#if defined(__GNUC__)
  constexpr std::size_t kAhead = 16384;
  if constexpr (ROWS > 1)
    for (std::size_t line = 0; line < bytes; line += kAlignment)
      __builtin_prefetch(static_cast<const char*>(weights) + kAhead + line);
#endif
}

// --- float32 sums ----------------------------------------------------------------------------------------------------

inline Words load_halves(const std::uint16_t* x) {
#if defined(__AVX512F__)
  return (Words)_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
#elif defined(__AVX2__)
  return (Words)_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
#elif defined(__GNUC__)
  typedef std::uint16_t Halves __attribute__((vector_size(2 * kWidth)));
  Halves halves;
  std::memcpy(&halves, x, sizeof halves);
  return __builtin_convertvector(halves, Words);
#else
  return *x;
#endif
}

template <Format F>
inline Floats widened(const void* weights, std::size_t index) {
  if constexpr (F == Format::float32) {
    return load(static_cast<const float*>(weights) + index);
  } else if constexpr (F == Format::bfloat16) {
    return bits_of<Floats>(load_halves(static_cast<const std::uint16_t*>(weights) + index) << 16);
  } else {
    const std::uint16_t* halves = static_cast<const std::uint16_t*>(weights) + index;
#if defined(__AVX512F__)
    return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves)));
#elif defined(__F16C__)
    return (Floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(halves)));
#else
    // A product with 2^112 corrects the exponent's bias. It is exact, for subnormal halves too.
    const Words bits = load_halves(halves);
    const Floats size = bits_of<Floats>((bits & 0x7fffu) << 13) * 5.192296858534828e33f;
    return bits_of<Floats>(bits_of<Words>(size) | ((bits & 0x8000u) << 16));
#endif
  }
}

template <Format F, int ROWS, int VECTORS>
inline void float_tile(const Matrix& matrix, int panel, int vector, const StagedRow* rows, float* const* outs) {
  Floats sums[ROWS][VECTORS];
  const int first = panel * kPanel + vector * kWidth;
  for (int v = 0; v < VECTORS; ++v) {
    const Floats bias = load(matrix.bias + first + v * kWidth);
    for (int r = 0; r < ROWS; ++r) sums[r][v] = bias;
  }
  const float* x[ROWS];
  for (int r = 0; r < ROWS; ++r) x[r] = static_cast<const float*>(rows[r].values);
  const void* weights = matrix.panel(panel);
  const int inputs = matrix.inputs;
  std::size_t at = static_cast<std::size_t>(vector) * kWidth;
  for (int k = 0; k < inputs; ++k, at += kPanel) {
    Floats w[VECTORS];
    for (int v = 0; v < VECTORS; ++v) w[v] = widened<F>(weights, at + v * kWidth);
    prefetch<ROWS>(static_cast<const char*>(weights) + weight_bytes(F) * at, weight_bytes(F) * VECTORS * kWidth);
    for (int r = 0; r < ROWS; ++r) {
      const Floats value = all(x[r][k]);
      for (int v = 0; v < VECTORS; ++v) sums[r][v] = multiply_add(w[v], value, sums[r][v]);
    }
  }
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < VECTORS; ++v) store(outs[r] + first + v * kWidth, sums[r][v]);
}

// Adds the products of two inputs. Weights and values are pairs of bfloat16, with the even input in a word's low half.
inline Floats multiply_add_pairs(Words weights, std::uint32_t values, Floats sum) {
#if defined(__AVX512BF16__)
  return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)weights,
                                  (__m512bh)_mm512_set1_epi32(static_cast<int>(values)));
#else
  const float even = bits_of<float>(values << 16), odd = bits_of<float>(values & 0xffff0000u);
  sum = multiply_add(bits_of<Floats>(weights << 16), all(even), sum);
  return multiply_add(bits_of<Floats>(weights & 0xffff0000u), all(odd), sum);
#endif
}

inline Words load_words(const void* x) {
  Words words;
  std::memcpy(&words, x, sizeof words);
  return words;
}

inline std::uint32_t word_at(const void* x, int index) {
  std::uint32_t word;
  std::memcpy(&word, static_cast<const char*>(x) + 4 * static_cast<std::size_t>(index), sizeof word);
  return word;
}

template <int ROWS, int VECTORS>
inline void pair_tile(const Matrix& matrix, int panel, int vector, const StagedRow* rows, float* const* outs) {
  Floats sums[ROWS][VECTORS];
  const int first = panel * kPanel + vector * kWidth;
  for (int v = 0; v < VECTORS; ++v) {
    const Floats bias = load(matrix.bias + first + v * kWidth);
    for (int r = 0; r < ROWS; ++r) sums[r][v] = bias;
  }
  const void* x[ROWS];
  for (int r = 0; r < ROWS; ++r) x[r] = rows[r].values;
  const char* weights = matrix.panel(panel) + 4 * vector * kWidth;
  const int groups = matrix.groups();
  for (int k = 0; k < groups; ++k, weights += 4 * kPanel) {
    Words w[VECTORS];
    for (int v = 0; v < VECTORS; ++v) w[v] = load_words(weights + 4 * v * kWidth);
    prefetch<ROWS>(weights, 4 * VECTORS * kWidth);
    for (int r = 0; r < ROWS; ++r) {
      const std::uint32_t value = word_at(x[r], k);
      for (int v = 0; v < VECTORS; ++v) sums[r][v] = multiply_add_pairs(w[v], value, sums[r][v]);
    }
  }
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < VECTORS; ++v) store(outs[r] + first + v * kWidth, sums[r][v]);
}

// --- int32 sums ------------------------------------------------------------------------------------------------------

// The value of an output whose integer sum is `dot`.
inline float scaled(const Matrix& matrix, const StagedRow& row, int output, std::int32_t dot) {
  return static_cast<float>(dot - row.zero * matrix.sums[output]) * matrix.scales[output] * row.scale +
         matrix.bias[output];
}

// Sums of kWidth outputs: signed weights times unsigned values, in groups of four inputs. They take kSums vectors.
#if defined(__AVX512VNNI__)
constexpr int kSums = 1;
using Integers = __m512i;
inline Integers integer_weights(const char* weights, int) { return _mm512_loadu_si512(weights); }
inline Integers integer_values(std::uint32_t values) { return _mm512_set1_epi32(static_cast<int>(values)); }
inline Integers add_products(Integers sum, Integers weights, Integers values) {
#if defined(__GNUC__)
  // Around the intrinsic, GCC 12 copies the sums and runs out of registers: a row takes 16 us, here it takes 7.
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(values), "v"(weights));
  return sum;
#else
  return _mm512_dpbusd_epi32(sum, values, weights);
#endif
}
#elif defined(__AVX512BW__)
// Weights and values are widened to 16 bits: without VNNI, products of bytes are summed in pairs in 16 bits, which are
// too few.
constexpr int kSums = 2;
using Integers = __m512i;
inline Integers integer_weights(const char* weights, int half) {
  return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + 32 * half)));
}
inline Integers integer_values(std::uint32_t values) {
  return _mm512_cvtepu8_epi16(_mm256_set1_epi32(static_cast<int>(values)));
}
inline Integers add_products(Integers sum, Integers weights, Integers values) {
  return _mm512_add_epi32(sum, _mm512_madd_epi16(weights, values));
}
#elif defined(__AVX2__)
constexpr int kSums = 2;
using Integers = __m256i;
inline Integers integer_weights(const char* weights, int half) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(weights + 16 * half)));
}
inline Integers integer_values(std::uint32_t values) {
  return _mm256_cvtepu8_epi16(_mm_set1_epi32(static_cast<int>(values)));
}
inline Integers add_products(Integers sum, Integers weights, Integers values) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(weights, values));
}
#else
constexpr int kSums = 4;  // one for each input of a group
#if defined(__GNUC__)
typedef std::int32_t Integers __attribute__((vector_size(4 * kWidth)));
#else
using Integers = std::int32_t;
#endif
inline Integers integer_weights(const char* weights, int input) {
  return bits_of<Integers>(load_words(weights) << (24 - 8 * input)) >> 24;
}
inline Integers add_products(Integers sum, Integers weights, std::int32_t value) { return sum + weights * value; }
#endif

template <int ROWS, int VECTORS>
inline void integer_tile(const Matrix& matrix, int panel, int vector, const StagedRow* rows, float* const* outs) {
  Integers sums[ROWS][VECTORS][kSums];
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < VECTORS; ++v)
      for (int s = 0; s < kSums; ++s) sums[r][v][s] = Integers{};
  const void* x[ROWS];
  for (int r = 0; r < ROWS; ++r) x[r] = rows[r].values;
  const char* weights = matrix.panel(panel) + 4 * vector * kWidth;
  const int groups = matrix.groups();
  for (int k = 0; k < groups; ++k, weights += 4 * kPanel) {
    Integers w[VECTORS][kSums];
    for (int v = 0; v < VECTORS; ++v)
      for (int s = 0; s < kSums; ++s) w[v][s] = integer_weights(weights + 4 * v * kWidth, s);
    prefetch<ROWS>(weights, 4 * VECTORS * kWidth);
    for (int r = 0; r < ROWS; ++r) {
      const std::uint32_t bytes = word_at(x[r], k);
#if defined(__AVX2__)
      const Integers values = integer_values(bytes);
      for (int v = 0; v < VECTORS; ++v)
        for (int s = 0; s < kSums; ++s) sums[r][v][s] = add_products(sums[r][v][s], w[v][s], values);
#else
      for (int v = 0; v < VECTORS; ++v)
        for (int s = 0; s < kSums; ++s)
          sums[r][v][s] = add_products(sums[r][v][s], w[v][s], static_cast<std::int32_t>((bytes >> (8 * s)) & 0xffu));
#endif
    }
  }
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < VECTORS; ++v) {
      const int first = panel * kPanel + (vector + v) * kWidth;
      std::int32_t parts[kSums * kWidth];
      std::memcpy(parts, sums[r][v], sizeof parts);
      std::int32_t dots[kWidth] = {};
      for (int j = 0; j < kWidth; ++j)
#if defined(__AVX2__)
        for (int s = 0; s < kSums; ++s) dots[j] += parts[kSums * j + s];  // neighbours: each holds a part of a group
#else
        for (int s = 0; s < kSums; ++s) dots[j] += parts[s * kWidth + j];
#endif
      for (int j = 0; j < kWidth; ++j) outs[r][first + j] = scaled(matrix, rows[r], first + j, dots[j]);
    }
}

// --- tiles -----------------------------------------------------------------------------------------------------------

template <Format F, int ROWS>
void panel_rows(const Matrix& matrix, int panel, const StagedRow* rows, float* const* outs) {
  constexpr int kVectorsAtOnce = tile_vectors(ROWS, F == Format::int8 ? kSums : 1);
  for (int vector = 0; vector < kPanelVectors; vector += kVectorsAtOnce) {
    if constexpr (F == Format::int8) {
      integer_tile<ROWS, kVectorsAtOnce>(matrix, panel, vector, rows, outs);
    } else if constexpr (F == Format::bfloat16_pairs) {
      pair_tile<ROWS, kVectorsAtOnce>(matrix, panel, vector, rows, outs);
    } else {
      float_tile<F, ROWS, kVectorsAtOnce>(matrix, panel, vector, rows, outs);
    }
  }
}

template <Format F>
void multiply_as(const Matrix& matrix, const StagedRow* rows, int count, int first, int last, float* const* outs) {
  using Tile = void (*)(const Matrix&, int, const StagedRow*, float* const*);
  static constexpr Tile kTiles[kRowsAtOnce] = {panel_rows<F, 1>, panel_rows<F, 2>, panel_rows<F, 3>,
                                             panel_rows<F, 4>, panel_rows<F, 5>, panel_rows<F, 6>};
  const int tiles = (count + kRowsAtOnce - 1) / kRowsAtOnce;
  for (int panel = first; panel < last; ++panel)
    for (int tile = 0; tile < tiles; ++tile) {  // of about equal sizes: a tile of one row uses its reads badly
      const int from = count * tile / tiles, to = count * (tile + 1) / tiles;
      kTiles[to - from - 1](matrix, panel, rows + from, outs + from);
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
  for (int from = 0; from < count; from += kTileRows) {
    const int n = count - from < kTileRows ? count - from : kTileRows;
    configure(tile_config(n));
    for (int panel = first; panel < last; ++panel) {
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
      for (int r = 0; r < n; ++r) {
        const StagedRow& row = rows[from + r];
        for (int j = 0; j < kPanel; ++j) {
          const int output = panel * kPanel + j;
          if constexpr (F == Format::int8) {
            outs[from + r][output] = scaled(matrix, row, output, sums[r][j]);
          } else {
            outs[from + r][output] = sums[r][j] + matrix.bias[output];
          }
        }
      }
    }
  }
  release_tiles();
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
