"use strict";
// The transcript of a recording: its words can be heard, and the picture follows.

const result = {
  section: document.getElementById("result"),
  words: document.getElementById("words"),
  player: document.getElementById("player"),
  picture: document.getElementById("picture"),
  mark: () => {},
  until: null,
  shown: null,
};

function showResult(shown, audio) {
  result.shown = shown;
  result.section.hidden = false;
  result.words.replaceChildren();
  shown.words.forEach((word, i) => {
    if (i && word.space) result.words.append(" ");
    result.words.append(wordButton(word));
  });
  if (!shown.words.length) result.words.append("Nothing was heard.");
  result.player.src = audio;
  document.getElementById("summary").textContent = summaryOf(shown);
  result.mark = drawPicture(result.picture, shown);
  document.getElementById("picture-legend").textContent = shown.steps === null
    ? "Below the sound: the frames at which the best hypothesis has its tokens, and the tokens with their durations in frames."
    : "Below the sound: frames that were looked at (filled) and skipped (outlined); tokens, and blanks (dashed), with their durations in frames.";
  fillTable(shown);
  const nbest = document.getElementById("nbest");
  nbest.hidden = !shown.tree;
  if (shown.tree) drawTree(nbest.querySelector("ul"), shown.tree);
}

function wordButton(word) {
  const button = element("button", { type: "button", class: "word" }, word.text);
  const sure = word.confidence ?? 1;
  button.style.setProperty("--in-doubt", Math.min(1, 2 * (1 - sure)).toFixed(3));
  button.title = `${word.start.toFixed(2)} to ${word.end.toFixed(2)} s, ${percent(sure)} sure`;
  button.setAttribute("aria-label", `${word.text}, ${percent(sure)} sure`);
  button.addEventListener("click", () => {
    result.until = word.end + 0.05;
    result.player.currentTime = Math.max(word.start - 0.05, 0);
    result.player.play();
    result.picture.scrollLeft = (word.start / result.shown.frameSeconds) * FRAME_WIDTH - result.picture.clientWidth / 3;
  });
  return button;
}

function summaryOf(shown) {
  const text = `${shown.words.length} words of ${shown.tokens.length} tokens in ${shown.duration.toFixed(2)} s, by ${shown.search}.`;
  if (shown.steps === null) return text;
  const who = shown.tree ? "The beam" : "The decoder";
  const steps = `${shown.tree ? "its best hypothesis" : "it"} took ${shown.steps.length} steps`;
  return `${text} ${who} looked at ${shown.looked.length} of ${shown.frames} frames; ${steps}.`;
}

function fillTable(shown) {
  const rows = stepsOf(shown).map((step) => {
    const cells = [(step.frame * shown.frameSeconds).toFixed(2) + " s", step.frame, step.piece === null ? "blank" : step.piece,
      step.duration, step.probability === null ? "" : percent(step.probability)];
    return element("tr", {}, ...cells.map((cell) => element("td", {}, String(cell))));
  });
  document.querySelector("#steps tbody").replaceChildren(...rows);
}

function follow() {
  const { player, shown } = result;
  if (!shown) return;
  const now = player.currentTime;
  if (result.until !== null && now >= result.until) {
    result.until = null;
    player.pause();
  }
  [...result.words.querySelectorAll(".word")].forEach((button, i) => {
    const word = shown.words[i];
    button.classList.toggle("playing", !player.paused && word.start <= now && now < word.end);
  });
  result.mark(player.paused && !now ? null : now);
  if (!player.paused) requestAnimationFrame(follow);
}

for (const event of ["play", "pause", "seeked", "ended"]) result.player.addEventListener(event, follow);

const embedded = document.getElementById("data");
if (embedded) {
  const { audio, name, ...shown } = JSON.parse(embedded.textContent);
  document.querySelector("header p").textContent = name;
  showResult(shown, audio);
}
