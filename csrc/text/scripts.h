// Unicode scripts, and the tokens of a vocabulary that are written in them.
#pragma once

#include <string>
#include <vector>

#include "text/vocabulary.h"

namespace tdt::text {

// The number of a script by its name or code, in any case: "latin", "Cyrl", "old_italic". -1 if there is none.
int find_script(const std::string& name);

// The number of a character's script.
int script_of(char32_t code);

// Which tokens may be emitted, [V + 1] by id, if their letters must be of some scripts: the rule of the class Script of
// src/tdtdecode/allowed.py. Tokens that are no text by themselves always may.
std::vector<unsigned char> tokens_of_scripts(const Vocabulary& vocabulary, const std::vector<int>& scripts);

}  // namespace tdt::text
