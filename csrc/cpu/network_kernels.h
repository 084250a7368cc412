// The arithmetic of predictor and joint, compiled once per instruction set.
#pragma once

#include "matrix.h"

namespace tdt::cpu {

enum class Activation : int { relu = 0, tanh = 1, sigmoid = 2 };

// An LSTM's gates are interleaved in blocks of kUnits units: first the input gates of these units, then their output
// gates, forget gates and cell inputs. A block is one panel of the layer's matrix.
constexpr int kUnits = kPanel / 4;

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

  // Lists the outputs in [0, count), except [first_skipped, last_skipped), that could be the largest. The error bound of
  // an output is
  //   bound[i] = norm * weight_errors[i] + error_norm * weight_norms[i].
  // The largest output is at least `certain`, and at least approximate[i] - bound[i] for every i. Outputs whose
  // approximate[i] + bound[i] is below that are left out. Returns how many are listed; `outputs` has room for `count`.
  int (*survivors)(const float* approximate, const float* weight_norms, const float* weight_errors, int count,
                   int first_skipped, int last_skipped, float norm, float error_norm, float certain,
                   std::int32_t* outputs);

  // Reads memory once, from front to back; `bytes` is a multiple of 4 KiB. Returns the sum of its words.
  std::uint32_t (*read)(const char* data, std::size_t bytes);
};

}  // namespace tdt::cpu
