// The rate at which this machine reads memory: what a decode's time is measured against.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <limits>
#include <vector>

#include "instruction_sets.h"
#include "team.h"

namespace tdt::cpu {

// The shortest of `repeats` times, in seconds, that `threads` threads take to read their shares of some memory once.
inline double stream_seconds(const InstructionSet& isa, const char* data, std::size_t bytes, int threads, int repeats) {
  double shortest = std::numeric_limits<double>::infinity();
  std::vector<std::uint32_t> sums(threads);  // so that no reading is left out
  Team team;
  team.run(threads, [&](int thread) {
    const std::size_t unit = 4096, units = bytes / unit;
    const std::size_t first = units * thread / team.size() * unit, last = units * (thread + 1) / team.size() * unit;
    for (int i = 0; i < repeats; ++i) {
      team.barrier();
      const auto start = std::chrono::steady_clock::now();
      sums[thread] += isa.network->read(data + first, last - first);
      team.barrier();
      const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
      if (thread == 0) shortest = std::min(shortest, time.count());
    }
  });
  return shortest;
}

}  // namespace tdt::cpu
