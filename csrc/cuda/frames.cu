// The work before a fused decode: encoder frames are projected into the joint, and the predictor states that the decode
// begins with are put in their slots, with their recurrent products.
#include "network.cuh"
#include "source.cuh"

namespace tdt::cuda {

struct Projection {
  Network net;
  int sources, frames;  // number of sources, and of the frames of all
  const Source* list;
  float* projected;  // [frames, J]
};

// Predictor states as an earlier decode returned them: predictions [rows, J], layers' outputs [L, rows, H], cells
// [cells, rows, H]. For a context there are no layers' outputs.
struct Restoration {
  Network net;
  States states;
  const float *prediction, *hidden, *cell;
  const Step* steps;  // [count] each copies the row `parent` to its slot
  int rows, count;
};

struct ProjectionRoom {
  float* scratch;
  Weight::Input* x;
};
__device__ inline ProjectionRoom reserve(const Network& net, Arena* arena) {
  return {arena->take<float>(scratch_size(net.staged)),
          arena->take<Weight::Input>(column_stride(net.encoder.inputs) * net.staged)};
}

}  // namespace tdt::cuda

using namespace tdt::cuda;

// The frames are cut into pieces of `net.staged`, which are dealt out over the blocks. If there are fewer pieces than
// blocks, several blocks share the tiles of a piece.
extern "C" __global__ void __launch_bounds__(512, 1) project_frames(const __grid_constant__ Projection projection) {
  Arena arena(shared_memory());
  const ProjectionRoom room = reserve(projection.net, &arena);
  const Network& net = projection.net;
  float* scratch = room.scratch;
  Weight::Input* x = room.x;
  const int parts = (projection.frames + net.staged - 1) / net.staged, grid = static_cast<int>(gridDim.x);
  const int slices = grid > parts ? grid / parts : 1;
  for (int task = static_cast<int>(blockIdx.x); task < parts * slices; task += grid) {
    const int first = task / slices * net.staged;
    const int columns = projection.frames - first < net.staged ? projection.frames - first : net.staged;
    const Share share = share_of(net.encoder, task % slices, slices);
    const int stride = column_stride(net.encoder.inputs), padded = stride - Weight::kPadding;
    sync_block();
    // Neighbouring threads read neighbouring frames, which are neighbours in memory in encoder output [E, T].
    for (int i = static_cast<int>(threadIdx.x); i < columns * padded; i += static_cast<int>(blockDim.x)) {
      const int column = i % columns, element = i / columns;
      const Source& source = source_of(projection.list, projection.sources, first + column);
      const bool inside = element < net.encoder.inputs;
      x[column * stride + element] =
          Weight::input(inside ? source.at(first + column - source.first, element) : 0.0f);
    }
    multiply<1>(
        net.encoder, slices, share, x, scratch, held_products(net.staged), columns,
        [&](int, int output, int column, bool valid, const float4& four) {
          const float values[4] = {four.x, four.y, four.z, four.w};
          float* frame = projection.projected + static_cast<long long>(first + column) * net.joint;
#pragma unroll
          for (int i = 0; i < 4; ++i)
            if (valid && output + i < net.joint) frame[output + i] = values[i];
        },
        NoBatch{});
  }
}

extern "C" __global__ void __launch_bounds__(512, 1) restore_states(const __grid_constant__ Restoration restoration) {
  Arena arena(shared_memory());
  const Worker::Room room = Worker::reserve(restoration.net, &arena);
  const Network& net = restoration.net;
  const States& states = restoration.states;
  const int first = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int every = static_cast<int>(gridDim.x * blockDim.x);
  // What blocks leave for each other: the tags begin at zero, and so is the padding of columns.
  uint4 *columns = reinterpret_cast<uint4*>(states.columns), *words = reinterpret_cast<uint4*>(states.words);
  for (long long i = first; i < states.column_bytes(net) / 16; i += every) columns[i] = uint4{0, 0, 0, 0};
  for (long long i = first; i < states.word_bytes(net) / 16; i += every) words[i] = uint4{0, 0, 0, 0};
  for (int i = first; i < restoration.count * net.joint; i += every) {
    const Step step = restoration.steps[i / net.joint];
    states.prediction_at(net, step.slot)[i % net.joint] =
        restoration.prediction[static_cast<long long>(step.parent) * net.joint + i % net.joint];
  }
  for (int cell = 0; cell < net.cells; ++cell)
    for (int i = first; i < restoration.count * net.hidden; i += every) {
      const Step step = restoration.steps[i / net.hidden];
      const long long from = (static_cast<long long>(cell) * restoration.rows + step.parent) * net.hidden;
      states.cell_at(net, cell, step.slot)[i % net.hidden] = restoration.cell[from + i % net.hidden];
      if constexpr (!kContext)
        states.hidden_at(net, cell, step.slot)[i % net.hidden] = restoration.hidden[from + i % net.hidden];
    }
  if constexpr (!kContext) {
    // The recurrent products are computed from the given rows, since a block does not see yet what others have copied.
    Worker worker(net, states, room, &arena, false);
    worker.restore(restoration.steps, restoration.count, [&](int layer, const Step& step) {
      return restoration.hidden + (static_cast<long long>(layer) * restoration.rows + step.parent) * net.hidden;
    });
  }
}

// The bytes of shared memory that a block of either kernel needs.
extern "C" __global__ void frames_room(const __grid_constant__ Restoration restoration, int* bytes) {
  Arena arena(shared_memory()), other(shared_memory());
  Worker::reserve(restoration.net, &arena);
  reserve(restoration.net, &other);
  if (threadIdx.x != 0) return;
  *bytes = arena.used() > other.used() ? arena.used() : other.used();
}
