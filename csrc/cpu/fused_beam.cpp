#include "fused_beam.h"

#include <algorithm>
#include <cstring>

#include "fused_greedy.h"

namespace tdt::cpu {
namespace {

// About how many hypotheses are in flight, over all utterances.
constexpr int kHypothesesInFlight = 64;
// Most rows of one product.
constexpr int kRowsAtOnce = 64;
// Encoder frames are projected at least this many at a time. Fewer would take as long, because of reading the weights.
constexpr int kProjectedAtOnce = 12;

// The predictor state of one utterance, of B that lie in arrays [layers, B, size].
std::vector<float> state_of(const std::vector<float>& all, std::size_t utterance, std::size_t count, std::size_t layers,
                            std::size_t size) {
  std::vector<float> state;
  for (std::size_t layer = 0; layer < layers; ++layer) {
    const float* first = all.data() + (layer * count + utterance) * size;
    state.insert(state.end(), first, first + size);
  }
  return state;
}

// Greedy search over utterances whose beams need no more.
void run_greedy(const Network& network, const InstructionSet& isa, BeamSearch* search, const BeamUtterances& given,
                int threads, std::vector<PredictorStates>* after, const Profile* profile) {
  const std::size_t count = given.count, joint = network.joint_size, size = network.predictor_size;
  const std::size_t layers = network.num_layers, cells = network.num_cells;
  std::vector<float> prediction(given.prediction, given.prediction + count * joint);
  std::vector<float> hidden(given.hidden, given.hidden + layers * count * size);
  std::vector<float> cell(given.cell, given.cell + cells * count * size);
  std::vector<std::int32_t> frame(count), symbols(count), mask_numbers(count);
  std::vector<unsigned char> masks;
  std::vector<const Fusions*> fusions(count);
  std::vector<std::int64_t*> fusion_states(count);
  const std::size_t entries = network.layout.vocab_size + 1;
  for (std::size_t i = 0; i < count; ++i) {
    Beam& beam = *search->beams[i];
    frame[i] = beam.hypotheses[0].frame;
    symbols[i] = beam.hypotheses[0].symbols;
    fusions[i] = &beam.fusions();
    fusion_states[i] = beam.fusion_states.data();
    mask_numbers[i] = beam.allowed() ? static_cast<std::int32_t>(masks.size() / entries) : -1;
    if (beam.allowed()) masks.insert(masks.end(), beam.allowed(), beam.allowed() + entries);
  }
  Utterances utterances = {};
  utterances.count = given.count;
  utterances.sources = given.sources;
  utterances.lengths = given.lengths;
  utterances.order = given.order;
  utterances.masks = {masks.data(), mask_numbers.data(), static_cast<std::ptrdiff_t>(entries)};
  utterances.frame = frame.data();
  utterances.symbols = symbols.data();
  utterances.prediction = prediction.data();
  utterances.hidden = hidden.data();
  utterances.cell = cell.data();
  utterances.fusions = fusions.data();
  utterances.fusion_states = fusion_states.data();
  Emissions found;
  FusedGreedy(network, isa, search->beams[0]->greedy_options(), utterances, threads).run(&found, profile);

  for (std::size_t i = 0; i < found.token.size(); ++i)
    search->beams[found.utterance[i]]->take(found.token[i], found.frame[i], found.duration[i], found.token_logprob[i],
                                            found.duration_logprob[i]);
  for (std::size_t i = 0; i < count; ++i) {
    search->beams[i]->end_chunk(given.lengths[i], {frame[i], symbols[i]});
    if (after)
      (*after)[i] = {state_of(prediction, i, count, 1, joint), state_of(hidden, i, count, layers, size),
                     state_of(cell, i, count, cells, size)};
  }
}

}  // namespace

bool run_beams(const Network& network, const InstructionSet& isa, BeamSearch* search, const BeamUtterances& utterances,
               int threads, std::vector<PredictorStates>* after, const Profile* profile) {
  const auto is_plain_greedy = [](const std::unique_ptr<Beam>& beam) { return beam->is_plain_greedy(); };
  const auto has_fusion = [](const std::unique_ptr<Beam>& beam) { return !beam->fusions().empty(); };
  // Without any fusion, it is a beam of one hypothesis, whose score counts blanks too.
  if (!std::all_of(search->beams.begin(), search->beams.end(), is_plain_greedy) ||
      std::none_of(search->beams.begin(), search->beams.end(), has_fusion))
    return FusedBeam(network, isa, search, utterances, threads).run(after, profile);
  run_greedy(network, isa, search, utterances, threads, after, profile);
  return true;
}

FusedBeam::FusedBeam(const Network& network, const InstructionSet& isa, BeamSearch* search,
                     const BeamUtterances& utterances, int threads)
    : network_(network), isa_(isa), search_(search), utterances_(utterances), threads_(threads) {
  const BeamSizes sizes(search->options, search->layout);
  const int size = search->options.size;
  const int count = std::max(1, std::min(utterances.count, kHypothesesInFlight / size));
  places_.resize(count);
  slots_ = sizes.slots;
  kept_frames_ = sizes.spread + kProjectedAtOnce;
  int longest = 1;
  for (int i = 0; i < utterances.count; ++i) longest = std::max(longest, utterances.lengths[i]);
  kept_frames_ = std::min(kept_frames_, longest);
  const std::size_t states = static_cast<std::size_t>(count) * slots_;
  predictions_.resize(states * network.joint);
  hidden_.resize(states * network.num_layers * network.hidden);
  cells_.resize(states * network.num_cells * network.hidden);
  projected_.resize(static_cast<std::size_t>(count) * kept_frames_ * network.joint);
  blocks_.resize(count, network.encoder_size);
  frames_.resize(static_cast<std::size_t>(kRowsAtOnce) * network.encoder_size);
  logits_.resize(static_cast<std::size_t>(kRowsAtOnce) * network.output.outputs);
  for (int layer = 0; layer < network.num_layers; ++layer)
    layer_inputs_ = std::max<std::size_t>(layer_inputs_, network.layers[layer].inputs);
  const std::size_t stage = most_staged_bytes(network);
  inputs_.resize(2 * kRowsAtOnce * layer_inputs_);
  gates_.resize(static_cast<std::size_t>(kRowsAtOnce) * 4 * network.hidden);
  private_.resize(threads);
  for (Private& own : private_) {
    own.hidden.resize(static_cast<std::size_t>(kRowsAtOnce) * network.joint);
    own.rows.resize(kRowsAtOnce);
    own.outs.resize(kRowsAtOnce);
    own.staged.resize(kRowsAtOnce);
    own.stage.resize(stage * kRowsAtOnce);
  }
}

bool FusedBeam::run(std::vector<PredictorStates>* after, const Profile* profile) {
  after_ = after;
  profile_ = profile;
  team_.run(threads_, [this](int thread) { work(thread); });
  if (failure_) std::rethrow_exception(failure_);
  return !failed_;
}

void FusedBeam::work(int thread) {
  private_[thread].watch.start(profile_, thread);
  for (;;) {
    if (thread == 0) {
      try {
        plan();
      } catch (...) {  // rethrown later: the other threads wait at the barrier
        failure_ = std::current_exception();
        done_ = true;
      }
    }
    lap(thread, Phase::search);
    wait(thread);
    if (done_) return;
    request(thread);
    lap(thread, Phase::search);
    wait(thread);
    if (failed_) return;
    if (thread == 0) collect();
    lap(thread, Phase::search);
    wait(thread);
    if (collect_failed_) return;  // not failed_: a thread may read that late, and miss this barrier
    in_blocks(steps_.size(), [&](std::size_t first, int count) { predict(thread, first, count); });
    in_blocks(missing_.size(), [&](std::size_t first, int count) { project(thread, first, count); });
    in_blocks(rows_.size(), [&](std::size_t first, int count) { score(thread, first, count); });
  }
}

template <class Block>
void FusedBeam::in_blocks(std::size_t count, Block block) {
  for (std::size_t first = 0; first < count; first += kRowsAtOnce)
    block(first, static_cast<int>(std::min<std::size_t>(kRowsAtOnce, count - first)));
}

// Releases finished utterances and admits new ones.
void FusedBeam::plan() {
  bool busy = false;
  try {
    for (Place& place : places_) {
      if (place.utterance >= 0 && beam(place).scorings().empty()) release(place);
      if (place.utterance < 0 && next_ < utterances_.count) admit(place, utterances_.order[next_++]);
      busy |= place.utterance >= 0;
    }
  } catch (...) {
    failure_ = std::current_exception();
    done_ = true;
    return;
  }
  done_ = !busy;
}

void FusedBeam::admit(Place& place, int utterance) {
  const int at = index(place);
  const std::size_t hidden_size = network_.predictor_size, joint = network_.joint_size;
  place.utterance = utterance;
  place.fresh = true;
  place.projected = -1;
  blocks_.forget(at);
  const std::int64_t first = utterances_.places[utterance];
  const auto count = static_cast<int>(utterances_.places[utterance + 1] - first);
  for (int slot = 0; slot < count; ++slot) {
    std::memcpy(prediction(at, slot), utterances_.prediction + (first + slot) * joint, joint * sizeof(float));
    for (int layer = 0; layer < network_.num_layers; ++layer) {
      const std::size_t from = (static_cast<std::size_t>(layer) * utterances_.states + first + slot) * hidden_size;
      std::memcpy(hidden(layer, at, slot), utterances_.hidden + from, hidden_size * sizeof(float));
    }
    for (int i = 0; i < network_.num_cells; ++i) {
      const std::size_t from = (static_cast<std::size_t>(i) * utterances_.states + first + slot) * hidden_size;
      std::memcpy(cell(i, at, slot), utterances_.cell + from, hidden_size * sizeof(float));
    }
  }
}

void FusedBeam::release(Place& place) {
  const int at = index(place);
  const std::size_t hidden_size = network_.predictor_size, joint = network_.joint_size;
  if (after_) {
    PredictorStates& states = (*after_)[place.utterance];
    for (const std::int32_t slot : beam(place).used_slots()) {
      const float* row = prediction(at, slot);
      states.prediction.insert(states.prediction.end(), row, row + joint);
      for (int layer = 0; layer < network_.num_layers; ++layer) {
        const float* h = hidden(layer, at, slot);
        states.hidden.insert(states.hidden.end(), h, h + hidden_size);
      }
      for (int i = 0; i < network_.num_cells; ++i) {
        const float* c = cell(i, at, slot);
        states.cell.insert(states.cell.end(), c, c + hidden_size);
      }
    }
  }
  beam(place).rest();
  place.utterance = -1;
}

// Moves this thread's beams on as far as possible. They then list what they need next.
void FusedBeam::request(int thread) {
  for (std::size_t i = thread; i < places_.size(); i += team_.size()) {
    Place& place = places_[i];
    if (place.utterance < 0) continue;
    try {
      if (place.fresh && !beam(place).open(utterances_.lengths[place.utterance])) failed_ = true;
      place.fresh = false;
      if (!failed_ && !beam(place).request()) failed_ = true;
    } catch (...) {  // rethrown later: the other threads wait at the next barrier
      if (!failure_taken_.test_and_set()) failure_ = std::current_exception();
      failed_ = true;
    }
  }
}

void FusedBeam::collect() {
  steps_.clear();
  rows_.clear();
  missing_.clear();
  try {
    for (Place& place : places_) {
      if (place.utterance < 0) continue;
      const int at = index(place);
      for (const Prediction& step : beam(place).predictions()) steps_.push_back({at, step.parent, step.slot, step.token});
      int first = kNoIndex, last = -1;
      for (const Scoring& scoring : beam(place).scorings()) {
        rows_.push_back({at, scoring});
        first = std::min(first, scoring.frame);
        last = std::max(last, scoring.frame);
      }
      if (place.projected < 0) place.projected = first;
      if (place.projected > last) continue;
      const int length = utterances_.lengths[place.utterance];
      const int until = std::min(std::max(last + 1, place.projected + kProjectedAtOnce), length);
      for (; place.projected < until; ++place.projected) missing_.push_back({at, place.projected});
    }
    count(Count::passes, 1);
    count(Count::joint_rows, rows_.size());
    count(Count::predictor_steps, steps_.size());
    count(Count::projected_frames, missing_.size());
  } catch (...) {
    failure_ = std::current_exception();
    collect_failed_ = true;
  }
}

// Multiplies the rows in this thread's `rows` with a matrix. Writes the thread's share of the outputs to its `outs`.
// `phase` is what the product's time counts as.
void FusedBeam::multiply(int thread, const Matrix& matrix, int count, Phase phase) {
  Private& mine = private_[thread];
  const int first = matrix.panel_count() * thread / team_.size();
  const int last = matrix.panel_count() * (thread + 1) / team_.size();
  isa_.network->stage(matrix, mine.rows.data(), count, mine.stage.data(), mine.staged.data());
  lap(thread, Phase::staging);
  isa_.network->multiply(matrix, mine.staged.data(), count, first, last, mine.outs.data());
  lap(thread, phase);
}

// Takes predictor steps, from the states in the parents' slots to new slots.
void FusedBeam::predict(int thread, std::size_t first, int count) {
  Private& mine = private_[thread];
  const Step* steps = steps_.data() + first;
  const std::size_t width = network_.hidden * sizeof(float);
  if (network_.table_kind == TableKind::prediction) {
    for (int i = thread; i < count; i += team_.size())
      std::memcpy(prediction(steps[i].place, steps[i].slot),
                  network_.table + static_cast<std::size_t>(steps[i].token) * network_.table_width,
                  network_.joint * sizeof(float));
    lap(thread, Phase::staging);
    wait(thread);
    return;
  }
  if (network_.table_kind == TableKind::context) {
    const auto output = [&](int i) { return gates_.data() + static_cast<std::size_t>(i) * network_.hidden; };
    for (int i = thread; i < count; i += team_.size()) {
      const Step& step = steps[i];
      context_step(network_, *isa_.network, step.token, cell(0, step.place, step.parent),
                   cell(0, step.place, step.slot), output(i));
    }
    lap(thread, Phase::predictor);
    wait(thread);
    for (int i = 0; i < count; ++i) {
      mine.rows[i] = output(i);
      mine.outs[i] = prediction(steps[i].place, steps[i].slot);
    }
    multiply(thread, network_.prediction, count, Phase::predictor);
    wait(thread);
    return;
  }
  // A layer's inputs are what comes from below, then its own last output. Layers take turns with two buffers: a thread
  // writes the next layer's inputs while others still read those of this layer.
  const auto inputs = [&](int layer, int i) {
    return inputs_.data() + (static_cast<std::size_t>(layer % 2) * kRowsAtOnce + i) * layer_inputs_;
  };
  for (int i = thread; i < count; i += team_.size()) {
    const Step& step = steps[i];
    const int below = network_.inputs_from_below(0);
    if (network_.table_kind == TableKind::input)
      std::memcpy(inputs(0, i), network_.table + static_cast<std::size_t>(step.token) * network_.table_width,
                  below * sizeof(float));
    std::memcpy(inputs(0, i) + below, hidden(0, step.place, step.parent), width);
    for (int layer = 0; layer < network_.num_layers; ++layer)
      std::memcpy(cell(layer, step.place, step.slot), cell(layer, step.place, step.parent), width);
  }
  lap(thread, Phase::staging);
  wait(thread);
  for (int layer = 0; layer < network_.num_layers; ++layer) {
    const Matrix& gates = network_.layers[layer];
    const int first_panel = gates.panel_count() * thread / team_.size();
    const int last_panel = gates.panel_count() * (thread + 1) / team_.size();
    const bool above = layer + 1 < network_.num_layers;
    for (int i = 0; i < count; ++i) {
      mine.rows[i] = inputs(layer, i);
      mine.outs[i] = gates_.data() + static_cast<std::size_t>(i) * gates.outputs;
    }
    multiply(thread, gates, count, Phase::predictor);
    for (int i = 0; i < count; ++i) {
      const Step& step = steps[i];
      const float* addend = nullptr;
      if (layer == 0 && network_.table_kind == TableKind::gates)
        addend = network_.table + static_cast<std::size_t>(step.token) * network_.table_width;
      isa_.network->lstm_cell(mine.outs[i], addend, first_panel, last_panel, cell(layer, step.place, step.slot),
                              hidden(layer, step.place, step.slot), above ? inputs(layer + 1, i) : nullptr);
      if (above && i % team_.size() == thread)
        std::memcpy(inputs(layer + 1, i) + network_.inputs_from_below(layer + 1),
                    hidden(layer + 1, step.place, step.parent), width);
    }
    lap(thread, Phase::predictor);
    wait(thread);
  }
  for (int i = 0; i < count; ++i) {
    mine.rows[i] = hidden(network_.num_layers - 1, steps[i].place, steps[i].slot);
    mine.outs[i] = prediction(steps[i].place, steps[i].slot);
  }
  multiply(thread, network_.prediction, count, Phase::predictor);
  wait(thread);
}

// Projects encoder frames to the joint's hidden layer.
void FusedBeam::project(int thread, std::size_t first, int count) {
  Private& mine = private_[thread];
  const std::size_t size = network_.encoder_size;
  for (int i = 0; i < count; ++i) {
    const auto [at, frame] = missing_[first + i];
    float* row = frames_.data() + i * size;
    const int utterance = places_[at].utterance;
    if (at % team_.size() == thread)
      blocks_.read(at, utterances_.sources[utterance], frame, utterances_.lengths[utterance], row);
    mine.rows[i] = row;
    mine.outs[i] = projected(at, frame);
  }
  lap(thread, Phase::staging);
  wait(thread);
  multiply(thread, network_.encoder, count, Phase::projection);
  wait(thread);
}

// Computes joint rows and ranks them.
void FusedBeam::score(int thread, std::size_t first, int count) {
  Private& mine = private_[thread];
  for (int i = 0; i < count; ++i) {
    const auto& [at, scoring] = rows_[first + i];
    float* hidden = mine.hidden.data() + static_cast<std::size_t>(i) * network_.joint;
    isa_.network->hidden(network_.activation, projected(at, scoring.frame), prediction(at, scoring.slot),
                         network_.joint, hidden);
    mine.rows[i] = hidden;
    mine.outs[i] = logits_.data() + static_cast<std::size_t>(i) * network_.output.outputs;
  }
  multiply(thread, network_.output, count, Phase::joint);
  wait(thread);
  for (int i = thread; i < count; i += team_.size()) {
    const auto& [at, scoring] = rows_[first + i];
    beam(places_[at]).rank(scoring, mine.outs[i], isa_.rank);
  }
  lap(thread, Phase::search);
  wait(thread);
}

}  // namespace tdt::cpu
