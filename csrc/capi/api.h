// What the functions of tdtdecode.h share: objects behind handles that several of them take, statuses, checks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "capi/failure.h"
#include "capi/search.h"
#include "capi/tdtdecode.h"

struct tdt_model {
  std::shared_ptr<const tdt::capi::Model> held;
};
struct tdt_phrases {
  std::shared_ptr<const tdt::capi::Phrases> held;
};
struct tdt_ngram {
  std::shared_ptr<const tdt::capi::Ngram> held;
};
struct tdt_allow {
  std::shared_ptr<const tdt::capi::Allow> held;
};

namespace tdt::capi {

constexpr float kMostWeight = 1e6f;

// Keeps the message for tdt_error_message(), and returns the status.
tdt_status fail(tdt_status status, const char* message);

// Runs a function that may throw, and returns its status.
template <class Function>
tdt_status guarded(Function function) noexcept {
  try {
    function();
    return TDT_OK;
  } catch (const Failure& failure) {
    return fail(static_cast<tdt_status>(failure.kind), failure.what());
  } catch (const std::bad_alloc&) {
    return fail(TDT_ERROR_MEMORY, "there is not enough memory");
  } catch (const std::length_error&) {
    return fail(TDT_ERROR_MEMORY, "there is not enough memory");
  } catch (const std::exception& error) {
    return fail(TDT_ERROR_INTERNAL, error.what());
  } catch (...) {
    return fail(TDT_ERROR_INTERNAL, "unknown exception");
  }
}

template <class Pointer>
void require(Pointer pointer, const char* name) {
  if (!pointer) refuse(std::string(name) + " must not be NULL");
}

// Makes an object where the caller wants it; NULL there if that fails.
template <class Object, class Make>
tdt_status give(Object** out, const char* name, Make make) noexcept {
  if (out) *out = nullptr;
  return guarded([&] {
    require(out, name);
    *out = make();
  });
}

// The caller's structure. `first` is the size that it had in version 1 of the interface. What an older header does not
// have is zero; what a newer one has must be zero.
template <class Struct>
Struct read(const Struct* given, std::size_t first, const char* name) {
  static_assert(std::is_trivially_copyable<Struct>::value, "");
  Struct read{};
  if (!given) return read;
  std::size_t size;
  std::memcpy(&size, given, sizeof size);
  if (size < first || size > (std::size_t{1} << 20))
    refuse(std::string(name) + " has a wrong size: make it with its TDT_..._INIT macro");
  const char* bytes = reinterpret_cast<const char*>(given);
  for (std::size_t i = sizeof(Struct); i < size; ++i)
    if (bytes[i] != 0) refuse(std::string(name) + " uses an option of a newer version of the library");
  std::memcpy(&read, given, std::min(size, sizeof(Struct)));
  return read;
}
#define TDT_READ(given, type, last) read<type>(given, offsetof(type, last) + sizeof(type::last), #given)

// Fills the caller's structure as far as its header knows it.
template <class Struct>
void write(const Struct& made, std::size_t first, Struct* out, const char* name) {
  require(out, name);
  std::size_t size;
  std::memcpy(&size, out, sizeof size);
  if (size < first || size > (std::size_t{1} << 20))
    refuse(std::string(name) + " has a wrong size: make it with its TDT_..._INIT macro");
  std::memcpy(reinterpret_cast<char*>(out) + sizeof size, reinterpret_cast<const char*>(&made) + sizeof size,
              std::min(size, sizeof(Struct)) - sizeof size);
}
#define TDT_WRITE(made, type, last, out) write<type>(made, offsetof(type, last) + sizeof(type::last), out, #out)

inline void check_range(const char* name, double value, double low, double high) {
  if (!(value >= low && value <= high)) {
    const std::string range = std::to_string(low) + " to " + std::to_string(high);
    refuse(std::string(name) + " must be from " + range + ", got " + std::to_string(value));
  }
}

inline int as_choice(const char* name, std::int32_t value, std::int32_t last) {
  if (value < 0 || value > last)
    refuse(std::string(name) + " must be one of the " + std::to_string(last + 1) + " that tdtdecode.h lists, got " +
           std::to_string(value));
  return value;
}

}  // namespace tdt::capi
