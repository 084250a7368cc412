#include "instruction_sets.h"

#if defined(TDT_HAS_avx2) && defined(_MSC_VER)
#include <immintrin.h>
#include <intrin.h>
#elif defined(TDT_HAS_avxvnni)
#include <cpuid.h>
#endif
#if defined(TDT_HAS_amx) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(TDT_HAS_neon_dotprod) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(TDT_HAS_neon_dotprod) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace tdt::cpu {

#define TDT_DECLARE(isa)                                                                                     \
  namespace isa {                                                                                            \
  void decide_rows(const float*, std::size_t, const RowLayout&, const GreedyOptions&, const Masks&,          \
                   const float*, std::int32_t*, std::int32_t*, float*, float*);                              \
  void rank_row(const float*, const RowLayout&, const float*, Allowed, int, const BeamOptions&, RankedRow*); \
  extern const NetworkKernels network_kernels;                                                               \
  }
TDT_DECLARE(baseline)
#if defined(TDT_HAS_avx2)
TDT_DECLARE(avx2)
TDT_DECLARE(avx512)
#endif
#if defined(TDT_HAS_avxvnni)
TDT_DECLARE(avxvnni)
TDT_DECLARE(avx512vnni)
TDT_DECLARE(amx)
#endif
#if defined(TDT_HAS_neon_dotprod)
TDT_DECLARE(neon_dotprod)
TDT_DECLARE(neon_bf16)
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

#if defined(TDT_HAS_avxvnni)
bool has_avxvnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return has_avx2() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & (1u << 4));
}
bool has_avx512vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
bool has_amx() {
#if defined(__linux__)
  if (!has_avx512vnni() || !__builtin_cpu_supports("amx-tile") || !__builtin_cpu_supports("amx-bf16") ||
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

#if defined(TDT_HAS_neon_dotprod)
#if defined(__linux__)
bool has_neon_dotprod() {
  constexpr unsigned long kDotProduct = 1ul << 20;
  return getauxval(AT_HWCAP) & kDotProduct;
}
bool has_neon_bf16() {
  constexpr unsigned long kByteMatrices = 1ul << 13, kBfloat16 = 1ul << 14, kBoth = kByteMatrices | kBfloat16;
  return has_neon_dotprod() && (getauxval(AT_HWCAP2) & kBoth) == kBoth;
}
#elif defined(__APPLE__)
bool has(const char* feature) {
  int value = 0;
  std::size_t size = sizeof value;
  return sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value != 0;
}
bool has_neon_dotprod() { return has("hw.optional.arm.FEAT_DotProd"); }
bool has_neon_bf16() {
  return has_neon_dotprod() && has("hw.optional.arm.FEAT_I8MM") && has("hw.optional.arm.FEAT_BF16");
}
#else  // there is no way to ask
bool has_neon_dotprod() { return false; }
bool has_neon_bf16() { return false; }
#endif
#endif

#define TDT_SET(isa, supported, widens_halves, screened_slots, ...)                      \
  {#isa, supported, widens_halves, __VA_ARGS__, screened_slots, isa::decide_rows, isa::rank_row, \
   &isa::network_kernels}
const InstructionSet kTable[] = {
    TDT_SET(baseline, always, false, 0, {2, 1, 1, 1}),
#if defined(TDT_HAS_avx2)
    TDT_SET(avx2, has_avx2, true, 8, {4, 2, 2, 2}),
#endif
#if defined(TDT_HAS_avxvnni)
    TDT_SET(avxvnni, has_avxvnni, true, 32, {4, 2, 2, 4}),
#endif
#if defined(TDT_HAS_avx2)
    TDT_SET(avx512, has_avx512, true, 8, {8, 4, 4, 3}),
#endif
#if defined(TDT_HAS_avxvnni)
    TDT_SET(avx512vnni, has_avx512vnni, true, 32, {8, 4, 4, 8}),
    TDT_SET(amx, has_amx, true, 32, {8, 4, 8, 16}),
#endif
#if defined(TDT_HAS_neon_dotprod)  // not measured: estimated from the number of instructions
    TDT_SET(neon_dotprod, has_neon_dotprod, true, 8, {4, 2, 2, 4}),
    TDT_SET(neon_bf16, has_neon_bf16, true, 32, {4, 2, 4, 4}),
#endif
};
#undef TDT_SET

}  // namespace

const InstructionSet* instruction_sets(std::size_t* count) {
  *count = sizeof kTable / sizeof kTable[0];
  return kTable;
}

}  // namespace tdt::cpu
