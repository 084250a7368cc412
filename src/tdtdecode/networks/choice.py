"""Which network decodes a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..bundle.description import Bundle
from ..bundle.lifting import CannotLift, lift
from ..bundle.lifting.dequantize import dequantized
from ..bundle.transducers import CombinedTransducer, SplitTransducer, arithmetic
from ..errors import BundleError, InputError
from ..weights import TransducerWeights
from . import Network
from .agreement import deviation
from .fused import PRECISIONS as CPU_PRECISIONS
from .fused import FusedNetwork
from .ort import OrtNetwork

if TYPE_CHECKING:
    import onnxruntime as ort

    from ..kernels import KernelSet

NETWORKS = ("auto", "ort", "fused")
PRECISIONS = {"cpu": CPU_PRECISIONS, "cuda": ("float32", "float16", "bfloat16")}

TOLERANCE = {"float32": 1e-4, "float16": 3e-2, "bfloat16": 2e-1}
"""Largest deviation (`networks.agreement.deviation`) of lifted weights from their graph, by the graph's arithmetic."""


def bundle_network(
    bundle: Bundle,
    kernels: KernelSet,
    network: str = "auto",
    precision: str = "float32",
    threads: int = 1,
    session_options: ort.SessionOptions | None = None,
    providers: Sequence[Any] | None = None,
    device: str = "cpu",
) -> Network:
    """The network of that name for a bundle; ``"auto"`` is ``"fused"`` where it can be had, else ``"ort"``.

    Raises
    ------
    InputError
        If there is no such network or precision, or they do not go together.
    BundleError
        If the weights cannot be lifted and ``"fused"``, or a precision that only it has, is asked for.
    DeviceError, MissingDependencyError
        On cuda, if there is no card, or what the network needs is missing.
    """
    if network not in NETWORKS:
        raise InputError(f"no network {network!r} for a bundle on the {device}: {', '.join(NETWORKS)}")
    if precision not in PRECISIONS[device]:
        advice = ": choose float16, which is as fast" if (device, precision) == ("cuda", "int8") else ""
        raise InputError(f"no precision {precision!r} on the {device}{advice} ({', '.join(PRECISIONS[device])})")
    if device == "cuda" and providers is not None:
        raise InputError("providers and device='cuda' cannot both be given: the device chooses the provider")
    if precision != "float32" and network == "ort":
        raise InputError(
            f"network 'ort' computes as the graphs are stored, so precision={precision!r} cannot be asked of it: "
            "choose files by variant, or network='fused'"
        )
    if network == "fused" or precision != "float32":
        try:
            return _fused(bundle, precision, threads, device)
        except CannotLift as error:
            wanted = "network='fused'" if network == "fused" else f"precision={precision!r}"
            raise BundleError(f"{wanted} cannot be had: {error}; use network='ort'", file=bundle.directory) from None
    if network == "auto" and (kernels.isa is not None or device == "cuda"):
        try:
            return _fused(bundle, precision, threads, device)
        except CannotLift:
            pass  # `tdtdecode info` tells why
    if device == "cuda":
        from .cuda.ort import OrtCudaNetwork

        return OrtCudaNetwork(bundle.transducer, session_options)
    return OrtNetwork(bundle.transducer, threads, session_options, providers)


def _fused(bundle: Bundle, precision: str, threads: int, device: str) -> Network:
    if device == "cpu":
        return fused_network(bundle, precision, threads)
    from .cuda.fused import FusedCudaNetwork

    return FusedCudaNetwork(lifted_weights(bundle), bundle.spec, precision)


def fused_network(bundle: Bundle, precision: str = "float32", threads: int = 1) -> FusedNetwork:
    """The fused network of a bundle on the CPU; its weights are `lifted_weights`."""
    return FusedNetwork(lifted_weights(bundle), bundle.spec, precision, threads)


def lifted_weights(bundle: Bundle) -> TransducerWeights:
    """The weights of a bundle's predictor and joint, checked on random input against the graphs they come from.

    Quantised graphs are compared with their dequantised copy in float32.

    Raises
    ------
    CannotLift
        If the graphs' structure is not that of a known transducer, or the weights give other rows; it says why.
    """
    weights = lift(bundle.transducer)
    plain = FusedNetwork(weights, bundle.spec)
    found = deviation(OrtNetwork(_plain(bundle.transducer)), plain, bundle.spec, weights.encoder.weight.shape[1])
    allowed = TOLERANCE[arithmetic(bundle.transducer)]
    if not found <= allowed:
        raise CannotLift(
            f"the weights found in the graphs give other rows than the graphs (deviation {found:.2g}, at most "
            f"{allowed:g} is rounding): please report this model"
        )
    return weights


def _plain(transducer: SplitTransducer | CombinedTransducer) -> SplitTransducer:
    """The transducer in floating point."""
    assert isinstance(transducer, SplitTransducer)  # the others are not lifted
    return SplitTransducer(
        replace(transducer.predictor, graph=dequantized(transducer.predictor.graph)),
        replace(transducer.joint, graph=dequantized(transducer.joint.graph)),
    )
