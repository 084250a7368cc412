// Compiled once per instruction set; TDT_ISA names the set and the namespace.
//
// Outputs lie in lanes and each has one accumulator, which takes the inputs in order: the bits of a sum depend neither
// on the number of rows nor on how the work is cut up. Integer sums are exact.
#include "network_kernels.h"

#include <cmath>
#include <limits>
#include <type_traits>

#include "elementwise.h"
#include "lanes.h"
#if defined(__AMX_TILE__) || defined(TDT_EMULATE_TILES)
#define TDT_TILES
#include "tiles.h"
#endif

namespace tdt::cpu::TDT_ISA {
namespace {

constexpr int kPanelVectors = kPanel / kWidth;
constexpr int kRowsAtOnce = 6;

// Vectors of a panel that are accumulated at once for so many rows, when the sums of one take `registers`.
constexpr int tile_vectors(int rows, int registers) {
  const int room = kWidth == 16 ? 24 : 12;
  int vectors = kPanelVectors;
  while (vectors > 1 && (vectors * rows * registers > room || vectors > 8)) vectors /= 2;
  return vectors;
}

// Asks for the weights of a coming step. With one row the processor's own prefetching keeps up and this only costs;
// with several, whose arithmetic fills its queue, it gains a quarter of the time.
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
    // The exponent is rebiased by a product with 2^112, which is exact for subnormal halves, too.
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

// Weights and values in pairs of bfloat16, the even input in the low half of a word.
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

// kWidth outputs, each a sum of signed weights times unsigned values in groups of four, in kSums vectors.
#if defined(__AVX512VNNI__)
constexpr int kSums = 1;
using Integers = __m512i;
inline Integers integer_weights(const char* weights, int) { return _mm512_loadu_si512(weights); }
inline Integers integer_values(std::uint32_t values) { return _mm512_set1_epi32(static_cast<int>(values)); }
inline Integers add_products(Integers sum, Integers weights, Integers values) {
#if defined(__GNUC__)
  // GCC 12 copies the sums around the intrinsic and runs out of registers: 16 us a row where this takes 7.
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(values), "v"(weights));
  return sum;
#else
  return _mm512_dpbusd_epi32(sum, values, weights);
#endif
}
#elif defined(__AVX512BW__)
// Widened to 16 bits, since pairs of 8-bit products do not fit in the 16-bit sums of processors without VNNI.
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
    for (int tile = 0; tile < tiles; ++tile) {  // of even sizes: a tile of one row wastes its reads
      const int from = count * tile / tiles, to = count * (tile + 1) / tiles;
      kTiles[to - from - 1](matrix, panel, rows + from, outs + from);
    }
}

#if defined(TDT_TILES)
// Up to 16 rows at once in tile registers, the kPanel outputs of a panel in four of them. Rows must have been staged
// together: they lie one after the other.
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

void multiply(const Matrix& matrix, const StagedRow* rows, int count, int first, int last, float* const* outs) {
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

// Four vectors of outputs at once, wherever they lie, so that their sums overlap.
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

void multiply_some(const Matrix& matrix, const StagedRow& row, const std::int32_t* outputs, int count, float* values) {
  switch (matrix.format) {
    case Format::float16: return multiply_some_as<Format::float16>(matrix, row, outputs, count, values);
    case Format::bfloat16: return multiply_some_as<Format::bfloat16>(matrix, row, outputs, count, values);
    default: return multiply_some_as<Format::float32>(matrix, row, outputs, count, values);
  }
}

// --- staging ---------------------------------------------------------------------------------------------------------

// To the nearest bfloat16, ties to even; NaN stays NaN.
inline std::uint16_t as_bfloat16(float x) {
  const std::uint32_t bits = bits_of<std::uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

void stage_pairs(const float* __restrict row, int inputs, int padded, std::uint16_t* __restrict out) {
  for (int k = 0; k < inputs; ++k) out[k] = as_bfloat16(row[k]);
  for (int k = inputs; k < padded; ++k) out[k] = 0;
}

// Rows without negative numbers use all 255 steps; the others lie around 128. The two norms are rounded up: their sums
// in float32 are off by less than inputs * 2^-24, and `scale * step` by 2^-24 of itself.
StagedRow stage_bytes(const float* row, int inputs, int padded, std::uint8_t* out) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
  const int whole = inputs / kWidth * kWidth;
  const auto lanes_at = [&](int k) {  // the last, partial vector filled up with zeros
    if (k < whole) return load(row + k);
    float rest[kWidth] = {};
    std::memcpy(rest, row + k, sizeof(float) * (inputs - k));
    return load(rest);
  };
  Floats lows = {}, highs = {}, odd = {};
  for (int k = 0; k < inputs; k += kWidth) {
    const Floats x = lanes_at(k);
    lows = x < lows ? x : lows;
    highs = x > highs ? x : highs;
    odd += x - x;  // 0, or NaN for what is no finite number
  }
  float low = 0.0f, high = 0.0f, not_finite = 0.0f;
  float low_lanes[kWidth], high_lanes[kWidth], odd_lanes[kWidth];
  store(low_lanes, lows);
  store(high_lanes, highs);
  store(odd_lanes, odd);
  for (int j = 0; j < kWidth; ++j) {
    low = low_lanes[j] < low ? low_lanes[j] : low;
    high = high_lanes[j] > high ? high_lanes[j] : high;
    not_finite += odd_lanes[j];
  }
  StagedRow staged = {out, 0.0f, low < 0.0f ? 128 : 0, 0.0f, 0.0f};
  if (!(not_finite == 0.0f)) {  // every output becomes NaN, whatever the bytes are; the norms say that no bound holds
    std::memset(out, 0, padded);
    staged.scale = staged.norm = staged.error_norm = std::numeric_limits<float>::quiet_NaN();
    return staged;
  }
  const float largest = low < 0.0f ? (-low > high ? -low : high) / 127.0f : high / 255.0f;
  // A scale below the normal numbers has no inverse: such a row counts as zero, and its error norm says so.
  const float scale = largest > 1e-30f ? largest : 0.0f;
  const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  const float shift = kRound + static_cast<float>(staged.zero);
  Floats squares = {}, errors = {};
  for (int k = 0; k < inputs; k += kWidth) {
    const Floats x = lanes_at(k);
    const Floats shifted = x * inverse + shift;
    const Floats error = x - (shifted - shift) * scale;
    const Words words = bits_of<Words>(shifted);
    std::uint32_t steps[kWidth];
    std::memcpy(steps, &words, sizeof words);
    const int n = k < whole ? kWidth : inputs - k;
    for (int j = 0; j < n; ++j) out[k + j] = static_cast<std::uint8_t>(steps[j]);
    squares += x * x;
    errors += error * error;
  }
  for (int k = inputs; k < padded; ++k) out[k] = 0;  // times weights of zero
  float square_lanes[kWidth], error_lanes[kWidth], square = 0.0f, error = 0.0f;
  store(square_lanes, squares);
  store(error_lanes, errors);
  for (int j = 0; j < kWidth; ++j) {
    square += square_lanes[j];
    error += error_lanes[j];
  }
  const float up = 1.0f + 1e-6f * static_cast<float>(inputs + 16);
  staged.scale = scale;
  staged.norm = std::sqrt(square + 1.0f) * up;
  staged.error_norm = std::sqrt(error) * up + 1e-6f * staged.norm;
  return staged;
}

void stage(const Matrix& matrix, const float* const* rows, int count, char* scratch, StagedRow* staged) {
  const std::size_t bytes = staged_bytes(matrix);
  for (int i = 0; i < count; ++i, scratch += bytes) {
    if (matrix.format == Format::int8) {
      staged[i] = stage_bytes(rows[i], matrix.inputs, matrix.groups() * group_of(matrix.format), reinterpret_cast<std::uint8_t*>(scratch));
    } else if (matrix.format == Format::bfloat16_pairs) {
      stage_pairs(rows[i], matrix.inputs, matrix.groups() * group_of(matrix.format), reinterpret_cast<std::uint16_t*>(scratch));
      staged[i].values = scratch;
    } else {
      staged[i].values = rows[i];
    }
  }
}

// --- elementwise -----------------------------------------------------------------------------------------------------

void lstm_cell(const float* gates, const float* addend, int first, int last, float* cell, float* out, float* copy) {
  for (int block = first; block < last; ++block)
    for (int v = 0; v < kUnits; v += kWidth) {
      Floats gate[4];
      for (int g = 0; g < 4; ++g) {
        const int at = block * kPanel + g * kUnits + v;
        gate[g] = addend ? load(gates + at) + load(addend + at) : load(gates + at);
      }
      const int unit = block * kUnits + v;
      const Floats next = sigmoid(gate[2]) * load(cell + unit) + sigmoid(gate[0]) * hyperbolic_tangent(gate[3]);
      const Floats output = sigmoid(gate[1]) * hyperbolic_tangent(next);
      store(cell + unit, next);
      store(out + unit, output);
      if (copy) store(copy + unit, output);
    }
}

template <class Function>
inline void each_sum(const float* a, const float* b, int count, float* out, Function function) {
  for (int j = 0; j < count; j += kWidth) store(out + j, function(load(a + j) + load(b + j)));
}

void hidden(Activation activation, const float* a, const float* b, int count, float* out) {
  switch (activation) {
    case Activation::relu:  // NaN stays NaN
      return each_sum(a, b, count, out, [](Floats x) { return x < 0.0f ? Floats{} : x; });
    case Activation::tanh:
      return each_sum(a, b, count, out, [](Floats x) { return hyperbolic_tangent(x); });
    case Activation::sigmoid:
      return each_sum(a, b, count, out, [](Floats x) { return sigmoid(x); });
  }
}

// --- screening -------------------------------------------------------------------------------------------------------

int survivors(const float* approximate, const float* weight_norms, const float* weight_errors, int count, int skipped,
              float norm, float error_norm, float certain, std::int32_t* outputs) {
  const auto bound = [&](int i) { return load(weight_errors + i) * norm + load(weight_norms + i) * error_norm; };
  Floats best = all(certain);
  int i = 0;
  for (; i + kWidth <= count; i += kWidth) {
    Floats low = load(approximate + i) - bound(i);
    if (skipped >= i && skipped < i + kWidth) {
      float lanes[kWidth];
      store(lanes, low);
      lanes[skipped - i] = certain;
      low = load(lanes);
    }
    best = low > best ? low : best;
  }
  float lanes[kWidth];
  store(lanes, best);
  for (float lane : lanes) certain = lane > certain ? lane : certain;
  const int tail = i;
  for (; i < count; ++i) {
    const float low = approximate[i] - (weight_errors[i] * norm + weight_norms[i] * error_norm);
    if (i != skipped && low > certain) certain = low;
  }
  int found = 0;
  for (i = 0; i < tail; i += kWidth) {
    const Floats high = load(approximate + i) + bound(i);
    store(lanes, high);
    bool any = false;
    for (float lane : lanes) any |= lane >= certain;
    if (!any) continue;
    for (int j = 0; j < kWidth; ++j)
      if (lanes[j] >= certain && i + j != skipped) outputs[found++] = i + j;
  }
  for (; i < count; ++i) {
    const float high = approximate[i] + (weight_errors[i] * norm + weight_norms[i] * error_norm);
    if (high >= certain && i != skipped) outputs[found++] = i;
  }
  return found;
}

// --- measuring -------------------------------------------------------------------------------------------------------

std::uint32_t read(const char* data, std::size_t bytes) {
  constexpr int kSumsAtOnce = 8;
  Words sums[kSumsAtOnce] = {};
  for (std::size_t at = 0; at < bytes; at += kSumsAtOnce * sizeof(Words))
    for (int i = 0; i < kSumsAtOnce; ++i) sums[i] += load_words(data + at + i * sizeof(Words));
  std::uint32_t words[kSumsAtOnce * kWidth], sum = 0;
  std::memcpy(words, sums, sizeof words);
  for (std::uint32_t word : words) sum += word;
  return sum;
}

}  // namespace

extern const NetworkKernels network_kernels;
const NetworkKernels network_kernels = {stage, multiply, multiply_some, lstm_cell, hidden, survivors, read};

}  // namespace tdt::cpu::TDT_ISA
