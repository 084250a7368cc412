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
from ..random_weights import Weights, published_durations, random_weights

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
        durations = published_durations(vocab_size)
        self.weights: Weights = random_weights(vocab_size, durations, encoder_size, size, 2, size)
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


class Cell:
    """What is measured on one batch: several systems, one run of each in turn.

    A system that fails is left out, and the error is kept.
    """

    def __init__(self, model: Model, batch: int):
        self._model, self._batch = model, batch
        self._functions: dict[str, Callable[[], Any]] = {}
        self._systems: dict[str, dict[str, Any]] = {}
        self.host = model.encoder_out(batch)
        self.on_device = import_cupy().asarray(self.host)
        self.reference = [h.tokens.tolist() for h in tdt.Decoder.from_bundle(model.directory).decode(self.host)]

    def add(self, name: str, prepare: Callable[[], Callable[[], Any]], compared: bool = True) -> None:
        """Add a system. ``prepare`` returns the function that decodes the batch.

        Its first result is compared with that of the CPU, unless it is another search's.
        """
        try:
            function = prepare()
            found = [_tokens(one) for one in function()]
        except Exception as error:  # whatever a peer or a driver raises
            print(f"  {name}: {type(error).__name__}: {error}", flush=True)
            self._systems[name] = {"error": f"{type(error).__name__}: {error}"}
            return
        entry: dict[str, Any] = {"tokens": sum(map(len, found))}
        if compared:
            edits = sum(edit_distance(a, b[: max(len(a), 1)]) for a, b in zip(self.reference, found))
            entry["token_error_rate"] = edits / max(sum(map(len, self.reference)), 1)
        self._systems[name], self._functions[name] = entry, function

    def measure(self, runs: int) -> dict[str, Any]:
        """Run them, and return the figures."""
        model = self._model
        for name, seconds in alternate(runs, self._functions).items():
            entry = self._systems[name]
            entry |= summary(seconds)
            entry["us_per_token"] = entry["median"] / max(entry["tokens"], 1) * 1e6
            entry["times_real_time"] = self._batch * model.frames * FRAME_SECONDS / entry["median"]
        return {
            "vocab_size": model.vocab_size, "batch": self._batch, "frames": model.frames, "systems": self._systems
        }  # fmt: skip


def measure(model: Model, batch: int, runs: int, searches: dict[str, Any], micro: dict | None) -> dict:
    """Decode one batch with every kind of launch, precision and network."""
    cell = Cell(model, batch)

    def ours(search: Any, **how: Any) -> Callable[[], Callable[[], Any]]:
        def prepare() -> Callable[[], Any]:
            decoder = model.decoder(**how)
            return lambda: decoder.decode(cell.on_device, search=search)

        return prepare

    for precision in PRECISIONS:
        for label, search in searches.items():
            if label == "greedy":
                cell.add(f"fused {precision}", ours(search, precision=precision))
            elif precision != "bfloat16":
                cell.add(f"fused {precision}, {label}", ours(search, precision=precision), compared=False)
    greedy = searches["greedy"]
    cell.add("fused float16, flags", ours(greedy, precision="float16", barrier="flags"))
    cell.add("fused float16, phases", ours(greedy, precision="float16", persistent=False))
    if importlib.util.find_spec("onnxruntime") is not None:
        cell.add("ort", ours(greedy, network="ort"))
    result = cell.measure(runs)
    if micro is not None and batch == 1:
        for name, entry in result["systems"].items():
            precision = next((p for p in PRECISIONS if p in name), None)
            if precision is not None and "us_per_token" in entry and "beam" not in name:
                entry["floor_us_per_token"] = floor_us(model, precision, micro)
                entry["floor_fraction"] = entry["floor_us_per_token"] / entry["us_per_token"]
    _print(result)
    return result


def measure_peers(model: Model, batch: int, runs: int) -> dict:
    """Decode one batch with this package's float32 and float16, and with the peers that are installed."""
    from . import peers

    cell = Cell(model, batch)
    for precision in ("float32", "float16"):
        decoder = model.decoder(precision)
        cell.add(f"fused {precision}", lambda decoder=decoder: lambda: decoder.decode(cell.on_device))
    if importlib.util.find_spec("transformers") is not None and importlib.util.find_spec("torch") is not None:
        import torch

        torch.backends.cudnn.allow_tf32 = False  # the LSTM's products would be rounded to TF32
        torch.backends.cuda.matmul.allow_tf32 = False
        for dtype in ("float32", "float16"):

            def hugging_face(dtype: str = dtype) -> Callable[[], Any]:
                loaded = peers.parakeet_for_tdt(model.weights, 1, "cuda", dtype)
                return peers.hugging_face_greedy(loaded, torch.from_numpy(cell.host).cuda())

            cell.add(f"Hugging Face ParakeetForTDT {dtype}", hugging_face)
    if importlib.util.find_spec("onnx_asr") is not None:
        cell.add(
            "onnx-asr, a call per step",
            lambda: peers.onnx_asr_greedy(model.directory, cell.host, ("CUDAExecutionProvider", {"use_tf32": "0"})),
        )
    if importlib.util.find_spec("nemo") is not None:

        def nemo() -> Callable[[], Any]:
            from ..nemo_modules import nemo_greedy

            decode = nemo_greedy(model.weights, device="cuda")
            return lambda: decode(cell.host, np.full(len(cell.host), cell.host.shape[2]))

        cell.add("NeMo", nemo)
    result = cell.measure(runs)
    _print(result)
    return result


def _tokens(found: Any) -> list[int]:
    """The tokens of a hypothesis, or of what a peer returns in its place."""
    tokens = getattr(found, "tokens", found)
    return [int(token) for token in tokens]


def floor_us(model: Model, precision: str, micro: dict) -> float:
    """The least microseconds that a token can take: reading its weights from shared memory, and the exchanges."""
    exchange = min(*micro["barrier_after_stores_us"].values(), micro["tagged_exchange_us"])
    return model.token_bytes(precision) / micro["read_shared_bytes_per_second"] * 1e6 + EXCHANGES_PER_TOKEN * exchange


def _print(result: dict) -> None:
    print(f"V = {result['vocab_size']}, batch {result['batch']}, {result['frames']} frames per utterance")
    for name, entry in result["systems"].items():
        if "median" not in entry:
            continue
        floor = f"  {entry['floor_fraction']:4.0%} of the possible speed" if "floor_fraction" in entry else ""
        error = f"  {entry['token_error_rate']:.2%} of tokens differ" if entry.get("token_error_rate") else ""
        speed = f"{entry['us_per_token']:9.2f} us/token {entry['times_real_time']:12,.0f}x real time"
        print(f"  {name:<40} {speed}{floor}{error}", flush=True)
