// The exception for what the caller did wrong. The C functions turn it into a status and a message.
#pragma once

#include <stdexcept>
#include <string>

namespace tdt::capi {

enum class Kind { argument = 1, file = 2 };

class Failure : public std::runtime_error {
 public:
  Failure(Kind kind, const std::string& message) : std::runtime_error(message), kind(kind) {}
  const Kind kind;
};

[[noreturn]] inline void refuse(const std::string& message) { throw Failure(Kind::argument, message); }
[[noreturn]] inline void refuse_file(const std::string& message) { throw Failure(Kind::file, message); }

}  // namespace tdt::capi
