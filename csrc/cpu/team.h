// Threads that work on one call together and end with it. So no thread spins or waits between calls, and none is
// missing after a fork.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace tdt::cpu {

class Team {
 public:
  // Calls work(thread) on `threads` threads and returns when all are done. The calling thread is number 0. If the
  // system does not give that many threads, those that it gives do all the work. `work` must not throw.
  template <class Work>
  void run(int threads, Work work) {
    std::vector<std::thread> others;
    others.reserve(threads > 1 ? threads - 1 : 0);
    try {
      while (static_cast<int>(others.size()) + 1 < threads) {
        const int number = static_cast<int>(others.size()) + 1;
        others.emplace_back([this, work, number] {
          started_.wait_for(1);
          work(number);
        });
      }
    } catch (const std::system_error&) {
    } catch (const std::bad_alloc&) {
    }
    size_ = static_cast<int>(others.size()) + 1;
    started_.raise();
    work(0);
    for (std::thread& other : others) other.join();
  }

  int size() const { return size_; }

  // Waits until every thread has come here. All threads then see what the others wrote before.
  void barrier() {
    if (size_ == 1) return;
    const unsigned generation = passed_.value();
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
      arrived_.store(0, std::memory_order_relaxed);
      passed_.raise();
    } else {
      passed_.wait_for(generation + 1);
    }
  }

 private:
  // A counter that threads wait on: first in a short loop, since the others usually need a few microseconds, then
  // asleep.
  class Signal {
   public:
    unsigned value() const { return value_.load(std::memory_order_acquire); }
    void raise() {
      {
        std::lock_guard<std::mutex> lock(mutex_);
        value_.fetch_add(1, std::memory_order_acq_rel);
      }
      condition_.notify_all();
    }
    void wait_for(unsigned value) {
      for (int spin = 0; spin < kSpins; ++spin) {
        if (value_.load(std::memory_order_acquire) == value) return;
#if defined(__x86_64__) || defined(_M_X64)
        _mm_pause();
#endif
      }
      std::unique_lock<std::mutex> lock(mutex_);
      condition_.wait(lock, [&] { return value_.load(std::memory_order_acquire) == value; });
    }

   private:
    static constexpr int kSpins = 2000;  // some 20 to 70 microseconds
    std::atomic<unsigned> value_{0};
    std::mutex mutex_;
    std::condition_variable condition_;
  };

  int size_ = 1;
  std::atomic<int> arrived_{0};
  Signal started_, passed_;
};

}  // namespace tdt::cpu
