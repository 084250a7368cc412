"""What other systems say to the demo's recordings."""

from __future__ import annotations

from pathlib import Path

from . import demo

RATE = 16_000


def sherpa_onnx_texts(directory: Path) -> list[str]:
    """The texts of sherpa-onnx for a split directory; its features differ from ours."""
    import sherpa_onnx

    recognizer = sherpa_onnx.OfflineRecognizer.from_transducer(
        **{part: str(directory / f"{part}.onnx") for part in ("encoder", "decoder", "joiner")},
        tokens=str(directory / "tokens.txt"),
        model_type="nemo_transducer",
        num_threads=1,
    )
    texts = []
    for samples, _ in demo.recordings().values():
        stream = recognizer.create_stream()
        stream.accept_waveform(RATE, samples)
        recognizer.decode_stream(stream)
        texts.append(stream.result.text.strip())
    return texts


def onnx_asr_texts(directory: Path) -> list[str]:
    """The texts of onnx-asr for a combined directory, whose config.json says what it is."""
    import onnx_asr

    model = onnx_asr.load_model("nemo-conformer-tdt", directory, providers=["CPUExecutionProvider"])
    return [model.recognize(samples) for samples, _ in demo.recordings().values()]
