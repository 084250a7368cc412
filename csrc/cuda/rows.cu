// Joint rows as a network returns them are widened to float32 and decided.
#include "rank.cuh"
#include "requests.cuh"

using namespace tdt::cuda;

// Copies `count` float16 to float32.
extern "C" __global__ void widen_rows(const unsigned short* from, float* to, long long count) {
  const long long every = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += every)
    to[i] = half_value(from[i]);
}

// Decides the rows that were asked for, whose masks are those of their utterances; or, if `requests` is null, all
// `rows`, whose masks are their own. A block for each row. Writes tokens and durations to `decisions` [2, rows] and their
// log-probabilities to `logprobs` [2, rows].
extern "C" __global__ void __launch_bounds__(512, 1) decide_rows(const float* logits, int rows,
                                                                 const Requests* requests,
                                                                 const tdt::RowLayout* layout,
                                                                 const tdt::GreedyOptions* options,
                                                                 const Masks* masks, int* decisions, float* logprobs) {
  const int valid = requests ? requests->wanted_count : rows;
  const BlockReduce reduce = {shared_memory()};
  for (int i = static_cast<int>(blockIdx.x); i < valid; i += static_cast<int>(gridDim.x)) {
    const tdt::Steering steering = {masks->of(requests ? requests->wanted[i].utterance : i), nullptr};
    const tdt::Decision decision =
        tdt::decide(logits + static_cast<long long>(i) * layout->width(), *layout, *options, steering, reduce);
    if (threadIdx.x != 0) continue;
    decisions[i] = decision.token;
    decisions[rows + i] = decision.duration;
    logprobs[i] = decision.token_logprob;
    logprobs[rows + i] = decision.duration_logprob;
  }
}
