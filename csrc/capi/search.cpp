#include "capi/search.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "capi/failure.h"
#include "fused_beam.h"
#include "fused_greedy.h"

namespace tdt::capi {
namespace {

constexpr std::int64_t kMostFrames = std::int64_t{1} << 30;
constexpr int kMostHypotheses = 8192;  // of one row: it bounds the memory, since each may need a predictor state

using cpu::FrameSource;

// Where the frames of each row lie, in float32.
class Frames {
 public:
  Frames(const Input& input, int elements, const std::vector<std::int32_t>& lengths) {
    if (input.halves) {
      std::size_t total = 0;
      for (std::int32_t length : lengths) total += static_cast<std::size_t>(length);
      widened_.resize(total * elements);
    }
    float* next = widened_.data();
    for (int row = 0; row < input.rows; ++row) {
      if (!input.halves) {
        const float* first = static_cast<const float*>(input.data);
        sources_.push_back({lengths[row] ? first + row * input.row_stride : first,
                            static_cast<std::ptrdiff_t>(input.element_stride),
                            static_cast<std::ptrdiff_t>(input.frame_stride)});
        continue;
      }
      sources_.push_back({next, 1, elements});
      const auto* halves = static_cast<const std::uint16_t*>(input.data);
      for (std::int32_t frame = 0; frame < lengths[row]; ++frame)
        for (int element = 0; element < elements; ++element)
          *next++ = from_half(
              halves[row * input.row_stride + element * input.element_stride + frame * input.frame_stride]);
    }
  }
  const FrameSource* sources() const { return sources_.data(); }

 private:
  std::vector<float> widened_;
  std::vector<FrameSource> sources_;
};

double sum(const std::vector<float>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

// What a row has of a list that holds something for each row, or one thing for all, or nothing.
template <class Part>
std::shared_ptr<const Part> part_of(const std::vector<std::shared_ptr<const Part>>& parts, int row) {
  if (parts.empty()) return nullptr;
  return parts[parts.size() > 1 ? static_cast<std::size_t>(row) : 0];
}

std::shared_ptr<const Phrases> phrases_of(const Search& search, int row) { return part_of(search.phrases, row); }

// What the rows may emit, in the form of the searches: each mask once.
class RowMasks {
 public:
  RowMasks(const Search& search, std::size_t rows, int entries) : entries_(entries) {
    std::vector<const Allow*> distinct;
    for (std::size_t row = 0; row < rows; ++row) {
      const Allow* allow = part_of(search.allow, static_cast<int>(row)).get();
      const auto found = std::find(distinct.begin(), distinct.end(), allow);
      numbers_.push_back(allow ? static_cast<std::int32_t>(found - distinct.begin()) : -1);
      if (!allow || found != distinct.end()) continue;
      distinct.push_back(allow);
      table_.insert(table_.end(), allow->tokens.begin(), allow->tokens.end());
    }
  }
  cpu::Masks masks() const {
    return table_.empty() ? cpu::Masks{} : cpu::Masks{table_.data(), numbers_.data(), entries_};
  }

 private:
  std::ptrdiff_t entries_;
  std::vector<unsigned char> table_;
  std::vector<std::int32_t> numbers_;
};

bool in_the_beam_engine(const Search& search) {
  return search.strategy != Strategy::greedy || search.ngram || search.confidence.statistic() != Statistic::none ||
         std::any_of(search.phrases.begin(), search.phrases.end(), [](const auto& phrases) { return phrases != nullptr; });
}

// What differs between two searches of what a stream's state depends on; null if nothing does.
const char* changed(const State& state, const Search& search, const std::shared_ptr<const Phrases>& phrases) {
  const Search& made = state.search;
  if (made.strategy != search.strategy) return "strategy";
  if (made.size != search.size) return "beam_size";
  if (made.strategy != Strategy::greedy && made.blank_penalty != search.blank_penalty) return "blank_penalty";
  if (made.temperature != search.temperature) return "temperature";
  if (made.blank_mode != search.blank_mode) return "blank_mode";
  if (made.confidence.statistic() != search.confidence.statistic() ||
      (made.confidence.statistic() != Statistic::none && made.confidence.alpha != search.confidence.alpha))
    return "confidence";
  if (made.ngram != search.ngram) return "ngram";
  if (made.ngram && made.ngram_weight != search.ngram_weight) return "ngram_weight";
  if (state.phrases != phrases) return "phrases";
  return nullptr;
}

// The states of all rows, one after the other, in the searches' form: prediction [N, J], hidden [L, N, H] and cell
// [C, N, H], with C = `num_cells`.
struct JoinedStates {
  std::vector<std::int64_t> places{0};  // [rows + 1]: where the states of each row begin
  PredictorState all;

  JoinedStates(const Model& model, const std::vector<const State*>& rows) {
    for (const State* state : rows) places.push_back(places.back() + static_cast<std::int64_t>(state ? state->states : 1));
    const cpu::Network& network = model.network();
    const std::size_t joint = network.joint_size;
    all.prediction.resize(static_cast<std::size_t>(places.back()) * joint);
    for (std::size_t row = 0; row < rows.size(); ++row) {
      const PredictorState& from = rows[row] ? rows[row]->network : model.start;
      std::copy(from.prediction.begin(), from.prediction.end(), all.prediction.data() + places[row] * joint);
    }
    const std::size_t width = network.predictor_size;
    const auto lay = [&](std::vector<float> PredictorState::*part, std::size_t layers) {
      std::vector<float>& to = all.*part;
      to.resize(layers * static_cast<std::size_t>(places.back()) * width);
      for (std::size_t row = 0; row < rows.size(); ++row) {
        const std::vector<float>& from = (rows[row] ? rows[row]->network : model.start).*part;
        for (std::int64_t n = places[row]; n < places[row + 1]; ++n)
          for (std::size_t layer = 0; layer < layers; ++layer)
            std::copy_n(from.data() + (static_cast<std::size_t>(n - places[row]) * layers + layer) * width, width,
                        to.data() + (layer * static_cast<std::size_t>(places.back()) + static_cast<std::size_t>(n)) * width);
      }
    };
    lay(&PredictorState::hidden, network.num_layers);
    lay(&PredictorState::cell, network.num_cells);
  }

  // The one state of a row.
  PredictorState state(const Model& model, std::size_t row) const {
    const cpu::Network& network = model.network();
    const std::size_t joint = network.joint_size, width = network.predictor_size, rows = places.size() - 1;
    PredictorState state;
    state.prediction.assign(all.prediction.data() + row * joint, all.prediction.data() + (row + 1) * joint);
    const auto take = [&](const std::vector<float>& from, int layers, std::vector<float>* to) {
      for (int layer = 0; layer < layers; ++layer) {
        const float* first = from.data() + (layer * rows + row) * width;
        to->insert(to->end(), first, first + width);
      }
    };
    take(all.hidden, network.num_layers, &state.hidden);
    take(all.cell, network.num_cells, &state.cell);
    return state;
  }
};

struct Batch {
  const std::shared_ptr<const Model>& model;
  const Search& search;
  const std::vector<const State*>& before;
  std::vector<std::int32_t> lengths, order;
  const FrameSource* sources;
  bool final;

  std::int64_t consumed(std::size_t row) const { return before[row] ? before[row]->consumed : 0; }
  std::shared_ptr<State> next(std::size_t row) const {
    auto state = std::make_shared<State>();
    state->model = model;
    state->search = search;
    state->search.phrases.clear();
    state->search.allow.clear();
    state->phrases = phrases_of(search, static_cast<int>(row));
    state->consumed = consumed(row) + lengths[row];
    return state;
  }
};

Result greedy(Batch* batch, std::vector<std::shared_ptr<const State>>* after) {
  const Model& model = *batch->model;
  const std::size_t rows = batch->lengths.size();
  JoinedStates states(model, batch->before);
  std::vector<std::int32_t> frame(rows), symbols(rows, 0);
  for (std::size_t row = 0; row < rows; ++row) frame[row] = batch->before[row] ? batch->before[row]->overshoot : 0;
  std::vector<std::int32_t>& order = batch->order;
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return frame[a] - batch->lengths[a] < frame[b] - batch->lengths[b];
  });
  cpu::Utterances utterances{};
  utterances.count = static_cast<int>(rows);
  utterances.sources = batch->sources;
  utterances.lengths = batch->lengths.data();
  utterances.order = order.data();
  const RowMasks masks(batch->search, rows, model.network().layout.vocab_size + 1);
  utterances.masks = masks.masks();
  utterances.frame = frame.data();
  utterances.symbols = symbols.data();
  utterances.prediction = states.all.prediction.data();
  utterances.hidden = states.all.hidden.data();
  utterances.cell = states.all.cell.data();
  const GreedyOptions options{batch->search.max_symbols, batch->search.blank_penalty, 0};
  cpu::Emissions emissions;
  cpu::FusedGreedy(model.network(), model.isa, options, utterances, batch->search.threads).run(&emissions, nullptr);

  Result result(rows);
  std::vector<std::size_t> counts(rows, 0);
  for (std::int32_t row : emissions.utterance) ++counts[row];
  for (std::size_t row = 0; row < rows; ++row) {
    Hypothesis& found = result[row].emplace_back();
    for (auto* part : {&found.tokens, &found.frames, &found.durations}) part->reserve(counts[row]);
    for (auto* part : {&found.token_logprobs, &found.duration_logprobs}) part->reserve(counts[row]);
  }
  for (std::size_t i = 0; i < emissions.token.size(); ++i) {
    const std::size_t row = emissions.utterance[i];
    Hypothesis& found = result[row][0];
    found.tokens.push_back(emissions.token[i]);
    found.frames.push_back(static_cast<std::int32_t>(emissions.frame[i] + batch->consumed(row)));
    found.durations.push_back(emissions.duration[i]);
    found.token_logprobs.push_back(emissions.token_logprob[i]);
    found.duration_logprobs.push_back(emissions.duration_logprob[i]);
  }
  for (auto& row : result) row[0].score = sum(row[0].token_logprobs) + sum(row[0].duration_logprobs);
  if (batch->final) return result;
  for (std::size_t row = 0; row < rows; ++row) {
    const std::shared_ptr<State> state = batch->next(row);
    state->overshoot = frame[row] - batch->lengths[row];
    state->network = states.state(model, row);
    after->push_back(state);
  }
  return result;
}

// The search of one row: its fusions, and the options that depend on them.
struct RowSearch {
  BeamOptions options{};
  cpu::Fusions fusions;
  std::vector<std::int64_t> start;  // the fusions' states before the first token

  RowSearch(const Search& search, const std::shared_ptr<const Phrases>& phrases, const RowLayout& layout) {
    fusions.entries = layout.vocab_size + 1;
    fusions.blank = layout.blank;
    if (search.ngram) add(search.ngram->tables, search.ngram_weight);
    if (phrases) add(phrases->tables, phrases->weight);
  }

  void set(const Search& search, bool as_greedy) {
    options.greedy = {search.max_symbols, search.blank_penalty, 0};
    options.strategy = as_greedy ? Strategy::greedy : search.strategy;
    options.size = as_greedy ? 1 : search.size;
    options.temperature = as_greedy ? 1.0f : search.temperature;
    options.threshold = as_greedy ? INFINITY : search.threshold;
    options.blank_mode = as_greedy ? BlankMode::no_score : search.blank_mode;
    options.prune_early = !as_greedy && search.strategy == Strategy::malsd && search.prune_early;
    options.statistic = search.confidence.statistic();
    options.alpha = options.statistic == Statistic::none ? 1.0f : static_cast<float>(search.confidence.alpha);
    options.weight_sum = 0.0f;
    for (const cpu::Fusion& fusion : fusions.list) options.weight_sum += fusion.weight;
  }

 private:
  void add(const text::AutomatonTables& tables, float weight) {
    cpu::Fusion fusion{};
    fusion.weight = weight;
    fusion.automaton = tables.view();
    fusion.function.state_size = 1;
    fusion.first = fusions.state_size++;
    fusions.list.push_back(fusion);
    start.push_back(tables.start);
  }
};

Hypothesis chain(const cpu::Beam& beam, std::int32_t last, const Confidence& confidence, int entries) {
  Hypothesis found;
  std::size_t count = 0;
  for (std::int32_t at = last; at >= 0; at = beam.records[at].previous) ++count;
  for (auto* part : {&found.tokens, &found.frames, &found.durations}) part->resize(count);
  for (auto* part : {&found.token_logprobs, &found.duration_logprobs}) part->resize(count);
  const bool measured = confidence.measure != Measure::none;
  if (measured) found.confidence.resize(count);
  for (std::int32_t at = last; at >= 0; at = beam.records[at].previous) {
    const cpu::Record& record = beam.records[at];
    --count;
    found.tokens[count] = record.token;
    found.frames[count] = record.frame;
    found.durations[count] = record.duration;
    found.token_logprobs[count] = record.token_logprob;
    found.duration_logprobs[count] = record.duration_logprob;
    if (measured) found.confidence[count] = confidence.from_sum(record.statistic, entries);
  }
  found.score = sum(found.token_logprobs) + sum(found.duration_logprobs);
  return found;
}

Result beam(Batch* batch, std::vector<std::shared_ptr<const State>>* after) {
  const Model& model = *batch->model;
  const Search& search = batch->search;
  const std::size_t rows = batch->lengths.size();
  const RowLayout& layout = model.network().layout;
  std::vector<RowSearch> searches;
  searches.reserve(rows);
  bool fused = false;
  for (std::size_t row = 0; row < rows; ++row) {
    searches.emplace_back(search, phrases_of(search, static_cast<int>(row)), layout);
    fused = fused || !searches.back().fusions.empty();
  }
  // A time-synchronous beam of one hypothesis without fusion gives what greedy search gives.
  const bool as_greedy = search.strategy == Strategy::greedy ||
                         (search.strategy == Strategy::tsd && search.size == 1 && !fused);
  cpu::BeamSearch engine;
  engine.layout = layout;
  for (std::size_t row = 0; row < rows; ++row) {
    searches[row].set(search, as_greedy);
    const Allow* allow = part_of(search.allow, static_cast<int>(row)).get();
    engine.beams.push_back(std::make_unique<cpu::Beam>(searches[row].options, layout, searches[row].fusions,
                                                       allow ? allow->tokens.data() : nullptr));
    cpu::Beam& made = *engine.beams.back();
    const State* state = batch->before[row];
    if (!state || !state->beamed) {  // a greedy search without a beam goes on as a beam of one hypothesis
      made.start(searches[row].start.data());
      made.hypotheses[0].frame = state ? state->overshoot : 0;
      made.first_frame = static_cast<int>(batch->consumed(row));
      continue;
    }
    made.hypotheses = state->hypotheses;
    for (cpu::BeamHypothesis& hypothesis : made.hypotheses) hypothesis.place = -1;
    made.records = state->records;
    made.fusion_states = state->fusion_states;
    made.first_frame = state->first_frame;
  }
  engine.options = searches[0].options;
  JoinedStates states(model, batch->before);
  std::stable_sort(batch->order.begin(), batch->order.end(),
                   [&](std::int32_t a, std::int32_t b) { return batch->lengths[a] > batch->lengths[b]; });
  cpu::BeamUtterances utterances{};
  utterances.count = static_cast<int>(rows);
  utterances.sources = batch->sources;
  utterances.lengths = batch->lengths.data();
  utterances.order = batch->order.data();
  utterances.places = states.places.data();
  utterances.states = states.places.back();
  utterances.prediction = states.all.prediction.data();
  utterances.hidden = states.all.hidden.data();
  utterances.cell = states.all.cell.data();
  std::vector<cpu::PredictorStates> kept(batch->final ? 0 : rows);
  if (!cpu::run_beams(model.network(), model.isa, &engine, utterances, search.threads, batch->final ? nullptr : &kept,
                      nullptr))
    throw std::logic_error("an automaton failed");

  Result result(rows);
  for (std::size_t row = 0; row < rows; ++row) {
    cpu::Beam& done = *engine.beams[row];
    if (!batch->final) {
      result[row].push_back(chain(done, done.settled(), search.confidence, layout.token_entries()));
      const std::shared_ptr<State> state = batch->next(row);
      state->states = done.used_slots().size();
      done.close();
      state->beamed = true;
      state->network = {std::move(kept[row].prediction), std::move(kept[row].hidden), std::move(kept[row].cell)};
      state->hypotheses = std::move(done.hypotheses);
      state->records = std::move(done.records);
      state->fusion_states = std::move(done.fusion_states);
      state->fusion_states.resize(state->states * searches[row].fusions.state_size);
      state->first_frame = done.first_frame;
      after->push_back(state);
      continue;
    }
    for (const cpu::Beam::Result& found : done.results()) {
      if (result[row].size() == static_cast<std::size_t>(search.nbest)) break;
      result[row].push_back(chain(done, found.record, search.confidence, layout.token_entries()));
      if (search.strategy != Strategy::greedy) result[row].back().score = found.score;
    }
  }
  return result;
}

}  // namespace

Result decode(const std::shared_ptr<const Model>& model, const Input& input, const Search& search,
              const std::vector<const State*>& before, bool final, std::vector<std::shared_ptr<const State>>* after) {
  if (search.strategy == Strategy::tsd) {
    int longest = 1;
    for (const auto* table : {&model->durations, &model->big_blanks})
      for (std::int32_t frames : *table) longest = std::max(longest, frames);
    if (static_cast<std::int64_t>(search.size) * (longest + 1) > kMostHypotheses)
      refuse("a beam of " + std::to_string(search.size) + " with durations up to " + std::to_string(longest) +
             " may have more than 8192 hypotheses to compare: make beam_size smaller");
  }
  bool beamed = in_the_beam_engine(search);
  Batch batch{model, search, before, {}, {}, nullptr, final};
  for (int row = 0; row < input.rows; ++row) {
    const std::int32_t length = input.lengths ? input.lengths[row] : input.frames;
    if (length < 0 || length > input.frames)
      refuse("lengths[" + std::to_string(row) + "] must be from 0 to " + std::to_string(input.frames) + ", got " +
             std::to_string(length));
    batch.lengths.push_back(length);
    const State* state = before[row];
    if (!state) continue;
    const std::string name = "before[" + std::to_string(row) + "]";
    if (state->model != model) refuse(name + " is a state of another model");
    if (const char* option = changed(*state, search, phrases_of(search, row)))
      refuse(name + " was made with another search: " + option + " may not change in the middle of a stream");
    beamed = beamed || state->beamed;
    if (state->consumed + length > kMostFrames) refuse(name + ": a stream may have 2^30 frames at most");
  }
  if (input.rows == 0) return {};
  batch.order.resize(batch.lengths.size());
  std::iota(batch.order.begin(), batch.order.end(), 0);
  const Frames frames(input, model->network().encoder_size, batch.lengths);
  batch.sources = frames.sources();
  return beamed ? beam(&batch, after) : greedy(&batch, after);
}

}  // namespace tdt::capi
