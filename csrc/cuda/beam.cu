// Beam search over a network that others run step by step. A round is `advance_beams`, the predictor for the steps
// that it asked for, the joint for the rows that it asked for, and `rank_rows`.
#include "beam.cuh"

using namespace tdt::cuda;

static_assert(sizeof(BeamSearch) + sizeof(BeamScratch) <= 20 * 1024, "_BEAM_SHARED in stepwise.py is too small");

// A block for each beam. The counts of `requests` must be zero before.
extern "C" __global__ void __launch_bounds__(512, 1) advance_beams(const BeamSearch* search, Requests* requests) {
  Arena arena(shared_memory());
  const BeamSearch& own = copied(arena.take<BeamSearch>(1), search);
  BeamScratch& scratch = *arena.take<BeamScratch>(1);
  for (int i = static_cast<int>(blockIdx.x); i < own.utterances; i += static_cast<int>(gridDim.x))
    Beam(own, i, scratch).advance(&requests->step_count, requests->steps, &requests->wanted_count, requests->wanted);
}

// A block for each predictor step.
extern "C" __global__ void __launch_bounds__(512, 1) score_requests(const BeamSearch* search, const Requests* requests,
                                                                    float* scratch) {
  score_steps(*search, *requests, scratch);
}

// A block for each joint row that was asked for; `rows` are in the order of the requests.
extern "C" __global__ void __launch_bounds__(512, 1) rank_rows(const BeamSearch* search, const Requests* requests,
                                                               const float* rows) {
  for (int i = static_cast<int>(blockIdx.x); i < requests->wanted_count; i += static_cast<int>(gridDim.x))
    rank_wanted(*search, requests->wanted[i], rows + static_cast<long long>(i) * search->layout.width(),
                shared_memory());
}
