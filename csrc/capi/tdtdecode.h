/* tdtdecode: decoding for TDT and RNN-T speech recognition models, as a C library.
 *
 * The encoder runs wherever you like, for example in ONNX Runtime. Its output goes in here; tokens, times, text and
 * words come out. A model is one file, which `tdtdecode pack DIRECTORY -o model.tdt` writes.
 *
 *     tdt_model* model = NULL;
 *     tdt_result* result = NULL;
 *     tdt_input input = TDT_INPUT_INIT;
 *     tdt_hypothesis best = TDT_HYPOTHESIS_INIT;
 *     if (tdt_model_open("model.tdt", NULL, &model) != TDT_OK) { puts(tdt_error_message()); return 1; }
 *     tdt_input_set_bet(&input, encoder_output, 1, 1024, frames);
 *     if (tdt_decode(model, &input, NULL, &result) != TDT_OK) { puts(tdt_error_message()); return 1; }
 *     tdt_result_hypothesis(result, 0, 0, &best);
 *
 * Rules that hold everywhere:
 *
 * - Status. A function that can fail returns a tdt_status. After a failure, tdt_error_message() says in English what
 *   was wrong and what was expected. A failed call gives nothing out: its output pointers are set to NULL.
 * - Ownership. What a function gives out through a `tdt_x**` is the caller's, who frees it with tdt_x_free(). Freeing
 *   NULL does nothing. Pointers inside structures that the library fills belong to the object that was asked, and live
 *   as long as that. The library keeps no pointer that it was given after the call has returned.
 * - Order of freeing. Objects may be freed in any order: each keeps alive what it needs.
 * - Threads. Objects never change once they are made. Any number of threads may use the same object at the same time,
 *   except to free it. There is no global state: only the text of the last error, one for each thread.
 * - Structures begin with their size. Make them with the TDT_..._INIT macros, which set the size and fill the rest with
 *   zeros. Zero always means the default. So programs that were compiled with an older header go on working with a newer
 *   library, and a newer program is refused by an older library only if it uses what that does not know.
 * - Text is UTF-8 and ends with a zero byte.
 * - Numbers that name a frame count frames of encoder output from the start of the stream. tdt_model_info.frame_seconds
 *   is the duration of a frame.
 * - C++ exceptions never leave the library, and nothing is printed.
 */
#ifndef TDTDECODE_H
#define TDTDECODE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(TDT_STATIC)
#define TDT_API
#elif defined(_WIN32)
#ifdef TDT_BUILDING
#define TDT_API __declspec(dllexport)
#else
#define TDT_API __declspec(dllimport)
#endif
#else
#define TDT_API __attribute__((visibility("default")))
#endif

/* --- version and errors ------------------------------------------------------------------------------------------ */

/* The version of this interface. It goes up when a program would have to be changed or compiled again. */
#define TDT_ABI_VERSION 1

/* The interface's version that the library was built with. A program can compare it with TDT_ABI_VERSION. */
TDT_API int32_t tdt_abi_version(void);

/* The library's version, such as "1.2.0". Lives forever. */
TDT_API const char* tdt_version(void);

typedef int32_t tdt_status;
enum {
  TDT_OK = 0,
  TDT_ERROR_ARGUMENT = 1, /* an argument, an option or a state does not fit */
  TDT_ERROR_FILE = 2,     /* a file cannot be read, or is not what it should be */
  TDT_ERROR_MEMORY = 3,   /* the system gives no more memory */
  TDT_ERROR_INTERNAL = 4  /* a mistake in this library: please report it */
};

/* What was wrong in this thread's last call that failed; "" if none has. Lives until the thread's next failure. */
TDT_API const char* tdt_error_message(void);

/* The best instruction set that this machine has and the library knows: "baseline", "avx2", "avxvnni", "avx512",
 * "avx512vnni" or "amx"; on ARM "baseline", "neon_dotprod" or "neon_bf16". Lives forever. */
TDT_API const char* tdt_instruction_set(void);

/* --- models ------------------------------------------------------------------------------------------------------ */

typedef struct tdt_model tdt_model;

enum {
  TDT_PRECISION_FLOAT32 = 0,  /* exact */
  TDT_PRECISION_BFLOAT16 = 1, /* weights and the vectors they meet are rounded to bfloat16; sums are float32 */
  TDT_PRECISION_INT8 = 2      /* int8 weights with a scale for each output, 8-bit vectors, exact integer sums */
};

typedef struct tdt_model_options {
  size_t size;
  int32_t precision;           /* TDT_PRECISION_... */
  int32_t reserved;            /* 0 */
  const char* instruction_set; /* NULL: the best one; or a name that tdt_instruction_set() can return */
} tdt_model_options;
#define TDT_MODEL_OPTIONS_INIT {sizeof(tdt_model_options), 0, 0, NULL}

/* Opens a model file. The path is UTF-8, on Windows too. `options` may be NULL. */
TDT_API tdt_status tdt_model_open(const char* path, const tdt_model_options* options, tdt_model** model);

/* Opens a model file that lies in memory, [bytes]. The memory is not needed after the call. */
TDT_API tdt_status tdt_model_open_memory(const void* data, size_t bytes, const tdt_model_options* options,
                                         tdt_model** model);
TDT_API void tdt_model_free(tdt_model* model);

/* What a model is. Pointers live as long as the model. */
typedef struct tdt_model_info {
  size_t size;
  int32_t vocab_size;         /* V, the number of tokens without blank */
  int32_t blank;              /* id of blank, 0 to V */
  int32_t encoder_size;       /* E, the numbers of an encoder frame */
  int32_t duration_count;     /* D, 0 for RNN-T */
  const int32_t* durations;   /* [D], frames by index */
  double frame_seconds;       /* duration of an encoder frame */
  int32_t sample_rate;        /* samples per second of the audio that the encoder's features are made of */
  int32_t mel_bins;           /* numbers of a feature frame; 0 if unknown */
  int32_t subsampling_factor; /* feature frames, of 10 ms each, per encoder frame */
  int32_t reserved;
  const char* features;       /* how features are computed: "nemo", "gigaam" or "gigaam-v2" */
  const char* normalize;      /* "per_feature", or "" if features are not normalised */
  const char* instruction_set;
  int32_t max_symbols;        /* the most tokens at one frame that the model was trained for, 1 in models of k2: no
                                 search emits more; 0: no limit */
  int32_t big_blank_count;    /* the blanks of multi-blank RNN-T that move the search by more than a frame */
  const int32_t* big_blanks;  /* [big_blank_count], their frames */
} tdt_model_info;
#define TDT_MODEL_INFO_INIT {sizeof(tdt_model_info), 0, 0, 0, 0, NULL, 0.0, 0, 0, 0, 0, NULL, NULL, NULL, 0, 0, NULL}

TDT_API tdt_status tdt_model_get_info(const tdt_model* model, tdt_model_info* info);

/* The piece of a token id, 0 to V, as the token file has it; U+2581 stands for a space. Lives as long as the model.
 * NULL if there is no such id. */
TDT_API const char* tdt_model_piece(const tdt_model* model, int32_t token);

/* --- phrases and language models --------------------------------------------------------------------------------- */

/* Words and names that a search should prefer. Their scores are added to the network's from a phrase's first token on;
 * if a phrase is left half way, they are taken back. */
typedef struct tdt_phrases tdt_phrases;

typedef struct tdt_phrases_options {
  size_t size;
  float weight;        /* factor on all scores, which are in nats; 0: the default, 0.6 */
  float context_score; /* score of a phrase's first token; 0: the default, 1 */
  float depth_scaling; /* token i, counted from 0, scores context_score * depth_scaling + ln(i + 1); 0: default, 2 */
  float reserved;      /* 0 */
} tdt_phrases_options;
#define TDT_PHRASES_OPTIONS_INIT {sizeof(tdt_phrases_options), 0.0f, 0.0f, 0.0f, 0.0f}

/* Makes phrases of texts for a model.
 *
 * texts         [count], each of 1 to 1000 characters. A text is spelt with the model's pieces in the ways that a model is
 *               likely to emit. Write it as the model writes: upper and lower case count, and composed characters (NFC).
 * weights       [count], a factor for each phrase, above 0; NULL: 1 for all
 * options       may be NULL
 * left_out      if not NULL, phrases that cannot be spelt with the model's pieces are left out, and counted here.
 *               If NULL, such a phrase is an error. */
TDT_API tdt_status tdt_phrases_new(const tdt_model* model, const char* const* texts, const float* weights, size_t count,
                                   const tdt_phrases_options* options, size_t* left_out, tdt_phrases** phrases);

/* Makes phrases of token ids. tokens [ends[count - 1]] has all phrases one after the other, and phrase i ends before
 * ends[i]. Each has 1 to 1000 tokens, and blank is not among them. */
TDT_API tdt_status tdt_phrases_new_from_tokens(const tdt_model* model, const int32_t* tokens, const size_t* ends,
                                               const float* weights, size_t count, const tdt_phrases_options* options,
                                               tdt_phrases** phrases);
TDT_API void tdt_phrases_free(tdt_phrases* phrases);

/* An n-gram language model, compiled for a vocabulary by `tdtdecode pack DIRECTORY --ngram lm.arpa -o lm.tdt`. */
typedef struct tdt_ngram tdt_ngram;

/* Opens a compiled language model. It must have been compiled for the vocabulary of `model`. */
TDT_API tdt_status tdt_ngram_open(const tdt_model* model, const char* path, tdt_ngram** ngram);
TDT_API tdt_status tdt_ngram_open_memory(const tdt_model* model, const void* data, size_t bytes, tdt_ngram** ngram);
TDT_API void tdt_ngram_free(tdt_ngram* ngram);

/* --- what may be emitted ----------------------------------------------------------------------------------------- */

/* Which tokens a search may emit. Whether a token is emitted is decided as if all could be. If the best token may not
 * be emitted, the best of those that may takes its place. So a token of a wrong script becomes one of the right script,
 * and no word is deleted. In a beam, the tokens that may be emitted are raised together, until the best of them is as
 * probable as the best of all. Log-probs that are reported stay the network's. */
typedef struct tdt_allow tdt_allow;

/* The tokens [count] of a list, and no others. Blank must not be among them. */
TDT_API tdt_status tdt_allow_only(const tdt_model* model, const int32_t* tokens, size_t count, tdt_allow** allow);

/* All tokens but those [count] of a list. */
TDT_API tdt_status tdt_allow_except(const tdt_model* model, const int32_t* tokens, size_t count, tdt_allow** allow);

/* The tokens whose letters are all of some Unicode scripts.
 *
 * names [count] names or codes of scripts, in any case: "latin", "Cyrl", "common". Punctuation, digits, the space mark
 * and what else several scripts share are "common". In a token with letters they do not matter. A token without letters
 * may be emitted only if "common" is named too, so most texts need {"latin", "common"}. Tokens that are no text by
 * themselves may always be emitted: <EOU>, names of languages, and bytes of UTF-8. */
TDT_API tdt_status tdt_allow_scripts(const tdt_model* model, const char* const* names, size_t count, tdt_allow** allow);
TDT_API void tdt_allow_free(tdt_allow* allow);

/* --- decoding ---------------------------------------------------------------------------------------------------- */

enum { TDT_FLOAT32 = 0, TDT_FLOAT16 = 1 };

/* Encoder output of B rows. The number at row b, element e and frame t lies at
 *     data + b * row_stride + e * element_stride + t * frame_stride,   strides counted in numbers, not in bytes.
 * tdt_input_set_bet() and tdt_input_set_bte() fill in the strides of the usual layouts. */
typedef struct tdt_input {
  size_t size;
  const void* data;
  int32_t type;          /* TDT_FLOAT32 or TDT_FLOAT16 (IEEE half precision) */
  int32_t rows;          /* B */
  int32_t elements;      /* E; must be the model's encoder_size */
  int32_t frames;        /* T, 0 to 2^30 */
  const int32_t* lengths; /* [B], the valid frames of each row, 0 to T; NULL: T for all */
  int64_t row_stride, element_stride, frame_stride;
} tdt_input;
#define TDT_INPUT_INIT {sizeof(tdt_input), NULL, 0, 0, 0, 0, NULL, 0, 0, 0}

/* Contiguous float32 [B, E, T], as most exported encoders give it. */
static inline void tdt_input_set_bet(tdt_input* input, const float* data, int32_t rows, int32_t elements,
                                     int32_t frames) {
  input->data = data;
  input->type = TDT_FLOAT32;
  input->rows = rows;
  input->elements = elements;
  input->frames = frames;
  input->row_stride = (int64_t)elements * frames;
  input->element_stride = frames;
  input->frame_stride = 1;
}

/* Contiguous float32 [B, T, E]. */
static inline void tdt_input_set_bte(tdt_input* input, const float* data, int32_t rows, int32_t frames,
                                     int32_t elements) {
  tdt_input_set_bet(input, data, rows, elements, frames);
  input->element_stride = 1;
  input->frame_stride = elements;
}

enum {
  TDT_GREEDY = 0,
  TDT_BEAM = 1,      /* time-synchronous beam search: the sum over all alignments of a token sequence counts */
  TDT_BEAM_MALSD = 2 /* NeMo's malsd_batch; not for models with big blanks */
};
enum {
  TDT_CONFIDENCE_NONE = 0,
  TDT_CONFIDENCE_MAX_PROB = 1,
  TDT_CONFIDENCE_GIBBS = 2,
  TDT_CONFIDENCE_TSALLIS = 3,
  TDT_CONFIDENCE_RENYI = 4
};
enum { TDT_NORMALIZE_EXP = 0, TDT_NORMALIZE_LIN = 1 };
enum { TDT_BLANK_NO_SCORE = 0, TDT_BLANK_LM_WEIGHTED_FULL = 1 };
enum { TDT_PRUNE_EARLY = 0, TDT_PRUNE_LATE = 1 };

/* How to search. Everything zero is greedy search with the defaults. */
typedef struct tdt_search {
  size_t size;
  int32_t strategy;         /* TDT_GREEDY, TDT_BEAM or TDT_BEAM_MALSD */
  int32_t threads;          /* of this call, 1 to 1024; 0: 1. Results do not depend on it. */
  int32_t max_symbols;      /* the most tokens emitted at one frame; 0: 10; never more than the model's */
  float blank_penalty;      /* subtracted from blank's logit, or log-probability, for the choice; above 0: fewer deletions */
  int32_t beam_size;        /* hypotheses kept, 1 to 1024; 0: 4. Beams only, as the next six are. */
  int32_t nbest;            /* hypotheses returned, up to beam_size; 0: all that the threshold has left */
  double threshold;         /* nats by which a hypothesis may fall behind; 0: 6, or INFINITY if nbest is above 1 */
  float temperature;        /* of the softmaxes in the score of TDT_BEAM, 0.01 to 100; 0: 1 */
  int32_t blank_mode;       /* TDT_BLANK_..., of TDT_BEAM_MALSD */
  int32_t pruning_mode;     /* TDT_PRUNE_..., of TDT_BEAM_MALSD */
  int32_t confidence;       /* TDT_CONFIDENCE_...: the measure of tdt_hypothesis.confidence */
  double confidence_alpha;  /* its exponent; 0: 0.33 */
  int32_t confidence_normalization; /* TDT_NORMALIZE_... */
  float ngram_weight;       /* factor on the n-gram model's scores, natural log-probabilities; 0: 0.1 */
  const tdt_ngram* ngram;   /* NULL: none */
  const tdt_phrases* phrases;            /* for all rows; NULL: none */
  const tdt_phrases* const* row_phrases; /* [B], phrases of each row, NULL: none there. Instead of `phrases`. */
  const tdt_allow* allow;                /* what may be emitted in all rows; NULL: every token */
  const tdt_allow* const* row_allow;     /* [B], what each row may emit, NULL: every token. Instead of `allow`. */
} tdt_search;
#define TDT_SEARCH_INIT \
  {sizeof(tdt_search), 0, 0, 0, 0.0f, 0, 0, 0.0, 0.0f, 0, 0, 0, 0.0, 0, 0.0f, NULL, NULL, NULL, NULL, NULL}

/* The hypotheses of B rows. */
typedef struct tdt_result tdt_result;

/* Decodes whole utterances. `search` may be NULL: greedy. */
TDT_API tdt_status tdt_decode(const tdt_model* model, const tdt_input* input, const tdt_search* search,
                              tdt_result** result);

/* The state of one stream between two chunks. A value: it is never changed. */
typedef struct tdt_state tdt_state;

/* Decodes the next chunk of B streams. Chunks of any size give what tdt_decode gives for the whole stream, except with
 * TDT_BEAM_MALSD, whose pruning depends on where chunks end.
 *
 * before   [B], the state that each stream's last chunk gave; NULL in place of a state, or for all of them: the stream
 *          begins
 * final    not 0: the streams end with this chunk
 * result   for each stream the new tokens, with frames counted from the start of the stream. A beam search gives the
 *          tokens that can no longer change, and all of the n-best list in the final chunk; each of its entries begins
 *          with the first token that was not given before.
 * after    [B], another array than `before`; gets the states to go on from, each of which is to be freed. Those of a
 *          final chunk are NULL. May be NULL if `final` is not 0.
 *
 * In the middle of a stream these options may change: threads, max_symbols, nbest, threshold, pruning_mode, allow and
 * row_allow; and blank_penalty of a greedy search. The state depends on the others. */
TDT_API tdt_status tdt_decode_chunk(const tdt_model* model, const tdt_input* input, const tdt_search* search,
                                    const tdt_state* const* before, int32_t final, tdt_result** result,
                                    tdt_state** after);
/* Another handle to the same value. */
TDT_API tdt_status tdt_state_copy(const tdt_state* state, tdt_state** copy);
TDT_API void tdt_state_free(tdt_state* state);

TDT_API void tdt_result_free(tdt_result* result);
/* B. */
TDT_API int32_t tdt_result_rows(const tdt_result* result);
/* The number of hypotheses of a row: 1, or as many as a beam search returns. 0 if there is no such row. */
TDT_API int32_t tdt_result_hypotheses(const tdt_result* result, int32_t row);

/* A token sequence. Natural logarithms everywhere. Pointers are NULL where `count` is 0. */
typedef struct tdt_hypothesis {
  size_t size;
  size_t count;                  /* n */
  const int32_t* tokens;         /* [n], ids in the model's vocabulary */
  const int32_t* frames;         /* [n], the frame at which each token starts */
  const int32_t* durations;      /* [n], frames, as predicted; 0 for RNN-T */
  const float* token_logprobs;   /* [n], of a log-softmax over the V + 1 token entries */
  const float* duration_logprobs; /* [n], of one over the D duration entries; 0 for RNN-T */
  const float* confidence;       /* [n], 0 to 1; NULL unless the search has a measure */
  double score;                  /* greedy: the sum of both log-probs; beam: the search's objective over the stream */
} tdt_hypothesis;
#define TDT_HYPOTHESIS_INIT {sizeof(tdt_hypothesis), 0, NULL, NULL, NULL, NULL, NULL, NULL, 0.0}

/* The hypothesis of a rank, 0 for the best. Its pointers live as long as the result. */
TDT_API tdt_status tdt_result_hypothesis(const tdt_result* result, int32_t row, int32_t rank, tdt_hypothesis* hypothesis);

/* --- text and words ---------------------------------------------------------------------------------------------- */

/* The text of a hypothesis, and its words with times. */
typedef struct tdt_text tdt_text;

enum { TDT_AGGREGATE_MIN = 0, TDT_AGGREGATE_MEAN = 1, TDT_AGGREGATE_PROD = 2 };

typedef struct tdt_text_options {
  size_t size;
  int32_t aggregation; /* TDT_AGGREGATE_...: a word's confidence from those of its tokens */
  int32_t continues;   /* not 0: other words came before, and the last of them ended at previous_end, in seconds */
  double previous_end;
} tdt_text_options;
#define TDT_TEXT_OPTIONS_INIT {sizeof(tdt_text_options), 0, 0, 0.0}

/* Makes text and words of a hypothesis: one that a result gave, or one that you joined of a stream's chunks. Of the
 * hypothesis, count and tokens are needed; without frames and durations there are no words; without token_logprobs and
 * confidence, words have the confidence 0. `options` may be NULL.
 *
 * Words are what stands between spaces. Where a script has no spaces (Japanese, Chinese, Thai and others), and where
 * the vocabulary has none, words are divided between tokens. (The Python package has ICU's dictionaries for this.) */
TDT_API tdt_status tdt_text_new(const tdt_model* model, const tdt_hypothesis* hypothesis,
                                const tdt_text_options* options, tdt_text** text);
TDT_API void tdt_text_free(tdt_text* text);

/* The text, without spaces at its beginning. Lives as long as the object. */
TDT_API const char* tdt_text_string(const tdt_text* text);
TDT_API size_t tdt_text_words(const tdt_text* text);

typedef struct tdt_word {
  size_t size;
  const char* text;     /* lives as long as the tdt_text */
  double start, end;    /* seconds from the start of the stream */
  float confidence;     /* 0 to 1: made of the tokens' confidences if there are any, else their smallest probability */
  int32_t space_before; /* not 0: a space stands before it in the text */
  size_t first, last;   /* its first and last token, as indexes into the hypothesis; neighbours may share a token */
} tdt_word;
#define TDT_WORD_INIT {sizeof(tdt_word), NULL, 0.0, 0.0, 0.0f, 0, 0, 0}

TDT_API tdt_status tdt_text_word(const tdt_text* text, size_t index, tdt_word* word);

#ifdef __cplusplus
}
#endif
#endif /* TDTDECODE_H */
