// Lays out a transducer's weights for the compiled searches, as csrc/cpu/matrix.h and network.h define.
//
// src/tdtdecode/networks/packing.py does the same with NumPy for the Python package, where weights are arrays already;
// tests/capi compares both.
#pragma once

#include <cstdint>
#include <vector>

#include "buffer.h"
#include "instruction_sets.h"
#include "network.h"

namespace tdt::capi {

// y = weight x + bias; weight [outputs, inputs].
struct Affine {
  int outputs = 0, inputs = 0;
  std::vector<float> weight, bias;
};

// An LSTM layer as ONNX defines it: input [4H, inputs], recurrent [4H, H] and bias [4H], gates in the order i, o, f, c.
struct Layer {
  int inputs = 0;
  std::vector<float> input, recurrent, bias;
};

struct Weights {
  int entries = 0;               // V + 1
  int below = 0;                 // width of an embedding
  int size = 0;                  // H, the width of the predictor's output
  std::vector<float> embedding;  // [V + 1, below]
  std::vector<std::vector<float>> earlier;  // [V + 1, H] for each token before the last that the predictor looks at
  std::vector<Layer> layers;
  Affine prediction, encoder, output;
  cpu::Activation activation = cpu::Activation::relu;
};

enum class Precision { float32, bfloat16, int8 };

struct PackedMatrix {
  cpu::Matrix matrix;
  cpu::Buffer<unsigned char> panels;
  cpu::Buffer<float> bias, scales;
  cpu::Buffer<std::int32_t> sums;
};

// A network, and the memory that it points to.
class PackedNetwork {
 public:
  // `blank_frames`: the frames of each blank.
  PackedNetwork(const Weights& weights, int blank, const std::vector<std::int32_t>& blank_frames,
                const std::vector<std::int32_t>& durations, Precision precision, const cpu::InstructionSet& isa);
  PackedNetwork(const PackedNetwork&) = delete;
  PackedNetwork& operator=(const PackedNetwork&) = delete;

  cpu::Network network{};

 private:
  std::vector<std::int32_t> blank_frames_, durations_;
  std::vector<PackedMatrix> layers_;
  std::vector<cpu::Matrix> layer_matrices_;
  PackedMatrix prediction_, encoder_, output_, screen_;
  cpu::Buffer<float> table_, weight_norms_, weight_errors_;
};

// The predictor's state after some tokens, without padding: prediction [J], its share of the joint's hidden vector;
// hidden [L, H] and cell [C, H], with C = `num_cells` of csrc/cpu/network.h.
struct PredictorState {
  std::vector<float> prediction, hidden, cell;
};

// The state before the first token: zeros, after a step on blank. In float32, whatever precision the searches have.
PredictorState start_state(const Weights& weights, int blank);

}  // namespace tdt::capi
