// The table of instruction sets, with the functions that are compiled once for each.
#pragma once

#include <cstddef>

#include "network_kernels.h"
#include "row_kernels.h"

namespace tdt::cpu {

struct InstructionSet {
  const char* name;     // "baseline", "avx2", "avx512", "avx512bf16" (with VNNI), "amx"
  bool (*supported)();  // whether this processor and operating system have it
  bool widens_halves;   // whether 16-bit weights are widened as fast as memory delivers them
  int screened_slots;   // most utterances in flight for which screening (screening.h) saves time
  DecideRows decide;
  RankRow rank;
  const NetworkKernels* network;
};

// Every instruction set compiled into this build, slowest first.
const InstructionSet* instruction_sets(std::size_t* count);

}  // namespace tdt::cpu
