/* Uses every function of the library, well and wrongly.
 *
 *   every_function MODEL NGRAM FRAMES [all]
 *
 * FRAMES is float32 [E, T]. It runs in eight threads at once, on shared objects. Compiled with COUNT_ALLOCATIONS, it lets
 * an allocation fail instead, one after the other, a sample of them or all: the call must report an error, and nothing
 * may be leaked. Ends with status 0 if all is as it should be. */
#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tdtdecode.h"

#define CHECK(condition)                                                             \
  do {                                                                               \
    if (!(condition)) {                                                              \
      fprintf(stderr, "line %d: %s: %s\n", __LINE__, #condition, tdt_error_message()); \
      exit(1);                                                                       \
    }                                                                                \
  } while (0)

enum { ROWS = 3, CHUNK = 4, CONTENT = 1 << 20 };

static float* frames;
static int32_t length, stride, elements;
static const char *model_path, *ngram_path;

/* --- allocations ------------------------------------------------------------------------------------------------- */

#ifdef COUNT_ALLOCATIONS
#include <dlfcn.h>

static long failing_at = -1, allocations, live; /* failing_at: the allocation that fails; -1: none */
static void* (*real_malloc)(size_t);
static void* (*real_realloc)(void*, size_t);
static void* (*real_calloc)(size_t, size_t);
static void (*real_free)(void*);

static int fails(void) {
  if (__atomic_fetch_add(&allocations, 1, __ATOMIC_RELAXED) != failing_at) return 0;
  errno = ENOMEM;
  return 1;
}

void* malloc(size_t size) {
  if (!real_malloc) real_malloc = (void* (*)(size_t))dlsym(RTLD_NEXT, "malloc");
  if (fails()) return NULL;
  void* memory = real_malloc(size);
  if (memory) __atomic_fetch_add(&live, 1, __ATOMIC_RELAXED);
  return memory;
}

void* calloc(size_t count, size_t size) {
  static char early[4096]; /* dlsym itself asks for memory */
  static size_t used;
  if (!real_calloc) {
    static int asking;
    if (asking) return early + (used += count * size) - count * size;
    asking = 1;
    real_calloc = (void* (*)(size_t, size_t))dlsym(RTLD_NEXT, "calloc");
  }
  if (fails()) return NULL;
  void* memory = real_calloc(count, size);
  if (memory) __atomic_fetch_add(&live, 1, __ATOMIC_RELAXED);
  return memory;
}

void* realloc(void* memory, size_t size) {
  if (!real_realloc) real_realloc = (void* (*)(void*, size_t))dlsym(RTLD_NEXT, "realloc");
  if (fails()) return NULL;
  void* moved = real_realloc(memory, size);
  if (moved && !memory) __atomic_fetch_add(&live, 1, __ATOMIC_RELAXED);
  return moved;
}

void free(void* memory) {
  if (!real_free) real_free = (void (*)(void*))dlsym(RTLD_NEXT, "free");
  if (memory) __atomic_fetch_sub(&live, 1, __ATOMIC_RELAXED);
  real_free(memory);
}
#endif

/* --- everything, well -------------------------------------------------------------------------------------------- */

/* Returns at once where a call fails for lack of memory; then `status` is TDT_ERROR_MEMORY. */
#define TRY(call)                                       \
  do {                                                  \
    status = (call);                                    \
    if (status == TDT_ERROR_MEMORY) goto end;           \
    CHECK(status == TDT_OK);                            \
  } while (0)

static tdt_input input_of(int32_t first, int32_t count, const int32_t* lengths) {
  tdt_input input = TDT_INPUT_INIT;
  tdt_input_set_bet(&input, frames + first, ROWS, elements, count);
  input.row_stride = 0; /* all rows are the same recording */
  input.element_stride = stride;
  input.lengths = lengths;
  return input;
}

/* Decodes in chunks, and compares with the whole. */
static tdt_status decode_in_chunks(const tdt_model* model, const tdt_search* search, const tdt_result* whole) {
  tdt_status status = TDT_OK;
  tdt_state *states[ROWS] = {NULL}, *next[ROWS] = {NULL}, *copy = NULL;
  tdt_result* result = NULL;
  size_t found = 0;
  for (int32_t first = 0; first < length; first += CHUNK) {
    const int32_t count = first + CHUNK < length ? CHUNK : length - first, final = first + CHUNK >= length;
    const tdt_input input = input_of(first, count, NULL);
    tdt_hypothesis hypothesis = TDT_HYPOTHESIS_INIT, expected = TDT_HYPOTHESIS_INIT;
    TRY(tdt_decode_chunk(model, &input, search, (const tdt_state* const*)states, final, &result, next));
    for (int row = 0; row < ROWS; ++row) {
      tdt_state_free(states[row]);
      states[row] = next[row];
      next[row] = NULL;
    }
    if (states[0]) {
      TRY(tdt_state_copy(states[0], &copy));
      tdt_state_free(states[0]);
      states[0] = copy;
      copy = NULL;
    }
    TRY(tdt_result_hypothesis(result, ROWS - 1, 0, &hypothesis));
    TRY(tdt_result_hypothesis(whole, 0, 0, &expected));
    CHECK(found + hypothesis.count <= expected.count);
    for (size_t i = 0; i < hypothesis.count; ++i) {
      CHECK(hypothesis.tokens[i] == expected.tokens[found + i]);
      CHECK(hypothesis.frames[i] == expected.frames[found + i]);
      CHECK(fabsf(hypothesis.token_logprobs[i] - expected.token_logprobs[found + i]) < 1e-4f);
    }
    found += hypothesis.count;
    if (final) CHECK(found == expected.count);
    tdt_result_free(result);
    result = NULL;
  }
end:
  tdt_result_free(result);
  for (int row = 0; row < ROWS; ++row) {
    tdt_state_free(states[row]);
    tdt_state_free(next[row]);
  }
  return status;
}

static tdt_status read_text(const tdt_model* model, const tdt_result* result) {
  tdt_status status = TDT_OK;
  tdt_text* text = NULL;
  tdt_text_options options = TDT_TEXT_OPTIONS_INIT;
  options.aggregation = TDT_AGGREGATE_MEAN;
  for (int32_t rank = 0; rank < tdt_result_hypotheses(result, 0); ++rank) {
    tdt_hypothesis hypothesis = TDT_HYPOTHESIS_INIT;
    double end = 0.0;
    TRY(tdt_result_hypothesis(result, 0, rank, &hypothesis));
    TRY(tdt_text_new(model, &hypothesis, &options, &text));
    CHECK(length < 100 || (strlen(tdt_text_string(text)) > 0 && tdt_text_words(text) > 0));
    for (size_t i = 0; i < tdt_text_words(text); ++i) {
      tdt_word word = TDT_WORD_INIT;
      TRY(tdt_text_word(text, i, &word));
      CHECK(word.start >= end && word.end >= word.start && word.text[0] && word.last < hypothesis.count);
      end = word.end;
    }
    tdt_text_free(text);
    text = NULL;
  }
end:
  tdt_text_free(text);
  return status;
}

static tdt_status decode_all(const tdt_model* model, const tdt_ngram* ngram, const tdt_phrases* phrases,
                             const tdt_allow* allow, int threads) {
  tdt_status status = TDT_OK;
  tdt_result* result = NULL;
  const int32_t lengths[ROWS] = {length, 0, length / 2};
  const tdt_phrases* row_phrases[ROWS] = {phrases, NULL, phrases};
  const tdt_allow* row_allow[ROWS] = {NULL, allow, allow};
  for (int kind = 0; kind < 6; ++kind) {
    tdt_search search = TDT_SEARCH_INIT;
    const tdt_input whole = input_of(0, length, NULL), parts = input_of(0, length, lengths);
    search.threads = threads;
    if (kind == 1) search.confidence = TDT_CONFIDENCE_TSALLIS;
    if (kind >= 2) search.strategy = kind == 3 ? TDT_BEAM_MALSD : TDT_BEAM;
    if (kind >= 3) search.ngram = ngram;
    if (kind == 4) search.phrases = phrases;
    if (kind == 5) search.row_phrases = row_phrases;
    if (kind == 0 || kind == 4) search.allow = allow;
    if (kind == 1 || kind == 5) search.row_allow = row_allow;
    if (kind >= 2) search.nbest = 2;
    TRY(tdt_decode(model, &whole, &search, &result));
    CHECK(tdt_result_rows(result) == ROWS && tdt_result_hypotheses(result, ROWS) == 0);
    if (kind == 0 || kind == 2 || kind == 4) {
      status = decode_in_chunks(model, &search, result);
      if (status != TDT_OK) goto end;
    }
    status = read_text(model, result);
    if (status != TDT_OK) goto end;
    tdt_result_free(result);
    result = NULL;
    TRY(tdt_decode(model, &parts, kind ? &search : NULL, &result));
    tdt_result_free(result);
    result = NULL;
  }
end:
  tdt_result_free(result);
  return status;
}

static tdt_status use_everything(int threads) {
  tdt_status status = TDT_OK;
  tdt_model *model = NULL, *second = NULL;
  tdt_ngram *ngram = NULL, *other = NULL;
  tdt_phrases *phrases = NULL, *tokens = NULL;
  tdt_allow *only = NULL, *except = NULL, *scripts = NULL;
  tdt_model_options options = TDT_MODEL_OPTIONS_INIT;
  tdt_model_info info = TDT_MODEL_INFO_INIT;
  tdt_phrases_options weak = TDT_PHRASES_OPTIONS_INIT;
  const char* texts[] = {"alarm", "new york", "\xe5\x92\x8c"};
  const float weights[] = {1.0f, 2.0f, 1.0f};
  const int32_t ids[] = {3, 4, 5};
  const size_t ends[] = {1, 3};
  const char* latin[] = {"Latin", "common"};
  size_t left_out = 0;
  FILE* file = NULL;
  char* content = malloc(CONTENT);
  size_t bytes;
  if (!content) return TDT_ERROR_MEMORY;
  CHECK(tdt_abi_version() == TDT_ABI_VERSION && tdt_version()[0] && tdt_instruction_set()[0]);
  TRY(tdt_model_open(model_path, NULL, &model));
  TRY(tdt_model_get_info(model, &info));
  CHECK(info.encoder_size == elements && info.duration_count == 5 && fabs(info.frame_seconds - 0.08) < 1e-9);
  CHECK(tdt_model_piece(model, 0) && !tdt_model_piece(model, -1) && !tdt_model_piece(model, info.vocab_size + 1));
  TRY(tdt_ngram_open(model, ngram_path, &ngram));
  weak.weight = 0.1f;
  TRY(tdt_phrases_new(model, texts, weights, 3, &weak, &left_out, &phrases));
  CHECK(left_out == 1);
  TRY(tdt_phrases_new_from_tokens(model, ids, ends, NULL, 2, NULL, &tokens));
  TRY(tdt_allow_only(model, ids, 3, &only));
  TRY(tdt_allow_except(model, ids, 3, &except));
  TRY(tdt_allow_scripts(model, latin, 2, &scripts));
  status = decode_all(model, ngram, phrases, except, threads);
  if (status != TDT_OK) goto end;
  file = fopen(model_path, "rb");
  if (!file) {
    status = TDT_ERROR_MEMORY; /* fopen allocates too */
    goto end;
  }
  bytes = fread(content, 1, CONTENT, file);
  options.precision = TDT_PRECISION_INT8;
  options.instruction_set = "baseline";
  TRY(tdt_model_open_memory(content, bytes, &options, &second));
  fclose(file);
  file = fopen(ngram_path, "rb");
  if (!file) {
    status = TDT_ERROR_MEMORY;
    goto end;
  }
  bytes = fread(content, 1, CONTENT, file);
  TRY(tdt_ngram_open_memory(second, content, bytes, &other));
end:
  if (file) fclose(file);
  free(content);
  tdt_model_free(model); /* before what was made of it */
  tdt_phrases_free(tokens);
  tdt_allow_free(only);
  tdt_allow_free(except);
  tdt_allow_free(scripts);
  tdt_phrases_free(phrases);
  tdt_ngram_free(ngram);
  tdt_ngram_free(other);
  tdt_model_free(second);
  return status;
}

/* --- everything, wrongly ----------------------------------------------------------------------------------------- */

static void expect(tdt_status status, tdt_status wanted, const char* part) {
  if (status != wanted || !strstr(tdt_error_message(), part)) {
    fprintf(stderr, "status %d, expected %d with '%s': %s\n", status, wanted, part, tdt_error_message());
    exit(1);
  }
}

struct newer_search {
  tdt_search known;
  int64_t appended;
};

static void misuse(void) {
  tdt_model* model = NULL;
  tdt_result* result = (tdt_result*)&model;
  tdt_phrases* phrases = NULL;
  tdt_ngram* ngram = NULL;
  tdt_state* state = NULL;
  tdt_text* text = NULL;
  const char* texts[] = {"", "\xff"};
  const int32_t token = 1 << 20;
  const size_t end = 1;
  tdt_input input = TDT_INPUT_INIT;
  tdt_search search = TDT_SEARCH_INIT;
  tdt_hypothesis hypothesis = TDT_HYPOTHESIS_INIT;
  tdt_word word = TDT_WORD_INIT;
  tdt_model_options options = TDT_MODEL_OPTIONS_INIT;
  struct newer_search newer = {TDT_SEARCH_INIT, 0};

  expect(tdt_model_open("/nowhere/model.tdt", NULL, &model), TDT_ERROR_FILE, "/nowhere/model.tdt");
  CHECK(!model);
  expect(tdt_model_open(NULL, NULL, &model), TDT_ERROR_ARGUMENT, "path");
  expect(tdt_model_open(model_path, NULL, NULL), TDT_ERROR_ARGUMENT, "model");
  expect(tdt_model_open_memory("{}", 2, NULL, &model), TDT_ERROR_FILE, "too short");
  options.instruction_set = "avx1024";
  expect(tdt_model_open(model_path, &options, &model), TDT_ERROR_ARGUMENT, "avx1024");
  options.size = 0;
  expect(tdt_model_open(model_path, &options, &model), TDT_ERROR_ARGUMENT, "size");
  CHECK(tdt_model_open(model_path, NULL, &model) == TDT_OK);
  expect(tdt_ngram_open(model, model_path, &ngram), TDT_ERROR_FILE, "kind");
  expect(tdt_phrases_new(model, texts, NULL, 1, NULL, NULL, &phrases), TDT_ERROR_ARGUMENT, "texts[0]");
  expect(tdt_phrases_new(model, texts + 1, NULL, 1, NULL, NULL, &phrases), TDT_ERROR_ARGUMENT, "UTF-8");
  expect(tdt_phrases_new_from_tokens(model, &token, &end, NULL, 1, NULL, &phrases), TDT_ERROR_ARGUMENT, "1048576");
  expect(tdt_decode(model, &input, NULL, &result), TDT_ERROR_ARGUMENT, "encoder_size");
  CHECK(!result);
  tdt_input_set_bte(&input, frames, 1, length, elements);
  CHECK(tdt_decode(model, &input, NULL, &result) == TDT_OK);
  expect(tdt_result_hypothesis(result, 1, 0, &hypothesis), TDT_ERROR_ARGUMENT, "row 1");
  hypothesis.size = 3;
  expect(tdt_result_hypothesis(result, 0, 0, &hypothesis), TDT_ERROR_ARGUMENT, "size");
  tdt_result_free(result);
  search.beam_size = 4;
  expect(tdt_decode(model, &input, &search, &result), TDT_ERROR_ARGUMENT, "TDT_BEAM");
  search.strategy = TDT_BEAM;
  search.threads = -1;
  expect(tdt_decode(model, &input, &search, &result), TDT_ERROR_ARGUMENT, "threads");
  search.threads = 1;
  expect(tdt_decode_chunk(model, &input, &search, NULL, 0, &result, NULL), TDT_ERROR_ARGUMENT, "after");
  CHECK(tdt_decode_chunk(model, &input, &search, NULL, 0, &result, &state) == TDT_OK && state);
  tdt_result_free(result);
  search.beam_size = 5;
  {
    const tdt_state* before[] = {state};
    tdt_state* after = state;
    expect(tdt_decode_chunk(model, &input, &search, before, 0, &result, &after), TDT_ERROR_ARGUMENT, "beam_size");
    CHECK(!result && !after);
  }
  tdt_state_free(state);
  expect(tdt_state_copy(NULL, &state), TDT_ERROR_ARGUMENT, "state");
  /* a program that was compiled with an older header: what lies behind its structure is not read */
  search.beam_size = 4;
  search.size = offsetof(tdt_search, allow);
  search.allow = (const tdt_allow*)&search;
  CHECK(tdt_decode(model, &input, &search, &result) == TDT_OK);
  tdt_result_free(result);
  /* a program that was compiled with a newer header */
  newer.known.size = sizeof newer;
  CHECK(tdt_decode(model, &input, &newer.known, &result) == TDT_OK);
  tdt_result_free(result);
  newer.appended = 1;
  expect(tdt_decode(model, &input, &newer.known, &result), TDT_ERROR_ARGUMENT, "newer");
  hypothesis.size = sizeof hypothesis;
  hypothesis.count = 1;
  hypothesis.tokens = &token;
  expect(tdt_text_new(model, &hypothesis, NULL, &text), TDT_ERROR_ARGUMENT, "1048576");
  expect(tdt_text_word(NULL, 0, &word), TDT_ERROR_ARGUMENT, "text");
  CHECK(tdt_text_words(NULL) == 0 && tdt_result_rows(NULL) == 0 && !tdt_model_piece(NULL, 0));
  tdt_model_free(model);
  tdt_model_free(NULL);
}

/* --- the two tests ----------------------------------------------------------------------------------------------- */

#ifdef COUNT_ALLOCATIONS
static int fail_each_allocation(int every) {
  long failures = 0;
  CHECK(use_everything(1) == TDT_OK); /* what is allocated once and kept, such as buffers of the C library, is there */
  CHECK(use_everything(2) == TDT_OK);
  for (int threads = 1; threads <= 2; ++threads) {
    allocations = 0;
    CHECK(use_everything(threads) == TDT_OK);
    const long count = allocations, before = live;
    /* The later ones repeat the places of the earlier ones. */
    for (long at = 0; at < count; at += every ? 1 : 1 + at / 200) {
      allocations = 0;
      failing_at = at;
      const tdt_status status = use_everything(threads);
      failing_at = -1;
      /* A thread that cannot be made is done without, and once there was enough memory the call may succeed. */
      CHECK(status == TDT_OK || status == TDT_ERROR_MEMORY);
      if (status == TDT_ERROR_MEMORY) ++failures;
      if (live != before) {
        fprintf(stderr, "allocation %ld of %ld failed: %ld blocks leaked\n", at, count, live - before);
        return 1;
      }
    }
    fflush(stdout);
    printf("%d threads: %ld allocations, %ld calls failed for lack of memory, nothing leaked\n", threads, count, failures);
  }
  return failures > 500 ? 0 : 1; /* else allocations were not failing at all */
}
#else
#include <pthread.h>

static const tdt_model* shared_model;
static const tdt_ngram* shared_ngram;
static const tdt_phrases* shared_phrases;
static const tdt_allow* shared_allow;

static void* work(void* number) {
  CHECK(use_everything(1) == TDT_OK);
  CHECK(decode_all(shared_model, shared_ngram, shared_phrases, shared_allow, *(int*)number % 2 + 1) == TDT_OK);
  misuse();
  return NULL;
}

static int from_threads(void) {
  enum { THREADS = 8 };
  pthread_t threads[THREADS];
  int numbers[THREADS];
  tdt_model* model;
  tdt_ngram* ngram;
  tdt_phrases* phrases;
  tdt_allow* allow;
  const char* texts[] = {"friday"};
  const int32_t refused[] = {3, 4};
  CHECK(tdt_model_open(model_path, NULL, &model) == TDT_OK);
  CHECK(tdt_ngram_open(model, ngram_path, &ngram) == TDT_OK);
  CHECK(tdt_phrases_new(model, texts, NULL, 1, NULL, NULL, &phrases) == TDT_OK);
  shared_model = model;
  shared_ngram = ngram;
  CHECK(tdt_allow_except(model, refused, 2, &allow) == TDT_OK);
  shared_phrases = phrases;
  shared_allow = allow;
  for (int i = 0; i < THREADS; ++i) {
    numbers[i] = i;
    CHECK(pthread_create(&threads[i], NULL, work, &numbers[i]) == 0);
  }
  for (int i = 0; i < THREADS; ++i) pthread_join(threads[i], NULL);
  tdt_allow_free(allow);
  tdt_phrases_free(phrases);
  tdt_ngram_free(ngram);
  tdt_model_free(model);
  puts("every function, from eight threads");
  return 0;
}
#endif

int main(int count, char** arguments) {
  if (count != 4 && count != 5) return 2;
  model_path = arguments[1];
  ngram_path = arguments[2];
  FILE* file = fopen(arguments[3], "rb");
  CHECK(file);
  elements = 128;
  frames = malloc(1 << 20);
  CHECK(frames);
  length = (int32_t)(fread(frames, sizeof *frames * (size_t)elements, (1 << 20) / 512, file));
  fclose(file);
  CHECK(length > 0);
  stride = length;
#ifdef COUNT_ALLOCATIONS
  length = 9; /* as each allocation is tried, there should not be too many */
  (void)misuse;
  const int status = fail_each_allocation(count == 5);
#else
  const int status = from_threads();
#endif
  free(frames);
  return status;
}
