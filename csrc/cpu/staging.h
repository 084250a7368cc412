// Brings rows into the form that products with a matrix of a given format take.
#pragma once

#include <cmath>
#include <limits>

#include "lanes.h"
#include "matrix.h"

namespace tdt::cpu::TDT_ISA {

// Rounds to the nearest bfloat16, ties to even; NaN stays NaN.
inline std::uint16_t as_bfloat16(float x) {
  const std::uint32_t bits = bits_of<std::uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline void stage_pairs(const float* __restrict row, int inputs, int padded, std::uint16_t* __restrict out) {
  for (int k = 0; k < inputs; ++k) out[k] = as_bfloat16(row[k]);
  for (int k = inputs; k < padded; ++k) out[k] = 0;
}

// Rounds a row to 8 bits. A row without negative numbers uses the steps 0 to 255; any other row has its zero at step
// 128. The two norms are rounded up, because float32 sums have a relative error below inputs * 2^-24, and `scale *
// step` has one of 2^-24.
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
    std::memset(out, 0, padded);
    staged.scale = staged.norm = staged.error_norm = std::numeric_limits<float>::quiet_NaN();
    return staged;
  }
  const float largest = low < 0.0f ? (-low > high ? -low : high) / 127.0f : high / 255.0f;
  // The inverse of a tiny scale could overflow. Such a row counts as zero, and its error norm covers that.
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
  for (int k = inputs; k < padded; ++k) out[k] = 0;  // the weights there are 0 too
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
