"""All that the page shows of one recording: words, every step of the decode, the sound, and what else was heard."""

from __future__ import annotations

import base64
import math
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..bundle.vocabulary import SPACE
from ..decoder import Decoder
from ..errors import InputError
from ..hypothesis import Hypothesis
from ..reprs import counted
from ..search import Beam, Greedy, runs_in_the_beam_engine
from ..speech.audio import FeatureExtractor
from ..speech.audio.features import HOP, SAMPLE_RATE
from ..speech.recognizer import Recognizer
from ..traces import WAITS, BeamTrace, Trace

MOST_SECONDS = 600.0
"""The longest recording that is explained. The picture of a longer one would be of no use."""
_MOST_TRACE_BYTES = 256 << 20
_DARKEST, _BRIGHTEST = 10.0, 99.5
"""The percentiles of the sound's energies that are drawn darkest and brightest."""


def explained(
    model: Recognizer, samples: np.ndarray, search: Greedy | Beam | None = None, language: str | None = None
) -> Generator[None, None, dict[str, Any]]:
    """Explain a recording step by step: each window of the encoder is a step.

    Parameters
    ----------
    samples:
        float32 [n] at 16 kHz.
    search, language:
        As for `Recognizer.recognize`.

    Returns
    -------
    What the page shows; JSON can hold it. ``steps`` are those of a greedy search, or of the best hypothesis of a beam;
    ``looked`` are all frames that were looked at. Both are null for a beam so wide that its trace would not fit into
    memory. ``tree`` is the n-best list of a `Beam`.

    Raises
    ------
    InputError
        If the recording is longer than `MOST_SECONDS`, or the model is not on the CPU.
    """
    if model.device != "cpu":
        raise InputError("the picture of a decode needs the model on the cpu: choose device='cpu'")
    if len(samples) > MOST_SECONDS * SAMPLE_RATE:
        raise InputError(f"the recording is longer than {MOST_SECONDS:g} s, the most that a picture is made of")
    search = model.decoder.search if search is None else search
    stages = model.stages(search, language=language)
    heard = stages.read(0, (samples, SAMPLE_RATE))
    parts: list[np.ndarray] = []
    for batch in stages.batches(heard.pieces):
        for encoded in stages.encode(batch):
            if callable(encoded.content):
                encoder_out, counts = encoded.content()
                (found,) = model.encoder.utterances(encoder_out)
                parts.append(found[:, : int(counts[0])])
            else:
                parts.append(encoded.content[1])
            yield
    if not parts:
        return _document(model.bundle, samples, 0, heard.transcript([]), None, search)
    frames = np.concatenate(parts, axis=1)
    (hypothesis,) = model.decoder.decode([frames], None, search)
    yield
    trace: Trace | BeamTrace | None = None
    if _trace_bytes(model.decoder, search, frames.shape[1]) <= _MOST_TRACE_BYTES:
        (trace,) = model.decoder.trace([frames], None, search)
    transcript = heard.transcript([hypothesis])
    return _document(model.bundle, samples, frames.shape[1], transcript, trace, search)


def _trace_bytes(decoder: Decoder, search: Greedy | Beam, frames: int) -> int:
    """About what the trace of a beam takes: see `Decoder.trace`."""
    size = search.size if isinstance(search, Beam) else 1
    durations = max(len(decoder.spec.durations), 1)
    return 50 * size * (size + 1) * durations * frames if runs_in_the_beam_engine(search) else 0


def _document(
    bundle: Bundle, samples: np.ndarray, frames: int, transcript: Any, trace: Trace | BeamTrace | None,
    search: Greedy | Beam,
) -> dict[str, Any]:  # fmt: skip
    hypothesis = transcript.hypothesis
    return {
        "text": transcript.text,
        "duration": round(transcript.duration, 3),
        "search": repr(search),
        "frames": frames,
        "frameSeconds": bundle.frame_seconds,
        "words": [
            {"text": word.text, "start": round(word.start, 3), "end": round(word.end, 3),
             "confidence": round(word.confidence, 4) if math.isfinite(word.confidence) else None,
             "space": word.space_before}
            for word in transcript.words
        ],
        "tokens": [] if hypothesis is None else _tokens(bundle, hypothesis),
        "steps": None if trace is None else _steps(bundle, trace),
        "looked": None if trace is None else _looked(trace),
        "tree": _tree(bundle, hypothesis.nbest) if hypothesis is not None and isinstance(search, Beam) else None,
        "sound": _sound(bundle, samples),
    }  # fmt: skip


def _tokens(bundle: Bundle, hypothesis: Hypothesis) -> list[dict[str, Any]]:
    columns = (hypothesis.tokens, hypothesis.frames, hypothesis.durations, hypothesis.token_logprobs)
    return [
        {"id": token, "piece": _piece(bundle, token), "frame": frame, "duration": duration,
         "probability": _probability(logprob)}
        for token, frame, duration, logprob in zip(*(column.tolist() for column in columns), strict=True)
    ]  # fmt: skip


def _steps(bundle: Bundle, trace: Trace | BeamTrace) -> list[dict[str, Any]]:
    """The steps of the best hypothesis; the piece of a blank is null."""
    if isinstance(trace, BeamTrace):
        path = trace.path(int(trace.ends[0])) if len(trace.ends) else np.zeros(0, np.intp)
        path = path[trace.tokens[path] != WAITS]
        tokens, frames, durations = trace.tokens[path], trace.frames[path], trace.durations[path]
        # A candidate's score is that of all before it, too. Tokens have probabilities of their own in the result.
        logprobs = np.full(len(path), np.nan)
        logprobs[tokens != trace.blank] = trace.hypothesis.token_logprobs
    else:
        tokens, frames, durations, logprobs = trace.tokens, trace.frames, trace.durations, trace.token_logprobs
    columns = (tokens, frames, durations, logprobs)
    return [
        {"piece": None if token == trace.blank else _piece(bundle, token), "frame": frame, "duration": duration,
         "probability": _probability(logprob)}
        for token, frame, duration, logprob in zip(*(column.tolist() for column in columns), strict=True)
    ]  # fmt: skip


def _looked(trace: Trace | BeamTrace) -> list[int]:
    """The frames that were looked at, in order."""
    frames = trace.frames if isinstance(trace, Trace) else trace.frames[trace.tokens != WAITS]
    return np.unique(frames).tolist()


def _piece(bundle: Bundle, token: int) -> str:
    return bundle.vocabulary.pieces[token].replace(SPACE, " ")


def _probability(logprob: float) -> float | None:
    return round(math.exp(min(logprob, 0.0)), 4) if math.isfinite(logprob) else None


def _tree(bundle: Bundle, nbest: Sequence[Hypothesis]) -> dict[str, Any]:
    """The n-best list as a tree: each node is text that its hypotheses share, up to where they part.

    A hypothesis that ends in a node stands in its ``ends``, with its rank, its score and its share of the probability
    of all hypotheses in the list.
    """
    scores = np.array([one.score for one in nbest], np.float64)
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    rows = [one.tokens.tolist() for one in nbest]

    def node(members: list[int], begin: int) -> dict[str, Any]:
        end = begin
        while all(len(rows[i]) > end for i in members) and len({rows[i][end] for i in members}) == 1:
            end += 1
        parted: dict[int, list[int]] = {}
        ends = []
        for i in members:
            if len(rows[i]) == end:
                ends.append({"rank": i + 1, "score": round(float(scores[i]), 3), "share": round(float(shares[i]), 4)})
            else:
                parted.setdefault(rows[i][end], []).append(i)
        return {
            "text": "".join(_piece(bundle, token) for token in rows[members[0]][begin:end]),
            "ends": ends,
            "next": [node(others, end) for others in parted.values()],
        }

    return node(list(range(len(rows))), 0)


def _sound(bundle: Bundle, samples: np.ndarray) -> dict[str, Any]:
    """The log-mel energies as bytes, frame by frame, 10 ms each, lowest bin first."""
    mel_bins = bundle.features.mel_bins or 80
    features, lengths = FeatureExtractor(mel_bins, None, bundle.features.family)([samples])
    energies = features[0, :, : int(lengths[0])]
    if not energies.size:
        return {"bins": mel_bins, "frames": 0, "frameSeconds": HOP / SAMPLE_RATE, "data": ""}
    dark, bright = np.percentile(energies, (_DARKEST, _BRIGHTEST))
    scaled = np.clip((energies - dark) / max(float(bright - dark), 1e-6), 0, 1) * 255
    data = base64.b64encode(np.ascontiguousarray(scaled.T.round().astype(np.uint8)).tobytes()).decode()
    return {"bins": mel_bins, "frames": energies.shape[1], "frameSeconds": HOP / SAMPLE_RATE, "data": data}


def summary(document: dict[str, Any]) -> str:
    """What was explained, in one line."""
    looked = document["looked"]
    frames = "" if looked is None else f", {len(looked)} of {document['frames']} frames looked at"
    return f"{counted(len(document['words']), 'word')}, {counted(len(document['tokens']), 'token')}{frames}"
