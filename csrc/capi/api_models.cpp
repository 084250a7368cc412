// Models: opening them, and what they are.
#include "capi/api.h"

using namespace tdt;
using namespace tdt::capi;

namespace {

tdt_model* opened(const unsigned char* data, std::size_t bytes, const std::string& name,
                  const tdt_model_options* given) {
  const tdt_model_options options = TDT_READ(given, tdt_model_options, instruction_set);
  const auto precision = static_cast<Precision>(as_choice("precision", options.precision, 2));
  const cpu::InstructionSet* isa = instruction_set(options.instruction_set);
  if (!isa) refuse(std::string("this machine does not have the instruction set '") + options.instruction_set + "'");
  return new tdt_model{std::make_shared<const Model>(data, bytes, name, precision, *isa)};
}

}  // namespace

extern "C" {

tdt_status tdt_model_open(const char* path, const tdt_model_options* options, tdt_model** model) {
  return give(model, "model", [&] {
    require(path, "path");
    const std::vector<unsigned char> content = read_file(path);
    return opened(content.data(), content.size(), path, options);
  });
}

tdt_status tdt_model_open_memory(const void* data, size_t bytes, const tdt_model_options* options, tdt_model** model) {
  return give(model, "model", [&] {
    require(data, "data");
    return opened(static_cast<const unsigned char*>(data), bytes, "the model in memory", options);
  });
}

void tdt_model_free(tdt_model* model) { delete model; }

tdt_status tdt_model_get_info(const tdt_model* model, tdt_model_info* info) {
  return guarded([&] {
    require(model, "model");
    const Model& held = *model->held;
    const cpu::Network& network = held.network();
    tdt_model_info made = TDT_MODEL_INFO_INIT;
    made.vocab_size = network.layout.vocab_size;
    made.blank = network.layout.blank;
    made.encoder_size = network.encoder_size;
    made.duration_count = static_cast<int32_t>(held.durations.size());
    made.durations = held.durations.empty() ? nullptr : held.durations.data();
    made.frame_seconds = held.frame_seconds;
    made.sample_rate = held.features.sample_rate;
    made.mel_bins = held.features.mel_bins;
    made.subsampling_factor = held.features.subsampling_factor;
    made.features = held.features.family.c_str();
    made.normalize = held.features.normalize.c_str();
    made.instruction_set = held.isa.name;
    made.max_symbols = held.max_symbols;
    made.big_blank_count = static_cast<int32_t>(held.big_blanks.size());
    made.big_blanks = held.big_blanks.empty() ? nullptr : held.big_blanks.data();
    TDT_WRITE(made, tdt_model_info, instruction_set, info);
  });
}

const char* tdt_model_piece(const tdt_model* model, int32_t token) {
  if (!model || token < 0) return nullptr;
  const std::vector<std::string>& pieces = model->held->vocabulary->pieces();
  return static_cast<std::size_t>(token) < pieces.size() ? pieces[static_cast<std::size_t>(token)].c_str() : nullptr;
}

}  // extern "C"
