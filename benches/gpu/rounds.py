"""How many rounds a beam search takes on a GPU and on the CPU's engine.

A round is one pass of the network over all rows that the search asks for. Counted in the emulation of a card, with a
small model.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

import tdtdecode as tdt
from tdtdecode.cuda.structs import REQUESTS
from tests.cuda.helpers import emulated, launch
from tests.decoding.fused_helpers import as_lifted

from ..random_weights import random_encoder_out, random_weights

_VOCAB_SIZE, _ENCODER_SIZE, _SIZE = 64, 16, 16


def beam_rounds(size: int, batch: int, frames: int) -> dict[str, Any]:
    """Rounds of the device and of the CPU's engine, for the same utterances and the same results."""
    model = random_weights(_VOCAB_SIZE, (0, 1, 2, 3, 4), _ENCODER_SIZE, _SIZE, 2, _SIZE)
    spec = tdt.TransducerSpec(_VOCAB_SIZE, encoder_size=_ENCODER_SIZE)
    utterances = np.stack([random_encoder_out(frames, _ENCODER_SIZE, seed) for seed in range(batch)])
    search = tdt.Beam(size=size)
    calls = 0

    def predict(tokens: np.ndarray, state: Any) -> Any:
        if state is None:
            state = tuple(np.repeat(part[:, None], len(tokens), 1) for part in model.start())
        return _steps(model, tokens, state)

    def joint(rows: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return model.rows(model.project_frames(rows), model.project_prediction(predictions))

    def select(state: Any, index: np.ndarray) -> Any:
        return tuple(part[:, index] for part in state)

    expected = tdt.Decoder(tdt.CallableNetwork(predict, joint, select), spec=spec).decode(utterances, search=search)
    with emulated():
        from tdtdecode.networks.cuda import fused_beam
        from tdtdecode.networks.cuda.fused import FusedCudaNetwork

        network = FusedCudaNetwork(as_lifted(model), spec, "float32", launch(persistent=False))
        rounds, run = 0, type(network.on_device).run

        def counting(self: Any, file: str, name: str, parameters: np.ndarray, *arguments: Any, **named: Any) -> None:
            nonlocal rounds
            if name == "beam_rank":  # the device's memory is the host's here; after the end, nothing is asked for
                requests = int(parameters["requests"][0]) + named["numbers"][0] * REQUESTS.itemsize
                rounds += bool(_at(requests, REQUESTS)["wanted_count"])
            run(self, file, name, parameters, *arguments, **named)

        before, fused_beam.ROUNDS_AT_ONCE = fused_beam.ROUNDS_AT_ONCE, 2
        type(network.on_device).run = counting  # type: ignore[method-assign]
        try:
            found = tdt.Decoder(network, spec).decode(utterances, search=search)
        finally:
            type(network.on_device).run = run  # type: ignore[method-assign]
            fused_beam.ROUNDS_AT_ONCE = before
    assert [h.tokens.tolist() for h in found] == [h.tokens.tolist() for h in expected]
    return {"size": size, "batch": batch, "frames": frames, "device": rounds, "host": calls}


def _at(address: int, dtype: np.dtype) -> Any:
    return np.frombuffer((ctypes.c_ubyte * dtype.itemsize).from_address(address), dtype)[0]


def _steps(model: Any, tokens: np.ndarray, state: Any) -> Any:
    outputs, states = zip(
        *(model.predict(int(token), tuple(part[:, i] for part in state)) for i, token in enumerate(tokens))
    )
    return np.stack(outputs), tuple(np.stack(parts, axis=1) for parts in zip(*states))
