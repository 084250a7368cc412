// Weighted back-off automata over token ids, as in csrc/cpu/fusion.h. Their scores steer a beam.
#pragma once

#include "reduce.cuh"

namespace tdt::cuda {

struct Automaton {
  const long long* first_arc;    // [S + 1]
  const int* arc_token;          // [A], ascending in each state
  const float* arc_weight;       // [A]
  const int* arc_target;         // [A]
  const int* backoff_state;      // [S]
  const float* backoff_weight;   // [S]
  float weight;
  int padding;

  // The state after a token.
  __device__ int next(int state, int token) const {
    for (;;) {
      long long low = first_arc[state], high = first_arc[state + 1];
      while (low < high) {
        const long long middle = (low + high) / 2;
        if (arc_token[middle] < token)
          low = middle + 1;
        else
          high = middle;
      }
      if (low < first_arc[state + 1] && arc_token[low] == token) return arc_target[low];
      if (backoff_state[state] == state) return state;
      state = backoff_state[state];
    }
  }
};

// Computes the weighted scores of all tokens in the states of several automata, added up in their order. Blank's score
// is 0. Called by all threads of a block. `entries` is V + 1; `scratch` [V + 1] belongs to the block.
__device__ inline void score_fusions(const Automaton* automata, int count, const long long* states, int entries,
                                     int blank, float* scratch, float* scores) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
#pragma unroll 1
  for (int i = 0; i < count; ++i) {
    const Automaton& automaton = automata[i];
    const int first = static_cast<int>(states[i]);
    int depth = 0;
#pragma unroll 1
    for (int state = first; automaton.backoff_state[state] != state; state = automaton.backoff_state[state]) ++depth;
    // From the shortest context to the longest, since the arcs of longer contexts override those of shorter ones. The
    // weights of all back-offs on the way to a context are added up.
#pragma unroll 1
    for (int level = depth; level >= 0; --level) {
      int state = first;
      float backed_off = 0.0f;
#pragma unroll 1
      for (int step = 0; step < level; ++step) {
        backed_off += automaton.backoff_weight[state];
        state = automaton.backoff_state[state];
      }
      if (level == depth) {
#pragma unroll 1
        for (int token = thread; token < entries; token += threads) scratch[token] = backed_off;
        sync_block();
      }
#pragma unroll 1
      for (long long arc = automaton.first_arc[state] + thread; arc < automaton.first_arc[state + 1]; arc += threads)
        scratch[automaton.arc_token[arc]] = backed_off + automaton.arc_weight[arc];
      sync_block();
    }
#pragma unroll 1
    for (int token = thread; token < entries; token += threads)
      scores[token] = (i ? scores[token] : 0.0f) + (token == blank ? 0.0f : automaton.weight * scratch[token]);
    sync_block();
  }
}

}  // namespace tdt::cuda
