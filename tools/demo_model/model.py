"""The demo models: NeMo's own EncDecRNNTBPEModel, made tiny. One hears whole recordings, the other streams.

    python model.py tokenizer FOLDER      trains the BPE pieces on sentences of the grammar
"""

import random
import sys
from pathlib import Path

import grammar
import torch
from nemo.collections.asr.models import EncDecRNNTBPEModel
from nemo.collections.common.tokenizers.sentencepiece_tokenizer import create_spt_model
from omegaconf import OmegaConf
from speech import RATE

DURATIONS = (0, 1, 2, 3, 4)
PIECES = 256
WIDTH = 128  # of the encoder
PREDICTOR_WIDTH = 96
JOINT_WIDTH = 112
SUBSAMPLING = 8
SUBSAMPLING_CHANNELS = 16
FEATURE_MEAN, FEATURE_DEVIATION = -8.0, 4.0
STREAMING_CONTEXT = [48, 5]
"""Of the streaming model: attention sees 48 encoder frames before its chunk of 5 + 1 frames, 0.48 s."""
OVERLAP, DROPPED = 9, 2
"""A window of a stream begins with 9 feature frames of the one before, or zeros, and drops the 2 encoder frames that
come of them. NeMo's `ConformerEncoder.setup_streaming_params` derives both."""


def make_tokenizer(folder: Path, sentences: int = 100_000) -> None:
    """Trains SentencePiece BPE with PIECES pieces on training sentences, and writes NeMo's tokenizer files."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(1)
    drawn = (grammar.sentence(rng) for _ in range(sentences))
    text = folder / "sentences.txt"
    text.write_text("\n".join(line for line in drawn if not grammar.is_held_out(line)))
    create_spt_model(
        str(text), vocab_size=PIECES, sample_size=-1, do_lower_case=False, tokenizer_type="bpe", output_dir=str(folder)
    )
    text.unlink()


def config(tokenizer: Path, streaming: bool):
    """NeMo's configuration. The position table is short, because all of it becomes part of the exported file.

    The streaming model's features are not normalised, for a stream does not know its mean. Its convolutions see only
    the past, and attention sees no further than the end of its chunk.
    """
    made = OmegaConf.create(
        {
            "target": "nemo.collections.asr.models.rnnt_bpe_models.EncDecRNNTBPEModel",
            "sample_rate": RATE,
            "model_defaults": {
                "enc_hidden": WIDTH,
                "pred_hidden": PREDICTOR_WIDTH,
                "joint_hidden": JOINT_WIDTH,
                "tdt_durations": list(DURATIONS),
                "num_tdt_durations": len(DURATIONS),
            },
            "tokenizer": {"dir": str(tokenizer), "type": "bpe"},
            "preprocessor": {
                "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
                "sample_rate": RATE,
                "normalize": "per_feature",
                "window_size": 0.025,
                "window_stride": 0.01,
                "window": "hann",
                "features": 80,
                "n_fft": 512,
                "log": True,
                "frame_splicing": 1,
                "dither": 0.0,
                "pad_to": 0,
            },
            "encoder": {
                "_target_": "nemo.collections.asr.modules.ConformerEncoder",
                "feat_in": 80,
                "feat_out": -1,
                "n_layers": 5,
                "d_model": WIDTH,
                "subsampling": "striding",
                "subsampling_factor": SUBSAMPLING,
                "subsampling_conv_channels": SUBSAMPLING_CHANNELS,
                "ff_expansion_factor": 2,
                "self_attention_model": "rel_pos",
                "n_heads": 4,
                "xscaling": False,
                "pos_emb_max_len": 400,
                "conv_kernel_size": 9,
                "conv_norm_type": "layer_norm",
                "dropout": 0.0,
                "dropout_pre_encoder": 0.0,
                "dropout_emb": 0.0,
                "dropout_att": 0.0,
                "sync_max_audio_length": False,
            },
            "decoder": {
                "_target_": "nemo.collections.asr.modules.RNNTDecoder",
                "normalization_mode": None,
                "random_state_sampling": False,
                "blank_as_pad": True,
                "prednet": {"pred_hidden": PREDICTOR_WIDTH, "pred_rnn_layers": 1, "dropout": 0.0},
            },
            "joint": {
                "_target_": "nemo.collections.asr.modules.RNNTJoint",
                "log_softmax": False,
                "num_extra_outputs": len(DURATIONS),
                "jointnet": {"joint_hidden": JOINT_WIDTH, "activation": "relu", "dropout": 0.0},
            },
            "decoding": {
                "strategy": "greedy_batch",
                "model_type": "tdt",
                "durations": list(DURATIONS),
                "greedy": {"max_symbols": 10, "use_cuda_graph_decoder": False},
            },
            "loss": {"loss_name": "tdt", "tdt_kwargs": {"durations": list(DURATIONS), "sigma": 0.05}},
        }
    )
    if streaming:
        made.preprocessor.normalize = "NA"
        made.encoder.update(
            n_layers=4,
            causal_downsampling=True,
            conv_context_size="causal",
            att_context_style="chunked_limited",
            att_context_size=STREAMING_CONTEXT,
            pos_emb_max_len=sum(STREAMING_CONTEXT) + 1,
        )
    return made


def build(tokenizer: Path, streaming: bool) -> EncDecRNNTBPEModel:
    """The model with untrained weights.

    Log-mel features that are not normalised lie around -8 and vary by about 4. The first convolution of a streaming
    model begins as if they were normalised by these two numbers, which it then learns to do better.
    """
    model = EncDecRNNTBPEModel(cfg=config(tokenizer, streaming))
    if streaming:
        first = model.encoder.pre_encode.conv[0]
        with torch.no_grad():
            first.weight /= FEATURE_DEVIATION
            first.bias -= FEATURE_MEAN * first.weight.sum((1, 2, 3))
    return model


def streams(model: EncDecRNNTBPEModel) -> bool:
    """Whether it is the streaming model."""
    return model.cfg.encoder.get("causal_downsampling", False)


def restore(folder: Path) -> EncDecRNNTBPEModel:
    """The model of a training folder, with the weights of its last checkpoint, in eval mode."""
    checkpoint = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)
    model = build(folder / "tokenizer", checkpoint["streaming"])
    model.load_state_dict(checkpoint["model"])
    return model.eval()


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "tokenizer":
        sys.exit(__doc__)
    make_tokenizer(Path(sys.argv[2]))
