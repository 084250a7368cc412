// What steers a search beside the network: functions state -> scores over the tokens, weighted and added up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tdt::cpu {

// A weighted back-off automaton over token ids: n-gram models and boosted phrases. States that back off to themselves
// are roots. A token's score in a state is that of its arc, or, where there is none, the back-off weight and the score
// in the state backed off to; a root scores 0 for tokens without an arc, and is left by none of them.
struct Automaton {
  const std::int64_t* first_arc;      // [S + 1]
  const std::int32_t* arc_token;      // [A], ascending in each state
  const float* arc_weight;            // [A]
  const std::int32_t* arc_target;     // [A]
  const std::int32_t* backoff_state;  // [S]
  const float* backoff_weight;        // [S]
  const float* final_weight;          // [S] added where an utterance ends in the state

  // The state after a token.
  std::int32_t next(std::int32_t state, std::int32_t token) const;
  // The scores of all tokens; `scores` has `entries` of them, blank's place included.
  void score(std::int32_t state, int entries, float* scores) const;
};

// A user's function. A state is `state_size` integers. Both return 0, or 1 where the function raised an error.
struct ScoringFunction {
  int state_size;
  std::int32_t (*advance)(const std::int64_t* state, std::int64_t token, std::int64_t* next);
  std::int32_t (*scores)(const std::int64_t* state, float* scores);
};

// One of a search's fusions: an automaton, or a function where `function.scores` is not null.
struct Fusion {
  float weight;
  Automaton automaton;
  ScoringFunction function;
  int first;  // where its state begins among the integers that a prefix keeps
};

// Why a user's function ended a search.
struct FusionFailure {
  enum class Kind : int { none = 0, raised_in_scores = 1, raised_in_advance = 2, not_finite = 3 };
  Kind kind = Kind::none;
  int fusion = 0;
  std::int64_t token = -1;           // where `advance` was given one, or whose score is NaN or infinite
  std::vector<std::int64_t> state;
};

class Fusions {
 public:
  std::vector<Fusion> list;
  int state_size = 0;  // integers that a prefix keeps for all of them
  int entries = 0;     // V + 1
  int blank = 0;

  bool empty() const { return list.empty(); }
  bool advance(const std::int64_t* state, std::int32_t token, std::int64_t* next, FusionFailure* failure) const;
  // The weighted sum of all scores to `sum` [V + 1], blank's 0; `scratch` is as large.
  bool score(const std::int64_t* state, float* sum, float* scratch, FusionFailure* failure) const;
  // What ending after `token`, or without one (-1), in the state before it adds.
  double final_score(const std::int64_t* state, std::int32_t token) const;

 private:
  bool failed(FusionFailure::Kind kind, std::size_t fusion, std::int32_t token, const std::int64_t* state,
              FusionFailure* failure) const;
};

}  // namespace tdt::cpu
