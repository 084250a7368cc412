// A barrier over all blocks of a cooperative launch. It has two halves, so that a block can do work between them that
// does not need the other blocks. Whatever a block wrote before it arrived, every block sees after it has waited.
#pragma once

#include "reduce.cuh"

namespace tdt::cuda {

enum class BarrierKind : int {
  counter = 0,  // one word: every block adds to it and polls it
  flags = 1,    // a word for each block, which only it writes: every block polls all words
};

#if !defined(TDT_BARRIER)
#define TDT_BARRIER 0
#endif
constexpr BarrierKind kBarrierKind = static_cast<BarrierKind>(TDT_BARRIER);

// Waits in a loop for a word that another block will write. If a block never does, the launch would hang, and the
// process with it. So it fails after TDT_SPIN_LIMIT polls, which take many seconds.
#if !defined(TDT_SPIN_LIMIT)
#define TDT_SPIN_LIMIT (1u << 26)
#endif
class Patience {
 public:
  __device__ void wait() {
    if (++polls_ > TDT_SPIN_LIMIT) fail();
    pause();
  }

 private:
  unsigned polls_ = 0;
};

class GridBarrier {
 public:
  static constexpr bool kSpansGrid = true;

  // `words` [gridDim.x] must be zero before the launch.
  __device__ explicit GridBarrier(unsigned* words) : words_(words) {}

  __device__ void arrive() {
    ++generation_;
    sync_block();
    arriving();
    if (threadIdx.x != 0) return;
    if constexpr (kBarrierKind == BarrierKind::counter)
      add_release(words_, 1);
    else
      store_release(words_ + blockIdx.x, generation_);
  }

  __device__ void wait() {
    awaiting();
    poll(threadIdx.x, blockDim.x);
    sync_block();
  }
  // The same, but only the first warp waits. The others must wait for it.
  __device__ void wait_in_first_warp() {
    awaiting();
    if (threadIdx.x >= kWarp) return;
    poll(threadIdx.x, kWarp);
    sync_warp();
  }

  __device__ void sync() {
    arrive();
    wait();
  }
  // Called where a block will wait for others without arriving.
  __device__ void meanwhile() { tdt::cuda::meanwhile(); }
  // Called where a block has nothing to do for a layer any more before it waits.
  __device__ void idle(int) {}

 private:
  __device__ void poll(unsigned thread, unsigned threads) {
    Patience patience;
    if constexpr (kBarrierKind == BarrierKind::counter) {
      if (thread == 0)
        while (static_cast<int>(load_acquire(words_) - generation_ * gridDim.x) < 0) patience.wait();
    } else {
      for (unsigned i = thread; i < gridDim.x; i += threads)
        while (static_cast<int>(load_acquire(words_ + i) - generation_) < 0) patience.wait();
    }
    if (thread == 0) acquired();
  }

  unsigned* words_;
  unsigned generation_ = 0;
};

}  // namespace tdt::cuda
