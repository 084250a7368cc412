// Greedy search over a network that others run step by step. A round is the joint for the rows that are wanted, the
// decisions, `advance_greedy`, and the predictor for the steps that it asks for.
#include "rank.cuh"
#include "requests.cuh"
#include "tdt/transition.h"

namespace tdt::cuda {

struct GreedySteps {
  GreedyOptions options;
  int blank;
  int rows;                // most joint rows of a round
  const int* decisions;    // [2, rows] token and duration of each row, in the order of the wanted rows
  const float* logprobs;   // [2, rows] log-probabilities of both
  const int* lengths;      // [B] number of frames
  const int* first_frames; // [B] where the frames of an utterance begin among the frames of all
  int* frames;             // [B] next frame of each utterance
  int* symbols;            // [B] tokens emitted at that frame
  int capacity;
  int* log;                // [4, capacity] utterance, token, frame, duration
  float* log_logprobs;     // [2, capacity]
  int* logged;             // [2] tokens in the log; whether it has no room for a round, which then does nothing
};

}  // namespace tdt::cuda

using namespace tdt::cuda;

// Run by one block. Advances the utterances whose rows were wanted, logs the tokens that they emitted, and asks for the
// predictor steps of these tokens and for the next rows of the utterances that have frames left.
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
