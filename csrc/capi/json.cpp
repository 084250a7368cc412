#include "json.h"

#include <algorithm>
#include <clocale>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "failure.h"
#include "text/utf8.h"

namespace tdt::capi {
namespace {

constexpr int kDeepest = 16;

class Parser {
 public:
  Parser(const char* text, std::size_t size, const std::string& name)
      : at_(text), begin_(text), end_(text + size), name_(name) {}

  Json document() {
    Json value = parsed(0);
    space();
    if (at_ != end_) fail("has more after its end");
    return value;
  }

 private:
  [[noreturn]] void fail(const char* problem) const {
    refuse_file(name_ + ": the JSON " + problem + ", at byte " + std::to_string(at_ - begin_));
  }

  void space() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\n' || *at_ == '\r')) ++at_;
  }

  bool taken(char expected) {
    space();
    if (at_ == end_ || *at_ != expected) return false;
    ++at_;
    return true;
  }

  void word(const char* expected) {
    const std::size_t length = std::strlen(expected);
    if (static_cast<std::size_t>(end_ - at_) < length || std::memcmp(at_, expected, length) != 0)
      fail("has an unknown word");
    at_ += length;
  }

  Json parsed(int depth) {
    if (depth > kDeepest) fail("is nested too deeply");
    space();
    if (at_ == end_) fail("ends too early");
    Json value;
    switch (*at_) {
      case '{': object(depth, &value); break;
      case '[': array(depth, &value); break;
      case '"':
        value.type = Json::Type::string;
        value.string = string();
        break;
      case 't':
      case 'f':
        value.type = Json::Type::boolean;
        value.integer = *at_ == 't';
        word(*at_ == 't' ? "true" : "false");
        break;
      case 'n': word("null"); break;
      default: number(&value);
    }
    return value;
  }

  void object(int depth, Json* value) {
    value->type = Json::Type::object;
    ++at_;
    if (taken('}')) return;
    do {
      space();
      if (at_ == end_ || *at_ != '"') fail("lacks a name");
      std::string name = string();
      if (!taken(':')) fail("lacks a colon");
      value->members.emplace_back(std::move(name), parsed(depth + 1));
    } while (taken(','));
    if (!taken('}')) fail("has an object without an end");
    std::vector<const std::string*> names;
    for (const auto& member : value->members) names.push_back(&member.first);
    std::sort(names.begin(), names.end(), [](const std::string* a, const std::string* b) { return *a < *b; });
    for (std::size_t i = 1; i < names.size(); ++i)
      if (*names[i - 1] == *names[i]) fail("names a member twice");
  }

  void array(int depth, Json* value) {
    value->type = Json::Type::array;
    ++at_;
    if (taken(']')) return;
    do value->items.push_back(parsed(depth + 1));
    while (taken(','));
    if (!taken(']')) fail("has an array without an end");
  }

  static bool is_digit(char c) { return c >= '0' && c <= '9'; }

  void digits() {
    if (at_ == end_ || !is_digit(*at_)) fail("has a number without digits");
    while (at_ != end_ && is_digit(*at_)) ++at_;
  }

  void number(Json* value) {
    const char* first = at_;
    if (*at_ == '-') ++at_;
    if (at_ != end_ && *at_ == '0')
      ++at_;
    else
      digits();
    const bool whole = at_ == end_ || (*at_ != '.' && *at_ != 'e' && *at_ != 'E');
    if (at_ != end_ && *at_ == '.') {
      ++at_;
      digits();
    }
    if (at_ != end_ && (*at_ == 'e' || *at_ == 'E')) {
      ++at_;
      if (at_ != end_ && (*at_ == '+' || *at_ == '-')) ++at_;
      digits();
    }
    if (at_ - first > 400) fail("has a number that is too long");
    if (whole) {
      value->type = Json::Type::integer;
      const bool negative = *first == '-';
      for (const char* c = first + negative; c != at_; ++c) {
        if (value->integer > (INT64_MAX - (*c - '0')) / 10) fail("has an integer that is too large");
        value->integer = value->integer * 10 + (*c - '0');
      }
      if (negative) value->integer = -value->integer;
      value->number = static_cast<double>(value->integer);
      return;
    }
    value->type = Json::Type::number;
    std::string digits(first, at_);
    // strtod reads the locale's decimal point.
    const char* point = std::localeconv()->decimal_point;
    const std::size_t place = digits.find('.');
    if (place != std::string::npos) digits.replace(place, 1, point);
    value->number = std::strtod(digits.c_str(), nullptr);
    if (!std::isfinite(value->number)) fail("has a number that is too large");
  }

  unsigned hexadecimal() {
    unsigned code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      if (at_ == end_) fail("has an escape without an end");
      const char c = *at_;
      const int digit = is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
      if (digit < 0) fail("has a wrong escape");
      code = code * 16 + static_cast<unsigned>(digit);
    }
    return code;
  }

  void escape(std::string* out) {
    if (++at_ == end_) fail("has an escape without an end");
    const char c = *at_++;
    static const char kEscapes[] = "\"\\/bfnrt", kMeant[] = "\"\\/\b\f\n\r\t";
    if (c != 'u') {
      const char* found = c ? std::strchr(kEscapes, c) : nullptr;
      if (!found) fail("has a wrong escape");
      out->push_back(kMeant[found - kEscapes]);
      return;
    }
    char32_t code = hexadecimal();
    if (code >= 0xd800 && code < 0xdc00) {
      if (end_ - at_ < 6 || at_[0] != '\\' || at_[1] != 'u') fail("has half of a surrogate pair");
      at_ += 2;
      const unsigned low = hexadecimal();
      if (low < 0xdc00 || low > 0xdfff) fail("has half of a surrogate pair");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xdc00 && code <= 0xdfff) {
      fail("has half of a surrogate pair");
    }
    if (code == 0) fail("has a zero character");
    text::append_utf8(code, out);
  }

  std::string string() {
    std::string found;
    for (++at_;;) {
      if (at_ == end_) fail("has a string without an end");
      const unsigned char c = static_cast<unsigned char>(*at_);
      if (c == '"') break;
      if (c < 0x20) fail("has a control character in a string");
      if (c == '\\') {
        escape(&found);
      } else {
        found.push_back(*at_++);
      }
    }
    ++at_;
    if (!text::is_utf8(found)) fail("has a string that is not UTF-8");
    return found;
  }

  const char *at_, *begin_, *end_;
  const std::string& name_;
};

}  // namespace

const Json* Json::find(const char* name) const {
  for (const auto& member : members)
    if (member.first == name) return &member.second;
  return nullptr;
}

Json Json::parse(const char* text, std::size_t size, const std::string& name) {
  return Parser(text, size, name).document();
}

}  // namespace tdt::capi
