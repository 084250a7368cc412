"""From features to tokens on a card: Hugging Face's encoder with its own loop, and with our decoder behind it."""

from __future__ import annotations

from typing import Any

from tdtdecode.benchmark import alternate, summary

from .decoding import FRAME_SECONDS, Model
from .peers import parakeet_for_tdt, tokens_of

ENCODER_LAYERS = 24


def measure(model: Model, batch: int, runs: int, encoder_layers: int = ENCODER_LAYERS) -> dict:
    """Run both on the same random features, in float16. The encoder output stays on the card."""
    import torch

    hugging_face = parakeet_for_tdt(model.weights, encoder_layers, "cuda", "float16")
    torch.manual_seed(0)
    features = torch.randn(batch, 8 * model.frames, 80, dtype=torch.float16, device="cuda")
    decoder = model.decoder("float16")

    def encode() -> Any:
        with torch.inference_mode():
            return hugging_face.encoder(input_features=features).last_hidden_state

    def ours() -> list:
        return decoder.decode(encode().transpose(1, 2))

    def theirs() -> list:
        with torch.inference_mode():
            return tokens_of(hugging_face, hugging_face.generate(input_features=features).sequences)

    def encoder_alone() -> None:
        encode()
        torch.cuda.synchronize()

    functions = {"ours": ours, "Hugging Face": theirs, "encoder alone": encoder_alone}
    result: dict = {"vocab_size": model.vocab_size, "batch": batch, "frames": model.frames, "systems": {}}
    for name, seconds in alternate(runs, functions).items():
        entry = summary(seconds)
        entry["times_real_time"] = batch * model.frames * FRAME_SECONDS / entry["median"]
        result["systems"][name] = entry
        print(f"  end to end, batch {batch}: {name:<14} {entry['median'] * 1e3:9.2f} ms", flush=True)
    return result
