// What a decode's floor is made of, measured: a barrier over the grid, a number exchanged between all blocks by words
// that carry the step in them, and how fast weights are read from shared memory and from the L2 cache.
//
// Each kernel repeats its subject; the host divides its time by the repetitions.
#include "grid.cuh"
#include "reduce.cuh"

using namespace tdt::cuda;

// Cooperative; `words` [blocks] zero before.
extern "C" __global__ void __launch_bounds__(512, 1) grid_barrier(unsigned* words, int repetitions) {
  GridBarrier barrier(words);
  for (int i = 0; i < repetitions; ++i) barrier.sync();
}

// Every block writes one word, the step above and its number below, and reads those of all others: what it waits for is
// the number itself. Cooperative; `words` [2, blocks] zero before. The sum of the last numbers goes to `out` [blocks].
extern "C" __global__ void __launch_bounds__(512, 1) tagged_exchange(unsigned long long* words, int repetitions,
                                                                     float* out) {
  float* scratch = reinterpret_cast<float*>(shared_memory());
  const int grid = static_cast<int>(gridDim.x);
  float sum = 0.0f;
  for (int i = 1; i <= repetitions; ++i) {
    unsigned long long* row = words + i % 2 * grid;
    // The next step's number depends on this one's sum, so that steps cannot overlap.
    const float number = sum * 0.0f + static_cast<float>(blockIdx.x);
    if (threadIdx.x == 0)
      store_release(row + blockIdx.x, static_cast<unsigned long long>(i) << 32 | bits_of(number));
    float mine = 0.0f;
    for (int block = static_cast<int>(threadIdx.x); block < grid; block += static_cast<int>(blockDim.x)) {
      unsigned long long word = load_acquire(row + block);
      for (; word >> 32 < static_cast<unsigned long long>(i); word = load_acquire(row + block)) pause();
      mine += float_of(static_cast<unsigned>(word));
    }
    sum = over_block(mine, scratch, [](float a, float b) { return a + b; });
  }
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

namespace tdt::cuda {

// Reads `words` of 16 bytes, a power of two, over and over, each thread its own in turn; what it returns keeps the reads
// alive.
__device__ inline unsigned read_over(const uint4* memory, int words, int repetitions) {
  unsigned sum = 0;
  for (int i = 0; i < repetitions; ++i)
    for (int at = static_cast<int>(threadIdx.x); at < words; at += static_cast<int>(blockDim.x)) {
      const uint4 word = memory[(at + i) & (words - 1)];
      sum += word.x ^ word.y ^ word.z ^ word.w;
    }
  return sum;
}

}  // namespace tdt::cuda

// Reads `words` of each block's shared memory so often.
extern "C" __global__ void __launch_bounds__(512, 1) read_shared(const uint4* source, int words, int repetitions,
                                                                 unsigned* out) {
  uint4* memory = reinterpret_cast<uint4*>(shared_memory());
  for (int at = static_cast<int>(threadIdx.x); at < words; at += static_cast<int>(blockDim.x)) memory[at] = source[at];
  sync_block();
  out[blockIdx.x * blockDim.x + threadIdx.x] = read_over(memory, words, repetitions);
}

// Each block reads its own `words` of global memory so often: if all fit, from the L2 cache.
extern "C" __global__ void __launch_bounds__(512, 1) read_cached(const uint4* source, int words, int repetitions,
                                                                 unsigned* out) {
  out[blockIdx.x * blockDim.x + threadIdx.x] =
      read_over(source + static_cast<long long>(blockIdx.x) * words, words, repetitions);
}
