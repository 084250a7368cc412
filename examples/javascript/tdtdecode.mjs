// The C library in JavaScript, for browsers and Node, without dependencies. Copy it, and add what you need of
// tdtdecode.h.
//
//   const library = await load(await fetch("tdtdecode.wasm"));
//   const model = library.open(await (await fetch("model.tdt")).arrayBuffer());
//   const [best] = model.decode(frames);                  // Float32Array [E, T]
//   for (const word of model.text(best).words) console.log(word.start, word.end, word.text);
//
// The library has one WebAssembly memory. What it is given is copied into that, and what it gives is copied out, so
// nothing here depends on it later. Only models, states and what may be emitted stay there, until free() is called.

/** What the library said of a call that failed. `status` is one of the header's TDT_ERROR_... */
export class DecodeError extends Error {
  constructor(status, message) {
    super(message);
    this.name = "DecodeError";
    this.status = status;
  }
}

/**
 * Loads the library.
 * @param {Response | BufferSource} source tdtdecode.wasm, as fetch() gives it or as bytes
 * @returns {Promise<Library>}
 */
export async function load(source) {
  const module = await (source instanceof Response
    ? WebAssembly.compileStreaming(source)
    : WebAssembly.compile(source));
  // The C library knows files and clocks, which decoding does not use. Here there are none.
  const NO_SUCH_FUNCTION = 52; // WASI's errno "nosys"
  const imports = {};
  for (const { module: from, name } of WebAssembly.Module.imports(module))
    (imports[from] ??= {})[name] = () => NO_SUCH_FUNCTION;
  const instance = await WebAssembly.instantiate(module, imports);
  instance.exports._initialize();
  return new Library(instance.exports);
}

// --- structures of C -------------------------------------------------------------------------------------------------

const TYPES = {
  address: ["Uint32", 4],
  int: ["Int32", 4],
  long: ["BigInt64", 8],
  float: ["Float32", 4],
  double: ["Float64", 8],
};

/** Where the members of a structure lie: each at a multiple of its size. */
function structure(members) {
  const places = {};
  let end = 0;
  for (const [type, names] of members)
    for (const name of names.split(" ")) {
      const [accessor, size] = TYPES[type];
      const at = Math.ceil(end / size) * size;
      places[name] = { accessor, at };
      end = at + size;
    }
  return { places, size: Math.ceil(end / 8) * 8 };
}

const INFO = structure([
  ["address", "size"],
  ["int", "vocab_size blank encoder_size duration_count"],
  ["address", "durations"],
  ["double", "frame_seconds"],
  ["int", "sample_rate mel_bins subsampling_factor reserved"],
  ["address", "features normalize instruction_set"],
  ["int", "max_symbols big_blank_count"],
  ["address", "big_blanks"],
]);
const INPUT = structure([
  ["address", "size data"],
  ["int", "type rows elements frames"],
  ["address", "lengths"],
  ["long", "row_stride element_stride frame_stride"],
]);
const SEARCH = structure([
  ["address", "size"],
  ["int", "strategy threads max_symbols"],
  ["float", "blank_penalty"],
  ["int", "beam_size nbest"],
  ["double", "threshold"],
  ["float", "temperature"],
  ["int", "blank_mode pruning_mode confidence"],
  ["double", "confidence_alpha"],
  ["int", "confidence_normalization"],
  ["float", "ngram_weight"],
  ["address", "ngram phrases row_phrases allow row_allow"],
]);
const HYPOTHESIS = structure([
  ["address", "size count tokens frames durations token_logprobs duration_logprobs confidence"],
  ["double", "score"],
]);
const WORD = structure([
  ["address", "size text"],
  ["double", "start end"],
  ["float", "confidence"],
  ["int", "space_before"],
  ["address", "first last"],
]);

/** Memory for the arguments of one call, all of which is freed at its end. */
class Arguments {
  #exports;
  #blocks = [];

  constructor(exports) {
    this.#exports = exports;
  }

  /** Memory that holds zeros. */
  room(bytes) {
    const address = this.#exports.malloc(Math.max(bytes, 1));
    if (!address) throw new DecodeError(3, `there is no memory for ${bytes} bytes`);
    this.#blocks.push(address);
    new Uint8Array(this.#exports.memory.buffer, address, bytes).fill(0);
    return address;
  }

  /** A copy of a typed array. */
  array(values) {
    const address = this.room(values.byteLength);
    new values.constructor(this.#exports.memory.buffer, address, values.length).set(values);
    return address;
  }

  string(text) {
    return this.array(new TextEncoder().encode(text + "\0"));
  }

  /** A structure whose other members are zero, which is the default of each. */
  structure(kind, values = {}) {
    const address = this.room(kind.size);
    for (const [name, value] of Object.entries({ size: kind.size, ...values })) {
      const { accessor, at } = kind.places[name];
      new DataView(this.#exports.memory.buffer)[`set${accessor}`](address + at, value, true);
    }
    return address;
  }

  free() {
    for (const address of this.#blocks) this.#exports.free(address);
  }
}

// --- the library -----------------------------------------------------------------------------------------------------

class Library {
  constructor(exports) {
    this.exports = exports;
  }

  /**
   * Opens a model.
   * @param {BufferSource} bytes the content of a file that `tdtdecode pack` wrote
   */
  open(bytes) {
    const content = ArrayBuffer.isView(bytes)
      ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
      : new Uint8Array(bytes);
    return this.withArguments((given) => {
      const data = given.array(content);
      const open = (out) => this.exports.tdt_model_open_memory(data, content.length, 0, out);
      return new Model(this, this.made(given, open));
    });
  }

  withArguments(body) {
    const given = new Arguments(this.exports);
    try {
      return body(given);
    } finally {
      given.free();
    }
  }

  check(status) {
    if (status !== 0) throw new DecodeError(status, this.string(this.exports.tdt_error_message()));
  }

  /** The address of the object that a call makes. */
  made(given, call) {
    const out = given.room(4);
    this.check(call(out));
    return this.address(out);
  }

  address(at) {
    return new DataView(this.exports.memory.buffer).getUint32(at, true);
  }

  member(kind, structure, name) {
    const { accessor, at } = kind.places[name];
    return new DataView(this.exports.memory.buffer)[`get${accessor}`](structure + at, true);
  }

  list(Type, address, count) {
    return count ? new Type(this.exports.memory.buffer, address, count).slice() : new Type();
  }

  string(address) {
    const memory = new Uint8Array(this.exports.memory.buffer);
    return new TextDecoder().decode(memory.subarray(address, memory.indexOf(0, address)));
  }
}

/** An object of the library, which stays there until free() is called. */
class Handle {
  constructor(library, kind, address) {
    this.library = library;
    this.kind = kind;
    this.address = address;
  }

  free() {
    this.library.exports[`tdt_${this.kind}_free`](this.address);
    this.address = 0; // later uses are refused by the library
  }
}

/**
 * @typedef {object} Search
 * @property {number} [beam] hypotheses kept; 0 or nothing: greedy search
 * @property {number} [nbest] hypotheses returned by a beam search
 * @property {number} [maxSymbols] the most tokens emitted at one frame
 * @property {number} [blankPenalty] subtracted from blank's logit; above 0: fewer deletions
 * @property {Handle} [allow] what may be emitted: what allowScripts, allowOnly or allowExcept gave
 *
 * @typedef {object} Hypothesis lists with an entry for each token, and the score
 * @property {Int32Array} tokens
 * @property {Int32Array} frames the frame of encoder output at which each token starts, from the start of the stream
 * @property {Int32Array} durations
 * @property {Float32Array} tokenLogprobs
 * @property {Float32Array} durationLogprobs
 * @property {number} score
 */
class Model extends Handle {
  constructor(library, address) {
    super(library, "model", address);
    library.withArguments((given) => {
      const info = given.structure(INFO);
      library.check(library.exports.tdt_model_get_info(address, info));
      /** E, the numbers of an encoder frame. */
      this.encoderSize = library.member(INFO, info, "encoder_size");
      /** The duration of an encoder frame. */
      this.frameSeconds = library.member(INFO, info, "frame_seconds");
    });
  }

  /** The tokens whose letters are all of some Unicode scripts, such as ["latin", "common"]. */
  allowScripts(names) {
    return this.#allow((given, out) => {
      const list = given.array(new Uint32Array(names.map((name) => given.string(name))));
      return this.library.exports.tdt_allow_scripts(this.address, list, names.length, out);
    });
  }

  /** The tokens of a list, and no others. */
  allowOnly(tokens) {
    return this.#allow((given, out) =>
      this.library.exports.tdt_allow_only(this.address, given.array(new Int32Array(tokens)), tokens.length, out));
  }

  /** All tokens but those of a list. */
  allowExcept(tokens) {
    return this.#allow((given, out) =>
      this.library.exports.tdt_allow_except(this.address, given.array(new Int32Array(tokens)), tokens.length, out));
  }

  /**
   * Decodes one utterance.
   * @param {Float32Array} frames [E, T]
   * @param {Search} [search]
   * @returns {Hypothesis[]} best first
   */
  decode(frames, search = {}) {
    return this.#run(frames, search, null, true).hypotheses;
  }

  /**
   * Decodes the next chunk of a stream. The state of a final chunk is null; any other is a value that never changes.
   * @param {Float32Array} frames [E, T]
   * @param {Handle | null} state what the stream's last chunk gave; null: the stream begins
   * @param {Search & {final?: boolean}} [options] final: the stream ends with this chunk
   * @returns {{hypotheses: Hypothesis[], state: Handle | null}} the new tokens, and the state to go on from
   */
  decodeChunk(frames, state, { final = false, ...search } = {}) {
    return this.#run(frames, search, state, final);
  }

  /**
   * The text of a hypothesis, and its words with start and end in seconds.
   * @param {Hypothesis} hypothesis one that a search gave, or one joined of a stream's chunks
   */
  text(hypothesis) {
    const { library } = this;
    return library.withArguments((given) => {
      const made = library.made(given, (out) =>
        library.exports.tdt_text_new(
          this.address,
          given.structure(HYPOTHESIS, {
            count: hypothesis.tokens.length,
            tokens: given.array(hypothesis.tokens),
            frames: given.array(hypothesis.frames),
            durations: given.array(hypothesis.durations),
            token_logprobs: given.array(hypothesis.tokenLogprobs),
            duration_logprobs: given.array(hypothesis.durationLogprobs),
          }),
          0,
          out,
        ));
      try {
        const words = [];
        const word = given.structure(WORD);
        for (let i = 0; i < library.exports.tdt_text_words(made); ++i) {
          library.check(library.exports.tdt_text_word(made, i, word));
          const member = (name) => library.member(WORD, word, name);
          words.push({
            text: library.string(member("text")),
            start: member("start"),
            end: member("end"),
            confidence: member("confidence"),
          });
        }
        return { text: library.string(library.exports.tdt_text_string(made)), words };
      } finally {
        library.exports.tdt_text_free(made);
      }
    });
  }

  #allow(call) {
    const { library } = this;
    return library.withArguments(
      (given) => new Handle(library, "allow", library.made(given, (out) => call(given, out))));
  }

  #run(frames, search, state, final) {
    const { library } = this;
    const count = frames.length / this.encoderSize;
    if (!(frames instanceof Float32Array) || !Number.isInteger(count))
      throw new DecodeError(1, `frames must be a Float32Array [E, T] with E = ${this.encoderSize}`);
    return library.withArguments((given) => {
      const input = given.structure(INPUT, {
        data: given.array(frames),
        rows: 1,
        elements: this.encoderSize,
        frames: count,
        row_stride: BigInt(frames.length),
        element_stride: BigInt(count),
        frame_stride: 1n,
      });
      const options = given.structure(SEARCH, {
        strategy: search.beam ? 1 : 0,
        beam_size: search.beam ?? 0,
        nbest: search.nbest ?? 0,
        max_symbols: search.maxSymbols ?? 0,
        blank_penalty: search.blankPenalty ?? 0,
        allow: search.allow?.address ?? 0,
      });
      const before = given.array(new Uint32Array([state?.address ?? 0]));
      const after = given.room(4);
      const result = library.made(given, (out) =>
        library.exports.tdt_decode_chunk(this.address, input, options, before, Number(final), out, after));
      const next = library.address(after);
      try {
        return { hypotheses: this.#hypotheses(given, result), state: next ? new Handle(library, "state", next) : null };
      } finally {
        library.exports.tdt_result_free(result);
      }
    });
  }

  #hypotheses(given, result) {
    const { library } = this;
    const view = given.structure(HYPOTHESIS);
    const found = [];
    for (let rank = 0; rank < library.exports.tdt_result_hypotheses(result, 0); ++rank) {
      library.check(library.exports.tdt_result_hypothesis(result, 0, rank, view));
      const member = (name) => library.member(HYPOTHESIS, view, name);
      const list = (Type, name) => library.list(Type, member(name), member("count"));
      found.push({
        tokens: list(Int32Array, "tokens"),
        frames: list(Int32Array, "frames"),
        durations: list(Int32Array, "durations"),
        tokenLogprobs: list(Float32Array, "token_logprobs"),
        durationLogprobs: list(Float32Array, "duration_logprobs"),
        score: member("score"),
      });
    }
    return found;
  }
}
