// A model file, opened: the packed network, the vocabulary, and what is stated about the features.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "capi/packing.h"
#include "capi/safetensors.h"
#include "text/phrases.h"
#include "text/spelling.h"
#include "text/vocabulary.h"

namespace tdt::capi {

struct Features {
  std::string family, normalize;
  int sample_rate, mel_bins, subsampling_factor;
};

class Model {
 public:
  // Reads a file's content; `name` is for messages. Throws a Failure if it is not a model that can be used.
  Model(const unsigned char* data, std::size_t bytes, const std::string& name, Precision precision,
        const cpu::InstructionSet& isa);

  const cpu::InstructionSet& isa;
  std::vector<std::int32_t> durations, big_blanks;
  int max_symbols = 0;  // the most tokens at one frame that the model was trained for; 0: no limit
  std::unique_ptr<PackedNetwork> packed;
  std::unique_ptr<text::Vocabulary> vocabulary;
  Features features;
  PredictorState start;  // before the first token
  double frame_seconds;

  const cpu::Network& network() const { return packed->network; }
  // Made when it is needed first.
  const text::Speller& speller() const;

 private:
  mutable std::mutex making_speller_;
  mutable std::unique_ptr<text::Speller> speller_;
};

// Reads an n-gram model that was compiled for the vocabulary of `model`.
text::AutomatonTables read_ngram(const unsigned char* data, std::size_t bytes, const std::string& name,
                                 const Model& model);

// The best instruction set of this machine, or the one of a name; null if it is not there.
const cpu::InstructionSet* instruction_set(const char* name);

}  // namespace tdt::capi
