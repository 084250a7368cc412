// Reads encoder output [E, T], in any memory layout, frame by frame.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "buffer.h"

namespace tdt::cpu {

// The encoder output [E, T] of one utterance. `element` and `frame` are the strides of the two axes, in floats.
struct FrameSource {
  const float* data;
  std::ptrdiff_t element, frame;
};

// Reads frames of several sources. If the elements of a frame do not lie next to each other, kBlock frames at a time
// are transposed into a block, so that whole cache lines are used. There is one block for each source.
class FrameBlocks {
 public:
  void resize(int sources, int encoder_size) {
    encoder_size_ = encoder_size;
    blocks_.resize(static_cast<std::size_t>(sources) * kBlock * (encoder_size + kPadding));
    first_.assign(sources, -1);
  }

  // Forgets the block at an index, because another source takes its place.
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
  // Without padding, the rows of a block could be a power of two apart and would compete for the same cache set.
  static constexpr int kPadding = kBlock;

  // Copies the frames [first, first + kBlock) of a source, up to `end`, to a block.
  void transpose(const FrameSource& source, int first, int end, float* block) const {
    const int stride = encoder_size_ + kPadding;
    const int count = std::min(kBlock, end - first);
    const float* from = source.data + first * source.frame;
    for (int element = 0; element < encoder_size_; element += kBlock) {
      float tile[kBlock][kBlock];
      const int rows = std::min(kBlock, encoder_size_ - element);
      for (int i = 0; i < rows; ++i) {
#if defined(__GNUC__)  // processors do not prefetch over so large a stride by themselves
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
  std::vector<int> first_;  // the first frame of each block; -1: the block is empty
};

}  // namespace tdt::cpu
