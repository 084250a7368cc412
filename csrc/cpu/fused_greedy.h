// Greedy search over many utterances with a packed network: the whole loop in one call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <vector>

#include "buffer.h"
#include "frames.h"
#include "instruction_sets.h"
#include "network.h"
#include "screening.h"
#include "tdt/transition.h"
#include "team.h"

namespace tdt::cpu {

// B utterances and where each stands. States are [L, B, H], predictions [B, J], without padding.
struct Utterances {
  int count;                     // B
  const FrameSource* sources;    // [B]
  const std::int32_t* lengths;   // [B]
  const std::int32_t* order;     // [B] permutation: who comes first
  std::int32_t* frame;           // [B] next frame of each, moved on
  std::int32_t* symbols;         // [B] tokens emitted there, moved on
  float *prediction, *hidden, *cell;  // states, moved on
};

// One pass of memory serves about so many frames before arithmetic takes longer.
constexpr int kFramesAtOnce = 4;

// Emitted tokens of all utterances, and blanks too where the search is traced; those of one stand in their order.
struct Emissions {
  std::vector<std::int32_t> utterance, token, frame, duration;
  std::vector<float> token_logprob, duration_logprob;
};

// Rows are places that one utterance after another takes, so that products stay full. In each pass the encoder frames
// that are new are projected, each waiting slot's next few frames are scored together, every slot is decided up to its
// next token, and the predictor runs for the rows that emitted.
//
// All threads run the same passes: each computes its share of the outputs of every product, thread 0 does what lies
// between. An output's sum is one thread's, so results do not depend on their number.
class FusedGreedy {
 public:
  FusedGreedy(const Network& network, const InstructionSet& isa, const GreedyOptions& options,
              const Utterances& utterances, int threads);

  // Throws std::bad_alloc where the emissions outgrow the memory.
  void run(Emissions* emissions);

 private:
  struct Step {
    Decision decision;
    int frame, scored;
  };
  struct Slot {
    int utterance = -1;  // none: free
    Position at = {0, 0};
    int parity = 0;      // which of the two buffers of layer inputs is current
    int window = 0;      // frames from at.frame on that this pass scores ...
    int scored = 0;      // ... and the place of the first among the pass's scored frames
    bool emitted = false;
    int token = 0;
    Step steps[kFramesAtOnce];  // what this pass logs: at most one decision a frame of the window
    int logged = 0;
    int projected = 0;   // frames before this one are projected, as far back as they are kept
  };

  // What each thread has for itself.
  struct Private {
    std::vector<float> hidden;  // [scored, joint]
    std::vector<const float*> rows;
    std::vector<float*> outs;
    std::vector<StagedRow> staged, screened;
    std::vector<char> stage, screen_stage;
    std::vector<float> screen_row, screen_values;
    std::vector<std::int32_t> screen_outputs, screen_found;
  };

  void work(int thread);
  void plan();
  void admit(Slot& slot, int utterance);
  void release(Slot& slot);
  void fetch(int thread);
  void project(int thread);
  void score(int thread);
  void decide_rows(int thread);
  void collect();
  void rescore(int thread);
  void predict(int thread);
  void multiply(int thread, const Matrix& matrix, const std::vector<StagedRow>& staged, int count);

  bool screens() const {
    return network_.screen.panels && static_cast<int>(slots_.size()) <= network_.screened_slots && !options_.trace;
  }
  float* inputs(int layer, int slot, int parity);
  float* own(int layer, int slot, int parity) {
    return inputs(layer, slot, parity) + network_.inputs_from_below(layer);
  }
  float* cell(int layer, int slot) {
    return cells_.data() + (static_cast<std::size_t>(layer) * slots_.size() + slot) * network_.hidden;
  }
  float* prediction(int slot) { return predictions_.data() + static_cast<std::size_t>(slot) * network_.joint; }
  float* logits(int scored) { return logits_.data() + static_cast<std::size_t>(scored) * network_.output.outputs; }
  float* projected(int slot, int frame);

  const Network& network_;
  const InstructionSet& isa_;
  const GreedyOptions options_;
  const Utterances& utterances_;
  Emissions* emissions_ = nullptr;

  int threads_, scored_at_once_, keep_at_once_;
  std::vector<Slot> slots_;
  std::vector<std::size_t> input_offsets_;
  FrameBlocks blocks_;
  Buffer<float> inputs_, cells_, predictions_, frames_, projected_, gates_, logits_, kept_;
  std::vector<Private> private_;

  // The pass, written by thread 0 and read by all.
  struct ScoredFrame {
    int slot, frame;
  };
  int next_ = 0;                      // of the order
  std::vector<ScoredFrame> missing_;  // frames to project, those of a slot next to each other
  std::vector<ScoredFrame> scored_;
  std::vector<int> pending_;          // rows that are scored
  std::vector<int> emitted_;          // rows that emitted
  std::vector<std::size_t> kept_for_;  // emissions whose hidden vectors are kept
  bool done_ = false, failed_ = false, rescore_ = false;
  std::exception_ptr failure_;
  Team team_;
};

}  // namespace tdt::cpu
