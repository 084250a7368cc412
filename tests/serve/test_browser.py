"""The page in a real browser: a recording is uploaded, dropped or spoken into a microphone that plays a file."""

from __future__ import annotations

import contextlib
import os
import shutil

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.cli import main
from tdtdecode.speech.audio import read_audio
from tests.demo import recordings
from tests.serve.running import HANGING, running, wav

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine: install chromium")


@contextlib.contextmanager
def opened(url, flags=(), **options):
    """A page in a new browser; it must ask nobody but the server, and report no error."""
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=[*sandbox, *flags])
        try:
            page = browser.new_context(**options).new_page()
            page.set_default_timeout(1000 * HANGING)
            asked, errors = [], []
            page.on("request", lambda request: asked.append(request.url))
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda message: message.type == "error" and errors.append(message.text))
            page.goto(url)
            yield page
            here = (url.rsplit("/", 1)[0], "blob:", "data:")
            assert not [one for one in asked if not one.startswith(here)]
            assert [error for error in errors if "401" not in error] == []
        finally:
            browser.close()


@pytest.fixture(scope="module")
def spoken() -> tuple[bytes, np.ndarray, str]:
    samples, text = recordings()["known-2.flac"]
    content = wav(samples)
    return content, read_audio(content), text


def upload(page, content, name="known-2.wav"):
    page.set_input_files("#file", {"name": name, "mimeType": "audio/wav", "buffer": content})
    page.wait_for_selector("#result:not([hidden])")
    page.wait_for_function("name => document.getElementById('status').textContent.startsWith(name)", arg=name)


def pieces_of(model, transcript):
    pieces = [model.bundle.vocabulary.pieces[token] for token in transcript.hypothesis.tokens.tolist()]
    return [piece.replace("\u2581", " ").strip() or "␣" for piece in pieces]


def test_an_upload_its_words_and_its_picture(served, model, spoken):
    content, samples, text = spoken
    transcript = model.recognize((samples, 16_000))
    features, lengths = model._extract([samples])
    (trace,) = model.decoder.trace(*model.encoder(features, lengths))
    with opened(f"{served.url}/") as page:
        upload(page, content)
        assert page.locator("#words").inner_text() == transcript.text == text
        assert page.locator("#picture .piece").all_text_contents() == pieces_of(model, transcript)
        assert page.locator("#picture .looked").count() == len(set(trace.frames.tolist()))
        skipped = page.locator("#picture .skipped").count()
        assert skipped == model.encoder(features, lengths)[1][0] - len(set(trace.frames.tolist()))
        assert page.locator("#picture .blank").count() == len(trace) - len(transcript.hypothesis)
        assert page.locator("#steps tbody tr").count() == len(trace)
        assert page.locator("#picture canvas").count() >= 1
        shade = page.locator(".word").first.evaluate("word => word.style.getPropertyValue('--in-doubt')")
        assert float(shade) == pytest.approx(min(1, 2 * (1 - transcript.words[0].confidence)), abs=2e-3)


def test_a_word_is_heard_by_mouse_and_by_keyboard(served, model, spoken):
    content, samples, _ = spoken
    words = model.recognize((samples, 16_000)).words
    with opened(f"{served.url}/", flags=["--autoplay-policy=no-user-gesture-required"]) as page:
        upload(page, content)
        page.evaluate("player.addEventListener('play', () => (window.from = player.currentTime))")
        page.locator(".word").nth(3).click()
        page.wait_for_function("() => window.from !== undefined && player.paused")
        assert page.evaluate("window.from") == pytest.approx(words[3].start - 0.05, abs=0.1)
        assert words[3].end - 0.1 < page.evaluate("player.currentTime") < words[3].end + 0.5
        page.evaluate("window.from = undefined")
        page.locator(".word").nth(4).focus()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_function("() => window.from !== undefined")
        assert page.evaluate("window.from") == pytest.approx(words[5].start - 0.05, abs=0.1)


def test_speaking_shows_text_while_one_speaks(served, spoken, tmp_path):
    content, samples, text = spoken
    file = tmp_path / "microphone.wav"
    file.write_bytes(wav(np.concatenate([samples, np.zeros(32_000, np.float32)]), 16_000))
    flags = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
             f"--use-file-for-fake-audio-capture={file}%noloop"]  # fmt: skip
    with opened(f"{served.url}/", flags=flags, permissions=["microphone"]) as page:
        page.evaluate("""() => {
          window.seen = {tentative: false, settled: false};
          new MutationObserver(() => {
            seen.tentative ||= tentative.textContent !== "";
            seen.settled ||= settled.textContent !== ""
              && document.getElementById("speak").getAttribute("aria-pressed") === "true";
          }).observe(live, {subtree: true, childList: true, characterData: true});
        }""")
        page.click("#speak")
        page.wait_for_selector("#speak[aria-pressed=true]")
        page.wait_for_function("() => window.seen.tentative && window.seen.settled")
        last = text.split()[-3]
        page.wait_for_function("word => live.textContent.includes(word)", arg=last)
        page.click("#speak")
        page.wait_for_selector("#result:not([hidden])")
        shown = page.locator("#words").inner_text().split()
        assert len(set(shown) & set(text.split())) >= len(set(text.split())) - 2
        assert page.locator("#tentative").inner_text() == ""
    assert len(served.state.live._streams) == 0


def test_a_beam_as_a_tree(served, model, spoken):
    content, samples, _ = spoken
    nbest = model.recognize((samples, 16_000), tdt.Beam(size=4, nbest=4))
    with opened(f"{served.url}/") as page:
        page.select_option("#search", "beam")
        upload(page, content)
        ends = page.locator(".tree .end")
        assert ends.count() == 4
        paths = ends.evaluate_all("""ends => ends.map((end) => {
          let text = "";
          for (let item = end.closest("li"); item; item = item.parentElement.closest("li")) {
            text = (item.querySelector(":scope > .text")?.textContent ?? "") + text;
          }
          return [end.textContent.trim().split(":")[0], text.trim()];
        })""")
        expected = [nbest, *nbest.alternatives]
        assert dict(paths) == {f"number {i}": one.text for i, one in enumerate(expected, 1)}
        assert page.locator("#picture .piece").all_text_contents() == pieces_of(model, nbest)


def test_narrow_and_dark_screens(served, spoken):
    backgrounds = []
    for options in ({"viewport": {"width": 320, "height": 640}},
                    {"viewport": {"width": 320, "height": 640}, "color_scheme": "dark"}):  # fmt: skip
        with opened(f"{served.url}/", **options) as page:
            upload(page, spoken[0])
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            backgrounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert backgrounds[0] == "rgb(255, 255, 255)" and backgrounds[0] != backgrounds[1]


def test_every_control_has_a_name(served, spoken):
    """What a screen reader says of what can be reached by keyboard."""
    with opened(f"{served.url}/") as page:
        upload(page, spoken[0])
        unnamed = page.evaluate("""() => [...document.querySelectorAll("button, input, select, audio, [tabindex='0']")]
          .filter((one) => one.checkVisibility() && !one.textContent.trim() && !one.labels?.length
            && !one.getAttribute("aria-label"))
          .map((one) => one.outerHTML)""")
        assert unnamed == []
        assert page.locator("[role=status]").inner_text() == "known-2.wav is decoded."


def test_what_is_no_recording_and_a_key(model, spoken):
    with running(model, key="sesame") as server, opened(f"{server.url}/") as page:
        page.set_input_files("#file", {"name": "a.wav", "mimeType": "audio/wav", "buffer": spoken[0]})
        page.wait_for_selector("#status.failed")
        page.fill("#key", "sesame")
        upload(page, spoken[0])
        assert page.locator("#words").inner_text() == spoken[2]


def test_the_page_as_a_file_needs_nothing_else(model, spoken, tmp_path):
    (tmp_path / "known <script> &amp; 2.wav").write_bytes(spoken[0])
    assert main(["explain", str(tmp_path / "known <script> &amp; 2.wav"), "-o", str(tmp_path / "page.html")]) == 0
    flags = ["--autoplay-policy=no-user-gesture-required"]
    with opened((tmp_path / "page.html").as_uri(), flags=flags, offline=True) as page:
        assert page.locator("#words").inner_text() == spoken[2]
        assert page.locator("header p").inner_text() == "known <script> &amp; 2.wav"
        page.locator(".word").nth(2).click()
        page.wait_for_function("() => player.currentTime > 0.5")
