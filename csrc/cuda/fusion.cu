// The scores of fusions where a chunk begins, for every beam search.
#include "beam_state.cuh"

using namespace tdt::cuda;

// A block for each predictor state that a chunk begins with. `slots` [count].
extern "C" __global__ void __launch_bounds__(512, 1) score_slots(const BeamSearch* search, const int* slots, int count,
                                                                 float* scratch) {
  for (int i = static_cast<int>(blockIdx.x); i < count; i += static_cast<int>(gridDim.x))
    score_slot(*search, slots[i], scratch);
}
