// The functions of tdtdecode.h: they check arguments, turn exceptions into statuses, and hold objects in handles.
#include "capi/tdtdecode.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <new>
#include <type_traits>

#include "capi/failure.h"
#include "capi/search.h"
#include "text/scripts.h"
#include "text/utf8.h"

#ifndef TDT_VERSION
#error "TDT_VERSION must be the library's version"
#endif

using namespace tdt;
using namespace tdt::capi;

struct tdt_model {
  std::shared_ptr<const Model> held;
};
struct tdt_phrases {
  std::shared_ptr<const Phrases> held;
};
struct tdt_ngram {
  std::shared_ptr<const Ngram> held;
};
struct tdt_allow {
  std::shared_ptr<const Allow> held;
};
struct tdt_state {
  std::shared_ptr<const State> held;
};
struct tdt_result {
  Result held;
};
struct tdt_text {
  std::string text;
  struct Word {
    text::Word word;
    double start, end;
    float confidence;
  };
  std::vector<Word> words;
};

namespace {

constexpr float kMostWeight = 1e6f;
constexpr std::size_t kLongestPhrase = 1000;

thread_local char last_error[1024] = "";

tdt_status fail(tdt_status status, const char* message) {
  std::strncpy(last_error, message, sizeof last_error - 1);
  return status;
}

// Runs a function that may throw, and returns its status.
template <class Function>
tdt_status guarded(Function function) noexcept {
  try {
    function();
    return TDT_OK;
  } catch (const Failure& failure) {
    return fail(static_cast<tdt_status>(failure.kind), failure.what());
  } catch (const std::bad_alloc&) {
    return fail(TDT_ERROR_MEMORY, "there is not enough memory");
  } catch (const std::length_error&) {
    return fail(TDT_ERROR_MEMORY, "there is not enough memory");
  } catch (const std::exception& error) {
    return fail(TDT_ERROR_INTERNAL, error.what());
  } catch (...) {
    return fail(TDT_ERROR_INTERNAL, "unknown exception");
  }
}

template <class Pointer>
void require(Pointer pointer, const char* name) {
  if (!pointer) refuse(std::string(name) + " must not be NULL");
}

// Makes an object where the caller wants it; NULL there if that fails.
template <class Object, class Make>
tdt_status give(Object** out, const char* name, Make make) noexcept {
  if (out) *out = nullptr;
  return guarded([&] {
    require(out, name);
    *out = make();
  });
}

// The caller's structure. `first` is the size that it had in version 1 of the interface. What an older header does not
// have is zero; what a newer one has must be zero.
template <class Struct>
Struct read(const Struct* given, std::size_t first, const char* name) {
  static_assert(std::is_trivially_copyable<Struct>::value, "");
  Struct read{};
  if (!given) return read;
  std::size_t size;
  std::memcpy(&size, given, sizeof size);
  if (size < first || size > (std::size_t{1} << 20))
    refuse(std::string(name) + " has a wrong size: make it with its TDT_..._INIT macro");
  const char* bytes = reinterpret_cast<const char*>(given);
  for (std::size_t i = sizeof(Struct); i < size; ++i)
    if (bytes[i] != 0) refuse(std::string(name) + " uses an option of a newer version of the library");
  std::memcpy(&read, given, std::min(size, sizeof(Struct)));
  return read;
}
#define TDT_READ(given, type, last) read<type>(given, offsetof(type, last) + sizeof(type::last), #given)

// Fills the caller's structure as far as its header knows it.
template <class Struct>
void write(const Struct& made, std::size_t first, Struct* out, const char* name) {
  require(out, name);
  std::size_t size;
  std::memcpy(&size, out, sizeof size);
  if (size < first || size > (std::size_t{1} << 20))
    refuse(std::string(name) + " has a wrong size: make it with its TDT_..._INIT macro");
  std::memcpy(reinterpret_cast<char*>(out) + sizeof size, reinterpret_cast<const char*>(&made) + sizeof size,
              std::min(size, sizeof(Struct)) - sizeof size);
}
#define TDT_WRITE(made, type, last, out) write<type>(made, offsetof(type, last) + sizeof(type::last), out, #out)

void check_range(const char* name, double value, double low, double high) {
  if (!(value >= low && value <= high)) {
    const std::string range = std::to_string(low) + " to " + std::to_string(high);
    refuse(std::string(name) + " must be from " + range + ", got " + std::to_string(value));
  }
}

int as_choice(const char* name, std::int32_t value, std::int32_t last) {
  if (value < 0 || value > last)
    refuse(std::string(name) + " must be one of the " + std::to_string(last + 1) + " that tdtdecode.h lists, got " +
           std::to_string(value));
  return value;
}

tdt_model* opened(const unsigned char* data, std::size_t bytes, const std::string& name,
                  const tdt_model_options* given) {
  const tdt_model_options options = TDT_READ(given, tdt_model_options, instruction_set);
  const auto precision = static_cast<Precision>(as_choice("precision", options.precision, 2));
  const cpu::InstructionSet* isa = instruction_set(options.instruction_set);
  if (!isa) refuse(std::string("this machine does not have the instruction set '") + options.instruction_set + "'");
  return new tdt_model{std::make_shared<const Model>(data, bytes, name, precision, *isa)};
}

tdt_phrases* made_phrases(const tdt_model* model, std::vector<text::Phrase> phrases, const float* weights,
                          const tdt_phrases_options* given) {
  const tdt_phrases_options options = TDT_READ(given, tdt_phrases_options, reserved);
  const auto chosen = [](const char* name, float value, float unset) {
    if (value == 0.0f) return unset;
    check_range(name, value, -kMostWeight, kMostWeight);
    return value;
  };
  const float weight = chosen("weight", options.weight, 0.6f);
  const float context = chosen("context_score", options.context_score, 1.0f);
  const float depth = chosen("depth_scaling", options.depth_scaling, 2.0f);
  if (context < 0.0f || depth < 0.0f) refuse("context_score and depth_scaling must be above 0");
  for (std::size_t i = 0; weights && i < phrases.size(); ++i) {
    if (!(weights[i] > 0.0f && weights[i] <= kMostWeight))
      refuse("weights[" + std::to_string(i) + "] must be above 0 and at most 1e6");
    phrases[i].weight = weights[i];
  }
  auto made = std::make_shared<Phrases>();
  made->model = model->held;
  made->weight = weight;
  made->tables = text::phrase_automaton(phrases, context, depth, &model->held->speller());
  return new tdt_phrases{made};
}

std::shared_ptr<const Phrases> checked(const tdt_phrases* phrases, const tdt_model* model) {
  if (phrases && phrases->held->model != model->held) refuse("the phrases were made for another model");
  return phrases ? phrases->held : nullptr;
}

std::shared_ptr<const Allow> checked(const tdt_allow* allow, const tdt_model* model) {
  if (allow && allow->held->model != model->held) refuse("what may be emitted (allow) was made for another model");
  return allow ? allow->held : nullptr;
}

tdt_allow* made_allow(const tdt_model* model, std::vector<unsigned char> tokens) {
  const std::size_t blank = static_cast<std::size_t>(model->held->vocabulary->blank());
  bool any = false;
  for (std::size_t token = 0; token < tokens.size(); ++token) any = any || (tokens[token] && token != blank);
  if (!any) refuse("that leaves no token of the vocabulary that may be emitted");
  return new tdt_allow{std::make_shared<const Allow>(Allow{model->held, std::move(tokens)})};
}

// All tokens have the value `others`, those of a list the opposite.
tdt_allow* listed(const tdt_model* model, const int32_t* tokens, std::size_t count, bool others) {
  require(model, "model");
  if (count) require(tokens, "tokens");
  const text::Vocabulary& vocabulary = *model->held->vocabulary;
  std::vector<unsigned char> may(vocabulary.pieces().size(), others);
  for (std::size_t i = 0; i < count; ++i) {
    if (tokens[i] < 0 || static_cast<std::size_t>(tokens[i]) >= may.size() || tokens[i] == vocabulary.blank())
      refuse("tokens[" + std::to_string(i) + "] must be a token of the model and not blank, got " +
             std::to_string(tokens[i]));
    may[static_cast<std::size_t>(tokens[i])] = !others;
  }
  return made_allow(model, std::move(may));
}

tdt_ngram* opened_ngram(const tdt_model* model, const unsigned char* data, std::size_t bytes, const std::string& name) {
  auto made = std::make_shared<Ngram>();
  made->model = model->held;
  made->tables = read_ngram(data, bytes, name, *model->held);
  return new tdt_ngram{made};
}

Search checked(const tdt_search* search, const tdt_model* model, int rows) {
  const tdt_search given = TDT_READ(search, tdt_search, row_phrases);
  Search made;
  made.strategy = static_cast<Strategy>(as_choice("strategy", given.strategy, TDT_BEAM_MALSD));
  const auto chosen = [](auto value, decltype(value) unset) { return value == 0 ? unset : value; };
  made.threads = chosen(given.threads, 1);
  check_range("threads", made.threads, 1, 1024);
  made.max_symbols = chosen(given.max_symbols, 10);
  check_range("max_symbols", made.max_symbols, 1, 2147483647.0);
  if (model->held->max_symbols) made.max_symbols = std::min(made.max_symbols, model->held->max_symbols);
  made.blank_penalty = given.blank_penalty;
  check_range("blank_penalty", made.blank_penalty, -kMostWeight, kMostWeight);
  const bool beam = made.strategy != Strategy::greedy;
  if (made.strategy == Strategy::malsd && !model->held->big_blanks.empty())
    refuse("TDT_BEAM_MALSD is NeMo's search, which does not know models with several blanks: use TDT_BEAM");
  if (!beam && (given.beam_size || given.nbest || given.threshold != 0.0 || given.temperature != 0.0f))
    refuse("beam_size, nbest, threshold and temperature are options of a beam search: set strategy to TDT_BEAM");
  if (made.strategy != Strategy::malsd && (given.blank_mode || given.pruning_mode))
    refuse("blank_mode and pruning_mode are options of TDT_BEAM_MALSD");
  if (made.strategy == Strategy::malsd && given.temperature != 0.0f && given.temperature != 1.0f)
    refuse("temperature is an option of TDT_BEAM");
  if (beam) {
    made.size = chosen(given.beam_size, 4);
    check_range("beam_size", made.size, 1, 1024);
    made.nbest = chosen(given.nbest, made.size);
    check_range("nbest", made.nbest, 1, made.size);
    made.threshold = chosen(given.threshold, given.nbest > 1 ? static_cast<double>(INFINITY) : 6.0);
    if (!(made.threshold > 0.0)) refuse("threshold must be above 0");
    made.temperature = chosen(given.temperature, 1.0f);
    check_range("temperature", made.temperature, 0.01f, 100);
    made.blank_mode = static_cast<BlankMode>(as_choice("blank_mode", given.blank_mode, 1));
    made.prune_early = as_choice("pruning_mode", given.pruning_mode, 1) == TDT_PRUNE_EARLY;
  }
  made.confidence.measure = static_cast<Measure>(as_choice("confidence", given.confidence, TDT_CONFIDENCE_RENYI));
  made.confidence.alpha = chosen(given.confidence_alpha, 0.33);
  if (!(made.confidence.alpha > 0.0 && std::isfinite(made.confidence.alpha))) refuse("confidence_alpha must be above 0");
  made.confidence.linear =
      as_choice("confidence_normalization", given.confidence_normalization, 1) == TDT_NORMALIZE_LIN;
  if (given.ngram) {
    if (given.ngram->held->model != model->held) refuse("the language model was opened for another model");
    made.ngram = given.ngram->held;
    made.ngram_weight = chosen(given.ngram_weight, 0.1f);
    check_range("ngram_weight", made.ngram_weight, -kMostWeight, kMostWeight);
    if (made.ngram_weight < 0.0f && made.ngram->tables.has_impossible())
      refuse("a negative ngram_weight needs a language model that makes every token possible");
  } else if (given.ngram_weight != 0.0f) {
    refuse("ngram_weight is set, but there is no ngram");
  }
  if (given.allow && given.row_allow) refuse("give allow or row_allow, not both");
  if (given.allow) made.allow.push_back(checked(given.allow, model));
  for (int row = 0; given.row_allow && row < rows; ++row) made.allow.push_back(checked(given.row_allow[row], model));
  if (given.phrases && given.row_phrases) refuse("give phrases or row_phrases, not both");
  if (given.phrases) made.phrases.push_back(checked(given.phrases, model));
  for (int row = 0; given.row_phrases && row < rows; ++row)
    made.phrases.push_back(checked(given.row_phrases[row], model));
  return made;
}

Input checked(const tdt_input* given, const tdt_model* model) {
  require(given, "input");
  const tdt_input input = TDT_READ(given, tdt_input, frame_stride);
  as_choice("input.type", input.type, TDT_FLOAT16);
  const int elements = model->held->network().encoder_size;
  if (input.rows < 0) refuse("input.rows must not be negative");
  if (input.elements != elements)
    refuse("input.elements must be the model's encoder_size, " + std::to_string(elements) + ", got " +
           std::to_string(input.elements) + ": is the input [B, E, T] or [B, T, E]?");
  if (input.frames < 0 || input.frames > (1 << 30)) refuse("input.frames must be from 0 to 2^30");
  if (!input.data && input.rows > 0 && input.frames > 0) refuse("input.data must not be NULL");
  return {input.data,       input.type == TDT_FLOAT16, input.rows,         input.frames, input.lengths,
          input.row_stride, input.element_stride,      input.frame_stride};
}

tdt_result* decoded(const tdt_model* model, const tdt_input* given, const tdt_search* search,
                    const tdt_state* const* before, bool final, std::vector<std::unique_ptr<tdt_state>>* after) {
  require(model, "model");
  const Input input = checked(given, model);
  const Search chosen = checked(search, model, input.rows);
  std::vector<const State*> states(static_cast<std::size_t>(input.rows), nullptr);
  for (std::size_t row = 0; before && row < states.size(); ++row)
    if (before[row]) states[row] = before[row]->held.get();
  std::vector<std::shared_ptr<const State>> next;
  auto result = std::make_unique<tdt_result>(tdt_result{decode(model->held, input, chosen, states, final, &next)});
  for (std::shared_ptr<const State>& state : next)
    after->push_back(std::unique_ptr<tdt_state>(new tdt_state{std::move(state)}));
  return result.release();
}

float word_confidence(const tdt_hypothesis& hypothesis, const text::Word& word, std::int32_t aggregation) {
  const std::size_t count = word.last - word.first + 1;
  if (hypothesis.confidence) {
    const float* values = hypothesis.confidence + word.first;
    if (aggregation == TDT_AGGREGATE_MIN) return *std::min_element(values, values + count);
    double result = aggregation == TDT_AGGREGATE_PROD ? 1.0 : 0.0;
    for (std::size_t i = 0; i < count; ++i)
      result = aggregation == TDT_AGGREGATE_PROD ? result * values[i] : result + values[i];
    return static_cast<float>(aggregation == TDT_AGGREGATE_MEAN ? result / static_cast<double>(count) : result);
  }
  if (!hypothesis.token_logprobs) return 0.0f;
  const float* values = hypothesis.token_logprobs + word.first;
  return static_cast<float>(std::exp(std::min<double>(*std::min_element(values, values + count), 0.0)));
}

}  // namespace

extern "C" {

int32_t tdt_abi_version(void) { return TDT_ABI_VERSION; }
const char* tdt_version(void) { return TDT_VERSION; }
const char* tdt_error_message(void) { return last_error; }
const char* tdt_instruction_set(void) { return instruction_set(nullptr)->name; }

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

tdt_status tdt_phrases_new(const tdt_model* model, const char* const* texts, const float* weights, size_t count,
                           const tdt_phrases_options* options, size_t* left_out, tdt_phrases** phrases) {
  if (left_out) *left_out = 0;
  return give(phrases, "phrases", [&] {
    require(model, "model");
    if (count) require(texts, "texts");
    const text::Speller& speller = model->held->speller();
    std::vector<text::Phrase> spelt;
    for (std::size_t i = 0; i < count; ++i) {
      const std::string name = "texts[" + std::to_string(i) + "]";
      require(texts[i], name.c_str());
      bool good;
      const std::u32string codes = text::from_utf8(texts[i], &good);
      if (!good) refuse(name + " is not UTF-8");
      if (text::split(codes).empty()) refuse(name + " must have a word");
      if (codes.size() > kLongestPhrase) refuse(name + " is longer than 1000 characters");
      std::u32string place;
      spelt.push_back({speller.spellings(codes, &place), 1.0});
      if (!spelt.back().spellings.empty()) continue;
      if (!left_out)
        refuse("the phrase '" + std::string(texts[i]).substr(0, 200) +
               "' cannot be spelt with the model's pieces: none fits at '" + text::to_utf8(place) + "'");
      ++*left_out;
    }
    return made_phrases(model, std::move(spelt), weights, options);
  });
}

tdt_status tdt_phrases_new_from_tokens(const tdt_model* model, const int32_t* tokens, const size_t* ends,
                                       const float* weights, size_t count, const tdt_phrases_options* options,
                                       tdt_phrases** phrases) {
  return give(phrases, "phrases", [&] {
    require(model, "model");
    if (count) require(tokens, "tokens");
    if (count) require(ends, "ends");
    const RowLayout& layout = model->held->network().layout;
    std::vector<text::Phrase> spelt;
    for (std::size_t i = 0, first = 0; i < count; first = ends[i++]) {
      const std::string name = "phrase " + std::to_string(i);
      if (ends[i] <= first || ends[i] - first > kLongestPhrase) refuse(name + " must have 1 to 1000 tokens");
      text::Spelling spelling;
      for (std::size_t at = first; at < ends[i]; ++at) {
        if (tokens[at] < 0 || tokens[at] > layout.vocab_size || tokens[at] == layout.blank)
          refuse(name + " has token " + std::to_string(tokens[at]) + "; tokens are 0 to " +
                 std::to_string(layout.vocab_size) + ", except blank, " + std::to_string(layout.blank));
        spelling.push_back(model->held->speller().first_of(tokens[at]));
      }
      spelt.push_back({{spelling}, 1.0});
    }
    return made_phrases(model, std::move(spelt), weights, options);
  });
}

void tdt_phrases_free(tdt_phrases* phrases) { delete phrases; }

tdt_status tdt_ngram_open(const tdt_model* model, const char* path, tdt_ngram** ngram) {
  return give(ngram, "ngram", [&] {
    require(model, "model");
    require(path, "path");
    const std::vector<unsigned char> content = read_file(path);
    return opened_ngram(model, content.data(), content.size(), path);
  });
}

tdt_status tdt_ngram_open_memory(const tdt_model* model, const void* data, size_t bytes, tdt_ngram** ngram) {
  return give(ngram, "ngram", [&] {
    require(model, "model");
    require(data, "data");
    return opened_ngram(model, static_cast<const unsigned char*>(data), bytes, "the language model in memory");
  });
}

void tdt_ngram_free(tdt_ngram* ngram) { delete ngram; }

tdt_status tdt_allow_only(const tdt_model* model, const int32_t* tokens, size_t count, tdt_allow** allow) {
  return give(allow, "allow", [&] { return listed(model, tokens, count, false); });
}

tdt_status tdt_allow_except(const tdt_model* model, const int32_t* tokens, size_t count, tdt_allow** allow) {
  return give(allow, "allow", [&] { return listed(model, tokens, count, true); });
}

tdt_status tdt_allow_scripts(const tdt_model* model, const char* const* names, size_t count, tdt_allow** allow) {
  return give(allow, "allow", [&] {
    require(model, "model");
    if (!count) refuse("names must have the name of a script, such as \"latin\" or \"common\"");
    require(names, "names");
    std::vector<int> scripts;
    for (std::size_t i = 0; i < count; ++i) {
      const std::string name = "names[" + std::to_string(i) + "]";
      require(names[i], name.c_str());
      scripts.push_back(text::find_script(names[i]));
      if (scripts.back() < 0)
        refuse(name + " must be a Unicode script, such as \"latin\" or \"common\", got \"" +
               names[i] + "\"");
    }
    return made_allow(model, text::tokens_of_scripts(*model->held->vocabulary, scripts));
  });
}

void tdt_allow_free(tdt_allow* allow) { delete allow; }

tdt_status tdt_decode(const tdt_model* model, const tdt_input* input, const tdt_search* search, tdt_result** result) {
  return give(result, "result", [&] { return decoded(model, input, search, nullptr, true, nullptr); });
}

tdt_status tdt_decode_chunk(const tdt_model* model, const tdt_input* input, const tdt_search* search,
                            const tdt_state* const* before, int32_t final, tdt_result** result, tdt_state** after) {
  std::size_t rows = 0;
  const tdt_status status = give(result, "result", [&] {
    if (!final) require(after, "after");
    require(model, "model");
    rows = static_cast<std::size_t>(checked(input, model).rows);
    std::vector<std::unique_ptr<tdt_state>> next;
    tdt_result* made = decoded(model, input, search, before, final != 0, &next);
    for (std::size_t row = 0; after && row < rows; ++row) after[row] = final ? nullptr : next[row].release();
    return made;
  });
  if (status != TDT_OK && after) std::fill_n(after, rows, nullptr);
  return status;
}

tdt_status tdt_state_copy(const tdt_state* state, tdt_state** copy) {
  return give(copy, "copy", [&] {
    require(state, "state");
    return new tdt_state{state->held};
  });
}

void tdt_state_free(tdt_state* state) { delete state; }

void tdt_result_free(tdt_result* result) { delete result; }

int32_t tdt_result_rows(const tdt_result* result) { return result ? static_cast<int32_t>(result->held.size()) : 0; }

int32_t tdt_result_hypotheses(const tdt_result* result, int32_t row) {
  if (row < 0 || row >= tdt_result_rows(result)) return 0;
  return static_cast<int32_t>(result->held[static_cast<std::size_t>(row)].size());
}

tdt_status tdt_result_hypothesis(const tdt_result* result, int32_t row, int32_t rank, tdt_hypothesis* hypothesis) {
  return guarded([&] {
    require(result, "result");
    if (rank < 0 || rank >= tdt_result_hypotheses(result, row))
      refuse("there is no hypothesis of row " + std::to_string(row) + " and rank " + std::to_string(rank));
    const Hypothesis& found = result->held[static_cast<std::size_t>(row)][static_cast<std::size_t>(rank)];
    tdt_hypothesis made = TDT_HYPOTHESIS_INIT;
    made.count = found.tokens.size();
    made.score = found.score;
    if (made.count) {
      made.tokens = found.tokens.data();
      made.frames = found.frames.data();
      made.durations = found.durations.data();
      made.token_logprobs = found.token_logprobs.data();
      made.duration_logprobs = found.duration_logprobs.data();
      made.confidence = found.confidence.empty() ? nullptr : found.confidence.data();
    }
    TDT_WRITE(made, tdt_hypothesis, score, hypothesis);
  });
}

tdt_status tdt_text_new(const tdt_model* model, const tdt_hypothesis* hypothesis, const tdt_text_options* options,
                        tdt_text** text) {
  return give(text, "text", [&] {
    require(model, "model");
    require(hypothesis, "hypothesis");
    const tdt_hypothesis given = TDT_READ(hypothesis, tdt_hypothesis, score);
    const tdt_text_options chosen = TDT_READ(options, tdt_text_options, previous_end);
    as_choice("aggregation", chosen.aggregation, TDT_AGGREGATE_PROD);
    const Model& held = *model->held;
    if (given.count) require(given.tokens, "hypothesis.tokens");
    const int entries = held.network().layout.token_entries();
    for (std::size_t i = 0; i < given.count; ++i)
      if (given.tokens[i] < 0 || given.tokens[i] >= entries)
        refuse("token id " + std::to_string(given.tokens[i]) + " is outside the vocabulary of " +
               std::to_string(entries) + " entries");
    auto made = std::make_unique<tdt_text>();
    made->text = held.vocabulary->text(given.tokens, given.count);
    if (!given.count || !given.frames || !given.durations) return made.release();
    double before = -static_cast<double>(INFINITY);
    if (chosen.continues) {
      check_range("previous_end", chosen.previous_end, 0.0, 1e9);
      before = chosen.previous_end / held.frame_seconds;
    }
    // RNN-T has neither durations nor their log-probs.
    bool tdt = false;
    for (std::size_t i = 0; i < given.count; ++i)
      tdt = tdt || given.durations[i] != 0 || (given.duration_logprobs && given.duration_logprobs[i] != 0.0f);
    const text::Tokens tokens{given.count, given.tokens, given.frames, given.durations, tdt};
    for (text::Word& word : held.vocabulary->words(tokens, held.frame_seconds, before)) {
      const float confidence = word_confidence(given, word, chosen.aggregation);
      const double start = word.start * held.frame_seconds, end = word.end * held.frame_seconds;
      made->words.push_back({std::move(word), start, end, confidence});
    }
    return made.release();
  });
}

void tdt_text_free(tdt_text* text) { delete text; }

const char* tdt_text_string(const tdt_text* text) { return text ? text->text.c_str() : ""; }

size_t tdt_text_words(const tdt_text* text) { return text ? text->words.size() : 0; }

tdt_status tdt_text_word(const tdt_text* text, size_t index, tdt_word* word) {
  return guarded([&] {
    require(text, "text");
    if (index >= text->words.size()) refuse("there is no word " + std::to_string(index));
    const tdt_text::Word& found = text->words[index];
    tdt_word made = TDT_WORD_INIT;
    made.text = found.word.text.c_str();
    made.start = found.start;
    made.end = found.end;
    made.confidence = found.confidence;
    made.space_before = found.word.space_before;
    made.first = found.word.first;
    made.last = found.word.last;
    TDT_WRITE(made, tdt_word, last, word);
  });
}

}  // extern "C"
