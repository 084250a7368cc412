#include "text/scripts.h"

#include <algorithm>
#include <iterator>

#include "text/script_tables.h"

namespace tdt::text {

int find_script(const std::string& name) {
  std::string wanted;
  for (char c : name)
    if (c != ' ' && c != '-' && c != '_') wanted.push_back(c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c);
  for (const ScriptName& known : kScriptNames)
    if (wanted == known.name) return known.script;
  return -1;
}

int script_of(char32_t code) {
  const ScriptRange* range = std::lower_bound(std::begin(kScripts), std::end(kScripts), code,
                                              [](const ScriptRange& a, char32_t b) { return a.last < b; });
  return range != std::end(kScripts) && range->first <= code ? range->script : 0;
}

std::vector<unsigned char> tokens_of_scripts(const Vocabulary& vocabulary, const std::vector<int>& scripts) {
  const auto named = [&](int script) { return std::find(scripts.begin(), scripts.end(), script) != scripts.end(); };
  const bool common = named(kCommon);
  std::vector<unsigned char> may(vocabulary.pieces().size(), 1);
  for (std::size_t token = 0; token < may.size(); ++token) {
    const std::u32string* text = vocabulary.text(static_cast<int>(token));
    if (!text) continue;
    bool letters = false, right = true;
    for (char32_t code : *text) {
      const int script = script_of(code);
      if (script == kCommon || script == kInherited) continue;  // what several scripts share
      letters = true;
      right = right && named(script);
    }
    may[token] = letters ? right : common;
  }
  return may;
}

}  // namespace tdt::text
