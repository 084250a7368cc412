// Runs a search over a batch of rows: checked options, states of streams, hypotheses. What it needs of the compiled
// searches (csrc/cpu) is here and nowhere else in this folder.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "beam.h"
#include "capi/confidence.h"
#include "capi/model.h"

namespace tdt::capi {

struct Phrases {
  std::shared_ptr<const Model> model;
  text::AutomatonTables tables;
  float weight;
};

struct Ngram {
  std::shared_ptr<const Model> model;
  text::AutomatonTables tables;
};

struct Allow {
  std::shared_ptr<const Model> model;
  std::vector<unsigned char> tokens;  // [V + 1], see tdt::Allowed
};

struct Search {
  Strategy strategy = Strategy::greedy;
  int threads = 1, max_symbols = 10;
  float blank_penalty = 0.0f;
  int size = 1, nbest = 1;  // of a beam
  double threshold = 0.0;
  float temperature = 1.0f;
  BlankMode blank_mode = BlankMode::no_score;
  bool prune_early = true;
  Confidence confidence;
  float ngram_weight = 0.0f;
  std::shared_ptr<const Ngram> ngram;                 // null: none
  std::vector<std::shared_ptr<const Phrases>> phrases;  // of each row, null: none; or one for all; or empty
  std::vector<std::shared_ptr<const Allow>> allow;      // the same; null: every token
};

struct Hypothesis {
  std::vector<std::int32_t> tokens, frames, durations;
  std::vector<float> token_logprobs, duration_logprobs, confidence;
  double score = 0.0;
};

// The hypotheses of each row, best first.
using Result = std::vector<std::vector<Hypothesis>>;

// A stream between two chunks. `search` is what made it; only what a state depends on is read of it.
struct State {
  std::shared_ptr<const Model> model;
  Search search;
  std::shared_ptr<const Phrases> phrases;  // this stream's
  std::int64_t consumed = 0;               // frames received so far
  std::int32_t overshoot = 0;              // frames of the next chunk to skip, without a beam
  bool beamed = false;
  std::size_t states = 1;                  // N
  PredictorState network;                  // of N states: prediction [N, J], hidden [N, L, H], cell [N, C, H]
  std::vector<cpu::BeamHypothesis> hypotheses;
  std::vector<cpu::Record> records;
  std::vector<std::int64_t> fusion_states;
  int first_frame = 0;
};

struct Input {
  const void* data;
  bool halves;  // float16, else float32
  int rows, frames;
  const std::int32_t* lengths;  // [rows], or null
  std::int64_t row_stride, element_stride, frame_stride;
};

// Decodes the next chunk of `input.rows` streams. `before`: their states, null at the start of a stream. If not `final`,
// `after` gets the states to go on from.
Result decode(const std::shared_ptr<const Model>& model, const Input& input, const Search& search,
              const std::vector<const State*>& before, bool final, std::vector<std::shared_ptr<const State>>* after);

}  // namespace tdt::capi
