#include "fusion.h"

#include <algorithm>
#include <cmath>

namespace tdt::cpu {

std::int32_t Automaton::next(std::int32_t state, std::int32_t token) const {
  for (;;) {
    const std::int32_t *first = arc_token + first_arc[state], *last = arc_token + first_arc[state + 1];
    const std::int32_t* arc = std::lower_bound(first, last, token);
    if (arc != last && *arc == token) return arc_target[arc - arc_token];
    if (backoff_state[state] == state) return state;
    state = backoff_state[state];
  }
}

std::int32_t Automaton::root(std::int32_t state) const {
  while (backoff_state[state] != state) state = backoff_state[state];
  return state;
}

void Automaton::score_root(std::int32_t root, int entries, float* scores) const {
  std::fill(scores, scores + entries, 0.0f);
  for (std::int64_t arc = first_arc[root]; arc < first_arc[root + 1]; ++arc) scores[arc_token[arc]] = arc_weight[arc];
}

void Automaton::score(std::int32_t state, int entries, float weight, const float* root_scores, float* scores) const {
  // The states on the way to the root are read from the root back, so that arcs of longer contexts overwrite those of
  // shorter ones. Back-off weights add up on the way down.
  float backed_off = 0.0f;
  int depth = 0;
  for (std::int32_t at = state; backoff_state[at] != at; at = backoff_state[at], ++depth)
    backed_off += backoff_weight[at];
  for (int token = 0; token < entries; ++token) scores[token] = (backed_off + root_scores[token]) * weight;
  while (depth-- > 0) {
    // The state that `depth` back-offs lead to, and the sum of their weights.
    std::int32_t at = state;
    backed_off = 0.0f;
    for (int i = 0; i < depth; ++i, at = backoff_state[at]) backed_off += backoff_weight[at];
    for (std::int64_t arc = first_arc[at]; arc < first_arc[at + 1]; ++arc)
      scores[arc_token[arc]] = (backed_off + arc_weight[arc]) * weight;
  }
}

FusionScratch::FusionScratch(std::size_t fusions, int entries)
    : entries_(entries), scores_(new float[entries]), roots_(fusions) {
  for (Root& root : roots_) root.scores.reset(new float[entries]);
}

void FusionScratch::forget() {
  for (Root& root : roots_) root.state = -1;
}

const float* FusionScratch::root_scores(std::size_t fusion, const Automaton& automaton, std::int32_t state) {
  Root& kept = roots_[fusion];
  const std::int32_t root = automaton.root(state);
  if (root != kept.state) automaton.score_root(root, entries_, kept.scores.get());
  kept.state = root;
  return kept.scores.get();
}

bool Fusions::advance(const std::int64_t* state, std::int32_t token, std::int64_t* next,
                      FusionFailure* failure) const {
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Fusion& fusion = list[i];
    const std::int64_t* from = state + fusion.first;
    if (!fusion.function.scores)
      next[fusion.first] = fusion.automaton.next(static_cast<std::int32_t>(*from), token);
    else if (fusion.function.advance(from, token, next + fusion.first) != 0)
      return failed(FusionFailure::Kind::raised_in_advance, i, token, state, failure);
  }
  return true;
}

bool Fusions::score(const std::int64_t* state, float* sum, FusionScratch* scratch, FusionFailure* failure) const {
  const bool first_is_automaton = !list.empty() && !list[0].function.scores;
  if (!first_is_automaton) std::fill(sum, sum + entries, 0.0f);
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Fusion& fusion = list[i];
    const std::int64_t* from = state + fusion.first;
    float* scores = i == 0 && first_is_automaton ? sum : scratch->scores();
    if (!fusion.function.scores) {
      const auto at = static_cast<std::int32_t>(*from);
      const float* root_scores = scratch->root_scores(i, fusion.automaton, at);
      fusion.automaton.score(at, entries, fusion.weight, root_scores, scores);
      if (i > 0)
        for (int token = 0; token < entries; ++token) sum[token] += scores[token];
      continue;
    }
    std::fill(scores, scores + entries, 0.0f);
    if (fusion.function.scores(from, scores) != 0)
      return failed(FusionFailure::Kind::raised_in_scores, i, -1, state, failure);
    for (int token = 0; token < entries; ++token) {
      const float weighted = fusion.weight * scores[token];
      if (!(weighted < INFINITY) && token != blank)
        return failed(FusionFailure::Kind::not_finite, i, token, state, failure);
      sum[token] += weighted;
    }
  }
  sum[blank] = 0.0f;
  return true;
}

bool Fusions::failed(FusionFailure::Kind kind, std::size_t fusion, std::int32_t token, const std::int64_t* state,
                     FusionFailure* failure) const {
  const std::int64_t* from = state + list[fusion].first;
  *failure = {kind, static_cast<int>(fusion), token, {from, from + list[fusion].function.state_size}};
  return false;
}

double Fusions::final_score(const std::int64_t* state, std::int32_t token) const {
  double sum = 0.0;
  for (const Fusion& fusion : list) {
    if (fusion.function.scores) continue;
    const auto before = static_cast<std::int32_t>(state[fusion.first]);
    const std::int32_t last = token < 0 ? before : fusion.automaton.next(before, token);
    sum += static_cast<double>(fusion.weight) * fusion.automaton.final_weight[last];
  }
  return sum;
}

}  // namespace tdt::cpu
