// The features of recordings, as `tdtdecode/speech/audio/features.py` computes them on the host: the power spectrum of a
// frame every 10 ms, mel filters, the logarithm, and each mel bin brought to mean 0 and deviation 1.
//
// The transform is no product with one matrix. Of N real points, the even and the odd ones are the real and imaginary
// parts of M = N / 2 complex ones, and M = rows * columns points are transformed by columns and then by rows. With the two
// halves of each sum taken together first, that takes M * (rows + columns) / 2 complex products for a frame: 4,096 for 512
// points. The matrix takes 51,400 (400 samples by 257 frequencies, half of a complex product each). It needs no library,
// and the emulation runs it as a card does.
//
// It is computed in float64, as on the host: in float32 normalised features would differ by up to 4e-4, where a frame has
// next to nothing at some frequencies. The products of a second of audio then take 13 microseconds on a T4, which is slow
// at float64, and less than 1 on an H100.
#include "reduce.cuh"

namespace tdt::cuda {

constexpr int kHop = 160;
constexpr float kLogFloor = 5.9604644775390625e-8f;  // 2^-24
constexpr float kLeastEnergy = 1e-9f, kMostEnergy = 1e9f;
constexpr double kDeviationFloor = 1e-5;

struct Recording {
  const float* samples;
  float* features;    // [mel bins, width]
  int count, frames;  // number of samples, and of frames
  int first;          // where its frames begin among the frames of all recordings
  int padding;
};

struct Features {
  const Recording* list;
  int recordings, frames;           // number of recordings, and of the frames of all
  int window, points;               // samples of a frame; points of the transform, an even number
  int rows, columns;                // even numbers, rows * columns = points / 2
  int margin, reflect;              // values before the first sample; whether they are mirrored samples, or zeros
  float emphasis;                   // the share of the sample before that is subtracted from each sample
  int clamped;                      // how the logarithm is kept from 0: clamped, or a constant is added
  int mel_bins, width, normalize;   // width: frames from a row of the features to the next
  const float* shape;               // [window]
  const double* turns;              // [points] complex: e^(-2 pi i k / points)
  const int *filter_first;          // [mel bins]: the first frequency of a filter
  const int *filter_start;          // [mel bins + 1]: where its weights begin
  const float* filter_weights;
};

// The features [mel bins, frames] of a recording, or a part of them.
struct Part {
  const float* data;
  long long row;  // numbers from a mel bin to the next
  int frames, padding;
};

struct Complex {
  double real, imaginary;
};
__device__ __forceinline__ Complex product(Complex a, Complex b) {
  return {a.real * b.real - a.imaginary * b.imaginary, a.real * b.imaginary + a.imaginary * b.real};
}

struct Sum {
  double value;
};
__device__ __forceinline__ Sum exchanged(const Sum& sum, int mask) { return {shuffle_xor(sum.value, mask)}; }
__device__ __forceinline__ double sum_over_block(double value, Sum* scratch) {
  return over_block(Sum{value}, scratch, [](Sum a, Sum b) { return Sum{a.value + b.value}; }).value;
}

__device__ inline const Recording& recording_of(const Features& job, int frame) {
  int low = 0, high = job.recordings - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (job.list[middle].first <= frame)
      low = middle;
    else
      high = middle - 1;
  }
  return job.list[low];
}

// The value of the signal at a sample, which may lie beyond the ends.
__device__ __forceinline__ float signal_at(const Features& job, const Recording& recording, int at) {
  if (job.reflect) {
    if (at < 0) at = -at;
    if (at >= recording.count) at = 2 * (recording.count - 1) - at;
  } else if (at < 0 || at >= recording.count) {
    return 0.0f;
  }
  const float sample = recording.samples[at];
  if (job.emphasis == 0.0f || at == 0) return sample;
  // The product is rounded before it is subtracted, as on the host. In float32 the compiler would make one operation of
  // the two.
  return sample - static_cast<float>(static_cast<double>(job.emphasis) * recording.samples[at - 1]);
}

// The memory of a block: tables, and for each warp two buffers.
struct FeatureRoom {
  Complex* turns;
  float* shape;
  Complex *points, *turned;  // this warp's: [rows * columns], [rows, columns + 1]

  __device__ static int of_warp(const Features& job) { return job.rows * (2 * job.columns + 1); }
  __device__ FeatureRoom(const Features& job) {
    turns = reinterpret_cast<Complex*>(shared_memory());
    Complex* first = turns + job.points;
    points = first + warp_index() * of_warp(job);
    turned = points + job.rows * job.columns;
    shape = reinterpret_cast<float*>(first + warp_count() * of_warp(job));
  }
};

// The sum over n < count of points[n * stride] * e^(-2 pi i n k / count). The terms n and n + count / 2 have the same
// factor, but for the sign where k is odd.
__device__ __forceinline__ Complex summed(const Complex* points, int count, int stride, int k, const Complex* turns,
                                          int all_turns) {
  const double sign = k % 2 ? -1.0 : 1.0;
  Complex sum = {0.0, 0.0};
  int turn = 0;  // n * k modulo count
  for (int n = 0; n < count / 2; ++n) {
    const Complex a = points[n * stride], b = points[(n + count / 2) * stride];
    const Complex both = {a.real + sign * b.real, a.imaginary + sign * b.imaginary};
    const Complex term = product(both, turns[turn * (all_turns / count)]);
    sum.real += term.real;
    sum.imaginary += term.imaginary;
    turn += k;
    if (turn >= count) turn -= count;
  }
  return sum;
}

// Transforms `room.points` by one warp, in place.
__device__ inline void transform(const Features& job, const FeatureRoom& room) {
  const int rows = job.rows, columns = job.columns;
  for (int i = lane_index(); i < rows * columns; i += kWarp) {
    const int column = i % columns, k = i / columns;
    const Complex sum = summed(room.points + column, rows, columns, k, room.turns, job.points);
    room.turned[k * (columns + 1) + column] = product(sum, room.turns[2 * column * k]);
  }
  sync_warp();
  for (int i = lane_index(); i < rows * columns; i += kWarp)
    room.points[i] =
        summed(room.turned + i % rows * (columns + 1), columns, 1, i / rows, room.turns, job.points);
  sync_warp();
}

// The power at frequency k of the real points whose even and odd ones were transformed together.
__device__ __forceinline__ float power_at(const FeatureRoom& room, int half, int k) {
  const Complex a = room.points[k == half ? 0 : k], b = room.points[k == 0 ? 0 : half - k];
  const Complex even = {0.5 * (a.real + b.real), 0.5 * (a.imaginary - b.imaginary)};
  const Complex odd = {0.5 * (a.imaginary + b.imaginary), 0.5 * (b.real - a.real)};
  const Complex turned = product(odd, room.turns[k]);
  const double real = even.real + turned.real, imaginary = even.imaginary + turned.imaginary;
  return static_cast<float>(real * real + imaginary * imaginary);
}

__device__ __forceinline__ float logarithm(const Features& job, float energy) {
  if (!job.clamped) return logf(energy + kLogFloor);
  return logf(energy < kLeastEnergy ? kLeastEnergy : energy > kMostEnergy ? kMostEnergy : energy);
}

}  // namespace tdt::cuda

using namespace tdt::cuda;

// Writes the logarithms of mel energies, a warp for each frame.
extern "C" __global__ void __launch_bounds__(128) log_mel_spectra(const Features* job_at) {
  const Features job = *job_at;
  const FeatureRoom room(job);
  const int half = job.points / 2;
  for (int i = static_cast<int>(threadIdx.x); i < job.points; i += static_cast<int>(blockDim.x))
    room.turns[i] = {job.turns[2 * i], job.turns[2 * i + 1]};
  for (int i = static_cast<int>(threadIdx.x); i < job.window; i += static_cast<int>(blockDim.x))
    room.shape[i] = job.shape[i];
  sync_block();
  float* power = reinterpret_cast<float*>(room.turned);
  const int every = static_cast<int>(gridDim.x) * warp_count();
  for (int frame = static_cast<int>(blockIdx.x) * warp_count() + warp_index(); frame < job.frames; frame += every) {
    const Recording& recording = recording_of(job, frame);
    const int begin = (frame - recording.first) * kHop - job.margin;
    for (int i = lane_index(); i < half; i += kWarp) {
      float pair[2] = {0.0f, 0.0f};
      for (int j = 0; j < 2; ++j)
        if (2 * i + j < job.window) pair[j] = signal_at(job, recording, begin + 2 * i + j) * room.shape[2 * i + j];
      room.points[i] = {pair[0], pair[1]};
    }
    sync_warp();
    transform(job, room);
    for (int k = lane_index(); k <= half; k += kWarp) power[k] = power_at(room, half, k);
    sync_warp();
    float* out = recording.features + (frame - recording.first);
    for (int bin = lane_index(); bin < job.mel_bins; bin += kWarp) {
      const float* energies = power + job.filter_first[bin];
      float energy = 0.0f;
      for (int i = job.filter_start[bin]; i < job.filter_start[bin + 1]; ++i)
        energy += job.filter_weights[i] * energies[i - job.filter_start[bin]];
      out[static_cast<long long>(bin) * job.width] = logarithm(job, energy);
    }
    sync_warp();
  }
}

// Normalises what `log_mel_spectra` has written, and writes zeros past each recording's end. A block for each mel bin of
// each recording.
extern "C" __global__ void __launch_bounds__(128) finish_features(const Features* job_at) {
  const Features job = *job_at;
  Sum* scratch = reinterpret_cast<Sum*>(shared_memory());
  const int thread = static_cast<int>(threadIdx.x), every = static_cast<int>(blockDim.x);
  for (int row = static_cast<int>(blockIdx.x); row < job.recordings * job.mel_bins; row += static_cast<int>(gridDim.x)) {
    const Recording& recording = job.list[row / job.mel_bins];
    float* values = recording.features + static_cast<long long>(row % job.mel_bins) * job.width;
    const int frames = recording.frames;
    if (job.normalize) {
      double sum = 0.0;
      for (int i = thread; i < frames; i += every) sum += values[i];
      const double mean = sum_over_block(sum, scratch) / frames;
      double squares = 0.0;
      for (int i = thread; i < frames; i += every) {
        const float value = static_cast<float>(values[i] - mean);
        values[i] = value;
        squares += static_cast<double>(value) * value;
      }
      const double deviation = sqrt(sum_over_block(squares, scratch) / (frames > 1 ? frames - 1 : 1));
      const double scale = 1.0 / (deviation + kDeviationFloor);
      for (int i = thread; i < frames; i += every) values[i] = static_cast<float>(values[i] * scale);
    }
    for (int i = frames + thread; i < job.width; i += every) values[i] = 0.0f;
  }
}

// Puts the features of recordings into one batch, `out` [count, mel bins, width], with zeros past each one's end. A block
// for each mel bin of each recording.
extern "C" __global__ void __launch_bounds__(128) put_together(const Part* parts, int count, int mel_bins, int width,
                                                               float* out) {
  for (int row = static_cast<int>(blockIdx.x); row < count * mel_bins; row += static_cast<int>(gridDim.x)) {
    const Part part = parts[row / mel_bins];
    const float* from = part.data + row % mel_bins * part.row;
    float* to = out + static_cast<long long>(row) * width;
    for (int i = static_cast<int>(threadIdx.x); i < width; i += static_cast<int>(blockDim.x))
      to[i] = i < part.frames ? from[i] : 0.0f;
  }
}
