#include "instruction_sets.h"

#if defined(TDT_X86) && defined(_MSC_VER)
#include <immintrin.h>
#include <intrin.h>
#endif

namespace tdt::cpu {

#define TDT_DECLARE(isa)                                                                                     \
  namespace isa {                                                                                            \
  void decide_rows(const float*, std::size_t, const RowLayout&, float, std::int32_t*, std::int32_t*, float*, \
                   float*);                                                                                  \
  extern const NetworkKernels network_kernels;                                                               \
  }
TDT_DECLARE(baseline)
#if defined(TDT_X86)
TDT_DECLARE(avx2)
TDT_DECLARE(avx512)
TDT_DECLARE(avx512bf16)
#endif
#undef TDT_DECLARE

namespace {

bool always() { return true; }

#if defined(TDT_X86) && defined(_MSC_VER)
// The processor must have the instructions and the system must save their registers.
struct Features {
  int ebx = 0, ecx = 0, bf16 = 0;
  bool usable = false;
  explicit Features(unsigned long long registers) {
    int info[4];
    __cpuid(info, 1);
    const bool osxsave = info[2] & (1 << 27), fma = info[2] & (1 << 12), f16c = info[2] & (1 << 29);
    usable = osxsave && fma && f16c && (_xgetbv(0) & registers) == registers;
    __cpuidex(info, 7, 0);
    ebx = info[1];
    ecx = info[2];
    __cpuidex(info, 7, 1);
    bf16 = info[0] & (1 << 5);
  }
};
bool has_avx2() {
  const Features features(0x6);
  return features.usable && (features.ebx & (1 << 5));
}
bool has_avx512() {
  constexpr int kBits = (1 << 5) | (1 << 16) | (1 << 17) | (1 << 30) | static_cast<int>(1u << 31);
  const Features features(0xe6);
  return features.usable && (features.ebx & kBits) == kBits;
}
bool has_avx512bf16() {
  const Features features(0xe6);
  return has_avx512() && (features.ecx & (1 << 11)) && features.bf16;
}
#elif defined(TDT_X86)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
bool has_avx512bf16() {
  return has_avx512() && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
}
#endif

const InstructionSet kTable[] = {
    {"baseline", always, false, false, baseline::decide_rows, &baseline::network_kernels},
#if defined(TDT_X86)
    {"avx2", has_avx2, true, true, avx2::decide_rows, &avx2::network_kernels},
    {"avx512", has_avx512, true, true, avx512::decide_rows, &avx512::network_kernels},
    {"avx512bf16", has_avx512bf16, true, true, avx512bf16::decide_rows, &avx512bf16::network_kernels},
#endif
};

}  // namespace

const InstructionSet* instruction_sets(std::size_t* count) {
  *count = sizeof kTable / sizeof kTable[0];
  return kTable;
}

}  // namespace tdt::cpu
