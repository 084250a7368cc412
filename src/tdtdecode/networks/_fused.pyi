import numpy as np

from ..allowed import Masks
from .packing import PackedMatrix, PackedNetwork

def widens_halves(isa: str) -> bool: ...
def screened_slots(isa: str) -> int: ...
def read_seconds(isa: str, memory: np.ndarray, threads: int, repeats: int) -> float: ...

def product(packed: PackedMatrix, isa: str, rows: np.ndarray, out: np.ndarray) -> None: ...

class CompiledNetwork:
    def __init__(self, packed: PackedNetwork, isa: str) -> None: ...
    def greedy(
        self,
        utterances: list[np.ndarray],
        order: np.ndarray,
        positions: np.ndarray,
        prediction: np.ndarray,
        hidden: np.ndarray,
        cell: np.ndarray,
        options: np.void,
        masks: Masks,
        threads: int,
        counts: np.ndarray | None = None,
        nanoseconds: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]: ...
    def beam(
        self,
        address: int,
        utterances: list[np.ndarray],
        order: np.ndarray,
        lengths: np.ndarray,
        places: np.ndarray,
        prediction: np.ndarray,
        hidden: np.ndarray,
        cell: np.ndarray,
        threads: int,
        keep: bool,
        counts: np.ndarray | None = None,
        nanoseconds: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None: ...
