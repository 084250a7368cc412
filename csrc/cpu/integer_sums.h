// Sums of products in int32: signed 8-bit weights times 8-bit rows, in groups of four inputs. They are exact.
//
// A sum is one vector of outputs for one row. Some instructions leave it in several vectors, each with a part of the
// inputs.
#pragma once

#include "float_sums.h"
#include "lanes.h"
#include "matrix.h"
#include "staging.h"

namespace tdt::cpu::TDT_ISA {

// The value of a vector of outputs whose integer sums are `dots`.
inline Floats scaled(const Matrix& matrix, const StagedRow& row, int output, Integers dots) {
  Integers sums;
  std::memcpy(&sums, matrix.sums + output, sizeof sums);
  const Integers product = dots - (row.zero - kStepShift) * sums;
#if TDT_BITS == 32
  const Floats value = static_cast<float>(product);
#else
  const Floats value = __builtin_convertvector(product, Floats);
#endif
  return value * load(matrix.scales + output) * row.scale + load(matrix.bias + output);
}

template <class Word>
inline Word word_at(const void* x, int index) {
  Word word;
  std::memcpy(&word, static_cast<const char*>(x) + sizeof word * static_cast<std::size_t>(index), sizeof word);
  return word;
}

#if (TDT_BITS == 512 && defined(__AVX512VNNI__)) || (TDT_BITS == 256 && defined(__AVXVNNI__)) || \
    (defined(TDT_NEON) && (defined(__ARM_FEATURE_MATMUL_INT8) || defined(__ARM_FEATURE_DOTPROD)))

// One instruction multiplies a group of four and adds it to the sum.
struct IntegerSums {
  using Sum = Integers;
  using Weights = Integers;
  static constexpr int kRegisters = 1;

  static Integers total(Sum sum) { return sum; }
  static Weights weights(const char* at) { return bits_of<Integers>(load_words(at)); }
  static Integers values(const void* row, int group) { return Integers{} + word_at<std::int32_t>(row, group); }
  static Sum add(Sum sum, Weights weights, Integers values) {
#if TDT_BITS == 512
    // Around the intrinsic, GCC 12 copies the sums and runs out of registers: a row takes 16 us, here it takes 7.
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(values), "v"(weights));
    return sum;
#elif TDT_BITS == 256
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(values), "x"(weights));
    return sum;
#elif defined(__ARM_FEATURE_MATMUL_INT8)
    return (Integers)vusdotq_s32((int32x4_t)sum, (uint8x16_t)values, (int8x16_t)weights);
#else
    return (Integers)vdotq_s32((int32x4_t)sum, (int8x16_t)values, (int8x16_t)weights);
#endif
  }
};

#elif defined(TDT_X86) || defined(TDT_NEON)

// Products are made in 16 bits, and neighbours of them are added in 32 bits. So half of the outputs lie in one vector
// and half in another, each in two parts.
struct IntegerSums {
  struct Sum {
    Integers halves[2];
  };
  static constexpr int kRegisters = 2;

#if defined(TDT_X86)
  // Weights and rows are widened to 16 bits: instructions on bytes add pairs of products in 16 bits, which are too few.
  struct Weights {
    Integers halves[2];
  };
  static Weights weights(const char* at) { return {{widened(at), widened(at + 2 * kWidth)}}; }
  static Sum add(Sum sum, Weights weights, Integers values) {
    for (int h = 0; h < 2; ++h) sum.halves[h] += products(weights.halves[h], values);
    return sum;
  }
#endif
#if TDT_BITS == 512
  static Integers widened(const char* at) {
    return (Integers)_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
  }
  static Integers values(const void* row, int group) {
    return (Integers)_mm512_set1_epi64(word_at<std::int64_t>(row, group));
  }
  static Integers products(Integers a, Integers b) { return (Integers)_mm512_madd_epi16((__m512i)a, (__m512i)b); }
  static Integers total(Sum sum) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_or_si512(even, _mm512_set1_epi32(1));
    const __m512i a = (__m512i)sum.halves[0], b = (__m512i)sum.halves[1];
    return (Integers)_mm512_permutex2var_epi32(a, even, b) + (Integers)_mm512_permutex2var_epi32(a, odd, b);
  }
#elif TDT_BITS == 256
  static Integers widened(const char* at) {
    return (Integers)_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
  }
  static Integers values(const void* row, int group) {
    return (Integers)_mm256_set1_epi64x(word_at<std::int64_t>(row, group));
  }
  static Integers products(Integers a, Integers b) { return (Integers)_mm256_madd_epi16((__m256i)a, (__m256i)b); }
  static Integers total(Sum sum) {
    const __m256i pairs = _mm256_hadd_epi32((__m256i)sum.halves[0], (__m256i)sum.halves[1]);
    return (Integers)_mm256_permute4x64_epi64(pairs, 0b11'01'10'00);
  }
#elif defined(TDT_X86)
  static Integers widened(const char* at) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
    return (Integers)_mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8);
  }
  static Integers values(const void* row, int group) {
    return (Integers)_mm_set1_epi64x(word_at<std::int64_t>(row, group));
  }
  static Integers products(Integers a, Integers b) { return (Integers)_mm_madd_epi16((__m128i)a, (__m128i)b); }
  static Integers total(Sum sum) {
    const __m128 a = (__m128)sum.halves[0], b = (__m128)sum.halves[1];
    return (Integers)_mm_shuffle_ps(a, b, 0b10'00'10'00) + (Integers)_mm_shuffle_ps(a, b, 0b11'01'11'01);
  }
#else
  using Weights = int8x16_t;
  static Weights weights(const char* at) { return vld1q_s8(reinterpret_cast<const std::int8_t*>(at)); }
  static int8x8_t values(const void* row, int group) {
    return vreinterpret_s8_s32(vdup_n_s32(word_at<std::int32_t>(row, group)));
  }
  static Sum add(Sum sum, Weights weights, int8x8_t values) {
    const int16x8_t low = vmull_s8(vget_low_s8(weights), values), high = vmull_s8(vget_high_s8(weights), values);
    return {{(Integers)vpadalq_s16((int32x4_t)sum.halves[0], low), (Integers)vpadalq_s16((int32x4_t)sum.halves[1], high)}};
  }
  static Integers total(Sum sum) { return (Integers)vpaddq_s32((int32x4_t)sum.halves[0], (int32x4_t)sum.halves[1]); }
#endif
};

#else

// Plain C++: a vector for each input of a group.
struct IntegerSums {
  struct Sum {
    Integers inputs[4];
  };
  using Weights = Sum;
  static constexpr int kRegisters = 4;

  static Weights weights(const char* at) {
    Weights weights;
    for (int i = 0; i < 4; ++i) weights.inputs[i] = bits_of<Integers>(load_words(at) << (24 - 8 * i)) >> 24;
    return weights;
  }
  static std::uint32_t values(const void* row, int group) { return word_at<std::uint32_t>(row, group); }
  static Sum add(Sum sum, Weights weights, std::uint32_t values) {
    for (int i = 0; i < 4; ++i)
      sum.inputs[i] += weights.inputs[i] * static_cast<std::int32_t>((values >> (8 * i)) & 0xffu);
    return sum;
  }
  static Integers total(Sum sum) { return sum.inputs[0] + sum.inputs[1] + sum.inputs[2] + sum.inputs[3]; }
};

#endif

template <>
struct Sums<Format::int8> : IntegerSums {
  static Sum begin(const Matrix&, int) { return Sum{}; }
  static Sum resume(const float*) { return Sum{}; }
  static void pause(float* out, Sum sum, bool resumed) {
    const Integers dots = whole(out, sum, resumed);
    std::memcpy(out, &dots, sizeof dots);
  }
  static void finish(const Matrix& matrix, const StagedRow& row, int output, float* out, Sum sum, bool resumed) {
    store(out, scaled(matrix, row, output, whole(out, sum, resumed)));
  }

 private:
  // `out` holds what was summed before.
  static Integers whole(const float* out, Sum sum, bool resumed) {
    return resumed ? total(sum) + bits_of<Integers>(load_words(out)) : total(sum);
  }
};

}  // namespace tdt::cpu::TDT_ISA
