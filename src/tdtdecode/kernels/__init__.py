"""The search kernels: which sets exist, which this machine can run, and stepwise search over plain joint rows.

A kernel set has two functions for greedy search, ``decide`` (joint row -> decision) and ``advance`` (decision -> next
frame), specified in `reference.py`; and a class for beam search, specified in `reference_beam.py`. All sets give the
same tokens, frames and durations. Their log-probs are equal within rounding.

>>> from tdtdecode import Greedy, TransducerSpec, kernels
>>> search = kernels.GreedySearch(TransducerSpec(vocab_size=1024), Greedy(), lengths=[50, 42], kernels="cpu")
>>> while search.pending:                                # doctest: +SKIP
...     rows = joint(search.slots, search.frames)        # float32 [N, V + 1 + D]
...     emitted = search.step(rows)                      # then run the predictor on the slots that emitted
"""

from .beam import BeamSearch
from .greedy import GreedySearch
from .sets import KernelSet, available, get

__all__ = ["BeamSearch", "GreedySearch", "KernelSet", "available", "get"]
