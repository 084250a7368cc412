/* Prints the words of a recording with their times, from recorded encoder output.
 *
 *   decode MODEL.tdt FRAMES.f32        FRAMES.f32: float32 [E, T]
 */
#include <stdio.h>
#include <stdlib.h>

#include <tdtdecode.h>

/* Ends the program if a call failed. */
static void require(tdt_status status) {
  if (status == TDT_OK) return;
  fprintf(stderr, "%s\n", tdt_error_message());
  exit(1);
}

static float* read_floats(const char* path, size_t* count) {
  FILE* file = fopen(path, "rb");
  if (!file) {
    perror(path);
    exit(1);
  }
  fseek(file, 0, SEEK_END);
  *count = (size_t)ftell(file) / sizeof(float);
  rewind(file);
  float* numbers = malloc(*count * sizeof(float));
  if (!numbers || fread(numbers, sizeof(float), *count, file) != *count) {
    fprintf(stderr, "%s: cannot be read\n", path);
    exit(1);
  }
  fclose(file);
  return numbers;
}

int main(int count, char** arguments) {
  if (count != 3) {
    fprintf(stderr, "usage: decode MODEL.tdt FRAMES.f32\n");
    return 2;
  }
  tdt_model* model;
  tdt_model_info info = TDT_MODEL_INFO_INIT;
  require(tdt_model_open(arguments[1], NULL, &model));
  require(tdt_model_get_info(model, &info));

  size_t numbers;
  float* frames = read_floats(arguments[2], &numbers);
  tdt_input input = TDT_INPUT_INIT;
  tdt_input_set_bet(&input, frames, 1, info.encoder_size, (int32_t)(numbers / (size_t)info.encoder_size));

  tdt_result* result;
  tdt_hypothesis best = TDT_HYPOTHESIS_INIT;
  require(tdt_decode(model, &input, NULL, &result));
  require(tdt_result_hypothesis(result, 0, 0, &best));

  tdt_text* text;
  require(tdt_text_new(model, &best, NULL, &text));
  for (size_t i = 0; i < tdt_text_words(text); ++i) {
    tdt_word word = TDT_WORD_INIT;
    require(tdt_text_word(text, i, &word));
    printf("%.2f %.2f %s\n", word.start, word.end, word.text);
  }

  tdt_text_free(text);
  tdt_result_free(result);
  free(frames);
  tdt_model_free(model);
  return 0;
}
