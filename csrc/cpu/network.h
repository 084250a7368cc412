// A transducer's predictor and joint, packed.
#pragma once

#include <algorithm>
#include <cstddef>

#include "matrix.h"
#include "network_kernels.h"
#include "tdt/row.h"

namespace tdt::cpu {

// What of a token goes into the predictor's first step.
enum class TableKind : int {
  gates = 0,       // [4 * hidden] gates of the first layer, its input's product and all biases: added to the rest
  input = 1,       // [first_inputs] the first layer's input
  prediction = 2,  // [joint] the joint's hidden share: there are no layers
};

// Widths are padded with zeros: `hidden` to whole blocks of kUnits, `joint` to whole panels, `first_inputs` to kLanes.
struct Network {
  RowLayout layout;
  Activation activation;
  int encoder_size;      // E
  int predictor_size;    // H as the model has it
  int joint_size;        // J as the model has it
  int hidden;            // H padded
  int joint;             // J padded
  TableKind table_kind;
  int table_width;
  const float* table;    // [V + 1, table_width]
  int num_layers;
  const Matrix* layers;  // gates from [what comes from below | the layer's own last output]
  Matrix prediction;     // predictor output -> joint hidden
  Matrix encoder;        // encoder frame -> joint hidden
  Matrix output;         // joint hidden -> row

  // Int8 screening of `output`: see screening.h. Without it `screen.panels` is null.
  Matrix screen;
  const float* weight_norms;
  const float* weight_errors;
  int screened_slots;  // used for so many rows in flight at most

  // Numbers that a layer takes from below.
  int inputs_from_below(int layer) const {
    if (layer > 0) return hidden;
    return table_kind == TableKind::input ? table_width : 0;
  }
};

// Bytes that staging a row needs, whatever matrix it is for; screening has its own.
inline std::size_t most_staged_bytes(const Network& network) {
  std::size_t most = staged_bytes(network.encoder);
  for (const Matrix* matrix : {&network.prediction, &network.output}) most = std::max(most, staged_bytes(*matrix));
  for (int layer = 0; layer < network.num_layers; ++layer) most = std::max(most, staged_bytes(network.layers[layer]));
  return most;
}

}  // namespace tdt::cpu
