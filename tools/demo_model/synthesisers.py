"""The synthesisers that say the sentences: Debian's espeak-ng, flite and festival, and the voices of each.

Each has voices for training, and voices kept out of training ("unseen"), if it has enough of them. `espeak`, `flite`
and `festival` take the same arguments and return float32 samples.
"""

import functools
import io
import random
import re
import shutil
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np
import soxr

RATE = 16_000
ACCENTS = (
    "en-us en-us-nyc en-gb en-gb-x-rp en-gb-scotland en-gb-x-gbclan en-gb-x-gbcwmd en-029"
).split()
UNSEEN_VOICES = {
    "espeak-ng": "f4 m6 Alicia belinda Gene Gene2 Hugo linda norbert steph steph2 steph3 victor klatt5".split(),
    "flite": ["rms"],
}
KNOWN_VOICES = {
    "espeak-ng": (
        "m1 m2 m3 m4 m5 m7 m8 f1 f2 f3 f5 adam Alex Andrea Andy Annie antonio aunty benjamin boris caleb david Denis "
        "Diogo ed edward edward2 grandma grandpa gustave Henrique iven iven2 iven3 iven4 Jacky john kaukovalta klatt "
        "klatt2 klatt3 klatt4 klatt6 Lee marcelo Marco Mario max Michael michel miguel Mike Nguyen pablo paul pedro "
        "quincy RicishayMax RicishayMax2 RicishayMax3 rob robert sandro shelby Storm travis zac anika"
    ).split(),
    "flite": ["kal", "kal16", "awb", "slt"],
    "festival": ["kal_diphone", "ked_diphone", "cmu_us_slt_arctic_hts"],
}
"""The voices of each synthesiser that are in the training, and those kept for tests. flite's kal and kal16 and
festival's kal_diphone come from one speaker, and so do flite's slt and festival's cmu_us_slt_arctic_hts. No other voice
comes from the speaker of rms."""
FLITE_PITCHES = {"kal": 95, "kal16": 95, "awb": 130, "rms": 100, "slt": 170}
FESTIVAL_PITCHES = {"kal_diphone": 105, "ked_diphone": 105}
"""Mean fundamental frequencies in Hz, as the voices have them."""
INVENTED_VOICES = [f"invented{k}" for k in range(200)]


def invent_voice(rng: random.Random) -> str:
    """An espeak-ng variant file with random settings, about within the range of espeak-ng's own variants."""

    def some(count: int, low: float, high: float) -> str:
        return " ".join(str(round(rng.uniform(low, high))) for _ in range(count))

    lines = ["language variant", f"name invented{rng.randrange(10**6)}"]
    size = rng.uniform(88, 130)
    for formant in range(9):
        place = 100 if formant == 0 else size * rng.uniform(0.92, 1.09)
        lines.append(f"formant {formant} {place:.0f} {some(1, 60, 140)} {some(1, 90, 165)}")
    base = rng.uniform(70, 220)
    lines.append(f"pitch {base:.0f} {base * rng.uniform(1.05, 1.6):.0f}")
    optional = {
        "voicing": (0.5, some(1, 40, 200)),
        "consonants": (0.6, some(2, 20, 140)),
        "flutter": (0.5, some(1, 0, 8)),
        "roughness": (0.4, some(1, 0, 3)),
        "breath": (0.3, "0 " + some(7, 0, 10)),
        "echo": (0.25, f"{some(1, 10, 150)} {some(1, 5, 50)}"),
        "intonation": (0.5, some(1, 1, 4)),
        "stressAmp": (0.4, some(8, 12, 26)),
        "stressAdd": (0.3, some(8, -30, 60)),
        "tone": (0.3, f"{some(1, 100, 600)} 255 1000 {some(1, 60, 255)} {some(1, 2000, 5000)} {some(1, 30, 255)}"),
    }
    lines += [f"{setting} {values}" for setting, (chance, values) in optional.items() if rng.random() < chance]
    return "\n".join(lines) + "\n"


def data_with_invented_voices(folder: Path) -> Path:
    """Copies espeak-ng's data into `folder`, adds the INVENTED_VOICES, and returns it for ``espeak-ng --path``."""
    about = subprocess.run(["espeak-ng", "--version"], check=True, capture_output=True, text=True).stdout
    copy = folder / "espeak-ng-data"

    def others(directory: str, names: list[str]) -> list[str]:
        """Files of other languages. espeak-ng reads at most 350 voices, and speaks the rest with a default voice."""
        if Path(directory).name == "lang":
            return [name for name in names if name != "gmw"]
        return [name for name in names if name == "mb" or name.endswith("_dict") and name != "en_dict"]

    shutil.copytree(re.search(r"Data at: (.*)", about)[1].strip(), copy, ignore=others, dirs_exist_ok=True)
    for name in INVENTED_VOICES:
        (copy / "voices" / "!v" / name).write_text(invent_voice(random.Random(name)))
    return folder


def espeak(
    text: str, voice: str, *, speed: int = 160, pitch: int = 50, gap: int = 0, warp: float = 1.0,
    data: Path | None = None,
) -> np.ndarray:
    """Speech as float32 [N] at 16 kHz, without the silence around it.

    speed: in words per minute. pitch: 0 to 99. gap: pause between words, in units of 10 ms. warp: playback rate; above
    1 it raises formants, pitch and speed together, and the formants move as with a shorter vocal tract. data: see
    data_with_invented_voices.
    """
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "-g", str(gap), "--stdout"]
    command += [f"--path={data}", text] if data else [text]
    done = subprocess.run(command, check=True, capture_output=True)
    if done.stderr:
        raise RuntimeError(f"espeak-ng, voice {voice}: {done.stderr.decode().strip()}")
    return _decoded(done.stdout, warp)


def trim(samples: np.ndarray, floor_db: float = -50.0, hop: int = 80) -> np.ndarray:
    """Cuts both ends where they are quieter than `floor_db` relative to the loudest 5 ms, leaving 10 ms."""
    power = np.square(samples[: len(samples) // hop * hop].reshape(-1, hop)).mean(1)
    loud = np.flatnonzero(power > power.max() * 10 ** (floor_db / 10))
    return samples[max(loud[0] - 2, 0) * hop : (loud[-1] + 3) * hop]


def _decoded(raw: bytes, warp: float) -> np.ndarray:
    """The samples of a mono WAV of 16 bits whose header may state no length, as float32 [N] at RATE."""
    with wave.open(io.BytesIO(raw)) as stream:
        rate = stream.getframerate()
    samples = np.frombuffer(raw[44:], np.int16).astype(np.float32) / 32768
    return trim(soxr.resample(samples, rate * warp, RATE))


def _stretch(speed: int) -> float:
    """How much longer than usual a voice speaks. flite's and festival's usual speed is about 160 words a minute."""
    return 160 / speed


def _higher(pitch: int) -> float:
    """The pitch of espeak-ng's scale, 0 to 99, as a factor."""
    return 2 ** ((pitch - 50) / 80)


def flite(text: str, voice: str, *, speed: int = 160, pitch: int = 50, warp: float = 1.0) -> np.ndarray:
    """Speech by flite, with the parameters and the result of `espeak`."""
    settings = {"duration_stretch": _stretch(speed), "int_f0_target_mean": FLITE_PITCHES[voice] * _higher(pitch)}
    command = ["flite", "-voice", voice, "-t", text, "-o", "/dev/stdout"]
    for name, value in settings.items():
        command += ["--setf", f"{name}={value:.3f}"]
    return _decoded(subprocess.run(command, check=True, capture_output=True).stdout, warp)


_FESTIVAL = """
(define (say voice text file stretch mean)
  (eval (list (intern (string-append "voice_" voice))))
  (Parameter.set 'Duration_Stretch stretch)
  (if (> mean 0)
    (set! int_lr_params (list (list 'target_f0_mean mean) '(target_f0_std 14) '(model_f0_mean 170) '(model_f0_std 34))))
  (utt.save.wave (utt.synth (eval (list 'Utterance 'Text text))) file 'riff)
  (format t "said\n"))
(define (answer)
  (format t "answered\n")
  (fflush nil))
"""


@functools.cache
def _festival() -> tuple[subprocess.Popen, str]:
    """A festival that stays, for it takes longer to start than to speak; and the file it writes to."""
    process = subprocess.Popen(["festival", "--pipe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write(_FESTIVAL)
    return process, tempfile.NamedTemporaryFile(suffix=".wav", delete=False).name


def festival(text: str, voice: str, *, speed: int = 160, pitch: int = 50, warp: float = 1.0) -> np.ndarray:
    """Speech by festival, with the parameters and the result of `espeak`. The HTS voice keeps its pitch."""
    process, file = _festival()
    mean = FESTIVAL_PITCHES.get(voice, 0) * _higher(pitch)
    process.stdin.write(f'(say "{voice}" "{text}" "{file}" {_stretch(speed):.3f} {mean:.1f})\n(answer)\n')
    process.stdin.flush()
    said = False
    for line in process.stdout:  # after an error festival goes on with the next expression
        said = said or line.strip() == "said"
        if line.strip() == "answered":
            break
    if not said:
        raise RuntimeError(f"festival, voice {voice}, cannot say: {text}")
    return _decoded(Path(file).read_bytes(), warp)
