"""Decoding with random models of Parakeet's size on a card: every kind of launch, and peers on the same card."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tdtdecode as tdt
from tdtdecode.benchmark import alternate, summary
from tdtdecode.cuda.device import import_cupy
from tdtdecode.evaluation import edit_distance

from ..random_bundle import random_encoder_out, random_pieces, write_bundle
from ..random_weights import Weights, random_weights

FRAMES, ENCODER_SIZE, SIZE, FRAME_SECONDS = 423, 1024, 640, 0.08
PRECISIONS = ("float32", "float16", "bfloat16")
PEER_BATCH = 32
"""The largest batch that peers decode here; it already takes them seconds."""
EXCHANGES_PER_TOKEN = 3
"""Barriers over the grid from one token to the next, for a network with two LSTM layers."""


class Model:
    """A random model and its directory."""

    def __init__(
        self, vocab_size: int, folder: Path, frames: int = FRAMES, sizes: tuple[int, int] = (ENCODER_SIZE, SIZE)
    ):
        encoder_size, size = sizes
        self.vocab_size, self.frames, self.encoder_size = vocab_size, frames, encoder_size
        self.weights: Weights = random_weights(vocab_size, (0, 1, 2, 3, 4), encoder_size, size, 2, size)
        self.directory = write_bundle(folder, "combined", self.weights, random_pieces(self.weights), None)

    def encoder_out(self, batch: int) -> np.ndarray:
        return np.stack([random_encoder_out(self.frames, self.encoder_size, seed) for seed in range(batch)])

    def decoder(self, precision: str = "float32", network: str = "fused", **launch: Any) -> tdt.Decoder:
        """A decoder on the card; ``launch`` are fields of `tdtdecode.networks.cuda.program.Launch`."""
        if network == "ort" or not launch:
            return tdt.Decoder.from_bundle(self.directory, device="cuda", network=network, precision=precision)
        from dataclasses import replace

        from tdtdecode.bundle import read_bundle
        from tdtdecode.cuda.device import current_device
        from tdtdecode.networks.choice import lifted_weights
        from tdtdecode.networks.cuda.fused import FusedCudaNetwork
        from tdtdecode.networks.cuda.program import Launch

        bundle = read_bundle(self.directory)
        how = replace(Launch.of(current_device()), **launch)
        return tdt.Decoder(FusedCudaNetwork(lifted_weights(bundle), bundle.spec, precision, how), bundle.spec)

    def token_bytes(self, precision: str) -> int:
        """The least bytes of weights that an emitted token reads: those of predictor and joint, once."""
        size, joint = self.weights.embedding.shape[1], self.weights.enc.shape[1]
        layers = len(self.weights.layers)
        numbers = (2 * layers - 1) * 4 * size * size + size * joint + joint * self.weights.out.shape[1]
        return numbers * (4 if precision == "float32" else 2)


def measure(model: Model, batch: int, runs: int, searches: dict[str, Any], micro: dict | None, peers: bool) -> dict:
    """Decode one batch with every system, one run of each in turn, and return the figures."""
    cupy = import_cupy()
    host = model.encoder_out(batch)
    on_device = cupy.asarray(host)
    reference = tdt.Decoder.from_bundle(model.directory).decode(host)
    decoders = {f"fused {precision}": model.decoder(precision) for precision in PRECISIONS}
    decoders["fused float16, flags"] = model.decoder("float16", barrier="flags")
    decoders["fused float16, phases"] = model.decoder("float16", persistent=False)
    if importlib.util.find_spec("onnxruntime") is not None:
        try:
            decoders["ort"] = model.decoder(network="ort")
        except (tdt.DeviceError, tdt.MissingDependencyError) as error:
            print(f"left out: network 'ort': {error}")
    functions: dict[str, Callable[[], Any]] = {}
    counts: dict[str, int] = {}
    errors: dict[str, float] = {}
    for name, decoder in decoders.items():
        for label, search in searches.items():
            if label != "greedy" and name not in ("fused float32", "fused float16"):
                continue
            found = decoder.decode(on_device, search=search)
            key = name if label == "greedy" else f"{name}, {label}"
            counts[key] = sum(map(len, found))
            if label == "greedy":
                edits = sum(edit_distance(a.tokens.tolist(), b.tokens.tolist()) for a, b in zip(reference, found))
                errors[key] = edits / max(sum(map(len, reference)), 1)
            functions[key] = lambda decoder=decoder, search=search: decoder.decode(on_device, search=search)
    if peers and batch <= PEER_BATCH:
        _add_peers(model, host, functions, counts, reference)
    result: dict = {"vocab_size": model.vocab_size, "batch": batch, "frames": model.frames, "systems": {}}
    tokens = sum(map(len, reference))
    for name, seconds in alternate(runs, functions).items():
        entry = summary(seconds)
        emitted = max(counts.get(name, tokens), 1)
        entry["us_per_token"] = entry["median"] / emitted * 1e6
        entry["times_real_time"] = batch * model.frames * FRAME_SECONDS / entry["median"]
        if name in errors:
            entry["token_error_rate"] = errors[name]
            precision = next((p for p in PRECISIONS if p in name), None)
            if micro is not None and batch == 1 and precision is not None:
                entry["floor_us_per_token"] = floor_us(model, precision, micro)
                entry["floor_fraction"] = entry["floor_us_per_token"] / entry["us_per_token"]
        result["systems"][name] = entry
    _print(result)
    return result


def floor_us(model: Model, precision: str, micro: dict) -> float:
    """The least microseconds that a token can take: reading its weights from shared memory, and the exchanges."""
    exchange = min(*micro["barrier_after_stores_us"].values(), micro["tagged_exchange_us"])
    return model.token_bytes(precision) / micro["read_shared_bytes_per_second"] * 1e6 + EXCHANGES_PER_TOKEN * exchange


def _add_peers(model: Model, host: np.ndarray, functions: dict, counts: dict, reference: list) -> None:
    from . import peers

    expected = [h.tokens.tolist() for h in reference]
    if importlib.util.find_spec("transformers") is not None and importlib.util.find_spec("torch") is not None:
        import torch

        for dtype in ("float32", "float16"):
            hugging_face = peers.parakeet_for_tdt(model.weights, 1, "cuda", dtype)
            name = f"Hugging Face ParakeetForTDT {dtype}"
            functions[name] = peers.hugging_face_greedy(hugging_face, torch.from_numpy(host).cuda())
            found = functions[name]()
            counts[name] = sum(map(len, found))
            if dtype == "float32":
                assert all(theirs[: len(ours)] == ours for ours, theirs in zip(expected, found))
    if importlib.util.find_spec("onnx_asr") is not None:
        import onnxruntime

        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            name = "onnx-asr, a call per step"
            functions[name] = peers.onnx_asr_greedy(model.directory, host, "CUDAExecutionProvider")
            assert functions[name]() == expected
    if importlib.util.find_spec("nemo") is not None:
        from ..nemo_modules import nemo_greedy

        nemo = nemo_greedy(model.weights, device="cuda")
        functions["NeMo"] = lambda: nemo(host, np.full(len(host), host.shape[2]))


def _print(result: dict) -> None:
    print(f"V = {result['vocab_size']}, batch {result['batch']}, {result['frames']} frames per utterance")
    for name, entry in result["systems"].items():
        floor = f"  {entry['floor_fraction']:4.0%} of the possible speed" if "floor_fraction" in entry else ""
        error = f"  {entry['token_error_rate']:.2%} of tokens differ" if entry.get("token_error_rate") else ""
        speed = f"{entry['us_per_token']:9.2f} us/token {entry['times_real_time']:12,.0f}x real time"
        print(f"  {name:<40} {speed}{floor}{error}", flush=True)
