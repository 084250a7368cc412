"""``POST /v1/audio/transcriptions``, asked by OpenAI's own client: the answers are those of `recognize`."""

from __future__ import annotations

import asyncio
import io
import json

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.serve import transcriptions
from tdtdecode.serve.answers import Deltas
from tdtdecode.serve.transcriptions import phrases_of
from tdtdecode.speech.formats import FORMATS
from tests.demo import recordings
from tests.serve.running import form, running, wav

openai = pytest.importorskip("openai", reason="OpenAI's client is not installed")


@pytest.fixture(scope="module")
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def transcript(model, speech):
    return model.recognize(speech)


def named(content: bytes, name: str = "speech.flac") -> tuple[str, bytes]:
    return name, content


def test_json(client, speech, transcript):
    found = client.audio.transcriptions.create(model="demo", file=named(speech))
    assert (found.text, found.usage.type, found.usage.seconds) == (transcript.text, "duration", 10)


@pytest.mark.parametrize("wrong", [{}, {"temperature": "hot"}])
def test_uploads_are_closed(served, speech, monkeypatch, wrong):
    """Also those of a request that is refused."""
    files = []

    received = transcriptions.received

    async def noting(*arguments):
        found = await received(*arguments)
        files.append(found["file"].file)
        return found

    monkeypatch.setattr(transcriptions, "received", noting)
    status, _, _ = served.request("POST", "/v1/audio/transcriptions", *form({"model": "demo", **wrong}, speech))
    assert status == (400 if wrong else 200)
    assert [file.closed for file in files] == [True]


@pytest.mark.parametrize(("format", "ours"), [("text", "txt"), ("srt", "srt"), ("vtt", "vtt")])
def test_texts(client, speech, transcript, format, ours):
    found = client.audio.transcriptions.create(model="demo", file=named(speech), response_format=format)
    assert found == FORMATS[ours].render(transcript, "")


def test_words_and_segments(client, speech, transcript):
    found = client.audio.transcriptions.create(
        model="demo", file=named(speech), response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert (found.text, found.duration) == (transcript.text, pytest.approx(transcript.duration, abs=1e-3))
    assert [(one.word, one.start, one.end) for one in found.words] == [
        (word.text, pytest.approx(word.start, abs=1e-3), pytest.approx(word.end, abs=1e-3)) for word in transcript.words
    ]
    assert " ".join(one.text for one in found.segments) == transcript.text
    assert sum((one.tokens for one in found.segments), []) == transcript.hypothesis.tokens.tolist()
    assert [one.id for one in found.segments] == [0, 1, 2]
    texts = [tdt.load_model("demo").decoder.detokenize(one.tokens) for one in found.segments]
    assert texts == [one.text for one in found.segments]
    assert all(one.avg_logprob <= 0 and one.start < one.end for one in found.segments)


def test_granularities_leave_out_what_is_not_asked_for(client, speech):
    only_words = client.audio.transcriptions.create(
        model="demo", file=named(speech), response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert only_words.segments is None and only_words.words
    default = client.audio.transcriptions.create(model="demo", file=named(speech), response_format="verbose_json")
    assert default.words is None and default.segments


def test_a_stream(client, speech, transcript):
    events = list(client.audio.transcriptions.create(model="demo", file=named(speech), stream=True))
    assert events[-1].type == "transcript.text.done" and events[-1].text == transcript.text
    assert "".join(event.delta for event in events[:-1]) == transcript.text


def test_a_long_recording_is_told_window_by_window(speech):
    model = tdt.load_model("demo")
    model._max_input_frames = 1000  # it goes through windows, as with an encoder that takes 10 s at a time
    long = np.tile(tdt.speech.audio.read_audio(io.BytesIO(speech)), 5)
    model._windows = tdt.speech.windows.Windows(12, 60, 12)
    expected = model.recognize((long, 16_000)).text
    with running(model) as served, openai.OpenAI(base_url=f"{served.url}/v1", api_key="none") as client:
        events = list(client.audio.transcriptions.create(model="demo", file=named(wav(long)), stream=True))
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == expected
    assert len(events) > 4


def test_many_at_once_are_answered_as_one_by_one(served, model):
    samples = [one for one, _ in recordings().values()]
    uploads = [wav(one) for one in samples] * 3
    expected = [model.recognize((one, 16_000)).text for one in samples] * 3
    before = served.state.metrics.rows._sum.get()

    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
            made = [
                client.audio.transcriptions.create(model="demo", file=named(one, "a.wav"), prompt="ten hours" * (i % 2))
                for i, one in enumerate(uploads)
            ]
            return [one.text for one in await asyncio.gather(*made)]

    assert asyncio.run(ask()) == expected
    assert served.state.metrics.rows._sum.get() - before == len(uploads)


def test_a_prompt_in_parts():
    found = phrases_of("Zoë, set a timer. New\nYork; list? at 7.30, Zoë", ["x y"])
    assert found == ("x y", "Zoë", "set a timer", "New", "York", "list", "at 7.30")


def test_a_prompt_is_a_list_of_phrases(served, client, model, monkeypatch):
    """The search of a request with a prompt is the one with these phrases."""
    seen = []
    decode = model.decoder.decode

    def noted(encoder_out, lengths=None, search=None):
        seen.append(search)
        return decode(encoder_out, lengths, search)

    monkeypatch.setattr(model.decoder, "decode", noted, raising=False)
    samples, _ = next(iter(recordings().values()))
    client.audio.transcriptions.create(model="demo", file=named(wav(samples), "a.wav"), prompt="alpha, beta gamma")
    (boost,) = seen[0].fusion
    assert boost.phrases == (("alpha", "beta gamma"),) and boost.ignore_case


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": "demo"}, "file", "missing_required_parameter"),
        ({"model": "demo", "file": "/etc/passwd"}, "file", "invalid_value"),
        ({"model": "demo", "file": "http://127.0.0.1/x.wav"}, "file", "invalid_value"),
        ({}, "model", "missing_required_parameter"),
        ({"model": "gpt-9"}, "model", "model_not_found"),
        ({"model": "demo", "response_format": "xml"}, "response_format", "invalid_value"),
        ({"model": "demo", "temperature": "hot"}, "temperature", "invalid_value"),
        ({"model": "demo", "temperature": "2"}, "temperature", "invalid_value"),
        ({"model": "demo", "stream": "maybe"}, "stream", "invalid_value"),
        ({"model": "demo", "stream": "true", "response_format": "srt"}, "stream", "invalid_value"),
        ({"model": "demo", "language": "../en"}, "language", "invalid_value"),
        ({"model": "demo", "timestamp_granularities[]": "word"}, "timestamp_granularities", "invalid_value"),
        ({"model": "demo", "prompt": "a," * 500 + "b" * 300}, "prompt", "invalid_value"),
        ({"model": "demo", "best_of": "5"}, "best_of", "unknown_parameter"),
    ],
)
def test_refusals_name_the_field(served, fields, param, code):
    status, _, body = served.request("POST", "/v1/audio/transcriptions", *form(fields))
    error = json.loads(body)["error"]
    assert (status, error["param"], error["code"]) == (404 if code == "model_not_found" else 400, param, code)
    assert error["type"] == "invalid_request_error" and error["message"]


def test_what_is_no_recording_is_the_clients_fault(client):
    with pytest.raises(openai.BadRequestError, match="not a recording") as caught:
        client.audio.transcriptions.create(model="demo", file=named(b"no audio at all" * 100, "a.wav"))
    assert (caught.value.param, caught.value.code) == ("file", "invalid_audio")
    # The same, if text was to be streamed: there is an ordinary response.
    with pytest.raises(openai.BadRequestError, match="not a recording"):
        client.audio.transcriptions.create(model="demo", file=named(b"no audio" * 100, "a.wav"), stream=True)


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 9999 RTP/AVP 0\n",
    ],
    ids=["m3u8", "ffconcat", "sdp"],
)
def test_lists_that_name_other_files_are_not_followed(client, content):
    with pytest.raises(openai.BadRequestError, match="not a recording"):
        client.audio.transcriptions.create(model="demo", file=named(content, "list.m3u8"))


def test_silence_and_nothing(client):
    for samples in (np.zeros(0, np.float32), np.zeros(800, np.float32)):
        found = client.audio.transcriptions.create(
            model="demo", file=named(wav(samples), "a.wav"), response_format="verbose_json"
        )
        assert (found.text, found.segments) == ("", [])


def test_the_models(client):
    assert [one.id for one in client.models.list()] == ["demo", "whisper-1"]
    assert client.models.retrieve("whisper-1").owned_by == "tdtdecode"
    with pytest.raises(openai.NotFoundError, match="no model 'other'"):
        client.models.retrieve("other")


def test_deltas_hold_back_the_last_word():
    deltas = Deltas()
    assert [deltas.more(text) for text in ("se", "set a", "set al", "set alarm for")] == ["", "set", "", " alarm"]
    assert deltas.rest("set alarm fortune") == " fortune"
