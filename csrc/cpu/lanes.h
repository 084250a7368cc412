// Sixteen float lanes, in as many registers as the instruction set of this translation unit needs.
//
// GCC and Clang have vector types with the usual operators. For other compilers a "vector" is one float, and the same
// source becomes plain loops. Results do not depend on the width: the operations on lane j are always the same.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

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

inline void store(float* x, Floats v) { std::memcpy(x, &v, sizeof v); }

inline Floats all(float x) { return Floats{} + x; }

template <class To, class From>
inline To bits_of(From from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// a * b + c, rounded once if the instruction set has a fused multiply-add. Everything else in these sources is compiled
// without contraction. So this is the only place where the baseline can give other bits than the other sets.
inline Floats multiply_add(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_NEON) && defined(__aarch64__) && defined(__GNUC__)
  return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

}  // namespace TDT_ISA
}  // namespace tdt::cpu
