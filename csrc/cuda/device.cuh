// What kernels need of CUDA: shared memory, synchronisation within a block and across the grid, 16-bit numbers and the
// tensor cores.
//
// Kernels use these functions, threadIdx.x, blockIdx.x, blockDim.x and gridDim.x, and nothing else of CUDA. So another
// header with the same functions (TDT_HOST_CUDA) can run the same sources on a computer without a GPU, with or without
// sanitizers. A function that synchronises must be called by whole warps or whole blocks.
#pragma once

#include "tdt/row.h"

#if defined(TDT_HOST_CUDA)
#include "host_cuda.h"
#else

// A function that is never inlined. In a header, each source has a copy of its own.
#define TDT_OUTLINED static __noinline__

namespace tdt::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

// The block's dynamic shared memory, at a multiple of 16 bytes.
__device__ __forceinline__ unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}

__device__ __forceinline__ void sync_block() { __syncthreads(); }
__device__ __forceinline__ void sync_warp() { __syncwarp(kAllLanes); }
template <class T>
__device__ __forceinline__ T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(kAllLanes, value, mask);
}
template <class T>
__device__ __forceinline__ T shuffle(T value, int lane) {
  return __shfl_sync(kAllLanes, value, lane);
}
__device__ __forceinline__ unsigned ballot(bool predicate) { return __ballot_sync(kAllLanes, predicate); }
__device__ __forceinline__ int count_bits(unsigned bits) { return __popc(bits); }

// Blocks synchronise with each other by these functions alone: acquire loads, release stores and release additions, and
// relaxed loads and stores of words that carry their data themselves.
__device__ __forceinline__ unsigned load_acquire(const unsigned* word) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
  return value;
}
__device__ __forceinline__ unsigned long long load_acquire(const unsigned long long* word) {
  unsigned long long value;
  asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
  return value;
}
__device__ __forceinline__ void store_release(unsigned* word, unsigned value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}
__device__ __forceinline__ void store_release(unsigned long long* word, unsigned long long value) {
  asm volatile("st.release.gpu.global.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}
__device__ __forceinline__ void add_release(unsigned* word, unsigned value) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}
// Read and write words whole, and order no other access.
__device__ __forceinline__ void load_relaxed(const unsigned long long* two, unsigned long long* a,
                                             unsigned long long* b) {
  asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];" : "=l"(*a), "=l"(*b) : "l"(two) : "memory");
}
__device__ __forceinline__ void store_relaxed(unsigned long long* word, unsigned long long value) {
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}
// Called in a loop that waits for a word to change.
__device__ __forceinline__ void pause() {}
// All threads of a block call these where it arrives at a barrier over the grid, where it has left something for the
// others but has other work before it needs theirs, and where it begins to wait for theirs. The first thread calls
// `acquired` when a barrier lets it go on.
__device__ __forceinline__ void arriving() {}
__device__ __forceinline__ void meanwhile() {}
__device__ __forceinline__ void awaiting() {}
__device__ __forceinline__ void acquired() {}
// Ends the launch with an error.
__device__ __forceinline__ void fail() { __trap(); }

// Copies an object by one access to memory, if its size and alignment are 16 bytes.
template <class T>
__device__ __forceinline__ void copy_whole(T* to, const T* from) {
  static_assert(sizeof(T) == 16 && alignof(T) == 16);
  memcpy(to, from, sizeof(T));
}

// Brings a word of global memory to the L1 cache, since it will be read soon.
__device__ __forceinline__ void prefetch(const void* word) { asm volatile("prefetch.global.L1 [%0];" ::"l"(word)); }

// Atomic, but without ordering other accesses. In global or shared memory.
__device__ __forceinline__ void atomic_max(unsigned long long* word, unsigned long long value) {
  atomicMax(word, value);
}
__device__ __forceinline__ int atomic_add(int* word, int value) { return atomicAdd(word, value); }

__device__ __forceinline__ unsigned bits_of(float x) { return __float_as_uint(x); }
__device__ __forceinline__ float float_of(unsigned bits) { return __uint_as_float(bits); }

__device__ __forceinline__ unsigned short half_bits(float x) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}
__device__ __forceinline__ float half_value(unsigned short bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
}

// Two halves in one word, `low` in its lower half. Numbers out of range become the largest number. NaN stays NaN.
__device__ __forceinline__ unsigned finite_halves(float low, float high) {
#if __CUDA_ARCH__ >= 800
  unsigned pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  asm("min.NaN.f16x2 %0, %0, %1;" : "+r"(pair) : "r"(0x7bff7bffu));
  asm("max.NaN.f16x2 %0, %0, %1;" : "+r"(pair) : "r"(0xfbfffbffu));
  return pair;
#else
  const auto finite = [](float x) { return half_bits(x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x); };
  return finite(low) | static_cast<unsigned>(finite(high)) << 16;
#endif
}

// The same, but zero instead of negative numbers.
__device__ __forceinline__ unsigned positive_halves(float low, float high) {
#if __CUDA_ARCH__ >= 800
  unsigned pair;
  asm("cvt.rn.relu.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  asm("min.NaN.f16x2 %0, %0, %1;" : "+r"(pair) : "r"(0x7bff7bffu));
  return pair;
#else
  return finite_halves(low < 0.0f ? 0.0f : low, high < 0.0f ? 0.0f : high);
#endif
}

// sums [16, 8] += a [16, 16] b [16, 8]. A lane holds 8 numbers of a, 4 of b and 4 of the sums, in the layout that PTX
// gives for mma.m16n8k16. A column of the sums depends only on the same column of b.
__device__ __forceinline__ void multiply_halves(float (&sums)[4], const uint4& a, unsigned b0, unsigned b1) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
#else  // older cards multiply 8 inputs at a time
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a.x), "r"(a.y), "r"(b0));
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a.z), "r"(a.w), "r"(b1));
#endif
}
__device__ __forceinline__ void multiply_bfloats(float (&sums)[4], const uint4& a, unsigned b0, unsigned b1) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
#else
  __trap();  // these cards cannot multiply bfloat16, and the host refuses the precision
#endif
}

}  // namespace tdt::cuda

#endif
