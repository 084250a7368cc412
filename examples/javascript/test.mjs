// The words of the recording are those that the Python package finds, whole and in chunks.
//
//   TDTDECODE_WASM=tdtdecode.wasm node --test
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import process from "node:process";
import { test } from "node:test";

import { DecodeError, load } from "./tdtdecode.mjs";

const recorded = (name) => readFile(new URL(`../recorded/${name}`, import.meta.url));
const library = await load(await readFile(process.env.TDTDECODE_WASM));
const packed = await recorded("demo.tdt");
const model = library.open(packed);
const frames = new Float32Array(new Uint8Array(await recorded("encoder_output.f32")).buffer);
const expected = (await recorded("words.txt")).toString();
const length = frames.length / model.encoderSize;

const lines = (hypothesis) =>
  model.text(hypothesis).words.map((word) => `${word.start.toFixed(2)} ${word.end.toFixed(2)} ${word.text}\n`).join("");

/** The frames [first, last) of the recording, [E, last - first]. */
function chunk(first, last) {
  const rows = Array.from({ length: model.encoderSize }, (_, row) =>
    Array.from(frames.subarray(row * length + first, row * length + last)));
  return new Float32Array(rows.flat());
}

function joined(parts) {
  const whole = { score: parts.at(-1).score };
  for (const name of ["tokens", "frames", "durations", "tokenLogprobs", "durationLogprobs"])
    whole[name] = new parts[0][name].constructor(parts.flatMap((part) => Array.from(part[name])));
  return whole;
}

test("words are those of the Python package", () => {
  const [best] = model.decode(frames);
  assert.equal(lines(best), expected);
  assert.ok(model.text(best).words.every((word) => word.confidence > 0 && word.confidence <= 1));
  assert.equal(model.frameSeconds, 0.08);
});

test("chunks give the tokens of the whole", () => {
  for (const search of [{}, { beam: 4, nbest: 4 }]) {
    const parts = [];
    let state = null;
    for (let first = 0; first < length; first += 7) {
      const last = Math.min(first + 7, length);
      const next = model.decodeChunk(chunk(first, last), state, { final: last === length, ...search });
      state?.free();
      parts.push(next.hypotheses[0]);
      state = next.state;
    }
    assert.equal(state, null);
    const [whole] = model.decode(frames, search);
    assert.deepEqual(joined(parts).tokens, whole.tokens);
    assert.deepEqual(joined(parts).frames, whole.frames);
  }
});

test("a beam gives several hypotheses, best first", () => {
  const found = model.decode(frames, { beam: 4, nbest: 3 });
  assert.equal(found.length, 3);
  assert.ok(found[0].score >= found[1].score && found[1].score >= found[2].score);
});

test("tokens that may not be emitted are not", () => {
  const [free] = model.decode(frames);
  const without = model.allowExcept([free.tokens[0]]);
  const [decoded] = model.decode(frames, { allow: without });
  assert.ok(decoded.tokens.length > 0 && !decoded.tokens.includes(free.tokens[0]));
  const latin = model.allowScripts(["latin", "common"]);
  assert.equal(lines(model.decode(frames, { allow: latin })[0]), expected);
  const only = model.allowOnly([free.tokens[0]]);
  assert.deepEqual(new Set(model.decode(frames, { allow: only })[0].tokens), new Set([free.tokens[0]]));
  for (const allow of [without, latin, only]) allow.free();
});

test("errors say what is wrong", () => {
  const error = (status, message) => (thrown) =>
    thrown instanceof DecodeError && thrown.status === status && message.test(thrown.message);
  assert.throws(() => library.open(new ArrayBuffer(4)), error(2, /too short/));
  assert.throws(() => model.decode(new Float32Array(3)), error(1, /E = 128/));
  assert.throws(() => model.decode(frames, { beam: 2000 }), error(1, /beam_size/));
  assert.throws(() => model.allowScripts(["klingon"]), error(1, /klingon/));
  assert.throws(() => model.allowScripts(["cyrillic"]), error(1, /no token/)); // the demo model writes Latin letters
  const freed = library.open(packed);
  freed.free();
  assert.throws(() => freed.decode(frames), error(1, /model/));
});

test("memory is given back", () => {
  const decode = () => {
    const again = library.open(packed);
    const { state } = again.decodeChunk(frames, null, { beam: 8 });
    state.free();
    again.free();
    return library.exports.memory.buffer.byteLength;
  };
  const before = decode();
  for (let i = 0; i < 100; ++i) assert.equal(decode(), before);
});
