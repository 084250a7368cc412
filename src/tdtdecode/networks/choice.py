"""Chooses the network that decodes a bundle."""

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
    if network not in NETWORKS:
        raise InputError(f"no network {network!r} for a bundle on the {device}: {', '.join(NETWORKS)}")
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
    if network == "fused" or precision != "float32":
        try:
            return _fused(bundle, precision, threads, device)
        except CannotLift as error:
            wanted = "network='fused'" if network == "fused" else f"precision={precision!r}"
            raise BundleError(f"{wanted} is not possible: {error}; use network='ort'", file=bundle.directory) from None
    if network == "auto" and (kernels.isa is not None or device == "cuda"):
        try:
            return _fused(bundle, precision, threads, device)
        except CannotLift:
            pass  # `tdtdecode info` says why
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
