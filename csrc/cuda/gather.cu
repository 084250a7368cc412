// Copies rows from where they are kept to where a graph reads them, and back.
#include "device.cuh"
#include "source.cuh"

namespace tdt::cuda {

// Copies rows of the array `source` to rows of the array `target`: for each i, row `from[i * from_stride]` to row
// `to[i * to_stride]`. A null `from` or `to` stands for row i. A row consists of `outer` pieces of `bytes` bytes.
struct Copy {
  const unsigned char* source;
  unsigned char* target;
  const int *from, *to;
  long long source_row, source_outer, target_row, target_outer;  // strides of rows and of pieces, in bytes
  int from_stride, to_stride, outer, bytes;
};

}  // namespace tdt::cuda

using namespace tdt::cuda;

// Copies `*count` rows as each of the `arrays` copies says, a block for each row.
extern "C" __global__ void __launch_bounds__(512, 1) copy_rows(const Copy* copies, int arrays, const int* count) {
  for (int i = static_cast<int>(blockIdx.x); i < *count; i += static_cast<int>(gridDim.x))
    for (int array = 0; array < arrays; ++array) {
      const Copy& copy = copies[array];
      const long long from = copy.from ? copy.from[static_cast<long long>(i) * copy.from_stride] : i;
      const long long to = copy.to ? copy.to[static_cast<long long>(i) * copy.to_stride] : i;
      const unsigned char* source = copy.source + from * copy.source_row;
      unsigned char* target = copy.target + to * copy.target_row;
      if (copy.bytes % 4 == 0) {
        const int words = copy.bytes / 4;
        for (int at = static_cast<int>(threadIdx.x); at < copy.outer * words; at += static_cast<int>(blockDim.x))
          reinterpret_cast<unsigned*>(target + at / words * copy.target_outer)[at % words] =
              reinterpret_cast<const unsigned*>(source + at / words * copy.source_outer)[at % words];
      } else {  // an odd number of float16
        const int words = copy.bytes / 2;
        for (int at = static_cast<int>(threadIdx.x); at < copy.outer * words; at += static_cast<int>(blockDim.x))
          reinterpret_cast<unsigned short*>(target + at / words * copy.target_outer)[at % words] =
              reinterpret_cast<const unsigned short*>(source + at / words * copy.source_outer)[at % words];
      }
    }
}

// Copies `*count` int32 to int32 or, if `wide`, to int64: `to[i] = from[i * stride]`, or, if `places` is not null,
// `to[places[i * stride]] = from[i * stride]`.
extern "C" __global__ void copy_numbers(const int* from, const int* places, int stride, const int* count, int* to,
                                        int wide) {
  const int every = static_cast<int>(gridDim.x * blockDim.x);
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < *count; i += every) {
    const int at = places ? places[static_cast<long long>(i) * stride] : i;
    const int value = from[static_cast<long long>(i) * stride];
    if (wide)
      reinterpret_cast<long long*>(to)[at] = value;
    else
      to[at] = value;
  }
}

// Copies the frames of all sources to `out` [frames, E], float32 or, if `half`, float16. Each block copies some frames.
extern "C" __global__ void __launch_bounds__(512, 1) lay_out_frames(const Source* sources, int count, int frames,
                                                                    int size, void* out, int half) {
  constexpr int kTogether = 32;
  for (int first = static_cast<int>(blockIdx.x) * kTogether; first < frames;
       first += static_cast<int>(gridDim.x) * kTogether) {
    const int columns = frames - first < kTogether ? frames - first : kTogether;
    for (int i = static_cast<int>(threadIdx.x); i < columns * size; i += static_cast<int>(blockDim.x)) {
      const int frame = first + i % columns, element = i / columns;
      const Source& source = source_of(sources, count, frame);
      const float value = source.at(frame - source.first, element);
      const long long to = static_cast<long long>(frame) * size + element;
      if (half)
        static_cast<unsigned short*>(out)[to] = half_bits(value);
      else
        static_cast<float*>(out)[to] = value;
    }
  }
}
