// What stands before a decode on the device: encoder frames projected into the joint, and the states it begins with with
// their recurrent products.
#include "network.cuh"
#include "source.cuh"

namespace tdt::cuda {

struct Projection {
  Network net;
  int sources, frames;  // frames of all
  const Source* list;
  float* projected;  // [frames, J]
};

// States as a decode returned them: [rows, J] predictions, [L, rows, H] outputs and cells.
struct Restoration {
  Network net;
  States states;
  const float *prediction, *hidden, *cell;
  const Step* steps;  // each brings the row `parent` to its slot
  int rows, count;
};

struct ProjectionRoom {
  Projection* projection;
  float* scratch;
  Weight::Input* x;
};
__device__ inline ProjectionRoom reserve(const Network& net, Arena* arena) {
  return {arena->take<Projection>(1), arena->take<float>(kScratchBytes / 4),
          arena->take<Weight::Input>(column_stride(net.encoder.inputs) * net.staged)};
}

}  // namespace tdt::cuda

using namespace tdt::cuda;

// Blocks share out columns of frames and, where these are few, the tiles too.
extern "C" __global__ void __launch_bounds__(512, 1) project_frames(const Projection* projection_at) {
  Arena arena(shared_memory());
  const ProjectionRoom room = reserve(projection_at->net, &arena);
  const Projection& projection = copied(room.projection, projection_at);
  const Network& net = projection.net;
  float* scratch = room.scratch;
  Weight::Input* x = room.x;
  const int parts = (projection.frames + net.staged - 1) / net.staged, grid = static_cast<int>(gridDim.x);
  const int slices = grid > parts ? grid / parts : 1;
  for (int task = static_cast<int>(blockIdx.x); task < parts * slices; task += grid) {
    const int first = task / slices * net.staged;
    const int columns = projection.frames - first < net.staged ? projection.frames - first : net.staged;
    const Share share = share_of(&net.encoder, task % slices, slices);
    const int stride = column_stride(net.encoder.inputs), padded = stride - Weight::kPadding;
    sync_block();
    // Neighbouring threads read neighbouring frames: of encoder output [E, T] these lie side by side.
    for (int i = static_cast<int>(threadIdx.x); i < columns * padded; i += static_cast<int>(blockDim.x)) {
      const int column = i % columns, element = i / columns;
      const Source& source = source_of(projection.list, projection.sources, first + column);
      const bool inside = element < net.encoder.inputs;
      x[column * stride + element] =
          Weight::input(inside ? source.at(first + column - source.first, element) : 0.0f);
    }
    multiply(
        share, x, scratch, columns,
        [&](int, int output, int column, bool valid, float value) {
          if (valid && output < net.joint)
            projection.projected[static_cast<long long>(first + column) * net.joint + output] = value;
        },
        NoBatch{});
  }
}

extern "C" __global__ void __launch_bounds__(512, 1) restore_states(const Restoration* restoration_at) {
  Arena arena(shared_memory());
  const Restoration& restoration = copied(arena.take<Restoration>(1), restoration_at);
  const Worker::Room room = Worker::reserve(restoration_at->net, &arena);
  const Network& net = restoration.net;
  const States& states = restoration.states;
  const int first = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int every = static_cast<int>(gridDim.x * blockDim.x);
  for (int i = first; i < restoration.count * net.joint; i += every) {
    const Step step = restoration.steps[i / net.joint];
    states.prediction_at(net, step.slot)[i % net.joint] =
        restoration.prediction[static_cast<long long>(step.parent) * net.joint + i % net.joint];
  }
  for (int layer = 0; layer < net.layers; ++layer)
    for (int i = first; i < restoration.count * net.hidden; i += every) {
      const Step step = restoration.steps[i / net.hidden];
      const long long from = (static_cast<long long>(layer) * restoration.rows + step.parent) * net.hidden;
      states.hidden_at(net, layer, step.slot)[i % net.hidden] = restoration.hidden[from + i % net.hidden];
      states.cell_at(net, layer, step.slot)[i % net.hidden] = restoration.cell[from + i % net.hidden];
    }
  // The recurrent products are made from the rows themselves: what other blocks have copied is not yet seen here.
  Worker worker(net, states, room, &arena, false);
  worker.restore(restoration.steps, restoration.count, [&](int layer, const Step& step) {
    return restoration.hidden + (static_cast<long long>(layer) * restoration.rows + step.parent) * net.hidden;
  });
}

// Bytes of shared memory that a block of either kernel needs, and the sizes of their parameters.
extern "C" __global__ void frames_sizes(const Restoration* restoration_at, int* sizes) {
  Arena arena(shared_memory()), other(shared_memory());
  arena.take<Restoration>(1);
  Worker::reserve(restoration_at->net, &arena);
  reserve(restoration_at->net, &other);
  if (threadIdx.x != 0) return;
  sizes[0] = arena.used() > other.used() ? arena.used() : other.used();
  sizes[1] = sizeof(Restoration);
  sizes[2] = sizeof(Projection);
}
