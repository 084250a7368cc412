// Sums of products in float32: weights in float32, float16 or bfloat16, and rows in float32 or in pairs of bfloat16.
//
// A sum is one vector of outputs for one row. It starts with the bias and adds the inputs in order.
#pragma once

#include "lanes.h"
#include "matrix.h"
#include "staging.h"

namespace tdt::cpu::TDT_ISA {

inline Words load_halves(const std::uint16_t* x) {
#if TDT_BITS == 512
  return (Words)_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
#elif TDT_BITS == 256
  return (Words)_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
#elif TDT_BITS == 128
  typedef std::uint16_t Halves __attribute__((vector_size(2 * kWidth)));
  Halves halves;
  std::memcpy(&halves, x, sizeof halves);
  return __builtin_convertvector(halves, Words);
#else
  return *x;
#endif
}

template <Format F>
inline Floats widened(const void* weights, std::size_t index) {
  if constexpr (F == Format::float32) {
    return load(static_cast<const float*>(weights) + index);
  } else if constexpr (F == Format::bfloat16) {
    return bits_of<Floats>(load_halves(static_cast<const std::uint16_t*>(weights) + index) << 16);
  } else {
    const std::uint16_t* halves = static_cast<const std::uint16_t*>(weights) + index;
#if TDT_BITS == 512
    return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves)));
#elif TDT_BITS == 256
    return (Floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(halves)));
#elif defined(TDT_NEON)
    return (Floats)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(halves)));
#else
    // A product with 2^112 corrects the exponent's bias. It is exact, for subnormal halves too.
    const Words bits = load_halves(halves);
    const Floats size = bits_of<Floats>((bits & 0x7fffu) << 13) * 5.192296858534828e33f;
    return bits_of<Floats>(bits_of<Words>(size) | ((bits & 0x8000u) << 16));
#endif
  }
}

// What float32 sums have in common.
struct FloatSums {
  using Sum = Floats;
  static constexpr int kRegisters = 1;  // that one sum takes

  static Sum begin(const Matrix& matrix, int output) { return load(matrix.bias + output); }
  static Sum resume(const float* out) { return load(out); }
  static void pause(float* out, Sum sum, bool) { store(out, sum); }
  static void finish(const Matrix&, const StagedRow&, int, float* out, Sum sum, bool) { store(out, sum); }
};

template <Format F>
struct Sums : FloatSums {
  using Weights = Floats;
  static Weights weights(const char* at) { return widened<F>(at, 0); }
  static Floats values(const void* row, int input) { return all(static_cast<const float*>(row)[input]); }
  static Sum add(Sum sum, Weights weights, Floats values) { return multiply_add(weights, values, sum); }
};

// Weights are pairs of bfloat16, with the even input in a word's low half.
template <>
struct Sums<Format::bfloat16_pairs> : FloatSums {
#if defined(TDT_DOTS_OF_PAIRS)
  using Weights = Words;
  static Weights weights(const char* at) { return load_words(at); }
  static Words values(const void* row, int pair) {
    std::uint32_t word;
    std::memcpy(&word, static_cast<const std::uint16_t*>(row) + 2 * pair, sizeof word);
    return Words{} + word;
  }
  static Sum add(Sum sum, Weights weights, Words values) {
#if defined(TDT_NEON) && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    return (Floats)vbfdotq_f32((float32x4_t)sum, (bfloat16x8_t)weights, (bfloat16x8_t)values);
#else
    sum = multiply_add(bits_of<Floats>(weights << 16), bits_of<Floats>(values << 16), sum);
    return multiply_add(bits_of<Floats>(weights & 0xffff0000u), bits_of<Floats>(values & 0xffff0000u), sum);
#endif
  }
#else
  struct Weights {
    Floats even, odd;
  };
  struct Values {
    Floats even, odd;
  };
  static Weights weights(const char* at) {
    const Words words = load_words(at);
    return {bits_of<Floats>(words << 16), bits_of<Floats>(words & 0xffff0000u)};
  }
  static Values values(const void* row, int pair) {
    const float* x = static_cast<const float*>(row) + 2 * pair;
    return {all(x[0]), all(x[1])};
  }
  static Sum add(Sum sum, Weights weights, Values values) {
    return multiply_add(weights.odd, values.odd, multiply_add(weights.even, values.even, sum));
  }
#endif
};

}  // namespace tdt::cpu::TDT_ISA
