import numpy as np

from ..allowed import Masks
from ..transducer import RowLayout

def instruction_sets() -> list[tuple[str, bool]]: ...
def rank_row(isa: str) -> int: ...

class RowDecider:
    def __init__(self, isa: str) -> None: ...
    def __call__(
        self,
        rows: np.ndarray,
        layout: RowLayout,
        options: np.void,
        masks: Masks,
        decisions: np.ndarray,
        logprobs: np.ndarray,
    ) -> None: ...

def advance(
    queue: np.ndarray,
    count: int,
    decisions: np.ndarray,
    logprobs: np.ndarray,
    blank: int,
    options: np.void,
    hold: bool,
    positions: np.ndarray,
    log: np.ndarray,
    log_logprobs: np.ndarray,
    cursor: int,
) -> tuple[int, int]: ...
