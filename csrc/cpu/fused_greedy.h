// Greedy search over many utterances with a packed network. One call runs the whole decode loop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <vector>

#include "buffer.h"
#include "frames.h"
#include "fusion.h"
#include "instruction_sets.h"
#include "network.h"
#include "profile.h"
#include "screening.h"
#include "tdt/transition.h"
#include "team.h"

namespace tdt::cpu {

// B utterances, their positions and their predictor states: prediction [B, J], hidden [L, B, H] and cell [C, B, H] with
// C = `num_cells`, without padding.
struct Utterances {
  int count;                     // B
  const FrameSource* sources;    // [B]
  const std::int32_t* lengths;   // [B]
  const std::int32_t* order;     // [B], a permutation: the order in which utterances are decoded
  Masks masks;                   // by utterance
  std::int32_t* frame;           // [B], the next frame of each; updated
  std::int32_t* symbols;         // [B], tokens emitted there; updated
  float *prediction, *hidden, *cell;  // updated
  const Fusions* const* fusions = nullptr;         // [B], without functions of the user; null: no fusion anywhere
  std::int64_t* const* fusion_states = nullptr;    // [B], the state of each utterance's fusions; updated
};

// Most frames of an utterance that a pass scores.
constexpr int kMostFramesAtOnce = 16;

// The emitted tokens of all utterances, and also the blanks if the search is traced. Those of one utterance are in
// order.
struct Emissions {
  std::vector<std::int32_t> utterance, token, frame, duration;
  std::vector<float> token_logprob, duration_logprob;
};

// Several utterances are in flight at once, each in a slot, which also holds its predictor state. When one is done, the
// next takes its slot, so that products always have many rows. Each pass projects new encoder frames, scores the next
// few frames of every slot, follows every slot up to its next token, and runs the predictor for the slots that emitted.
//
// All threads run the same passes. Each computes its share of the outputs of every product; thread 0 does what lies
// between. Each output is summed up by one thread, so results do not depend on the number of threads.
class FusedGreedy {
 public:
  FusedGreedy(const Network& network, const InstructionSet& isa, const GreedyOptions& options,
              const Utterances& utterances, int threads);

  // Throws std::bad_alloc if there is no memory for the emissions. Adds to the profile if it is not null.
  void run(Emissions* emissions, const Profile* profile);

 private:
  struct Step {
    Decision decision;
    int frame, scored;
  };
  struct Slot {
    int utterance = -1;  // -1: free
    Position at = {0, 0};
    int parity = 0;      // which of the two buffers of layer inputs is current
    int window = 0;      // how many frames, from at.frame on, this pass scores
    int scored = 0;      // index of the first of them among all frames that the pass scores
    bool fresh = false;  // its fusions have not scored the first token yet
    bool emitted = false;
    int token = 0;
    Step steps[kMostFramesAtOnce];  // the decisions that this pass logs, at most one for each frame of the window
    int logged = 0;
    int projected = 0;   // the first frame that is not projected yet
    std::vector<float> scores;  // [V + 1], of the fusions for the next token; empty without fusion
    FusionScratch fusion_scratch;
  };

  // The scratch memory of one thread.
  struct Private {
    std::vector<float> hidden;  // [scored, joint]
    std::vector<const float*> rows;
    std::vector<float*> outs;
    std::vector<StagedRow> staged, screened;
    std::vector<char> stage, screen_stage;
    std::vector<float> screen_row, screen_values, screen_maxima;
    std::vector<std::int32_t> screen_outputs;
    std::vector<unsigned char> screen_known;
    std::vector<std::int64_t> fusion_state;
    std::vector<unsigned char> only;  // [V + 1], a mask without tokens
    Stopwatch watch;
  };

  void work(int thread);
  void plan();
  void admit(Slot& slot, int utterance);
  void release(Slot& slot);
  void fetch(int thread);
  void project(int thread);
  void score(int thread);
  void decide_rows(int thread);
  Decision decide(int thread, const Slot& slot, int scored);
  void steer(int thread, Slot& slot, int token);
  void collect();
  void rescore(int thread);
  void predict(int thread);
  void multiply(int thread, const Matrix& matrix, const std::vector<StagedRow>& staged, int count);
  void lap(int thread, Phase phase) { private_[thread].watch.lap(phase); }
  void wait(int thread) {
    team_.barrier();
    lap(thread, Phase::waiting);
  }
  void count(Count what, std::size_t number) {
    if (profile_) profile_->counts[static_cast<int>(what)] += static_cast<std::int64_t>(number);
  }

  bool screens() const {
    return network_.screen.panels && static_cast<int>(slots_.size()) <= network_.screened_slots && !options_.trace;
  }
  float* inputs(int layer, int slot, int parity);
  float* own(int layer, int slot, int parity) {
    return inputs(layer, slot, parity) + network_.inputs_from_below(layer);
  }
  float* cell(int layer, int slot) {
    return cells_.data() + (static_cast<std::size_t>(slot) * network_.num_cells + layer) * network_.hidden;
  }
  float* prediction(int slot) { return predictions_.data() + static_cast<std::size_t>(slot) * network_.joint; }
  float* logits(int scored) { return logits_.data() + static_cast<std::size_t>(scored) * network_.output.outputs; }
  float* projected(int slot, int frame);

  const Network& network_;
  const InstructionSet& isa_;
  const GreedyOptions options_;
  const Utterances& utterances_;
  Emissions* emissions_ = nullptr;
  const Profile* profile_ = nullptr;

  int threads_, frames_at_once_, scored_at_once_, keep_at_once_;
  std::vector<Slot> slots_;
  std::vector<std::size_t> input_offsets_;
  FrameBlocks blocks_;
  ScreenBlocks screen_blocks_;
  Buffer<float> inputs_, cells_, predictions_, frames_, projected_, gates_, logits_, kept_;
  std::vector<Private> private_;

  // The current pass. Thread 0 writes it, all threads read it.
  struct ScoredFrame {
    int slot, frame;
  };
  int next_ = 0;                      // place in the order of the next utterance to admit
  std::vector<ScoredFrame> missing_;  // frames to project, those of a slot next to each other
  std::vector<ScoredFrame> scored_;
  std::vector<int> pending_;          // slots that are scored
  std::vector<int> emitted_;          // slots that emitted
  std::vector<std::size_t> kept_for_;  // emissions whose hidden vectors are kept
  bool done_ = false, failed_ = false, rescore_ = false;
  std::exception_ptr failure_;
  Team team_;
};

}  // namespace tdt::cpu
