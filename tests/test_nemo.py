"""NeMo's own greedy decoding with the demo model's weights, on the same encoder output."""

from __future__ import annotations

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.audio import FeatureExtractor
from tests import demo

torch = pytest.importorskip("torch", reason="NeMo is not installed (pip install torch nemo_toolkit[asr]==3.0.0)")
pytest.importorskip("nemo.collections.asr", reason="NeMo is not installed (pip install nemo_toolkit[asr]==3.0.0)")


def as_torch_lstm(layer):
    """ONNX orders an LSTM's gates i, o, f, c; torch i, f, c, o."""

    def reordered(array):
        i, o, f, c = np.split(array, 4)
        return torch.from_numpy(np.concatenate([i, f, c, o]))

    return {
        "weight_ih": reordered(layer.w),
        "weight_hh": reordered(layer.r),
        "bias_ih": reordered(layer.w_bias),
        "bias_hh": reordered(layer.r_bias),
    }


@pytest.fixture(scope="module")
def nemo_modules():
    """NeMo's predictor and joint with the demo model's weights."""
    from nemo.collections.asr.modules import RNNTDecoder, RNNTJoint

    weights = demo.weights()
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
            "activation": "relu",
            "dropout": 0.0,
        },
        num_classes=weights.vocab_size,
        num_extra_outputs=len(weights.durations),
        vocabulary=demo.pieces()[:-1],
        log_softmax=False,
    )
    state = {"prediction.embed.weight": torch.from_numpy(weights.embedding)}
    for i, layer in enumerate(weights.layers):
        state |= {f"prediction.dec_rnn.lstm.{name}_l{i}": value for name, value in as_torch_lstm(layer).items()}
    decoder.load_state_dict(state)
    linear = {"enc": weights.enc, "pred": weights.pred, "joint_net.1": weights.out}
    biases = {"enc": weights.enc_bias, "pred": weights.pred_bias, "joint_net.1": weights.out_bias}
    last = [name for name in joint.state_dict() if name.startswith("joint_net") and name.endswith("weight")][-1]
    rename = {"joint_net.1": last.removesuffix(".weight")}
    state = {}
    for name, matrix in linear.items():
        state[f"{rename.get(name, name)}.weight"] = torch.from_numpy(np.ascontiguousarray(matrix.T))
        state[f"{rename.get(name, name)}.bias"] = torch.from_numpy(biases[name])
    joint.load_state_dict(state)
    return decoder.eval(), joint.eval()


@pytest.mark.parametrize("max_symbols", [10, 1])
def test_nemos_greedy_says_the_same(nemo_modules, max_symbols):
    from nemo.collections.asr.parts.submodules.rnnt_greedy_decoding import GreedyBatchedTDTInfer

    model = tdt.load_model("demo")
    samples = [recording for recording, _ in demo.recordings().values()]
    features, lengths = FeatureExtractor(80)(samples)
    frames, counts = model.encoder(features, lengths)
    encoder_out = frames.numpy()
    ours = model.decoder.decode(encoder_out, counts, search=tdt.Greedy(max_symbols=max_symbols))

    decoder, joint = nemo_modules
    greedy = GreedyBatchedTDTInfer(
        decoder, joint, blank_index=demo.weights().blank, durations=[0, 1, 2, 3, 4],
        max_symbols_per_step=max_symbols, preserve_alignments=False,
    )  # fmt: skip
    with torch.inference_mode():
        (theirs,) = greedy(
            encoder_output=torch.from_numpy(encoder_out), encoded_lengths=torch.from_numpy(counts)
        )
    for hypothesis, other in zip(ours, theirs, strict=True):
        assert hypothesis.tokens.tolist() == torch.as_tensor(other.y_sequence).tolist()
        assert hypothesis.frames.tolist() == torch.as_tensor(other.timestamp).tolist()
