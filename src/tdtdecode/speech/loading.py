"""From a model directory to a recognizer on a device."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from ..arguments import as_choice, as_flag, as_instance, as_integer
from ..bundle import Bundle, read_bundle
from ..bundle.reading import checked_reading
from ..cuda.device import current_device
from ..decoder import MAX_THREADS, Decoder, checked_kernels, log_files
from ..errors import NOTICE, DeviceError, InputError, MissingDependencyError, SlowerWarning
from ..networks.choice import check_network_options
from ..search import Beam, Greedy, as_search
from .encoder import Encoder
from .hub import find_model
from .recognizer import Recognizer
from .routing import RoutedRecognizer
from .streaming.cache_aware import CacheAwareEncoder

if TYPE_CHECKING:
    import onnxruntime as ort

DEVICES = ("cpu", "cuda", "auto", "both")

_log = logging.getLogger(__name__)


def load_model(
    name_or_directory: str | PathLike[str],
    *,
    device: str = "cpu",
    layout: str = "auto",
    variant: str | None = None,
    durations: Sequence[int] | None = None,
    big_blanks: Sequence[int] | None = None,
    network: str = "auto",
    kernels: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
    search: Greedy | Beam = Greedy(),
    session_options: ort.SessionOptions | None = None,
    providers: Sequence[Any] | None = None,
    tf32: bool = False,
    card_share: float = 0.25,
) -> Recognizer:
    """Load a whole model: features, encoder and decoder.

    Parameters
    ----------
    name_or_directory:
        ``"demo"``, a model directory in any layout, or a Hugging Face hub id (`tdtdecode.speech.hub.find_model`).
    device:
        ``"cpu"``, ``"cuda"``, ``"auto"`` or ``"both"``. ``"cuda"`` runs encoder and decoder on the card that CuPy
        uses. ``"auto"`` chooses cuda if there is a card and the packages that it needs, else the cpu; the log
        (``tdtdecode``, level INFO) says which and why. ``"both"`` holds the model on both devices and gives each call
        to the one that is faster for that much audio (`RoutedRecognizer`).
    threads:
        Threads of the encoder and of the decoder. None: all cores for the encoder, one thread for the decoder.
    session_options:
        ONNX Runtime options for the sessions of encoder and decoder, in place of this package's. Their number of
        threads is then the one set there.
    layout, variant, durations, big_blanks, network, kernels, precision, search, providers:
        As for `Decoder.from_bundle`. The variant chooses the encoder's file too, and the encoder uses the same
        providers.
    tf32:
        Whether products of float32 in the encoder are rounded to TF32 where it runs on a card (`Encoder`). That is
        several times as fast, and changes a few tokens.
    card_share:
        As for `Decoder.from_bundle`. There is far less to compute in the decoder than in the encoder, which goes on
        with the next batch meanwhile.

    Raises
    ------
    BundleError
        If the directory cannot be used; the message names the file and the field.
    InputError
        If there is no such model, or an option is wrong.
    DeviceError
        If the device cannot be used.
    MissingDependencyError
        If a package that the model, the network or the device needs is not installed.
    """
    as_choice("device", device, DEVICES)
    if threads is not None:
        as_integer("threads", threads, low=1, high=MAX_THREADS)
    as_search(search)
    if as_flag("tf32", tf32) and device == "cpu":
        raise InputError("tf32=True needs a card, got device='cpu': a CPU has no such arithmetic")
    checked_reading(layout, variant, durations, big_blanks)
    likely = ("cpu" if str(precision) == "int8" else "cuda",)
    for one in {"auto": likely, "both": ("cpu", "cuda")}.get(device, (device,)):
        check_network_options(network, precision, session_options, providers, one)
    if device == "cpu":
        checked_kernels(kernels, device)
    as_instance("kernels", kernels, str, "the name of a kernel set, such as 'auto' or 'cpu'")
    bundle = read_bundle(find_model(name_or_directory, variant), layout, variant, durations, big_blanks)
    log_files(bundle)

    def on(device: str) -> Recognizer:
        decoder = Decoder.from_bundle(
            bundle, device=device, network=network, kernels=kernels, precision=precision,
            threads=1 if threads is None else threads, search=search, session_options=session_options,
            providers=providers, card_share=card_share,
        )  # fmt: skip
        encoder = open_encoder(
            bundle, threads=threads, session_options=session_options, providers=providers, device=device,
            tf32=tf32 and device == "cuda",
        )  # fmt: skip
        return Recognizer(bundle, encoder, decoder)

    if device == "both":
        return RoutedRecognizer(on("cpu"), on("cuda"))
    if device != "auto":
        return on(device)
    try:
        model = on("cuda")
    except (DeviceError, MissingDependencyError) as error:
        text = f"device: cpu, since cuda cannot be used: {error}"
        card = _has_card()
        if card:
            warnings.warn(text, SlowerWarning, stacklevel=2)
        _log.log(logging.INFO if card else NOTICE, "%s", text)
        return on("cpu")
    _log.log(NOTICE, "device: cuda (%s)", current_device().name)
    return model


def open_encoder(bundle: Bundle, **options: Any) -> Encoder:
    """The encoder of a bundle; options as for `Encoder`."""
    return (CacheAwareEncoder if bundle.cache_aware else Encoder)(bundle, **options)


def _has_card() -> bool:
    """Whether there is a card that would be faster, if all that it needs were installed."""
    try:
        current_device()
    except (DeviceError, MissingDependencyError):
        return False
    return True
