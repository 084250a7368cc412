// Properties of characters.
#pragma once

#include <cstddef>

#include "text/unicode_tables.h"

namespace tdt::text {

template <std::size_t N>
inline bool has(const Range (&ranges)[N], char32_t code) {
  std::size_t low = 0, high = N;
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    if (code > ranges[middle].last)
      low = middle + 1;
    else
      high = middle;
  }
  return low < N && code >= ranges[low].first;
}

inline bool is_space(char32_t code) { return has(kSpace, code); }
inline bool is_punctuation(char32_t code) { return has(kPunctuation, code); }
// Whether it belongs to a script that is written without spaces between words.
inline bool is_unspaced(char32_t code) { return has(kUnspaced, code); }

// The room that a character takes: 2 if it is wide, 0 if it is not seen or lies on the one before it.
inline int columns(char32_t code) {
  if (code < 0x7f) return 1;
  if (has(kInvisible, code) || has(kContinuing, code)) return 0;
  return has(kWide, code) ? 2 : 1;
}

// Whether a character lies on the one before it: an accent, a joiner, the colour of an emoji.
inline bool is_attached(char32_t code) { return has(kContinuing, code) || (code >= 0x1f3fb && code <= 0x1f3ff); }

inline bool is_pictograph(char32_t code) { return code >= 0x1f000 || (code >= 0x2194 && code <= 0x2b55); }

}  // namespace tdt::text
