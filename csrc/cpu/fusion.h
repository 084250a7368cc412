// Scores added to a search beside the network's. Each fusion maps a state to scores of all tokens; these are weighted
// and added up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace tdt::cpu {

// A weighted back-off automaton over token ids: an n-gram model or boosted phrases. If a state has an arc for a token,
// the token's score is that of the arc. If not, it is the state's back-off weight plus the token's score in the state
// backed off to. A state that backs off to itself is a root. There a token without an arc scores 0 and the state stays.
struct Automaton {
  const std::int64_t* first_arc;      // [S + 1]
  const std::int32_t* arc_token;      // [A], ascending in each state
  const float* arc_weight;            // [A]
  const std::int32_t* arc_target;     // [A]
  const std::int32_t* backoff_state;  // [S]
  const float* backoff_weight;        // [S]
  const float* final_weight;          // [S], added if an utterance ends in the state

  // The state after a token.
  std::int32_t next(std::int32_t state, std::int32_t token) const;
  // The root that a state backs off to in the end.
  std::int32_t root(std::int32_t state) const;
  // Writes the scores of all tokens in a root to `scores` [entries]; blank has an entry too.
  void score_root(std::int32_t root, int entries, float* scores) const;
  // Writes the scores of all tokens in a state, times `weight`. `root_scores` are those in the state's root.
  void score(std::int32_t state, int entries, float weight, const float* root_scores, float* scores) const;
};

// A user's function. A state is `state_size` integers. Both pointers return 0, or 1 if the function raised an error.
struct ScoringFunction {
  int state_size;
  std::int32_t (*advance)(const std::int64_t* state, std::int64_t token, std::int64_t* next);
  std::int32_t (*scores)(const std::int64_t* state, float* scores);
};

// One of a search's fusions: a function if `function.scores` is not null, else an automaton.
struct Fusion {
  float weight;
  Automaton automaton;
  ScoringFunction function;
  int first;  // where its state begins among the integers of all fusions' states
};

// How a user's function failed, which ends the search.
struct FusionFailure {
  enum class Kind : int { none = 0, raised_in_scores = 1, raised_in_advance = 2, not_finite = 3 };
  Kind kind = Kind::none;
  int fusion = 0;
  std::int64_t token = -1;  // the token that `advance` was given, or whose score is NaN or infinite
  std::vector<std::int64_t> state;
};

// Memory to compute an utterance's scores in. It keeps those in the roots of its automata: a root often has an arc for
// most tokens, and nearly every state backs off to it.
class FusionScratch {
 public:
  FusionScratch() = default;
  FusionScratch(std::size_t fusions, int entries);
  // For another utterance.
  void forget();
  float* scores() { return scores_.get(); }  // [V + 1]
  // The scores in a state's root, by the fusion's number.
  const float* root_scores(std::size_t fusion, const Automaton& automaton, std::int32_t state);

 private:
  struct Root {
    std::int32_t state = -1;
    std::unique_ptr<float[]> scores;
  };
  int entries_ = 0;
  std::unique_ptr<float[]> scores_;
  std::vector<Root> roots_;
};

class Fusions {
 public:
  std::vector<Fusion> list;
  int state_size = 0;  // integers of the states of all fusions together
  int entries = 0;     // V + 1
  int blank = 0;

  bool empty() const { return list.empty(); }
  bool advance(const std::int64_t* state, std::int32_t token, std::int64_t* next, FusionFailure* failure) const;
  // Writes the weighted sum of all scores to `sum` [V + 1], with 0 for blank.
  bool score(const std::int64_t* state, float* sum, FusionScratch* scratch, FusionFailure* failure) const;
  // What is added if the utterance ends: after `token` in `state`, or, for -1, in `state` itself.
  double final_score(const std::int64_t* state, std::int32_t token) const;

 private:
  bool failed(FusionFailure::Kind kind, std::size_t fusion, std::int32_t token, const std::int64_t* state,
              FusionFailure* failure) const;
};

}  // namespace tdt::cpu
