// UTF-8 and code points.
#pragma once

#include <string>

namespace tdt::text {

inline void append_utf8(char32_t code, std::string* text) {
  const auto byte = [&](unsigned value) { text->push_back(static_cast<char>(value)); };
  if (code < 0x80) {
    byte(code);
  } else if (code < 0x800) {
    byte(0xc0 | (code >> 6));
    byte(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    byte(0xe0 | (code >> 12));
    byte(0x80 | ((code >> 6) & 0x3f));
    byte(0x80 | (code & 0x3f));
  } else {
    byte(0xf0 | (code >> 18));
    byte(0x80 | ((code >> 12) & 0x3f));
    byte(0x80 | ((code >> 6) & 0x3f));
    byte(0x80 | (code & 0x3f));
  }
}

inline std::string to_utf8(const std::u32string& text) {
  std::string bytes;
  for (char32_t code : text) append_utf8(code, &bytes);
  return bytes;
}

// Decodes UTF-8 that may come in parts. What is not UTF-8 becomes U+FFFD, one for each longest part that could have
// begun a character (Unicode's recommendation, and what Python does).
class Utf8Decoder {
 public:
  void add(unsigned char byte, std::u32string* text) {
    if (needed_ > 0) {
      if (byte >= low_ && byte <= high_) {
        code_ = (code_ << 6) | (byte & 0x3f);
        low_ = 0x80, high_ = 0xbf;
        if (--needed_ == 0) text->push_back(code_);
        return;
      }
      finish(text);
    }
    low_ = 0x80, high_ = 0xbf;
    if (byte < 0x80) {
      text->push_back(byte);
    } else if (byte >= 0xc2 && byte <= 0xdf) {
      needed_ = 1, code_ = byte & 0x1f;
    } else if (byte >= 0xe0 && byte <= 0xef) {
      needed_ = 2, code_ = byte & 0x0f;
      if (byte == 0xe0) low_ = 0xa0;
      if (byte == 0xed) high_ = 0x9f;
    } else if (byte >= 0xf0 && byte <= 0xf4) {
      needed_ = 3, code_ = byte & 0x07;
      if (byte == 0xf0) low_ = 0x90;
      if (byte == 0xf4) high_ = 0x8f;
    } else {
      replaced_ = true;
      text->push_back(0xfffd);
    }
  }

  // Ends the text: what is left of a character becomes U+FFFD.
  void finish(std::u32string* text) {
    if (needed_ == 0) return;
    needed_ = 0;
    replaced_ = true;
    text->push_back(0xfffd);
  }

  bool inside_character() const { return needed_ > 0; }
  bool replaced() const { return replaced_; }

 private:
  int needed_ = 0;
  char32_t code_ = 0;
  unsigned char low_ = 0x80, high_ = 0xbf;  // what the next byte may be
  bool replaced_ = false;
};

inline std::u32string from_utf8(const std::string& bytes, bool* good = nullptr) {
  std::u32string text;
  Utf8Decoder decoder;
  for (char byte : bytes) decoder.add(static_cast<unsigned char>(byte), &text);
  decoder.finish(&text);
  if (good) *good = !decoder.replaced();
  return text;
}

inline bool is_utf8(const std::string& bytes) {
  bool good;
  from_utf8(bytes, &good);
  return good;
}

}  // namespace tdt::text
