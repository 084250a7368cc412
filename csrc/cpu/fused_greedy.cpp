#include "fused_greedy.h"

#include <algorithm>
#include <cstring>

namespace tdt::cpu {
namespace {

// Most utterances in flight.
constexpr int kSlots = 64;
// Encoder frames are projected at least this many at a time. Fewer would take as long, because of reading the weights.
constexpr int kProjectedAtOnce = 12;
// Projected frames that a slot keeps: those of its window and those projected ahead.
constexpr int kProjectedKept = kProjectedAtOnce + kMostFramesAtOnce;
// Log-probabilities of screened rows are computed once this many are outstanding.
constexpr int kKeptAtOnce = 64;
}  // namespace

FusedGreedy::FusedGreedy(const Network& network, const InstructionSet& isa, const GreedyOptions& options,
                         const Utterances& utterances, int threads)
    : network_(network), isa_(isa), options_(options), utterances_(utterances), threads_(threads) {
  const int count = std::max(1, std::min(utterances.count, kSlots));
  slots_.resize(count);
  // As many frames as cost no more than reading the weights once: with more, arithmetic takes longer, and those behind
  // the next token would be scored in vain.
  const Format joint = screens() ? Format::int8 : network.output.format;
  frames_at_once_ = std::min(isa.rows_while_reading[joint], kMostFramesAtOnce);
  scored_at_once_ = std::max(count, frames_at_once_);
  const int projected_at_once = std::max(scored_at_once_, kProjectedAtOnce);
  keep_at_once_ = screens() ? kKeptAtOnce + count : 0;
  std::size_t size = 0;
  for (int layer = 0; layer < network.num_layers; ++layer) {
    input_offsets_.push_back(size);
    size += 2 * static_cast<std::size_t>(count) * (network.inputs_from_below(layer) + network.hidden);
  }
  inputs_.resize(size);
  cells_.resize(static_cast<std::size_t>(network.num_cells) * count * network.hidden);
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

  // Threads must not allocate memory: they could not say that there is none.
  const std::size_t entries = network.layout.vocab_size + 1;
  int fusion_state_size = 0;
  if (utterances.fusions) {
    std::size_t most = 0;  // fusions of an utterance
    for (int i = 0; i < utterances.count; ++i) {
      fusion_state_size = std::max(fusion_state_size, utterances.fusions[i]->state_size);
      most = std::max(most, utterances.fusions[i]->list.size());
    }
    for (Slot& slot : slots_) {
      slot.scores.reserve(entries);
      slot.fusion_scratch = FusionScratch(most, static_cast<int>(entries));
    }
  }

  if (screens()) screen_blocks_ = ScreenBlocks(network, network.layout.token_entries());
  const std::size_t stage = most_staged_bytes(network);
  private_.resize(threads);
  for (Private& own : private_) {
    own.hidden.resize(static_cast<std::size_t>(scored_at_once_) * network.joint);
    own.rows.resize(products);
    own.outs.resize(products);
    own.staged.resize(products);
    own.stage.resize(stage * products);
    if (utterances.fusions) {
      own.only.resize(entries);
      own.fusion_state.resize(fusion_state_size);
    }
    if (!screens()) continue;
    own.screened.resize(products);
    own.screen_stage.resize(staged_bytes(network.screen) * products);
    own.screen_row.resize(network.output.outputs);
    own.screen_values.resize(network.output.outputs);
    own.screen_outputs.resize(2 * static_cast<std::size_t>(network.output.outputs));
    own.screen_known.resize(network.output.outputs);
    own.screen_maxima.resize(screen_blocks_.norms.size());
  }
}

float* FusedGreedy::inputs(int layer, int slot, int parity) {
  const std::size_t width = network_.inputs_from_below(layer) + network_.hidden;
  return inputs_.data() + input_offsets_[layer] + (2 * static_cast<std::size_t>(slot) + parity) * width;
}

float* FusedGreedy::projected(int slot, int frame) {
  const std::size_t place = static_cast<std::size_t>(slot) * kProjectedKept + frame % kProjectedKept;
  return projected_.data() + place * network_.joint;
}

void FusedGreedy::run(Emissions* emissions, const Profile* profile) {
  emissions_ = emissions;
  profile_ = profile;
  team_.run(threads_, [this](int thread) { work(thread); });
  if (failure_) std::rethrow_exception(failure_);
}

void FusedGreedy::work(int thread) {
  private_[thread].watch.start(profile_, thread);
  for (;;) {
    if (thread == 0) plan();
    lap(thread, Phase::search);
    wait(thread);
    if (done_) return;
    if (!missing_.empty()) {
      fetch(thread);
      project(thread);
    }
    score(thread);
    decide_rows(thread);
    if (thread == 0) collect();
    lap(thread, Phase::search);
    wait(thread);
    if (failed_) return;  // not done_: thread 0 may already be planning the next pass
    if (rescore_) rescore(thread);
    if (!emitted_.empty()) predict(thread);
  }
}

// Releases finished utterances, admits new ones, and lists the frames that the pass scores.
void FusedGreedy::plan() {
  missing_.clear();
  scored_.clear();
  pending_.clear();
  for (Slot& slot : slots_) {
    if (slot.utterance >= 0 && slot.at.frame >= utterances_.lengths[slot.utterance]) release(slot);
    while (slot.utterance < 0 && next_ < utterances_.count) {
      admit(slot, utterances_.order[next_++]);
      if (slot.at.frame >= utterances_.lengths[slot.utterance]) release(slot);
    }
    if (slot.utterance >= 0) pending_.push_back(static_cast<int>(&slot - slots_.data()));
  }
  if (pending_.empty()) {
    done_ = true;
    return;
  }
  const int count = static_cast<int>(pending_.size());
  const int window = std::max(1, frames_at_once_ / count), ahead = std::max(1, kProjectedAtOnce / count);
  for (int index : pending_) {
    Slot& slot = slots_[index];
    slot.window = std::min(window, utterances_.lengths[slot.utterance] - slot.at.frame);
    slot.scored = static_cast<int>(scored_.size());
    const int end = slot.at.frame + slot.window;
    for (int frame = slot.at.frame; frame < end; ++frame) scored_.push_back({index, frame});
    if (slot.projected >= end) continue;
    slot.projected = std::max(slot.projected, slot.at.frame);
    const int until = std::min(std::max(end, slot.projected + ahead), utterances_.lengths[slot.utterance]);
    for (; slot.projected < until; ++slot.projected) missing_.push_back({index, slot.projected});
  }
}

void FusedGreedy::admit(Slot& slot, int utterance) {
  const int index = static_cast<int>(&slot - slots_.data());
  const std::size_t hidden = network_.predictor_size, joint = network_.joint_size;
  slot.utterance = utterance;
  slot.at = {utterances_.frame[utterance], utterances_.symbols[utterance]};
  slot.parity = 0;
  blocks_.forget(index);
  slot.projected = slot.at.frame;
  slot.fresh = true;
  std::memcpy(prediction(index), utterances_.prediction + utterance * joint, joint * sizeof(float));
  for (int layer = 0; layer < network_.num_layers; ++layer) {
    const std::size_t at = (static_cast<std::size_t>(layer) * utterances_.count + utterance) * hidden;
    std::memcpy(own(layer, index, 0), utterances_.hidden + at, hidden * sizeof(float));
  }
  for (int i = 0; i < network_.num_cells; ++i) {
    const std::size_t at = (static_cast<std::size_t>(i) * utterances_.count + utterance) * hidden;
    std::memcpy(cell(i, index), utterances_.cell + at, hidden * sizeof(float));
  }
}

void FusedGreedy::release(Slot& slot) {
  const int index = static_cast<int>(&slot - slots_.data()), utterance = slot.utterance;
  const std::size_t hidden = network_.predictor_size, joint = network_.joint_size;
  utterances_.frame[utterance] = slot.at.frame;
  utterances_.symbols[utterance] = slot.at.symbols;
  std::memcpy(utterances_.prediction + utterance * joint, prediction(index), joint * sizeof(float));
  for (int layer = 0; layer < network_.num_layers; ++layer) {
    const std::size_t at = (static_cast<std::size_t>(layer) * utterances_.count + utterance) * hidden;
    std::memcpy(utterances_.hidden + at, own(layer, index, slot.parity), hidden * sizeof(float));
  }
  for (int i = 0; i < network_.num_cells; ++i) {
    const std::size_t at = (static_cast<std::size_t>(i) * utterances_.count + utterance) * hidden;
    std::memcpy(utterances_.cell + at, cell(i, index), hidden * sizeof(float));
  }
  slot.utterance = -1;
}

void FusedGreedy::multiply(int thread, const Matrix& matrix, const std::vector<StagedRow>& staged, int count) {
  const int first = matrix.panel_count() * thread / team_.size();
  const int last = matrix.panel_count() * (thread + 1) / team_.size();
  isa_.network->multiply(matrix, staged.data(), count, first, last, private_[thread].outs.data());
}

// Copies the frames that are to be projected out of the encoder output, one to a row of `frames_`.
void FusedGreedy::fetch(int thread) {
  const std::size_t size = network_.encoder_size;
  for (std::size_t i = 0; i < missing_.size(); ++i) {
    const auto [index, frame] = missing_[i];
    if (index % team_.size() != thread) continue;
    const int utterance = slots_[index].utterance;
    blocks_.read(index, utterances_.sources[utterance], frame, utterances_.lengths[utterance],
                 frames_.data() + i * size);
  }
  lap(thread, Phase::staging);
  wait(thread);
}

void FusedGreedy::project(int thread) {
  Private& mine = private_[thread];
  const int count = static_cast<int>(missing_.size());
  for (int i = 0; i < count; ++i) {
    mine.rows[i] = frames_.data() + static_cast<std::size_t>(i) * network_.encoder_size;
    mine.outs[i] = projected(missing_[i].slot, missing_[i].frame);
  }
  isa_.network->stage(network_.encoder, mine.rows.data(), count, mine.stage.data(), mine.staged.data());
  lap(thread, Phase::staging);
  multiply(thread, network_.encoder, mine.staged, count);
  lap(thread, Phase::projection);
  wait(thread);
}

void FusedGreedy::score(int thread) {
  Private& mine = private_[thread];
  const int count = static_cast<int>(scored_.size());
  for (int i = 0; i < count; ++i) {
    const auto [slot, frame] = scored_[i];
    float* hidden = mine.hidden.data() + static_cast<std::size_t>(i) * network_.joint;
    isa_.network->hidden(network_.activation, projected(slot, frame), prediction(slot), network_.joint, hidden);
    mine.rows[i] = hidden;
    mine.outs[i] = logits(i);
  }
  isa_.network->stage(network_.output, mine.rows.data(), count, mine.stage.data(), mine.staged.data());
  if (screens()) {
    isa_.network->stage(network_.screen, mine.rows.data(), count, mine.screen_stage.data(), mine.screened.data());
    lap(thread, Phase::staging);
    multiply(thread, network_.screen, mine.screened, count);
  } else {
    lap(thread, Phase::staging);
    multiply(thread, network_.output, mine.staged, count);
  }
  lap(thread, Phase::joint);
  wait(thread);
}

// Decides the scored frames of each slot one after the other, up to its next token.
void FusedGreedy::decide_rows(int thread) {
  for (std::size_t i = thread; i < pending_.size(); i += team_.size()) {
    Slot& slot = slots_[pending_[i]];
    const int first = slot.at.frame;
    if (slot.fresh) steer(thread, slot, kNoIndex);
    slot.fresh = slot.emitted = false;
    slot.logged = 0;
    while (!slot.emitted && slot.at.frame < first + slot.window) {
      const int scored = slot.scored + slot.at.frame - first;
      const Decision decision = decide(thread, slot, scored);
      slot.emitted = decision.token != network_.layout.blank;
      if (slot.emitted || options_.trace) slot.steps[slot.logged++] = {decision, slot.at.frame, scored};
      if (slot.emitted) slot.token = decision.token;
      slot.at = advanced(slot.at, !slot.emitted, decision.duration, options_);
    }
    if (slot.emitted) steer(thread, slot, slot.token);
  }
  lap(thread, Phase::search);
  wait(thread);
}

Decision FusedGreedy::decide(int thread, const Slot& slot, int scored) {
  Private& mine = private_[thread];
  const Masks masks = utterances_.masks.of(slot.utterance);
  const float* scores = slot.scores.empty() ? nullptr : slot.scores.data();
  if (screens()) {
    const ScreenScratch scratch = {mine.screen_row.data(), mine.screen_values.data(), mine.screen_outputs.data(),
                                   mine.screen_known.data(), mine.screen_maxima.data()};
    return decide_screened(network_, screen_blocks_, isa_, logits(scored), mine.screened[scored], mine.staged[scored],
                           options_, {masks[0], scores}, scratch);
  }
  Decision decision;
  isa_.decide(logits(scored), 1, network_.layout, options_, masks, scores, &decision.token, &decision.duration,
              &decision.token_logprob, &decision.duration_logprob);
  return decision;
}

// Moves a slot's fusions on by a token, if there is one, and computes their scores of the next.
void FusedGreedy::steer(int thread, Slot& slot, int token) {
  const Fusions* fusions = utterances_.fusions ? utterances_.fusions[slot.utterance] : nullptr;
  slot.scores.resize(fusions && !fusions->empty() ? fusions->entries : 0);
  if (slot.scores.empty()) return;
  if (slot.fresh) slot.fusion_scratch.forget();
  Private& mine = private_[thread];
  std::int64_t* state = utterances_.fusion_states[slot.utterance];
  FusionFailure none;  // automata do not fail
  if (token != kNoIndex) {
    fusions->advance(state, token, mine.fusion_state.data(), &none);
    std::copy_n(mine.fusion_state.data(), fusions->state_size, state);
  }
  fusions->score(state, slot.scores.data(), &slot.fusion_scratch, &none);
}

// Logs what was emitted, and gives the predictor its inputs.
void FusedGreedy::collect() {
  count(Count::passes, 1);
  count(Count::joint_rows, scored_.size());
  count(Count::projected_frames, missing_.size());
  emitted_.clear();
  try {
    for (int index : pending_) {
      const Slot& slot = slots_[index];
      if (slot.emitted) emitted_.push_back(index);
      for (const Step* step = slot.steps; step < slot.steps + slot.logged; ++step) {
        if (screens()) {
          const float* hidden = private_[0].hidden.data() + static_cast<std::size_t>(step->scored) * network_.joint;
          std::memcpy(kept_.data() + kept_for_.size() * network_.joint, hidden, network_.joint * sizeof(float));
          kept_for_.push_back(emissions_->token.size());
        }
        emissions_->utterance.push_back(slot.utterance);
        emissions_->token.push_back(step->decision.token);
        emissions_->frame.push_back(step->frame);
        emissions_->duration.push_back(step->decision.duration);
        emissions_->token_logprob.push_back(step->decision.token_logprob);
        emissions_->duration_logprob.push_back(step->decision.duration_logprob);
      }
    }
  } catch (...) {  // rethrown later: the other threads wait at the next barrier
    failure_ = std::current_exception();
    failed_ = true;
    return;
  }
  count(Count::predictor_steps, emitted_.size());
  for (int index : emitted_) {
    const Slot& slot = slots_[index];
    const float* entry = network_.table + static_cast<std::size_t>(slot.token) * network_.table_width;
    if (network_.table_kind == TableKind::prediction)
      std::memcpy(prediction(index), entry, network_.joint * sizeof(float));
    if (network_.table_kind == TableKind::input)
      std::memcpy(inputs(0, index, slot.parity), entry, network_.table_width * sizeof(float));
  }
  bool last = next_ >= utterances_.count;
  for (const Slot& slot : slots_)
    last = last && (slot.utterance < 0 || slot.at.frame >= utterances_.lengths[slot.utterance]);
  rescore_ = !kept_for_.empty() && (last || kept_for_.size() >= kKeptAtOnce);
  if (rescore_) count(Count::late_rows, kept_for_.size());
}

// Computes the log-probabilities that screening left out: whole joint rows from the kept hidden vectors, in one
// product.
void FusedGreedy::rescore(int thread) {
  Private& mine = private_[thread];
  const int count = static_cast<int>(kept_for_.size());
  for (int i = 0; i < count; ++i) {
    mine.rows[i] = kept_.data() + static_cast<std::size_t>(i) * network_.joint;
    mine.outs[i] = logits(i);
  }
  isa_.network->stage(network_.output, mine.rows.data(), count, mine.stage.data(), mine.staged.data());
  multiply(thread, network_.output, mine.staged, count);
  lap(thread, Phase::log_probs);
  wait(thread);
  for (int i = thread; i < count; i += team_.size()) {
    const std::size_t at = kept_for_[i];
    Decision decision;
    Masks masks = utterances_.masks.of(emissions_->utterance[at]);
    const std::int32_t first = 0, token = emissions_->token[at];
    if (utterances_.fusions) {  // the token is known: no other may be emitted
      masks = {mine.only.data(), &first, network_.layout.vocab_size + 1};
      mine.only[token] = 1;
    }
    isa_.decide(logits(i), 1, network_.layout, options_, masks, nullptr, &decision.token, &decision.duration,
                &emissions_->token_logprob[at], &emissions_->duration_logprob[at]);
    if (utterances_.fusions) mine.only[token] = 0;
  }
  lap(thread, Phase::log_probs);
  wait(thread);
  if (thread == 0) kept_for_.clear();
}

void FusedGreedy::predict(int thread) {
  Private& mine = private_[thread];
  const int count = static_cast<int>(emitted_.size());
  for (int layer = 0; layer < network_.num_layers; ++layer) {
    const Matrix& gates = network_.layers[layer];
    for (int i = 0; i < count; ++i) {
      mine.rows[i] = inputs(layer, emitted_[i], slots_[emitted_[i]].parity);
      mine.outs[i] = gates_.data() + static_cast<std::size_t>(i) * gates.outputs;
    }
    isa_.network->stage(gates, mine.rows.data(), count, mine.stage.data(), mine.staged.data());
    lap(thread, Phase::staging);
    multiply(thread, gates, mine.staged, count);
    const int first = gates.panel_count() * thread / team_.size();
    const int last = gates.panel_count() * (thread + 1) / team_.size();
    for (int i = 0; i < count; ++i) {
      const int index = emitted_[i], parity = slots_[index].parity;
      const float* addend = nullptr;
      if (layer == 0 && network_.table_kind == TableKind::gates)
        addend = network_.table + static_cast<std::size_t>(slots_[index].token) * network_.table_width;
      float* above = layer + 1 < network_.num_layers ? inputs(layer + 1, index, parity) : nullptr;
      isa_.network->lstm_cell(mine.outs[i], addend, first, last, cell(layer, index), own(layer, index, 1 - parity),
                                  above);
    }
    lap(thread, Phase::predictor);
    wait(thread);
  }
  if (network_.table_kind == TableKind::prediction) return;
  const bool context = network_.table_kind == TableKind::context;
  const auto output = [&](int i) {
    const int index = emitted_[i];
    return context ? gates_.data() + static_cast<std::size_t>(i) * network_.hidden
                   : own(network_.num_layers - 1, index, 1 - slots_[index].parity);
  };
  if (context) {
    for (int i = thread; i < count; i += team_.size()) {
      float* cells = cell(0, emitted_[i]);
      context_step(network_, *isa_.network, slots_[emitted_[i]].token, cells, cells, output(i));
    }
    lap(thread, Phase::predictor);
    wait(thread);
  }
  for (int i = 0; i < count; ++i) {
    mine.rows[i] = output(i);
    mine.outs[i] = prediction(emitted_[i]);
  }
  isa_.network->stage(network_.prediction, mine.rows.data(), count, mine.stage.data(), mine.staged.data());
  lap(thread, Phase::staging);
  multiply(thread, network_.prediction, mine.staged, count);
  lap(thread, Phase::predictor);
  wait(thread);
  if (thread == 0)
    for (int index : emitted_) slots_[index].parity = 1 - slots_[index].parity;
}

}  // namespace tdt::cpu
