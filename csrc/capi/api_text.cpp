// Text and words.
#include <algorithm>
#include <cmath>

#include "capi/api.h"

using namespace tdt;
using namespace tdt::capi;

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
