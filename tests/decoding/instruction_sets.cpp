// Compares every kernel of every instruction set that this processor has with plain C++ and with the first set of the
// table. Prints a line for each set. Ends with status 1 if anything differs.
//
//   instruction_sets [--wrong KERNEL]     with one kernel of the best set a little wrong, to see that this is noticed
//
// Numbers must be equal, and NaN must be NaN. The sign of zero does not count, because the kernels are compiled with
// -fno-signed-zeros. Only sums of bfloat16 pairs may differ within a bound, in the sets whose processors have an
// instruction for them.
#include "instruction_sets.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

using namespace tdt;
using namespace tdt::cpu;

namespace {

// --- what is compared, and what differed -----------------------------------------------------------------------------

class Report {
 public:
  explicit Report(const char* set) : set_(set) {}

  // What is compared next.
  void at(const char* kernel, const std::string& example) {
    kernel_ = kernel;
    example_ = example;
  }
  template <class Number>
  void same(const char* what, const Number* expected, const Number* found, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) close(what, expected[i], found[i], 0.0, i);
  }
  template <class Number>
  void same(const char* what, const std::vector<Number>& expected, const std::vector<Number>& found) {
    expect(expected.size() == found.size(), what);
    if (expected.size() == found.size()) same(what, expected.data(), found.data(), expected.size());
  }
  void close(const char* what, double expected, double found, double bound, std::size_t index = 0) {
    ++comparisons_;
    if (expected == found || (std::isnan(expected) && std::isnan(found)) || std::fabs(expected - found) <= bound)
      return;
    char text[200];
    std::snprintf(text, sizeof text, "%s[%zu] is %.9g, expected %.9g", what, index, found, expected);
    differs(text);
  }
  void expect(bool holds, const char* what) {
    ++comparisons_;
    if (!holds) differs(what);
  }
  // Prints the set's line; whether all was well.
  bool done() const {
    std::printf("%s: %ld comparisons, %ld differ\n", set_, comparisons_, differences_);
    return differences_ == 0;
  }

 private:
  void differs(const char* text) {
    if (++differences_ <= 20) std::printf("%s: %s (%s): %s\n", set_, kernel_, example_.c_str(), text);
  }

  const char *set_, *kernel_ = "";
  std::string example_;
  long comparisons_ = 0, differences_ = 0;
};

// --- random and hostile numbers --------------------------------------------------------------------------------------

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  int below(int count) { return static_cast<int>(engine_() % static_cast<unsigned>(count)); }
  float uniform() { return static_cast<float>(engine_() >> 8) / 16777216.0f; }  // [0, 1)
  // About normal, with 24 random bits.
  float normal() {
    float sum = -6.0f;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum;
  }
  template <class Make>
  std::vector<float> floats(std::size_t count, Make make) {
    std::vector<float> values(count);
    for (float& value : values) value = make();
    return values;
  }
  std::vector<float> normals(std::size_t count, float scale = 1.0f) {
    return floats(count, [&] { return scale * normal(); });
  }
  // Numbers in which kernels go wrong.
  float hostile() {
    static const float kHostile[] = {
        0.0f,   -0.0f,  kNaN,  kInfinity, -kInfinity, 1e-45f, -1e-40f, 3.4028235e38f, -3.4028235e38f, 1.1754944e-38f,
        1e-30f, -87.0f, 88.0f, 0.55f,     -0.55f,     1e20f,  0.5f,    1.5f,          2.5f,           -1e-8f};
    return kHostile[below(sizeof kHostile / sizeof kHostile[0])];
  }
  std::vector<float> hostiles(std::size_t count) {
    return floats(count, [&] { return below(4) ? normal() : hostile(); });
  }

 private:
  std::mt19937 engine_;
};

template <class To, class From>
To bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

float from_bfloat16(std::uint16_t half) { return bits<float>(static_cast<std::uint32_t>(half) << 16); }

std::uint16_t to_bfloat16(float x) {
  const std::uint32_t word = bits<std::uint32_t>(x);
  if (std::isnan(x)) return static_cast<std::uint16_t>((word >> 16) | 0x40u);
  return static_cast<std::uint16_t>((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
}

float from_float16(std::uint16_t half) {
  const int exponent = (half >> 10) & 31, mantissa = half & 1023;
  const float size = exponent ? std::ldexp(1024.0f + static_cast<float>(mantissa), exponent - 25)
                              : std::ldexp(static_cast<float>(mantissa), -24);
  return half & 0x8000 ? -size : size;
}

// --- products --------------------------------------------------------------------------------------------------------

// A matrix of random weights, packed as matrix.h says.
class Weights {
 public:
  Weights(Format format, int outputs, int inputs, Random* random)
      : bias_(random->normals(outputs)), values_(static_cast<std::size_t>(outputs) * inputs) {
    matrix_.format = format;
    matrix_.outputs = outputs;
    matrix_.inputs = inputs;
    panels_.resize(matrix_.panel_count() * matrix_.panel_bytes() + kAlignment);
    char* first = panels_.data();
    first += (kAlignment - reinterpret_cast<std::uintptr_t>(first) % kAlignment) % kAlignment;
    matrix_.panels = first;
    matrix_.bias = bias_.data();
    if (format == Format::int8) {
      scales_ = random->floats(outputs, [&] { return 0.001f + 0.1f * random->uniform(); });
      sums_.resize(outputs);
      matrix_.scales = scales_.data();
      matrix_.sums = sums_.data();
    }
    const int group = group_of(format);
    for (int output = 0; output < outputs; ++output)
      for (int input = 0; input < inputs; ++input) {
        char* at = first + output / kPanel * matrix_.panel_bytes() +
                   ((static_cast<std::size_t>(input / group) * kPanel + output % kPanel) * group + input % group) *
                       weight_bytes(format);
        values_[static_cast<std::size_t>(output) * inputs + input] = place(at, output, random);
      }
  }
  const Matrix& matrix() const { return matrix_; }
  float weight(int output, int input) const {
    return values_[static_cast<std::size_t>(output) * matrix_.inputs + input];
  }

 private:
  float place(char* at, int output, Random* random) {
    const auto put = [&](auto value) { std::memcpy(at, &value, sizeof value); };
    switch (matrix_.format) {
      case Format::float32: {
        const float value = random->normal();
        put(value);
        return value;
      }
      case Format::float16: {  // subnormal numbers too, but neither infinity nor NaN
        const auto half = static_cast<std::uint16_t>(random->below(2) << 15 | random->below(0x7c00));
        put(half);
        return from_float16(half);
      }
      case Format::bfloat16:
      case Format::bfloat16_pairs: {
        const std::uint16_t half = to_bfloat16(random->normal());
        put(half);
        return from_bfloat16(half);
      }
      case Format::int8: {
        const int steps = random->below(3) ? random->below(255) - 127 : random->below(2) ? 127 : -127;
        put(static_cast<std::int8_t>(steps));
        sums_[output] += steps;
        return static_cast<float>(steps);
      }
    }
    std::abort();
  }

  Matrix matrix_;
  std::vector<char> panels_;
  std::vector<float> bias_, scales_, values_;
  std::vector<std::int32_t> sums_;
};

// Rows staged for a matrix. In which form, is the set's own matter.
struct Staged {
  static constexpr int kBehind = 64;  // bytes that must stay as they are
  std::vector<char> scratch;
  std::vector<StagedRow> rows;

  Staged(const NetworkKernels& kernels, const Matrix& matrix, const std::vector<std::vector<float>>& given)
      : scratch(staged_bytes(matrix) * given.size() + kBehind, 77), rows(given.size()) {
    std::vector<const float*> pointers;
    for (const std::vector<float>& row : given) pointers.push_back(row.data());
    kernels.stage(matrix, pointers.data(), static_cast<int>(given.size()), scratch.data(), rows.data());
  }
};

// The step, 0 to 255, that a number of a row is rounded to.
int step_of(const StagedRow& row, float x) {
  const float inverse = row.scale > 0.0f ? 1.0f / row.scale : 0.0f;
  return static_cast<int>(std::nearbyint(static_cast<double>(x * inverse))) + row.zero;
}

// Whether a set rounds products before it adds them: only the baseline of x86-64 does.
bool fuses(const InstructionSet& set) {
#if defined(__aarch64__)
  (void)set;
  return true;
#else
  return std::strcmp(set.name, "baseline") != 0;
#endif
}

// Whether a set sums pairs of bfloat16 by an instruction, which rounds in its own way.
bool sums_pairs_by_instruction(const InstructionSet& set) {
  return std::strstr(set.name, "bf16") || !std::strcmp(set.name, "amx");
}

// What an output of a row must be, and within which bound.
struct Expected {
  double value, bound;
};

Expected expected_output(const InstructionSet& set, const Weights& weights, const StagedRow& staged,
                         const std::vector<float>& row, int output) {
  const Matrix& matrix = weights.matrix();
  const bool fused = fuses(set);
  if (matrix.format == Format::int8) {
    std::int64_t dot = 0;
    for (int k = 0; k < matrix.inputs; ++k)
      dot += static_cast<std::int64_t>(weights.weight(output, k)) *
             (std::isnan(staged.scale) ? 0 : step_of(staged, row[k]));
    const auto steps = static_cast<float>(dot - std::int64_t{staged.zero} * matrix.sums[output]);
    const float scaled = steps * matrix.scales[output] * staged.scale;
    return {scaled + matrix.bias[output], 0.0};
  }
  float sum = matrix.bias[output];
  double size = std::fabs(sum);
  for (int k = 0; k < matrix.inputs; ++k) {
    const bool pairs = matrix.format == Format::bfloat16_pairs;
    const float weight = weights.weight(output, k), value = pairs ? from_bfloat16(to_bfloat16(row[k])) : row[k];
    sum = fused ? std::fma(weight, value, sum) : sum + weight * value;
    size += std::fabs(static_cast<double>(weight) * value);
  }
  if (matrix.format != Format::bfloat16_pairs || !sums_pairs_by_instruction(set)) return {sum, 0.0};
  // Each of 2 n operations may round by a unit in the last place, and subnormal numbers may count as zero.
  return {sum, std::isfinite(size) ? (2.0 * matrix.inputs + 64) * 0x1p-24 * size + matrix.inputs * 0x1p-125 : 0.0};
}

void check_staging(const InstructionSet& first, const Matrix& matrix, const std::vector<std::vector<float>>& rows,
                   const Staged& staged, Report* report) {
  const Staged expected(*first.network, matrix, rows);
  report->same("behind the scratch", std::string(Staged::kBehind, 77).data(),
               staged.scratch.data() + staged.scratch.size() - Staged::kBehind, Staged::kBehind);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const StagedRow &row = staged.rows[i], &other = expected.rows[i];
    if (group_of(matrix.format) == 1) {
      report->expect(row.values == rows[i].data(), "a float32 row is used as it is");
      continue;
    }
    report->expect(row.values == staged.scratch.data() + i * staged_bytes(matrix), "a staged row lies in its scratch");
    if (matrix.format != Format::int8) continue;
    report->close("scale", other.scale, row.scale, 0.0);
    report->close("zero", other.zero, row.zero, 0.0);
    if (std::isnan(other.scale)) {
      report->expect(std::isnan(row.norm) && std::isnan(row.error_norm), "norms of a row with NaN are NaN");
      continue;
    }
    double norm = 1.0, error_norm = 0.0;
    for (int k = 0; k < matrix.inputs; ++k) {
      const double x = rows[i][k], rounded = static_cast<double>(row.scale) * (step_of(row, rows[i][k]) - row.zero);
      report->close("rounded to 8 bits", x, rounded, 0.501 * row.scale + 1e-30, k);
      norm += x * x;
      error_norm += (x - rounded) * (x - rounded);
    }
    norm = std::sqrt(norm);
    error_norm = std::sqrt(error_norm);
    report->expect(row.norm >= norm && (row.norm <= 1.001 * norm || norm > 1e18), "the norm is bounded");
    report->expect(row.error_norm >= error_norm && (row.error_norm <= 1.001 * error_norm + 1e-5 * norm || norm > 1e18),
                   "the norm of the errors is bounded");
  }
}

std::vector<float> row_of_kind(int kind, int inputs, Random* random) {
  std::vector<float> row = random->normals(inputs);
  switch (kind) {
    case 1:  // no number below zero, as after ReLU
      for (float& x : row) x = std::fabs(x);
      break;
    case 2:  // at most one number that is not finite, so that the order of sums does not matter
      row[random->below(inputs)] = random->hostile();
      break;
    case 3:  // ties of the rounding to 8 bits, and of bfloat16
      for (float& x : row)
        x = static_cast<float>(random->below(255) - 127) + 0.5f * static_cast<float>(random->below(2));
      break;
    case 4:
      for (float& x : row) x = 0.0f;
      break;
    case 5:  // the largest integer sums
      for (float& x : row) x = 3.0f;
      break;
    case 6:  // too small for a scale
      for (float& x : row) x *= 1e-32f;
      break;
  }
  return row;
}

void check_products(const InstructionSet& first, const InstructionSet& set, Report* report) {
  constexpr float kUntouched = 12345.0f;
  Random random(1);
  const Format formats[] = {Format::float32, Format::float16, Format::bfloat16, Format::bfloat16_pairs, Format::int8};
  const int shapes[][2] = {{64, 1}, {64, 64}, {128, 100}, {192, 17}, {256, 130}, {64, 640}};
  for (Format format : formats)
    for (const auto& shape : shapes) {
      const Weights weights(format, shape[0], shape[1], &random);
      const Matrix& matrix = weights.matrix();
      for (int count : {1, 2, 3, 4, 5, 6, 7, 16, 19}) {
        char example[100];
        std::snprintf(example, sizeof example, "format %d, %d outputs, %d inputs, %d rows", static_cast<int>(format),
                      shape[0], shape[1], count);
        std::vector<std::vector<float>> rows;
        for (int i = 0; i < count; ++i) rows.push_back(row_of_kind(random.below(7), matrix.inputs, &random));
        const Staged staged(*set.network, matrix, rows);
        report->at("stage", example);
        check_staging(first, matrix, rows, staged, report);

        // One panel, then the others: what is not asked for stays as it is.
        report->at("multiply", example);
        const int some = random.below(matrix.panel_count());
        std::vector<std::vector<float>> found(count, std::vector<float>(matrix.outputs + kPanel, kUntouched));
        std::vector<float*> outs;
        for (std::vector<float>& out : found) outs.push_back(out.data());
        set.network->multiply(matrix, staged.rows.data(), count, some, some + 1, outs.data());
        for (const std::vector<float>& out : found)
          for (int output = 0; output < matrix.outputs + kPanel; ++output)
            if (output / kPanel != some) report->close("outside of the panels", kUntouched, out[output], 0.0, output);
        set.network->multiply(matrix, staged.rows.data(), count, 0, some, outs.data());
        set.network->multiply(matrix, staged.rows.data(), count, some + 1, matrix.panel_count(), outs.data());
        for (int i = 0; i < count; ++i) {
          for (int output = 0; output < matrix.outputs; ++output) {
            const Expected expected = expected_output(set, weights, staged.rows[i], rows[i], output);
            report->close("output", expected.value, found[i][output], expected.bound, output);
          }
          std::vector<float> alone(matrix.outputs);
          float* out = alone.data();
          set.network->multiply(matrix, &staged.rows[i], 1, 0, matrix.panel_count(), &out);
          report->same("output of a row alone", alone.data(), found[i].data(), alone.size());
        }
        if (group_of(format) != 1) continue;

        report->at("multiply_some", example);
        std::vector<std::int32_t> outputs;
        for (int output = 0; output < matrix.outputs; ++output)
          if (random.below(3) == 0) outputs.push_back(output);
        for (int i = 0; i < 9; ++i) outputs.push_back(random.below(matrix.outputs));  // in any order
        std::vector<float> values(outputs.size() + 1, kUntouched);
        set.network->multiply_some(matrix, staged.rows[0], outputs.data(), static_cast<int>(outputs.size()),
                                   values.data());
        report->close("behind the values", kUntouched, values.back(), 0.0);
        for (std::size_t i = 0; i < outputs.size(); ++i)
          report->close("value", found[0][outputs[i]], values[i], 0.0, i);
      }
    }
}

// --- elementwise -----------------------------------------------------------------------------------------------------

void check_elementwise(const InstructionSet& first, const InstructionSet& set, Report* report) {
  Random random(2);
  constexpr int kBlocks = 4, kCells = kBlocks * kUnits;
  for (int round = 0; round < 200; ++round) {
    const auto make = [&](int count) { return round % 2 ? random.hostiles(count) : random.normals(count, 3.0f); };
    const std::vector<float> gates = make(4 * kCells), addend = make(4 * kCells), before = make(kCells);
    const int from = round % 3, to = kBlocks - round % 2;
    struct Step {
      std::vector<float> cell, out, copy;
      Step(const InstructionSet& set, const std::vector<float>& gates, const float* addend,
           const std::vector<float>& before, int from, int to, bool copied)
          : cell(before), out(kCells, 9.0f), copy(kCells, 9.0f) {
        set.network->lstm_cell(gates.data(), addend, from, to, cell.data(), out.data(), copied ? copy.data() : nullptr);
      }
    };
    report->at("lstm_cell", "round " + std::to_string(round));
    const float* added = round % 5 ? addend.data() : nullptr;
    const Step expected(first, gates, added, before, from, to, round % 7 != 0);
    const Step found(set, gates, added, before, from, to, round % 7 != 0);
    report->same("cell", expected.cell, found.cell);
    report->same("out", expected.out, found.out);
    report->same("copy", expected.copy, found.copy);
    const auto sigmoid = [](double x) { return 1.0 / (1.0 + std::exp(-x)); };
    for (int unit = from * kUnits; unit < to * kUnits; ++unit) {
      const auto gate = [&](int g) {
        const int at = unit / kUnits * kPanel + g * kUnits + unit % kUnits;
        return added ? static_cast<double>(gates[at] + added[at]) : gates[at];
      };
      const double cell = sigmoid(gate(2)) * before[unit] + sigmoid(gate(0)) * std::tanh(gate(3));
      if (!(std::fabs(cell) < 1e6)) continue;  // rounding is not what this line is about
      report->close("cell", cell, found.cell[unit], 2e-6 * (1.0 + std::fabs(before[unit])), unit);
      report->close("out", sigmoid(gate(1)) * std::tanh(cell), found.out[unit], 4e-6 * (1.0 + std::fabs(before[unit])),
                    unit);
    }

    const int count = kAlignment / 4 * (1 + random.below(8));  // a multiple of kLanes
    const std::vector<float> a = make(count), b = make(count);
    for (Activation activation : {Activation::relu, Activation::tanh, Activation::sigmoid}) {
      report->at("hidden", "activation " + std::to_string(static_cast<int>(activation)));
      std::vector<float> sums(count + 1, 9.0f), other = sums;
      first.network->hidden(activation, a.data(), b.data(), count, other.data());
      set.network->hidden(activation, a.data(), b.data(), count, sums.data());
      report->same("out", other, sums);
      for (int i = 0; i < count; ++i) {
        const double x = static_cast<double>(a[i] + b[i]);
        const double y = activation == Activation::relu   ? (x < 0 ? 0 : x)
                         : activation == Activation::tanh ? std::tanh(x)
                                                          : sigmoid(x);
        report->close("out", y, sums[i], activation == Activation::relu ? 0.0 : 5e-7, i);
      }
    }
  }
}

// Masks of tokens: some of all, few, and none.
std::vector<unsigned char> masks_of(int entries, Random* random) {
  std::vector<unsigned char> table;
  for (int often : {2, 20, 0})
    for (int i = 0; i < entries; ++i) table.push_back(often && random->below(often) == 0);
  return table;
}

// --- screening and measuring -----------------------------------------------------------------------------------------

void check_screening(const InstructionSet& set, Report* report) {
  Random random(3);
  for (int round = 0; round < 300; ++round) {
    const int sizes[] = {1, 7, 16, 63, 64, 100, 1025};
    const int count = sizes[round % 7];
    std::vector<float> approximate = random.normals(count), errors(count), norms(count);
    for (int i = 0; i < count; ++i) {
      if (random.below(10) == 0) approximate[i] = kLowest;
      errors[i] = 0.1f * random.uniform();
      norms[i] = random.uniform();
    }
    const int first = random.below(count + 1), last = first + random.below(count + 1 - first);
    const std::vector<unsigned char> mask = masks_of(count, &random);
    const std::vector<float> scores =
        random.floats(count, [&] { return random.below(20) ? random.normal() : -kInfinity; });
    const Steering steering = {round % 2 ? mask.data() + count * random.below(3) : nullptr,
                               round / 2 % 2 ? scores.data() : nullptr};
    std::vector<float> block_norms((count + kScreenBlock - 1) / kScreenBlock), block_errors(block_norms.size());
    for (int i = 0; i < count; ++i) {
      block_norms[i / kScreenBlock] = std::max(block_norms[i / kScreenBlock], norms[i]);
      block_errors[i / kScreenBlock] = std::max(block_errors[i / kScreenBlock], errors[i]);
    }
    const ApproximateRow row = {approximate.data(), norms.data(), errors.data(), block_norms.data(),
                                block_errors.data(), count, first, last,
                                random.uniform(), 0.2f * random.uniform(), steering};
    std::vector<float> maxima(block_norms.size(), kNaN);
    std::vector<float> largest(block_norms.size(), kLowest);
    const float certain = round % 3 ? -2.0f + 4.0f * random.uniform() : std::numeric_limits<float>::lowest();
    std::vector<std::int32_t> expected, found(count);
    Best likeliest;
    for (int i = 0; i < count; ++i) {
      if ((i >= first && i < last) || !may_win(steering.allowed, i)) continue;
      float value = approximate[i];
      if (steering.scores) value = (value + scores[i]) + std::fabs(scores[i]) * kScoreError;
      const float error = errors[i] * row.norm, rounding = norms[i] * row.error_norm;
      likeliest = better(likeliest, candidate(value, i));
      if (value > largest[i / kScreenBlock]) largest[i / kScreenBlock] = value;
      if (value + (error + rounding) >= certain) expected.push_back(i);
    }
    const std::string which = std::to_string(count) + " outputs, round " + std::to_string(round);
    report->at("likeliest", which);
    report->close("output", likeliest.index, set.network->likeliest(row, maxima.data()), 0.0, 0);
    report->same("maxima", largest, maxima);
    report->at("survivors", which);
    found.resize(set.network->survivors(row, largest.data(), certain, found.data()));
    report->same("outputs", expected, found);
  }

  report->at("read", "12 KiB");
  std::vector<std::uint32_t> words(3 * 1024);
  std::uint32_t sum = 0;
  for (std::uint32_t& word : words) sum += word = static_cast<std::uint32_t>(random.below(0x7fffffff)) * 3u;
  report->expect(set.network->read(reinterpret_cast<const char*>(words.data()), 4 * words.size()) == sum,
                 "the sum of the words");
}

// --- rows ------------------------------------------------------------------------------------------------------------

constexpr int kFrames[] = {0, 1, 2, 4, 8};
constexpr RowLayout kLayouts[] = {// V, blank, B, D
                                  {30, 30, 1, 5, kFrames, kFrames},   {1024, 0, 1, 5, kFrames, kFrames},
                                  {257, 100, 1, 0, kFrames, kFrames}, {40, 40, 4, 0, kFrames, kFrames},
                                  {77, 3, 3, 0, kFrames, kFrames},    {1, 1, 1, 2, kFrames, kFrames},
                                  {15, 15, 1, 1, kFrames, kFrames},   {600, 599, 1, 4, kFrames, kFrames}};

std::vector<float> joint_rows(const RowLayout& layout, int count, Random* random) {
  std::vector<float> rows;
  for (int i = 0; i < count; ++i) {
    const int kind = random->below(5);
    for (int j = 0; j < layout.width(); ++j) {
      if (kind == 0)
        rows.push_back(static_cast<float>(random->below(3)));  // ties
      else if (kind == 1)
        rows.push_back(random->below(3) ? random->normal() : random->hostile());
      else if (kind == 2)
        rows.push_back(random->below(2) ? kNaN : -kInfinity);
      else
        rows.push_back(5.0f * random->normal());
    }
  }
  return rows;
}

// The loops over a part of a row as plain C++.
struct PlainReduce {
  Best best(const float* row, int first, int last) const {
    Best best;
    for (int i = first; i < last; ++i) best = better(best, candidate(sanitized(row[i]), i));
    return best;
  }
  Best best(const float* row, int first, int last, const Steering& steering) const {
    Best best;
    for (int i = first; i < last; ++i)
      if (may_win(steering.allowed, i)) best = better(best, candidate(steered(row[i], i, steering), i));
    return best;
  }
  float log_sum_exp(const float* part, int n, float max) const {
    double sum = 0.0;
    for (int i = 0; i < n; ++i) sum += std::exp(static_cast<double>(sanitized(part[i])) - max);
    return static_cast<float>(std::log(sum));
  }
};

void check_decisions(const InstructionSet& first, const InstructionSet& set, Report* report) {
  Random random(4);
  for (const RowLayout& layout : kLayouts) {
    constexpr int kRows = 60;
    const std::vector<float> rows = joint_rows(layout, kRows, &random);
    const std::vector<unsigned char> table = masks_of(layout.vocab_size + 1, &random);
    std::vector<std::int32_t> numbers(kRows);
    for (std::int32_t& number : numbers) number = random.below(4) - 1;
    const std::vector<float> scores =
        random.floats(layout.token_entries(), [&] { return random.below(20) ? random.normal() : -kInfinity; });
    for (int round = 0; round < 8; ++round) {
      const GreedyOptions options = {10, round % 2 ? 0.75f : 0.0f, round / 2 % 2};
      // Masks and scores are read by entry, so they are for rows with one blank; with several, blanks are the last entries.
      const bool steerable = layout.num_blanks == 1 || layout.blank == layout.vocab_size;
      const Masks masks = steerable && round >= 4 ? Masks{table.data(), numbers.data(), layout.vocab_size + 1} : Masks{};
      report->at("decide_rows", std::to_string(layout.vocab_size) + " tokens, round " + std::to_string(round));
      struct Decisions {
        std::vector<std::int32_t> tokens, durations;
        std::vector<float> token_logprobs, duration_logprobs;
        Decisions(const InstructionSet& set, const std::vector<float>& rows, const RowLayout& layout,
                  const GreedyOptions& options, const Masks& masks, const float* scores)
            : tokens(kRows), durations(kRows), token_logprobs(kRows), duration_logprobs(kRows) {
          set.decide(rows.data(), kRows, layout, options, masks, scores, tokens.data(), durations.data(),
                     token_logprobs.data(), duration_logprobs.data());
        }
      };
      const float* added = round % 4 == 3 && steerable ? scores.data() : nullptr;
      const Decisions expected(first, rows, layout, options, masks, added);
      const Decisions found(set, rows, layout, options, masks, added);
      report->same("tokens", expected.tokens, found.tokens);
      report->same("durations", expected.durations, found.durations);
      report->same("token_logprobs", expected.token_logprobs, found.token_logprobs);
      report->same("duration_logprobs", expected.duration_logprobs, found.duration_logprobs);
      for (int i = 0; i < kRows; ++i) {
        const Decision plain = decide(rows.data() + i * layout.width(), layout, options, {masks[i], added},
                                      PlainReduce());
        report->close("token", plain.token, found.tokens[i], 0.0, i);
        report->close("duration", plain.duration, found.durations[i], 0.0, i);
        report->close("token_logprob", plain.token_logprob, found.token_logprobs[i],
                      1e-5 * (1 + std::fabs(plain.token_logprob)), i);
        report->close("duration_logprob", plain.duration_logprob, found.duration_logprobs[i], 1e-5, i);
      }
    }
  }
}

void check_ranking(const InstructionSet& first, const InstructionSet& set, Report* report) {
  Random random(5);
  for (const RowLayout& layout : kLayouts)
    for (int round = 0; round < 120; ++round) {
      const std::vector<float> row = joint_rows(layout, 1, &random);
      const std::vector<unsigned char> table = masks_of(layout.token_entries(), &random);
      const std::vector<float> bonus =
          random.floats(layout.token_entries(), [&] { return random.below(20) ? random.normal() : -kInfinity; });
      BeamOptions options{};
      options.temperature = round % 3 == 0 ? 1.0f : round % 3 == 1 ? 0.7f : 2.0f;
      options.statistic = static_cast<Statistic>(round % 5);
      options.alpha = options.statistic == Statistic::shannon ? 1.0f : 0.33f;
      const int ranks = 1 + random.below(9);
      const float* added = round % 4 == 1 ? bonus.data() : nullptr;
      const Allowed allowed = round % 4 == 2 ? table.data() + layout.token_entries() * random.below(3) : nullptr;
      report->at("rank_row", std::to_string(layout.vocab_size) + " tokens, round " + std::to_string(round));
      struct Ranked : RankedRow {
        std::vector<std::int32_t> token;
        std::vector<float> numbers;
        Ranked(const InstructionSet& set, const float* row, const RowLayout& layout, const float* bonus,
               Allowed allowed, int ranks, const BeamOptions& options)
            : RankedRow(), token(ranks), numbers(ranks + layout.num_durations + layout.num_blanks) {
          tokens = token.data();
          token_logprobs = numbers.data();
          duration_logprobs = token_logprobs + ranks;
          blank_logprobs = duration_logprobs + layout.num_durations;
          set.rank(row, layout, bonus, allowed, ranks, options, this);
        }
      };
      const Ranked expected(first, row.data(), layout, added, allowed, ranks, options);
      const Ranked found(set, row.data(), layout, added, allowed, ranks, options);
      report->close("count", expected.count, found.count, 0.0);
      if (expected.count != found.count) continue;
      report->same("tokens", expected.tokens, found.tokens, found.count);
      report->same("token_logprobs", expected.token_logprobs, found.token_logprobs, found.count);
      report->same("duration_logprobs", expected.duration_logprobs, found.duration_logprobs, layout.num_durations);
      report->same("blank_logprobs", expected.blank_logprobs, found.blank_logprobs, layout.num_blanks);
      for (const auto best : {&RankedRow::blank, &RankedRow::largest}) {
        report->close("value of the best", (expected.*best).value, (found.*best).value, 0.0);
        report->close("index of the best", (expected.*best).index, (found.*best).index, 0.0);
      }
      report->close("duration", expected.duration.index, found.duration.index, 0.0);
      report->close("frames", expected.duration.frames, found.duration.frames, 0.0);
      for (const auto number :
           {&RankedRow::raised, &RankedRow::statistic, &RankedRow::token_normalizer, &RankedRow::duration_normalizer})
        report->close("number", expected.*number, found.*number, 0.0);

      // The best tokens, found by sorting them all.
      std::vector<Best> all;
      for (int i = 0; i < layout.token_entries(); ++i) {
        if ((i >= layout.blank && i < layout.blanks_end()) || !may_win(allowed, i)) continue;
        float value = sanitized(sanitized(row[i]) * (1.0f / options.temperature));
        if (added) value = sanitized(value + added[i]);
        if (value > kLowest) all.push_back(candidate(value, i));
      }
      std::stable_sort(all.begin(), all.end(), [](const Best& a, const Best& b) { return a.value > b.value; });
      if (!(std::max(found.largest.value, found.blank.value) > kLowest)) all.clear();
      report->close("count", std::min<double>(ranks, static_cast<double>(all.size())), found.count, 0.0);
      for (int i = 0; i < found.count; ++i) report->close("token", all[i].index, found.tokens[i], 0.0, i);
    }
}

// --- kernels that are a little wrong ---------------------------------------------------------------------------------

const InstructionSet* right;  // what the wrong ones call

float next(float x) { return std::isfinite(x) ? std::nextafterf(x, kInfinity) : 0.0f; }

// The set with one kernel whose last result is the next number, or one too few, or one too many.
bool make_wrong(const std::string& kernel, InstructionSet* set, NetworkKernels* network) {
  *network = *set->network;
  set->network = network;
  if (kernel == "stage") {
    network->stage = [](const Matrix& matrix, const float* const* rows, int count, char* scratch, StagedRow* staged) {
      right->network->stage(matrix, rows, count, scratch, staged);
      staged[count - 1].scale = next(staged[count - 1].scale);
    };
  } else if (kernel == "multiply") {
    network->multiply = [](const Matrix& matrix, const StagedRow* rows, int count, int first, int last,
                           float* const* outs) {
      right->network->multiply(matrix, rows, count, first, last, outs);
      if (count == 5 && first < last) outs[count - 1][last * kPanel - 1] = next(outs[count - 1][last * kPanel - 1]);
    };
  } else if (kernel == "multiply_some") {
    network->multiply_some = [](const Matrix& matrix, const StagedRow& row, const std::int32_t* outputs, int count,
                                float* values) {
      right->network->multiply_some(matrix, row, outputs, count, values);
      values[count - 1] = next(values[count - 1]);
    };
  } else if (kernel == "lstm_cell") {
    network->lstm_cell = [](const float* gates, const float* addend, int first, int last, float* cell, float* out,
                            float* copy) {
      right->network->lstm_cell(gates, addend, first, last, cell, out, copy);
      out[last * kUnits - 1] = next(out[last * kUnits - 1]);
    };
  } else if (kernel == "hidden") {
    network->hidden = [](Activation activation, const float* a, const float* b, int count, float* out) {
      right->network->hidden(activation, a, b, count, out);
      out[count - 1] = next(out[count - 1]);
    };
  } else if (kernel == "survivors") {
    network->survivors = [](const ApproximateRow& row, const float* maxima, float certain, std::int32_t* tokens) {
      return std::max(right->network->survivors(row, maxima, certain, tokens) - 1, 0);
    };
  } else if (kernel == "likeliest") {
    network->likeliest = [](const ApproximateRow& row, float* maxima) {
      return right->network->likeliest(row, maxima) ^ 1;
    };
  } else if (kernel == "read") {
    network->read = [](const char* data, std::size_t bytes) { return right->network->read(data, bytes) + 1; };
  } else if (kernel == "decide_rows") {
    set->decide = [](const float* rows, std::size_t count, const RowLayout& layout, const GreedyOptions& options,
                     const Masks& masks, const float* scores, std::int32_t* tokens, std::int32_t* durations,
                     float* token_logprobs, float* duration_logprobs) {
      right->decide(rows, count, layout, options, masks, scores, tokens, durations, token_logprobs, duration_logprobs);
      token_logprobs[count - 1] = next(token_logprobs[count - 1]);
    };
  } else if (kernel == "rank_row") {
    set->rank = [](const float* row, const RowLayout& layout, const float* bonus, Allowed allowed, int ranks,
                   const BeamOptions& options, RankedRow* ranked) {
      right->rank(row, layout, bonus, allowed, ranks, options, ranked);
      ranked->statistic = next(ranked->statistic);
    };
  } else {
    return false;
  }
  return true;
}

bool check(const InstructionSet& first, const InstructionSet& set) {
  Report report(set.name);
  check_products(first, set, &report);
  check_elementwise(first, set, &report);
  check_screening(set, &report);
  check_decisions(first, set, &report);
  check_ranking(first, set, &report);
  return report.done();
}

}  // namespace

int main(int count, char** arguments) {
  std::size_t sets;
  const InstructionSet* table = instruction_sets(&sets);
  if (count == 3 && !std::strcmp(arguments[1], "--wrong")) {
    for (std::size_t i = 0; i < sets; ++i)
      if (table[i].supported()) right = &table[i];
    InstructionSet wrong = *right;
    NetworkKernels network;
    if (!make_wrong(arguments[2], &wrong, &network)) return 2;
    return check(table[0], wrong) ? 0 : 1;
  }
  if (count != 1) return 2;
  bool good = true;
  for (std::size_t i = 0; i < sets; ++i) {
    if (table[i].supported()) {
      good = check(table[0], table[i]) && good;
    } else {
      std::printf("%s: not on this processor\n", table[i].name);
    }
    std::fflush(stdout);
  }
  return good ? 0 : 1;
}
