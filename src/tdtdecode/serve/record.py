"""The log: a line of JSON for each request, without what was said."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any, TextIO


@dataclass
class Record:
    """What is known of a request when it ends.

    Attributes
    ----------
    id:
        A name of the request, which its response has as ``x-request-id``.
    endpoint:
        What was asked for, of a few; paths that do not exist share one.
    details:
        What an endpoint adds: never audio, text or keys.
    text:
        What was said, for a log that is asked for it.
    """

    id: str
    method: str
    client: str
    endpoint: str = "unknown"
    status: int = 0
    begin: float = field(default_factory=time.perf_counter)
    details: dict[str, Any] = field(default_factory=dict)
    text: str | None = None


class Log:
    """Writes records.

    Parameters
    ----------
    with_text:
        Whether what was said is written.
    """

    def __init__(self, with_text: bool, stream: TextIO | None = None):
        self._with_text, self._stream = with_text, stream

    def write(self, record: Record) -> None:
        """Write a line. If it cannot be written, as the disk is full, the server goes on."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "id": record.id, "method": record.method,
            "endpoint": record.endpoint, "status": record.status, "client": record.client,
            "seconds": round(time.perf_counter() - record.begin, 4), **record.details,
        }  # fmt: skip
        if self._with_text and record.text is not None:
            line["text"] = record.text
        try:
            print(json.dumps(line, ensure_ascii=False), file=self._stream or sys.stdout, flush=True)
        except OSError:
            pass
