// The arithmetic of predictor and joint, compiled once per instruction set.
#pragma once

#include "matrix.h"
#include "tdt/row.h"

namespace tdt::cpu {

enum class Activation : int { relu = 0, tanh = 1, sigmoid = 2 };

// An LSTM's gates are interleaved in blocks of kUnits units: first the input gates of these units, then their output
// gates, forget gates and cell inputs. A block is one panel of the layer's matrix.
constexpr int kUnits = kPanel / 4;

// The tokens of a joint row that is known approximately (screening.h): the outputs in [0, entries), except the blanks in
// [first_blank, blanks_end). The error of an output is at most
//   norm * weight_errors[i] + error_norm * weight_norms[i],
// and with scores s besides, kScoreError |s| more. Tokens that may not be emitted do not take part. Tokens lie in blocks of
// kScreenBlock; `block_norms` and `block_errors` are the largest of each block.
constexpr int kScreenBlock = 256;
constexpr float kScoreError = 8.0f / (1 << 24);
struct ApproximateRow {
  const float *values, *weight_norms, *weight_errors, *block_norms, *block_errors;
  int entries, first_blank, blanks_end;
  float norm, error_norm;
  Steering steering;
};

struct NetworkKernels {
  // Prepares `count` rows for products with the matrix; `scratch` has staged_bytes() for each of them.
  void (*stage)(const Matrix&, const float* const* rows, int count, char* scratch, StagedRow* staged);

  // outs[i][output] = bias + weights . row i, for the outputs of the panels [first, last).
  // Each output is one sum over its inputs, in order, so it does not depend on how many rows there are.
  void (*multiply)(const Matrix&, const StagedRow* rows, int count, int first, int last, float* const* outs);

  // Computes what `multiply` gives for `count` outputs of one row. Only for formats whose rows are float32.
  void (*multiply_some)(const Matrix&, const StagedRow& row, const std::int32_t* outputs, int count, float* values);

  // One step of the units of the blocks [first, last). `gates` and `addend` (may be null) are [4 * units], interleaved.
  // `cell` [units] is updated. The new output is written to `out` and, if not null, to `copy`.
  void (*lstm_cell)(const float* gates, const float* addend, int first, int last, float* cell, float* out, float* copy);

  // out = activation(a + b), count numbers, a multiple of kLanes.
  void (*hidden)(Activation, const float* a, const float* b, int count, float* out);

  // The token with the largest approximate value, with its score; kNoIndex: none is above -inf. Writes the largest of
  // each block, the error of its score added.
  int (*likeliest)(const ApproximateRow&, float* block_maxima);

  // Lists the tokens whose upper bound is at least `certain`, in ascending order, given what `likeliest` wrote. Returns
  // how many; `tokens` has room for all.
  int (*survivors)(const ApproximateRow&, const float* block_maxima, float certain, std::int32_t* tokens);

  // Reads memory once, from front to back; `bytes` is a multiple of 4 KiB. Returns the sum of its words.
  std::uint32_t (*read)(const char* data, std::size_t bytes);
};

}  // namespace tdt::cpu
