// Where a decode loop spends its time, for those who ask for it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace tdt::cpu {

// What a thread does. The order is that of PHASES in src/tdtdecode/traces.py.
enum class Phase : int {
  staging,     // bringing vectors into the form that products take, hidden vectors of the joint included
  projection,  // of encoder frames
  predictor,   // products and LSTM cells
  joint,       // product of the output layer
  search,      // decisions on joint rows, with the log-probabilities that are computed along with them; bookkeeping
  log_probs,   // log-probabilities that screening left out
  waiting,     // for other threads
};
constexpr int kPhases = 7;

// The order is that of COUNTS in src/tdtdecode/traces.py.
enum class Count : int { passes, joint_rows, predictor_steps, projected_frames, late_rows };
constexpr int kCounts = 5;

// Arrays of the caller: counts [kCounts], nanoseconds [threads, kPhases].
struct Profile {
  std::int64_t* counts;
  std::int64_t* nanoseconds;
};

// Measures one thread. Without a profile, a lap costs a comparison.
class Stopwatch {
 public:
  void start(const Profile* profile, int thread) {
    if (!profile) return;
    nanoseconds_ = profile->nanoseconds + static_cast<std::size_t>(thread) * kPhases;
    last_ = Clock::now();
  }
  // Adds the time since the last lap to a phase.
  void lap(Phase phase) {
    if (nanoseconds_) add(phase);
  }

 private:
  using Clock = std::chrono::steady_clock;
  void add(Phase phase) {
    const Clock::time_point now = Clock::now();
    nanoseconds_[static_cast<int>(phase)] +=
        std::chrono::duration_cast<std::chrono::nanoseconds>(now - last_).count();
    last_ = now;
  }

  std::int64_t* nanoseconds_ = nullptr;
  Clock::time_point last_;
};

}  // namespace tdt::cpu
