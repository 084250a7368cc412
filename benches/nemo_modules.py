"""NeMo's own predictor, joint and batched searches with given weights. Needs torch and nemo_toolkit[asr]."""

from __future__ import annotations

import numpy as np

from .random_weights import LstmLayer, Weights


def nemo_greedy(weights: Weights, max_symbols: int = 10, device: str = "cpu"):
    """NeMo's label-looping greedy search, as ``decode(encoder_out [B, E, T], lengths [B])`` -> list of its hypotheses.

    On ``"cuda"`` it uses its CUDA graphs, and each call copies the encoder output to the device.
    """
    import torch
    from nemo.collections.asr.parts.submodules.rnnt_greedy_decoding import GreedyBatchedTDTInfer

    decoder, joint = (module.to(device) for module in nemo_modules(weights))
    greedy = GreedyBatchedTDTInfer(
        decoder, joint, blank_index=weights.blank, durations=list(weights.durations),
        max_symbols_per_step=max_symbols, preserve_alignments=False, use_cuda_graph_decoder=device == "cuda",
    )  # fmt: skip

    def decode(encoder_out: np.ndarray, lengths: np.ndarray) -> list:
        with torch.inference_mode():
            (hypotheses,) = greedy(
                encoder_output=torch.from_numpy(encoder_out).to(device),
                encoded_lengths=torch.from_numpy(np.asarray(lengths)).to(device),
            )
        return hypotheses

    return decode


def nemo_malsd(weights: Weights, size: int, max_symbols: int = 10):
    """NeMo's batched beam search, as ``decode(encoder_out [B, E, T], lengths [B])`` -> its n-best lists.

    The duration table must be 0, 1, ..., because this search takes the index of a duration for its value.
    """
    import torch
    from nemo.collections.asr.parts.submodules.tdt_beam_decoding import BeamBatchedTDTInfer

    decoder, joint = nemo_modules(weights)
    assert weights.durations == tuple(range(len(weights.durations)))
    beam = BeamBatchedTDTInfer(
        decoder, joint, durations=list(weights.durations), blank_index=weights.blank, beam_size=size,
        search_type="malsd_batch", max_symbols_per_step=max_symbols, allow_cuda_graphs=False,
        return_best_hypothesis=False,
    )  # fmt: skip

    def decode(encoder_out: np.ndarray, lengths: np.ndarray) -> list:
        with torch.inference_mode():
            (nbest,) = beam(
                encoder_output=torch.from_numpy(encoder_out), encoded_lengths=torch.from_numpy(np.asarray(lengths))
            )
        return [entry.n_best_hypotheses for entry in nbest]

    return decode


def nemo_modules(weights: Weights):
    """NeMo's RNNTDecoder and RNNTJoint with the weights given. These must have biases, and blank last."""
    import torch
    from nemo.collections.asr.modules import RNNTDecoder, RNNTJoint

    size = weights.embedding.shape[1]
    decoder = RNNTDecoder(
        prednet={"pred_hidden": size, "pred_rnn_layers": len(weights.layers), "dropout": 0.0},
        vocab_size=weights.vocab_size,
        blank_as_pad=True,
    )
    joint = RNNTJoint(
        jointnet={
            "encoder_hidden": weights.enc.shape[0],
            "pred_hidden": size,
            "joint_hidden": weights.enc.shape[1],
            "activation": weights.activation,
            "dropout": 0.0,
        },
        num_classes=weights.vocab_size,
        num_extra_outputs=len(weights.durations),
        vocabulary=[str(i) for i in range(weights.vocab_size)],
        log_softmax=False,
    )
    state = {"prediction.embed.weight": torch.from_numpy(weights.embedding)}
    for i, layer in enumerate(weights.layers):
        state |= {f"prediction.dec_rnn.lstm.{name}_l{i}": value for name, value in as_torch_lstm(layer).items()}
    decoder.load_state_dict(state)
    last = [name for name in joint.state_dict() if name.startswith("joint_net") and name.endswith("weight")][-1]
    state = {}
    for name, matrix, bias in (
        ("enc", weights.enc, weights.enc_bias),
        ("pred", weights.pred, weights.pred_bias),
        (last.removesuffix(".weight"), weights.out, weights.out_bias),
    ):
        state[f"{name}.weight"] = torch.from_numpy(np.ascontiguousarray(matrix.T))
        state[f"{name}.bias"] = torch.from_numpy(bias)
    joint.load_state_dict(state)
    return decoder.eval(), joint.eval()


def as_torch_lstm(layer: LstmLayer) -> dict:
    """An LSTM layer's weights by torch's names. ONNX orders the gates i, o, f, c, torch orders them i, f, c, o."""
    import torch

    def reordered(array):
        i, o, f, c = np.split(array, 4)
        return torch.from_numpy(np.concatenate([i, f, c, o]))

    return {
        "weight_ih": reordered(layer.w),
        "weight_hh": reordered(layer.r),
        "bias_ih": reordered(layer.w_bias),
        "bias_hh": reordered(layer.r_bias),
    }
