// How fast this machine reads memory. The time of a decode is compared with that.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <limits>
#include <vector>

#include "instruction_sets.h"
#include "team.h"

namespace tdt::cpu {

// Measures how many seconds `threads` threads take to read some memory once, each its share; returns the shortest of
// `repeats` measurements. One measurement times kPasses passes, from the start of the first thread to the end of the
// last, because threads leave a barrier some microseconds apart.
inline double stream_seconds(const InstructionSet& isa, const char* data, std::size_t bytes, int threads, int repeats) {
  using Clock = std::chrono::steady_clock;
  struct alignas(64) Share {
    Clock::time_point start, end;
    std::uint32_t sum = 0;  // used, so that the compiler cannot leave out the reading
  };
  constexpr int kPasses = 10;
  double shortest = std::numeric_limits<double>::infinity();
  std::vector<Share> shares(threads);
  Team team;
  team.run(threads, [&](int thread) {
    const std::size_t unit = 4096, units = bytes / unit;
    const std::size_t first = units * thread / team.size() * unit, last = units * (thread + 1) / team.size() * unit;
    Share& mine = shares[thread];
    for (int i = 0; i < repeats; ++i) {
      team.barrier();
      mine.start = Clock::now();
      for (int pass = 0; pass < kPasses; ++pass) mine.sum += isa.network->read(data + first, last - first);
      mine.end = Clock::now();
      team.barrier();
      if (thread != 0) continue;
      Clock::time_point start = mine.start, end = mine.end;
      for (int other = 1; other < team.size(); ++other) {
        start = std::min(start, shares[other].start);
        end = std::max(end, shares[other].end);
      }
      shortest = std::min(shortest, std::chrono::duration<double>(end - start).count() / kPasses);
    }
  });
  return shortest;
}

}  // namespace tdt::cpu
