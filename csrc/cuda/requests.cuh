// What a search asks a network for, in lists that stay on the device.
#pragma once

namespace tdt::cuda {

// A predictor step: from the state in slot `parent`, by `token`, to the state in `slot`. Of the steps that a
// fused network takes together, none writes a slot that one of them reads.
struct Step {
  int parent, token, slot;
};

// A joint row that is wanted: from the state in `slot`, numbered through the batch, and from `frame`, numbered through
// all frames. The row's rank goes to `place` of the utterance's beam.
struct Wanted {
  int slot, frame, place, utterance;
};

struct Requests {
  int step_count, wanted_count;
  Step* steps;
  Wanted* wanted;
};

}  // namespace tdt::cuda
