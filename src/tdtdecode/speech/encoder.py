"""A bundle's encoder on ONNX Runtime: features in, encoder frames out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arguments import as_choice, as_flag, as_instance, as_integer, refusal
from ..arrays import check_lengths
from ..bundle import Bundle, load_graph
from ..bundle.encoder import encoder_ports, takes_time_first
from ..bundle.onnx_files.dependencies import import_onnxruntime
from ..bundle.onnx_files.graph import Graph, Port, first_line, loading
from ..cancellation import interruptible
from ..cuda.device import Device, check_process, current_device, import_cupy, shared_stream
from ..decoder import MAX_THREADS
from ..errors import BundleError, DeviceError, InputError
from ..forks import Lock
from ..reprs import one_line
from ..sessions import (
    CPU_PROVIDERS,
    CUDA,
    ForkSafeSession,
    check_session_arguments,
    cuda_session,
    default_options,
    quantized_refusal,
)
from .audio.features import HOP, SAMPLE_RATE

if TYPE_CHECKING:
    import onnxruntime as ort

_log = logging.getLogger(__name__)

_TRIAL_FRAMES = 100
"""Feature frames of a recording that any encoder takes, a second."""


class Encoder:
    """Runs the encoder of a bundle on batches of features.

    Parameters
    ----------
    bundle:
        What `read_bundle` returned.
    threads:
        Threads within an operator; None: as many as there are cores.
    session_options:
        ONNX Runtime options. They replace this package's defaults and `threads`.
    providers:
        Execution providers for ``device="cpu"``. The default is the CPU provider alone.
    device:
        ``"cpu"``, or ``"cuda"``: the CUDA provider on the card that CuPy uses. The output stays on that card.
    tf32:
        With ``device="cuda"``, whether products of float32 are rounded to TF32, 10 bits. The card's matrix units are
        several times as fast then; a few tokens change.

    Attributes
    ----------
    takes_batches:
        Whether several recordings may share a batch. False where the batch size is fixed at one, and where a
        recording's result would depend on its neighbours: with dynamic quantisation, which scales the activations of a
        whole batch at once, and for an encoder that `sees_padding`.
    sees_padding:
        Whether what stands behind a recording changes its result. It does in k2's encoders, whose first convolutions
        reach beyond the end. Their features and frames have time before width; here they are turned.
    metadata:
        What the graph states of itself, by key.

    Raises
    ------
    BundleError
        If the bundle has no encoder, if the encoder's inputs are not audio and lengths or its outputs not frames and
        lengths, or if its batch size is fixed at more than one.
    DeviceError
        If ``device="cuda"`` and there is no usable card, or the encoder is dynamically quantised.
    InputError
        If an option is wrong, such as ``tf32`` without ``device="cuda"``.
    MissingDependencyError
        If ONNX Runtime is not installed, or CuPy for ``device="cuda"``.
    """

    _mel_axis = 1

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        session_options: ort.SessionOptions | None = None,
        providers: Sequence[Any] | None = None,
        device: str = "cpu",
        tf32: bool = False,
    ):
        as_instance("bundle", bundle, Bundle, "what tdtdecode.bundle.read_bundle returned")
        if threads is not None:
            as_integer("threads", threads, low=1, high=MAX_THREADS)
        as_choice("device", device, ("cpu", "cuda"))
        check_session_arguments(session_options, providers)
        if as_flag("tf32", tf32) and device != "cuda":
            raise InputError(f"tf32=True needs device='cuda', got device={device!r}: a CPU has no such arithmetic")
        self._asked: dict[str, Any] = {
            "threads": threads, "session_options": session_options, "providers": providers, "device": device,
            "tf32": tf32,
        }  # fmt: skip
        file = bundle.encoder
        if file is None:
            raise BundleError("has no encoder; recognising audio needs one", file=bundle.directory)
        graph = load_graph(file, bundle.directory)
        self._file = file
        self.metadata = {entry.key: entry.value for entry in graph.model.metadata_props}
        self.sees_padding = takes_time_first(graph)
        if self.sees_padding:
            self._mel_axis = 2
        self._audio, self._length, self._frames, self._counts = self._read_ports(graph, bundle)
        batch, time = self._audio.shape[0], self._audio.shape[3 - self._mel_axis]
        if isinstance(batch, int) and batch != 1:
            raise BundleError(
                f"the batch size is fixed at {batch}; export it with a dynamic batch axis, or a batch of one",
                file=file, field=self._audio.name,
            )  # fmt: skip
        self.takes_batches = not graph.quantized and batch != 1 and not self.sees_padding
        self._width = time if isinstance(time, int) else None
        # A graph holds the weights that its own file contains. Keeping it would keep a second copy of them beside the
        # session's, so such a file is opened again when a session is made.
        self._graph = graph if graph.weights_folder is not None else None
        reason = ""
        if not self.takes_batches:
            reason = ", being dynamically quantised" if graph.quantized else ", as it was exported"
            if self.sees_padding:
                reason = ", since k2's encoders see the padding behind a recording"
        _log.info("encoder: %s on the %s, %s%s", file.name, device, self.batches, reason)
        self._options = session_options or default_options(threads)
        self._providers = list(providers or CPU_PROVIDERS)
        self._card: Device | None = None
        self._runs = Lock()
        self._latest: Any = None  # the event after the last run on a card
        if device == "cuda":
            if graph.quantized:
                raise DeviceError(quantized_refusal(file, "an encoder of another variant, or device='cpu'"))
            self._card = current_device()
        self._session = self._opened()
        if self._card is not None:
            self._require_card(bundle.features.mel_bins)

    def _opened(self) -> ForkSafeSession:
        """The session on the encoder's device."""
        if self._card is None:
            return ForkSafeSession(partial(self._open, self._providers), self._providers, self._file.name)
        card, stream = self._card.index, shared_stream(self._card.index).ptr
        return ForkSafeSession(
            partial(cuda_session, self._open, card, stream, "the encoder", tf32=self._asked["tf32"])
        )

    def _read_ports(self, graph: Graph, bundle: Bundle) -> tuple[Port, Port, Port, Port]:
        """The ports of the features, their lengths, the encoder frames and their lengths."""
        return encoder_ports(graph)

    def __repr__(self) -> str:
        device = "cpu" if self._card is None else "cuda"
        return one_line(self, self._file.name, f"on the {device}", self.batches)

    @property
    def batches(self) -> str:
        """Whether recordings share batches, for people."""
        return "several recordings at a time" if self.takes_batches else "one recording at a time"

    @property
    def features_card(self) -> Device | None:
        """The card on which features may lie; None if they must lie in main memory."""
        return self._card

    def __call__(self, features: Any, lengths: np.ndarray) -> tuple[Any, np.ndarray]:
        """Encode a batch.

        Parameters
        ----------
        features:
            float32 [B, mel, T]; on a card also CuPy's, on the encoder's card. If the encoder was exported for a fixed
            T, at most that many feature frames.
        lengths:
            int64 [B], valid feature frames, each at least 1.

        Returns
        -------
        encoder_out:
            [B, E, T'] on the encoder's device, as an ``OrtValue`` or an array.
        lengths:
            int64 [B], valid encoder frames.

        Raises
        ------
        InputError
            If the encoder fails, though not on a short recording. The likely reason is its position table.
        BundleError
            If the encoder fails on any recording, or what it returns is not what it says.
        """
        return self.launched(features, lengths)()

    def launched(self, features: Any, lengths: np.ndarray) -> Callable[[], tuple[Any, np.ndarray]]:
        """Encode a batch without waiting for a card; on a CPU the work is done when this returns.

        Batches are encoded in the order in which they are launched. A batch begins when the one before is done; this
        waits for that one, but not for its own. Features in CuPy arrays are read after the work on CuPy's current
        stream, and must not change before the result is there.

        Returns
        -------
        A function that waits, and returns what `__call__` does. It may be called in another thread.

        Raises
        ------
        InputError, BundleError
            As `__call__`; what is wrong with the result is raised by the function.
        """
        features, lengths = self._checked(features, lengths)
        _, mel_bins, width = features.shape
        if self._width is not None and width < self._width:
            array_module = np if isinstance(features, np.ndarray) else import_cupy()
            padded = array_module.zeros((len(features), mel_bins, self._width), np.float32)
            padded[:, :, :width] = features
            features = padded
        try:
            frames, counted = self._run(features, lengths)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            self._require_working(mel_bins)
            seconds = width * HOP / SAMPLE_RATE
            raise InputError(
                f"the encoder failed on {len(features)} recording(s) of up to {seconds:.1f} s; if it was made for "
                f"shorter ones, cut them: {error}"
            ) from error
        return partial(self._result, frames, counted, features)

    def _result(
        self, frames: ort.OrtValue, counted: Callable[[], np.ndarray], features: Any
    ) -> tuple[Any, np.ndarray]:
        """What was encoded, if it is what the graph says. Until then the features are kept: a card may read them."""
        counts, shape, batch = counted(), frames.shape(), len(features)
        time = 1 if self.sees_padding else 2
        if len(shape) != 3 or shape[0] != batch:
            raise BundleError(
                f"gives frames {shape} for {batch} recordings, where it says {self._frames}", file=self._file,
                field=self._frames.name,
            )  # fmt: skip
        if counts.shape != (batch,) or not ((counts >= 0) & (counts <= shape[time])).all():
            raise BundleError(
                f"gives the lengths {counts.tolist()} for frames {shape}: expected one for each recording, none longer "
                "than the frames", file=self._file, field=self._counts.name,
            )  # fmt: skip
        return self._width_first(frames) if self.sees_padding else frames, counts

    def _width_first(self, frames: ort.OrtValue) -> Any:
        """Frames [B, T', E] as a view [B, E, T'] on their device."""
        if self._card is None:
            return frames.numpy().transpose(0, 2, 1)
        from ..cuda.arrays import to_device

        with self._card.current():
            return to_device(frames, "encoder_out").transposed()

    def _checked(self, features: Any, lengths: Any) -> tuple[Any, np.ndarray]:
        """The batch, if its shapes are those of features."""
        known = isinstance(features, np.ndarray) or (
            self._card is not None and isinstance(features, import_cupy().ndarray)
        )
        if not known or not np.issubdtype(features.dtype, np.floating):
            raise refusal("features", "float32 [B, mel, T]", features)
        mel = self._audio.shape[self._mel_axis]
        if features.ndim != 3 or (isinstance(mel, int) and features.shape[1] != mel):
            wanted = mel if isinstance(mel, int) else "mel"
            raise InputError(f"features must be [B, {wanted}, T], got {list(features.shape)}")
        return features, check_lengths(lengths, np.full(len(features), features.shape[2], np.int64)).astype(np.int64)

    def _run(self, features: Any, lengths: np.ndarray) -> tuple[ort.OrtValue, Callable[[], np.ndarray]]:
        """The encoder frames, and a function that waits for them and returns their numbers, int64 [B]."""
        if self.sees_padding:
            features = features.transpose(0, 2, 1)
        if self._card is None:
            (frames,), counts = self._bound_run(
                [(self._audio, features), (self._length, lengths)], [], [self._frames.name]
            )
            return frames, lambda: counts
        return self._run_on_card(self._card, features, lengths)

    def _run_on_card(
        self, card: Device, features: Any, lengths: np.ndarray
    ) -> tuple[ort.OrtValue, Callable[[], np.ndarray]]:
        check_process()
        cupy, stream = import_cupy(), shared_stream(card.index)
        with card.current():
            made = cupy.cuda.get_current_stream()
            with stream:
                # What is made here is freed to this stream's memory, and so is not overwritten before it was read.
                stream.wait_event(made.record())
                if isinstance(features, np.ndarray):
                    features = cupy.asarray(np.ascontiguousarray(features, self._audio.dtype))
                else:
                    features = cupy.ascontiguousarray(features, self._audio.dtype)
                counts = cupy.empty(len(features), self._counts.dtype)
                session = self._session.current
                binding, device = session.io_binding(), (CUDA, card.index)
                binding.bind_input(self._audio.name, *device, self._audio.dtype, features.shape, features.data.ptr)
                binding.bind_cpu_input(self._length.name, np.ascontiguousarray(lengths, self._length.dtype))
                binding.bind_output(self._frames.name, *device)
                binding.bind_output(self._counts.name, *device, self._counts.dtype, counts.shape, counts.data.ptr)
                run_options = import_onnxruntime().RunOptions()
                # The event says when the run is done: nobody waits for it here.
                run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
                with self._runs.held:
                    # A run's memory on the host is used again by the next one, though copies from it may be under way.
                    if self._latest is not None:
                        self._latest.synchronize()
                    with interruptible(run_options) as options:
                        session.run_with_iobinding(binding, options)
                    done = self._latest = stream.record()
        frames, _ = binding.get_outputs()

        def counted() -> np.ndarray:
            done.synchronize()
            with card.current():
                return cupy.asnumpy(counts).astype(np.int64)

        return frames, counted

    def _bound_run(
        self,
        arrays: Sequence[tuple[Port, np.ndarray]],
        on_device: Sequence[tuple[Port, Any]],
        stay: Sequence[str],
        run_options: ort.RunOptions | None = None,
    ) -> tuple[list[ort.OrtValue], np.ndarray]:
        """Run the graph with bound inputs and outputs.

        Parameters
        ----------
        arrays:
            Inputs in main memory.
        on_device:
            Inputs that lie on the encoder's device, NumPy's or CuPy's.
        stay:
            The names of the outputs that stay there.

        Returns
        -------
        These outputs, and the numbers of encoder frames, int64 [B].
        """
        if self._card is not None:
            check_process()
        session = self._session.current
        device = ("cpu", 0) if self._card is None else (CUDA, self._card.index)
        binding = session.io_binding()
        for port, array in arrays:
            binding.bind_cpu_input(port.name, np.ascontiguousarray(array, port.dtype))
        for port, array in on_device:
            pointer = array.ctypes.data if self._card is None else array.data.ptr
            binding.bind_input(port.name, *device, port.dtype, array.shape, pointer)
        for name in stay:
            binding.bind_output(name, *device)
        binding.bind_output(self._counts.name)
        with interruptible(run_options or import_onnxruntime().RunOptions()) as options:
            session.run_with_iobinding(binding, options)
        *values, counts = binding.get_outputs()
        return values, counts.numpy().astype(np.int64)

    def _run_on_silence(self, mel_bins: int) -> None:
        width = _TRIAL_FRAMES if self._width is None else self._width
        _, counted = self._run(np.zeros((1, mel_bins, width), np.float32), np.array([width]))
        counted()

    def _require_card(self, mel_bins: int | None) -> None:
        """A DeviceError unless the card runs the encoder.

        ONNX Runtime loads cuDNN when an operator first needs it, so a session opens without it.
        """
        if mel_bins is None:
            return  # then nothing can recognise with this encoder, and the recognizer says so
        try:
            self._run_on_silence(mel_bins)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise DeviceError(
                f"ONNX Runtime cannot run {self._file} on cuda: {first_line(error)}; if a library is missing, "
                "pip install 'tdtdecode[gpu]' brings cuDNN and CUDA; or use device='cpu'"
            ) from error

    def _require_working(self, mel_bins: int) -> None:
        """A `BundleError` unless the encoder takes a second of silence."""
        try:
            self._run_on_silence(mel_bins)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise BundleError(f"ONNX Runtime cannot run it: {first_line(error)}", file=self._file) from error

    def utterances(self, encoder_out: Any) -> list[Any]:
        """The encoder output of each utterance, [E, T']: views on the device of ``encoder_out`` that can be sliced."""
        if self._card is None:
            return list(encoder_out if isinstance(encoder_out, np.ndarray) else encoder_out.numpy())
        from ..cuda.arrays import to_device

        with self._card.current():
            batch = to_device(encoder_out, "encoder_out")
        return [batch[i] for i in range(len(batch))]

    @property
    def bundle_options(self) -> dict[str, Any]:
        """What this encoder was told beside the bundle, to open it again.

        Raises
        ------
        InputError
            If ``session_options`` are among them: ONNX Runtime's cannot be copied.
        """
        if self._asked["session_options"] is not None:
            raise InputError("an encoder with session_options cannot be pickled: open the model where it is to be used")
        return self._asked

    def _open(self, providers: list[Any]) -> ort.InferenceSession:
        if self._graph is not None:
            return self._graph.session(self._options, providers)
        with loading(self._file):
            return import_onnxruntime().InferenceSession(os.fspath(self._file), self._options, providers=providers)
