// The table of instruction sets, and what this machine supports of it.
#include "row_kernels.h"

#if defined(TDT_X86) && defined(_MSC_VER)
#include <immintrin.h>
#include <intrin.h>
#endif

namespace tdt::cpu {

#define TDT_DECLARE(isa)                                                                                   \
  namespace isa {                                                                                          \
  void decide_rows(const float*, std::size_t, const RowLayout&, float, std::int32_t*, std::int32_t*, float*, \
                   float*);                                                                                \
  }
TDT_DECLARE(baseline)
#if defined(TDT_X86)
TDT_DECLARE(avx2)
TDT_DECLARE(avx512)
#endif
#undef TDT_DECLARE

namespace {

bool always() { return true; }

#if defined(TDT_X86) && defined(_MSC_VER)
// The processor must have the instructions and the system must save their registers.
bool leaf7(int ebx_mask, unsigned long long xcr0_mask) {
  int info[4];
  __cpuid(info, 1);
  const bool osxsave = info[2] & (1 << 27), fma = info[2] & (1 << 12);
  if (!osxsave || !fma || (_xgetbv(0) & xcr0_mask) != xcr0_mask) return false;
  __cpuidex(info, 7, 0);
  return (info[1] & ebx_mask) == ebx_mask;
}
bool has_avx2() { return leaf7(1 << 5, 0x6); }
bool has_avx512() {
  return leaf7((1 << 5) | (1 << 16) | (1 << 17) | (1 << 30) | static_cast<int>(1u << 31), 0xe6);
}
#elif defined(TDT_X86)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

constexpr RowKernels kTable[] = {
    {"baseline", always, baseline::decide_rows},
#if defined(TDT_X86)
    {"avx2", has_avx2, avx2::decide_rows},
    {"avx512", has_avx512, avx512::decide_rows},
#endif
};

}  // namespace

const RowKernels* row_kernels(std::size_t* count) {
  *count = sizeof kTable / sizeof kTable[0];
  return kTable;
}

}  // namespace tdt::cpu
