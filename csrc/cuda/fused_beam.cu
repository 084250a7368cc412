// Beam search with a packed network. The whole loop is one cooperative launch (`fused_beam`). For cards without
// cooperative launch there is a kernel for each phase (`beam_advance`, `beam_layer`, `beam_joint`, `beam_rank`).
//
// In a round each beam advances and asks for predictor steps and joint rows, the predictor runs for the new prefixes,
// and the joint rows are computed and ranked. Beams are shared out over the blocks, and so are the rows to rank.
#include "beam.cuh"
#include "network.cuh"

namespace tdt::cuda {

struct FusedBeam {
  Network net;
  States states;
  BeamSearch search;
  const float* projected;  // [all frames, J]
  Requests* requests;      // [2] of this round and the next; the counts are zero before each launch
  float* rows;             // [B size, V + 1 + D] joint rows
  float* scratch;          // [blocks, V + 1]
  unsigned* barrier;       // [blocks]; zero before each launch
};

// A block's part in a round.
class Round {
 public:
  struct Room {
    BeamSearch* search;  // a copy, since functions that are not inlined read it
    BeamScratch* scratch;
    Requests** requests;
    Worker::Room worker;
  };
  __device__ static Room reserve(const FusedBeam& search, Arena* arena) {
    return {arena->take<BeamSearch>(1), arena->take<BeamScratch>(1), arena->take<Requests*>(2),
            Worker::reserve(search.net, arena)};
  }

  __device__ Round(const FusedBeam& search, Arena* arena, bool keeping)
      : Round(search, reserve(search, arena), arena, keeping) {}

  __device__ Worker& worker() { return worker_; }

  // Those of this round and of the next. They lie in shared memory, since each phase needs them only once.
  __device__ Requests* requests() const { return requests_[0]; }
  __device__ Requests* next() const { return requests_[1]; }
  // Called after a barrier of the block and before another one.
  __device__ void turn() {
    if (threadIdx.x != 0) return;
    Requests* before = requests_[0];
    requests_[0] = requests_[1];
    requests_[1] = before;
  }

  __device__ void advance(Requests* requests) {
    for (int i = static_cast<int>(blockIdx.x); i < search_.utterances; i += static_cast<int>(gridDim.x))
      Beam(search_, i, scratch_)
          .advance(&requests->step_count, requests->steps, &requests->wanted_count, requests->wanted);
  }

  // In the phase in which the predictor takes its steps: computes the fusions' scores after the steps, and clears the
  // counts of the next round.
  __device__ void prepare(const Requests* requests, Requests* next) {
    if (blockIdx.x == 0 && threadIdx.x == 0) next->step_count = next->wanted_count = 0;
    if (search_.fusions) score_steps(search_, *requests, own_.scratch);
  }

  template <class Barrier>
  __device__ void joint(const Requests* requests, Barrier& barrier) {
    const int width = own_.net.layout.width();
    worker_.joint(
        own_.projected, requests->wanted_count,
        [&](int i) {
          return Column{requests->wanted[i].slot, requests->wanted[i].frame};
        },
        barrier,
        [&](int, int output, int column, bool valid, const float4& four) {
          const float values[4] = {four.x, four.y, four.z, four.w};
          float* row = own_.rows + static_cast<long long>(column) * width;
#pragma unroll
          for (int i = 0; i < 4; ++i)
            if (valid && output + i * 4 < width) row[output + i * 4] = values[i];
        },
        [](int, int, int, int, bool) {});
  }

  __device__ void rank(const Requests* requests) {
    for (int i = static_cast<int>(blockIdx.x); i < requests->wanted_count; i += static_cast<int>(gridDim.x))
      rank_wanted(search_, requests->wanted[i], own_.rows + static_cast<long long>(i) * own_.net.layout.width(),
                  &scratch_);
  }

 private:
  __device__ Round(const FusedBeam& search, const Room& room, Arena* arena, bool keeping)
      : own_(search),
        search_(copied(room.search, &search.search)),
        scratch_(*room.scratch),
        requests_(room.requests),
        worker_(own_.net, own_.states, room.worker, arena, keeping) {
    if (threadIdx.x < 2) requests_[threadIdx.x] = search.requests + threadIdx.x;
    sync_block();
  }

  const FusedBeam& own_;
  const BeamSearch& search_;
  BeamScratch& scratch_;
  Requests** requests_;
  Worker worker_;
};

}  // namespace tdt::cuda

using namespace tdt::cuda;

#if !TDT_PHASES  // one launch and launches of single phases are compiled apart, since only one of them is used

// Runs until each beam is past the end or has no room for more records. If one has no room, the host makes room and
// launches again.
extern "C" __global__ void __launch_bounds__(512, 1) fused_beam(const __grid_constant__ FusedBeam search) {
  Arena arena(shared_memory());
  Round round(search, &arena, true);
  GridBarrier barrier(search.barrier);
  for (;;) {
    round.advance(round.requests());
    barrier.sync();
    const int steps = round.requests()->step_count;
    if (!round.requests()->wanted_count) break;
    round.prepare(round.requests(), round.next());
    if (steps) round.worker().predict(round.requests()->steps, steps, barrier);
    round.joint(round.requests(), barrier);
    barrier.sync();
    round.rank(round.requests());
    barrier.arrive();
    round.turn();
    barrier.wait();
  }
}

#else

// The phases, one kernel each. `which` of the two requests is this round's.
extern "C" __global__ void __launch_bounds__(512, 1) beam_advance(const __grid_constant__ FusedBeam search, int which) {
  Arena arena(shared_memory());
  Round(search, &arena, false).advance(search.requests + which);
}

extern "C" __global__ void __launch_bounds__(512, 1) beam_layer(const __grid_constant__ FusedBeam search, int which,
                                                                    int layer) {
  Arena arena(shared_memory());
  Round round(search, &arena, false);
  const Requests* requests = search.requests + which;
  if (layer == 0) {
    round.prepare(requests, search.requests + 1 - which);
    round.worker().first_layer(requests->steps, requests->step_count, false);
  } else {
    NoBarrier none;
    round.worker().upper_layer(layer, requests->steps, requests->step_count, false, none);
  }
}

extern "C" __global__ void __launch_bounds__(512, 1) beam_joint(const __grid_constant__ FusedBeam search, int which) {
  Arena arena(shared_memory());
  NoBarrier none;
  Round(search, &arena, false).joint(search.requests + which, none);
}

extern "C" __global__ void __launch_bounds__(512, 1) beam_rank(const __grid_constant__ FusedBeam search, int which) {
  Arena arena(shared_memory());
  Round(search, &arena, false).rank(search.requests + which);
}

#endif

// The bytes of shared memory that a block needs beside its weights.
extern "C" __global__ void fused_beam_room(const __grid_constant__ FusedBeam search, int* bytes) {
  Arena arena(shared_memory());
  Round::reserve(search, &arena);
  if (threadIdx.x != 0) return;
  *bytes = arena.used();
}
