// Reductions in a fixed order, so that results do not depend on which thread is first.
#pragma once

#include "device.cuh"

namespace tdt::cuda {

constexpr int kWarp = 32;

__device__ __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x % kWarp); }
__device__ __forceinline__ int warp_index() { return static_cast<int>(threadIdx.x / kWarp); }
__device__ __forceinline__ int warp_count() { return static_cast<int>(blockDim.x / kWarp); }

// log(sum(exp(x))) in two parts: the largest x, and sum(exp(x - max)).
struct LogSum {
  float max = kLowest, sum = 0.0f;
};

// One copy, since it is long.
__device__ TDT_OUTLINED LogSum added(LogSum a, LogSum b) {
  const float max = a.max > b.max ? a.max : b.max;
  if (!(max > kLowest)) return a;
  LogSum result;
  result.max = max;
  result.sum = a.sum * expf(a.max - max) + b.sum * expf(b.max - max);
  return result;
}
__device__ __forceinline__ LogSum log_sum_of(float logit) {
  LogSum one;
  if (logit > kLowest) {
    one.max = logit;
    one.sum = 1.0f;
  }
  return one;
}
__device__ __forceinline__ float exchanged(float value, int mask) { return shuffle_xor(value, mask); }
__device__ __forceinline__ unsigned long long exchanged(unsigned long long value, int mask) {
  return shuffle_xor(value, mask);
}
__device__ __forceinline__ Best exchanged(const Best& value, int mask) {
  Best other;
  other.value = shuffle_xor(value.value, mask);
  other.index = shuffle_xor(value.index, mask);
  return other;
}
__device__ __forceinline__ LogSum exchanged(const LogSum& value, int mask) {
  LogSum other;
  other.max = shuffle_xor(value.max, mask);
  other.sum = shuffle_xor(value.sum, mask);
  return other;
}

// Ways to combine two values. As types, so that what is not inlined has one copy for all callers.
struct Better {
  __device__ Best operator()(const Best& a, const Best& b) const { return better(a, b); }
};
struct Added {
  __device__ LogSum operator()(const LogSum& a, const LogSum& b) const { return added(a, b); }
};
struct Plus {
  __device__ float operator()(float a, float b) const { return a + b; }
};

template <class T, class Combine>
__device__ __forceinline__ T exchanged_and_combined(T value, int mask, Combine combine) {
  const T other = exchanged(value, mask);
  const bool second = (lane_index() & mask) != 0;
  return combine(second ? other : value, second ? value : other);
}
// Reduces over `width` neighbouring lanes, a power of two. Each lane gets the result.
template <class T, class Combine>
__device__ __forceinline__ T over_lanes(T value, int width, Combine combine) {
  for (int mask = width / 2; mask > 0; mask /= 2) value = exchanged_and_combined(value, mask, combine);
  return value;
}
// The same for a whole warp, in little code.
template <class T, class Combine>
__device__ TDT_OUTLINED T over_warp(T value, Combine combine) {
#pragma unroll 1
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value = exchanged_and_combined(value, mask, combine);
  return value;
}

// Reduces over the whole block. Each thread gets the result. A `T{}` changes nothing that it is combined with.
// `scratch` is shared memory for one T per warp.
template <class T, class Combine>
__device__ TDT_OUTLINED T over_block(T value, T* scratch, Combine combine) {
  value = over_warp(value, combine);
  sync_block();
  if (lane_index() == 0) scratch[warp_index()] = value;
  sync_block();
  return over_warp(lane_index() < warp_count() ? scratch[lane_index()] : T{}, combine);
}

// Counts the threads of a block that have the flag: those before this one, and all. `scratch` is shared memory for one
// int per warp.
struct Rank {
  int before, total;
};
__device__ TDT_OUTLINED Rank ranked(bool flag, int* scratch) {
  const unsigned bits = ballot(flag);
  sync_block();
  if (lane_index() == 0) scratch[warp_index()] = count_bits(bits);
  sync_block();
  Rank rank = {count_bits(bits & ((1u << lane_index()) - 1u)), 0};
#pragma unroll 4
  for (int warp = 0; warp < warp_count(); ++warp) {
    if (warp < warp_index()) rank.before += scratch[warp];
    rank.total += scratch[warp];
  }
  return rank;
}

// A `Best` as one number, larger if it is better: first by the larger value, then by the lower index. 0: none.
__device__ __forceinline__ unsigned long long packed(const Best& best) {
  if (best.index == kNoIndex) return 0;
  const unsigned bits = bits_of(best.value + 0.0f);  // -0 equals 0
  const unsigned ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<unsigned long long>(ordered) << 32 | (0xffffffffu - static_cast<unsigned>(best.index));
}
__device__ __forceinline__ Best unpacked(unsigned long long word) {
  Best best;
  if (word == 0) return best;
  const unsigned ordered = static_cast<unsigned>(word >> 32);
  best.value = float_of(ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered);
  best.index = static_cast<int>(0xffffffffu - static_cast<unsigned>(word));
  return best;
}

}  // namespace tdt::cuda
