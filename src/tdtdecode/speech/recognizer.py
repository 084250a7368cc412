"""From recordings to transcripts: reading, features, encoder, decoder, words."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import closing
from functools import partial
from numbers import Number
from typing import Any, Literal, overload

import numpy as np

from ..arguments import as_choice, as_function, as_instance, as_integer, as_number, refusal
from ..bundle import Bundle
from ..decoder import Decoder
from ..errors import BundleError, InputError
from ..hypothesis import Transcript
from ..reprs import one_line
from ..search import Beam, Greedy, as_search, check_utterances, utterances_of
from .audio import Audio, FeatureExtractor, check_audio, held, is_file
from .audio.device_features import DeviceFeatureExtractor
from .audio.extractors import Extractor, extractor
from .audio.features import HOP, SAMPLE_RATE
from .encoder import Encoder
from .pipeline import Reached, Read, run
from .progress import Meter, Progress
from .stages import Encode, ModelStages
from .streaming.cache_aware import CacheAwareEncoder
from .streaming.latency import Latency, stated_windows, windows_for
from .streaming.stream import Stream, Streams
from .streaming.walks import CacheAwareWalk, Walk, WindowedWalk
from .vad import SileroVad
from .windows import Windows

_PAUSE = 0.8
_LONGEST_PAUSE = 1e6


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
        self._extract = extractor(features.mel_bins, features.normalize, features.family)
        self._extract_for_encoder = _where_taken(self._extract, encoder)
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
        batch_size: int | None = ...,
        on_error: Literal["raise"] = ...,
        progress: Callable[[Progress], object] | None = ...,
        language: str | None = ...,
        vad: SileroVad | None = ...,
    ) -> Transcript: ...

    @overload
    def recognize(
        self,
        audio: Sequence[Audio],
        search: Greedy | Beam | None = ...,
        *,
        batch_size: int | None = ...,
        on_error: Literal["raise"] = ...,
        progress: Callable[[Progress], object] | None = ...,
        language: str | None = ...,
        vad: SileroVad | None = ...,
    ) -> list[Transcript]: ...

    @overload
    def recognize(
        self,
        audio: Sequence[Audio],
        search: Greedy | Beam | None = ...,
        *,
        batch_size: int | None = ...,
        on_error: Literal["return"],
        progress: Callable[[Progress], object] | None = ...,
        language: str | None = ...,
        vad: SileroVad | None = ...,
    ) -> list[Transcript | Exception]: ...

    def recognize(
        self,
        audio: Audio | Sequence[Any],
        search: Greedy | Beam | None = None,
        *,
        batch_size: int | None = None,
        on_error: str = "raise",
        progress: Callable[[Progress], object] | None = None,
        language: str | None = None,
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
            The most recordings in a batch; None: 16 on a CPU, 256 on a GPU. Recordings of similar length share a batch
            where that saves time, on a CPU up to 20 s of audio, on a GPU 30 s for each GiB of its memory
            (`tdtdecode.speech.batching`). A dynamically quantised encoder always gets one recording at a time.
        on_error:
            ``"raise"``: the first error ends the call. ``"return"``: the other recordings are transcribed all the same,
            and the exception stands in the failed recording's place.
        progress:
            Called with a `Progress` whenever more is done: after each recording, and within long ones after each
            window. What it raises ends the call.
        language:
            For models that are told one, such as ``"en-US"``; None: the model's default.
        vad:
            Skips silence: only the segments of speech that it finds are recognised, each by itself. Their words stand
            at their times in the recording. Where nobody speaks the transcript is empty. None: all is recognised.

        Returns
        -------
        A `Transcript`, or a list of them in the order of the recordings.

        Raises
        ------
        InputError
            If a recording cannot be read, an option is wrong, or the model does not have the language.
        MissingDependencyError
            If reading or resampling needs a package that is not installed.
        """
        _check_handling(on_error, progress)
        stages = self.stages(search, batch_size=batch_size, language=language, vad=vad)
        many = isinstance(audio, list)
        recordings: list[Any] = list(audio) if isinstance(audio, list) else [audio]
        if stages.utterances is not None:
            check_utterances(stages.utterances, len(recordings))
        meter = Meter(len(recordings), progress)
        names = "audio[{}]" if many else "audio"
        results: list[Transcript | Exception | None] = [None] * len(recordings)
        with closing(self._finished(recordings, names, stages, meter)) as finished:
            for place, result in finished:
                if on_error == "raise" and isinstance(result, Exception):
                    raise result
                results[place] = result
        return results if many else results[0]

    @overload
    def recognize_each(
        self,
        recordings: Iterable[Audio],
        search: Greedy | Beam | None = ...,
        *,
        batch_size: int | None = ...,
        on_error: Literal["raise"] = ...,
        progress: Callable[[Progress], object] | None = ...,
        language: str | None = ...,
        vad: SileroVad | None = ...,
    ) -> Iterator[Transcript]: ...

    @overload
    def recognize_each(
        self,
        recordings: Iterable[Audio],
        search: Greedy | Beam | None = ...,
        *,
        batch_size: int | None = ...,
        on_error: Literal["return"],
        progress: Callable[[Progress], object] | None = ...,
        language: str | None = ...,
        vad: SileroVad | None = ...,
    ) -> Iterator[Transcript | Exception]: ...

    def recognize_each(
        self,
        recordings: Iterable[Any],
        search: Greedy | Beam | None = None,
        *,
        batch_size: int | None = None,
        on_error: str = "raise",
        progress: Callable[[Progress], object] | None = None,
        language: str | None = None,
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
        batch_size, on_error, progress, language, vad:
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
        _check_handling(on_error, progress)
        stages = self.stages(search, batch_size=batch_size, language=language, vad=vad)
        source = _several("recordings", recordings)
        number = len(recordings) if isinstance(recordings, Sized) else None
        if stages.utterances is not None and number is not None:
            check_utterances(stages.utterances, number)
        meter = Meter(number, progress)
        return _in_order(self._finished(source, "recordings[{}]", stages, meter), on_error)

    def stages(
        self,
        search: Greedy | Beam | None = None,
        *,
        batch_size: int | None = None,
        language: str | None = None,
        vad: SileroVad | None = None,
    ) -> ModelStages:
        """What this model does in each stage of the pipeline, for those who run the stages in another order.

        Parameters and errors are those of `recognize_each`.
        """
        search = self.decoder.search if search is None else as_search(search)
        _check_vad(vad)
        if batch_size is not None:
            batch_size = as_integer("batch_size", batch_size, low=1)
        return ModelStages(
            self.bundle, self.encoder, self.decoder, self._extract_for_encoder, search=search,
            utterances=utterances_of(search), batch_size=batch_size, device=self.device, limit=self._max_input_frames,
            windows=self._windows, encode=self._told(language), vad=vad,
        )  # fmt: skip

    def _finished(
        self, recordings: Iterable[Any], name: str, stages: ModelStages, meter: Meter
    ) -> Generator[tuple[int, Transcript | Exception]]:
        """The places and results of recordings as they are finished. ``name`` has a gap for the place."""
        utterances = stages.utterances

        def given() -> Iterator[tuple[int, Any]]:
            count = 0
            for place, recording in enumerate(recordings):
                count = place + 1
                if utterances is not None and count > utterances:
                    check_utterances(utterances, count)
                meter.give()
                try:
                    check_audio(name.format(place), recording)
                    recording = held(recording)  # a pipe is read here: an interrupt ends the wait for it
                except Exception as error:
                    recording = error
                yield place, recording
            if utterances is not None:
                check_utterances(utterances, count)

        with closing(run(stages, given(), stages.ahead_seconds, stages.readers)) as news:
            for one in news:
                if isinstance(one, Read):
                    meter.expect(one.place, one.seconds)
                elif isinstance(one, Reached):
                    meter.reach(one.place, one.seconds)
                else:
                    meter.finish(one.place)
                    yield one.place, one.result

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

    def _told(self, language: str | None) -> Encode:
        """The encoder, told a language. An `InputError` if the model does not have it."""
        if language is not None:
            as_instance("language", language, str, "a language such as 'en-US', or None")
        if isinstance(self.encoder, CacheAwareEncoder):
            self.encoder.language(language)
            return partial(self.encoder.launched, language=language)
        if language is not None:
            raise InputError(f"language={language!r}: the model is not told a language")
        return self.encoder.launched if isinstance(self.encoder, Encoder) else partial(_done, self.encoder)


def _where_taken(extract: Extractor, encoder: Encoder) -> Extractor | DeviceFeatureExtractor:
    """What computes the features where the encoder takes them; Kaldi's are computed on the CPU and copied."""
    card = encoder.features_card if isinstance(encoder, Encoder) else None
    if card is None or not isinstance(extract, FeatureExtractor):
        return extract
    with card.current():
        return DeviceFeatureExtractor(extract, card)


def _done(encoder: Any, features: np.ndarray, lengths: np.ndarray) -> Callable[[], tuple[Any, np.ndarray]]:
    """`Encoder.launched` for an encoder that is any function."""
    result = encoder(features, lengths)
    return lambda: result


def _check_handling(on_error: str, progress: object) -> None:
    as_choice("on_error", on_error, ("raise", "return"))
    if progress is not None:
        as_function("progress", progress, "a function of a Progress, or None")


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


def _in_order(finished: Generator[tuple[int, Transcript | Exception]], on_error: str) -> Generator[Any]:
    """Results in the order of their places."""
    early: dict[int, Transcript | Exception] = {}
    following = 0
    with closing(finished):
        for place, result in finished:
            early[place] = result
            while following in early:
                result = early.pop(following)
                following += 1
                if on_error == "raise" and isinstance(result, Exception):
                    raise result
                yield result


def _several(name: str, recordings: object) -> Iterator[Any]:
    """An iterator over recordings. One recording alone is refused, as it may be iterable too."""
    one = isinstance(recordings, tuple) and len(recordings) == 2 and isinstance(recordings[1], Number)
    if not (one or is_file(recordings) or isinstance(recordings, (Mapping, np.ndarray))):
        try:
            return iter(recordings)  # type: ignore[call-overload]
        except TypeError:
            pass
    raise refusal(name, "several recordings: a list or other iterable", recordings, "give a single one as [recording]")
