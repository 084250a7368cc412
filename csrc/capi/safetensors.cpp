#include "safetensors.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>

#include "failure.h"
#include "json.h"

#if defined(_WIN32)
#include <windows.h>
#endif

namespace tdt::capi {
namespace {

constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kLongestHeader = 100'000'000;

std::size_t dtype_bytes(const std::string& dtype) {
  if (dtype == "F32" || dtype == "I32") return 4;
  if (dtype == "F16" || dtype == "BF16") return 2;
  return dtype == "I64" ? 8 : 0;
}

std::string shown(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::int64_t size : shape) text += (text.size() > 1 ? ", " : "") + (size < 0 ? "any" : std::to_string(size));
  return text + "]";
}

template <class Value>
Value at(const unsigned char* data, std::size_t index) {
  Value value;
  std::memcpy(&value, data + index * sizeof value, sizeof value);
  return value;
}

}  // namespace

std::int64_t Tensor::elements() const {
  std::int64_t count = 1;
  for (std::int64_t size : shape) count *= size;
  return count;
}

void Safetensors::fail(const std::string& field, const std::string& problem) const {
  refuse_file(name + ": " + field + " " + problem);
}

Safetensors Safetensors::parse(const unsigned char* data, std::size_t bytes, const std::string& name) {
  Safetensors file;
  file.name = name;
  if (bytes < kLengthBytes) file.fail("the file", "is too short to be a model file");
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i) length |= static_cast<std::uint64_t>(data[i]) << (8 * i);
  if (length > std::min<std::uint64_t>(kLongestHeader, bytes - kLengthBytes) || length < 2 || data[kLengthBytes] != '{')
    file.fail("the file", "is no model file: it does not begin as safetensors files do");
  const unsigned char* first = data + kLengthBytes + length;
  const std::size_t available = bytes - kLengthBytes - static_cast<std::size_t>(length);
  const Json header = Json::parse(reinterpret_cast<const char*>(data) + kLengthBytes, static_cast<std::size_t>(length), name);
  std::vector<std::pair<std::uint64_t, std::uint64_t>> spans;
  for (const auto& [key, value] : header.members) {
    if (value.type != Json::Type::object) file.fail("'" + key + "'", "must be an object");
    if (key == "__metadata__") {
      for (const auto& [field, text] : value.members) {
        if (text.type != Json::Type::string) file.fail("metadata '" + field + "'", "must be a string");
        file.metadata[field] = text.string;
      }
      continue;
    }
    const std::string field = "tensor '" + key + "'";
    const Json *dtype = value.find("dtype"), *shape = value.find("shape"), *offsets = value.find("data_offsets");
    if (!dtype || dtype->type != Json::Type::string || !shape || shape->type != Json::Type::array || !offsets ||
        offsets->type != Json::Type::array || offsets->items.size() != 2 || value.members.size() != 3)
      file.fail(field, "must have exactly dtype, shape and data_offsets");
    const std::size_t item = dtype_bytes(dtype->string);
    if (!item) file.fail(field, "has the dtype '" + dtype->string + "'; F32, F16, BF16, I32 and I64 are known");
    Tensor tensor{dtype->string, {}, nullptr, 0};
    std::uint64_t expected = item;
    if (shape->items.size() > 8) file.fail(field, "has too many axes");
    for (const Json& axis : shape->items) {
      if (axis.type != Json::Type::integer || axis.integer < 0) file.fail(field, "has a wrong shape");
      if (axis.integer > 0 && expected > INT64_MAX / static_cast<std::uint64_t>(axis.integer))
        file.fail(field, "is too large");
      expected *= static_cast<std::uint64_t>(axis.integer);
      tensor.shape.push_back(axis.integer);
    }
    const Json &begin = offsets->items[0], &end = offsets->items[1];
    if (begin.type != Json::Type::integer || end.type != Json::Type::integer || begin.integer < 0 ||
        end.integer < begin.integer || static_cast<std::uint64_t>(end.integer) > available)
      file.fail(field, "has data_offsets outside the file: it may be cut off");
    if (static_cast<std::uint64_t>(end.integer - begin.integer) != expected)
      file.fail(field, "has another size than its shape and dtype");
    tensor.data = first + begin.integer;
    tensor.bytes = static_cast<std::size_t>(expected);
    spans.emplace_back(begin.integer, end.integer);
    file.tensors.emplace(key, std::move(tensor));
  }
  std::sort(spans.begin(), spans.end());
  std::uint64_t place = 0;
  for (const auto& [begin, end] : spans) {
    if (begin != place) file.fail("the file", "has tensors that overlap, or a hole between them");
    place = end;
  }
  if (place != available) file.fail("the file", "has another length than its header says");
  return file;
}

const std::string& Safetensors::text(const char* key) const {
  const auto found = metadata.find(key);
  if (found == metadata.end()) fail(std::string("metadata '") + key + "'", "is missing");
  return found->second;
}

std::int64_t Safetensors::integer(const char* key, std::int64_t low, std::int64_t high) const {
  const std::string& digits = text(key);
  std::int64_t value = 0;
  bool good = !digits.empty() && digits.size() <= 18;
  for (char c : digits) {
    good = good && c >= '0' && c <= '9';
    value = good ? value * 10 + (c - '0') : 0;
  }
  if (!good || value < low || value > high)
    fail(std::string("metadata '") + key + "'",
         "must be an integer from " + std::to_string(low) + " to " + std::to_string(high) + ", got '" +
             digits.substr(0, 40) + "'");
  return value;
}

const Tensor& Safetensors::tensor(const std::string& key, const std::vector<std::int64_t>& shape) const {
  const auto found = tensors.find(key);
  if (found == tensors.end()) fail("tensor '" + key + "'", "is missing");
  bool good = found->second.shape.size() == shape.size();
  for (std::size_t i = 0; good && i < shape.size(); ++i) good = shape[i] < 0 || found->second.shape[i] == shape[i];
  if (!good) fail("tensor '" + key + "'", "has the shape " + shown(found->second.shape) + ", expected " + shown(shape));
  return found->second;
}

std::vector<float> Safetensors::floats(const std::string& key, const std::vector<std::int64_t>& shape) const {
  const Tensor& found = tensor(key, shape);
  std::vector<float> values(static_cast<std::size_t>(found.elements()));
  if (found.dtype == "F32") {
    if (!values.empty()) std::memcpy(values.data(), found.data, found.bytes);
  } else if (found.dtype == "BF16") {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::uint32_t bits = static_cast<std::uint32_t>(at<std::uint16_t>(found.data, i)) << 16;
      std::memcpy(&values[i], &bits, sizeof bits);
    }
  } else if (found.dtype == "F16") {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = from_half(at<std::uint16_t>(found.data, i));
  } else {
    fail("tensor '" + key + "'", "must hold F32, F16 or BF16, not " + found.dtype);
  }
  return values;
}

template <class Integer>
std::vector<Integer> Safetensors::integers(const std::string& key, const std::vector<std::int64_t>& shape) const {
  const Tensor& found = tensor(key, shape);
  const char* expected = sizeof(Integer) == 8 ? "I64" : "I32";
  if (found.dtype != expected) fail("tensor '" + key + "'", std::string("must hold ") + expected + ", not " + found.dtype);
  std::vector<Integer> values(static_cast<std::size_t>(found.elements()));
  if (!values.empty()) std::memcpy(values.data(), found.data, found.bytes);
  return values;
}
template std::vector<std::int32_t> Safetensors::integers(const std::string&, const std::vector<std::int64_t>&) const;
template std::vector<std::int64_t> Safetensors::integers(const std::string&, const std::vector<std::int64_t>&) const;

float from_half(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  std::uint32_t exponent = (half >> 10) & 0x1f, fraction = half & 0x3ffu, bits;
  if (exponent == 0x1f) {
    bits = sign | 0x7f800000u | (fraction << 13);
  } else if (exponent != 0) {
    bits = sign | ((exponent + 112) << 23) | (fraction << 13);
  } else {  // zero or subnormal: fraction * 2^-24, which is exact
    float value = static_cast<float>(fraction) * 5.9604644775390625e-8f;
    std::memcpy(&bits, &value, sizeof bits);
    bits |= sign;
  }
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

std::vector<unsigned char> read_file(const std::string& path) {
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
#if defined(_WIN32)
  std::wstring wide(path.size() + 1, L'\0');
  MultiByteToWideChar(CP_UTF8, 0, path.c_str(), -1, wide.data(), static_cast<int>(wide.size()));
  std::unique_ptr<std::FILE, Close> file(_wfopen(wide.c_str(), L"rb"));
#else
  std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "rb"));
#endif
  if (!file && errno == ENOMEM) throw std::bad_alloc();
  if (!file) refuse_file(path + ": cannot be opened (" + std::strerror(errno) + ")");
  std::vector<unsigned char> content;
  constexpr std::size_t kAtOnce = std::size_t{1} << 20;
  for (;;) {
    const std::size_t size = content.size();
    if (content.capacity() < size + kAtOnce) content.reserve(2 * size + kAtOnce);
    content.resize(size + kAtOnce);
    const std::size_t count = std::fread(content.data() + size, 1, kAtOnce, file.get());
    content.resize(size + count);
    if (count < kAtOnce) break;
  }
  if (std::ferror(file.get()) && errno == ENOMEM) throw std::bad_alloc();
  if (std::ferror(file.get())) refuse_file(path + ": cannot be read (" + std::strerror(errno) + ")");
  return content;
}

}  // namespace tdt::capi
