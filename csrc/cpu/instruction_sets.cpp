#include "instruction_sets.h"

#if defined(TDT_HAS_avx2) && defined(_MSC_VER)
#include <immintrin.h>
#include <intrin.h>
#endif
#if defined(TDT_HAS_amx) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace tdt::cpu {

#define TDT_DECLARE(isa)                                                                                     \
  namespace isa {                                                                                            \
  void decide_rows(const float*, std::size_t, const RowLayout&, const GreedyOptions&, const Masks&,          \
                   std::int32_t*, std::int32_t*, float*, float*);                                            \
  void rank_row(const float*, const RowLayout&, const float*, Allowed, int, const BeamOptions&, RankedRow*); \
  extern const NetworkKernels network_kernels;                                                               \
  }
TDT_DECLARE(baseline)
#if defined(TDT_HAS_avx2)
TDT_DECLARE(avx2)
TDT_DECLARE(avx512)
#endif
#if defined(TDT_HAS_avx512bf16)
TDT_DECLARE(avx512bf16)
TDT_DECLARE(amx)
#endif
#undef TDT_DECLARE

namespace {

bool always() { return true; }

#if defined(TDT_HAS_avx2) && defined(_MSC_VER)
// The processor must have the instructions, and the operating system must save their registers.
bool leaf7(int ebx_mask, unsigned long long xcr0_mask) {
  int info[4];
  __cpuid(info, 1);
  const bool osxsave = info[2] & (1 << 27), fma = info[2] & (1 << 12), f16c = info[2] & (1 << 29);
  if (!osxsave || !fma || !f16c || (_xgetbv(0) & xcr0_mask) != xcr0_mask) return false;
  __cpuidex(info, 7, 0);
  return (info[1] & ebx_mask) == ebx_mask;
}
bool has_avx2() { return leaf7(1 << 5, 0x6); }
bool has_avx512() {
  return leaf7((1 << 5) | (1 << 16) | (1 << 17) | (1 << 30) | static_cast<int>(1u << 31), 0xe6);
}
#elif defined(TDT_HAS_avx2)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

#if defined(TDT_HAS_avx512bf16)
bool has_avx512bf16() {
  return has_avx512() && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
}
bool has_amx() {
#if defined(__linux__)
  if (!has_avx512bf16() || !__builtin_cpu_supports("amx-tile") || !__builtin_cpu_supports("amx-bf16") ||
      !__builtin_cpu_supports("amx-int8"))
    return false;
  // Tile registers are large. Linux gives them only to processes that ask for them.
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
#else
  return false;
#endif
}
#endif

const InstructionSet kTable[] = {
    {"baseline", always, false, 0, baseline::decide_rows, baseline::rank_row, &baseline::network_kernels},
#if defined(TDT_HAS_avx2)
    {"avx2", has_avx2, true, 8, avx2::decide_rows, avx2::rank_row, &avx2::network_kernels},
    {"avx512", has_avx512, true, 8, avx512::decide_rows, avx512::rank_row, &avx512::network_kernels},
#endif
#if defined(TDT_HAS_avx512bf16)
    {"avx512bf16", has_avx512bf16, true, 32, avx512bf16::decide_rows, avx512bf16::rank_row, &avx512bf16::network_kernels},
    {"amx", has_amx, true, 32, amx::decide_rows, amx::rank_row, &amx::network_kernels},
#endif
};

}  // namespace

const InstructionSet* instruction_sets(std::size_t* count) {
  *count = sizeof kTable / sizeof kTable[0];
  return kTable;
}

}  // namespace tdt::cpu
