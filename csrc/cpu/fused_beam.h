// Beam search over many utterances with a packed network. One call runs the whole decode loop.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <vector>

#include "beam.h"
#include "buffer.h"
#include "frames.h"
#include "instruction_sets.h"
#include "network.h"
#include "profile.h"
#include "team.h"

namespace tdt::cpu {

// The predictor states of one beam without padding: predictions [N, J], hidden [N, L, H] and cell [N, C, H] with
// C = `num_cells`.
struct PredictorStates {
  std::vector<float> prediction, hidden, cell;
};

// B utterances, and the N predictor states that their beams begin with: prediction [N, J], hidden [L, N, H] and cell
// [C, N, H].
// Those of utterance i are the states from places[i] up to places[i + 1].
struct BeamUtterances {
  int count;                    // B
  const FrameSource* sources;   // [B]
  const std::int32_t* lengths;  // [B]
  const std::int32_t* order;    // [B], a permutation: the order in which utterances are decoded
  const std::int64_t* places;   // [B + 1]
  std::int64_t states;          // N
  const float *prediction, *hidden, *cell;
};

// Several utterances are decoded at once, each in a place of its own. When one is done, the next takes its place, so
// that products always have many rows. In each pass the predictor takes the steps for new prefixes, the joint rows that
// the beams ask for are scored and ranked, and the beams move on.
//
// Of n threads, each computes its share of the outputs of every product and moves on every n-th beam. Each output is
// summed up by one thread, so results do not depend on the number of threads.
class FusedBeam {
 public:
  FusedBeam(const Network& network, const InstructionSet& isa, BeamSearch* search, const BeamUtterances& utterances,
            int threads);

  // Runs the beams to the end of their utterances; false if a user's function failed. If `after` [B] is not null, it
  // gets the predictor states to go on from, in the order of Beam::used_slots().
  // Adds to the profile if it is not null.
  bool run(std::vector<PredictorStates>* after, const Profile* profile);

 private:
  struct Place {
    int utterance = -1;  // -1: free
    bool fresh = false;  // its beam is not opened yet
    int projected = 0;   // the first frame that is not projected yet
  };
  struct Step {
    int place, parent, slot, token;
  };
  struct Row {
    int place;
    Scoring scoring;
  };
  struct Frame {
    int place, frame;
  };
  // The scratch memory of one thread.
  struct Private {
    std::vector<float> hidden;
    std::vector<const float*> rows;
    std::vector<float*> outs;
    std::vector<StagedRow> staged;
    std::vector<char> stage;
    Stopwatch watch;
  };

  void work(int thread);
  void plan();
  void collect();
  void admit(Place& place, int utterance);
  void release(Place& place);
  void request(int thread);
  void predict(int thread, std::size_t first, int count);
  void project(int thread, std::size_t first, int count);
  void score(int thread, std::size_t first, int count);
  template <class Block>
  void in_blocks(std::size_t count, Block block);
  void multiply(int thread, const Matrix& matrix, int count, Phase phase);
  void lap(int thread, Phase phase) { private_[thread].watch.lap(phase); }
  void wait(int thread) {
    team_.barrier();
    lap(thread, Phase::waiting);
  }
  void count(Count what, std::size_t number) {
    if (profile_) profile_->counts[static_cast<int>(what)] += static_cast<std::int64_t>(number);
  }

  Beam& beam(const Place& place) { return *search_->beams[place.utterance]; }
  int index(const Place& place) const { return static_cast<int>(&place - places_.data()); }
  std::size_t state(int place, int slot) const { return static_cast<std::size_t>(place) * slots_ + slot; }
  float* prediction(int place, int slot) { return predictions_.data() + state(place, slot) * network_.joint; }
  float* hidden(int layer, int place, int slot) {
    return hidden_.data() + (state(place, slot) * network_.num_layers + layer) * network_.hidden;
  }
  float* cell(int layer, int place, int slot) {
    return cells_.data() + (state(place, slot) * network_.num_cells + layer) * network_.hidden;
  }
  float* projected(int place, int frame) {
    return projected_.data() + (static_cast<std::size_t>(place) * kept_frames_ + frame % kept_frames_) * network_.joint;
  }

  const Network& network_;
  const InstructionSet& isa_;
  BeamSearch* search_;
  const BeamUtterances& utterances_;
  std::vector<PredictorStates>* after_ = nullptr;
  const Profile* profile_ = nullptr;

  int threads_, slots_, kept_frames_;
  std::size_t layer_inputs_ = 0;  // inputs of the layer that has most of them
  std::vector<Place> places_;
  FrameBlocks blocks_;
  Buffer<float> predictions_, hidden_, cells_, projected_, inputs_, gates_, frames_, logits_;
  std::vector<Private> private_;

  // The current pass. Thread 0 writes it, all threads read it.
  int next_ = 0;
  bool done_ = false;
  std::vector<Step> steps_;
  std::vector<Row> rows_;
  std::vector<Frame> missing_;
  std::atomic<bool> failed_{false};
  bool collect_failed_ = false;
  std::exception_ptr failure_;
  std::atomic_flag failure_taken_ = ATOMIC_FLAG_INIT;

  Team team_;
};

// Runs a search over beams: by FusedGreedy if none of them needs more, else by FusedBeam. Otherwise as FusedBeam::run.
bool run_beams(const Network& network, const InstructionSet& isa, BeamSearch* search, const BeamUtterances& utterances,
               int threads, std::vector<PredictorStates>* after, const Profile* profile);

}  // namespace tdt::cpu
