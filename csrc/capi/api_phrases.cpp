// Phrases and language models.
#include "capi/api.h"
#include "text/utf8.h"

using namespace tdt;
using namespace tdt::capi;

namespace {

constexpr std::size_t kLongestPhrase = 1000;

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

tdt_ngram* opened_ngram(const tdt_model* model, const unsigned char* data, std::size_t bytes, const std::string& name) {
  auto made = std::make_shared<Ngram>();
  made->model = model->held;
  made->tables = read_ngram(data, bytes, name, *model->held);
  return new tdt_ngram{made};
}

}  // namespace

extern "C" {

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

}  // extern "C"
