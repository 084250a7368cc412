"""What a server allows its clients, and how it gathers their requests."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from ..arguments import as_integer, as_number


def _limit(default: Any, least: float, unit: str, help: str) -> Any:
    kind = int if isinstance(least, int) else float
    return field(default=default, metadata={"least": least, "unit": unit, "help": help, "type": kind})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Limits, and how batches are formed. Each is an option of ``tdtdecode serve``.

    Raises
    ------
    InputError
        If one is not a number in its range.
    """

    max_upload: int = _limit(25 << 20, 1, "BYTES", "the largest request body; OpenAI's own limit is the default")
    max_seconds: float = _limit(7200.0, 1.0, "S", "the longest recording, and the longest live session")
    max_requests: int = _limit(256, 1, "N", "requests that are received, wait or are computed; more are told to retry")
    max_sessions: int = _limit(64, 1, "N", "live sessions at a time; more are told to retry")
    upload_timeout: float = _limit(60.0, 0.01, "S", "the longest time in which a request must have arrived")
    request_timeout: float = _limit(600.0, 0.01, "S", "the longest time from its arrival until a request is answered")
    shutdown_timeout: float = _limit(60.0, 0.01, "S", "when told to end: the longest time for what is under way")
    batch_size: int | None = _limit(None, 1, "N", "the most recordings in a batch (default: what suits the device)")
    batch_wait: float = _limit(0.02, 0.0, "S", "a recording waits so long for others that are being read, to share a "
                               "batch with them")  # fmt: skip

    def __post_init__(self) -> None:
        for option in fields(self):
            value, least = getattr(self, option.name), option.metadata["least"]
            if value is None and option.default is None:
                continue
            if option.metadata["type"] is int:
                value = as_integer(option.name, value, low=least)
            else:
                value = as_number(option.name, value, f"a number of at least {least}", low=least, high=1e9)
            object.__setattr__(self, option.name, value)
