// Encoder output as it lies on the device.
#pragma once

#include "device.cuh"

namespace tdt::cuda {

enum class FrameType : int { float32 = 0, float16 = 1, bfloat16 = 2 };

// The encoder output [E, T] of an utterance, wherever it lies.
struct Source {
  const void* data;
  long long element, frame;  // strides, in elements
  int type, length;          // a FrameType; number of frames
  int first;                 // where its frames begin among the frames of all sources
  int padding;

  __device__ float at(int frame_index, int element_index) const {
    const long long i = frame_index * frame + element_index * element;
    if (type == static_cast<int>(FrameType::float32)) return static_cast<const float*>(data)[i];
    const unsigned short bits = static_cast<const unsigned short*>(data)[i];
    if (type == static_cast<int>(FrameType::float16)) return half_value(bits);
    return float_of(static_cast<unsigned>(bits) << 16);
  }
};

// The source of a frame that is numbered through all sources.
__device__ inline const Source& source_of(const Source* sources, int count, int frame) {
  int low = 0, high = count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (sources[middle].first <= frame)
      low = middle;
    else
      high = middle - 1;
  }
  return sources[low];
}

}  // namespace tdt::cuda
