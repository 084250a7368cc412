#include "fused_greedy.h"

#include <algorithm>
#include <cstring>

namespace tdt::cpu {
namespace {

constexpr int kRowsInFlight = 64;
// Encoder frames are projected at least so many at a time: reading the weights for a few costs as much.
constexpr int kProjectedAtOnce = 12;
// Projected frames that a row keeps: those ahead and those of its window.
constexpr int kProjectedKept = kProjectedAtOnce + kFramesAtOnce;
constexpr int kKeptAtOnce = 64;
}  // namespace

FusedGreedy::FusedGreedy(const Network& network, const InstructionSet& isa, const GreedyOptions& options,
                         const Utterances& utterances, int threads)
    : network_(network), isa_(isa), options_(options), utterances_(utterances), threads_(threads) {
  const int count = std::max(1, std::min(utterances.count, kRowsInFlight));
  scored_at_once_ = std::max(count, kFramesAtOnce);
  const int projected_at_once = std::max(count, kProjectedAtOnce);
  rows_.resize(count);
  keep_at_once_ = screens() ? kKeptAtOnce + count : 0;
  std::size_t size = 0;
  for (int layer = 0; layer < network.num_layers; ++layer) {
    input_offsets_.push_back(size);
    size += 2 * static_cast<std::size_t>(count) * (network.inputs_from_below(layer) + network.hidden);
  }
  inputs_.resize(size);
  cells_.resize(static_cast<std::size_t>(network.num_layers) * count * network.hidden);
  predictions_.resize(static_cast<std::size_t>(count) * network.joint);
  blocks_.resize(count, network.encoder_size);
  frames_.resize(static_cast<std::size_t>(projected_at_once) * network.encoder_size);
  projected_.resize(static_cast<std::size_t>(count) * kProjectedKept * network.joint);
  gates_.resize(static_cast<std::size_t>(count) * 4 * network.hidden);
  const int products = std::max({scored_at_once_, keep_at_once_, projected_at_once});
  logits_.resize(static_cast<std::size_t>(products) * network.output.outputs);
  kept_.resize(static_cast<std::size_t>(keep_at_once_) * network.joint);
  missing_.reserve(projected_at_once);
  scored_.reserve(scored_at_once_);
  pending_.reserve(count);
  emitted_.reserve(count);
  kept_for_.reserve(keep_at_once_);

  const std::size_t stage = most_staged_bytes(network);
  private_.resize(threads);
  for (Private& own : private_) {
    own.hidden.resize(static_cast<std::size_t>(scored_at_once_) * network.joint);
    own.rows.resize(products);
    own.outs.resize(products);
    own.staged.resize(products);
    own.stage.resize(stage * products);
    if (!screens()) continue;
    own.screened.resize(products);
    own.screen_stage.resize(staged_bytes(network.screen) * products);
    own.screen_row.resize(network.output.outputs);
    own.screen_values.resize(network.output.outputs);
    own.screen_outputs.resize(network.output.outputs);
    own.screen_found.resize(network.output.outputs);
  }
}

float* FusedGreedy::inputs(int layer, int row, int parity) {
  const std::size_t width = network_.inputs_from_below(layer) + network_.hidden;
  return inputs_.data() + input_offsets_[layer] + (2 * static_cast<std::size_t>(row) + parity) * width;
}

float* FusedGreedy::projected(int row, int frame) {
  const std::size_t place = static_cast<std::size_t>(row) * kProjectedKept + frame % kProjectedKept;
  return projected_.data() + place * network_.joint;
}

void FusedGreedy::run(Emissions* emissions) {
  emissions_ = emissions;
  team_.run(threads_, [this](int thread) { work(thread); });
  if (failure_) std::rethrow_exception(failure_);
}

void FusedGreedy::work(int thread) {
  for (;;) {
    if (thread == 0) plan();
    team_.barrier();
    if (done_) return;
    if (!missing_.empty()) {
      fetch(thread);
      project(thread);
    }
    score(thread);
    decide_rows(thread);
    if (thread == 0) collect();
    team_.barrier();
    if (failed_) return;  // not done_: thread 0 may already be planning the next pass
    if (rescore_) rescore(thread);
    if (!emitted_.empty()) predict(thread);
  }
}

// Lets finished utterances go and new ones in, and lists the frames that the pass scores.
void FusedGreedy::plan() {
  missing_.clear();
  scored_.clear();
  pending_.clear();
  for (Row& row : rows_) {
    if (row.utterance >= 0 && row.at.frame >= utterances_.lengths[row.utterance]) release(row);
    while (row.utterance < 0 && next_ < utterances_.count) {
      admit(row, utterances_.order[next_++]);
      if (row.at.frame >= utterances_.lengths[row.utterance]) release(row);
    }
    if (row.utterance >= 0) pending_.push_back(static_cast<int>(&row - rows_.data()));
  }
  if (pending_.empty()) {
    done_ = true;
    return;
  }
  const int rows = static_cast<int>(pending_.size());
  const int window = std::max(1, kFramesAtOnce / rows), ahead = std::max(1, kProjectedAtOnce / rows);
  for (int index : pending_) {
    Row& row = rows_[index];
    row.window = std::min(window, utterances_.lengths[row.utterance] - row.at.frame);
    row.scored = static_cast<int>(scored_.size());
    const int end = row.at.frame + row.window;
    for (int frame = row.at.frame; frame < end; ++frame) scored_.push_back({index, frame});
    if (row.projected >= end) continue;
    row.projected = std::max(row.projected, row.at.frame);
    const int until = std::min(std::max(end, row.projected + ahead), utterances_.lengths[row.utterance]);
    for (; row.projected < until; ++row.projected) missing_.push_back({index, row.projected});
  }
}

void FusedGreedy::admit(Row& row, int utterance) {
  const int index = static_cast<int>(&row - rows_.data());
  const std::size_t hidden = network_.predictor_size, joint = network_.joint_size;
  row.utterance = utterance;
  row.at = {utterances_.frame[utterance], utterances_.symbols[utterance]};
  row.parity = 0;
  blocks_.forget(index);
  row.projected = row.at.frame;
  std::memcpy(prediction(index), utterances_.prediction + utterance * joint, joint * sizeof(float));
  for (int layer = 0; layer < network_.num_layers; ++layer) {
    const std::size_t at = (static_cast<std::size_t>(layer) * utterances_.count + utterance) * hidden;
    std::memcpy(own(layer, index, 0), utterances_.hidden + at, hidden * sizeof(float));
    std::memcpy(cell(layer, index), utterances_.cell + at, hidden * sizeof(float));
  }
}

void FusedGreedy::release(Row& row) {
  const int index = static_cast<int>(&row - rows_.data()), utterance = row.utterance;
  const std::size_t hidden = network_.predictor_size, joint = network_.joint_size;
  utterances_.frame[utterance] = row.at.frame;
  utterances_.symbols[utterance] = row.at.symbols;
  std::memcpy(utterances_.prediction + utterance * joint, prediction(index), joint * sizeof(float));
  for (int layer = 0; layer < network_.num_layers; ++layer) {
    const std::size_t at = (static_cast<std::size_t>(layer) * utterances_.count + utterance) * hidden;
    std::memcpy(utterances_.hidden + at, own(layer, index, row.parity), hidden * sizeof(float));
    std::memcpy(utterances_.cell + at, cell(layer, index), hidden * sizeof(float));
  }
  row.utterance = -1;
}

void FusedGreedy::multiply(int thread, const Matrix& matrix, const std::vector<StagedRow>& staged, int count) {
  const int first = matrix.panel_count() * thread / team_.size();
  const int last = matrix.panel_count() * (thread + 1) / team_.size();
  isa_.network->multiply(matrix, staged.data(), count, first, last, private_[thread].outs.data());
}

// Lays the frames that are new out as rows.
void FusedGreedy::fetch(int thread) {
  const std::size_t size = network_.encoder_size;
  for (std::size_t i = 0; i < missing_.size(); ++i) {
    const auto [index, frame] = missing_[i];
    if (index % team_.size() != thread) continue;
    blocks_.read(index, utterances_.sources[rows_[index].utterance], frame, utterances_.lengths[rows_[index].utterance],
                 frames_.data() + i * size);
  }
  team_.barrier();
}

void FusedGreedy::project(int thread) {
  Private& mine = private_[thread];
  const int count = static_cast<int>(missing_.size());
  for (int i = 0; i < count; ++i) {
    mine.rows[i] = frames_.data() + static_cast<std::size_t>(i) * network_.encoder_size;
    mine.outs[i] = projected(missing_[i].row, missing_[i].frame);
  }
  isa_.network->stage(network_.encoder, mine.rows.data(), count, mine.stage.data(), mine.staged.data());
  multiply(thread, network_.encoder, mine.staged, count);
  team_.barrier();
}

void FusedGreedy::score(int thread) {
  Private& mine = private_[thread];
  const int count = static_cast<int>(scored_.size());
  for (int i = 0; i < count; ++i) {
    const auto [row, frame] = scored_[i];
    float* hidden = mine.hidden.data() + static_cast<std::size_t>(i) * network_.joint;
    isa_.network->hidden(network_.activation, projected(row, frame), prediction(row), network_.joint, hidden);
    mine.rows[i] = hidden;
    mine.outs[i] = logits(i);
  }
  isa_.network->stage(network_.output, mine.rows.data(), count, mine.stage.data(), mine.staged.data());
  if (screens()) {
    isa_.network->stage(network_.screen, mine.rows.data(), count, mine.screen_stage.data(), mine.screened.data());
    multiply(thread, network_.screen, mine.screened, count);
  } else {
    multiply(thread, network_.output, mine.staged, count);
  }
  team_.barrier();
}

// Follows each row through its window, up to its next token.
void FusedGreedy::decide_rows(int thread) {
  Private& mine = private_[thread];
  const RowLayout& layout = network_.layout;
  for (std::size_t i = thread; i < pending_.size(); i += team_.size()) {
    Row& row = rows_[pending_[i]];
    const int first = row.at.frame;
    row.emitted = false;
    row.logged = 0;
    while (!row.emitted && row.at.frame < first + row.window) {
      const int scored = row.scored + row.at.frame - first;
      Decision decision;
      if (screens()) {
        const ScreenScratch scratch = {mine.screen_row.data(), mine.screen_values.data(), mine.screen_outputs.data(),
                                       mine.screen_found.data()};
        decision = decide_screened(network_, isa_, logits(scored), mine.screened[scored], mine.staged[scored],
                                   options_, scratch);
      } else {
        isa_.decide(logits(scored), 1, layout, options_, &decision.token, &decision.duration, &decision.token_logprob,
                    &decision.duration_logprob);
      }
      row.emitted = decision.token != layout.blank;
      if (row.emitted || options_.trace) row.steps[row.logged++] = {decision, row.at.frame, scored};
      if (row.emitted) row.token = decision.token;
      row.at = advanced(row.at, !row.emitted, decision.duration, options_);
    }
  }
  team_.barrier();
}

// Writes down what was emitted, and what the predictor needs of it.
void FusedGreedy::collect() {
  emitted_.clear();
  try {
    for (int index : pending_) {
      const Row& row = rows_[index];
      if (row.emitted) emitted_.push_back(index);
      for (const Step* step = row.steps; step < row.steps + row.logged; ++step) {
        if (screens()) {
          const float* hidden = private_[0].hidden.data() + static_cast<std::size_t>(step->scored) * network_.joint;
          std::memcpy(kept_.data() + kept_for_.size() * network_.joint, hidden, network_.joint * sizeof(float));
          kept_for_.push_back(emissions_->token.size());
        }
        emissions_->utterance.push_back(row.utterance);
        emissions_->token.push_back(step->decision.token);
        emissions_->frame.push_back(step->frame);
        emissions_->duration.push_back(step->decision.duration);
        emissions_->token_logprob.push_back(step->decision.token_logprob);
        emissions_->duration_logprob.push_back(step->decision.duration_logprob);
      }
    }
  } catch (...) {  // the other threads must not wait for ever
    failure_ = std::current_exception();
    failed_ = true;
    return;
  }
  for (int index : emitted_) {
    const Row& row = rows_[index];
    const float* entry = network_.table + static_cast<std::size_t>(row.token) * network_.table_width;
    if (network_.table_kind == TableKind::prediction)
      std::memcpy(prediction(index), entry, network_.joint * sizeof(float));
    if (network_.table_kind == TableKind::input)
      std::memcpy(inputs(0, index, row.parity), entry, network_.table_width * sizeof(float));
  }
  bool last = next_ >= utterances_.count;
  for (const Row& row : rows_)
    last = last && (row.utterance < 0 || row.at.frame >= utterances_.lengths[row.utterance]);
  rescore_ = !kept_for_.empty() && (last || kept_for_.size() >= kKeptAtOnce);
}

// Log-probabilities of kept hidden vectors, from whole rows in one product.
void FusedGreedy::rescore(int thread) {
  Private& mine = private_[thread];
  const int count = static_cast<int>(kept_for_.size());
  for (int i = 0; i < count; ++i) {
    mine.rows[i] = kept_.data() + static_cast<std::size_t>(i) * network_.joint;
    mine.outs[i] = logits(i);
  }
  isa_.network->stage(network_.output, mine.rows.data(), count, mine.stage.data(), mine.staged.data());
  multiply(thread, network_.output, mine.staged, count);
  team_.barrier();
  for (int i = thread; i < count; i += team_.size()) {
    const std::size_t at = kept_for_[i];
    Decision decision;
    isa_.decide(logits(i), 1, network_.layout, options_, &decision.token, &decision.duration,
                &emissions_->token_logprob[at], &emissions_->duration_logprob[at]);
  }
  team_.barrier();
  if (thread == 0) kept_for_.clear();
}

void FusedGreedy::predict(int thread) {
  Private& mine = private_[thread];
  const int count = static_cast<int>(emitted_.size());
  for (int layer = 0; layer < network_.num_layers; ++layer) {
    const Matrix& gates = network_.layers[layer];
    for (int i = 0; i < count; ++i) {
      mine.rows[i] = inputs(layer, emitted_[i], rows_[emitted_[i]].parity);
      mine.outs[i] = gates_.data() + static_cast<std::size_t>(i) * gates.outputs;
    }
    isa_.network->stage(gates, mine.rows.data(), count, mine.stage.data(), mine.staged.data());
    multiply(thread, gates, mine.staged, count);
    const int first = gates.panel_count() * thread / team_.size();
    const int last = gates.panel_count() * (thread + 1) / team_.size();
    for (int i = 0; i < count; ++i) {
      const int index = emitted_[i], parity = rows_[index].parity;
      const float* addend = nullptr;
      if (layer == 0 && network_.table_kind == TableKind::gates)
        addend = network_.table + static_cast<std::size_t>(rows_[index].token) * network_.table_width;
      float* above = layer + 1 < network_.num_layers ? inputs(layer + 1, index, parity) : nullptr;
      isa_.network->lstm_cell(mine.outs[i], addend, first, last, cell(layer, index), own(layer, index, 1 - parity),
                                  above);
    }
    team_.barrier();
  }
  if (network_.num_layers == 0) return;
  for (int i = 0; i < count; ++i) {
    const int index = emitted_[i];
    mine.rows[i] = own(network_.num_layers - 1, index, 1 - rows_[index].parity);
    mine.outs[i] = prediction(index);
  }
  isa_.network->stage(network_.prediction, mine.rows.data(), count, mine.stage.data(), mine.staged.data());
  multiply(thread, network_.prediction, mine.staged, count);
  team_.barrier();
  if (thread == 0)
    for (int index : emitted_) rows_[index].parity = 1 - rows_[index].parity;
}

}  // namespace tdt::cpu
