"""Models of onnx-asr, with this package's decoder behind them.

>>> import onnx_asr
>>> from tdtdecode.integrations.onnx_asr import accelerate
>>> model = accelerate(onnx_asr.load_model("nemo-parakeet-tdt-0.6b-v3"))       # doctest: +SKIP
>>> model.with_timestamps().recognize(["a.wav", "b.wav"])                      # doctest: +SKIP
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..arguments import as_integer, as_path
from ..bundle import Bundle, CombinedTransducer, read_bundle
from ..decoder import MAX_THREADS, Decoder, checked_kernels
from ..errors import InputError, MissingDependencyError, UnsupportedVersionError
from ..networks.choice import check_network_options
from ..search import Beam, Greedy, as_search

SUPPORTED = "0.12"
"""The releases of onnx-asr that this module is tested with. It replaces a private part of them."""

_log = logging.getLogger(__name__)

Adapter = TypeVar("Adapter")

_GRAPH = re.compile(r"decoder_joint-model(?:[._-](?P<variant>\w+))?\.onnx")


def accelerate(
    model: Adapter,
    directory: str | PathLike[str] | None = None,
    *,
    network: str = "auto",
    kernels: str = "auto",
    precision: str = "float32",
    threads: int = 1,
    search: Greedy | Beam | None = None,
) -> Adapter:
    """Put this package's decoder behind a model of onnx-asr.

    Returns a copy of the model that decodes with this package. Its options, timestamps, batches and VAD work as before,
    and with the default arguments its results are the same. The model given does not change; both share the encoder.

    Parameters
    ----------
    model:
        What ``onnx_asr.load_model`` returned for a NeMo TDT or RNN-T model, with or without timestamps and VAD.
    directory:
        The folder of the model's files. None: the folder that onnx-asr loaded them from.
    network, kernels, precision, threads:
        As for `Decoder.from_bundle`, with one exception: ``network="auto"`` in float32 leaves quantised graphs to ONNX
        Runtime (``"ort"``), so that the results stay the same.
    search:
        Default: greedy search with onnx-asr's limit of tokens per frame (``max_tokens_per_step`` in the model's
        ``config.json``, else 10).

    Like onnx-asr, this takes the index of a duration as its number of frames.

    Raises
    ------
    MissingDependencyError
        If onnx-asr is not installed, or a package that the network needs.
    UnsupportedVersionError
        If the installed release of onnx-asr is not supported.
    InputError
        If `model` is something else, or its files cannot be found.
    BundleError
        If the files cannot be used.
    """
    _check_version()
    from onnx_asr.adapters import AsrAdapter
    from onnx_asr.models.nemo import NemoConformerRnnt, NemoConformerTdt

    if not isinstance(model, AsrAdapter):
        raise InputError(f"model must be what onnx_asr.load_model returned, got {type(model).__name__}")
    if directory is not None:
        as_path("directory", directory, "the path of the folder with the model's files")
    as_integer("threads", threads, low=1, high=MAX_THREADS)
    if search is not None:
        as_search(search)
    check_network_options(network, precision, None, None, "cpu")
    checked_kernels(kernels, "cpu")
    asr = model.asr
    if not isinstance(asr, NemoConformerRnnt):
        raise InputError(
            f"model is a {type(asr).__name__}, which is not a NeMo transducer: expected nemo-conformer-tdt or "
            "nemo-conformer-rnnt"
        )
    graph = _graph_file(asr, directory)
    bundle = _bundle(graph, tdt=isinstance(asr, NemoConformerTdt))
    if network == "auto" and precision == "float32" and _quantized(bundle):
        network = "ort"
        _log.info("network: ort, so that a quantised model gives the results of onnx-asr; network='fused' is faster")
    decoder = Decoder.from_bundle(
        bundle, network=network, kernels=kernels, precision=precision, threads=threads,
        search=search or Greedy(max_symbols=asr._max_tokens_per_step),
    )  # fmt: skip
    fast_asr, fast_model = copy.copy(asr), copy.copy(model)
    # The only place that is replaced: the method that turns encoder output into tokens, frames and log-probs.
    fast_asr.__dict__["_decoding"] = _Decoding(decoder, asr.use_low_precision)
    fast_model.asr = fast_asr
    return fast_model


class _Decoding:
    """Replaces onnx-asr's decoding loop."""

    def __init__(self, decoder: Decoder, lengths_may_overrun: bool):
        self._decoder = decoder
        self._lengths_may_overrun = lengths_may_overrun

    def __call__(
        self, encoder_out: np.ndarray, encoder_out_lens: np.ndarray, /, **options: Any
    ) -> Iterator[tuple[list[int], list[int], Sequence[float] | None]]:
        """Tokens, frames and, if asked for, log-probs of each utterance of ``encoder_out`` [B, T, E]."""
        if self._lengths_may_overrun:  # TensorRT in low precision may return wrong lengths
            encoder_out_lens = np.minimum(encoder_out_lens, encoder_out.shape[1])
        for hypothesis in self._decoder.decode(encoder_out.transpose(0, 2, 1), encoder_out_lens):
            logprobs = hypothesis.token_logprobs.tolist() if options.get("need_logprobs") else None
            yield hypothesis.tokens.tolist(), hypothesis.frames.tolist(), logprobs


def _check_version() -> None:
    try:
        found = version("onnx-asr")
    except PackageNotFoundError:
        raise MissingDependencyError("onnx-asr", "onnx-asr", "tdtdecode.integrations.onnx_asr") from None
    if found.split(".")[:2] != SUPPORTED.split("."):
        raise UnsupportedVersionError("onnx-asr", found, f"{SUPPORTED}.*")


def _graph_file(asr: Any, directory: str | PathLike[str] | None) -> Path:
    """The combined graph that a model was loaded from."""
    loaded = getattr(asr._decoder_joint, "_model_path", None)
    if not loaded:
        raise InputError(
            "the model's decoder session does not tell which file it was loaded from; load the model with "
            "onnx_asr.load_model"
        )
    return Path(loaded) if directory is None else Path(directory, Path(loaded).name)


def _bundle(graph: Path, tdt: bool) -> Bundle:
    match = _GRAPH.fullmatch(graph.name)
    if match is None:
        raise InputError(f"{graph}: expected a file named decoder_joint-model.onnx, or a variant of it")
    return read_bundle(graph.parent, "combined", match["variant"], None if tdt else ())


def _quantized(bundle: Bundle) -> bool:
    transducer = bundle.transducer
    if isinstance(transducer, CombinedTransducer):
        return transducer.graph.quantized
    return transducer.predictor.graph.quantized or transducer.joint.graph.quantized
