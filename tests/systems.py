"""What sherpa-onnx, onnx-asr and onnxruntime-genai do with model directories.

    python -m tests.systems sherpa-onnx DIRECTORY:KIND...

Each directory is tried in a process of its own, forked when the system is imported: what a system does not take may end
its process, or crash it. KIND is tdt, rnnt, k2, or online for a streaming model. A line of JSON for each says the text,
or why there is none. Of streaming models that is the tokens.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MODULES = {"sherpa-onnx": "sherpa_onnx", "onnx-asr": "onnx_asr", "onnxruntime-genai": "onnxruntime_genai"}
RATE = 16_000


def audio() -> np.ndarray:
    """Three seconds of noise, in syllables."""
    rng = np.random.default_rng(1)
    loudness = np.repeat(rng.uniform(0.05, 1, 30), RATE // 10)
    return (0.2 * rng.standard_normal(len(loudness)) * loudness).astype(np.float32)


def live_audio() -> np.ndarray:
    """The same, and a second of silence, so that what has a look-ahead hears it to its end."""
    return np.concatenate([audio(), np.zeros(RATE, np.float32)])


def ask(system: str, directories: Sequence[tuple[Path, str]]) -> list[dict[str, Any]]:
    """What a system does with each directory: ``{"text": ...}`` or ``{"error": ...}``."""
    command = [sys.executable, "-m", __name__, system, *(f"{path}:{kind}" for path, kind in directories)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def _graph(directory: Path, part: str) -> Path:
    found = sorted([*directory.glob(f"{part}*.onnx"), *directory.glob(f"am-onnx/{part}*.onnx")])
    return next(iter(found), directory / f"{part}.onnx")


def _tokens(directory: Path) -> str:
    vosk = directory / "lang" / "tokens.txt"
    return str(vosk if vosk.exists() else directory / "tokens.txt")


def _sherpa_onnx(sherpa_onnx: Any, directory: Path, kind: str) -> str:
    files = {part: str(_graph(directory, part)) for part in ("encoder", "decoder", "joiner")}
    if kind == "online":
        recognizer = sherpa_onnx.OnlineRecognizer.from_transducer(
            **files, tokens=str(directory / "tokens.txt"), num_threads=1
        )
    else:
        of_nemo = {} if kind == "k2" else {"model_type": "nemo_transducer"}
        recognizer = sherpa_onnx.OfflineRecognizer.from_transducer(
            **files, tokens=_tokens(directory), num_threads=1, **of_nemo
        )
    stream = recognizer.create_stream()
    stream.accept_waveform(RATE, live_audio())
    if kind != "online":
        recognizer.decode_stream(stream)
        return stream.result.text
    stream.input_finished()
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)
    return " ".join(token.strip() for token in recognizer.get_result_all(stream).tokens)


def _onnx_asr(onnx_asr: Any, directory: Path, kind: str) -> str:
    """By the type in config.json, as for a model of the hub; by name where there is none."""
    file = directory / "config.json"
    typed = file.exists() and "model_type" in json.loads(file.read_text())
    suffix = _graph(directory, "encoder-model").name.removeprefix("encoder-model").removesuffix(".onnx")
    name = "kaldi-rnnt" if kind == "k2" else "organisation/name" if typed else f"nemo-conformer-{kind}"
    model = onnx_asr.load_model(name, directory, quantization=suffix[1:] or None, providers=["CPUExecutionProvider"])
    return model.recognize(audio())


def _genai(genai: Any, directory: Path, kind: str) -> str:
    if kind == "online":
        return _genai_online(genai, directory)
    from tdtdecode.speech.audio.features import FeatureExtractor

    model = genai.Model(str(directory))
    processor = model.create_multimodal_processor()
    features, (length,) = FeatureExtractor(80)([audio()])
    tensors = genai.NamedTensors()
    tensors["audio_features"] = np.ascontiguousarray(features[:, :, :length])
    generator = genai.Generator(model, genai.GeneratorParams(model))
    generator.set_inputs(tensors)
    while not generator.is_done():
        generator.generate_next_token()
    return processor.decode(generator.get_sequence(0))


def _genai_online(genai: Any, directory: Path) -> str:
    """The tokens' numbers: texts of its tokenizer begin anew with each token. Its features go to ``features.npy``."""
    model = genai.Model(str(directory))
    genai.Tokenizer(model)
    processor = genai.StreamingProcessor(model)
    generator = genai.Generator(model, genai.GeneratorParams(model))
    settings = json.loads((directory / "genai_config.json").read_text())["model"]
    chunk = settings["chunk_samples"]
    samples = live_audio()
    samples = np.concatenate([samples, np.zeros(-len(samples) % chunk, np.float32)])
    tokens: list[int] = []
    features = []
    for start in range(0, len(samples), chunk):
        inputs = processor.process(samples[start : start + chunk])
        if inputs is None:
            continue
        features.append(inputs["audio_features"].as_numpy()[0, settings["pre_encode_cache_size"] :])
        generator.set_inputs(inputs)
        while not generator.is_done():
            generator.generate_next_token()
            tokens += map(int, generator.get_next_tokens())
    np.save(directory / "features.npy", np.concatenate(features))
    return " ".join(map(str, tokens))


_ASK: dict[str, Callable[[Any, Path, str], str]] = {
    "sherpa-onnx": _sherpa_onnx, "onnx-asr": _onnx_asr, "onnxruntime-genai": _genai,
}  # fmt: skip


def _forked(function: Callable[[], str]) -> dict[str, Any]:
    """What a function returns in a forked process, or how that ended."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        try:
            answer = {"text": function()}
        except BaseException as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        os.write(write, json.dumps(answer).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(answer) if answer else {"error": f"its process ended with status {status}"}


if __name__ == "__main__":
    system, *given = sys.argv[1:]
    module = importlib.import_module(MODULES[system])
    for path, _, kind in (one.rpartition(":") for one in given):
        print(json.dumps(_forked(lambda: _ASK[system](module, Path(path), kind))), flush=True)
