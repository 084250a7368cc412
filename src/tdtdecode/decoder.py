"""Decoder: runs a search, by kernels, on the joint rows of a network."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np

from . import kernels as kernel_sets
from .allowed import Binding, Masks
from .arguments import as_choice, as_flag, as_instance, as_integer, as_number, as_tuple, refusal
from .arrays import frames_first, utterances_of
from .errors import InputError
from .hypothesis import Hypothesis
from .kernels.sets import ISA_VARIABLE
from .networks import Network, NetworkState
from .networks.loops import label_looping, lockstep, run_beam
from .reprs import counted, one_line
from .search import (
    Beam,
    Greedy,
    as_search,
    changeable_settings,
    changed_settings,
    for_utterances,
    runs_in_the_beam_engine,
)
from .traces import BeamTrace, Profile, Trace
from .transducer import TransducerSpec

if TYPE_CHECKING:
    import onnxruntime as ort

    from .bundle import Bundle
    from .bundle.packed import PackedModel
    from .bundle.vocabulary import Vocabulary
    from .fusion.binding import BoundFusion
    from .kernels.beam_state import BeamState
    from .networks import SteppedNetwork
    from .networks.state import ArrayState


_log = logging.getLogger(__name__)

MAX_THREADS = 1024
"""The most threads of a decoder."""


@dataclass(frozen=True, eq=False)
class DecoderState:
    """The state of B streams between two chunks. A value: `decode_chunk` never changes it.

    It does not count the tokens emitted at a stream's next frame. A search leaves a chunk only by moving past its end,
    so there are none yet.

    Attributes
    ----------
    consumed:
        int64 [B], the number of frames received so far.
    overshoot:
        int32 [B], how many frames of the next chunk to skip, because the last duration reached past the end of this
        one. 0 for a beam search: there each hypothesis has its own next frame.
    network:
        The predictor states, stream by stream: one for each stream, or all those of its beam.
    search:
        The search that made the beams; None without beams.
    beams:
        The B beams; None after a search that has none (`Greedy` without fusion and confidence).
    """

    consumed: np.ndarray
    overshoot: np.ndarray
    network: NetworkState
    search: Greedy | Beam | None = None
    beams: tuple[BeamState, ...] | None = None

    def __len__(self) -> int:
        return len(self.consumed)

    def __repr__(self) -> str:
        frames = f"{self.consumed.min()} to {self.consumed.max()} frames received" if len(self) else ""
        return one_line(self, counted(len(self), "stream"), frames, repr(self.search) if self.beams else "")

    @property
    def places(self) -> np.ndarray:
        """int [B + 1]: the states of stream i in `network` are those from ``places[i]`` up to ``places[i + 1]``."""
        states = np.ones(len(self), np.intp) if self.beams is None else [beam.states for beam in self.beams]
        return np.concatenate([[0], np.cumsum(states, dtype=np.intp)])

    def select(self, index: Any) -> DecoderState:
        """The streams at ``index`` (integers [N]), in that order.

        Raises
        ------
        InputError
            If ``index`` is no list of integers, or there is no such stream.
        """
        try:
            index = np.atleast_1d(index)
        except ValueError:
            raise refusal("index", "integers [N]", index) from None
        if index.ndim != 1 or (index.size and not np.issubdtype(index.dtype, np.integer)):
            raise InputError(f"index must be integers [N], got {index.dtype} {list(index.shape)}")
        if index.size and not (-len(self) <= index.min() and index.max() < len(self)):
            raise InputError(f"index must be from 0 to {len(self) - 1}, the streams there are, got {index.tolist()}")
        index = index.astype(np.intp) % max(len(self), 1)
        first, last = self.places[index], self.places[index + 1]
        places = np.concatenate([np.empty(0, np.intp), *map(np.arange, first, last)])
        beams = None if self.beams is None else tuple(self.beams[i] for i in index)
        return DecoderState(
            self.consumed[index], self.overshoot[index], self.network.select(places), self.search, beams
        )

    @staticmethod
    def join(states: Iterable[DecoderState]) -> DecoderState:
        """The streams of several states of one decoder, one after the other.

        Raises
        ------
        InputError
            If there is no state, or the states are those of different networks or searches.
        """
        states = list(as_tuple("states", states, "what decode_chunk returned"))
        for i, state in enumerate(states):
            as_instance(f"states[{i}]", state, DecoderState, "what decode_chunk returned")
        if not states:
            raise InputError("join needs at least one state")
        if not all(states[0].network.like(state.network) for state in states[1:]):
            raise InputError("states of decoders with different networks cannot be joined")
        first = states[0]
        for state in states[1:]:
            changes = changed_settings(first.search or Greedy(), state.search or Greedy())
            if changes or (first.beams is None) != (state.beams is None):
                raise InputError(f"states of different searches cannot be joined: they depend on {', '.join(changes)}")
        beams = None if states[0].beams is None else tuple(beam for state in states for beam in state.beams or ())
        return DecoderState(
            np.concatenate([state.consumed for state in states]),
            np.concatenate([state.overshoot for state in states]),
            states[0].network.join([state.network for state in states[1:]]),
            states[0].search,
            beams,
        )


class Decoder:
    """Turns encoder output into tokens. It never changes, so calls may run in many threads at once.

    A decoder that `from_bundle` made is pickled as the directory and the options: whoever unpickles it opens the
    directory again. Any other is pickled with its network, if that can be.

    Parameters
    ----------
    network:
        The network that computes predictor and joint: a `CallableNetwork`, or one that `from_bundle` made.
    spec:
        The joint row's layout.
    search:
        The search to use if a call names no other: `Greedy` or `Beam`.
    kernels:
        Name of the kernel set that runs the search (`tdtdecode.kernels.get`).
    vocabulary:
        For `detokenize`, and for language models and phrases whose words are text.

    Raises
    ------
    InputError
        If the search does not fit the network or the vocabulary, or the kernels do not exist for the network.
    """

    def __init__(
        self,
        network: Network,
        spec: TransducerSpec,
        *,
        search: Greedy | Beam = Greedy(),
        kernels: str = "auto",
        vocabulary: Vocabulary | None = None,
    ):
        self.network = _checked_network(network)
        self.spec = as_instance("spec", spec, TransducerSpec, "a TransducerSpec")
        self.search = as_search(search)
        self.kernels = checked_kernels(kernels, network.device)
        self.vocabulary = _checked_vocabulary(vocabulary, spec)
        self._arguments = {"search": search, "kernels": kernels, "vocabulary": vocabulary}
        self._directory: tuple[Any, ...] | None = None
        self._options: dict[str, Any] = {}
        self._allowed = Binding(self.spec, self.vocabulary)
        self._bound(self.search)  # raises if a fusion does not fit the vocabulary
        self._allowed.masks(self.search.allow, 0)  # or what may be emitted
        self._card = network.card if network.device == "cuda" else None
        with self._on_its_card():
            self.program = network.program(self.kernels)
            self._start = network.start(_blank(spec))
        self._door = utterances_of if network.device == "cpu" else _device_door()

    @classmethod
    def from_bundle(
        cls,
        directory: str | PathLike[str] | Bundle,
        *,
        layout: str = "auto",
        variant: str | None = None,
        durations: Sequence[int] | None = None,
        big_blanks: Sequence[int] | None = None,
        device: str = "cpu",
        network: str = "auto",
        kernels: str = "auto",
        precision: str = "float32",
        threads: int = 1,
        search: Greedy | Beam = Greedy(),
        session_options: ort.SessionOptions | None = None,
        providers: Sequence[Any] | None = None,
        card_share: float = 1.0,
    ) -> Decoder:
        """Make a decoder from the predictor, joint and token file of a model directory. No encoder is needed.

        Parameters
        ----------
        directory:
            The directory, or the bundle that `tdtdecode.bundle.read_bundle` read from it. With a bundle, ``layout``,
            ``variant``, ``durations`` and ``big_blanks`` are ignored. Or a file that `tdtdecode.prepare.pack` wrote:
            then neither onnx nor onnxruntime is needed.
        layout:
            ``"split"``, ``"combined"``, ``"genai"``, or ``"auto"``: GenAI if there is a ``genai_config.json``, else
            split, else combined.
        variant:
            Which files to use: ``"int8"``, ``"fp16"``, ... None: those without a suffix, else the only ones there are.
        durations:
            The duration in frames of each duration index. None: those that the bundle states, else ``range(D)``.
        big_blanks:
            For multi-blank RNN-T, the frames of each big blank in NeMo's order, such as ``[2, 4, 8]``. None: those that
            the bundle states (``big_blank_durations`` in ``config.json``), else none.
        device:
            ``"cpu"``, or ``"cuda"`` for the card that CuPy uses. Encoder output on that card is read in place, after
            the work that its owner has queued on its own stream. Other encoder output is copied to the card.
        network:
            - ``"fused"``: takes the weights out of the graphs and runs the whole decode loop compiled;
            - ``"ort"``: runs the graphs by ONNX Runtime;
            - ``"auto"``: fused if the weights can be taken out of the graphs (``tdtdecode info MODEL`` says so) and the
              kernels are compiled, else ort.
        kernels:
            Name of a kernel set (`tdtdecode.kernels.get`).
        precision:
            The arithmetic of the fused network. ``"float32"`` is exact. ``"bfloat16"`` and ``"int8"`` on the cpu, and
            ``"float16"`` and ``"bfloat16"`` on cuda, are faster and close. ``"ort"`` takes only ``"float32"``, and
            then computes in the precision in which the graphs are stored.
        threads:
            The number of the decoder's own threads on the cpu. Results do not depend on it.
        search:
            The search to use if a call names no other.
        session_options, providers:
            For the ONNX Runtime sessions of ``"ort"``. Session options replace ours. Providers replace the CPU
            provider; they cannot be given with ``device="cuda"``.
        card_share:
            The share of a card's multiprocessors that the fused network fills, above 0. The rest is left to other work,
            such as an encoder.

        Raises
        ------
        BundleError
            If the directory cannot be used. The message names the file and the field.
        InputError, DeviceError, MissingDependencyError
            If an option is not available. The message lists what is.
        """
        as_choice("device", device, ("cpu", "cuda"))
        threads = as_integer("threads", threads, low=1, high=MAX_THREADS)
        as_search(search)
        as_number("card_share", card_share, "a share above 0, at most 1", above=0, high=1)
        kernel_set = checked_kernels(kernels, device)
        from .bundle import Bundle, read_bundle
        from .bundle.packed import check_whole, read_packed
        from .bundle.reading import reread
        from .networks.choice import bundle_network, check_network_options, packed_network

        check_network_options(network, precision, session_options, providers, device)
        bundle: Bundle | PackedModel
        if isinstance(directory, Bundle):
            bundle = directory
        elif isinstance(directory, (str, PathLike)) and os.path.isfile(directory):
            check_whole(layout, variant, durations, big_blanks)
            bundle = read_packed(directory)
        else:
            bundle = read_bundle(directory, layout, variant, durations, big_blanks)
            log_files(bundle)
        forced = f", which {ISA_VARIABLE} asks for" if kernel_set.isa and ISA_VARIABLE in os.environ else ""
        _log.info("decoder: device %s, threads %d", device, threads)
        _log.info("kernels: %s%s", kernel_set.name, forced)
        if isinstance(bundle, Bundle):
            chosen = bundle_network(
                bundle, kernel_set, network, precision, threads, session_options, providers, device, card_share
            )
            opened: tuple[Any, ...] = reread(bundle)
        else:
            chosen = packed_network(
                bundle, network, precision, threads, session_options, providers, device, card_share
            )
            opened = bundle.path, "auto", None, None, None
        decoder = cls(chosen, bundle.spec, search=search, kernels=kernels, vocabulary=bundle.vocabulary)
        decoder._directory = opened
        decoder._options = {
            "device": device, "network": network, "kernels": kernels, "precision": precision, "threads": threads,
            "search": search, "session_options": session_options, "providers": providers, "card_share": card_share,
        }  # fmt: skip
        return decoder

    def __repr__(self) -> str:
        return one_line(self, *self.choices, repr(self.search))

    @property
    def choices(self) -> list[str]:
        """What runs: model, network, precision, kernels, device; for people."""
        model = []
        if self._directory is not None:
            directory, layout, variant, *_ = self._directory
            files = "one file" if layout == "auto" else f"{layout}{f', {variant}' if variant else ''}"
            model = [f"{directory} ({files})"]
        precision = getattr(self.network, "precision", None)
        return [
            *model, f"network {self.network.name}{f' in {precision}' if precision else ''}",
            f"kernels {self.kernels.name}", f"on the {self.network.device}",
        ]  # fmt: skip

    def __reduce__(self) -> tuple[Any, ...]:
        if self._directory is None:
            return _remade, (type(self), self.network, self.spec, self._arguments)
        return _reopened, (type(self), *self._directory, self.bundle_options)

    @property
    def bundle_options(self) -> dict[str, Any]:
        """What `from_bundle` was told beside the directory, to open it again; empty if it did not make this decoder.

        Raises
        ------
        InputError
            If ``session_options`` are among them: ONNX Runtime's cannot be copied.
        """
        if self._options.get("session_options") is not None:
            raise InputError("a decoder with session_options cannot be pickled: open the model where it is to be used")
        return self._options

    def decode(self, encoder_out: Any, lengths: Any = None, search: Greedy | Beam | None = None) -> list[Hypothesis]:
        """Decode whole utterances.

        Parameters
        ----------
        encoder_out:
            float32, float16 or bfloat16 [B, E, T]: a NumPy array, ``OrtValue`` or anything with DLPack, contiguous or
            not; or a list of [E, T].
        lengths:
            Integers [B], the valid frames of each utterance; None if all frames are valid.
        search:
            The search to use; None: the decoder's own.

        Returns
        -------
        One hypothesis for each utterance; empty if its length is 0.

        Raises
        ------
        InputError
            If an array has a wrong shape, dtype or length, or the search does not fit. Nothing has been decoded then.
        DeviceError
            If an array lies on another device than the decoder can read.
        """
        return self.decode_chunk(encoder_out, lengths, search=search, final=True)[0]

    def decode_chunk(
        self,
        encoder_out: Any,
        lengths: Any = None,
        state: DecoderState | None = None,
        final: bool = False,
        search: Greedy | Beam | None = None,
    ) -> tuple[list[Hypothesis], DecoderState]:
        """Decode the next chunk of B streams.

        Chunks of any size give the same tokens as the whole stream, except with ``Beam(strategy="malsd")``: NeMo's rule
        of pruning compares hypotheses that have reached different frames, so it depends on where chunks end.

        Parameters
        ----------
        encoder_out, lengths, search:
            As for `decode`.
        state:
            The state that the previous chunk returned; None at the start of the streams.
        final:
            Whether this is the last chunk of the streams. Greedy search returns every token at once, so this changes
            nothing in its result. A beam search returns its n-best list only at the end.

        Returns
        -------
        hypotheses:
            For each stream the new tokens, with frames counted from the start of the stream. A beam search returns the
            tokens that can no longer change. With ``final`` it returns the n-best list; each entry begins with the
            first token that was not returned before.
        state:
            The state for the next chunk. After ``final`` it is that of a new stream.

        Raises
        ------
        InputError
            If an array, the search or the state does not fit. Nothing has been decoded then.
        DeviceError
            If an array lies on another device than the decoder can read.
        """
        search = self.search if search is None else as_search(search)
        as_flag("final", final)
        with self._on_its_card():
            return self._decode_chunk(encoder_out, lengths, state, final, search)

    def _on_its_card(self) -> AbstractContextManager[object]:
        """Within it, the thread uses the card that the decoder was made on, if it was made on one."""
        return nullcontext() if self._card is None else self._card.current()

    def _decode_chunk(
        self, encoder_out: Any, lengths: Any, state: DecoderState | None, final: bool, search: Greedy | Beam
    ) -> tuple[list[Hypothesis], DecoderState]:
        utterances, lengths = self._door(encoder_out, lengths, self.spec.encoder_size)
        if state is None:
            state = self.initial_state(len(lengths))
        elif not isinstance(state, DecoderState):
            raise InputError(f"state must be what decode_chunk returned, got {type(state).__name__}")
        elif not self._start.like(state.network):
            raise InputError("state comes from a decoder with another network")
        elif len(state) != len(lengths):
            raise InputError(f"state has {len(state)} streams, but encoder_out has {len(lengths)} utterances")
        beamed = runs_in_the_beam_engine(search)
        started = state.beams is not None or bool(state.consumed.any())
        if started and (changes := changed_settings(state.search or Greedy(), search)):
            raise InputError(
                f"state comes from another search: it depends on {', '.join(changes)}; in the middle of a stream only "
                f"{', '.join(changeable_settings(search))} may change: give final=True first, or begin without a state"
            )
        if not len(lengths):
            return [], state
        return (self._beam_chunk if beamed else self._greedy_chunk)(search, utterances, lengths, state, final)

    def initial_state(self, streams: int) -> DecoderState:
        """The state of streams before their first chunk, for streams that join others."""
        none = np.zeros(streams, np.int32)
        return DecoderState(none.astype(np.int64), none, self._start.select(none))

    @overload
    def trace(self, encoder_out: Any, lengths: Any, search: Beam) -> list[BeamTrace]: ...

    @overload
    def trace(self, encoder_out: Any, lengths: Any = ..., *, search: Beam) -> list[BeamTrace]: ...

    # Any: a BeamTrace, if the search turns out to run as a beam of one hypothesis.
    @overload
    def trace(self, encoder_out: Any, lengths: Any = ..., search: Greedy | None = ...) -> list[Trace | Any]: ...

    def trace(self, encoder_out: Any, lengths: Any = None, search: Greedy | Beam | None = None) -> list[Any]:
        """Every step that a search takes on whole utterances, including the blanks.

        The search is the same as in `decode`, in every precision. Of a greedy search, the steps that emit a token have
        its tokens, frames, durations and log-probs. A beam search's trace has its result.

        All candidates of a beam search are kept: about ``50 * size * (size + 1) * D`` bytes for each step of an
        utterance, where D is the number of durations, or 1 for RNN-T.

        Parameters
        ----------
        encoder_out, lengths:
            As for `decode`.
        search:
            The search to follow; None: the decoder's own.

        Returns
        -------
        One trace for each utterance; empty if its length is 0. They are `traces.Trace` for `Greedy`, and
        `traces.BeamTrace` for `Beam`. `Greedy` with fusion or confidence is run as a beam of one hypothesis, so it has
        traces of that kind too.

        Raises
        ------
        InputError
            If an array or the search does not fit, or the decoder is not on the cpu: a GPU keeps no candidates.
        DeviceError
            If an array is not in main memory.
        """
        chosen = self.search if search is None else as_search(search)
        if self.network.device != "cpu":
            raise InputError(
                f"trace needs a decoder on the cpu, this one is on {self.network.device}: make another with "
                "device='cpu', which finds the same tokens in float32, and give it the encoder output in main memory"
            )
        utterances, lengths = self._door(encoder_out, lengths, self.spec.encoder_size)
        if not len(lengths):
            return []
        state = self.initial_state(len(lengths))
        if runs_in_the_beam_engine(chosen):
            beam = self._beam_search(chosen, lengths, state, trace=True)
            self._run_beam(beam, utterances, lengths, state, final=True)
            return beam.traces()
        masks = self._masks(chosen, len(lengths))
        greedy = kernel_sets.GreedySearch(
            self.spec, cast("Greedy", chosen), lengths, self.kernels, trace=True, masks=masks
        )
        self._run_greedy(greedy, utterances, lengths, state.network, final=True)
        return greedy.traces()

    def profile(
        self, encoder_out: Any, lengths: Any = None, search: Greedy | Beam | None = None
    ) -> tuple[list[Hypothesis], Profile]:
        """Decode whole utterances, and measure where the time of the compiled loop goes.

        Reading the clock takes some time itself: about 1 us for each pass of the loop.

        Parameters
        ----------
        encoder_out, lengths, search:
            As for `decode`.

        Returns
        -------
        What `decode` returns, and the profile.

        Raises
        ------
        InputError
            If an array or the search does not fit, or the decoder has no compiled loop on the cpu.
        DeviceError
            If an array is not in main memory.
        """
        from .networks.fused import FusedProgram

        chosen, program = self.search if search is None else as_search(search), self.program
        if not isinstance(program, FusedProgram):
            raise InputError(
                f"profile needs the compiled loop of network 'fused' on the cpu, this decoder has "
                f"{', '.join(self.choices)}"
            )
        utterances, lengths = self._door(encoder_out, lengths, self.spec.encoder_size)
        state, profile = self.initial_state(len(lengths)), Profile.empty(program.threads)
        start = cast("ArrayState", state.network)
        if not len(lengths):
            return [], profile
        if runs_in_the_beam_engine(chosen):
            beam = self._beam_search(chosen, lengths, state)
            program.beam(beam, utterances, start, state.places, True, profile)
            return beam.hypotheses(), profile
        masks = self._masks(chosen, len(lengths))
        greedy = kernel_sets.GreedySearch(self.spec, cast("Greedy", chosen), lengths, self.kernels, masks=masks)
        program.greedy(greedy, utterances, start, True, profile)
        return greedy.hypotheses(), profile

    def _greedy_chunk(
        self, search: Any, utterances: Any, lengths: np.ndarray, state: DecoderState, final: bool
    ) -> tuple[list[Hypothesis], DecoderState]:
        masks = self._masks(search, len(lengths))
        greedy = kernel_sets.GreedySearch(
            self.spec, search, lengths, self.kernels, frame=state.overshoot, masks=masks
        )
        after = self._run_greedy(greedy, utterances, lengths, state.network, final)
        hypotheses = greedy.hypotheses(first_frame=state.consumed)
        if after is None:
            return hypotheses, self.initial_state(len(lengths))
        return hypotheses, DecoderState(state.consumed + lengths, greedy.frame - lengths, after)

    def _run_greedy(
        self, greedy: kernel_sets.GreedySearch, utterances: Any, lengths: np.ndarray, state: NetworkState, final: bool
    ) -> NetworkState | None:
        """Run a search to its end. Returns the predictor states to go on from, or None if ``final``."""
        if self.program is not None:
            return self.program.greedy(greedy, utterances, state, final)
        network = cast("SteppedNetwork", self.network)
        workspace = network.workspace(frames_first(utterances, lengths, network.frame_dtype), state)
        (lockstep if network.lockstep else label_looping)(greedy, workspace)
        return None if final else workspace.state()

    def _beam_chunk(
        self, search: Any, utterances: Any, lengths: np.ndarray, state: DecoderState, final: bool
    ) -> tuple[list[Hypothesis], DecoderState]:
        beam = self._beam_search(search, lengths, state)
        after = self._run_beam(beam, utterances, lengths, state, final)
        if final:
            return beam.hypotheses(), self.initial_state(len(lengths))
        hypotheses = beam.settled()
        beams, used = beam.close()
        if self.program is None:
            after = after.select(used)
        consumed = state.consumed + lengths
        return hypotheses, DecoderState(consumed, np.zeros_like(state.overshoot), after, search, tuple(beams))

    def _beam_search(
        self, search: Any, lengths: np.ndarray, state: DecoderState, trace: bool = False
    ) -> kernel_sets.BeamSearch:
        masks = self._masks(search, len(lengths))
        return kernel_sets.BeamSearch(
            self.spec, search, lengths, self.kernels, self._bound(search), state.beams, trace, masks
        )

    def _run_beam(
        self, beam: kernel_sets.BeamSearch, utterances: Any, lengths: np.ndarray, state: DecoderState, final: bool
    ) -> NetworkState:
        """Run a search to its end. Returns predictor states: of a program those to go on from, else those in all slots.
        """
        if self.program is not None:
            return self.program.beam(beam, utterances, state.network, state.places, final)
        places, slots = state.places, np.arange(beam.slots_per_utterance)
        arena = np.minimum(places[:-1, None] + slots, places[1:, None] - 1)  # the first slots get the states
        network = cast("SteppedNetwork", self.network)
        frames = frames_first(utterances, lengths, network.frame_dtype)
        workspace = network.workspace(frames, state.network.select(arena.ravel()))
        run_beam(beam, workspace)
        return workspace.state()

    def detokenize(self, tokens: Iterable[int]) -> str:
        """The text of token ids.

        Raises
        ------
        InputError
            If the decoder has no vocabulary.
        """
        if self.vocabulary is None:
            raise InputError("this decoder has no vocabulary: it was not made from a bundle")
        return self.vocabulary.detokenize(tokens)

    def _masks(self, search: Greedy | Beam, batch: int) -> Masks:
        """Which tokens each of B utterances may emit. Raises if an option was given for another number of them."""
        for_utterances(search, range(batch), batch)
        return self._allowed.masks(search.allow, batch)

    def _bound(self, search: Greedy | Beam) -> list[BoundFusion]:
        if not search.fusion:
            return []
        from .fusion.binding import bound

        return bound(search.fusion, self.spec, self.vocabulary)


def log_files(bundle: Bundle) -> None:
    """Say which files of a model directory are used."""
    files = [*([] if bundle.encoder is None else [bundle.encoder]), *(g.file for g in bundle.transducer.graphs)]
    _log.info(
        "files: %s, layout %s, %s: %s", bundle.directory, bundle.layout,
        f"variant {bundle.variant}" if bundle.variant else "without a suffix",
        ", ".join(dict.fromkeys(file.name for file in files)),
    )  # fmt: skip


def _remade(cls: type[Decoder], network: Network, spec: TransducerSpec, options: dict[str, Any]) -> Decoder:
    return cls(network, spec, **options)


def _reopened(
    cls: type[Decoder], directory: Path, layout: str, variant: str | None, durations: Any, big_blanks: Any,
    options: dict,
) -> Decoder:  # fmt: skip
    return cls.from_bundle(
        directory, layout=layout, variant=variant, durations=durations, big_blanks=big_blanks, **options
    )


def checked_kernels(name: str, device: str) -> kernel_sets.KernelSet:
    """The kernel set of a name for a device.

    Raises
    ------
    InputError, MissingDependencyError, DeviceError
        If it does not exist here, see `tdtdecode.kernels.get`.
    """
    if isinstance(name, str) and name == "cuda" and device == "cpu":
        raise InputError("kernels 'cuda' run on a GPU only: choose device='cuda'")
    return kernel_sets.get(name, device)


def _device_door() -> Callable:
    from .cuda.arrays import device_utterances

    return device_utterances


def _checked_network(network: Network) -> Network:
    if isinstance(network, type) or not all(hasattr(network, name) for name in ("name", "device", "start", "program")):
        advice = "Decoder.from_bundle opens a model directory" if isinstance(network, (str, PathLike)) else ""
        raise refusal("network", "a CallableNetwork, or another network of tdtdecode.networks", network, advice)
    return network


def _checked_vocabulary(vocabulary: Vocabulary | None, spec: TransducerSpec) -> Vocabulary | None:
    if vocabulary is None:
        return None
    if isinstance(vocabulary, type) or not hasattr(vocabulary, "pieces"):
        raise refusal("vocabulary", "a tdtdecode.bundle.Vocabulary or None", vocabulary)
    if (count := len(vocabulary.pieces)) != spec.vocab_size + 1:
        raise InputError(
            f"vocabulary must have {spec.vocab_size + 1} pieces, blank among them, for this spec, got {count}"
        )
    return vocabulary


def _blank(spec: TransducerSpec) -> int:
    assert spec.blank is not None
    return spec.blank
