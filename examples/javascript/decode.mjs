// Prints the words of a recording with their times, from recorded encoder output.
//
//   node decode.mjs tdtdecode.wasm MODEL.tdt FRAMES.f32        FRAMES.f32: float32 [E, T]
import { readFile } from "node:fs/promises";
import process from "node:process";

import { load } from "./tdtdecode.mjs";

if (process.argv.length !== 5) {
  console.error("usage: node decode.mjs tdtdecode.wasm MODEL.tdt FRAMES.f32");
  process.exit(2);
}
const [wasm, packed, recorded] = await Promise.all(process.argv.slice(2).map((path) => readFile(path)));
const library = await load(wasm);
const model = library.open(packed);
const frames = new Float32Array(recorded.buffer.slice(recorded.byteOffset, recorded.byteOffset + recorded.byteLength));
const [best] = model.decode(frames);
for (const word of model.text(best).words)
  console.log(word.start.toFixed(2), word.end.toFixed(2), word.text);
model.free();
