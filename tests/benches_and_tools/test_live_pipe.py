"""The bench that plays a recording into `listen`: every event has the moment when it came."""

from __future__ import annotations

import sys

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("soundfile", reason="soundfile is not installed")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_a_recording_is_played_in_real_time():
    from benches.live_pipe import DEMO, events
    from tdtdecode.speech.audio import read_audio

    samples = (read_audio(DEMO, 8000)[: 8000 * 2] * 32767).astype(np.int16)
    found = events(samples, 8000, 400, ["--chunk", "0.4", "--right", "0.4"])
    assert [event["finished"] for event in found] == [False] * (len(found) - 1) + [True] and len(found) > 1
    assert found[-1]["heard"] == 2.0
    # Nothing is heard before it is sent.
    assert all(event["came"] >= event["heard"] - 0.06 for event in found)
