"""From a model directory to a recognizer on a device."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from ..bundle import read_bundle
from ..cuda.device import current_device
from ..decoder import Decoder
from ..errors import DeviceError, InputError, MissingDependencyError
from ..search import Beam, Greedy
from .encoder import Encoder
from .hub import find_model
from .recognizer import Recognizer
from .routing import RoutedRecognizer

if TYPE_CHECKING:
    import onnxruntime as ort

DEVICES = ("cpu", "cuda", "auto", "both")

_log = logging.getLogger(__name__)


def load_model(
    name_or_directory: str | PathLike[str],
    device: str = "cpu",
    layout: str = "auto",
    variant: str | None = None,
    durations: Sequence[int] | None = None,
    network: str = "auto",
    kernels: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
    search: Greedy | Beam = Greedy(),
    session_options: ort.SessionOptions | None = None,
    providers: Sequence[Any] | None = None,
) -> Recognizer:
    """Load a whole model: features, encoder and decoder.

    Parameters
    ----------
    name_or_directory:
        ``"demo"``, a model directory in any layout, or a Hugging Face hub id (`tdtdecode.speech.hub.find_model`).
    device:
        ``"cpu"``; ``"cuda"``: encoder and decoder on the card that CuPy uses; ``"auto"``: cuda where there is a card
        and what it needs is installed, else the cpu, and the log (``tdtdecode``, level INFO) says which and why;
        ``"both"``: holds the model on both and gives each call the faster one for its length (`RoutedRecognizer`).
    threads:
        Threads of the decoder and of the encoder. None: one for the decoder, the encoder all cores.
    session_options:
        For the encoder's and the decoder's sessions, used as they are; the threads are then set there.
    layout, variant, durations, network, kernels, precision, search, providers:
        As for `Decoder.from_bundle`; the variant chooses the encoder's file too, and the providers serve both.

    Raises
    ------
    BundleError
        If the directory cannot be used; the message names the file and the field.
    InputError, DeviceError, MissingDependencyError
        If there is no such model, or an option cannot be had.
    """
    if device not in DEVICES:
        raise InputError(f"no device {device!r}: {', '.join(DEVICES)}")
    bundle = read_bundle(find_model(name_or_directory, variant), layout, variant, durations)

    def on(device: str) -> Recognizer:
        decoder = Decoder.from_bundle(
            bundle, device=device, network=network, kernels=kernels, precision=precision,
            threads=1 if threads is None else threads, search=search, session_options=session_options,
            providers=providers,
        )  # fmt: skip
        return Recognizer(bundle, Encoder(bundle, threads, session_options, providers, device), decoder)

    if device == "both":
        return RoutedRecognizer(on("cpu"), on("cuda"))
    if device != "auto":
        return on(device)
    try:
        model = on("cuda")
    except (DeviceError, MissingDependencyError) as error:
        _log.info("device: cpu, since cuda cannot be used: %s", error)
        return on("cpu")
    _log.info("device: cuda (%s)", current_device().name)
    return model
