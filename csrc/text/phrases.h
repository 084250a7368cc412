// Boosted phrases as a back-off automaton: that of Aho and Corasick, with the scores of NeMo's boosting tree.
//
// src/tdtdecode/fusion/phrases.py describes the scores, and builds the same automaton; tests/capi compares both.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "fusion.h"
#include "text/spelling.h"

namespace tdt::text {

// The memory of an automaton (csrc/cpu/fusion.h), and its state before the first token.
struct AutomatonTables {
  std::vector<std::int64_t> first_arc;
  std::vector<std::int32_t> arc_token, arc_target, backoff_state;
  std::vector<float> arc_weight, backoff_weight, final_weight;
  std::int32_t start = 0;

  // Whether some token cannot follow.
  bool has_impossible() const {
    return std::any_of(arc_weight.begin(), arc_weight.end(), [](float weight) { return std::isinf(weight); });
  }

  cpu::Automaton view() const {
    return {first_arc.data(),     arc_token.data(),      arc_weight.data(),  arc_target.data(),
            backoff_state.data(), backoff_weight.data(), final_weight.data()};
  }
};

struct Phrase {
  std::vector<Spelling> spellings;
  double weight;
};

// `same`, if not null, has all tokens that a token of a spelling stands for.
AutomatonTables phrase_automaton(const std::vector<Phrase>& phrases, double context_score, double depth_scaling,
                                 const Speller* same);

}  // namespace tdt::text
