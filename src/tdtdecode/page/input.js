"use strict";
// Recordings to explain: a file that is chosen or dropped, or what is spoken.

const input = Object.fromEntries(
  ["drop", "speak", "file", "search", "key", "key-label", "live", "settled", "tentative", "status"].map((id) => [id, document.getElementById(id)]),
);
let stopSpeaking = null, underWay = null, address = null;

function say(text, failed = false) {
  input.status.textContent = text;
  input.status.classList.toggle("failed", failed);
}

async function explain(blob, name) {
  underWay?.abort();
  underWay = new AbortController();
  const { signal } = underWay;
  const form = new FormData();
  form.set("file", blob, name);
  form.set("search", input.search.value);
  say(`${name} is being decoded …`);
  try {
    const headers = input.key.value ? { Authorization: `Bearer ${input.key.value}` } : {};
    const answer = await fetch("explanations", { method: "POST", body: form, headers, signal });
    const content = await answer.json();
    if (!answer.ok) {
      if (answer.status === 401) input["key-label"].hidden = false;
      return say(content.error.message, true);
    }
    if (address) URL.revokeObjectURL(address);
    address = URL.createObjectURL(blob);
    showResult(content, address);
    say(`${name} is decoded.`);
    result.section.focus({ preventScroll: true });
  } catch (error) {
    if (!signal.aborted) say(`The server does not answer (${error.message}).`, true);
  }
}

async function speak() {
  input.speak.disabled = true;
  try {
    if (stopSpeaking) {
      const stop = stopSpeaking;
      stopSpeaking = null;
      pressed(false);
      say("The rest is being decoded …");
      await explain(await stop(), "What was spoken");
      return;
    }
    input.settled.textContent = input.tentative.textContent = "";
    input.live.hidden = false;
    stopSpeaking = await listen(input.key.value, (settled, tentative) => {
      input.settled.textContent = settled;
      input.tentative.textContent = tentative;
    }, (message) => say(message, true));
    pressed(true);
    say("Listening. What is settled stands in upright letters; what may still change, in slanted ones.");
  } catch (error) {
    stopSpeaking = null;
    input["key-label"].hidden = input["key-label"].hidden && !error.message.includes("key");
    say(error.name === "NotAllowedError" || error.name === "NotFoundError" ? "There is no microphone that this page may use." : error.message, true);
  } finally {
    input.speak.disabled = false;
  }
}

function pressed(on) {
  input.speak.setAttribute("aria-pressed", on);
  input.speak.textContent = on ? "Stop" : "Speak";
}

input.speak.addEventListener("click", speak);
input.file.addEventListener("change", () => {
  const [file] = input.file.files;
  if (file) explain(file, file.name);
  input.file.value = "";
});
input.drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  input.drop.classList.add("over");
});
input.drop.addEventListener("dragleave", () => input.drop.classList.remove("over"));
input.drop.addEventListener("drop", (event) => {
  event.preventDefault();
  input.drop.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) explain(file, file.name);
});
