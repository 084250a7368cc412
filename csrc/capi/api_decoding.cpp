// Decoding, states of streams, and results.
#include <algorithm>
#include <cmath>

#include "capi/api.h"

using namespace tdt;
using namespace tdt::capi;

struct tdt_state {
  std::shared_ptr<const State> held;
};
struct tdt_result {
  Result held;
};

namespace {

std::shared_ptr<const Phrases> checked(const tdt_phrases* phrases, const tdt_model* model) {
  if (phrases && phrases->held->model != model->held) refuse("the phrases were made for another model");
  return phrases ? phrases->held : nullptr;
}

std::shared_ptr<const Allow> checked(const tdt_allow* allow, const tdt_model* model) {
  if (allow && allow->held->model != model->held) refuse("what may be emitted (allow) was made for another model");
  return allow ? allow->held : nullptr;
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
  if (!(made.confidence.alpha > 0.0 && std::isfinite(made.confidence.alpha)))
    refuse("confidence_alpha must be above 0");
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

}  // namespace

extern "C" {

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

}  // extern "C"
