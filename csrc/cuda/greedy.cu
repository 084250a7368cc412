// Greedy search whose network is run by others, step by step: a round is the joint for the rows that are wanted, the
// decisions, `advance_greedy`, and the predictor for the steps.
#include "rank.cuh"
#include "requests.cuh"
#include "tdt/transition.h"

namespace tdt::cuda {

struct GreedySteps {
  GreedyOptions options;
  int blank;
  int rows;                // of `decisions` and `logprobs`
  const int* decisions;    // [2, rows] by place among the wanted rows
  const float* logprobs;   // [2, rows]
  const int* lengths;      // [B]
  const int* first_frames; // [B] where the frames of an utterance begin among all
  int* frames;             // [B] next frame of each ...
  int* symbols;            // [B] ... and tokens emitted there
  int capacity;
  int* log;                // [4, capacity] utterance, token, frame, duration
  float* log_logprobs;     // [2, capacity]
  int* logged;             // [2] how many; whether there is no room for more: then nothing moves on
};

}  // namespace tdt::cuda

using namespace tdt::cuda;

// One block. Moves the utterances whose rows were wanted on, logs what they emitted, asks for the predictor steps that
// follow, and for the rows of those that are still inside the audio.
extern "C" __global__ void __launch_bounds__(512, 1) advance_greedy(const GreedySteps* search, Requests* requests) {
  int* scratch = reinterpret_cast<int*>(shared_memory());
  const int count = requests->wanted_count, threads = static_cast<int>(blockDim.x);
  const int logged = search->logged[0];
  const bool full = logged + count > search->capacity;
  int emitted = 0, pending = 0;
  for (int first = 0; first < count && !full; first += threads) {
    const int i = first + static_cast<int>(threadIdx.x);
    Wanted row = {};
    bool emits = false, stays = false;
    int token = 0, duration = 0, frame = 0;
    tdt::Position next = {0, 0};
    if (i < count) {
      row = requests->wanted[i];
      token = search->decisions[i];
      duration = search->decisions[search->rows + i];
      frame = search->frames[row.utterance];
      emits = token != search->blank;
      next = tdt::advanced({frame, search->symbols[row.utterance]}, !emits, duration, search->options);
      stays = next.frame < search->lengths[row.utterance];
    }
    const Rank step = ranked(emits, scratch), place = ranked(stays, scratch);
    if (emits) {
      int* entry = search->log + logged + emitted + step.before;
      entry[0] = row.utterance;
      entry[search->capacity] = token;
      entry[2ll * search->capacity] = frame;
      entry[3ll * search->capacity] = duration;
      float* values = search->log_logprobs + logged + emitted + step.before;
      values[0] = search->logprobs[i];
      values[search->capacity] = search->logprobs[search->rows + i];
      requests->steps[emitted + step.before] = {row.slot, token, row.slot};
    }
    if (i < count) {
      search->frames[row.utterance] = next.frame;
      search->symbols[row.utterance] = next.symbols;
    }
    if (stays)
      requests->wanted[pending + place.before] = {row.slot, search->first_frames[row.utterance] + next.frame, 0,
                                                  row.utterance};
    emitted += step.total;
    pending += place.total;
  }
  sync_block();
  if (threadIdx.x != 0) return;
  search->logged[0] = logged + emitted;
  search->logged[1] = full;
  requests->step_count = emitted;
  if (!full) requests->wanted_count = pending;
}
