// Reads the safetensors format: eight bytes with the header's length, a header in JSON, and the tensors' data.
//
// The header is {"name": {"dtype": ..., "shape": [...], "data_offsets": [begin, end]}, ..., "__metadata__": {...}}. Files
// are not trusted: the data of the tensors must fill the file exactly, without holes and without overlaps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace tdt::capi {

struct Tensor {
  std::string dtype;                 // "F32", "F16", "BF16", "I32", "I64"
  std::vector<std::int64_t> shape;
  const unsigned char* data;         // in the file's memory; not aligned
  std::size_t bytes;
  std::int64_t elements() const;
};

struct Safetensors {
  std::string name;                             // of the file, for messages
  std::map<std::string, std::string> metadata;
  std::map<std::string, Tensor> tensors;

  // `data` must outlive what is returned. Throws a Failure that names the file and the field.
  static Safetensors parse(const unsigned char* data, std::size_t bytes, const std::string& name);

  const std::string& text(const char* key) const;
  std::int64_t integer(const char* key, std::int64_t low, std::int64_t high) const;
  // The tensor of a name, with a shape in which -1 stands for any number.
  const Tensor& tensor(const std::string& key, const std::vector<std::int64_t>& shape) const;
  // Its numbers. Halves are widened.
  std::vector<float> floats(const std::string& key, const std::vector<std::int64_t>& shape) const;
  template <class Integer>
  std::vector<Integer> integers(const std::string& key, const std::vector<std::int64_t>& shape) const;

  [[noreturn]] void fail(const std::string& field, const std::string& problem) const;
};

float from_half(std::uint16_t bits);

// The whole content of a file. Throws a Failure if it cannot be read.
std::vector<unsigned char> read_file(const std::string& path);

}  // namespace tdt::capi
