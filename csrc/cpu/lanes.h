// Sixteen float lanes, in as many registers as the instruction set of this translation unit needs.
//
// GCC and Clang have vector types that take the scalar operators; elsewhere a "vector" is one float and the same
// source compiles to plain loops. Results do not depend on the width: lane j sees the same operations in each case.
#pragma once

#include <cstdint>
#include <cstring>

namespace tdt::cpu {

constexpr int kLanes = 16;

namespace TDT_ISA {

#if !defined(__GNUC__)
constexpr int kWidth = 1;
using Floats = float;
using Words = std::uint32_t;
#else
#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif
typedef float Floats __attribute__((vector_size(4 * kWidth)));
typedef std::uint32_t Words __attribute__((vector_size(4 * kWidth)));
#endif

constexpr int kVectors = kLanes / kWidth;

inline Floats load(const float* x) {
  Floats v;
  std::memcpy(&v, x, sizeof v);
  return v;
}

inline Floats all(float x) { return Floats{} + x; }

template <class To, class From>
inline To bits_of(From from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace TDT_ISA
}  // namespace tdt::cpu
