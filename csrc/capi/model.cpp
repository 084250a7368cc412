#include "capi/model.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "capi/failure.h"
#include "capi/json.h"

namespace tdt::capi {
namespace {

constexpr int kMostEntries = 1 << 22, kMostLayers = 64, kLongestDuration = 1 << 20, kMostDurations = 1 << 16;
constexpr int kMostBigBlanks = 1 << 16;
constexpr int kMostInputs = 65000;            // of a product: the sum of products of up to 255 * 127 must fit in 32 bits
constexpr double kLargestWeight = 1e30;
constexpr double kLargestFrame = 65504.0;     // the largest number in an encoder frame that weights must allow for
constexpr double kLargestSum = 3.4028234663852886e38 / 10;
constexpr double kFeatureFrameSeconds = 0.01;

double largest(const std::vector<float>& values) {
  double most = 0.0;
  for (float value : values) most = std::max(most, std::fabs(static_cast<double>(value)));
  return most;
}

// The most that a product with numbers of up to 1 can give.
double reach(const std::vector<float>& weight, int inputs) {
  double most = 0.0;
  for (std::size_t row = 0; row < weight.size(); row += static_cast<std::size_t>(inputs)) {
    double sum = 0.0;
    for (int i = 0; i < inputs; ++i) sum += std::fabs(static_cast<double>(weight[row + i]));
    most = std::max(most, sum);
  }
  return most;
}

// Weights must be finite, and no sum of a joint row may overflow float32: what overflows depends on the order of sums.
class Checks {
 public:
  explicit Checks(const Safetensors& file) : file_(file) {}

  void finite(const std::string& part, const std::vector<float>& values) const {
    for (float value : values) {
      if (!std::isfinite(value)) file_.fail(part, "has weights that are infinite or NaN");
      if (std::fabs(static_cast<double>(value)) > kLargestWeight) file_.fail(part, "has weights above 1e30");
    }
  }

  void bound(const std::string& part, double most) const {
    if (!(most <= kLargestSum)) file_.fail(part, "may give numbers that overflow float32");
  }

 private:
  const Safetensors& file_;
};

Affine read_affine(const Safetensors& file, const std::string& name, std::int64_t outputs, std::int64_t inputs) {
  Affine affine;
  affine.weight = file.floats(name + ".weight", {outputs, inputs});
  const Tensor& weight = file.tensor(name + ".weight", {outputs, inputs});
  affine.bias = file.floats(name + ".bias", {weight.shape[0]});
  if (weight.shape[0] < 1 || weight.shape[1] < 1 || weight.shape[0] > kMostEntries + kMostDurations ||
      weight.shape[1] > kMostInputs)
    file.fail("tensor '" + name + ".weight'", "has sizes that no model has");
  affine.outputs = static_cast<int>(weight.shape[0]);
  affine.inputs = static_cast<int>(weight.shape[1]);
  Checks(file).finite("tensor '" + name + ".weight'", affine.weight);
  Checks(file).finite("tensor '" + name + ".bias'", affine.bias);
  return affine;
}

// `others`: the entries of a joint row behind those of the V + 1 pieces. `earlier`: how many tokens before the last the
// predictor looks at.
Weights read_weights(const Safetensors& file, int entries, int others, int earlier) {
  const Checks checks(file);
  Weights weights;
  weights.entries = entries;
  weights.embedding = file.floats("embedding", {entries, -1});
  const std::int64_t below = file.tensor("embedding", {entries, -1}).shape[1];
  if (below < 1 || below > kMostInputs) file.fail("tensor 'embedding'", "has a width that no model has");
  weights.below = static_cast<int>(below);
  checks.finite("tensor 'embedding'", weights.embedding);
  weights.encoder = read_affine(file, "encoder", -1, -1);
  const int joint = weights.encoder.outputs;
  weights.prediction = read_affine(file, "prediction", joint, -1);
  weights.size = weights.prediction.inputs;
  weights.output = read_affine(file, "output", static_cast<std::int64_t>(entries) + others, joint);
  if (joint > kMostInputs) file.fail("tensor 'encoder.weight'", "has more outputs than a joint may have");

  static const char* const kActivations[] = {"relu", "tanh", "sigmoid"};
  const std::string& activation = file.text("activation");
  const auto found = std::find(std::begin(kActivations), std::end(kActivations), activation);
  if (found == std::end(kActivations)) file.fail("metadata 'activation'", "must be relu, tanh or sigmoid");
  weights.activation = static_cast<cpu::Activation>(found - std::begin(kActivations));

  const auto layers = file.integer("layers", 0, kMostLayers);
  double most = largest(weights.embedding);
  int width = weights.below;
  const std::int64_t size = weights.size;
  for (std::int64_t i = 0; i < layers; ++i) {
    const std::string name = "layers." + std::to_string(i);
    Layer layer;
    layer.inputs = width;
    layer.input = file.floats(name + ".input", {4 * size, width});
    layer.recurrent = file.floats(name + ".recurrent", {4 * size, size});
    layer.bias = file.floats(name + ".bias", {4 * size});
    if (width + size > kMostInputs || 2 * size > kMostInputs) file.fail("tensor '" + name + ".input'", "is too wide");
    checks.finite("tensor '" + name + ".input'", layer.input);
    checks.finite("tensor '" + name + ".recurrent'", layer.recurrent);
    checks.finite("tensor '" + name + ".bias'", layer.bias);
    checks.bound("tensor '" + name + ".input'",
                 reach(layer.input, width) * most + reach(layer.recurrent, weights.size) + largest(layer.bias));
    most = 1.0;
    width = weights.size;
    weights.layers.push_back(std::move(layer));
  }
  if (width != weights.size)
    file.fail("tensor 'prediction.weight'", "takes " + std::to_string(size) + " numbers, but the predictor gives " +
                                                std::to_string(width));
  if (earlier && layers) file.fail("metadata 'earlier'", "must be 0 in a model with layers");
  for (int i = 0; i < earlier; ++i) {
    const std::string name = "earlier." + std::to_string(i);
    weights.earlier.push_back(file.floats(name, {entries, size}));
    checks.finite("tensor '" + name + "'", weights.earlier.back());
    most += largest(weights.earlier.back());
  }
  const double prediction = reach(weights.prediction.weight, weights.size) * most + largest(weights.prediction.bias);
  checks.bound("tensor 'prediction.weight'", prediction);
  const double encoder =
      reach(weights.encoder.weight, weights.encoder.inputs) * kLargestFrame + largest(weights.encoder.bias);
  checks.bound("tensor 'encoder.weight'", encoder);
  const double hidden = weights.activation == cpu::Activation::relu ? prediction + encoder : 1.0;
  checks.bound("tensor 'output.weight'", reach(weights.output.weight, joint) * hidden + largest(weights.output.bias));
  return weights;
}

std::vector<std::string> read_pieces(const Safetensors& file) {
  const std::string& text = file.text("vocabulary");
  Json list = Json::parse(text.data(), text.size(), file.name + ": metadata 'vocabulary'");
  if (list.type != Json::Type::array || list.items.size() < 2 || list.items.size() > kMostEntries)
    file.fail("metadata 'vocabulary'", "must be a list of 2 or more pieces");
  std::vector<std::string> pieces;
  for (Json& piece : list.items) {
    if (piece.type != Json::Type::string) file.fail("metadata 'vocabulary'", "must be a list of strings");
    pieces.push_back(std::move(piece.string));
  }
  return pieces;
}

Safetensors open(const unsigned char* data, std::size_t bytes, const std::string& name, const char* kind) {
  Safetensors file = Safetensors::parse(data, bytes, name);
  if (file.text("format") != "tdtdecode")
    file.fail("metadata 'format'", "must be 'tdtdecode': tdtdecode pack writes such files");
  if (file.text("format_version") != "1" && file.text("format_version") != "2")
    file.fail("metadata 'format_version'", "is '" + file.text("format_version").substr(0, 20) +
                                               "'; this library reads 1 and 2: use a newer library");
  if (file.text("kind") != kind)
    file.fail("metadata 'kind'", std::string("must be '") + kind + "', got '" + file.text("kind").substr(0, 20) + "'");
  return file;
}

// FNV-1a over the pieces, each followed by a zero byte: tells vocabularies apart.
std::string fingerprint(const std::vector<std::string>& pieces) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  const auto add = [&](unsigned char byte) { hash = (hash ^ byte) * 0x100000001b3ull; };
  for (const std::string& piece : pieces) {
    for (char byte : piece) add(static_cast<unsigned char>(byte));
    add(0);
  }
  char text[17];
  for (int i = 0; i < 16; ++i) text[i] = "0123456789abcdef"[(hash >> (60 - 4 * i)) & 15];
  text[16] = 0;
  return text;
}

}  // namespace

Model::Model(const unsigned char* data, std::size_t bytes, const std::string& name, Precision precision,
             const cpu::InstructionSet& isa)
    : isa(isa) {
  const Safetensors file = open(data, bytes, name, "transducer");
  std::vector<std::string> pieces = read_pieces(file);
  const int entries = static_cast<int>(pieces.size());
  const int blank = static_cast<int>(file.integer("blank", 0, entries - 1));
  durations = file.integers<std::int32_t>("durations", {-1});
  if (durations.size() > static_cast<std::size_t>(kMostDurations)) file.fail("tensor 'durations'", "is too long");
  for (std::int32_t frames : durations)
    if (frames < 0 || frames > kLongestDuration) file.fail("tensor 'durations'", "must hold frames, from 0 to 2^20");
  int earlier = 0;
  if (file.text("format_version") != "1") {
    big_blanks = file.integers<std::int32_t>("big_blanks", {-1});
    if (big_blanks.size() > static_cast<std::size_t>(kMostBigBlanks)) file.fail("tensor 'big_blanks'", "is too long");
    for (std::int32_t frames : big_blanks)
      if (frames < 1 || frames > kLongestDuration) file.fail("tensor 'big_blanks'", "must hold frames, from 1 to 2^20");
    if (!big_blanks.empty() && (!durations.empty() || blank != entries - 1))
      file.fail("tensor 'big_blanks'", "must be empty in a model with durations, or whose blank is not the last piece");
    earlier = static_cast<int>(file.integer("earlier", 0, kMostLayers));
    max_symbols = static_cast<int>(file.integer("max_symbols", 0, 0x7fffffff));
  }
  features.family = file.text("family");
  features.normalize = file.text("normalize");
  features.sample_rate = static_cast<int>(file.integer("sample_rate", 1, 1 << 20));
  features.mel_bins = static_cast<int>(file.integer("mel_bins", 0, 1 << 16));
  features.subsampling_factor = static_cast<int>(file.integer("subsampling_factor", 1, 1 << 16));
  frame_seconds = features.subsampling_factor * kFeatureFrameSeconds;
  const int others = static_cast<int>(durations.size() + big_blanks.size());
  const Weights weights = read_weights(file, entries, others, earlier);
  std::vector<std::int32_t> blank_frames(big_blanks.rbegin(), big_blanks.rend());  // in the order of the joint row
  blank_frames.push_back(1);
  packed = std::make_unique<PackedNetwork>(weights, blank, blank_frames, durations, precision, isa);
  vocabulary = std::make_unique<text::Vocabulary>(std::move(pieces), blank);
  start = start_state(weights, blank);
}

const text::Speller& Model::speller() const {
  const std::lock_guard<std::mutex> lock(making_speller_);
  if (!speller_) speller_ = std::make_unique<text::Speller>(vocabulary->pieces(), vocabulary->blank());
  return *speller_;
}

text::AutomatonTables read_ngram(const unsigned char* data, std::size_t bytes, const std::string& name,
                                 const Model& model) {
  const Safetensors file = open(data, bytes, name, "ngram");
  if (file.text("vocabulary") != fingerprint(model.vocabulary->pieces()))
    file.fail("the language model", "was compiled for another vocabulary: compile it with the model's own directory");
  text::AutomatonTables tables;
  tables.backoff_state = file.integers<std::int32_t>("backoff_state", {-1});
  const auto states = static_cast<std::int64_t>(tables.backoff_state.size());
  tables.backoff_weight = file.floats("backoff_weight", {states});
  tables.final_weight = file.floats("final_weight", {states});
  tables.first_arc = file.integers<std::int64_t>("first_arc", {states + 1});
  tables.arc_token = file.integers<std::int32_t>("arc_token", {-1});
  const auto arcs = static_cast<std::int64_t>(tables.arc_token.size());
  tables.arc_weight = file.floats("arc_weight", {arcs});
  tables.arc_target = file.integers<std::int32_t>("arc_target", {arcs});
  tables.start = static_cast<std::int32_t>(file.integer("start", 0, states - 1));

  // Everything that a search relies on.
  const int entries = model.network().layout.vocab_size + 1, blank = model.network().layout.blank;
  const auto wrong = [&](const char* field) { file.fail(std::string("tensor '") + field + "'", "is not that of an automaton"); };
  const auto state = [&](std::int32_t index) { return index >= 0 && index < states; };
  if (tables.first_arc.front() != 0 || tables.first_arc.back() != arcs) wrong("first_arc");
  for (std::int64_t s = 0; s < states; ++s) {
    if (tables.first_arc[s + 1] < tables.first_arc[s] || tables.first_arc[s + 1] > arcs) wrong("first_arc");
    if (!state(tables.backoff_state[s])) wrong("backoff_state");
    if (!std::isfinite(tables.backoff_weight[s])) wrong("backoff_weight");
    if (!std::isfinite(tables.final_weight[s])) wrong("final_weight");
  }
  for (std::int64_t s = 0; s < states; ++s)
    for (std::int64_t arc = tables.first_arc[s]; arc < tables.first_arc[s + 1]; ++arc) {
      const std::int32_t token = tables.arc_token[arc];
      if (token < 0 || token >= entries || token == blank) wrong("arc_token");
      if (arc > tables.first_arc[s] && token <= tables.arc_token[arc - 1]) wrong("arc_token");
      if (!state(tables.arc_target[arc])) wrong("arc_target");
      if (!(tables.arc_weight[arc] < INFINITY)) wrong("arc_weight");  // -inf is a token that cannot be
    }
  // Backing off must end. Each round doubles the number of steps taken, so more rounds mean a circle.
  std::vector<std::int32_t> reached = tables.backoff_state, next(reached.size());
  for (int round = 0;; ++round) {
    bool all = true;
    for (std::int32_t at : reached) all = all && reached[at] == at;
    if (all) break;
    if (round == 64) wrong("backoff_state");
    for (std::size_t s = 0; s < reached.size(); ++s) next[s] = reached[reached[s]];
    reached.swap(next);
  }
  // A circle of 2^n states looks like so many roots after n rounds.
  for (std::int32_t at : reached)
    if (tables.backoff_state[at] != at) wrong("backoff_state");
  return tables;
}

const cpu::InstructionSet* instruction_set(const char* name) {
  std::size_t count;
  const cpu::InstructionSet* table = cpu::instruction_sets(&count);
  for (std::size_t i = count; i-- > 0;)
    if (table[i].supported() && (!name || std::strcmp(table[i].name, name) == 0)) return &table[i];
  return nullptr;
}

}  // namespace tdt::capi
