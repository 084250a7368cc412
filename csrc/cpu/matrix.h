// Weight matrices packed for products with few rows.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tdt::cpu {

constexpr int kPanel = 64;      // outputs of a panel
constexpr int kAlignment = 64;  // of panels and row buffers, in bytes

// How weights are stored and multiplied. The first three give the same bits for the same weights.
enum class Format : int {
  float32 = 0,         // float32 weights, float32 rows
  float16 = 1,         // float16 weights, widened as they are read
  bfloat16 = 2,        // bfloat16 weights, widened as they are read
  bfloat16_pairs = 3,  // bfloat16 weights, rows rounded to bfloat16, float32 sums
  int8 = 4,            // int8 weights with a scale per output, 8-bit rows with a scale each, int32 sums
};

// How many inputs of one output lie side by side.
constexpr int group_of(Format format) {
  return format == Format::int8 ? 4 : format == Format::bfloat16_pairs ? 2 : 1;
}

// The number of groups is padded to a multiple of this. Groups of several inputs fill tile registers, which have 16
// rows.
constexpr int groups_unit(Format format) { return group_of(format) == 1 ? 1 : 16; }

constexpr std::size_t weight_bytes(Format format) {
  return format == Format::float32 ? 4 : format == Format::int8 ? 1 : 2;
}

// A weight matrix [outputs, inputs]. Outputs are cut into panels of kPanel, inputs into groups. Both are padded with
// zeros, outputs to whole panels, inputs to whole units of groups. Memory holds
//   weights[panel][group][output in the panel][input in the group],
// so that a product reads it once, from front to back, with outputs in lanes.
struct Matrix {
  Format format = Format::float32;
  int outputs = 0;  // padded
  int inputs = 0;   // not padded: a row has this many numbers
  const void* panels = nullptr;
  const float* bias = nullptr;           // [outputs]
  const float* scales = nullptr;         // int8: [outputs]
  const std::int32_t* sums = nullptr;    // int8: [outputs], the sum of each output's weights

  int groups() const {
    const int unit = group_of(format) * groups_unit(format);
    return (inputs + unit - 1) / unit * groups_unit(format);
  }
  int panel_count() const { return outputs / kPanel; }
  std::size_t panel_bytes() const {
    return weight_bytes(format) * group_of(format) * kPanel * static_cast<std::size_t>(groups());
  }
  const char* panel(int index) const { return static_cast<const char*>(panels) + index * panel_bytes(); }
};

// A row in the form that a product takes.
struct StagedRow {
  const void* values;  // float32 [inputs], or in the form of the instruction set (staging.h), padded as the weights are
  float scale;         // 8-bit: value = scale * (byte - zero)
  std::int32_t zero;
  float norm;          // 8-bit: an upper bound of the Euclidean norm of (row, 1)
  float error_norm;    // 8-bit: an upper bound of the Euclidean norm of what rounding changed
};

// Bytes of scratch memory that staging one row takes; 0 for formats that use rows as they are. The instruction sets
// stage rows in different forms. The widest of them take twice the bytes of the weights of an output.
inline std::size_t staged_bytes(const Matrix& matrix) {
  if (group_of(matrix.format) == 1) return 0;
  return 2 * weight_bytes(matrix.format) * group_of(matrix.format) * static_cast<std::size_t>(matrix.groups());
}

}  // namespace tdt::cpu
