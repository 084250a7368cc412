// Reads JSON (RFC 8259), for the headers of model files. Such files are not trusted: depth is bounded, memory is bounded
// by the text's length, keys must differ, and strings must be UTF-8 without zero characters.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace tdt::capi {

struct Json {
  enum class Type { null, boolean, integer, number, string, array, object };
  Type type = Type::null;
  std::int64_t integer = 0;  // of an integer; of a boolean 0 or 1
  double number = 0.0;       // of a number, and of an integer too
  std::string string;
  std::vector<Json> items;                             // of an array
  std::vector<std::pair<std::string, Json>> members;   // of an object, in the order of the text

  // The member with a name; null if there is none.
  const Json* find(const char* name) const;

  // Throws a Failure that begins with `name` if the text is not JSON.
  static Json parse(const char* text, std::size_t size, const std::string& name);
};

}  // namespace tdt::capi
