"""A program for sanitizers: decodes or computes features on an emulated card, or runs a kernel with an error.

    python -m tests.host_cuda.decode_all LAUNCH MODEL | features | KERNEL
"""

from __future__ import annotations

import sys

import numpy as np

import tdtdecode as tdt
from tdtdecode.fusion import PhraseBoost
from tdtdecode.networks.cuda import fused_beam, fused_greedy
from tests.conftest import random_frames
from tests.cuda.helpers import LAUNCHES, emulated, launch
from tests.decoding.fused_helpers import random_weights

RACY = """
#include "grid.cuh"
using namespace tdt::cuda;
extern "C" __global__ void between_blocks(int* data) {
  if (threadIdx.x == 5) data[blockIdx.x] = 7;
  data[8 + blockIdx.x * blockDim.x + threadIdx.x] = data[(blockIdx.x + 1) % gridDim.x];
}
extern "C" __global__ void between_warps(int* data) {
  int* shared = reinterpret_cast<int*>(shared_memory());
  shared[threadIdx.x] = 1;
  sync_warp();
  data[8 + blockIdx.x * blockDim.x + threadIdx.x] = shared[(threadIdx.x + 40) % blockDim.x];
}
extern "C" __global__ void never_all_there(unsigned* words) {
  GridBarrier barrier(words);
  if (blockIdx.x) barrier.sync();
}
extern "C" __global__ void past_the_end(int* data) { data[threadIdx.x + 1024] = 1; }
"""


def plant(cupy, name: str) -> None:
    """Run a kernel with an error."""
    from tdtdecode.cuda.kernels import source_folder

    folder = source_folder()
    options = "-std=c++17", f"-I{folder}", f"-I{folder / 'cuda'}", "-DTDT_SPIN_LIMIT=1000"
    kernel = cupy.RawModule(code=RACY, options=options, enable_cooperative_groups=True).get_function(name)
    kernel((3,), (64,), (cupy.zeros(1024, np.int32),), shared_mem=256)


MODELS = {
    "two-layers": ("float32", 2, 1),
    "one-layer": ("float16", 1, 1),
    "stateless": ("bfloat16", 0, 1),
    "context": ("float32", 0, 3),
}
"""For each model that is decoded: the precision, the number of layers, and how many tokens its predictor looks at."""


def decode(how: dict, model: str) -> None:
    """Decode with every strategy, in chunks, with more utterances than slots, and with many at once."""
    from tdtdecode.networks.cuda.fused import FusedCudaNetwork

    precision, layers, context = MODELS[model]
    spec = tdt.TransducerSpec(vocab_size=20, encoder_size=6)
    weights = random_weights(spec, 8, 8, layers, seed=layers, context=context)
    frames, lengths = random_frames(4, 6, 8, seed=layers)
    decoder = tdt.Decoder(FusedCudaNetwork(weights, spec, precision, launch(slots=3, **how)), spec)
    boost = PhraseBoost([[3, 5], [7, 1, 2]], weight=1.0)
    searches = tdt.Greedy(), tdt.Beam(size=2, fusion=[boost]), tdt.Beam("malsd", size=2), tdt.Greedy(fusion=[boost])
    for search in searches:
        _, state = decoder.decode_chunk(frames[:, :, :5], np.minimum(lengths, 5), search=search)
        decoder.decode_chunk(frames[:, :, 5:], np.maximum(lengths - 5, 0), state, final=True, search=search)
    many = tdt.Decoder(FusedCudaNetwork(weights, spec, precision, launch(**how)), spec)
    many.decode(*random_frames(10, 6, 4, seed=layers))


def features() -> None:
    """Compute features of every family, of recordings with and without frames, and put them together."""
    from tdtdecode.cuda.device import current_device
    from tdtdecode.speech.audio import FeatureExtractor
    from tdtdecode.speech.audio.device_features import DeviceFeatureExtractor, together
    from tdtdecode.speech.audio.features import FAMILIES

    rng = np.random.default_rng(0)
    recordings = [rng.uniform(-1, 1, n).astype(np.float32) for n in (1_999, 0, 321, 160)]
    for family in FAMILIES:
        device = DeviceFeatureExtractor(FeatureExtractor(33, "per_feature", family), current_device())
        made, lengths = device(recordings)
        together([made[0], made[2][:, : lengths[2]]], 20)


if __name__ == "__main__":
    with emulated() as emulated_cupy:
        if sys.argv[1] in LAUNCHES:
            fused_greedy.ROUNDS_AT_ONCE = fused_beam.ROUNDS_AT_ONCE = 2
            decode(LAUNCHES[sys.argv[1]], sys.argv[2])
        elif sys.argv[1] == "features":
            features()
        else:
            plant(emulated_cupy, sys.argv[1])
    print("done")
