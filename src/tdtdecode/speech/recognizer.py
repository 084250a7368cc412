"""From recordings to transcripts: reading, features, encoder, decoder, words."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import partial
from itertools import islice
from numbers import Number
from typing import Any, Literal, overload

import numpy as np

from ..arguments import as_choice, as_function, as_instance, as_integer, as_number, refusal
from ..bundle import Bundle
from ..confidence import Confidence
from ..decoder import Decoder
from ..errors import BundleError, InputError
from ..hypothesis import Hypothesis, Transcript
from ..reprs import one_line
from ..search import Beam, Greedy, as_search, check_utterances, for_utterances, utterances_of
from .audio import Audio, FeatureExtractor, as_samples, audio_seconds, check_audio, held, is_file
from .audio.features import HOP, SAMPLE_RATE
from .encoder import Encoder
from .progress import Meter, Progress
from .streaming.cache_aware import CacheAwareEncoder
from .streaming.latency import Latency, stated_windows, windows_for
from .streaming.stream import Stream, Streams
from .streaming.walks import CacheAwareWalk, Walk, WindowedWalk
from .transcripts import nothing, transcript
from .vad import SileroVad
from .vad.skipping import SpeechPieces
from .windows import Windows, decode_in_windows

_PAUSE = 0.8
_LONGEST_PAUSE = 1e6
_MOST_AHEAD = 256
_BATCH_SECONDS = 480.0
"""The most audio in a batch, padding included. An encoder's attention needs memory by the square of the length."""
_PIECES_AT_ONCE = 16
"""The most segments of speech in a batch."""


_log = logging.getLogger(__name__)


class Recognizer:
    """Transcribes recordings. `load_model` makes one.

    Recognizers are pickled as the model directory and the options: whoever unpickles one loads the model again.

    Parameters
    ----------
    bundle:
        The model: its features, vocabulary and frame length.
    encoder:
        Runs the model's encoder.
    decoder:
        Decodes what the encoder returns.

    Raises
    ------
    BundleError
        If the model needs features that this package does not compute.
    """

    def __init__(self, bundle: Bundle, encoder: Encoder, decoder: Decoder):
        as_instance("bundle", bundle, Bundle, "what tdtdecode.bundle.read_bundle returned", "load_model does it all")
        if not callable(encoder) or isinstance(encoder, type):
            raise refusal("encoder", "a tdtdecode.speech.encoder.Encoder", encoder)
        as_instance("decoder", decoder, Decoder, "a Decoder")
        features = bundle.features
        file = bundle.encoder or bundle.directory
        if features.sample_rate != SAMPLE_RATE:
            raise BundleError(f"expected {SAMPLE_RATE} Hz, got {features.sample_rate}", file=file, field="sample_rate")
        if features.mel_bins is None:
            raise BundleError(
                "neither the encoder nor the directory's configuration states the number of mel bins", file=file,
                field="feat_dim",
            )  # fmt: skip
        self.bundle = bundle
        self.device = decoder.network.device
        self.encoder = encoder
        self.decoder = decoder
        self._extract = FeatureExtractor(features.mel_bins, features.normalize, features.family)
        limits = [features.fixed_input_frames]
        if features.max_frames is not None:
            limits.append(features.max_frames * features.subsampling_factor)
        self._max_input_frames = min((limit for limit in limits if limit is not None), default=None)
        self._windows = Windows.of(features)

    def __repr__(self) -> str:
        limit = "" if self.max_seconds is None else f"in windows beyond {self.max_seconds:g} s"
        choices = self.decoder.choices
        model = [] if choices[0].startswith(str(self.bundle.directory)) else [str(self.bundle.directory)]
        return one_line(self, *model, *choices, repr(self.decoder.search), limit)

    def __reduce__(self) -> tuple[Any, ...]:
        decoder = self.decoder.bundle_options or self.decoder
        return _reopened, (type(self), self.bundle, type(self.encoder), self.encoder.bundle_options, decoder)

    @property
    def max_seconds(self) -> float | None:
        """Seconds of the longest recording that goes through the encoder whole; None if there is no limit.

        Longer recordings go through it in windows.
        """
        return None if self._max_input_frames is None else self._max_input_frames * HOP / SAMPLE_RATE

    @property
    def window_seconds(self) -> float:
        """Seconds of a window, with its context on either side, for recordings longer than `max_seconds`."""
        return (self._windows.left + self._windows.chunk + self._windows.right) * self.bundle.frame_seconds

    # The lists are typed as sequences: lists are invariant, and a list of paths would be no list[Audio].
    @overload
    def recognize(  # type: ignore[overload-overlap]
        self,
        audio: Audio,
        search: Greedy | Beam | None = ...,
        *,
        batch_size: int = ...,
        on_error: Literal["raise"] = ...,
        progress: Callable[[Progress], object] | None = ...,
        vad: SileroVad | None = ...,
    ) -> Transcript: ...

    @overload
    def recognize(
        self,
        audio: Sequence[Audio],
        search: Greedy | Beam | None = ...,
        *,
        batch_size: int = ...,
        on_error: Literal["raise"] = ...,
        progress: Callable[[Progress], object] | None = ...,
        vad: SileroVad | None = ...,
    ) -> list[Transcript]: ...

    @overload
    def recognize(
        self,
        audio: Sequence[Audio],
        search: Greedy | Beam | None = ...,
        *,
        batch_size: int = ...,
        on_error: Literal["return"],
        progress: Callable[[Progress], object] | None = ...,
        vad: SileroVad | None = ...,
    ) -> list[Transcript | Exception]: ...

    def recognize(
        self,
        audio: Audio | Sequence[Any],
        search: Greedy | Beam | None = None,
        *,
        batch_size: int = 16,
        on_error: str = "raise",
        progress: Callable[[Progress], object] | None = None,
        vad: SileroVad | None = None,
    ) -> Any:
        """Transcribe one recording or many, of any length.

        A recording longer than `max_seconds` goes through the encoder in overlapping windows. The centres of the
        windows are decoded as one stream. The features are normalised over the whole recording.

        Parameters
        ----------
        audio:
            A path, the bytes of a recording, a binary file object, or (samples, rate in Hz), as
            `tdtdecode.speech.audio.as_samples` takes them; or a list of these. What is doubtful about a recording is
            said by an `AudioWarning`.
        search:
            Replaces the search that the model was loaded with.
        batch_size:
            The most recordings in a batch. Recordings of similar length share a batch, and batches of long recordings
            are smaller. A dynamically quantised encoder always gets one recording at a time.
        on_error:
            ``"raise"``: the first error ends the call. ``"return"``: the other recordings are transcribed all the same,
            and the exception stands in the failed recording's place.
        progress:
            Called with a `Progress` whenever more is done: after each batch, and within long recordings after each
            window. What it raises ends the call.
        vad:
            Skips silence: only the segments of speech that it finds are recognised, each by itself. Their words stand
            at their times in the recording. Where nobody speaks the transcript is empty. None: all is recognised.

        Returns
        -------
        A `Transcript`, or a list of them in the order of the recordings.

        Raises
        ------
        InputError
            If a recording cannot be read, or an option is wrong.
        MissingDependencyError
            If reading or resampling needs a package that is not installed.
        """
        search = self.decoder.search if search is None else as_search(search)
        batch_size = as_integer("batch_size", batch_size, low=1)
        as_choice("on_error", on_error, ("raise", "return"))
        if progress is not None:
            as_function("progress", progress, "a function of a Progress, or None")
        _check_vad(vad)
        many = isinstance(audio, list)
        recordings: list[Any] = list(audio) if isinstance(audio, list) else [audio]
        for_utterances(search, range(len(recordings)), len(recordings))  # raises before any work if it does not fit
        results: list[Transcript | Exception | None] = [None] * len(recordings)
        catch: tuple[type[Exception], ...] = (Exception,) if on_error == "return" else ()
        meter = Meter(len(recordings), progress)

        seconds = {}
        for i, recording in enumerate(recordings):
            try:
                check_audio(f"audio[{i}]" if many else "audio", recording)
                recordings[i] = held(recording)  # a pipe is read once: here for its length, below for its samples
                seconds[i] = audio_seconds(recordings[i])
                meter.expect(i, seconds[i])
            except catch as error:
                results[i] = error
        meter.finish([i for i, result in enumerate(results) if result is not None], tell=not seconds)
        batches = list(self._batches(seconds, batch_size))
        self._log_batches(seconds, batches, batch_size)
        for batch in batches:
            samples = {}
            for i in batch:
                try:
                    samples[i] = as_samples(recordings[i], SAMPLE_RATE)
                    meter.expect(i, len(samples[i]) / SAMPLE_RATE)
                except catch as error:
                    results[i] = error
            # Headers may have stated other lengths: the batch is made again of what there is.
            for part in self._batches({i: len(found) / SAMPLE_RATE for i, found in samples.items()}, batch_size):
                made = self._transcribed(part, samples, search, len(recordings), meter, catch, vad)
                for i, result in zip(part, made, strict=True):
                    results[i] = result
            meter.finish(batch)
        return results if many else results[0]

    @overload
    def recognize_each(
        self,
        recordings: Iterable[Audio],
        search: Greedy | Beam | None = ...,
        *,
        batch_size: int = ...,
        on_error: Literal["raise"] = ...,
        progress: Callable[[Progress], object] | None = ...,
        vad: SileroVad | None = ...,
    ) -> Iterator[Transcript]: ...

    @overload
    def recognize_each(
        self,
        recordings: Iterable[Audio],
        search: Greedy | Beam | None = ...,
        *,
        batch_size: int = ...,
        on_error: Literal["return"],
        progress: Callable[[Progress], object] | None = ...,
        vad: SileroVad | None = ...,
    ) -> Iterator[Transcript | Exception]: ...

    def recognize_each(
        self,
        recordings: Iterable[Any],
        search: Greedy | Beam | None = None,
        *,
        batch_size: int = 16,
        on_error: str = "raise",
        progress: Callable[[Progress], object] | None = None,
        vad: SileroVad | None = None,
    ) -> Iterator[Any]:
        """Transcribe recordings one after the other, however many there are.

        Parameters
        ----------
        recordings:
            Any iterable of recordings as `recognize` takes them: a list, or a generator, which may never end. It is
            asked for recordings ahead of those that are returned.
        search:
            Replaces the search that the model was loaded with. Phrases that were given for each recording
            (`PhraseBoost.per_row`) belong to the recordings in their order. If there turn out to be more recordings
            than lists, or fewer, that is an error: at once if the length of `recordings` is known, else when it shows.
        batch_size, on_error, progress, vad:
            As for `recognize`. ``"raise"`` raises the error of a recording in its place, after the transcripts of those
            before it. What `recordings` itself raises passes through. Totals of a `Progress` count the recordings that
            are known so far.

        Yields
        ------
        A `Transcript` for each recording, in their order.

        Raises
        ------
        InputError, MissingDependencyError
            As `recognize`. Options are checked before this returns, recordings as they come.
        """
        search = self.decoder.search if search is None else as_search(search)
        batch_size = as_integer("batch_size", batch_size, low=1)
        as_choice("on_error", on_error, ("raise", "return"))
        if progress is not None:
            as_function("progress", progress, "a function of a Progress, or None")
        _check_vad(vad)
        source = _several("recordings", recordings)
        given = utterances_of(search)
        if given is not None and isinstance(recordings, Sized):
            check_utterances(given, len(recordings))
        return self._each(source, search, given, batch_size, on_error, progress, vad)

    def _each(
        self,
        source: Iterator[Any],
        search: Greedy | Beam,
        given: int | None,
        batch_size: int,
        on_error: str,
        progress: Callable[[Progress], object] | None,
        vad: SileroVad | None,
    ) -> Iterator[Any]:
        begin = 0
        while part := list(islice(source, min(4 * batch_size, _MOST_AHEAD))):
            end = begin + len(part)
            if given is not None and end > given:
                check_utterances(given, end)
            chosen = search if given is None else for_utterances(search, range(begin, end), given)
            found = self.recognize(part, chosen, batch_size=batch_size, on_error="return", progress=progress, vad=vad)
            for i, (recording, result) in enumerate(zip(part, found), begin):
                if isinstance(result, InputError):
                    result = _checked(f"recordings[{i}]", recording) or result
                if on_error == "raise" and isinstance(result, Exception):
                    raise result
                yield result
            begin = end
        if given is not None:
            check_utterances(given, begin)

    def _transcribed(
        self,
        part: list[int],
        samples: dict[int, np.ndarray],
        search: Greedy | Beam,
        recordings: int,
        meter: Meter,
        catch: tuple[type[Exception], ...],
        vad: SileroVad | None,
    ) -> Sequence[Transcript | Exception]:
        """Transcribe some of the recordings together; where that fails with an error to catch, one by one."""

        def together(places: list[int]) -> list[Transcript]:
            chosen = for_utterances(search, places, recordings)
            reached = [partial(meter.reach, i) for i in places]
            return self._transcribe([samples[i] for i in places], chosen, reached, vad)

        def alone(place: int) -> Transcript | Exception:
            try:
                return together([place])[0]
            except Exception as error:
                if meter.failure is not None:
                    raise
                return error

        try:
            return together(part)
        except catch as error:
            if meter.failure is not None:
                raise
            # Most likely one of them was the cause.
            return [alone(i) for i in part] if len(part) > 1 else [error]

    def _log_batches(self, seconds: dict[int, float], batches: list[list[int]], batch_size: int) -> None:
        if not seconds:
            return
        why = "" if self.encoder.takes_batches else ", since this encoder takes one recording at a time"
        long = sum(self.max_seconds is not None and length > self.max_seconds for length in seconds.values())
        _log.info(
            "batches: %d recordings (%.1f s) in %d batches of at most %d%s%s", len(seconds), sum(seconds.values()),
            len(batches), batch_size if self.encoder.takes_batches else 1, why,
            f"; {long} of them in windows of {self.window_seconds:g} s" if long else "",
        )  # fmt: skip

    def streams(
        self,
        search: Greedy | Beam | None = None,
        latency: Latency | None = None,
        pause: float | None = None,
        vad: SileroVad | None = None,
    ) -> Streams:
        """Many live recordings, which share the calls of the encoder and of the decoder.

        Parameters
        ----------
        search:
            Replaces the search that the model was loaded with.
        latency:
            The windows in which a model of whole recordings hears a live one; None: those that its file states, or the
            default of `Latency`, with the longest context that the encoder takes. Features are normalised by what was
            heard so far. The windows of a cache-aware encoder lie in its file.
        pause:
            An utterance ends after so many seconds without a token, or where the model says so. None: 0.8 seconds, or
            with ``vad`` however long they are.
        vad:
            Each segment of speech that it finds is an utterance, which is decoded by itself. Silence is not decoded.

        Raises
        ------
        InputError
            If an option is wrong, or the windows do not fit the model.
        """
        search = self.decoder.search if search is None else as_search(search)
        if pause is not None:
            pause = as_number("pause", pause, "a number of seconds above 0", above=0, high=_LONGEST_PAUSE)
        elif vad is None:
            pause = _PAUSE
        _check_vad(vad)
        factor = self.bundle.features.subsampling_factor
        walk: Walk
        if isinstance(self.encoder, CacheAwareEncoder):
            if latency is not None:
                raise InputError("latency: the windows of a cache-aware encoder lie in its file")
            walk = CacheAwareWalk(self.encoder, factor)
        else:
            if latency is not None:
                as_instance("latency", latency, Latency, "Latency(...) or None")
            limit = None if self._max_input_frames is None else self._max_input_frames // factor
            stated = stated_windows(self.encoder.metadata, self.bundle.encoder or self.bundle.directory)
            windows = windows_for(latency, self.bundle.frame_seconds, limit, stated)
            walk = WindowedWalk(self.encoder, windows, factor)
        return Streams(self.bundle, walk, self.decoder, self._extract, search, pause, vad)

    def stream(
        self,
        language: str | None = None,
        search: Greedy | Beam | None = None,
        latency: Latency | None = None,
        pause: float | None = None,
        vad: SileroVad | None = None,
    ) -> Stream:
        """One live recording.

        Parameters
        ----------
        language:
            For models that are told one, such as ``"en-US"``.
        search, latency, pause, vad:
            As for `streams`.

        Raises
        ------
        InputError
            If an option is wrong, or the model does not have the language.
        """
        return Stream(self.streams(search, latency, pause, vad), language)

    def _batches(self, seconds: dict[int, float], batch_size: int) -> Iterator[list[int]]:
        """Group recordings of similar length. The longest come first, so that a lack of memory shows at once."""
        waiting = sorted(seconds, key=lambda i: -seconds[i])
        while waiting:
            fitting = int(_BATCH_SECONDS / max(seconds[waiting[0]], 1e-3))
            whole = self.max_seconds is None or seconds[waiting[0]] <= self.max_seconds
            count = max(1, min(batch_size, fitting)) if self.encoder.takes_batches and whole else 1
            yield waiting[:count]
            waiting = waiting[count:]

    def _transcribe(
        self,
        recordings: list[np.ndarray],
        search: Greedy | Beam,
        reached: Sequence[Callable[[float], None]],
        vad: SileroVad | None,
    ) -> list[Transcript]:
        """Transcribe one batch of recordings, float32 [n] each; ``reached`` is told the seconds done of each."""
        if vad is None:
            confidence = search.confidence or Confidence()
            return [
                transcript(self.bundle, hypothesis, len(samples) / SAMPLE_RATE, confidence)
                for hypothesis, samples in zip(self._hypotheses(recordings, search, reached), recordings, strict=True)
            ]
        frame = round(self.bundle.frame_seconds * SAMPLE_RATE)
        pieces = SpeechPieces(vad, recordings, frame, reached)
        found: dict[int, Hypothesis] = {}
        for part in self._batches(dict(enumerate(pieces.seconds)), _PIECES_AT_ONCE):
            chosen = for_utterances(search, [pieces.owners[i] for i in part], len(recordings))
            told = [partial(pieces.reach, i) for i in part]
            found.update(zip(part, self._hypotheses([pieces.samples[i] for i in part], chosen, told), strict=True))
            for i in part:
                pieces.reach(i, pieces.seconds[i])
        return pieces.transcripts([found[i] for i in range(len(found))], self.bundle, search)

    def _hypotheses(
        self, recordings: list[np.ndarray], search: Greedy | Beam, reached: Sequence[Callable[[float], None]]
    ) -> list[Hypothesis]:
        """Decode one batch of recordings, float32 [n] each; ``reached`` is told the seconds done of each."""
        hypotheses = [nothing() for _ in recordings]
        spoken = [i for i, samples in enumerate(recordings) if self._extract.frames(len(samples))]
        if spoken:
            features, lengths = self._extract([recordings[i] for i in spoken])
            spoken_search = for_utterances(search, spoken, len(recordings))
            found = self._decoded(features, lengths, spoken_search, [reached[i] for i in spoken])
            for i, hypothesis in zip(spoken, found, strict=True):
                hypotheses[i] = hypothesis
        return hypotheses

    def _decoded(
        self,
        features: np.ndarray,
        lengths: np.ndarray,
        search: Greedy | Beam,
        reached: Sequence[Callable[[float], None]],
    ) -> list[Hypothesis]:
        """Decode a batch of features, float32 [B, mel, T]; recordings too long for the encoder one by one."""
        limit = features.shape[2] if self._max_input_frames is None else self._max_input_frames
        hypotheses: dict[int, Hypothesis] = {}
        whole = np.flatnonzero(lengths <= limit)
        if len(whole):
            # NeMo's features end with a frame of padding. At the limit that is one frame too many for the encoder.
            encoder_out, counts = self.encoder(features[whole, :, :limit], lengths[whole])
            found = self.decoder.decode(encoder_out, counts, for_utterances(search, whole.tolist(), len(lengths)))
            hypotheses.update(zip(whole.tolist(), found, strict=True))
        at_once = max(1, int(_BATCH_SECONDS / self.window_seconds)) if self.encoder.takes_batches else 1
        for i in np.flatnonzero(lengths > limit).tolist():
            hypotheses[i] = decode_in_windows(
                features[i, :, : lengths[i]], self.encoder, self.decoder, for_utterances(search, [i], len(lengths)),
                self._windows, self.bundle.features.subsampling_factor, at_once, reached[i],
            )  # fmt: skip
        return [hypotheses[i] for i in range(len(lengths))]


def _check_vad(vad: object) -> None:
    if vad is not None:
        as_instance("vad", vad, SileroVad, "tdtdecode.speech.vad.SileroVad(...) or None")


def _reopened(
    cls: type[Recognizer], bundle: Bundle, encoder_class: type[Encoder], encoder: dict[str, Any],
    decoder: dict[str, Any] | Decoder,
) -> Recognizer:
    """A recognizer from what was pickled of one: the bundle is read once for all its parts."""
    if not isinstance(decoder, Decoder):
        decoder = Decoder.from_bundle(bundle, **decoder)
    return cls(bundle, encoder_class(bundle, **encoder), decoder)


def _checked(name: str, recording: object) -> InputError | None:
    """The error of something that is no recording, by the name that it has."""
    try:
        check_audio(name, recording)
    except InputError as error:
        return error
    return None


def _several(name: str, recordings: object) -> Iterator[Any]:
    """An iterator over recordings. One recording alone is refused, as it may be iterable too."""
    one = isinstance(recordings, tuple) and len(recordings) == 2 and isinstance(recordings[1], Number)
    if not (one or is_file(recordings) or isinstance(recordings, (Mapping, np.ndarray))):
        try:
            return iter(recordings)  # type: ignore[call-overload]
        except TypeError:
            pass
    raise refusal(name, "several recordings: a list or other iterable", recordings, "give a single one as [recording]")
