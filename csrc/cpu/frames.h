// Encoder output as it lies, [E, T] in any way, read frame by frame.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "buffer.h"

namespace tdt::cpu {

// Encoder output [E, T] wherever it lies; strides in floats.
struct FrameSource {
  const float* data;
  std::ptrdiff_t element, frame;
};

// Frames of several sources. Where the elements of a frame are apart, frames are brought together in blocks of a cache
// line's width, one block for each source.
class FrameBlocks {
 public:
  void resize(int sources, int encoder_size) {
    encoder_size_ = encoder_size;
    blocks_.resize(static_cast<std::size_t>(sources) * kBlock * (encoder_size + kPadding));
    first_.assign(sources, -1);
  }

  // Another source takes the place of this one.
  void forget(int index) { first_[index] = -1; }

  // Copies one frame out; `end` is the number of frames.
  void read(int index, const FrameSource& source, int frame, int end, float* out) {
    if (source.element == 1) {
      std::memcpy(out, source.data + frame * source.frame, encoder_size_ * sizeof(float));
      return;
    }
    const std::size_t stride = encoder_size_ + kPadding;
    float* block = blocks_.data() + index * kBlock * stride;
    const int first = frame / kBlock * kBlock;
    if (first_[index] != first) {
      transpose(source, first, end, block);
      first_[index] = first;
    }
    std::memcpy(out, block + (frame - first) * stride, encoder_size_ * sizeof(float));
  }

 private:
  static constexpr int kBlock = kAlignment / sizeof(float);
  static constexpr int kAhead = 64;
  // Rows of a block a power of two apart would crowd into one set of the cache.
  static constexpr int kPadding = kBlock;

  // Frames [first, first + kBlock) of a source, as far as they are before `end`, to a block.
  void transpose(const FrameSource& source, int first, int end, float* block) const {
    const int stride = encoder_size_ + kPadding;
    const int count = std::min(kBlock, end - first);
    const float* from = source.data + first * source.frame;
    for (int element = 0; element < encoder_size_; element += kBlock) {
      float tile[kBlock][kBlock];
      const int rows = std::min(kBlock, encoder_size_ - element);
      for (int i = 0; i < rows; ++i) {
#if defined(__GNUC__)  // the stride is beyond what processors foresee
        if (element + i + kAhead < encoder_size_) __builtin_prefetch(from + (element + i + kAhead) * source.element);
#endif
        for (int j = 0; j < count; ++j) tile[i][j] = from[(element + i) * source.element + j * source.frame];
      }
      for (int j = 0; j < count; ++j)
        for (int i = 0; i < rows; ++i) block[j * stride + element + i] = tile[i][j];
    }
  }

  int encoder_size_ = 0;
  Buffer<float> blocks_;
  std::vector<int> first_;  // frame that each block begins with; -1: none
};

}  // namespace tdt::cpu
