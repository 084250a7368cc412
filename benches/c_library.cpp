// Times tdt_decode, and the search that it runs, on encoder output: prints microseconds of both, the least of many.
//
//   c_library MODEL FRAMES LENGTH CALLS        FRAMES: float32 [E, T]; LENGTH: frames to decode, at most T
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "capi/model.h"
#include "capi/tdtdecode.h"
#include "fused_greedy.h"

using namespace tdt;

// The search alone, with its arguments made outside.
static double search_alone(const capi::Model& model, const float* frames, int stride, int length) {
  const cpu::FrameSource source{frames, stride, 1};
  capi::PredictorState state = model.start;
  const std::int32_t order = 0;
  std::int32_t frame = 0, symbols = 0, frames_there = length;
  cpu::Utterances batch{};
  batch.count = 1;
  batch.sources = &source;
  batch.lengths = &frames_there;
  batch.order = &order;
  batch.frame = &frame;
  batch.symbols = &symbols;
  batch.prediction = state.prediction.data();
  batch.hidden = state.hidden.data();
  batch.cell = state.cell.data();
  cpu::Emissions emissions;
  const auto start = std::chrono::steady_clock::now();
  cpu::FusedGreedy(model.network(), model.isa, {10, 0.0f, 0}, batch, 1).run(&emissions, nullptr);
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
}

static double whole_call(const tdt_model* model, const tdt_input& input) {
  tdt_result* result = nullptr;
  const auto start = std::chrono::steady_clock::now();
  if (tdt_decode(model, &input, nullptr, &result) != TDT_OK) std::exit(1);
  tdt_result_free(result);
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
}

int main(int count, char** arguments) {
  if (count != 5) return 2;
  const std::vector<unsigned char> content = capi::read_file(arguments[1]), bytes = capi::read_file(arguments[2]);
  const capi::Model model(content.data(), content.size(), arguments[1], capi::Precision::float32,
                          *capi::instruction_set(nullptr));
  tdt_model* opened = nullptr;
  if (tdt_model_open(arguments[1], nullptr, &opened) != TDT_OK) return 1;
  const int elements = model.network().encoder_size, length = std::atoi(arguments[3]);
  const int stride = static_cast<int>(bytes.size() / sizeof(float)) / elements;
  const float* frames = reinterpret_cast<const float*>(bytes.data());
  tdt_input input = TDT_INPUT_INIT;
  tdt_input_set_bet(&input, frames, 1, elements, length);
  input.element_stride = stride;
  double alone = 1e30, whole = 1e30;
  for (int call = 0; call < std::atoi(arguments[4]); ++call) {
    alone = std::min(alone, search_alone(model, frames, stride, length));
    whole = std::min(whole, whole_call(opened, input));
  }
  std::printf("%.2f %.2f\n", alone, whole);
  tdt_model_free(opened);
}
