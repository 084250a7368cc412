// The table of instruction sets: everything that is compiled once for each.
#pragma once

#include <cstddef>

#include "network_kernels.h"
#include "row_kernels.h"

namespace tdt::cpu {

struct InstructionSet {
  const char* name;     // "baseline", "avx2", "avx512", "avx512bf16" (with VNNI), "amx"
  bool (*supported)();  // by this processor and operating system
  bool widens_halves;   // reads 16-bit weights as fast as memory gives them
  int screened_slots;    // screening (screening.h) saves time for so many rows in flight at most
  DecideRows decide;
  RankRow rank;
  const NetworkKernels* network;
};

// Every instruction set compiled into this build, slowest first.
const InstructionSet* instruction_sets(std::size_t* count);

}  // namespace tdt::cpu
