#include "beam.h"

#include <algorithm>
#include <cmath>

namespace tdt::cpu {
namespace {

// The most frames that one step can move a hypothesis.
int reach(const RowLayout& layout) {
  int longest = 1;
  for (int i = 0; i < layout.num_durations; ++i) longest = std::max(longest, layout.durations[i]);
  for (int i = 0; i < layout.num_blanks; ++i) longest = std::max(longest, layout.blank_frames[i]);
  return longest;
}

}  // namespace

// In the time-synchronous search at most `size` hypotheses stand on each frame, and none is ahead of the hindmost by
// more than one step. In NeMo's search a hypothesis may fall behind by any number of frames.
BeamSizes::BeamSizes(const BeamOptions& options, const RowLayout& layout) {
  const bool in_step = options.strategy == Strategy::tsd;
  hypotheses = options.size * (in_step ? reach(layout) + 1 : 1);
  slots = 2 * hypotheses;
  spread = in_step ? reach(layout) + 1 : kNoIndex / 2;
}

Beam::Beam(const BeamOptions& options, const RowLayout& layout, const Fusions& fusions, Allowed allowed)
    : sizes(options, layout), options_(options), layout_(layout), fusions_(fusions), allowed_(allowed) {}

void Beam::start(const std::int64_t* fusion) {
  hypotheses.assign(1, {0.0, 0.0, kEmptyPrefix, 0, 0, 0, -1, 0, -1, -1, -1});
  records.clear();
  fusion_states.assign(fusion, fusion + fusions_.state_size);
}

bool Beam::open(int length) {
  const int ranked_tokens = std::min(options_.size, layout_.vocab_size);
  length_ = length;
  const std::size_t places = sizes.hypotheses;
  ranked_.resize(places);
  tokens_.resize(places * ranked_tokens);
  token_logprobs_.resize(places * ranked_tokens);
  duration_logprobs_.resize(places * layout_.num_durations);
  blank_logprobs_.resize(places * layout_.num_blanks);
  for (std::size_t place = 0; place < places; ++place) {
    ranked_[place].tokens = tokens_.data() + place * ranked_tokens;
    ranked_[place].token_logprobs = token_logprobs_.data() + place * ranked_tokens;
    ranked_[place].duration_logprobs = duration_logprobs_.data() + place * layout_.num_durations;
    ranked_[place].blank_logprobs = blank_logprobs_.data() + place * layout_.num_blanks;
  }
  place_used_.assign(places, 0);
  slot_used_.assign(sizes.slots, 0);
  const std::size_t ways = static_cast<std::size_t>(options_.size + layout_.num_blanks) * durations();
  const std::size_t entries = places + options_.size * ways;
  entries_.reserve(entries);
  order_.reserve(entries);
  next_.reserve(places);
  best_.reserve(2 * static_cast<std::size_t>(options_.size));
  std::size_t table = 64;
  while (table < 2 * entries) table *= 2;
  index_.resize(table);
  for (BeamHypothesis& hypothesis : hypotheses) hypothesis.place = -1;
  if (trace) trace->begin(hypotheses.size());
  if (fusions_.empty()) return true;
  const std::size_t known = fusion_states.size() / std::max(fusions_.state_size, 1);
  fusion_states.resize(static_cast<std::size_t>(sizes.slots) * fusions_.state_size);
  bonus_.reset(new float[static_cast<std::size_t>(sizes.slots) * fusions_.entries]);
  scratch_ = FusionScratch(fusions_.list.size(), fusions_.entries);
  for (std::size_t slot = 0; slot < known; ++slot)
    if (!score_fusions(static_cast<std::int32_t>(slot))) return false;
  return true;
}

bool Beam::is_plain_greedy() const {
  const auto is_automaton = [](const Fusion& fusion) { return !fusion.function.scores; };
  return options_.strategy == Strategy::greedy && options_.statistic == Statistic::none && !trace &&
         hypotheses[0].slot == 0 && std::all_of(fusions_.list.begin(), fusions_.list.end(), is_automaton);
}

void Beam::take(int token, int frame, int duration, float token_logprob, float duration_logprob) {
  BeamHypothesis& hypothesis = hypotheses[0];
  records.push_back(
      {hypothesis.record, token, first_frame + frame, duration, token_logprob, duration_logprob, 0.0f});
  hypothesis.record = static_cast<std::int32_t>(records.size()) - 1;
  hypothesis.prefix = tdt::extended(hypothesis.prefix, token);
  hypothesis.length += 1;
}

void Beam::end_chunk(int length, Position at) {
  length_ = length;
  hypotheses[0].frame = at.frame;
  hypotheses[0].symbols = at.symbols;
}

void Beam::rest() {
  bonus_.reset();
  scratch_ = FusionScratch();
  std::vector<Entry>().swap(entries_);
  std::vector<std::int32_t>().swap(index_);
}

bool Beam::score_fusions(std::int32_t slot) {
  return fusions_.score(fusion_states.data() + static_cast<std::size_t>(slot) * fusions_.state_size,
                        bonus_.get() + static_cast<std::size_t>(slot) * fusions_.entries, &scratch_, &failure);
}

bool Beam::request() {
  predictions_.clear();
  scorings_.clear();
  Position at;
  while (next_in_time(&at) && ready()) advance();
  if (!next_in_time(&at)) return true;

  std::fill(slot_used_.begin(), slot_used_.end(), char{0});
  std::fill(place_used_.begin(), place_used_.end(), char{0});
  for (const BeamHypothesis& hypothesis : hypotheses) {
    slot_used_[hypothesis.slot >= 0 ? hypothesis.slot : hypothesis.parent] = 1;
    if (hypothesis.place >= 0) place_used_[hypothesis.place] = 1;
  }
  for (BeamHypothesis& hypothesis : hypotheses) {
    if (hypothesis.place >= 0 || !inside(hypothesis)) continue;
    if (hypothesis.slot < 0 && !find_slot(&hypothesis)) return false;
    hypothesis.place =
        static_cast<std::int32_t>(std::find(place_used_.begin(), place_used_.end(), 0) - place_used_.begin());
    place_used_[hypothesis.place] = 1;
    scorings_.push_back({hypothesis.slot, hypothesis.frame, hypothesis.place});
  }
  return true;
}

// Finds the slot of the predictor state after a hypothesis's tokens: that of another hypothesis with the same tokens,
// or a free one, for which it asks for a predictor step.
bool Beam::find_slot(BeamHypothesis* hypothesis) {
  for (const BeamHypothesis& other : hypotheses) {
    if (other.slot < 0 || other.prefix != hypothesis->prefix || other.length != hypothesis->length) continue;
    if (!same_tokens(other.record, -1, hypothesis->record, -1)) continue;
    hypothesis->slot = other.slot;
    return true;
  }
  hypothesis->slot =
      static_cast<std::int32_t>(std::find(slot_used_.begin(), slot_used_.end(), 0) - slot_used_.begin());
  slot_used_[hypothesis->slot] = 1;
  predictions_.push_back({hypothesis->parent, hypothesis->token, hypothesis->slot});
  if (fusions_.empty()) return true;
  std::int64_t* states = fusion_states.data();
  const std::size_t size = fusions_.state_size;
  return fusions_.advance(states + hypothesis->parent * size, hypothesis->token, states + hypothesis->slot * size,
                          &failure) &&
         score_fusions(hypothesis->slot);
}

void Beam::rank(const Scoring& scoring, const float* row, RankRow kernel) {
  const bool with_bonus = !fusions_.empty() && !(options_.strategy == Strategy::malsd && options_.prune_early);
  const float* bonus = with_bonus ? bonus_.get() + static_cast<std::size_t>(scoring.slot) * fusions_.entries : nullptr;
  kernel(row, layout_, bonus, allowed_, std::min(options_.size, layout_.vocab_size), options_,
         &ranked_[scoring.place]);
}

// The earliest position of a hypothesis inside the chunk: the lowest frame, and the fewest symbols there. False if all
// hypotheses are past the end.
bool Beam::next_in_time(Position* at) const {
  bool found = false;
  for (const BeamHypothesis& hypothesis : hypotheses) {
    if (!inside(hypothesis)) continue;
    if (!found || hypothesis.frame < at->frame ||
        (hypothesis.frame == at->frame && hypothesis.symbols < at->symbols))
      *at = {hypothesis.frame, hypothesis.symbols};
    found = true;
  }
  return found;
}

// Whether the rows that the next step reads are ranked.
bool Beam::ready() const {
  Position at = {0, 0};
  if (!next_in_time(&at)) return false;
  for (const BeamHypothesis& hypothesis : hypotheses) {
    if (!inside(hypothesis) || hypothesis.place >= 0) continue;
    if (options_.strategy != Strategy::tsd || (hypothesis.frame == at.frame && hypothesis.symbols == at.symbols))
      return false;
  }
  return true;
}

void Beam::advance() {
  entries_.clear();
  switch (options_.strategy) {
    case Strategy::greedy: advance_greedy(); break;
    case Strategy::tsd: advance_tsd(); break;
    case Strategy::malsd: advance_malsd(); break;
  }
  commit();
}

void Beam::advance_greedy() {
  const RankedRow& row = row_of(0);
  const int blank = blank_rank(row.blank, layout_), duration = row.duration.index;
  // If no token may be emitted, none is ranked.
  const bool is_blank = !emits(row.largest, row.blank, options_.greedy) || row.count == 0;
  const double logprob = is_blank ? row.blank_logprobs[blank] : row.token_logprobs[0] + bonus(0, row.tokens[0]);
  entries_.push_back(extended(0, is_blank ? kBlank : 0, logprob + duration_logprob(row, duration), duration,
                              is_blank ? blank_frames(blank, duration) : frames(duration)));
  list(&entries_.back());
}

// Extends the hypotheses at the earliest position by their best tokens and by blank, with every duration. Hypotheses
// with the same tokens at the same position are merged; only then is the beam pruned.
void Beam::advance_tsd() {
  std::fill(index_.begin(), index_.end(), -1);
  Position at = {0, 0};
  next_in_time(&at);
  const auto count = static_cast<std::int32_t>(hypotheses.size());
  const auto extends = [&](const BeamHypothesis& h) { return h.frame == at.frame && h.symbols == at.symbols; };
  for (std::int32_t i = 0; i < count; ++i)
    if (!extends(hypotheses[i])) merge(kept(i));
  for (std::int32_t i = 0; i < count; ++i) {
    if (!extends(hypotheses[i])) continue;
    const RankedRow& row = row_of(i);
    const double temperature = options_.temperature;
    const auto token_score = [&](float logprob) { return logprob / temperature - row.token_normalizer; };
    const auto duration_score = [&](int index) {
      return duration_logprob(row, index) / temperature - row.duration_normalizer;
    };
    for (int rank = 0; rank < row.count; ++rank) {
      const double score = token_score(row.token_logprobs[rank] + row.raised) + bonus(i, row.tokens[rank]);
      for (int index = 0; index < durations(); ++index)
        merge(extended(i, rank, score + duration_score(index), index, frames(index)));
    }
    for (int blank = 0; blank < layout_.num_blanks; ++blank) {
      const double score = token_score(row.blank_logprobs[blank]) - options_.greedy.blank_penalty;
      for (int index = 0; index < durations(); ++index)
        merge(extended(i, kBlank, score + duration_score(index), index, blank_frames(blank, index)));
    }
  }
  prune();
}

// NeMo's modified alignment-length-synchronous decoding, rule by rule, except that durations are looked up in the
// table. Scores are rounded to float wherever NeMo rounds them: in long utterances that decides between close
// hypotheses. There is one blank.
void Beam::advance_malsd() {
  const float largest_blank = 0.99f;  // NeMo's bound on blank's probability, chosen for bfloat16
  const auto size = static_cast<std::size_t>(options_.size);
  const auto count = static_cast<std::int32_t>(hypotheses.size());
  for (std::int32_t i = 0; i < count; ++i) {
    if (!inside(hypotheses[i])) {
      entries_.push_back(kept(i));
      list(&entries_.back());
      continue;
    }
    const RankedRow& row = row_of(i);
    const float blank = row.blank_logprobs[0] - options_.greedy.blank_penalty;
    float steered_blank = blank, token_shift = 0.0f;
    if (options_.blank_mode == BlankMode::lm_weighted_full && !fusions_.empty()) {
      token_shift = options_.weight_sum * std::log1p(-std::min(std::exp(row.blank_logprobs[0]), largest_blank));
      steered_blank = blank * (1.0f + options_.weight_sum);
    }
    pairs_.clear();
    int ranks = row.count;
    bool with_blank = true;
    if (options_.prune_early) {  // blank must be among the best without fusion
      int above = 0;
      for (int rank = 0; rank < row.count; ++rank) {
        const float logprob = row.token_logprobs[rank] + row.raised;
        above += logprob > row.blank_logprobs[0] ||
                 (logprob == row.blank_logprobs[0] && row.tokens[rank] < layout_.blank);
      }
      with_blank = above < options_.size;
      ranks = std::min(ranks, options_.size - with_blank);
    }
    for (int rank = 0; rank < ranks; ++rank) {
      const float steering = token_shift + static_cast<float>(bonus(i, row.tokens[rank]));
      const float logprob = (row.token_logprobs[rank] + row.raised) + steering;
      for (int index = 0; index < durations(); ++index)
        pairs_.push_back({logprob + static_cast<float>(duration_logprob(row, index)), rank, index,
                         static_cast<std::int64_t>(row.tokens[rank]) * durations() + index});
    }
    if (with_blank)
      for (int index = 0; index < durations(); ++index)
        pairs_.push_back({steered_blank + static_cast<float>(duration_logprob(row, index)), kBlank, index,
                         static_cast<std::int64_t>(layout_.blank) * durations() + index});
    const std::size_t kept_pairs = std::min(size, pairs_.size());
    std::partial_sort(pairs_.begin(), pairs_.begin() + kept_pairs, pairs_.end(), [](const Pair& a, const Pair& b) {
      return a.score > b.score || (a.score == b.score && a.order < b.order);
    });
    if (hypotheses[i].symbols >= options_.greedy.max_symbols) {
      const float longest = static_cast<float>(duration_logprob(row, row.duration.index));
      const float forced = (options_.prune_early ? blank : steered_blank) + longest;
      const int index = pairs_[0].duration;
      entries_.push_back(extended(i, kBlank, forced, index, blank_frames(0, index)));
      entries_.back().score = static_cast<float>(entries_.back().score);
      list(&entries_.back());
      continue;
    }
    for (std::size_t pair = 0; pair < kept_pairs; ++pair) {
      const bool is_blank = pairs_[pair].rank == kBlank;
      const int duration = frames(pairs_[pair].duration);
      Entry entry = extended(i, pairs_[pair].rank, pairs_[pair].score, pairs_[pair].duration, duration);
      // max_symbols takes effect in the next step, by the forced blank above.
      entry.frame = hypotheses[i].frame + (is_blank ? std::max(duration, 1) : duration);
      entry.symbols = is_blank || duration > 0 ? 0 : hypotheses[i].symbols + 1;
      entry.score = static_cast<float>(entry.score);
      list(&entry);
      entries_.push_back(entry);
    }
  }
  std::stable_sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) { return a.score > b.score; });
  if (entries_.size() > size) entries_.resize(size);

  // Equal hypotheses are merged only now, into the first, which is the best of them.
  std::size_t last = 0;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    std::size_t same = 0;
    while (same < last && !(entries_[same].prefix == entries_[i].prefix && entries_[same].frame == entries_[i].frame &&
                            same_tokens(entries_[same], entries_[i])))
      ++same;
    if (same == last) {
      entries_[last++] = entries_[i];
      continue;
    }
    entries_[same].score = static_cast<float>(log_add(entries_[same].score, entries_[i].score));
    if (trace) trace->merge(entries_[i].candidate, entries_[same].candidate, entries_[same].score, false);
  }
  entries_.resize(last);
}

Beam::Entry Beam::kept(std::int32_t hypothesis) const {
  const BeamHypothesis& h = hypotheses[hypothesis];
  return {h.score, h.best, h.prefix, h.frame, h.symbols, h.length, hypothesis, kKept, hypothesis, kKept, 0, -1};
}

// The entry for a hypothesis with one more step. `step` is the step's score, `duration` an index, `moves` the frames of
// the step.
Beam::Entry Beam::extended(std::int32_t hypothesis, std::int32_t rank, double step, int duration, int moves) const {
  const BeamHypothesis& h = hypotheses[hypothesis];
  const Position at = advanced({h.frame, h.symbols}, rank == kBlank, moves, options_.greedy);
  const bool emits = rank >= 0;
  return {h.score + step,
          h.best + step,
          emits ? tdt::extended(h.prefix, token(hypothesis, rank)) : h.prefix,
          at.frame,
          at.symbols,
          h.length + emits,
          hypothesis,
          rank,
          hypothesis,
          rank,
          duration,
          -1};
}

// Numbers an entry and writes it down as a candidate, if the search is traced.
void Beam::list(Entry* entry) {
  if (!trace) return;
  Candidate candidate = {};
  candidate.score = entry->score;
  candidate.parent = entry->hypothesis;
  candidate.token = entry->rank < 0 ? entry->rank : token(entry->hypothesis, entry->rank);
  candidate.frame = first_frame + hypotheses[entry->hypothesis].frame;
  const bool by_blank = entry->rank == kBlank && layout_.num_durations == 0;
  candidate.duration = by_blank                ? entry->frame - hypotheses[entry->hypothesis].frame
                       : entry->rank == kKept ? 0
                                              : frames(entry->duration);
  candidate.next_frame = first_frame + entry->frame;
  entry->candidate = trace->add(candidate);
}

// Adds an entry. If there is one with the same tokens at the same position, the two are merged.
void Beam::merge(Entry entry) {
  list(&entry);
  const unsigned long long place = static_cast<unsigned long long>(entry.frame) * 31 + entry.symbols;
  std::size_t at = (entry.prefix ^ (place * 0x9e3779b97f4a7c15ull)) & (index_.size() - 1);
  for (; index_[at] >= 0; at = (at + 1) & (index_.size() - 1)) {
    Entry& other = entries_[index_[at]];
    if (other.prefix != entry.prefix || other.frame != entry.frame || other.symbols != entry.symbols ||
        !same_tokens(other, entry))
      continue;
    other.score = log_add(other.score, entry.score);
    if (trace) trace->merge(entry.candidate, other.candidate, other.score, entry.best > other.best);
    if (entry.best > other.best) {
      other.best = entry.best;
      other.from = entry.from;
      other.from_rank = entry.from_rank;
      other.duration = entry.duration;
    }
    return;
  }
  index_[at] = static_cast<std::int32_t>(entries_.size());
  entries_.push_back(entry);
}

// Drops a hypothesis if `size` others that are at least as far in the audio score at least as high: it could only fall
// further behind on the way to them. Also drops it if one of these others scores higher by more than the threshold.
void Beam::prune() {
  order_.resize(entries_.size());
  for (std::size_t i = 0; i < order_.size(); ++i) order_[i] = static_cast<std::int32_t>(i);
  std::sort(order_.begin(), order_.end(), [this](std::int32_t i, std::int32_t j) {
    const Entry &a = entries_[i], &b = entries_[j];
    if (a.frame != b.frame) return a.frame > b.frame;
    return a.score != b.score ? a.score > b.score : i < j;
  });
  best_.clear();  // the best scores so far, best first
  std::size_t kept = 0;
  for (const std::int32_t i : order_) {
    const double score = entries_[i].score;
    const auto place = std::upper_bound(best_.begin(), best_.end(), score, [](double a, double b) { return a > b; });
    if (place - best_.begin() >= options_.size) continue;
    if (!best_.empty() && score < best_.front() - options_.threshold) continue;
    if (static_cast<int>(best_.size()) == options_.size) best_.pop_back();
    best_.insert(place, score);
    order_[kept++] = i;
  }
  order_.resize(kept);
  std::sort(order_.begin(), order_.end());
  for (std::size_t i = 0; i < kept; ++i) entries_[i] = entries_[order_[i]];
  entries_.resize(kept);
}

void Beam::commit() {
  next_.clear();
  for (const Entry& entry : entries_) {
    BeamHypothesis hypothesis = hypotheses[entry.hypothesis];
    if (entry.rank != kKept) hypothesis.place = -1;
    if (entry.rank >= 0) {
      hypothesis.parent = hypothesis.slot;
      hypothesis.slot = -1;
      hypothesis.token = token(entry.hypothesis, entry.rank);
    }
    hypothesis.score = entry.score;
    hypothesis.best = entry.best;
    hypothesis.prefix = entry.prefix;
    hypothesis.frame = entry.frame;
    hypothesis.symbols = entry.symbols;
    hypothesis.length = entry.length;
    hypothesis.record = hypotheses[entry.from].record;
    if (entry.from_rank >= 0) {
      const RankedRow& row = row_of(entry.from);
      records.push_back({hypothesis.record, row.tokens[entry.from_rank], first_frame + hypotheses[entry.from].frame,
                         frames(entry.duration), row.token_logprobs[entry.from_rank],
                         static_cast<float>(duration_logprob(row, entry.duration)), row.statistic});
      hypothesis.record = static_cast<std::int32_t>(records.size()) - 1;
    }
    next_.push_back(hypothesis);
  }
  hypotheses.swap(next_);
  if (!trace) return;
  trace->beam.clear();
  for (const Entry& entry : entries_) {
    trace->candidates[entry.candidate].kept = 1;
    trace->beam.push_back(entry.candidate);
  }
  ++trace->steps;
}

bool Beam::same_tokens(std::int32_t a, std::int32_t token_a, std::int32_t b, std::int32_t token_b) const {
  return tdt::same_tokens(records.data(), a, token_a, b, token_b);
}

std::vector<Beam::Result> Beam::results() const {
  struct Ending {
    const BeamHypothesis* hypothesis;
    double score, best, rank;
    std::int32_t record, last;  // the last record, and the hypothesis that it is from
  };
  std::vector<Ending> endings;
  for (const BeamHypothesis& hypothesis : hypotheses) {
    const auto number = static_cast<std::int32_t>(&hypothesis - hypotheses.data());
    Ending ending = {&hypothesis, hypothesis.score, hypothesis.best, 0.0, hypothesis.record, number};
    Ending* same = nullptr;
    if (options_.strategy == Strategy::tsd)  // the frame at which a hypothesis ended no longer matters
      for (Ending& other : endings)
        if (other.hypothesis->prefix == hypothesis.prefix && other.hypothesis->length == hypothesis.length &&
            same_tokens(other.record, -1, hypothesis.record, -1))
          same = &other;
    if (!same) {
      endings.push_back(ending);
      continue;
    }
    same->score = log_add(same->score, ending.score);
    if (ending.best > same->best) {
      same->best = ending.best;
      same->record = ending.record;
      same->last = ending.last;
    }
  }
  for (Ending& ending : endings) {
    const BeamHypothesis& hypothesis = *ending.hypothesis;
    if (options_.strategy == Strategy::tsd && !fusions_.empty()) {
      const bool pending = hypothesis.slot < 0;
      const std::size_t slot = pending ? hypothesis.parent : hypothesis.slot;
      ending.score += fusions_.final_score(fusion_states.data() + slot * fusions_.state_size,
                                           pending ? hypothesis.token : -1);
    }
    const int tokens = options_.strategy == Strategy::malsd ? hypothesis.length + 1 : 1;  // as NeMo ranks them
    ending.rank = ending.score / tokens;
  }
  std::stable_sort(endings.begin(), endings.end(),
                   [](const Ending& a, const Ending& b) { return a.rank > b.rank; });
  std::vector<Result> results;
  for (const Ending& ending : endings)
    if (results.empty() || ending.score > kLowest) results.push_back({ending.score, ending.record, ending.last});
  return results;
}

std::int32_t Beam::settled() const {
  std::int32_t common = hypotheses[0].record;
  for (const BeamHypothesis& hypothesis : hypotheses)
    for (std::int32_t other = hypothesis.record; common != other;)  // records point to lower indices
      (common > other ? common : other) = records[std::max(common, other)].previous;
  return common;
}

std::vector<std::int32_t> Beam::used_slots() const {
  std::vector<std::int32_t> slots;
  for (const BeamHypothesis& hypothesis : hypotheses) {
    const std::int32_t slot = hypothesis.slot >= 0 ? hypothesis.slot : hypothesis.parent;
    if (std::find(slots.begin(), slots.end(), slot) == slots.end()) slots.push_back(slot);
  }
  return slots;
}

void Beam::close() {
  const std::vector<std::int32_t> slots = used_slots();
  const std::int32_t root = settled();
  std::vector<std::int32_t> renumbered(records.size(), -1);
  for (const BeamHypothesis& hypothesis : hypotheses)
    for (std::int32_t record = hypothesis.record; record != root; record = records[record].previous)
      renumbered[record] = 0;
  std::int32_t kept = 0;
  for (std::size_t i = 0; i < records.size(); ++i) {
    if (renumbered[i] < 0) continue;
    records[kept] = records[i];
    std::int32_t& previous = records[kept].previous;
    if (previous >= 0) previous = renumbered[previous];
    renumbered[i] = kept++;
  }
  records.resize(kept);
  for (BeamHypothesis& hypothesis : hypotheses) {
    if (hypothesis.record >= 0) hypothesis.record = renumbered[hypothesis.record];
    hypothesis.frame -= length_;
    hypothesis.place = -1;
    std::int32_t& slot = hypothesis.slot >= 0 ? hypothesis.slot : hypothesis.parent;
    slot = static_cast<std::int32_t>(std::find(slots.begin(), slots.end(), slot) - slots.begin());
  }
  first_frame += length_;
  if (fusions_.empty()) return;
  std::vector<std::int64_t> states;
  for (const std::int32_t slot : slots)
    states.insert(states.end(), fusion_states.begin() + slot * fusions_.state_size,
                  fusion_states.begin() + (slot + 1) * fusions_.state_size);
  fusion_states.swap(states);
}

}  // namespace tdt::cpu
