// Sixteen float lanes, in as many registers as the instruction set of this translation unit needs.
//
// GCC and Clang have vector types with the usual operators. For other compilers a "vector" is one float, and the same
// source becomes plain loops. Results do not depend on the width: the operations on lane j are always the same.
#pragma once

#include <cstdint>
#include <cstring>

// The bits of a vector. 32: the compiler has no vector types.
#if !defined(__GNUC__)
#define TDT_BITS 32
#elif defined(__AVX512F__)
#define TDT_BITS 512
#elif defined(__AVX2__)
#define TDT_BITS 256
#else
#define TDT_BITS 128
#endif

#if TDT_BITS >= 128 && defined(__SSE2__)
#define TDT_X86
#include <immintrin.h>
#elif TDT_BITS == 128 && defined(__aarch64__)
#define TDT_NEON
#include <arm_neon.h>
#endif

#if defined(__AMX_TILE__) || defined(TDT_EMULATE_TILES)
#define TDT_TILES
#endif

namespace tdt::cpu {

constexpr int kLanes = 16;

namespace TDT_ISA {

#if TDT_BITS == 32
constexpr int kWidth = 1;
using Floats = float;
using Words = std::uint32_t;
using Integers = std::int32_t;
#else
constexpr int kWidth = TDT_BITS / 32;
typedef float Floats __attribute__((vector_size(4 * kWidth)));
typedef std::uint32_t Words __attribute__((vector_size(4 * kWidth)));
typedef std::int32_t Integers __attribute__((vector_size(4 * kWidth)));
#endif

constexpr int kVectors = kLanes / kWidth;

inline Floats load(const float* x) {
  Floats v;
  std::memcpy(&v, x, sizeof v);
  return v;
}

inline void store(float* x, Floats v) { std::memcpy(x, &v, sizeof v); }

// The first `count` of a vector's numbers, at most all of them; the other lanes are 0.
inline Floats load_partly(const float* x, int count) {
  if (count >= kWidth) return load(x);
  float lanes[kWidth] = {};
  if (count > 0) std::memcpy(lanes, x, sizeof(float) * count);
  return load(lanes);
}

inline Words load_words(const void* x) {
  Words words;
  std::memcpy(&words, x, sizeof words);
  return words;
}

// Stores the low bits of each lane.
template <class Narrow>
inline void store_narrow(Narrow* x, Words words) {
#if TDT_BITS == 32
  *x = static_cast<Narrow>(words);
#else
  typedef Narrow Narrows __attribute__((vector_size(sizeof(Narrow) * kWidth)));
  const Narrows narrows = __builtin_convertvector(words, Narrows);
  std::memcpy(x, &narrows, sizeof narrows);
#endif
}

inline Floats all(float x) { return Floats{} + x; }

template <class To, class From>
inline To bits_of(From from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

inline bool any(Words lanes) {
  std::uint32_t words[kWidth], found = 0;
  std::memcpy(words, &lanes, sizeof words);
  for (std::uint32_t word : words) found |= word;
  return found != 0;
}

// All bits of a lane are set if its token may be emitted, see tdt::Allowed.
inline Words allowed_lanes(const unsigned char* allowed) {
#if TDT_BITS == 32
  return *allowed ? ~Words{} : Words{};
#else
  typedef unsigned char Bytes __attribute__((vector_size(kWidth)));
  Bytes bytes;
  std::memcpy(&bytes, allowed, sizeof bytes);
  return (Words)(__builtin_convertvector(bytes, Words) != 0);
#endif
}

// a * b + c, rounded once if the instruction set has a fused multiply-add. Everything else in these sources is compiled
// without contraction. So this is the only place where the baseline can give other bits than the other sets.
inline Floats multiply_add(Floats a, Floats b, Floats c) {
#if TDT_BITS == 512
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif TDT_BITS == 256
  return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(TDT_NEON)
  return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

}  // namespace TDT_ISA
}  // namespace tdt::cpu
