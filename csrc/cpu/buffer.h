// Memory that is aligned for vector registers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "matrix.h"

namespace tdt::cpu {

template <class T>
class Buffer {
 public:
  // Makes it `size` elements long, all zero.
  void resize(std::size_t size) {
    memory_.assign(size + kAlignment / sizeof(T), T{});
    const std::size_t past = reinterpret_cast<std::uintptr_t>(memory_.data()) % kAlignment;
    first_ = past ? (kAlignment - past) / sizeof(T) : 0;
  }
  T* data() { return memory_.data() + first_; }

 private:
  std::vector<T> memory_;
  std::size_t first_ = 0;
};

}  // namespace tdt::cpu
