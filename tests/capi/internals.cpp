// Prints what the C library makes of phrases: their spellings, and the automaton. For tests/capi/test_spelling.py.
//
// It reads numbers and lines: the number of pieces and the id of blank, the pieces; the number of phrases, each with its
// weight on a line of its own before it.
#include <cstdio>
#include <iostream>
#include <limits>
#include <string>
#include <vector>

#include "text/phrases.h"
#include "text/utf8.h"

int main() {
  std::size_t count;
  int blank;
  const auto end_line = [] { std::cin.ignore(std::numeric_limits<std::streamsize>::max(), '\n'); };
  while (std::cin >> count >> blank) {
    end_line();
    std::vector<std::string> pieces(count);
    for (std::string& piece : pieces) std::getline(std::cin, piece);
    const tdt::text::Speller speller(pieces, blank);
    std::cin >> count;
    std::vector<tdt::text::Phrase> phrases;
    for (std::size_t i = 0; i < count; ++i) {
      double weight;
      std::string text;
      std::cin >> weight;
      end_line();
      std::getline(std::cin, text);
      std::u32string place;
      phrases.push_back({speller.spellings(tdt::text::from_utf8(text), &place), weight});
      if (phrases.back().spellings.empty()) std::printf("place %s\n", tdt::text::to_utf8(place).c_str());
      for (const tdt::text::Spelling& spelling : phrases.back().spellings) {
        std::printf("spelling");
        for (std::int32_t token : spelling) std::printf(" %d", token);
        std::printf("\n");
      }
    }
    const tdt::text::AutomatonTables tables = tdt::text::phrase_automaton(phrases, 0.9, 1.7, &speller);
    const auto print = [](const char* name, const auto& values) {
      std::printf("%s", name);
      for (auto value : values) std::printf(" %.9g", static_cast<double>(value));
      std::printf("\n");
    };
    print("first_arc", tables.first_arc);
    print("arc_token", tables.arc_token);
    print("arc_weight", tables.arc_weight);
    print("arc_target", tables.arc_target);
    print("backoff_state", tables.backoff_state);
    print("backoff_weight", tables.backoff_weight);
    print("final_weight", tables.final_weight);
    print("start", std::vector<int>{tables.start});
  }
}
