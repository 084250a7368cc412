"""The Realtime protocol, spoken with OpenAI's own client."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.serve.session import decoded
from tests.demo import recordings
from tests.serve.running import HANGING, running

openai = pytest.importorskip("openai", reason="OpenAI's client is not installed")

RATE = 24_000
TRANSCRIPTION = "conversation.item.input_audio_transcription"


@pytest.fixture(scope="module")
def said() -> tuple[np.ndarray, str]:
    """Speech at 24 kHz, int16, and its text as a stream finds it."""
    soxr = pytest.importorskip("soxr", reason="soxr is not installed")
    samples, text = recordings()["known-2.flac"]
    return (soxr.resample(samples, 16_000, RATE) * 32767).clip(-32768, 32767).astype(np.int16), text


def append(connection, samples, seconds=0.2, rate=RATE):
    step = int(seconds * rate)
    for start in range(0, len(samples), step):
        connection.input_audio_buffer.append(audio=base64.b64encode(samples[start : start + step].tobytes()).decode())


def until(connection, kind):
    """The events up to the first of a kind."""
    events = []
    while True:
        events.append(json.loads(connection.recv_bytes()))
        if events[-1]["type"] == kind:
            return events


def connect(server, **options):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=options.pop("key", "none"))
    return client.realtime.connect(extra_query={"intent": "transcription"}, **options)


def set_to(connection, include=None, **given):
    session = {"type": "transcription", "audio": {"input": given}, **({"include": include} if include else {})}
    connection.session.update(session=session)


MANUAL = {"turn_detection": None}


def test_append_commit_deltas_completed(served, said, model):
    samples, text = said
    stream = model.stream()
    stream.feed(samples, RATE)
    expected = stream.finish()
    with connect(served) as connection:
        created = connection.recv()
        assert created.type == "session.created" and created.session.type == "transcription"
        set_to(connection, **MANUAL)
        updated = until(connection, "session.updated")[-1]["session"]["audio"]["input"]
        assert updated["turn_detection"] is None and updated["format"] == {"type": "audio/pcm", "rate": RATE}
        append(connection, samples)
        connection.input_audio_buffer.commit()
        events = until(connection, f"{TRANSCRIPTION}.completed")
        completed = events[-1]
        assert completed["transcript"] == expected.text == text
        assert completed["usage"] == {"type": "duration", "seconds": int(np.ceil(len(samples) / RATE))}
        deltas = [event["delta"] for event in events if event["type"] == f"{TRANSCRIPTION}.delta"]
        assert "".join(deltas) == text and len(deltas) > 1
        assert {event["item_id"] for event in events if "item_id" in event} == {completed["item_id"]}
        (committed,) = [event for event in events if event["type"] == "input_audio_buffer.committed"]
        assert committed["previous_item_id"] is None
        # A second item, after the first.
        append(connection, samples)
        connection.input_audio_buffer.commit()
        events = until(connection, f"{TRANSCRIPTION}.completed")
        assert events[-1]["transcript"] == text and events[-1]["item_id"] != completed["item_id"]
        (committed,) = [event for event in events if event["type"] == "input_audio_buffer.committed"]
        assert committed["previous_item_id"] == completed["item_id"]


def test_the_server_commits_after_a_pause(served, said):
    samples, text = said
    quiet = np.random.default_rng(0).normal(0, 3, 3 * RATE).astype(np.int16)
    with connect(served, model="demo") as connection:
        until(connection, "session.created")
        set_to(connection, include=["item.input_audio_transcription.words"],
               turn_detection={"type": "server_vad", "silence_duration_ms": 600, "threshold": 0.5})
        updated = until(connection, "session.updated")[-1]["session"]
        assert updated["audio"]["input"]["turn_detection"] == {"type": "server_vad", "silence_duration_ms": 600}
        append(connection, np.concatenate([samples, quiet]))
        events = until(connection, f"{TRANSCRIPTION}.completed")
        assert events[-1]["transcript"].startswith(text.split(" and ")[0])
        kinds = [event["type"] for event in events]
        assert kinds.index("input_audio_buffer.speech_started") < kinds.index(f"{TRANSCRIPTION}.delta")
        assert kinds.index("input_audio_buffer.speech_stopped") < kinds.index("input_audio_buffer.committed")
        words = [word for event in events for word in event.get("words", ())]
        assert " ".join(word["word"] for word in words) == events[-1]["transcript"]
        (started,) = [event for event in events if event["type"] == "input_audio_buffer.speech_started"]
        assert started["audio_start_ms"] == round(words[0]["start"] * 1000)


def test_tentative_text_comes_where_it_is_asked_for(served, said):
    samples, text = said
    with connect(served) as connection:
        until(connection, "session.created")
        set_to(connection, include=["item.input_audio_transcription.tentative"], **MANUAL)
        until(connection, "session.updated")
        append(connection, samples)
        tentative = until(connection, f"{TRANSCRIPTION}.tentative")[-1]
        assert tentative["text"]


def test_clearing_forgets_what_was_said(served, said):
    samples, text = said
    with connect(served) as connection:
        until(connection, "session.created")
        set_to(connection, **MANUAL)
        append(connection, samples[: 2 * RATE])
        connection.input_audio_buffer.clear()
        until(connection, "input_audio_buffer.cleared")
        append(connection, samples)
        connection.input_audio_buffer.commit()
        assert until(connection, f"{TRANSCRIPTION}.completed")[-1]["transcript"] == text


def test_telephone_speech(served, said):
    """G.711: the codes of both laws are decoded as the standard says, and are understood."""
    mulaw, alaw = (decoded(bytes(range(256)), kind).astype(int) for kind in ("audio/pcmu", "audio/pcma"))
    assert (mulaw[0], mulaw[0x7F], mulaw[0x80], mulaw[0xFF]) == (-32124, 0, 32124, 0)
    assert (alaw[0xD5], alaw[0x55], alaw[0xAA], alaw[0x2A]) == (8, -8, 32256, -32256)
    samples, text = recordings()["known-2.flac"]
    soxr = pytest.importorskip("soxr", reason="soxr is not installed")
    slow = soxr.resample(samples, 16_000, 8_000) * 32767
    for kind, table in (("audio/pcmu", mulaw), ("audio/pcma", alaw)):
        order = np.argsort(table, kind="stable")
        places = np.searchsorted(table[order], slow).clip(0, 255)
        codes = order[places].astype(np.uint8)
        with connect(served) as connection:
            until(connection, "session.created")
            set_to(connection, format={"type": kind}, **MANUAL)
            until(connection, "session.updated")
            append(connection, codes, rate=8_000)
            connection.input_audio_buffer.commit()
            found = until(connection, f"{TRANSCRIPTION}.completed")[-1]["transcript"].split()
            assert len(set(found) & set(text.split())) >= 5


def test_mistakes_are_told_and_the_session_goes_on(served, said):
    with connect(served) as connection:
        until(connection, "session.created")

        def refused(event, code, param=None):
            connection._connection.send(event if isinstance(event, str) else json.dumps({"event_id": "e1", **event}))
            error = until(connection, "error")[-1]["error"]
            assert (error["code"], error["param"]) == (code, param)
            assert isinstance(event, str) or error["event_id"] == "e1"

        refused("{", "invalid_json")
        refused("[]", "missing_required_parameter", "type")
        refused({"type": "response.create"}, "unknown_event", "type")
        refused({"type": "input_audio_buffer.append", "audio": "?"}, "invalid_value", "audio")
        refused({"type": "input_audio_buffer.append", "audio": "QQ=="}, "invalid_value", "audio")
        refused({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty")
        place = "session.audio.input"

        def setting(**given):
            return {"type": "session.update", "session": {"type": "transcription", "audio": {"input": given}}}

        refused({"type": "session.update", "session": {"type": "realtime"}}, "invalid_value", "session.type")
        refused(setting(format={"type": "audio/mp3"}), "invalid_value", f"{place}.format.type")
        refused(setting(format={"type": "audio/pcm", "rate": 1}), "invalid_value", f"{place}.format.rate")
        refused(setting(turn_detection={"type": "semantic_vad"}), "invalid_value", f"{place}.turn_detection.type")
        refused(setting(noise_reduction={"type": "near_field"}), "invalid_value", f"{place}.noise_reduction")
        refused(setting(transcription={"model": "other"}), "model_not_found", "model")
        refused(setting(transcription={"prompt": "日本"}), "invalid_value", f"{place}.transcription.prompt")
        refused(setting(transcription={"delay": "low"}), "unknown_parameter", f"{place}.transcription.delay")
        append(connection, said[0][:RATE])
        refused(setting(**MANUAL), "buffer_not_empty", "session")


def test_many_sessions_advance_together(served, said):
    """Sessions share the calls of the encoder, and none hears another."""
    samples, text = said
    other, other_text = recordings()["known-1.flac"]
    found = {}

    async def speak(client, name, pieces, rate):
        async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
            given = {"format": {"type": "audio/pcm", "rate": rate}, **MANUAL}
            await connection.session.update(session={"type": "transcription", "audio": {"input": given}})
            for piece in pieces:
                await connection.input_audio_buffer.append(audio=base64.b64encode(piece.tobytes()).decode())
            await connection.input_audio_buffer.commit()
            async for event in connection:
                if event.type == f"{TRANSCRIPTION}.completed":
                    found[name] = event.transcript
                    return

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none") as client:
            slow = (other * 32767).astype(np.int16)
            await asyncio.gather(
                *(speak(client, f"a{i}", np.array_split(samples, 20 + i), RATE) for i in range(6)),
                *(speak(client, f"b{i}", np.array_split(slow, 10 + i), 16_000) for i in range(6)),
            )

    asyncio.run(all_of_them())
    stream = served.state.model.stream()
    stream.feed((other * 32767).astype(np.int16), 16_000)
    expected = stream.finish().text
    assert found == {f"a{i}": text for i in range(6)} | {f"b{i}": expected for i in range(6)}
    assert len(served.state.live._streams) == 0 and served.state.sessions.count == 0


def test_broken_connections_leave_nothing(model, said):
    with running(model) as server:
        connection = connect(server).enter()
        until(connection, "session.created")
        append(connection, said[0])
        connection._connection.socket.close()
        for _ in range(100 * HANGING):
            if server.state.sessions.count == 0 and len(server.state.live._streams) == 0:
                break
            threading.Event().wait(0.01)
        assert server.state.sessions.count == 0 and len(server.state.live._streams) == 0


def test_a_browser_says_the_key_as_a_protocol(model, caplog):
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect as bare

    with running(model, key="sesame") as server:
        url = f"ws://127.0.0.1:{server.port}/v1/realtime"
        with bare(url, subprotocols=["realtime", "openai-insecure-api-key.sesame"]) as connection:
            assert connection.subprotocol == "realtime"
            assert json.loads(connection.recv())["type"] == "session.created"
        for options in ({}, {"subprotocols": ["realtime", "openai-insecure-api-key.open"]},
                        {"origin": "https://evil.example"}):  # fmt: skip
            with pytest.raises(InvalidStatus) as caught:
                bare(url, **options)
            assert caught.value.response.status_code == (403 if "origin" in options else 401)
    assert not caplog.records


def test_too_many_sessions_and_too_long_ones(model, said):
    from websockets.exceptions import ConnectionClosed

    with running(model, limits={"max_sessions": 1, "max_seconds": 3.0}) as server:
        with connect(server) as connection:
            until(connection, "session.created")
            with pytest.raises(Exception, match="429"):
                connect(server).enter()
            with contextlib.suppress(ConnectionClosed):  # the server does not wait for the rest
                append(connection, said[0])
            assert until(connection, "error")[-1]["error"]["code"] == "session_too_long"
            with pytest.raises(ConnectionClosed):
                connection.recv()
            connection._connection.close_socket()
        assert "tdtdecode_live_sessions" in server.get("/metrics")[2].decode()


def test_a_server_that_ends_tells_what_was_heard(said):
    samples, text = said
    with running(tdt.load_model("demo")) as server:
        connection = connect(server).enter()
        until(connection, "session.created")
        append(connection, samples)
        for _ in range(100 * HANGING):
            sessions = list(server.state.open_sessions)
            if sessions and sessions[0].seconds > len(samples) / RATE - 0.01:
                break
            threading.Event().wait(0.01)
        ended = threading.Thread(target=lambda: found.extend(until(connection, f"{TRANSCRIPTION}.completed")))
        found: list = []
        ended.start()
    ended.join(HANGING)
    assert found[-1]["transcript"] == text
    connection.close()
