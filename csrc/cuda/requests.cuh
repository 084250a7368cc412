// What searches ask of a network, in lists that stay on the device.
#pragma once

namespace tdt::cuda {

// A predictor step: from the state in `parent`, by `token`, to `slot`, which is no step's parent.
struct Step {
  int parent, token, slot;
};

// A joint row that is wanted: of the state in `slot`, counted through the batch, and a frame, counted through all frames.
// A beam ranks it at `place`.
struct Wanted {
  int slot, frame, place, utterance;
};

struct Requests {
  int step_count, wanted_count;
  Step* steps;
  Wanted* wanted;
};

}  // namespace tdt::cuda
