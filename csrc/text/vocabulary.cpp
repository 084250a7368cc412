#include "text/vocabulary.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "text/unicode.h"
#include "text/utf8.h"

namespace tdt::text {
namespace {

constexpr char32_t kMark = 0x2581;              // with which SentencePiece writes a space
constexpr char32_t kUnknownSurface = 0x2047;    // what <unk> becomes in text
// No word lasts longer than a subtitle may, or is wider than its two lines: what seems to be one is divided.
constexpr double kLongestSeconds = 7.0;
constexpr int kWidest = 84;

bool is_letter(char32_t c, bool capitals) {
  return (c >= U'a' && c <= U'z') || (capitals && ((c >= U'A' && c <= U'Z') || (c >= U'0' && c <= U'9')));
}

// Whether a piece is <EOU>, <EOB>, or names a language, such as <en-US>: no text then.
bool is_event(const std::u32string& piece) {
  if (piece == U"<EOU>" || piece == U"<EOB>") return true;
  if (piece.size() < 2 || piece.front() != U'<' || piece.back() != U'>') return false;
  int parts = 0;
  for (std::size_t first = 1; first < piece.size();) {
    std::size_t end = first;
    while (end < piece.size() - 1 && piece[end] != U'-') ++end;
    const std::size_t length = end - first;
    if (parts == 0 ? length < 2 || length > 3 : length < 2 || length > 8) return false;
    for (std::size_t i = first; i < end; ++i)
      if (!is_letter(piece[i], parts > 0)) return false;
    ++parts;
    first = end + 1;
  }
  return parts > 1;
}

int hexadecimal(char32_t c) {
  if (c >= U'0' && c <= U'9') return static_cast<int>(c - U'0');
  if (c >= U'a' && c <= U'f') return static_cast<int>(c - U'a' + 10);
  if (c >= U'A' && c <= U'F') return static_cast<int>(c - U'A' + 10);
  return -1;
}

// Reads pieces such as <0xE2> or <0xE2><0x82>.
bool read_bytes(const std::u32string& piece, std::string* bytes) {
  bytes->clear();
  if (piece.empty() || piece.size() % 6 != 0) return false;
  for (std::size_t i = 0; i < piece.size(); i += 6) {
    const int high = hexadecimal(piece[i + 3]), low = hexadecimal(piece[i + 4]);
    if (piece.compare(i, 3, U"<0x") != 0 || piece[i + 5] != U'>' || high < 0 || low < 0) return false;
    bytes->push_back(static_cast<char>(16 * high + low));
  }
  return true;
}

// Whether the punctuation of a piece does not count as the vocabulary's, as in NeMo.
bool is_special(const std::u32string& piece) {
  if (std::all_of(piece.begin(), piece.end(), is_space)) return true;
  if (piece.front() == kMark || piece.compare(0, 2, U"##") == 0) return true;
  if (piece.find(U'\n') != std::u32string::npos) return false;
  return piece.size() > 1 &&
         ((piece.front() == U'[' && piece.back() == U']') || (piece.front() == U'<' && piece.back() == U'>'));
}

// Whether a run may be divided before a character: not before an accent, nor within an emoji of several characters.
template <class Run>
bool is_boundary(const Run& run, std::size_t place) {
  constexpr char32_t kJoiner = 0x200d;
  const char32_t code = run[place].code;
  if (is_attached(code)) return false;
  if (run[place - 1].code != kJoiner || !is_pictograph(code)) return true;
  std::size_t base = place - 1;
  while (base > 0 && is_attached(run[base].code)) --base;
  return !is_pictograph(run[base].code) || is_attached(run[base].code);
}

std::u32string stripped(const std::u32string& text) {
  const std::size_t first = text.find_first_not_of(U' '), last = text.find_last_not_of(U' ');
  return first == std::u32string::npos ? std::u32string() : text.substr(first, last - first + 1);
}

}  // namespace

Vocabulary::Vocabulary(std::vector<std::string> pieces, int blank) : pieces_(std::move(pieces)), blank_(blank) {
  const std::size_t count = pieces_.size();
  std::vector<std::u32string> codes(count);
  for (std::size_t i = 0; i < count; ++i) {
    codes[i] = from_utf8(pieces_[i]);
    const std::u32string& piece = codes[i];
    for (char32_t code : piece) has_spaces_ = has_spaces_ || code == kMark || code == U' ';
    marks_ends_ = marks_ends_ || (piece.size() > 1 && piece.back() == kMark);
    if (piece.empty() || is_special(piece)) continue;
    for (char32_t code : piece)
      if (is_punctuation(code)) marks_.insert(code);
  }
  texts_.resize(count);
  bytes_.resize(count);
  forms_.assign(count, Form::text);
  delimiter_.assign(count, 0);
  mark_.assign(count, 0);
  for (std::size_t i = 0; i < count; ++i) {
    const std::u32string& piece = codes[i];
    if (read_bytes(piece, &bytes_[i])) {
      forms_[i] = Form::bytes;
      continue;
    }
    if (static_cast<int>(i) == blank_ || is_event(piece)) {
      forms_[i] = Form::none;
      continue;
    }
    std::u32string& text = texts_[i];
    text = piece == U"<unk>" ? std::u32string(1, kUnknownSurface) : piece;
    std::replace(text.begin(), text.end(), kMark, U' ');
    if (text.empty()) forms_[i] = Form::none;
    const std::u32string bare = stripped(text);
    mark_[i] = bare.size() == 1 && marks_.count(bare[0]) > 0;
    delimiter_[i] = piece == U" ";
  }
}

std::vector<Vocabulary::Segment> Vocabulary::segments(const std::int32_t* tokens, std::size_t count) const {
  std::vector<Segment> found;
  // The bytes of one character may be spread over several pieces, and a piece may end within a character.
  Utf8Decoder characters;
  bool began = false;
  std::size_t began_at = 0;  // the token in which an unfinished character began
  const auto finish = [&](std::size_t last) {
    std::u32string text;
    characters.finish(&text);
    found.push_back({text, began_at, last, false, false});
    began = false;
  };
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t token = static_cast<std::size_t>(tokens[i]);
    if (forms_[token] == Form::bytes) {
      std::u32string text;
      for (char byte : bytes_[token]) characters.add(static_cast<unsigned char>(byte), &text);
      if (!text.empty()) {
        found.push_back({text, began ? began_at : i, i, false, false});
        began = false;
      }
      if (!began && characters.inside_character()) {
        began = true;
        began_at = i;
      }
      continue;
    }
    if (began) finish(i - 1);
    if (forms_[token] == Form::text)
      found.push_back({texts_[token], i, i, mark_[token] != 0, delimiter_[token] != 0});
  }
  if (began) finish(count - 1);
  return found;
}

// The places of spaces before marks of punctuation, which are no part of the text.
std::set<std::size_t> Vocabulary::removed_spaces(const std::u32string& text) const {
  std::set<std::size_t> removed;
  for (std::size_t i = 0; i + 1 < text.size(); ++i)
    if (is_space(text[i]) && marks_.count(text[i + 1])) removed.insert(i);
  return removed;
}

std::string Vocabulary::text(const std::int32_t* tokens, std::size_t count) const {
  std::u32string whole, kept;
  for (const Segment& segment : segments(tokens, count)) whole += segment.text;
  const std::set<std::size_t> removed = removed_spaces(whole);
  for (std::size_t i = 0; i < whole.size(); ++i)
    if (!removed.count(i) && !(kept.empty() && whole[i] == U' ')) kept.push_back(whole[i]);
  while (marks_ends_ && !kept.empty() && kept.back() == U' ') kept.pop_back();
  return to_utf8(kept);
}

std::vector<Vocabulary::Run> Vocabulary::runs(const std::vector<Segment>& segments,
                                              const std::vector<std::pair<double, double>>& times,
                                              const std::set<std::size_t>& removed, bool continued) const {
  std::vector<Run> found;
  Run run;
  bool leading = !continued, gap = false, marked = false;
  std::pair<std::size_t, double> mark{0, 0.0};  // the space mark before the next run: token and start
  std::size_t index = 0;
  for (std::size_t s = 0; s < segments.size(); ++s) {
    const Segment& segment = segments[s];
    const auto [start, end] = times[s];
    const auto visible = std::count_if(segment.text.begin(), segment.text.end(), [](char32_t c) { return !is_space(c); });
    int seen = 0;
    for (char32_t code : segment.text) {
      const bool left_out = removed.count(index) > 0;
      if (is_space(code)) {
        if (run.empty() || !left_out) {
          if (!run.empty()) {
            found.push_back(run);
            leading = false;
          }
          if (segment.delimiter) {
            // As in NeMo, it belongs to no word, but the first word starts with the first token.
            if (!marked && leading) mark = {segment.first, start}, marked = true;
          } else if (visible == 0) {
            mark = {segment.first, start};
            marked = true;
          } else if (!run.empty() || !left_out || !segment.punctuation) {
            marked = false;
          }
          run.clear();
          gap = false;
        } else {
          gap = !segment.punctuation && !segment.delimiter;
        }
      } else {
        const double length = (end - start) / static_cast<double>(visible);
        const std::size_t first = marked ? mark.first : segment.first;
        const double begin = marked ? mark.second : start + length * seen;
        run.push_back({code, begin, start + length * (seen + 1), first, segment.last, gap});
        marked = gap = false;
        ++seen;
      }
      ++index;
    }
  }
  if (!run.empty()) found.push_back(run);
  return found;
}

std::vector<Vocabulary::Run> Vocabulary::units(const Run& run) const {
  const bool unspaced = std::any_of(run.begin(), run.end(), [](const Character& c) { return is_unspaced(c.code); });
  if (has_spaces_ && !unspaced) return {run};
  std::vector<Run> found{{run[0]}};
  for (std::size_t i = 1; i < run.size(); ++i) {
    const bool breaks = is_boundary(run, i) && run[i].first != run[i - 1].first &&
                        !is_punctuation(run[i].code);
    if (breaks) found.emplace_back();
    found.back().push_back(run[i]);
  }
  return found;
}

std::vector<Word> Vocabulary::words(const Tokens& tokens, double frame_seconds, double previous_end) const {
  const std::vector<Segment> parts = segments(tokens.tokens, tokens.count);
  const bool continued = std::isfinite(previous_end);
  // In TDT, punctuation starts and ends where the token before it ends: models predict it late, often after a pause.
  std::vector<std::pair<double, double>> times;
  bool before = continued;
  double before_end = previous_end;
  std::u32string whole;
  for (const Segment& segment : parts) {
    double start = tokens.frames[segment.first];
    double end = static_cast<double>(tokens.frames[segment.last]) +
                 (tokens.has_durations ? tokens.durations[segment.last] : 1);
    if (tokens.has_durations && segment.punctuation && before) start = end = before_end;
    times.emplace_back(start, end);
    before = true;
    before_end = end;
    whole += segment.text;
  }
  const std::set<std::size_t> removed = removed_spaces(whole);
  const auto punctuation = [](const Character& character) { return is_punctuation(character.code); };
  std::vector<Word> found;
  for (const Run& run : runs(parts, times, removed, continued)) {
    bool spaced = !found.empty() || !continued || (is_space(parts[0].text[0]) && !removed.count(0));
    for (const Run& unit : units(run)) {
      // A word that is too long for one is divided at the longest pauses between its tokens.
      std::vector<Run> waiting{unit};
      while (!waiting.empty()) {
        const Run part = std::move(waiting.back());
        waiting.pop_back();
        int width = 0;
        for (const Character& character : part) width += columns(character.code);
        const bool wide = width > kWidest;
        const bool lasting = (part.back().end - part.front().start) * frame_seconds > kLongestSeconds;
        // Punctuation stays with its word, if it has one. Time passes between tokens only.
        std::vector<std::size_t> ends, breaks;
        for (std::size_t i = 1; (wide || lasting) && i < part.size(); ++i) {
          if (!is_boundary(part, i)) continue;
          ends.push_back(i);
          if (!punctuation(part[i]) && (wide || part[i].first != part[i - 1].first)) breaks.push_back(i);
        }
        if (breaks.empty() && wide) breaks = ends;
        if (!breaks.empty()) {
          const double middle = static_cast<double>(part.size()) / 2;
          const auto better = [&](std::size_t a, std::size_t b) {  // whether b is the better place
            const double pause_a = part[a].start - part[a - 1].end, pause_b = part[b].start - part[b - 1].end;
            if (pause_a != pause_b) return pause_a < pause_b;
            const bool token_a = part[a].first != part[a - 1].first, token_b = part[b].first != part[b - 1].first;
            if (token_a != token_b) return token_b;
            return std::fabs(static_cast<double>(a) - middle) > std::fabs(static_cast<double>(b) - middle);
          };
          std::size_t cut = breaks[0];
          for (std::size_t place : breaks)
            if (better(cut, place)) cut = place;
          waiting.emplace_back(part.begin() + static_cast<std::ptrdiff_t>(cut), part.end());
          waiting.emplace_back(part.begin(), part.begin() + static_cast<std::ptrdiff_t>(cut));
          continue;
        }
        // The last character with time: the one before a gap, if nothing but punctuation follows.
        std::size_t last = part.size() - 1;
        for (std::size_t i = part.size() - 1; i > 0 && punctuation(part[i]); --i)
          if (part[i].gap) last = i - 1;
        std::u32string text;
        for (const Character& character : part) text.push_back(character.code);
        const double end = std::min(part[last].end, part.front().start + kLongestSeconds / frame_seconds);
        found.push_back({to_utf8(text), part.front().start, end, part.front().first, part.back().last, spaced});
        spaced = false;
      }
    }
  }
  // Each word ends where the next one starts at the latest.
  double limit = INFINITY;
  for (auto word = found.rbegin(); word != found.rend(); ++word) {
    word->start = std::min(word->start, limit);
    word->end = std::max(word->start, std::min(word->end, limit));
    limit = word->start;
  }
  return found;
}

}  // namespace tdt::text
