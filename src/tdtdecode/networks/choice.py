"""Chooses the network that decodes a bundle."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..arguments import as_choice, listed, refusal
from ..bundle.description import Bundle
from ..bundle.lifting import CannotLift, lift
from ..bundle.lifting.dequantize import dequantized
from ..bundle.packed import PackedModel
from ..bundle.transducers import CombinedTransducer, SplitTransducer, arithmetic
from ..errors import BundleError, InputError, SlowerWarning
from ..sessions import check_session_arguments
from ..transducer import TransducerSpec
from ..weights import TransducerWeights
from . import Network
from .agreement import deviation
from .fused import PRECISIONS as CPU_PRECISIONS
from .fused import FusedNetwork
from .ort import OrtNetwork

if TYPE_CHECKING:
    import onnxruntime as ort

    from ..kernels import KernelSet

_log = logging.getLogger(__name__)

NETWORKS = ("auto", "ort", "fused")
PRECISIONS = {"cpu": CPU_PRECISIONS, "cuda": ("float32", "float16", "bfloat16")}
ALL_PRECISIONS = tuple(dict.fromkeys(name for names in PRECISIONS.values() for name in names))

TOLERANCE = {"float32": 1e-4, "float16": 3e-2, "bfloat16": 2e-1}
"""The largest deviation (`agreement.deviation`) of lifted weights that can be rounding, by the graph's arithmetic."""


def bundle_network(
    bundle: Bundle,
    kernels: KernelSet,
    network: str = "auto",
    precision: str = "float32",
    threads: int = 1,
    session_options: ort.SessionOptions | None = None,
    providers: Sequence[Any] | None = None,
    device: str = "cpu",
    card_share: float = 1.0,
) -> Network:
    """The network of a name for a bundle. ``"auto"`` is ``"fused"`` if the weights can be lifted, else ``"ort"``.

    The parameters are those of `Decoder.from_bundle`.

    Raises
    ------
    InputError
        If there is no such network or precision, or two options exclude each other.
    BundleError
        If ``"fused"``, or a precision that only it has, is asked for, and the weights cannot be lifted.
    DeviceError, MissingDependencyError
        On cuda, if there is no card, or a package that the network needs is missing.
    """
    check_network_options(network, precision, session_options, providers, device)
    if network == "fused" or precision != "float32":
        try:
            return _fused(bundle, precision, threads, device, card_share)
        except CannotLift as error:
            wanted = "network='fused'" if network == "fused" else f"precision={precision!r}"
            raise BundleError(f"{wanted} is not possible: {error}; use network='ort'", file=bundle.directory) from None
    why = "as asked"
    if network == "auto" and (kernels.isa is not None or device == "cuda"):
        try:
            return _fused(bundle, precision, threads, device, card_share)
        except CannotLift as error:
            why = f"since the weights cannot be lifted: {error}"
            _warn(f"{bundle.directory}: network 'ort' decodes it, which is slower than 'fused', {why}")
    elif network == "auto":
        why = f"since 'fused' does not exist for kernels {kernels.name!r}"
    elif isinstance(bundle.transducer, CombinedTransducer):
        _warn(
            f"{bundle.directory}: predictor and joint run together for every joint row, which is slower, since the "
            f"graph cannot be split: {bundle.transducer.reason}"
        )
    _log.info("network: ort, %s", why)
    _log.info("precision: that of the graphs%s", _one_row_at_a_time(bundle))
    if device == "cuda":
        from .cuda.ort import OrtCudaNetwork

        return OrtCudaNetwork(bundle.transducer, session_options)
    return OrtNetwork(bundle.transducer, threads, session_options, providers)


def _warn(text: str) -> None:
    warnings.warn(text, SlowerWarning, stacklevel=4)


def _one_row_at_a_time(bundle: Bundle) -> str:
    quantized = [graph.file.name for graph in bundle.transducer.graphs if graph.quantized]
    if not quantized:
        return ""
    return f"; {', '.join(dict.fromkeys(quantized))} runs one joint row at a time, being dynamically quantised"


def check_network_options(
    network: str, precision: str, session_options: Any, providers: Sequence[Any] | None, device: str
) -> None:
    """Raise an InputError if an option of `bundle_network` is wrong, or two exclude each other."""
    as_choice("network", network, NETWORKS)
    if not isinstance(precision, str):
        raise refusal("precision", listed(map(repr, PRECISIONS[device])), precision)
    if precision not in PRECISIONS[device]:
        advice = ": choose float16, which is as fast" if (device, precision) == ("cuda", "int8") else ""
        raise InputError(f"no precision {precision!r} on the {device}{advice} ({', '.join(PRECISIONS[device])})")
    if device == "cuda" and providers is not None:
        raise InputError("providers and device='cuda' cannot both be given: the device chooses the provider")
    if precision != "float32" and network == "ort":
        raise InputError(
            f"network 'ort' computes in the precision of the graphs, so precision={precision!r} is not possible: "
            "choose other files by variant, or network='fused'"
        )
    check_session_arguments(session_options, providers)


def _fused(bundle: Bundle, precision: str, threads: int, device: str, card_share: float) -> Network:
    weights = lifted_weights(bundle)
    return _of_weights(weights, bundle.spec, precision, threads, device, card_share)


def _of_weights(
    weights: TransducerWeights, spec: TransducerSpec, precision: str, threads: int, device: str, card_share: float
) -> Network:
    _log.info("network: fused, %s", weights.sizes)
    _log.info("precision: %s%s", precision, " (exact)" if precision == "float32" else "")
    if device == "cpu":
        return FusedNetwork(weights, spec, precision, threads)
    from ..cuda.device import current_device
    from .cuda.fused import FusedCudaNetwork
    from .cuda.program import Launch

    return FusedCudaNetwork(weights, spec, precision, Launch.of(current_device(), card_share))


def packed_network(
    model: PackedModel,
    network: str = "auto",
    precision: str = "float32",
    threads: int = 1,
    session_options: ort.SessionOptions | None = None,
    providers: Sequence[Any] | None = None,
    device: str = "cpu",
    card_share: float = 1.0,
) -> Network:
    """The fused network of a model file. The parameters are those of `bundle_network`.

    Raises
    ------
    InputError
        If another network is asked for, or options of one.
    """
    check_network_options(network, precision, session_options, providers, device)
    if network == "ort" or session_options is not None or providers is not None:
        raise InputError(f"{model.path}: a model file has no graphs, so network 'ort' and its options are not possible")
    return _of_weights(model.weights, model.spec, precision, threads, device, card_share)


def fused_network(bundle: Bundle, precision: str = "float32", threads: int = 1) -> FusedNetwork:
    """The fused network of a bundle on the CPU, made of its `lifted_weights`."""
    return FusedNetwork(lifted_weights(bundle), bundle.spec, precision, threads)


def lifted_weights(bundle: Bundle) -> TransducerWeights:
    """The weights of a bundle's predictor and joint, checked on random input against the graphs that they come from.

    Weights of quantised graphs are checked against a dequantised copy of the graphs in float32.

    Raises
    ------
    CannotLift
        If the graphs do not have the structure of a known transducer, or the weights give other joint rows than the
        graphs. The message says which.
    """
    weights = lift(bundle.transducer)
    plain = FusedNetwork(weights, bundle.spec)
    found = deviation(OrtNetwork(_plain(bundle.transducer)), plain, bundle.spec, weights.encoder.weight.shape[1])
    allowed = TOLERANCE[arithmetic(bundle.transducer)]
    if not found <= allowed:
        raise CannotLift(
            f"the weights found in the graphs give other joint rows than the graphs (deviation {found:.2g}, at most "
            f"{allowed:g} can be rounding): please report this model"
        )
    return weights


def _plain(transducer: SplitTransducer | CombinedTransducer) -> SplitTransducer:
    """The transducer with its quantised graphs dequantised."""
    assert isinstance(transducer, SplitTransducer)  # the others are not lifted
    return SplitTransducer(
        replace(transducer.predictor, graph=dequantized(transducer.predictor.graph)),
        replace(transducer.joint, graph=dequantized(transducer.joint.graph)),
    )
