// Brings rows into the form that products with a matrix of a given format take.
#pragma once

#include <cmath>
#include <limits>

#include "lanes.h"
#include "matrix.h"

namespace tdt::cpu::TDT_ISA {

// --- bfloat16 pairs --------------------------------------------------------------------------------------------------

// Sets that multiply pairs of bfloat16 take rows in bfloat16. Other sets take the same numbers as float32.
#if defined(TDT_TILES) || (defined(TDT_NEON) && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC))
#define TDT_DOTS_OF_PAIRS
using Paired = std::uint16_t;
#else
using Paired = float;
#endif

// Rounds to the nearest bfloat16, ties to even, and returns it in the high half of each lane; NaN stays NaN.
inline Words rounded_to_bfloat16(Floats x) {
  const Words bits = bits_of<Words>(x);
  const Words rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  return (x == x ? rounded : bits | 0x400000u) & 0xffff0000u;
}

inline void stage_pairs(const float* row, int inputs, int padded, Paired* out) {
  const auto write = [&](Floats x, int k) {
#if defined(TDT_DOTS_OF_PAIRS)
    store_narrow(out + k, rounded_to_bfloat16(x) >> 16);
#else
    store(out + k, bits_of<Floats>(rounded_to_bfloat16(x)));
#endif
  };
  for (int k = 0; k < padded; k += kWidth) write(load_partly(row + k, inputs - k), k);
}

// --- 8 bits ----------------------------------------------------------------------------------------------------------

// The form in which products of 8-bit rows and signed weights take the rows' steps, and what is subtracted from a step.
#if defined(TDT_TILES) || (TDT_BITS == 512 && defined(__AVX512VNNI__)) || (TDT_BITS == 256 && defined(__AVXVNNI__)) || \
    (defined(TDT_NEON) && defined(__ARM_FEATURE_MATMUL_INT8))
using Step = std::uint8_t;
constexpr int kStepShift = 0;
#elif defined(TDT_X86)
using Step = std::int16_t;
constexpr int kStepShift = 0;
#elif defined(TDT_NEON)
using Step = std::int8_t;
constexpr int kStepShift = 128;
#else
using Step = std::uint8_t;
constexpr int kStepShift = 0;
#endif

// Rounds a row to 8 bits. A row without negative numbers uses the steps 0 to 255; any other row has its zero at step
// 128. The two norms are rounded up, because float32 sums have a relative error below inputs * 2^-24, and `scale *
// step` has one of 2^-24.
inline StagedRow stage_bytes(const float* row, int inputs, int padded, Step* out) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
  const auto lanes_at = [&](int k) { return load_partly(row + k, inputs - k); };
  Floats lows = {}, highs = {}, odd = {};
  for (int k = 0; k < inputs; k += kWidth) {
    const Floats x = lanes_at(k);
    lows = x < lows ? x : lows;
    highs = x > highs ? x : highs;
    odd += x - x;  // 0 for finite numbers, else NaN
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
  if (!(not_finite == 0.0f)) {  // a NaN scale makes every output NaN, and NaN norms say that no bound holds
    std::memset(out, 0, padded * sizeof(Step));
    staged.scale = staged.norm = staged.error_norm = std::numeric_limits<float>::quiet_NaN();
    return staged;
  }
  const float largest = low < 0.0f ? (-low > high ? -low : high) / 127.0f : high / 255.0f;
  // The inverse of a tiny scale could overflow. Such a row counts as zero, and its error norm covers that.
  const float scale = largest > 1e-30f ? largest : 0.0f;
  const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  const float shift = kRound + static_cast<float>(staged.zero);
  Floats squares = {}, errors = {};
  for (int k = 0; k < padded; k += kWidth) {  // the padding counts as zeros
    const Floats x = lanes_at(k);
    const Floats shifted = x * inverse + shift;
    const Floats error = x - (shifted - shift) * scale;
    store_narrow(out + k, (bits_of<Words>(shifted) & 0xffu) - kStepShift);
    squares += x * x;
    errors += error * error;
  }
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

inline void stage(const Matrix& matrix, const float* const* rows, int count, char* scratch, StagedRow* staged) {
  const std::size_t bytes = staged_bytes(matrix);
  const int padded = matrix.groups() * group_of(matrix.format);
  for (int i = 0; i < count; ++i, scratch += bytes) {
    if (matrix.format == Format::int8) {
      staged[i] = stage_bytes(rows[i], matrix.inputs, padded, reinterpret_cast<Step*>(scratch));
    } else if (matrix.format == Format::bfloat16_pairs) {
      stage_pairs(rows[i], matrix.inputs, padded, reinterpret_cast<Paired*>(scratch));
      staged[i].values = scratch;
    } else {
      staged[i].values = rows[i];
    }
  }
}

}  // namespace tdt::cpu::TDT_ISA
