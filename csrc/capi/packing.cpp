#include "packing.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace tdt::capi {
namespace {

using cpu::Format;
using cpu::kPanel;
using cpu::kUnits;

constexpr int kLanes = 16;                       // layer inputs are padded to a multiple of these
constexpr double kLargestTable = 1 << 29;        // bytes of the largest table of gates by token
constexpr double kLargestNorm = 1e22;            // up to which a matrix is screened, see csrc/cpu/screening.h
constexpr int kScreenedOutputs = 4096;           // from so many outputs on, screening saves more than it costs

int padded(int size, int unit) { return (size + unit - 1) / unit * unit; }

std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// float32 rounded to bfloat16, ties to even.
std::uint16_t to_bfloat16(float value) {
  const std::uint32_t bits = bits_of(value);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

// Whether a half holds the number exactly, and its bits.
bool to_half(float value, std::uint16_t* half) {
  const std::uint32_t bits = bits_of(value), sign = (bits >> 16) & 0x8000u, rest = bits & 0x7fffffffu;
  if (rest == 0) {
    *half = static_cast<std::uint16_t>(sign);
    return true;
  }
  const int exponent = static_cast<int>(rest >> 23) - 127;
  if (exponent > 15 || exponent < -24) return false;
  const std::uint32_t fraction = (rest & 0x7fffffu) | 0x800000u;
  const int dropped = exponent >= -14 ? 13 : -1 - exponent;  // low bits that a half does not have: 13, or up to 23
  if (fraction & ((1u << dropped) - 1)) return false;
  const std::uint32_t kept = fraction >> dropped;
  *half = static_cast<std::uint16_t>(
      sign | (exponent >= -14 ? (static_cast<std::uint32_t>(exponent + 15) << 10) | (kept & 0x3ffu) : kept));
  return true;
}

// The smallest format that holds every weight exactly.
Format exact_format(const std::vector<float>& weight) {
  if (std::all_of(weight.begin(), weight.end(), [](float value) { return (bits_of(value) & 0xffffu) == 0; }))
    return Format::bfloat16;
  std::uint16_t half;
  if (std::all_of(weight.begin(), weight.end(), [&](float value) { return to_half(value, &half); }))
    return Format::float16;
  return Format::float32;
}

void start(const Affine& affine, Format format, PackedMatrix* packed) {
  cpu::Matrix& matrix = packed->matrix;
  matrix.format = format;
  matrix.outputs = padded(affine.outputs, kPanel);
  matrix.inputs = affine.inputs;
  packed->panels.resize(matrix.panel_bytes() * static_cast<std::size_t>(matrix.panel_count()));
  packed->bias.resize(static_cast<std::size_t>(matrix.outputs));
  std::copy(affine.bias.begin(), affine.bias.end(), packed->bias.data());
  matrix.panels = packed->panels.data();
  matrix.bias = packed->bias.data();
}

// Where the weight of an output and an input lies, counted in weights.
std::size_t place(const cpu::Matrix& matrix, int output, int input) {
  const int group = cpu::group_of(matrix.format);
  const std::size_t row = static_cast<std::size_t>(output / kPanel) * matrix.groups() + input / group;
  return (row * kPanel + output % kPanel) * group + input % group;
}

template <class Value, class Convert>
void fill(const Affine& affine, PackedMatrix* packed, Convert convert) {
  Value* values = reinterpret_cast<Value*>(packed->panels.data());
  for (int output = 0; output < affine.outputs; ++output)
    for (int input = 0; input < affine.inputs; ++input)
      values[place(packed->matrix, output, input)] =
          convert(affine.weight[static_cast<std::size_t>(output) * affine.inputs + input]);
}

float largest(const float* row, int count) {
  float most = 0.0f;
  for (int i = 0; i < count; ++i) most = std::max(most, std::fabs(row[i]));
  return most;
}

void pack_int8(const Affine& affine, PackedMatrix* packed) {
  packed->scales.resize(static_cast<std::size_t>(packed->matrix.outputs));
  packed->sums.resize(static_cast<std::size_t>(packed->matrix.outputs));
  auto* values = reinterpret_cast<std::int8_t*>(packed->panels.data());
  for (int output = 0; output < affine.outputs; ++output) {
    const float* row = affine.weight.data() + static_cast<std::size_t>(output) * affine.inputs;
    float scale = largest(row, affine.inputs) / 127;
    if (scale < 1e-30f) scale = 0.0f;  // an output so small counts as zero
    std::int32_t sum = 0;
    for (int input = 0; input < affine.inputs; ++input) {
      const float step = scale > 0.0f ? std::nearbyint(row[input] / scale) : 0.0f;
      const auto value = static_cast<std::int8_t>(std::min(std::max(step, -127.0f), 127.0f));
      values[place(packed->matrix, output, input)] = value;
      sum += value;
    }
    packed->scales.data()[output] = scale;
    packed->sums.data()[output] = sum;
  }
  packed->matrix.scales = packed->scales.data();
  packed->matrix.sums = packed->sums.data();
}

void pack(const Affine& affine, Format format, PackedMatrix* packed) {
  start(affine, format, packed);
  switch (format) {
    case Format::float32: return fill<float>(affine, packed, [](float value) { return value; });
    case Format::float16:
      return fill<std::uint16_t>(affine, packed, [](float value) {
        std::uint16_t half = 0;
        to_half(value, &half);
        return half;
      });
    case Format::bfloat16:
    case Format::bfloat16_pairs: return fill<std::uint16_t>(affine, packed, to_bfloat16);
    case Format::int8: return pack_int8(affine, packed);
  }
}

void pack(const Affine& affine, Precision precision, const cpu::InstructionSet& isa, PackedMatrix* packed) {
  Format format = isa.widens_halves ? exact_format(affine.weight) : Format::float32;
  if (precision == Precision::int8) format = Format::int8;
  if (precision == Precision::bfloat16) format = Format::bfloat16_pairs;
  pack(affine, format, packed);
}

// The gates of a layer in the order of the kernels, blocks of kUnits units. For each place, the index of its gate among
// the model's 4H gates; -1 for padding.
std::vector<int> interleaved(int size, int hidden) {
  std::vector<int> index;
  for (int block = 0; block < hidden / kUnits; ++block)
    for (int gate = 0; gate < 4; ++gate)
      for (int unit = block * kUnits; unit < (block + 1) * kUnits; ++unit)
        index.push_back(unit < size ? unit + size * gate : -1);
  return index;
}

// A layer's gates from its input alone, with all biases.
Affine input_gates(const Layer& layer, int size, int hidden) {
  Affine gates{4 * hidden, layer.inputs, {}, {}};
  gates.weight.resize(static_cast<std::size_t>(gates.outputs) * gates.inputs);
  gates.bias.resize(gates.outputs);
  const std::vector<int> index = interleaved(size, hidden);
  for (int place = 0; place < gates.outputs; ++place) {
    if (index[place] < 0) continue;
    const float* row = layer.input.data() + static_cast<std::size_t>(index[place]) * layer.inputs;
    std::copy(row, row + layer.inputs, gates.weight.data() + static_cast<std::size_t>(place) * layer.inputs);
    gates.bias[place] = layer.bias[index[place]];
  }
  return gates;
}

// A layer's gates from [`below` numbers | its own last output]; with below = 0 from that alone, and without biases.
Affine all_gates(const Layer& layer, int size, int hidden, int below) {
  Affine gates{4 * hidden, below + hidden, {}, {}};
  gates.weight.resize(static_cast<std::size_t>(gates.outputs) * gates.inputs);
  gates.bias.resize(gates.outputs);
  const std::vector<int> index = interleaved(size, hidden);
  for (int place = 0; place < gates.outputs; ++place) {
    if (index[place] < 0) continue;
    float* row = gates.weight.data() + static_cast<std::size_t>(place) * gates.inputs;
    const std::size_t gate = index[place];
    if (below) {
      std::copy_n(layer.input.data() + gate * layer.inputs, layer.inputs, row);
      gates.bias[place] = layer.bias[gate];
    }
    std::copy_n(layer.recurrent.data() + gate * size, size, row + below);
  }
  return gates;
}

// The product of every embedding with a matrix, [V + 1, outputs padded to whole panels].
void tabulate(const Weights& weights, const Affine& affine, const cpu::InstructionSet& isa,
              cpu::Buffer<float>* table, int* width) {
  PackedMatrix packed;
  pack(affine, Format::float32, &packed);
  *width = packed.matrix.outputs;
  table->resize(static_cast<std::size_t>(weights.entries) * *width);
  std::vector<const float*> rows(weights.entries);
  std::vector<float*> outs(weights.entries);
  std::vector<cpu::StagedRow> staged(weights.entries);
  for (int token = 0; token < weights.entries; ++token) {
    rows[token] = weights.embedding.data() + static_cast<std::size_t>(token) * weights.below;
    outs[token] = table->data() + static_cast<std::size_t>(token) * *width;
  }
  isa.network->stage(packed.matrix, rows.data(), weights.entries, nullptr, staged.data());
  isa.network->multiply(packed.matrix, staged.data(), weights.entries, 0, packed.matrix.panel_count(), outs.data());
}

double norm(const float* row, int count) {
  double sum = 0.0;
  for (int i = 0; i < count; ++i) sum += static_cast<double>(row[i]) * row[i];
  return std::sqrt(sum);
}

}  // namespace

PackedNetwork::PackedNetwork(const Weights& weights, int blank, const std::vector<std::int32_t>& blank_frames,
                             const std::vector<std::int32_t>& durations, Precision precision,
                             const cpu::InstructionSet& isa)
    : blank_frames_(blank_frames), durations_(durations) {
  const int cells = static_cast<int>(weights.layers.size() + weights.earlier.size());
  const int size = weights.size, hidden = cells ? padded(size, kUnits) : size;
  network.layout = {};
  network.layout.vocab_size = weights.entries - 1;
  network.layout.blank = blank;
  network.layout.num_blanks = static_cast<int>(blank_frames_.size());
  network.layout.blank_frames = blank_frames_.data();
  network.layout.num_durations = static_cast<int>(durations_.size());
  network.layout.durations = durations_.empty() ? nullptr : durations_.data();
  network.activation = weights.activation;
  network.encoder_size = weights.encoder.inputs;
  network.predictor_size = size;
  network.joint_size = weights.encoder.outputs;
  network.hidden = hidden;
  layers_.resize(weights.layers.size());
  if (!weights.earlier.empty()) {
    network.table_kind = cpu::TableKind::context;
    network.table_width = (1 + cells) * hidden;
    table_.resize(static_cast<std::size_t>(weights.entries) * network.table_width);
    for (int token = 0; token < weights.entries; ++token)
      for (int i = 0; i <= cells; ++i) {
        const std::vector<float>& from = i ? weights.earlier[i - 1] : weights.embedding;
        std::copy_n(from.data() + static_cast<std::size_t>(token) * size, size,
                    table_.data() + static_cast<std::size_t>(token) * network.table_width + i * hidden);
      }
    pack(weights.prediction, precision, isa, &prediction_);
    network.prediction = prediction_.matrix;
  } else if (layers_.empty()) {
    network.table_kind = cpu::TableKind::prediction;
    tabulate(weights, weights.prediction, isa, &table_, &network.table_width);
  } else {
    const Layer& first = weights.layers.front();
    if (static_cast<double>(weights.entries) * 4 * hidden * sizeof(float) <= kLargestTable) {
      network.table_kind = cpu::TableKind::gates;
      tabulate(weights, input_gates(first, size, hidden), isa, &table_, &network.table_width);
      pack(all_gates(first, size, hidden, 0), precision, isa, &layers_[0]);
    } else {
      network.table_kind = cpu::TableKind::input;
      network.table_width = padded(weights.below, kLanes);
      table_.resize(static_cast<std::size_t>(weights.entries) * network.table_width);
      for (int token = 0; token < weights.entries; ++token)
        std::copy_n(weights.embedding.data() + static_cast<std::size_t>(token) * weights.below, weights.below,
                    table_.data() + static_cast<std::size_t>(token) * network.table_width);
      pack(all_gates(first, size, hidden, network.table_width), precision, isa, &layers_[0]);
    }
    for (std::size_t i = 1; i < layers_.size(); ++i)
      pack(all_gates(weights.layers[i], size, hidden, hidden), precision, isa, &layers_[i]);
    pack(weights.prediction, precision, isa, &prediction_);
    network.prediction = prediction_.matrix;
  }
  network.table = table_.data();
  for (const PackedMatrix& layer : layers_) layer_matrices_.push_back(layer.matrix);
  network.num_layers = static_cast<int>(layers_.size());
  network.num_cells = cells;
  network.layers = layer_matrices_.data();
  pack(weights.encoder, precision, isa, &encoder_);
  network.encoder = encoder_.matrix;
  network.joint = encoder_.matrix.outputs;
  pack(weights.output, precision, isa, &output_);
  network.output = output_.matrix;

  network.screened_slots = weights.output.outputs >= kScreenedOutputs ? isa.screened_slots : 0;
  if (precision != Precision::float32 || network.screened_slots == 0) return;
  pack(weights.output, Format::int8, &screen_);
  weight_norms_.resize(static_cast<std::size_t>(screen_.matrix.outputs));
  weight_errors_.resize(static_cast<std::size_t>(screen_.matrix.outputs));
  // The proof of csrc/cpu/screening.h needs these bounds, rounded up.
  const int inputs = weights.output.inputs;
  const double rounding = (2.0 * inputs + 64) * 5.9604644775390625e-8 * (1 + 1e-3), up = 1 + 1e-6;
  const auto* values = reinterpret_cast<const std::int8_t*>(screen_.panels.data());
  for (int output = 0; output < weights.output.outputs; ++output) {
    const float* row = weights.output.weight.data() + static_cast<std::size_t>(output) * inputs;
    const double scale = screen_.scales.data()[output];
    double stored = 0.0, error = 0.0;
    for (int input = 0; input < inputs; ++input) {
      const double value = values[place(screen_.matrix, output, input)] * scale, wrong = row[input] - value;
      stored += value * value;
      error += wrong * wrong;
    }
    const double errors = std::sqrt(error) + rounding * std::hypot(norm(row, inputs), weights.output.bias[output]);
    if (std::max(std::sqrt(stored), errors) > kLargestNorm) return;
    weight_norms_.data()[output] = static_cast<float>(std::sqrt(stored) * up);
    weight_errors_.data()[output] = static_cast<float>(errors * up);
  }
  network.screen = screen_.matrix;
  network.weight_norms = weight_norms_.data();
  network.weight_errors = weight_errors_.data();
}

PredictorState start_state(const Weights& weights, int blank) {
  const auto sum = [](const float* row, const std::vector<float>& x) {
    float total = 0.0f;
    for (std::size_t i = 0; i < x.size(); ++i) total += row[i] * x[i];
    return total;
  };
  const auto sigmoid = [](float x) { return 1.0f / (1.0f + std::exp(-x)); };
  PredictorState state;
  const std::size_t size = weights.size;
  const float* first = weights.embedding.data() + static_cast<std::size_t>(blank) * weights.below;
  std::vector<float> x(first, first + weights.below);
  for (const Layer& layer : weights.layers) {  // from zeros, so neither the recurrent part nor the forget gate counts
    std::vector<float> output(size);
    for (std::size_t unit = 0; unit < size; ++unit) {
      float gate[4];  // i, o, f, c
      for (std::size_t g = 0; g < 4; ++g)
        gate[g] = sum(layer.input.data() + (g * size + unit) * layer.inputs, x) + layer.bias[g * size + unit];
      const float cell = sigmoid(gate[0]) * std::tanh(gate[3]);
      output[unit] = sigmoid(gate[1]) * std::tanh(cell);
      state.cell.push_back(cell);
      state.hidden.push_back(output[unit]);
    }
    x.swap(output);
  }
  if (!weights.earlier.empty())
    for (float& value : x) value = std::max(value, 0.0f);
  for (const std::vector<float>& table : weights.earlier) {
    const float* share = table.data() + static_cast<std::size_t>(blank) * size;
    state.cell.insert(state.cell.end(), share, share + size);
  }
  for (int output = 0; output < weights.prediction.outputs; ++output)
    state.prediction.push_back(sum(weights.prediction.weight.data() + static_cast<std::size_t>(output) * size, x) +
                               weights.prediction.bias[output]);
  return state;
}

}  // namespace tdt::capi
