"""Scenes: one or several sentences in a row, pauses between them, silence and noise around them."""

from dataclasses import dataclass

import numpy as np
import speech
from speech import RATE, Corpus


@dataclass
class Scene:
    """What a microphone records, and what is said when."""

    samples: np.ndarray  # float32 [N], 16 kHz
    sentences: list[tuple[str, int, int]]  # text, first sample, one past the last sample

    @property
    def text(self) -> str:
        return " ".join(text for text, _, _ in self.sentences)


@dataclass
class Plan:
    """The plan of a scene: sentences by their numbers in a corpus, and silences and the total length in samples.

    There is a silence before, between and after the sentences.
    """

    sentences: list[int]
    silences: list[int]
    length: int


def assemble(corpus: Corpus, plan: Plan, gains_db: list[float] | None = None) -> Scene:
    """Put the sentences of a plan on digital silence, each with its gain in dB if gains are given."""
    samples = np.zeros(plan.length, np.float32)
    spans = []
    position = 0
    for k, (i, silence) in enumerate(zip(plan.sentences, plan.silences)):
        position += silence
        spoken = corpus.samples(i)
        if gains_db is not None:
            spoken *= np.float32(10 ** (gains_db[k] / 20))
        samples[position : position + len(spoken)] = spoken
        spans.append((corpus.entries[i]["text"], position, position + len(spoken)))
        position += len(spoken)
    return Scene(samples, spans)


def make_plan(corpus: Corpus, sentences: list[int], silences_s: list[float]) -> Plan:
    """A plan. `silences_s` are the seconds before, between and after the sentences: one more than there are sentences.
    """
    silences = [int(seconds * RATE) for seconds in silences_s]
    return Plan(sentences, silences, sum(silences) + sum(corpus.entries[i]["length"] for i in sentences))


class NoiseBank:
    """A minute of noise of each colour. Scenes take random pieces of it, which is cheaper than making new noise."""

    def __init__(self, rng: np.random.Generator, seconds: int = 60):
        self._noises = [speech.coloured_noise(seconds * RATE, exponent, rng) for exponent in (0, 0, 0.5, 1, 1.5, 2)]

    def piece(self, count: int, rng: np.random.Generator) -> np.ndarray:
        noise = self._noises[rng.integers(len(self._noises))]
        start = rng.integers(len(noise) - count)
        return noise[start : start + count]


class RandomScenes:
    """Random training scenes: `plan` draws one, `scene` makes its samples.

    `simple` is the chance of a single sentence with tight edges. The other scenes have up to four sentences, up to 2 s
    of silence at each end and pauses of up to 1.5 s, and last `longest` seconds at most.
    """

    def __init__(self, corpus: Corpus, rng: np.random.Generator, longest: float = 15.0):
        self.corpus, self.rng, self.longest = corpus, rng, int(longest * RATE)
        self.noises = NoiseBank(rng)
        self.by_voice: dict[str, list[int]] = {}
        for i, entry in enumerate(corpus.entries):
            self.by_voice.setdefault(entry["voice"], []).append(i)

    def plan(self, simple: float) -> Plan:
        rng, corpus = self.rng, self.corpus
        first = int(rng.integers(len(corpus)))
        if rng.random() < simple:
            return make_plan(corpus, [first], list(rng.uniform(0, 0.15, 2)))
        pool = self.by_voice[corpus.entries[first]["voice"]] if rng.random() < 0.6 else range(len(corpus))
        wanted = int(rng.choice((1, 2, 3, 4), p=(0.45, 0.25, 0.15, 0.15)))
        sentences = [first] + [pool[int(rng.integers(len(pool)))] for _ in range(wanted - 1)]
        edges = rng.uniform(0, 2.0, 2) * (rng.random(2) < 0.8)
        while True:
            pauses = rng.uniform(0, 1.5, len(sentences) - 1)
            plan = make_plan(corpus, sentences, [edges[0], *pauses, edges[1]])
            if plan.length <= self.longest or len(sentences) == 1:
                return plan
            sentences.pop()

    def scene(self, plan: Plan) -> Scene:
        rng = self.rng
        scene = assemble(self.corpus, plan, list(rng.uniform(-3, 3, len(plan.sentences))))
        samples = scene.samples
        kind = rng.random()
        if kind < 0.7:  # the other scenes stay without noise, so their silence is digital zeros
            noise = self.noises.piece(len(samples), rng)
            level_db = -23 - (rng.uniform(5, 30) if kind < 0.4 else rng.uniform(25, 55))
            noise = noise * np.float32(10 ** (level_db / 20))
            if kind > 0.6:  # noise in the silences only
                for _, start, end in scene.sentences:
                    noise[start:end] = 0
            samples += noise
        samples *= np.float32(10 ** (rng.uniform(-15, 9) / 20))
        np.clip(samples, -1, 1, out=samples)
        return scene
