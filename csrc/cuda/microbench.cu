// Measures what sets the shortest possible time of a decode: a barrier over the grid, the exchange of a number between
// all blocks without a barrier, and how fast weights can be read from shared memory and from the L2 cache.
//
// Each kernel repeats one of these; the host divides the kernel's time by the repetitions.
#include "grid.cuh"
#include "reduce.cuh"

using namespace tdt::cuda;

// Cooperative. `words` [blocks] must be zero before. Unless `data` [all threads] is null, each thread stores 16 bytes
// before each barrier, which the barrier has to wait for.
extern "C" __global__ void __launch_bounds__(512, 1) grid_barrier(unsigned* words, int repetitions, uint4* data) {
  GridBarrier barrier(words);
  for (int i = 0; i < repetitions; ++i) {
    const unsigned number = static_cast<unsigned>(i);
    if (data) data[blockIdx.x * blockDim.x + threadIdx.x] = uint4{number, number, number, number};
    barrier.sync();
  }
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
      Patience patience;
      unsigned long long word = load_acquire(row + block);
      for (; word >> 32 < static_cast<unsigned long long>(i); word = load_acquire(row + block)) patience.wait();
      mine += float_of(static_cast<unsigned>(word));
    }
    sum = over_block(mine, scratch, Plus{});
  }
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

namespace tdt::cuda {

// Reads `words` words of 16 bytes, a power of two; the threads of a block share them. The result keeps the compiler from
// dropping the reads. `turn` differs from one reading of the same words to the next.
__device__ inline unsigned read_through(const uint4* memory, int words, int turn) {
  unsigned sum = 0;
  for (int at = static_cast<int>(threadIdx.x); at < words; at += static_cast<int>(blockDim.x)) {
    const uint4 word = memory[(at + turn) & (words - 1)];
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
  unsigned sum = 0;
  for (int i = 0; i < repetitions; ++i) sum += read_through(memory, words, i);
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

// Each block reads `words` words of global memory, `repetitions` times, and each time those that are the next block's
// own. So they come from the L2 cache, if the words of all blocks fit there, and not from the block's own cache, which
// they do not fit in.
extern "C" __global__ void __launch_bounds__(512, 1) read_cached(const uint4* source, int words, int repetitions,
                                                                 unsigned* out) {
  unsigned sum = 0;
  for (int i = 0; i < repetitions; ++i)
    sum += read_through(source + static_cast<long long>((blockIdx.x + i) % gridDim.x) * words, words, 0);
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
