// A barrier over all blocks of a cooperative launch, in two halves: what does not need the other blocks can be done
// between them. What a block wrote before it arrived, every block sees after it has waited.
#pragma once

#include "device.cuh"

namespace tdt::cuda {

enum class BarrierKind : int {
  counter = 0,  // one word that every block adds to and polls
  flags = 1,    // one word for each block, and every block polls them all: no two blocks write to one word
};

#if !defined(TDT_BARRIER)
#define TDT_BARRIER 0
#endif
constexpr BarrierKind kBarrierKind = static_cast<BarrierKind>(TDT_BARRIER);

class GridBarrier {
 public:
  // `words` [gridDim.x], zero before the launch.
  __device__ explicit GridBarrier(unsigned* words) : words_(words) {}

  __device__ void arrive() {
    ++generation_;
    sync_block();
    if (threadIdx.x != 0) return;
    if constexpr (kBarrierKind == BarrierKind::counter)
      add_release(words_, 1);
    else
      store_release(words_ + blockIdx.x, generation_);
  }

  __device__ void wait() {
    if constexpr (kBarrierKind == BarrierKind::counter) {
      if (threadIdx.x == 0)
        while (static_cast<int>(load_acquire(words_) - generation_ * gridDim.x) < 0) pause();
    } else {
      for (unsigned i = threadIdx.x; i < gridDim.x; i += blockDim.x)
        while (static_cast<int>(load_acquire(words_ + i) - generation_) < 0) pause();
    }
    sync_block();
  }

  __device__ void sync() {
    arrive();
    wait();
  }

 private:
  unsigned* words_;
  unsigned generation_ = 0;
};

}  // namespace tdt::cuda
