// A transducer's predictor and joint, packed.
#pragma once

#include <algorithm>
#include <cstddef>

#include "matrix.h"
#include "network_kernels.h"
#include "tdt/row.h"

namespace tdt::cpu {

// What the table holds for each token, as the input of a predictor step.
enum class TableKind : int {
  gates = 0,       // [4 * hidden], the first layer's gates from its input and all biases; the recurrent part is added
  input = 1,       // [first_inputs], the first layer's input
  prediction = 2,  // [joint], the predictor's share of the joint's hidden vector; for predictors without layers
  context = 3,     // [1 + num_cells][hidden], what the token adds to the predictor's output as the last token, as the
                   // second last, and so on; for predictors without layers that look at several tokens
};

// Widths are padded with zeros: `hidden` to a multiple of kUnits, `joint` to whole panels, `first_inputs` to a multiple
// of kLanes.
struct Network {
  RowLayout layout;
  Activation activation;
  int encoder_size;      // E
  int predictor_size;    // H, without padding
  int joint_size;        // J, without padding
  int hidden;            // H padded
  int joint;             // J padded
  TableKind table_kind;
  int table_width;
  const float* table;    // [V + 1, table_width]
  int num_layers;
  int num_cells;         // cells of a state: one for each layer, or what tokens add to the output of the next steps
  const Matrix* layers;  // gates from [what comes from below | the layer's own last output]
  Matrix prediction;     // predictor output -> its share of the joint's hidden vector
  Matrix encoder;        // encoder frame -> its share of the joint's hidden vector
  Matrix output;         // the joint's hidden vector -> joint row

  // Int8 screening of `output`: see screening.h. Without it `screen.panels` is null.
  Matrix screen;
  const float* weight_norms;
  const float* weight_errors;
  int screened_slots;  // most utterances in flight for which it is used

  // How many numbers a layer takes from below.
  int inputs_from_below(int layer) const {
    if (layer > 0) return hidden;
    return table_kind == TableKind::input ? table_width : 0;
  }
};

// One step of a predictor that looks at several tokens: the output [hidden] for a token after the state `cells`, and
// the cells of the state after it, which may be the same memory.
inline void context_step(const Network& network, const NetworkKernels& kernels, int token, const float* cells,
                         float* next_cells, float* output) {
  const std::size_t hidden = network.hidden;
  const float* entry = network.table + static_cast<std::size_t>(token) * network.table_width;
  kernels.hidden(Activation::relu, entry, cells, network.hidden, output);
  for (int i = 0; i < network.num_cells; ++i) {
    const float* share = entry + (i + 1) * hidden;
    const float* later = i + 1 < network.num_cells ? cells + (i + 1) * hidden : nullptr;
    for (std::size_t unit = 0; unit < hidden; ++unit)
      next_cells[i * hidden + unit] = later ? share[unit] + later[unit] : share[unit];
  }
}

// Bytes that staging a row needs for any of the matrices except `screen`.
inline std::size_t most_staged_bytes(const Network& network) {
  std::size_t most = staged_bytes(network.encoder);
  for (const Matrix* matrix : {&network.prediction, &network.output}) most = std::max(most, staged_bytes(*matrix));
  for (int layer = 0; layer < network.num_layers; ++layer) most = std::max(most, staged_bytes(network.layers[layer]));
  return most;
}

}  // namespace tdt::cpu
