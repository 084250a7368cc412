"""Makes the recording that is shipped with a demo model.

    python recording.py OUT                           writes OUT/speech.flac and its text, OUT/speech.txt
    python recording.py OUT --streaming FOLDER NEMO   for the streaming model; also NEMO, what NeMo finds in it

It has sentences held out from training, with pauses between them and faint noise. FOLDER is the training folder. NEMO
is a JSON file with the tokens and start frames that NeMo's greedy search finds. NeMo computes the encoder's output in
float32, in steps with its caches.
"""

import argparse
import json
import sys
from pathlib import Path

import grammar
import model as demo
import numpy as np
import soundfile
import speech
import synthesisers
import torch
from evaluate import nemo_encoded_in_steps
from speech import RATE

SENTENCES = {
    False: (
        "set an alarm for seven o'clock on friday",
        "what is the weather like in new york tomorrow",
        "add chocolate to the shopping list",
    ),
    True: (
        "please play some country music",
        "turn the heater off in the office",
        "how warm will it be tomorrow",
    ),
}
"""What the recordings say, without and with --streaming."""


def say(sentence: str, streaming: bool) -> np.ndarray:
    if streaming:
        return synthesisers.flite(sentence, "slt", speed=155)
    return synthesisers.espeak(sentence, "en-us+f3", speed=155)


def recording(streaming: bool) -> np.ndarray:
    """The samples, float32 [N] at 16 kHz."""
    parts = [np.zeros(RATE // 2)]
    for sentence in SENTENCES[streaming]:
        parts += [speech.at_level(say(sentence, streaming), -23), np.zeros(RATE // 2)]
    samples = np.concatenate(parts)
    noise = speech.coloured_noise(len(samples), 1, np.random.default_rng(0))
    return (samples + noise * 10 ** (-70 / 20)).astype(np.float32)


def nemo_tokens(model, file: Path) -> dict[str, list[int]]:
    """The tokens and start frames that NeMo finds in a recording."""
    samples, _ = soundfile.read(file, dtype="float32")
    with torch.inference_mode():
        features, lengths = model.preprocessor(
            input_signal=torch.from_numpy(samples)[None], length=torch.tensor([len(samples)])
        )
        encoded, frames = nemo_encoded_in_steps(model.encoder, features, lengths)
        (found,) = model.decoding.rnnt_decoder_predictions_tensor(encoded, frames, return_hypotheses=True)
    return {"tokens": found.y_sequence.tolist(), "frames": [int(frame) for frame in found.timestamp]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--streaming", type=Path, nargs=2, metavar=("FOLDER", "NEMO"))
    options = parser.parse_args()
    sentences = SENTENCES[bool(options.streaming)]
    if not all(map(grammar.is_held_out, sentences)):
        sys.exit("the sentences must be held out from training")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "speech.flac"
    soundfile.write(file, recording(bool(options.streaming)), RATE, subtype="PCM_16")
    (options.out / "speech.txt").write_text(" ".join(sentences) + "\n")
    if options.streaming:
        folder, nemo = options.streaming
        nemo.write_text(json.dumps(nemo_tokens(demo.restore(folder), file)) + "\n")
