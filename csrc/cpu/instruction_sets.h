// The table of instruction sets, with the functions that are compiled once for each.
#pragma once

#include <cstddef>

#include "network_kernels.h"
#include "row_kernels.h"

namespace tdt::cpu {

// How many rows a product multiplies in about the time that reading the weights takes, for each format; as measured with
// weights in the last cache, on one thread.
struct RowsWhileReading {
  int float32, halves, pairs, int8;

  int operator[](Format format) const {
    switch (format) {
      case Format::float32: return float32;
      case Format::float16:
      case Format::bfloat16: return halves;
      case Format::bfloat16_pairs: return pairs;
      case Format::int8: return int8;
    }
    return 1;
  }
};

struct InstructionSet {
  const char* name;     // on x86-64 "baseline", "avx2", "avxvnni", "avx512", "avx512vnni", "amx"; on ARM "baseline",
                        // which has NEON, "neon_dotprod", "neon_bf16" (with 8-bit matrices)
  bool (*supported)();  // whether this processor and operating system have it
  bool widens_halves;   // whether 16-bit weights are widened as fast as memory delivers them
  RowsWhileReading rows_while_reading;
  int screened_slots;   // most utterances in flight for which screening (screening.h) saves time
  DecideRows decide;
  RankRow rank;
  const NetworkKernels* network;
};

// Every instruction set compiled into this build, slowest first.
const InstructionSet* instruction_sets(std::size_t* count);

}  // namespace tdt::cpu
