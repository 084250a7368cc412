#include "text/spelling.h"

#include <algorithm>
#include <queue>
#include <set>

#include "text/unicode.h"
#include "text/utf8.h"

namespace tdt::text {
namespace {

constexpr char32_t kSpaceMark = 0x2581;
constexpr std::size_t kMostSpellings = 16;
// A word's spellings have at most this many pieces more than its shortest one; byte-pair encoding's is always kept.
constexpr std::size_t kExtraPieces = 1;
constexpr std::size_t kMostTokenizers = 64;
constexpr std::size_t kUnreachable = static_cast<std::size_t>(-1);

// Thai and Lao; Tibetan; Burmese; Khmer; kana, Bopomofo and Han.
constexpr Range kWithoutSpaces[] = {
    {0x0e00, 0x0eff}, {0x0f00, 0x0fff}, {0x1000, 0x109f}, {0x1780, 0x17ff}, {0x3005, 0x3007},   {0x3040, 0x312f},
    {0x31f0, 0x31ff}, {0x3400, 0x4dbf}, {0x4e00, 0x9fff}, {0xf900, 0xfaff}, {0xff66, 0xff9f}, {0x20000, 0x3134f},
};

// Apostrophes and hyphens of word processors, as models have them.
char32_t typed(char32_t code) {
  switch (code) {
    case 0x2018:
    case 0x2019: return U'\'';
    case 0x2010:
    case 0x2011:
    case 0x2013: return U'-';
    default: return code;
  }
}

int hexadecimal(char32_t c) {
  if (c >= U'0' && c <= U'9') return static_cast<int>(c - U'0');
  if (c >= U'a' && c <= U'f') return static_cast<int>(c - U'a' + 10);
  if (c >= U'A' && c <= U'F') return static_cast<int>(c - U'A' + 10);
  return -1;
}

}  // namespace

std::vector<std::u32string> split(const std::u32string& text) {
  std::vector<std::u32string> words;
  bool inside = false;
  for (char32_t code : text) {
    if (is_space(code)) {
      inside = false;
      continue;
    }
    if (!inside) words.emplace_back();
    inside = true;
    words.back().push_back(code);
  }
  return words;
}

Tokenizer::Tokenizer(const std::vector<std::pair<std::u32string, std::int32_t>>& pieces) {
  std::fill(bytes_, bytes_ + 256, -1);
  std::size_t with_space = 0;
  for (const auto& [piece, token] : pieces) {
    if (tokens_.emplace(piece, token).second && piece.find(kSpaceMark) != std::u32string::npos) ++with_space;
    longest_ = std::max(longest_, piece.size());
    if (piece.size() != 6 || piece.compare(0, 3, U"<0x") != 0 || piece[5] != U'>') continue;
    const int high = hexadecimal(piece[3]), low = hexadecimal(piece[4]);
    if (high < 0 || low < 0) continue;
    bytes_[16 * high + low] = token;
    has_bytes_ = true;
  }
  has_spaces_ = with_space > 0;
  has_lone_spaces_ = with_space == 1 && tokens_.count(std::u32string(1, kSpaceMark));
}

bool Tokenizer::spellings(const std::vector<std::vector<std::u32string>>& words, std::vector<Spelling>* found,
                          std::u32string* place) const {
  std::vector<Spelling> phrases(1);
  for (const std::vector<std::u32string>& forms : words) {
    std::vector<Spelling> ways;
    bool failed = false;
    for (const std::u32string& form : forms) {
      std::vector<Spelling> of_form;
      std::u32string where;
      if (!splits(form, &of_form, &where)) {
        if (!failed) *place = where;
        failed = true;
        continue;
      }
      const std::size_t before = ways.size();
      for (Spelling& way : of_form)
        if (std::find(ways.begin(), ways.begin() + static_cast<std::ptrdiff_t>(before), way) ==
            ways.begin() + static_cast<std::ptrdiff_t>(before))
          ways.push_back(std::move(way));
    }
    if (ways.empty()) return false;
    // Ranked by the sum of both ranks, so that the best spellings of all words together come first.
    std::vector<std::pair<std::size_t, std::size_t>> ranks;
    for (std::size_t i = 0; i < phrases.size(); ++i)
      for (std::size_t j = 0; j < ways.size(); ++j) ranks.emplace_back(i, j);
    std::stable_sort(ranks.begin(), ranks.end(),
                     [](const auto& a, const auto& b) { return a.first + a.second < b.first + b.second; });
    std::vector<Spelling> next;
    for (std::size_t rank = 0; rank < std::min(ranks.size(), kMostSpellings); ++rank) {
      next.push_back(phrases[ranks[rank].first]);
      const Spelling& way = ways[ranks[rank].second];
      next.back().insert(next.back().end(), way.begin(), way.end());
    }
    phrases.swap(next);
  }
  *found = std::move(phrases);
  return true;
}

// A word's splits: byte-pair encoding's, then the others, those with the fewest pieces first.
bool Tokenizer::splits(const std::u32string& word, std::vector<Spelling>* found, std::u32string* place) const {
  const std::size_t length = word.size();
  Edges from(length);
  for (std::size_t start = 0; start < length; ++start) from[start] = edges(word, start);
  // The fewest tokens from each place to the end.
  std::vector<std::size_t> fewest(length + 1);
  const auto count = [&] {
    fewest[length] = 0;
    for (std::size_t start = length; start-- > 0;) {
      fewest[start] = kUnreachable;
      for (const Edge& edge : from[start])
        if (fewest[edge.end] != kUnreachable)
          fewest[start] = std::min(fewest[start], edge.tokens.size() + fewest[edge.end]);
    }
  };
  count();
  if (fewest[0] == kUnreachable && has_bytes_) {
    for (std::size_t start = 0; start < length; ++start)
      if (from[start].empty()) from[start] = spelt_in_bytes(word, start);
    count();
  }
  if (fewest[0] == kUnreachable) {
    std::size_t reached = 0;
    std::vector<char> seen(length + 1, 0);
    seen[0] = 1;
    for (std::size_t start = 0; start < length; ++start) {
      if (!seen[start]) continue;
      reached = start;
      for (const Edge& edge : from[start]) seen[edge.end] = 1;
    }
    if (seen[length]) reached = length;
    *place = word.substr(reached, 8);
    return false;
  }
  Spelling first;
  if (merged(word, &first)) found->push_back(first);

  // A best-first search, the fewest tokens first. `fewest` tells exactly how many are still needed, so no split comes
  // too early. Of splits that need the same, the latest is followed first: it gets to the end before others are begun.
  struct Way {
    std::size_t needed;
    std::uint64_t order;
    std::size_t place;
    Spelling tokens;
  };
  const auto later = [](const Way& a, const Way& b) {
    return a.needed != b.needed ? a.needed > b.needed : a.order < b.order;
  };
  std::priority_queue<Way, std::vector<Way>, decltype(later)> waiting(later);
  waiting.push({fewest[0], 0, 0, {}});
  std::uint64_t order = 0;
  for (std::size_t walked = 0; !waiting.empty() && walked < kMostSpellings;) {
    const Way way = waiting.top();
    waiting.pop();
    if (way.place == length) {
      ++walked;
      if (way.tokens.size() <= fewest[0] + kExtraPieces && way.tokens != first) found->push_back(way.tokens);
      continue;
    }
    for (auto edge = from[way.place].rbegin(); edge != from[way.place].rend(); ++edge) {
      if (fewest[edge->end] == kUnreachable) continue;
      Way next{way.tokens.size() + edge->tokens.size() + fewest[edge->end], ++order, edge->end, way.tokens};
      next.tokens.insert(next.tokens.end(), edge->tokens.begin(), edge->tokens.end());
      waiting.push(std::move(next));
    }
  }
  return true;
}

// A word's split by byte-pair encoding; false if one of its characters is not a piece. The order of the merges is that
// of the pieces in the vocabulary.
bool Tokenizer::merged(const std::u32string& word, Spelling* split) const {
  std::vector<std::u32string> parts;
  for (char32_t code : word) parts.emplace_back(1, code);
  std::vector<std::int32_t> joined;  // the token of each pair of neighbours; -1: none
  const auto token_of = [&](const std::u32string& text) {
    const auto found = tokens_.find(text);
    return found == tokens_.end() ? -1 : found->second;
  };
  for (std::size_t i = 0; i + 1 < parts.size(); ++i) joined.push_back(token_of(parts[i] + parts[i + 1]));
  for (;;) {
    std::size_t best = joined.size();
    for (std::size_t i = 0; i < joined.size(); ++i)
      if (joined[i] >= 0 && (best == joined.size() || joined[i] < joined[best])) best = i;
    if (best == joined.size()) break;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    joined.erase(joined.begin() + static_cast<std::ptrdiff_t>(best));
    if (best < joined.size()) joined[best] = token_of(parts[best] + parts[best + 1]);
    if (best > 0) joined[best - 1] = token_of(parts[best - 1] + parts[best]);
  }
  for (const std::u32string& part : parts) {
    const std::int32_t token = token_of(part);
    if (token < 0) {
      split->clear();
      return false;
    }
    split->push_back(token);
  }
  return true;
}

// The pieces that match the word at a place, longest first.
std::vector<Tokenizer::Edge> Tokenizer::edges(const std::u32string& word, std::size_t start) const {
  std::vector<Edge> found;
  for (std::size_t end = std::min(word.size(), start + longest_); end > start; --end) {
    const auto token = tokens_.find(word.substr(start, end - start));
    if (token != tokens_.end()) found.push_back({end, {token->second}});
  }
  return found;
}

std::vector<Tokenizer::Edge> Tokenizer::spelt_in_bytes(const std::u32string& word, std::size_t start) const {
  std::string bytes;
  append_utf8(word[start] == kSpaceMark ? U' ' : word[start], &bytes);
  Spelling tokens;
  for (char byte : bytes) {
    const std::int32_t token = bytes_[static_cast<unsigned char>(byte)];
    if (token < 0) return {};
    tokens.push_back(token);
  }
  return {{start + 1, tokens}};
}

Speller::Speller(const std::vector<std::string>& pieces, int blank) {
  std::vector<std::pair<std::u32string, std::int32_t>> whole;
  std::unordered_map<std::u32string, std::int32_t> first;
  first_of_.resize(pieces.size());
  same_.resize(pieces.size());
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const auto token = static_cast<std::int32_t>(i);
    first_of_[i] = token;
    if (token == blank) continue;
    std::u32string piece = from_utf8(pieces[i]);
    std::replace(piece.begin(), piece.end(), U' ', kSpaceMark);
    first_of_[i] = first.emplace(piece, token).first->second;
    same_[first_of_[i]].push_back(token);
    whole.emplace_back(std::move(piece), token);
  }
  tokenizers_.emplace_back(whole);
  // If some pieces stand twice, the vocabulary was joined from several: one ends where a piece comes again. Each of them
  // merges in an order of its own.
  std::vector<std::vector<std::pair<std::u32string, std::int32_t>>> parts(1);
  std::set<std::u32string> seen;
  for (const auto& piece : whole) {
    if (!seen.insert(piece.first).second) {
      parts.emplace_back();
      seen = {piece.first};
    }
    parts.back().push_back(piece);
  }
  if (parts.size() == 1 || parts.size() > kMostTokenizers) return;
  for (const auto& part : parts) tokenizers_.emplace_back(part);
}

std::vector<Spelling> Speller::spellings(const std::u32string& text, std::u32string* place) const {
  std::u32string retyped = text;
  std::transform(retyped.begin(), retyped.end(), retyped.begin(), typed);
  bool failed = false;
  for (const std::u32string* form : {&text, static_cast<const std::u32string*>(&retyped)}) {
    std::vector<Spelling> found;
    const std::vector<std::u32string> words = split(*form);
    for (const Tokenizer& tokenizer : tokenizers_) {
      std::vector<Spelling> ways;
      std::u32string where;
      if (!spelt(tokenizer, words, &ways, &where)) {
        if (!failed) *place = where;
        failed = true;
        continue;
      }
      for (Spelling& way : ways)
        if (std::find(found.begin(), found.end(), way) == found.end()) found.push_back(std::move(way));
    }
    if (!found.empty()) return found;
    if (retyped == text) break;
  }
  return {};
}

bool Speller::spelt(const Tokenizer& tokenizer, const std::vector<std::u32string>& words, std::vector<Spelling>* found,
                    std::u32string* place) const {
  const auto needs_no_space = [](char32_t code) { return has(kWithoutSpaces, code); };
  const bool spaced = tokenizer.has_spaces();
  const auto with_space = [&](const std::u32string& word) { return spaced ? kSpaceMark + word : word; };
  // Each word is split by itself, with the space before it. Where scripts need no spaces, it is also spelt without.
  std::vector<std::vector<std::u32string>> forms;
  for (std::size_t i = 0; i < words.size(); ++i) {
    forms.push_back({with_space(words[i])});
    if (spaced && (needs_no_space(words[i].front()) || (i > 0 && needs_no_space(words[i - 1].back()))))
      forms.back().push_back(words[i]);
  }
  if (!tokenizer.spellings(forms, found, place)) return false;
  const std::size_t count = found->size();
  if (tokenizer.has_lone_spaces() && forms[0].size() == 1) {
    forms[0] = {words[0]};
    std::vector<Spelling> at_begin;
    if (!tokenizer.spellings(forms, &at_begin, place)) return false;
    found->insert(found->end(), at_begin.begin(), at_begin.end());
  }
  for (std::size_t i = 0; i < found->size(); ++i) {
    Spelling& spelling = (*found)[i];
    for (std::int32_t& token : spelling) token = first_of(token);
    if (i >= count) spelling.insert(spelling.begin(), kBegin);
  }
  return true;
}

}  // namespace tdt::text
