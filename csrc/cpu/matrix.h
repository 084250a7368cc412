// Weight matrices packed for products with few rows.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tdt::cpu {

constexpr int kPanel = 64;
constexpr int kAlignment = 64;  // of panels and of every row buffer, in bytes

// How weights are stored and multiplied. The first three give the same bits for the same weights.
enum class Format : int {
  float32 = 0,         // float32 weights, float32 rows
  float16 = 1,         // float16 weights, widened as they are read
  bfloat16 = 2,        // bfloat16 weights, widened as they are read
  bfloat16_pairs = 3,  // bfloat16 weights, rows rounded to bfloat16, float32 sums
  int8 = 4,            // int8 weights with a scale per output, 8-bit rows with a scale each, int32 sums
};

// Inputs of one output that lie side by side.
constexpr int group_of(Format format) {
  return format == Format::int8 ? 4 : format == Format::bfloat16_pairs ? 2 : 1;
}

constexpr std::size_t weight_bytes(Format format) {
  return format == Format::float32 ? 4 : format == Format::int8 ? 1 : 2;
}

// [outputs, inputs], both padded with zeros: outputs to whole panels, inputs to whole groups. Outputs are cut into
// panels of kPanel, inputs into groups, and memory holds
//   weights[panel][group][output in the panel][input in the group],
// so that a product reads it once, from front to back, with outputs in lanes.
struct Matrix {
  Format format = Format::float32;
  int outputs = 0;  // padded
  int inputs = 0;   // as given: rows have that many numbers
  const void* panels = nullptr;
  const float* bias = nullptr;           // [outputs]
  const float* scales = nullptr;         // int8: [outputs]
  const std::int32_t* sums = nullptr;    // int8: [outputs], each output's weights added up

  int groups() const { return (inputs + group_of(format) - 1) / group_of(format); }
  int panel_count() const { return outputs / kPanel; }
  std::size_t panel_bytes() const {
    return weight_bytes(format) * group_of(format) * kPanel * static_cast<std::size_t>(groups());
  }
  const char* panel(int index) const { return static_cast<const char*>(panels) + index * panel_bytes(); }
};

// A row as a product takes it.
struct StagedRow {
  const void* values;  // float32 [inputs]; or bfloat16 or 8-bit, [inputs] padded to whole groups
  float scale;         // 8-bit: value = scale * (byte - zero)
  std::int32_t zero;
  float norm;          // 8-bit: upper bound of the row's Euclidean norm ...
  float error_norm;    // ... and of that of what the 8 bits left out
};

// Bytes of scratch memory that staging one row takes; 0 where rows are used as they are.
constexpr std::size_t staged_bytes(const Matrix& matrix) {
  if (matrix.format != Format::bfloat16_pairs && matrix.format != Format::int8) return 0;
  const std::size_t bytes = weight_bytes(matrix.format) * group_of(matrix.format) *
                            static_cast<std::size_t>((matrix.inputs + group_of(matrix.format) - 1) /
                                                     group_of(matrix.format));
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace tdt::cpu
