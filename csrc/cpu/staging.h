// Rows in the form that a matrix's format multiplies.
#pragma once

#include <cmath>
#include <limits>

#include "lanes.h"
#include "matrix.h"

namespace tdt::cpu::TDT_ISA {

// To the nearest bfloat16, ties to even; NaN stays NaN.
inline std::uint16_t as_bfloat16(float x) {
  const std::uint32_t bits = bits_of<std::uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline void stage_pairs(const float* __restrict row, int inputs, int padded, std::uint16_t* __restrict out) {
  for (int k = 0; k < inputs; ++k) out[k] = as_bfloat16(row[k]);
  for (int k = inputs; k < padded; ++k) out[k] = 0;
}

// Rows without negative numbers use all 255 steps; the others lie around 128. The two norms are rounded up: their sums
// in float32 are off by less than inputs * 2^-24, and `scale * step` by 2^-24 of itself.
inline StagedRow stage_bytes(const float* row, int inputs, int padded, std::uint8_t* out) {
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

inline void stage(const Matrix& matrix, const float* const* rows, int count, char* scratch, StagedRow* staged) {
  const std::size_t bytes = staged_bytes(matrix);
  const int padded = matrix.groups() * group_of(matrix.format);
  for (int i = 0; i < count; ++i, scratch += bytes) {
    if (matrix.format == Format::int8) {
      staged[i] = stage_bytes(rows[i], matrix.inputs, padded, reinterpret_cast<std::uint8_t*>(scratch));
    } else if (matrix.format == Format::bfloat16_pairs) {
      stage_pairs(rows[i], matrix.inputs, padded, reinterpret_cast<std::uint16_t*>(scratch));
      staged[i].values = scratch;
    } else {
      staged[i].values = rows[i];
    }
  }
}

}  // namespace tdt::cpu::TDT_ISA
