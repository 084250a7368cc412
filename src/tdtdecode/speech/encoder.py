"""A bundle's encoder on ONNX Runtime: features in, encoder frames out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bundle import Bundle, load_graph
from ..bundle.encoder import encoder_ports
from ..bundle.onnx_files.dependencies import import_onnxruntime
from ..errors import BundleError, DeviceError, InputError
from ..sessions import CPU_PROVIDERS, CUDA, ForkSafeSession, cuda_session, default_options, quantized_refusal
from .audio.features import HOP, SAMPLE_RATE

if TYPE_CHECKING:
    import onnxruntime as ort


class Encoder:
    """Runs the encoder of a bundle on batches of features.

    Parameters
    ----------
    bundle:
        What `read_bundle` returned.
    threads:
        Threads within an operator; None: as many as there are cores.
    session_options:
        Used as they are, in place of ours.
    providers:
        Execution providers, default the CPU's alone.
    device:
        ``"cpu"``, or ``"cuda"``: on the CUDA provider, which leaves its output on the card that CuPy uses.

    Attributes
    ----------
    rows_independent:
        False where the graph scales the activations of a whole batch at once (dynamic quantisation), so that a
        recording's result would depend on its neighbours, and where its batch is fixed at one: such an encoder is to
        be given one recording at a time.

    Raises
    ------
    BundleError
        If the bundle has no encoder, or its inputs and outputs are not audio, its lengths, frames and their lengths.
    """

    def __init__(
        self,
        bundle: Bundle,
        threads: int | None = None,
        session_options: ort.SessionOptions | None = None,
        providers: Sequence[Any] | None = None,
        device: str = "cpu",
    ):
        file = bundle.encoder
        if file is None:
            raise BundleError("has no encoder, which recognising audio needs", file=bundle.directory)
        graph = load_graph(file, bundle.directory)
        self._audio, self._length, self._frames, self._counts = encoder_ports(graph)
        batch, _, time = self._audio.shape
        if isinstance(batch, int) and batch != 1:
            raise BundleError(
                f"takes batches of just {batch}; export it with a dynamic batch axis, or a batch of one", file=file,
                field=self._audio.name,
            )  # fmt: skip
        self.rows_independent = not graph.quantized and batch != 1
        self._width = time if isinstance(time, int) else None
        self._file = file
        # Where the weights lie in the file itself, it is opened again instead: the graph is a second copy of them all.
        self._graph = graph if graph.weights_folder is not None else None
        self._options = session_options or default_options(threads)
        self._providers = list(providers or CPU_PROVIDERS)
        self._card: int | None = None
        if device == "cpu":
            self._session = ForkSafeSession(partial(self._open, self._providers))
        else:
            if graph.quantized:
                raise DeviceError(quantized_refusal(file, "an encoder of another variant, or device='cpu'"))
            from ..cuda.device import current_device, shared_stream

            self._card = current_device().index
            stream = shared_stream(self._card).ptr
            self._session = ForkSafeSession(partial(cuda_session, self._open, self._card, stream, "the encoder"))

    def __call__(self, features: np.ndarray, lengths: np.ndarray) -> tuple[ort.OrtValue, np.ndarray]:
        """Encode a batch.

        Parameters
        ----------
        features:
            float32 [B, mel, T]; where the encoder's own T is fixed, no more than that.
        lengths:
            int64 [B], valid feature frames, each at least 1.

        Returns
        -------
        encoder_out:
            ``OrtValue`` [B, E, T'], where the execution provider left it.
        lengths:
            int64 [B], valid encoder frames.

        Raises
        ------
        InputError
            If the encoder fails, most likely because its tables end before the longest recording does.
        """
        session = self._session.current
        binding = session.io_binding()
        if self._width is not None:
            features = np.pad(features, ((0, 0), (0, 0), (0, max(0, self._width - features.shape[2]))))
        binding.bind_cpu_input(self._audio.name, np.ascontiguousarray(features, self._audio.dtype))
        binding.bind_cpu_input(self._length.name, np.ascontiguousarray(lengths, self._length.dtype))
        if self._card is None:
            binding.bind_output(self._frames.name)
        else:
            binding.bind_output(self._frames.name, CUDA, self._card)
        binding.bind_output(self._counts.name)
        try:
            session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            seconds = features.shape[2] * HOP / SAMPLE_RATE
            raise InputError(
                f"the encoder failed on {len(features)} recording(s) of up to {seconds:.1f} s; if that is longer than "
                f"it was made for, cut the recordings: {error}"
            ) from error
        frames, counts = binding.get_outputs()
        return frames, counts.numpy().astype(np.int64)

    def rows(self, encoder_out: ort.OrtValue) -> list[Any]:
        """The rows [E, T'] of what was encoded, where they are; their frames can be sliced."""
        if self._card is None:
            return list(encoder_out.numpy())
        from ..cuda.arrays import to_device

        batch = to_device(encoder_out, "encoder_out")
        return [batch[i] for i in range(len(batch))]

    def _open(self, providers: list[Any]) -> ort.InferenceSession:
        if self._graph is not None:
            return self._graph.session(self._options, providers)
        return import_onnxruntime().InferenceSession(os.fspath(self._file), self._options, providers=providers)
