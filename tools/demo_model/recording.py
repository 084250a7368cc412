"""Makes the recording that is shipped with the demo model.

    python recording.py OUT       writes OUT/speech.flac and its text, OUT/speech.txt

It has sentences held out from training, with pauses between them and faint noise.
"""

import sys
from pathlib import Path

import grammar
import numpy as np
import soundfile
import speech
import synthesisers
from speech import RATE

VOICE = "en-us+f3"
SENTENCES = (
    "set an alarm for seven o'clock on friday",
    "what is the weather like in new york tomorrow",
    "add chocolate to the shopping list",
)


def recording() -> np.ndarray:
    """The samples, float32 [N] at 16 kHz."""
    parts = [np.zeros(RATE // 2)]
    for sentence in SENTENCES:
        parts += [speech.at_level(synthesisers.espeak(sentence, VOICE, speed=155), -23), np.zeros(RATE // 2)]
    samples = np.concatenate(parts)
    noise = speech.coloured_noise(len(samples), 1, np.random.default_rng(0))
    return (samples + noise * 10 ** (-70 / 20)).astype(np.float32)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    if not all(map(grammar.is_held_out, SENTENCES)):
        sys.exit("the sentences must be held out from training")
    soundfile.write(out / "speech.flac", recording(), RATE, subtype="PCM_16")
    (out / "speech.txt").write_text(" ".join(SENTENCES) + "\n")
