"use strict";
// The picture of a decode: sound, frames looked at and skipped, tokens with their durations, blanks; and the n-best tree.

const FRAME_WIDTH = 18, SOUND_HEIGHT = 96, TILE_FRAMES = 200;
const ROWS = { frames: 8, tokens: 64, height: 22, durations: 104, axis: 126, total: 134 };
const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Draw the picture into an element. Returns a function that marks a moment, in seconds.
function drawPicture(place, shown) {
  place.replaceChildren();
  const width = Math.max(shown.frames, 1) * FRAME_WIDTH;
  place.append(drawSound(shown, width), drawSteps(shown, width));
  const now = element("div", { class: "now", hidden: "" });
  place.append(now);
  return (seconds) => {
    now.hidden = seconds === null;
    if (seconds !== null) now.style.transform = `translateX(${(seconds / shown.frameSeconds) * FRAME_WIDTH}px)`;
  };
}

// The sound as canvases beside each other: browsers limit the width of one.
function drawSound(shown, width) {
  const row = element("div", { class: "sound", "aria-hidden": "true" });
  const bytes = Uint8Array.from(atob(shown.sound.data), (char) => char.charCodeAt(0));
  const { bins, frames, frameSeconds } = shown.sound;
  const perFrame = shown.frameSeconds / frameSeconds;
  const paint = () => {
    const [red, green, blue] = colorOf(row);
    row.replaceChildren();
    for (let first = 0; first * FRAME_WIDTH < width; first += TILE_FRAMES) {
      const count = Math.min(TILE_FRAMES, Math.ceil(width / FRAME_WIDTH) - first);
      const begin = Math.round(first * perFrame), columns = Math.max(Math.round(count * perFrame), 1);
      const canvas = element("canvas", { width: columns, height: bins });
      canvas.style.width = `${count * FRAME_WIDTH}px`;
      canvas.style.height = `${SOUND_HEIGHT}px`;
      const context = canvas.getContext("2d"), image = context.createImageData(columns, bins);
      for (let x = 0; x < columns && begin + x < frames; x++) {
        for (let bin = 0; bin < bins; bin++) {
          const at = ((bins - 1 - bin) * columns + x) * 4;
          image.data[at] = red;
          image.data[at + 1] = green;
          image.data[at + 2] = blue;
          image.data[at + 3] = bytes[(begin + x) * bins + bin];
        }
      }
      context.putImageData(image, 0, 0);
      row.append(canvas);
    }
  };
  requestAnimationFrame(paint);  // once it is on the page, it has its colour
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  return row;
}

function colorOf(place) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d");
  context.fillStyle = getComputedStyle(place).color;
  context.fillRect(0, 0, 1, 1);
  return context.getImageData(0, 0, 1, 1).data;
}

// What is shown of each step. Of a very wide beam only the tokens are known.
function stepsOf(shown) {
  return shown.steps ?? shown.tokens;
}

function drawSteps(shown, width) {
  const picture = svg("svg", { width, height: ROWS.total, "aria-hidden": "true" });
  const steps = stepsOf(shown), looked = new Set(shown.looked ?? steps.map((step) => step.frame));
  for (let frame = 0; frame < shown.frames; frame++) {
    const kind = looked.has(frame) ? "looked" : "skipped";
    if (shown.looked !== null || kind === "looked") {
      picture.append(svg("rect", { class: kind, x: frame * FRAME_WIDTH + 2.5, y: ROWS.frames, width: FRAME_WIDTH - 5, height: 13, rx: 3 }));
    }
  }
  const left = new Map();  // steps on the same frame that are still to come: they are stacked, the first one highest
  for (const step of steps) left.set(step.frame, (left.get(step.frame) ?? 0) + 1);
  for (const step of steps) {
    left.set(step.frame, left.get(step.frame) - 1);
    drawStep(picture, step, left.get(step.frame));
  }
  drawAxis(picture, shown, width);
  return picture;
}

function drawStep(picture, step, above) {
  const x = step.frame * FRAME_WIDTH + 1, wide = Math.max(step.duration, 1) * FRAME_WIDTH - 2;
  const y = ROWS.tokens - above * ROWS.height, middle = x + wide / 2;
  const blank = step.piece === null;
  const box = svg("rect", { class: blank ? "blank" : "token", x: x + 0.5, y: y + 0.5, width: wide - 1, height: ROWS.height - 2, rx: 4 });
  box.append(svg("title", {}, described(step)));
  picture.append(box);
  if (!blank) {
    const text = svg("text", { class: "piece", x: middle, y: y + 15 }, step.piece.trim() || "␣");
    if (step.piece.length * 7 > wide) {
      text.setAttribute("textLength", wide - 2);
      text.setAttribute("lengthAdjust", "spacingAndGlyphs");
    }
    picture.append(text);
  }
  if (above === 0) picture.append(svg("text", { class: "middle", x: middle, y: ROWS.durations }, String(step.duration)));
}

function drawAxis(picture, shown, width) {
  const second = FRAME_WIDTH / shown.frameSeconds, foot = ROWS.axis - 14;
  picture.append(svg("line", { class: "axis", x1: 0, x2: width, y1: foot, y2: foot }));
  for (let half = 0; (half * second) / 2 <= width; half++) {
    const x = (half * second) / 2;
    picture.append(svg("line", { class: "axis", x1: x, x2: x, y1: foot, y2: foot + 4 }));
    if (half) picture.append(svg("text", { class: "middle", x, y: ROWS.axis + 4 }, `${half / 2} s`));
  }
}

function described(step) {
  const what = step.piece === null ? "blank" : `“${step.piece.trim()}”`;
  const sure = step.probability === null ? "" : `, probability ${percent(step.probability)}`;
  return `${what} at frame ${step.frame}, duration ${step.duration}${sure}`;
}

function percent(share) {
  if (share > 0 && share < 0.001) return "less than 0.1%";
  return `${(100 * share).toFixed(share > 0.995 || share < 0.1 ? 1 : 0)}%`;
}

// The n-best list as a tree of where its hypotheses part.
function drawTree(place, tree) {
  const node = (one) => {
    const item = element("li");
    if (one.text) item.append(element("span", { class: "text" }, one.text));
    for (const end of one.ends) {
      item.append(element("span", { class: "end" }, ` number ${end.rank}: ${percent(end.share)} of the list, score ${end.score}`));
    }
    if (one.next.length) item.append(element("ul", {}, ...one.next.map(node)));
    return item;
  };
  place.replaceChildren(node(tree));
}
