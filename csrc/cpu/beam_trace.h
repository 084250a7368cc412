// What a traced beam search writes down of its steps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tdt::cpu {

// One of the hypotheses that a step chose from, as it was before others were merged into it. Candidates are numbered
// through all steps of the search. Frames are those of the stream.
struct Candidate {
  double score;             // by itself
  double total;             // together with those that were merged into it
  std::int32_t step;
  std::int32_t parent;      // the kept candidate of the step before that it extends; -1: the start of the search
  std::int32_t token;       // >= 0: a token; otherwise -1, a blank; or -2, it waits until the others are as far as it is
  std::int32_t frame;       // of its joint row
  std::int32_t duration;    // predicted for the token or blank
  std::int32_t next_frame;  // where it goes on
  std::int32_t into;        // the candidate that it was merged into; -1: none
  std::int32_t alignment;   // the candidate with the best alignment among those merged into this one and itself
  std::int32_t kept;        // 1: it is in the beam after the step
};

struct BeamTrace {
  std::vector<Candidate> candidates;
  std::vector<std::int32_t> beam;  // the candidate of each hypothesis in the beam
  std::int32_t steps = 0;

  void begin(std::size_t hypotheses) {
    candidates.clear();
    beam.assign(hypotheses, -1);
    steps = 0;
  }
  // Returns the number of the candidate. Its parent is given as a hypothesis.
  std::int32_t add(Candidate candidate) {
    const auto number = static_cast<std::int32_t>(candidates.size());
    candidate.total = candidate.score;
    candidate.step = steps;
    candidate.parent = beam[candidate.parent];
    candidate.into = -1;
    candidate.alignment = number;
    candidate.kept = 0;
    candidates.push_back(candidate);
    return number;
  }
  void merge(std::int32_t number, std::int32_t into, double total, bool better) {
    candidates[number].into = into;
    candidates[into].total = total;
    if (better) candidates[into].alignment = number;
  }
};

}  // namespace tdt::cpu
