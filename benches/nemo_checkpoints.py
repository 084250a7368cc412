"""Random NeMo checkpoints with the architectures of the Parakeet models, at full size or tiny.

    python -m benches.nemo_checkpoints OUT.nemo --kind 1.1b [--tiny]

Needs NeMo (pip install torch nemo_toolkit[asr]==3.0.0).
"""

from __future__ import annotations

import argparse
import random
import string
import tempfile
from pathlib import Path
from typing import Any

DURATIONS = [0, 1, 2, 3, 4]
CHANNELS = 256

CONTEXTS = [[70, 13], [70, 6], [70, 1], [70, 0]]
LANGUAGES = {"en-US": 0, "de-DE": 3, "ja-JP": 5, "auto": 7}

KINDS: dict[str, dict[str, Any]] = {
    "0.6b-v2": {"layers": 24, "width": 1024, "mel": 128, "predictor_layers": 2, "pieces": 1024},
    "0.6b-v3": {"layers": 24, "width": 1024, "mel": 128, "predictor_layers": 2, "pieces": 8192},
    "1.1b": {"layers": 42, "width": 1024, "mel": 80, "predictor_layers": 2, "pieces": 1024},
    "tdt_ctc-1.1b": {"layers": 42, "width": 1024, "mel": 80, "predictor_layers": 2, "pieces": 1024, "hybrid": True},
    "tdt_ctc-110m": {"layers": 17, "width": 512, "mel": 80, "predictor_layers": 1, "pieces": 1024, "hybrid": True},
    "rnnt-1.1b": {"layers": 42, "width": 1024, "mel": 80, "predictor_layers": 2, "pieces": 1024, "durations": []},
    "nemotron-streaming": {"layers": 24, "width": 1024, "mel": 128, "predictor_layers": 2, "pieces": 1024,
                           "durations": [], "context": CONTEXTS},
    "nemotron-3.5-streaming": {"layers": 24, "width": 1024, "mel": 128, "predictor_layers": 2, "pieces": 1024,
                               "durations": [], "context": [[56, 13], [56, 6]], "languages": LANGUAGES},
    "hybrid-streaming": {"layers": 17, "width": 512, "mel": 80, "predictor_layers": 1, "pieces": 1024,
                         "durations": [], "context": CONTEXTS, "hybrid": True},
    "tdt-streaming": {"layers": 17, "width": 512, "mel": 80, "predictor_layers": 1, "pieces": 1024,
                      "context": [[8, 1]]},
}  # fmt: skip
"""Sizes of the models of these names. In all of them predictor and joint are 640 wide."""


def build(kind: str, tiny: bool, folder: Path, seed: int = 0):
    """A NeMo model of a kind, with random weights. Its tokenizer is made in `folder`."""
    import torch
    from nemo.collections.asr.models import EncDecHybridRNNTCTCBPEModel, EncDecRNNTBPEModel
    from omegaconf import OmegaConf

    sizes = {"durations": DURATIONS, "hybrid": False, "hidden": 640, "channels": CHANNELS, "context": None,
             "languages": None, **KINDS[kind]}  # fmt: skip
    if tiny:
        sizes |= {"layers": 2, "width": 32, "hidden": 24, "channels": 16, "pieces": sizes["pieces"] // 16}
    _train_tokenizer(folder, sizes["pieces"], seed)
    torch.manual_seed(seed)
    made = EncDecHybridRNNTCTCBPEModel if sizes["hybrid"] else EncDecRNNTBPEModel
    if sizes["languages"]:
        from nemo.collections.asr.models.rnnt_bpe_models_prompt import EncDecRNNTBPEModelWithPrompt as made
    return made(cfg=OmegaConf.create(_config(sizes, folder, made))).eval()


def _train_tokenizer(folder: Path, pieces: int, seed: int) -> None:
    from nemo.collections.common.tokenizers.sentencepiece_tokenizer import create_spt_model

    rng = random.Random(seed)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) for _ in range(pieces * 3)]
    text = folder / "sentences.txt"
    text.write_text("\n".join(" ".join(rng.choices(words, k=8)) for _ in range(pieces * 3)))
    create_spt_model(
        str(text), vocab_size=pieces, sample_size=-1, do_lower_case=False, tokenizer_type="bpe", output_dir=str(folder)
    )
    text.unlink()


def encoder_settings(sizes: dict[str, Any]) -> dict[str, Any]:
    """The arguments of NeMo's ConformerEncoder for the sizes of a kind."""
    return {
        "feat_in": sizes["mel"], "feat_out": -1, "n_layers": sizes["layers"], "d_model": sizes["width"],
        "use_bias": False, "subsampling": "dw_striding", "subsampling_factor": 8,
        "subsampling_conv_channels": sizes.get("channels", CHANNELS), "ff_expansion_factor": 4,
        "self_attention_model": "rel_pos", "n_heads": 8, "att_context_size": [-1, -1], "xscaling": False,
        "untie_biases": True, "pos_emb_max_len": 5000, "conv_kernel_size": 9, "conv_norm_type": "batch_norm",
        "dropout": 0.1, "dropout_pre_encoder": 0.1, "dropout_emb": 0.0, "dropout_att": 0.1,
    }  # fmt: skip


def _config(sizes: dict[str, Any], tokenizer: Path, made: type) -> dict[str, Any]:
    durations = sizes["durations"]
    decoding: dict[str, Any] = {
        "strategy": "greedy_batch", "greedy": {"max_symbols": 10, "use_cuda_graph_decoder": False},
    }  # fmt: skip
    loss: dict[str, Any] = {"loss_name": "default"}
    if durations:
        decoding |= {"model_type": "tdt", "durations": durations}
        loss = {"loss_name": "tdt", "tdt_kwargs": {"durations": durations, "sigma": 0.02}}
    config = {
        "target": f"{made.__module__}.{made.__name__}",
        "sample_rate": 16000,
        "model_defaults": {"enc_hidden": sizes["width"], "pred_hidden": sizes["hidden"],
                           "joint_hidden": sizes["hidden"], "tdt_durations": durations},
        "tokenizer": {"dir": str(tokenizer), "type": "bpe"},
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "sample_rate": 16000, "normalize": "per_feature", "window_size": 0.025, "window_stride": 0.01,
            "window": "hann", "features": sizes["mel"], "n_fft": 512, "log": True, "frame_splicing": 1,
            "dither": 1e-5, "pad_to": 0,
        },
        "encoder": {"_target_": "nemo.collections.asr.modules.ConformerEncoder", **encoder_settings(sizes)},
        "decoder": {
            "_target_": "nemo.collections.asr.modules.RNNTDecoder", "normalization_mode": None,
            "random_state_sampling": False, "blank_as_pad": True,
            "prednet": {"pred_hidden": sizes["hidden"], "pred_rnn_layers": sizes["predictor_layers"], "dropout": 0.2},
        },
        "joint": {
            "_target_": "nemo.collections.asr.modules.RNNTJoint", "log_softmax": None,
            "num_extra_outputs": len(durations), "preserve_memory": False, "fuse_loss_wer": False,
            "jointnet": {"joint_hidden": sizes["hidden"], "activation": "relu", "dropout": 0.2},
        },
        "decoding": decoding,
        "loss": loss,
    }  # fmt: skip
    if sizes["context"]:
        config["encoder"] |= {
            "att_context_size": sizes["context"], "att_context_style": "chunked_limited", "causal_downsampling": True,
            "conv_context_size": "causal", "conv_norm_type": "layer_norm",
        }  # fmt: skip
        config["preprocessor"]["normalize"] = "NA"
    if sizes["languages"]:
        config["model_defaults"] |= {
            "initialize_prompt_feature": True, "num_prompts": 8, "prompt_dictionary": sizes["languages"],
        }  # fmt: skip
        config["num_prompts"] = 8
    if sizes["hybrid"]:
        config["aux_ctc"] = {
            "ctc_loss_weight": 0.3, "use_cer": False, "ctc_reduction": "mean_batch",
            "decoder": {"_target_": "nemo.collections.asr.modules.ConvASRDecoder", "feat_in": None, "num_classes": -1,
                        "vocabulary": []},
            "decoding": {"strategy": "greedy"},
        }  # fmt: skip
    return config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", choices=tuple(KINDS), required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = build(options.kind, options.tiny, Path(folder), options.seed)
        model.save_to(str(options.out))
    print(f"{options.out}: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} million parameters")


if __name__ == "__main__":
    main()
