"""Peers with given weights on a device: Hugging Face's decoding loop, and one ONNX Runtime call per step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..nemo_modules import as_torch_lstm
from ..random_weights import Weights


def parakeet_for_tdt(weights: Weights, encoder_layers: int, device: str, dtype: str = "float16"):
    """Hugging Face's `ParakeetForTDT` with these weights behind a random encoder of that many layers."""
    import torch
    from transformers import ParakeetEncoderConfig, ParakeetForTDT, ParakeetTDTConfig

    size = weights.embedding.shape[1]
    assert weights.blank == weights.vocab_size and weights.durations == tuple(range(len(weights.durations)))
    config = ParakeetTDTConfig(
        vocab_size=weights.vocab_size + 1,
        decoder_hidden_size=size,
        num_decoder_layers=len(weights.layers),
        hidden_act=weights.activation,
        durations=list(weights.durations),
        blank_token_id=weights.blank,
        pad_token_id=weights.blank,
        encoder_config=ParakeetEncoderConfig(
            hidden_size=weights.enc.shape[0], num_hidden_layers=encoder_layers, num_mel_bins=80
        ).to_dict(),
    )
    torch.manual_seed(0)
    model = ParakeetForTDT(config).eval()
    state = {"decoder.embedding.weight": torch.from_numpy(weights.embedding)}
    for i, layer in enumerate(weights.layers):
        state |= {f"decoder.lstm.{name}_l{i}": value for name, value in as_torch_lstm(layer).items()}
    for name, matrix, bias in (
        ("encoder_projector", weights.enc, weights.enc_bias),
        ("decoder.decoder_projector", weights.pred, weights.pred_bias),
        ("joint.head", weights.out, weights.out_bias),
    ):
        state[f"{name}.weight"] = torch.from_numpy(np.ascontiguousarray(matrix.T))
        state[f"{name}.bias"] = torch.from_numpy(bias)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all(name.startswith("encoder.") for name in missing), (missing, unexpected)
    model.generation_config.decoder_start_token_id = model.generation_config.pad_token_id = weights.blank
    return model.to(device, getattr(torch, dtype))


def hugging_face_greedy(model, encoder_out) -> Callable[[], list[list[int]]]:
    """Hugging Face's own loop over given encoder output, a tensor [B, E, T] on the model's device.

    The function returned gives the tokens of each utterance.
    """
    import torch
    from transformers.models.parakeet.modeling_parakeet import ParakeetEncoderModelOutput

    frames = encoder_out.transpose(1, 2).to(model.dtype).contiguous()
    batch, length, _ = frames.shape
    mask = torch.ones((batch, length), dtype=torch.bool, device=frames.device)
    features = torch.zeros((batch, 8 * length, 80), dtype=model.dtype, device=frames.device)

    def given(*_, **__):
        return ParakeetEncoderModelOutput(
            last_hidden_state=frames, pooler_output=model.encoder_projector(frames), attention_mask=mask
        )

    def decode() -> list[list[int]]:
        original, model.get_audio_features = model.get_audio_features, given
        try:
            with torch.inference_mode():
                return tokens_of(model, model.generate(input_features=features).sequences)
        finally:
            model.get_audio_features = original

    return decode


def tokens_of(model, sequences) -> list[list[int]]:
    """The tokens of generated sequences, without blanks, which also begin them and pad them to equal length."""
    blank = model.config.blank_token_id
    return [[token for token in sequence if token != blank] for sequence in sequences.cpu().tolist()]


def onnx_asr_greedy(directory: Path, encoder_out: np.ndarray, provider: Any) -> Callable[[], list[list[int]]]:
    """onnx-asr's loop on an execution provider: one call of the combined graph for each step of each utterance."""
    import onnx_asr

    asr = onnx_asr.load_model("nemo-conformer-tdt", directory, providers=[provider]).asr
    frames = np.ascontiguousarray(encoder_out.transpose(0, 2, 1))
    lengths = np.full(len(frames), frames.shape[1])
    return lambda: [list(tokens) for tokens, *_ in asr._decoding(frames, lengths)]
