// The pieces of a model's vocabulary, and how they are joined to text and words with times.
//
// The rules are those of src/tdtdecode/bundle/vocabulary.py and words.py, which the Python package uses: it has ICU,
// which finds words where a script has no spaces. Here such text is divided between tokens. tests/capi compares both on
// all other text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace tdt::text {

struct Word {
  std::string text;
  double start, end;  // in frames
  std::size_t first, last;
  bool space_before;
};

struct Tokens {
  std::size_t count;
  const std::int32_t *tokens, *frames, *durations;
  bool has_durations;  // false for RNN-T, where each token lasts a frame
};

class Vocabulary {
 public:
  // The V + 1 pieces by id, in UTF-8.
  Vocabulary(std::vector<std::string> pieces, int blank);

  const std::vector<std::string>& pieces() const { return pieces_; }
  int blank() const { return blank_; }

  // The text of a token; null if it is none by itself: blank, an event such as <EOU>, or bytes of UTF-8.
  const std::u32string* text(int token) const {
    const std::size_t i = static_cast<std::size_t>(token);
    const bool is_text = forms_[i] == Form::text || (pieces_[i].empty() && token != blank_);
    return is_text ? &texts_[i] : nullptr;
  }

  // The text of tokens, which must be ids of the vocabulary.
  std::string text(const std::int32_t* tokens, std::size_t count) const;

  // The words, in order; none starts before the one before it ends. `previous_end`: where the word before ends, in
  // frames; negative infinity if there is none.
  std::vector<Word> words(const Tokens& tokens, double frame_seconds, double previous_end) const;

 private:
  // A piece of text, and the tokens that it came from.
  struct Segment {
    std::u32string text;
    std::size_t first, last;
    bool punctuation;  // a single token that is one mark of punctuation, besides spaces
    bool delimiter;    // a token that is a space itself, not the mark of one
  };
  struct Character {
    char32_t code;
    double start, end;
    std::size_t first, last;
    bool gap;  // punctuation begins here that came after a space of its own: it adds no time to the word
  };
  using Run = std::vector<Character>;

  std::vector<Segment> segments(const std::int32_t* tokens, std::size_t count) const;
  std::set<std::size_t> removed_spaces(const std::u32string& text) const;
  std::vector<Run> runs(const std::vector<Segment>& segments, const std::vector<std::pair<double, double>>& times,
                        const std::set<std::size_t>& removed, bool continued) const;
  std::vector<Run> units(const Run& run) const;

  std::vector<std::string> pieces_;
  std::vector<std::u32string> texts_;      // as they are joined; U+2581 is a space
  enum class Form : char { text, bytes, none };
  std::vector<Form> forms_;
  std::vector<std::string> bytes_;         // of pieces such as <0xE2>
  std::vector<char> delimiter_, mark_;
  int blank_;
  bool has_spaces_ = false, marks_ends_ = false;
  std::set<char32_t> marks_;               // the punctuation of the vocabulary
};

}  // namespace tdt::text
