// Measures what sets the shortest possible time of a decode: a barrier over the grid, the exchange of a number between
// all blocks without a barrier, and how fast weights can be read from shared memory and from the L2 cache.
//
// Each kernel repeats one of these; the host divides the kernel's time by the repetitions.
#include "grid.cuh"
#include "reduce.cuh"

using namespace tdt::cuda;

// Cooperative. `words` [blocks] must be zero before.
extern "C" __global__ void __launch_bounds__(512, 1) grid_barrier(unsigned* words, int repetitions) {
  GridBarrier barrier(words);
  for (int i = 0; i < repetitions; ++i) barrier.sync();
}

// In each step every block writes one word, with the step in the upper half and its number in the lower half, and reads
// the words of all blocks. A block sees by the step whether a number has arrived, so there is no barrier. Cooperative.
// `words` [2, blocks] must be zero before. The sum of the last numbers goes to `out` [blocks].
extern "C" __global__ void __launch_bounds__(512, 1) tagged_exchange(unsigned long long* words, int repetitions,
                                                                     float* out) {
  float* scratch = reinterpret_cast<float*>(shared_memory());
  const int grid = static_cast<int>(gridDim.x);
  float sum = 0.0f;
  for (int i = 1; i <= repetitions; ++i) {
    unsigned long long* row = words + i % 2 * grid;
    // A step's number depends on the sum of the step before, so that steps cannot overlap.
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

// Reads `words` words of 16 bytes, a power of two, over and over; the threads of a block share them. The result keeps
// the compiler from dropping the reads.
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

// Each block reads `words` words of its shared memory, `repetitions` times.
extern "C" __global__ void __launch_bounds__(512, 1) read_shared(const uint4* source, int words, int repetitions,
                                                                 unsigned* out) {
  uint4* memory = reinterpret_cast<uint4*>(shared_memory());
  for (int at = static_cast<int>(threadIdx.x); at < words; at += static_cast<int>(blockDim.x)) memory[at] = source[at];
  sync_block();
  out[blockIdx.x * blockDim.x + threadIdx.x] = read_over(memory, words, repetitions);
}

// Each block reads its own `words` words of global memory, `repetitions` times: from the L2 cache, if the words of all
// blocks fit there.
extern "C" __global__ void __launch_bounds__(512, 1) read_cached(const uint4* source, int words, int repetitions,
                                                                 unsigned* out) {
  out[blockIdx.x * blockDim.x + threadIdx.x] =
      read_over(source + static_cast<long long>(blockIdx.x) * words, words, repetitions);
}
