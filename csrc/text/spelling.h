// Splits text into the pieces of a vocabulary, in all the ways that a model is likely to emit it.
//
// The rules are those of src/tdtdecode/fusion/spelling.py, which the Python package uses: it also normalises text (NFKC)
// and can ignore case, by Python's tables of characters. tests/capi compares both.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace tdt::text {

// Stands before a spelling that is only found where an utterance begins.
constexpr std::int32_t kBegin = -1;

using Spelling = std::vector<std::int32_t>;

// The pieces of one tokenizer, by text. Their ids rank the merges of byte-pair encoding.
class Tokenizer {
 public:
  explicit Tokenizer(const std::vector<std::pair<std::u32string, std::int32_t>>& pieces);

  // The best spellings of words, each in any of its forms. False if there is none; `place` is then where no piece fits.
  bool spellings(const std::vector<std::vector<std::u32string>>& words, std::vector<Spelling>* found,
                 std::u32string* place) const;

  bool has_spaces() const { return has_spaces_; }
  // Whether the space is a piece of its own, and in no other piece.
  bool has_lone_spaces() const { return has_lone_spaces_; }

 private:
  struct Edge {
    std::size_t end;
    Spelling tokens;
  };
  using Edges = std::vector<std::vector<Edge>>;  // by the place where they start, the longest first

  bool splits(const std::u32string& word, std::vector<Spelling>* found, std::u32string* place) const;
  bool merged(const std::u32string& word, Spelling* split) const;
  std::vector<Edge> edges(const std::u32string& word, std::size_t start) const;
  std::vector<Edge> spelt_in_bytes(const std::u32string& word, std::size_t start) const;

  std::unordered_map<std::u32string, std::int32_t> tokens_;
  std::int32_t bytes_[256];
  bool has_bytes_ = false, has_spaces_ = false, has_lone_spaces_ = false;
  std::size_t longest_ = 0;
};

class Speller {
 public:
  // The V + 1 pieces of a token file, in UTF-8.
  Speller(const std::vector<std::string>& pieces, int blank);

  // The spellings of a text: byte-pair encoding's first, then those with the fewest pieces; 16 at most for each
  // tokenizer that the vocabulary was joined from. Empty if the pieces cannot spell it; `place` is then where none fits.
  std::vector<Spelling> spellings(const std::u32string& text, std::u32string* place) const;

  // All tokens that a token of a spelling stands for: those of the same text.
  const std::vector<std::int32_t>& same(std::int32_t token) const { return same_[first_of(token)]; }
  std::int32_t first_of(std::int32_t token) const { return first_of_[token]; }

 private:
  bool spelt(const Tokenizer& tokenizer, const std::vector<std::u32string>& words, std::vector<Spelling>* found,
             std::u32string* place) const;

  std::vector<std::int32_t> first_of_;
  std::vector<std::vector<std::int32_t>> same_;
  std::vector<Tokenizer> tokenizers_;
};

// The words of a text, without the white space around them.
std::vector<std::u32string> split(const std::u32string& text);

}  // namespace tdt::text
