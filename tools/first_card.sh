#!/usr/bin/env bash
# The first ten minutes on a card: whether this package works there, then how fast it is.
#
#     tools/first_card.sh OUT [WHEELS]
#
# Works without a network: the wheels of what is missing are taken from the folder WHEELS (`pip download` makes one on
# another machine). onnxruntime-gpu, PyTorch and the peers take part if they are there. Every step has a time limit and
# leaves what it found in the folder OUT at once, so that a hang costs one step.
set -u
cd "$(dirname "$0")/.."
out=$(mkdir -p "${1:?the folder for what is found}" && cd "$1" && pwd)
wheels=${2:-}
export CUPY_CACHE_DIR=${CUPY_CACHE_DIR:-$out/kernels}
export PYTHONUNBUFFERED=1

# step NAME SECONDS COMMAND...: runs a command; its output goes to OUT/NAME.txt, its status and time to OUT/steps.txt.
step() {
  local name=$1 limit=$2 begin status
  shift 2
  begin=$(date +%s)
  timeout --kill-after=5 "$limit" "$@" > "$out/$name.txt" 2>&1
  status=$?
  echo "$name: status $status, $(($(date +%s) - begin)) s" | tee -a "$out/steps.txt"
  [ "$status" -eq 0 ] || tail -n 5 "$out/$name.txt"
  return "$status"
}

: > "$out/steps.txt"
if [ -n "$wheels" ]; then
  step install 120 python3 -m pip install --no-index --find-links "$wheels" -e ".[test]" cupy-cuda13x ||
    step install-package 120 python3 -m pip install --no-index --no-deps --no-build-isolation -e .
else
  step install-package 120 python3 -m pip install --no-deps --no-build-isolation -e .
fi
step card 30 nvidia-smi
step info 60 python3 -m tdtdecode info
# Does anything work at all? One decode by each kind of launch, the safest first.
for how in phases counter flags; do
  step "smoke-$how" 90 env TDTDECODE_CUDA_LAUNCH=$how python3 -c '
import numpy as np, tdtdecode as tdt
cpu = tdt.Decoder.from_bundle("src/tdtdecode/demo")
cuda = tdt.Decoder.from_bundle("src/tdtdecode/demo", device="cuda")
rng = np.random.default_rng(0)
frames = rng.normal(size=(4, cpu.spec.encoder_size or 256, 50)).astype(np.float32)
for search in (tdt.Greedy(), tdt.Beam(size=4)):
    expected, found = cpu.decode(frames, search=search), cuda.decode(frames, search=search)
    same = [a.tokens.tolist() == b.tokens.tolist() for a, b in zip(expected, found)]
    print(search, "equal:", same)
    assert all(same)
'
done
step micro 60 python3 -m benches.gpu --micro --output "$out/micro.json"
step tests 240 python3 -m pytest -q -n0 -m card tests/cuda -k "not compute_sanitizer" --maxfail=20
step threads 60 python3 -m pytest -q -n0 tests/cuda/test_ort.py -m card -k "on_a_card"
step decoding 230 python3 -m benches.gpu --part decoding --output "$out/gpu.json" --batch 1 128
step decoding-rest 230 python3 -m benches.gpu --part decoding --output "$out/gpu.json"
step files 240 python3 -m benches.gpu --end-to-end --output "$out/gpu.json"
step end-to-end 200 python3 -m benches.gpu --part end-to-end --output "$out/gpu.json"
step peers 230 python3 -m benches.gpu --part peers --output "$out/gpu.json"
step memcheck 300 python3 -m pytest -q -n0 -m card tests/cuda/test_sanitizers.py -k memcheck
cat "$out/steps.txt"
