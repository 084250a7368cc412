"""Write tests/speech/nemo_features.npz: waveforms, and the features that NeMo computes from them.

Run it in an environment with NeMo (``pip install "nemo_toolkit[asr]"``)::

    python tools/make_feature_reference.py tests/speech/nemo_features.npz

Each case NAME has ``NAME/samples`` (int16 [n], to be divided by 32768). For each number of mel bins M it has
``NAME/M`` (float32 [M, T]), the features normalised per mel bin, with NeMo's own T. Where there is a ``NAME/M/raw``, it
holds features that are not normalised.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np


def waveforms() -> dict[str, np.ndarray]:
    """The cases, int16 [n] each: lengths around the edges of frames, and sounds over the whole band."""
    rng = np.random.default_rng(20240601)
    seconds = np.arange(14_500) / 16_000
    sweep = 0.4 * np.sin(2 * np.pi * (80 + 3800 * seconds) * seconds) * (0.55 + 0.45 * np.sin(2 * np.pi * 3 * seconds))
    sounds = {
        "sweep": sweep + 0.01 * rng.standard_normal(len(seconds)),
        "noise": 0.1 * rng.standard_normal(6_000),
        "click": np.eye(1, 3_200, 1_000)[0],
        "three_frames": 0.3 * rng.standard_normal(480),
        "two_frames_less_one": 0.3 * rng.standard_normal(319),
        "one_frame": 0.3 * rng.standard_normal(160),
        "under_a_frame": 0.3 * rng.standard_normal(159),
        "one_sample": np.array([0.5]),
    }
    return {name: np.clip(np.round(sound * 32768), -32768, 32767).astype(np.int16) for name, sound in sounds.items()}


def nemo_features(samples: np.ndarray, mel_bins: int, normalize: str | None) -> np.ndarray:
    """NeMo's features of one recording, with the settings of the Parakeet models: float32 [mel, T]."""
    import torch
    from nemo.collections.asr.modules import AudioToMelSpectrogramPreprocessor

    preprocessor = AudioToMelSpectrogramPreprocessor(
        sample_rate=16_000, window_size=0.025, window_stride=0.01, window="hann", n_fft=512, features=mel_bins,
        normalize=normalize, log=True, dither=0.0, pad_to=0, frame_splicing=1,
    ).eval()
    signal = torch.from_numpy(samples[None].astype(np.float32) / 32768)
    with torch.no_grad():
        features, length = preprocessor(input_signal=signal, length=torch.tensor([len(samples)]))
    assert int(length[0]) == len(samples) // 160, "NeMo counts frames differently from this project"
    return features[0].numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    arrays: dict[str, np.ndarray] = {}
    for name, samples in waveforms().items():
        arrays[f"{name}/samples"] = samples
        for mel_bins in (80, 128):
            arrays[f"{name}/{mel_bins}"] = nemo_features(samples, mel_bins, "per_feature")
    arrays["noise/80/raw"] = nemo_features(arrays["noise/samples"], 80, None)
    np.savez_compressed(output, **arrays)
    print(f"{output}: {output.stat().st_size} bytes, {len(waveforms())} cases")


if __name__ == "__main__":
    main()
